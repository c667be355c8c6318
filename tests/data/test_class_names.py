"""Which class an image has, by its place."""

import gzip

import numpy as np
import pytest
import sklearn.datasets

from tfcq.data.class_names import class_names
from tfcq.data.manifest import Entry
from tfcq.errors import UserError


def entries(*keys, origin="train"):
    return [Entry(origin, key, "", "") for key in keys]


def test_of_a_folder_it_is_the_folder_right_below():
    found = class_names("folder:/x", entries("cats/1.png", "dogs/small/2.png", "cats/3.png"))
    assert found.tolist() == ["cats", "dogs", "cats"]
    with pytest.raises(UserError, match="folder:/x: 4.png lies in no folder of a class; expected a folder with a folder"):
        class_names("folder:/x", entries("cats/1.png", "4.png"))


@pytest.mark.parametrize("naming", [("train", "train_labels"), ("x_train", "y_train"), ("images", "labels")])
def test_of_an_npz_file_it_is_the_label_beside_the_array(tmp_path, naming):
    images, labels = naming
    np.savez(tmp_path / "a.npz", **{images: np.zeros((3, 4, 4), np.uint8), labels: np.array([[7], [0], [7]])})
    found = class_names(f"npz:{tmp_path}/a.npz", entries("image 2", "image 1"))
    assert found.tolist() == ["7", "0"]
    np.savez(tmp_path / "a.npz", **{images: np.zeros((3, 4, 4), np.uint8)})
    with pytest.raises(UserError, match=f"a.npz: expected an array {labels} with the classes of {images}, found none"):
        class_names(f"npz:{tmp_path}/a.npz", entries("image 0"))


def test_labels_may_be_texts_and_are_of_their_own_split(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=np.zeros(2), x_test=np.zeros(1), y_train=np.array(["a", "b"]), y_test=np.array([b"c"]))
    given = entries("image 1") + entries("image 0", origin="test")
    assert class_names(f"npz:{tmp_path}/a.npz", given).tolist() == ["b", "c"]
    assert class_names(f"npz:{tmp_path}/a.npz", entries("image 0", origin="generated"), "test").tolist() == ["c"]


@pytest.mark.parametrize("labels", [np.zeros(2), np.zeros((2, 5), np.int64)])
def test_labels_of_another_kind_are_refused(tmp_path, labels):
    np.savez(tmp_path / "a.npz", images=np.zeros(2), labels=labels)
    with pytest.raises(UserError, match=r"array labels: expected integers or texts \[N\], a class an image, received"):
        class_names(f"npz:{tmp_path}/a.npz", entries("image 0"))


@pytest.mark.parametrize("count", [2, 4])
def test_too_few_or_too_many_labels_are_refused(tmp_path, count):
    np.savez(tmp_path / "a.npz", images=np.zeros((3, 4, 4), np.uint8), labels=np.arange(count))
    with pytest.raises(UserError, match=f"a.npz, array labels: expected a label for each of 3 images, received {count}"):
        class_names(f"npz:{tmp_path}/a.npz", entries("image 0"))


def test_of_idx_it_is_in_the_file_of_labels(tmp_path):
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 5, 6, 7]))
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 1, 9])))
    given = entries("image 2", "image 0") + entries("image 0", origin="test")
    assert class_names(f"idx:{tmp_path}", given).tolist() == ["7", "5", "9"]
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 5, 6]))
    with pytest.raises(UserError, match="train-labels-idx1-ubyte: expected an IDX file of uint8 with one dimension, whole"):
        class_names(f"idx:{tmp_path}", given)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match="expected one of train-labels-idx1-ubyte, .* with the classes, found none of them"):
        class_names(f"idx:{tmp_path}", given)


def test_of_digits_it_is_the_digit_and_of_other_sets_unknown():
    targets = sklearn.datasets.load_digits().target
    assert class_names("digits", entries("image 5", "image 99")).tolist() == [str(targets[5]), str(targets[99])]
    with pytest.raises(UserError, match="photo_patches: the classes of its images are not known; expected a folder with"):
        class_names("photo_patches", entries("image 5"))
