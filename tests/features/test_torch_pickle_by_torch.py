"""Files that PyTorch itself wrote, in both formats."""

import numpy as np
import pytest

from tfcq.features.torch_pickle import read_state_dict

torch = pytest.importorskip("torch", reason="PyTorch is not installed; test_torch_pickle.py writes its formats by hand")


@pytest.mark.parametrize("zipped", [False, True])
def test_the_state_dict_of_a_module(tmp_path, zipped):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    tensors = module.state_dict()
    tensors["view"] = torch.arange(12.0, dtype=torch.float64).reshape(3, 4).T[1:]
    tensors["half"] = torch.tensor([0.5, -1.0]).half()
    path = tmp_path / "weights.pth"
    torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
    found = read_state_dict(path)
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor.numpy())
        assert found[name].dtype == tensor.numpy().dtype
