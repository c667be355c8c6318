"""digits and photo_patches."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tfcq.config import DataConfig
from tfcq.data import builtin, load
from tfcq.errors import UserError


def test_digits_are_scikit_learns():
    dataset = load(DataConfig(dataset="digits", image_size=8))
    assert dataset.image_shape == (8, 8, 1)
    sizes = [dataset.num_images(split) for split in ("train", "validation", "test")]
    assert sizes == [1439, 179, 179] and sum(sizes) == 1797
    found = np.concatenate([dataset.images(split, range(size)) for split, size in zip(
        ("train", "validation", "test"), sizes)])
    theirs = np.floor(load_digits().images * 255 / 16 + 0.5).astype(np.uint8)
    assert found.max() == 255 and found.min() == 0
    # The same images, each as often, in whatever order.
    assert sorted(image.tobytes() for image in found) == sorted(image.tobytes() for image in theirs)


def test_digits_at_the_default_size_repeat_each_pixel():
    small, large = load(DataConfig(image_size=8)), load(DataConfig())
    np.testing.assert_array_equal(large.images("test", [3]), small.images("test", [3]).repeat(4, 1).repeat(4, 2))


def test_photo_patches():
    dataset = load(DataConfig(dataset="photo_patches"))
    assert dataset.image_shape == (32, 32, 3)
    assert [dataset.num_images(split) for split in ("train", "validation", "test")] == [3944, 464, 464]
    again = load(DataConfig(dataset="photo_patches"))
    for split in ("train", "validation", "test"):
        np.testing.assert_array_equal(dataset.images(split, range(400)), again.images(split, range(400)))
    assert dataset.images("train", range(3944)).std() > 50  # photographs, not blanks


def test_photo_patches_follow_the_image_size():
    assert load(DataConfig(dataset="photo_patches", image_size=64, color="grey")).image_shape == (64, 64, 1)
    assert load(DataConfig(dataset="photo_patches", image_size=128)).num_images("test") == 29
    with pytest.raises(UserError, match="image_size=512 leaves 0 tiles of 1536x1536.*lower image_size"):
        load(DataConfig(dataset="photo_patches", image_size=512))


def test_splits_of_photo_patches_share_no_pixel(monkeypatch):
    """Photographs whose pixels say where they are: after cutting, the sets of places must be disjoint."""
    size = 4
    photographs = []
    for number in range(3):
        rows, columns = np.mgrid[0:50, 0:70]
        photographs.append(np.stack([np.full((50, 70), number), rows, columns], -1).astype(np.uint8))
    monkeypatch.setattr(builtin, "_photographs", lambda: photographs)
    # Full resolution only: an average of four pixels no longer says where they were. Its places are checked below.
    original = builtin.tile_patches
    monkeypatch.setattr(builtin, "tile_patches", lambda tile, side: original(tile, side)[:25])
    source = builtin.photo_patches(DataConfig(dataset="photo_patches", image_size=size))
    places = {split: {tuple(pixel) for pixel in raw.images.reshape(-1, 3)} for split, raw in source.splits.items()}
    assert not places["train"] & places["test"]
    assert not places["train"] & places["validation"]
    assert not places["validation"] & places["test"]
    assert sum(map(len, places.values())) == 3 * (50 // 12) * (70 // 12) * 12 * 12  # every whole tile is used


def test_a_tiles_patches_stay_inside_it_and_cover_it():
    random = np.random.RandomState(0)
    tile = random.randint(0, 256, (12, 12, 3)).astype(np.uint8)
    patches = builtin.tile_patches(tile, 4)
    assert patches.shape == (29, 4, 4, 3)
    np.testing.assert_array_equal(patches[0], tile[:4, :4])
    np.testing.assert_array_equal(patches[6], tile[2:6, 2:6])
    np.testing.assert_array_equal(patches[24], tile[8:, 8:])
    halved = tile[4:, 4:].reshape(4, 2, 4, 2, 3).mean((1, 3))
    np.testing.assert_array_equal(patches[28], np.floor(halved + 0.5))


def test_a_missing_photograph_is_named(monkeypatch):
    monkeypatch.setattr(builtin, "PHOTOGRAPHS", (("skimage/data", "unicorn.png"),))
    with pytest.raises(UserError, match="expected unicorn.png inside the installed package skimage"):
        load(DataConfig(dataset="photo_patches"))


def test_a_missing_package_is_named(monkeypatch):
    def absent():
        raise ImportError("No module named 'sklearn'")

    monkeypatch.setattr(builtin, "_sklearn_datasets", absent)
    with pytest.raises(UserError, match="needs the package scikit-learn.*pip install scikit-learn"):
        load(DataConfig(dataset="digits"))


def test_validation_of_photo_patches_cannot_be_chosen():
    with pytest.raises(UserError, match="num_validation=50: photo_patches has its own validation split of 464"):
        load(DataConfig(dataset="photo_patches", num_validation=50))
