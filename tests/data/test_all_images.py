"""All images of a place: how it is named, and formats and sizes of what is there."""

import numpy as np
import pytest
from PIL import Image

from tfcq.config import DataConfig
from tfcq.data.all_images import all_splits, dataset_of, whole
from tfcq.data.formats import Formats
from tfcq.data.transforms import Transform
from tfcq.errors import UserError

RGB = np.random.RandomState(0).randint(0, 256, (6, 8, 8, 3)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Three PNG files, of which one is larger and one grey, and two JPEG files, at several depths."""
    (tmp_path / "real" / "b").mkdir(parents=True)
    for number, name in enumerate(["b/1.png", "a.jpg", "2.jpg"]):
        Image.fromarray(RGB[number]).save(tmp_path / "real" / name, quality=95)
    Image.fromarray(RGB[3].repeat(2, 0)).save(tmp_path / "real" / "large.png")
    Image.fromarray(RGB[4, :, :, 0]).save(tmp_path / "real" / "grey.png")
    return tmp_path / "real"


@pytest.mark.parametrize(
    "place, dataset",
    [
        ("real", "folder:{0}/real"),
        ("./real/", "folder:{0}/real"),
        ("folder:real", "folder:{0}/real"),
        ("npz:a.npz", "npz:{0}/a.npz"),
        ("list:names.txt", "list:{0}/names.txt"),
        ("cifar10", "cifar10"),
        ("digits", "digits"),
    ],
)
def test_a_place_names_a_data_set(folder, monkeypatch, place, dataset):
    monkeypatch.chdir(folder.parent)
    assert dataset_of(place, "generated") == dataset.format(folder.parent)


@pytest.mark.parametrize("place", ["", None, 3])
def test_what_names_nothing_is_refused(place):
    with pytest.raises(UserError, match="generated: expected a folder or the name of a data set, received"):
        dataset_of(place, "generated")


def test_formats_sizes_and_colours_are_counted(folder):
    (raw,) = all_splits(DataConfig(dataset=f"folder:{folder}")).values()
    formats = Formats.of([raw], "real")
    assert formats.formats == {"PNG": 3, "JPEG": 2}
    assert formats.sizes == {"8x8": 4, "16x8": 1} and formats.colours == {"rgb": 4, "grey": 1}
    prepared = {"as they are": 3, "cut": 1, "converted to rgb": 1}
    assert formats.facts(Transform(8, 0, "area", 3)) == {
        "formats": {"PNG": 3, "JPEG": 2}, "jpeg_qualities": {"95": 2}, "sizes": {"8x8": 4, "16x8": 1},
        "colours": {"rgb": 4, "grey": 1}, "prepared": prepared,
    }
    many = Formats(formats.counts + type(formats.counts)({("PNG", (9, side, 3)): 2 for side in range(9, 19)}))
    assert list(many.facts(Transform(8, 0, "area", 3))["sizes"].values()) == [4, 2, 2, 2, 2, 13]


def test_all_images_are_one_split_in_their_order(folder):
    config = DataConfig(dataset=f"folder:{folder}", image_size=8, color="rgb")
    (raw,) = all_splits(config).values()
    dataset = whole(raw, config, "some")
    assert dataset.num_images("some") == 5 and dataset.image_shape == (8, 8, 3)
    assert [entry.key for entry in dataset.manifest.splits["some"]] == ["2.jpg", "a.jpg", "b/1.png", "grey.png", "large.png"]
    images = dataset.images("some", [2, 4])
    np.testing.assert_array_equal(images[0], RGB[0])
    np.testing.assert_array_equal(images[1], RGB[3].repeat(2, 0)[4:12])
