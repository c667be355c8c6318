"""idx: and npz:, good files and broken ones."""

import gzip
import io
import os
import struct

import numpy as np
import pytest

from tfcq.config import DataConfig
from tfcq.data import load
from tfcq.errors import UserError

FASHION_MNIST = "/usr/share/datasets/fashion-mnist"


def idx_bytes(images, kind=0x08):
    return struct.pack(">HBB", 0, kind, images.ndim) + struct.pack(f">{images.ndim}i", *images.shape) + images.tobytes()


def pixels(count, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (count, 6, 5)).astype(np.uint8)


def write_idx(folder, ending="-images-idx3-ubyte", compress=False):
    write = gzip.open if compress else open
    for stem, count in (("train", 20), ("t10k", 6)):
        with write(os.path.join(folder, stem + ending), "wb") as file:
            file.write(idx_bytes(pixels(count, count)))


def load_idx(folder, **options):
    return load(DataConfig(dataset=f"idx:{folder}", image_size=5, **options))


@pytest.mark.parametrize("ending, compress", [
    ("-images-idx3-ubyte", False), ("-images-idx3-ubyte.gz", True),
    ("-images.idx3-ubyte", False), ("-images.idx3-ubyte.gz", True),
])
def test_idx_files_plain_and_gzipped(tmp_path, ending, compress):
    write_idx(tmp_path, ending, compress)
    dataset = load_idx(tmp_path)
    assert [dataset.num_images(split) for split in ("train", "validation", "test")] == [18, 2, 6]
    np.testing.assert_array_equal(dataset.images("test", range(6))[..., 0], pixels(6, 6)[:, 0:5])
    train = {image.tobytes() for split in ("train", "validation")
             for image in dataset.images(split, range(dataset.num_images(split)))}
    assert train == {image.tobytes() for image in pixels(20, 20)[:, 0:5]}


@pytest.mark.parametrize("content, expected", [
    (b"", "two zero bytes, received nothing"),
    (b"\x89PNG\r\n", "two zero bytes, received 89504e47"),
    (idx_bytes(pixels(3))[:-1], "expected 90 bytes for 3 images of 6x5, received 89"),
    (idx_bytes(pixels(3)) + b"\0", "expected 90 bytes for 3 images of 6x5, received 91"),
    (idx_bytes(pixels(3))[:10], "expected a header of 16 bytes, received 10"),
    (idx_bytes(pixels(3).astype(">f4"), 0x0D), "type 0x08 .uint8. and 3 dimensions.*received type 0x0d .float32. and 3"),
    (idx_bytes(pixels(3)[:, 0, 0]), "received type 0x08 .uint8. and 1"),
    (idx_bytes(pixels(3)[None]), "received type 0x08 .uint8. and 4"),
    (idx_bytes(np.zeros((3, 0, 5), np.uint8)), "positive dimensions, received .3, 0, 5."),
    (struct.pack(">HBBiii", 0, 8, 3, -1, 6, 5), "positive dimensions, received .-1, 6, 5."),
    (idx_bytes(np.zeros((0, 6, 5), np.uint8)), "train split, received none"),
])
def test_broken_idx_files_are_named(tmp_path, content, expected):
    write_idx(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(UserError, match=f"(train-images-idx3-ubyte: .*|idx:.*){expected}"):
        load_idx(tmp_path)


@pytest.mark.parametrize("damage", [
    lambda whole: whole[:-20], lambda whole: b"no gzip" + whole, lambda whole: whole[:30] + b"\xff" * 9 + whole[39:],
])
def test_broken_gzip_files_are_named(tmp_path, damage):
    write_idx(tmp_path, "-images-idx3-ubyte.gz", compress=True)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match="t10k-images-idx3-ubyte.gz: cannot be read whole"):
        load_idx(tmp_path)


