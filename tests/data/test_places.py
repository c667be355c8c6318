"""A path in the place of a data set's name: what the message proposes is what would have worked."""

import numpy as np
import PIL.Image
import pytest

from tfcq import data
from tfcq.config import DataConfig
from tfcq.data import places
from tfcq.errors import UserError


@pytest.fixture
def there(tmp_path, monkeypatch):
    """A current folder with a file or folder of each kind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    np.savez("f.npz", images=np.arange(128, dtype=np.uint8).reshape(8, 4, 4))
    np.save("f.npy", np.zeros((8, 4, 4), np.uint8))
    for folder in ("pictures/a", "mnist", "home/pictures", "empty"):
        (tmp_path / folder).mkdir(parents=True)
    for path in ("pictures/a/1.png", "home/pictures/1.png", "one.jpg"):
        PIL.Image.new("L", (4, 4)).save(path)
    (tmp_path / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(b"")
    (tmp_path / "pictures.zip").write_bytes(b"PK")
    return tmp_path


@pytest.mark.parametrize(
    ("dataset", "told"),
    [
        ("f.npz", "(did you mean npz:f.npz?)"),
        ("./f.npz", "(did you mean npz:./f.npz?)"),
        ("folder:f.npz", "(did you mean npz:f.npz?)"),
        ("idx:f.npz", "(did you mean npz:f.npz?)"),
        ("npy:f.npz", "(did you mean npz:f.npz?)"),
        ("g.npz", "(there is no g.npz; did you mean npz:g.npz?)"),
        ("/no/such/G.NPZ", "(there is no /no/such/G.NPZ; did you mean npz:/no/such/G.NPZ?)"),
        ("f.npy", "(an array goes into a file for npz:FILE by numpy.savez(FILE, images=array))"),
        ("npz:f.npy", "by numpy.savez(FILE, images=array))"),
        ("pictures", "(did you mean folder:pictures?)"),
        ("pictures/", "(did you mean folder:pictures/?)"),
        ("~/pictures", "(did you mean folder:~/pictures?)"),
        ("npz:pictures", "(did you mean folder:pictures?)"),
        ("idx:pictures", "(did you mean folder:pictures?)"),
        ("foldr:pictures", "(did you mean folder:pictures?)"),
        ("Folder:pictures", "(did you mean folder:pictures?)"),
        ("/no/such", "(there is no /no/such; did you mean folder:/no/such?)"),
        ("../no/such", "(there is no ../no/such; did you mean folder:../no/such?)"),
        ("mnist", "(did you mean idx:mnist?)"),
        ("folder:mnist", "(did you mean idx:mnist?)"),
        ("mnist/train-images-idx3-ubyte.gz", "(did you mean idx:mnist?)"),
        ("idx:mnist/train-images-idx3-ubyte.gz", "(did you mean idx:mnist?)"),
        ("pictures/a/1.png", "(did you mean folder:pictures/a?)"),
        ("folder:one.jpg", "(did you mean folder:.?)"),
        ("pictures.zip", "(unpack it, and give folder:DIR)"),
        ("folder:pictures.zip", "(unpack it, and give folder:DIR)"),
        ("digits", ""),
        ("cifar10", ""),
        ("mnist:3.0.1", ""),
        ("lsun/bedroom", ""),
        ("folder:empty", ""),
        ("folder:/no/such", ""),
        ("npz:/no/such", ""),
        ("npz:f.npz", ""),
    ],
)
def test_what_was_meant(there, dataset, told):
    hint = places.meant(dataset)
    assert hint.startswith(" (") == bool(told) and hint.endswith(told)


@pytest.mark.parametrize("dataset", ["f.npz", "npz:pictures", "/no/such", "foldr:pictures/a", "folder:mnist", "pictures"])
def test_the_message_ends_with_it(there, dataset):
    with pytest.raises(UserError) as caught:
        data.load(DataConfig(dataset=dataset, image_size=4))
    assert str(caught.value).endswith(places.meant(dataset)) and places.meant(dataset)
    assert "\n" not in str(caught.value) and str(caught.value).count("did you mean") == 1


def test_what_it_proposes_works(there):
    for dataset in ("f.npz", "folder:f.npz"):
        meant = places.meant(dataset).partition("mean ")[2].removesuffix("?)")
        assert data.load(DataConfig(dataset=meant, image_size=4, num_validation=1)).num_images("train") > 0


def test_a_folder_here_does_not_hide_a_data_set_of_its_name(there, monkeypatch):
    """mnist/ beside a prepared TFDS set of that name: the name means the set."""
    asked = []
    monkeypatch.setattr("tfcq.data.opening.tfds", lambda config, choices, suggests: asked.append(config.dataset) or "the set")
    from tfcq.data import dataset

    assert dataset.open_source(DataConfig(dataset="mnist")) == "the set" and asked == ["mnist"]