def test_missing_idx_files_are_named(tmp_path):
    with pytest.raises(UserError, match="idx: expected a folder, received '/no/such'"):
        load(DataConfig(dataset="idx:/no/such"))
    write_idx(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(UserError, match="expected one of t10k-images-idx3-ubyte, .*found none"):
        load_idx(tmp_path)


@pytest.mark.skipif(not os.path.isdir(FASHION_MNIST), reason="Debian's dataset-fashion-mnist is not installed")
def test_fashion_mnist():
    dataset = load(DataConfig(dataset=f"idx:{FASHION_MNIST}", resize="pad"))
    assert [dataset.num_images(split) for split in ("train", "validation", "test")] == [54000, 6000, 10000]
    assert dataset.image_shape == (32, 32, 1)
    with gzip.open(f"{FASHION_MNIST}/t10k-images-idx3-ubyte.gz") as file:
        theirs = np.frombuffer(file.read()[16:], np.uint8).reshape(-1, 28, 28, 1)
    ours = dataset.images("test", range(10000))
    np.testing.assert_array_equal(ours[:, 2:30, 2:30], theirs)
    assert ours.sum(dtype=np.int64) == theirs.sum(dtype=np.int64)  # the margin is black


def save(path, **arrays):
    np.savez(path, **arrays)
    return f"npz:{path}"


@pytest.mark.parametrize("naming", [
    {"train": 20, "test": 6}, {"train": 20, "validation": 4, "test": 6}, {"x_train": 20, "x_test": 6},
    {"images": 20}, {"train": 20},
])
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_npz_arrays(tmp_path, naming, channels):
    def array(count):
        return pixels(count, count) if channels is None else pixels(count, count)[..., None].repeat(channels, 3)

    arrays = {key: array(count) for key, count in naming.items()} | {"y_train": np.zeros(20)}
    dataset = load(DataConfig(dataset=save(tmp_path / "a.npz", **arrays), image_size=5))
    assert dataset.image_shape == (5, 5, channels or 1)
    own = {key.removeprefix("x_") for key in naming}
    assert dataset.num_images("test") == (6 if "test" in own else 2)
    assert dataset.num_images("validation") == (4 if "validation" in own else 2)
    if "test" in own:
        np.testing.assert_array_equal(dataset.images("test", range(6))[..., 0], pixels(6, 6)[:, 0:5])


@pytest.mark.parametrize("arrays, expected", [
    ({"train": np.zeros((9, 6, 6), np.float32)}, r"a.npz, array train: .*received float32 \[9, 6, 6\]"),
    ({"train": np.zeros((9, 36), np.uint8)}, r"array train: .*received uint8 \[9, 36\]"),
    ({"images": np.zeros((9, 6, 6, 4), np.uint8)}, r"array images: .*received uint8 \[9, 6, 6, 4\]"),
    ({"images": np.zeros((9, 0, 6), np.uint8)}, r"array images: .*received uint8 \[9, 0, 6\]"),
    ({"train": pixels(9), "test": pixels(9).astype(int)}, r"array test: .*received int64"),
    ({"train": np.array([None] * 9)}, "array train: cannot be read .*pickled"),
    ({"arr_0": pixels(9)}, "exactly one of the arrays train, x_train, images, received arr_0"),
    ({"train": pixels(9), "images": pixels(9)}, "received train, images"),
    ({"images": pixels(0)}, "expected images in its train split, received none"),
    ({"train": pixels(9), "test": pixels(9)[..., None].repeat(3, 3)},
     "array test is rgb but .*array train, image 0 is grey"),
])
def test_unfit_npz_arrays_are_named(tmp_path, arrays, expected):
    with pytest.raises(UserError, match=expected):
        load(DataConfig(dataset=save(tmp_path / "a.npz", **arrays), image_size=4))


def test_broken_npz_files_are_named(tmp_path):
    path = tmp_path / "a.npz"
    with pytest.raises(UserError, match="npz: expected a file, received '.*a.npz'"):
        load(DataConfig(dataset=f"npz:{path}"))
    content = io.BytesIO()
    np.save(content, pixels(9))
    for damaged, expected in ((b"", "a.npz: expected a file of numpy.savez"), (b"hello", "a.npz: expected a file of"),
                              (content.getvalue(), "a.npz: .*received a single array")):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=expected):
            load(DataConfig(dataset=f"npz:{path}"))
    save(path, images=pixels(200))
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    with pytest.raises(UserError, match="a.npz: expected a file of numpy.savez"):
        load(DataConfig(dataset=f"npz:{path}"))
    path.write_bytes(whole[:3000] + bytes(100) + whole[3100:])
    with pytest.raises(UserError, match="a.npz, array images: cannot be read"):
        load(DataConfig(dataset=f"npz:{path}"))


def test_images_smaller_than_the_crop(tmp_path):
    with pytest.raises(UserError, match="a.npz, array images: .*center_crop=6 pixels a side, received 6x5"):
        load(DataConfig(dataset=save(tmp_path / "a.npz", images=pixels(9)), image_size=4, center_crop=6))


def test_too_many_held_out(tmp_path):
    with pytest.raises(UserError, match="hold 18 images out for validation and 2 for test.*20 train images"):
        load(DataConfig(dataset=save(tmp_path / "a.npz", images=pixels(20)), image_size=5, num_validation=18))
