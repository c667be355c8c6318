"""The classes of images by name, where their place tells them: for what compares sets of images class by class.

| place | class of an image |
|---|---|
| `folder:DIR` | the folder right below DIR (below the folder of its split) that it lies in |
| `npz:FILE` | the value of the array `labels` (of `images`), `y_train` (of `x_train`), `train_labels` (of `train`), and so on |
| `idx:DIR` | the value in the file of labels beside the images, as MNIST has them |
| `digits` | the digit |

A number is its name: the class 3 of an array is the class of a folder called 3.
"""

from __future__ import annotations

import gzip
import os
import zipfile
import zlib
from collections.abc import Sequence

import numpy as np

from tfcq.data import idx as idx_files
from tfcq.data.manifest import Entry
from tfcq.data.npz import NAMINGS
from tfcq.data.sources import require_package
from tfcq.errors import UserError
from tfcq.machine.paths import as_path

LABELS = ({split: f"{split}_labels" for split in NAMINGS[0]}, {split: f"y_{split}" for split in NAMINGS[1]}, {"train": "labels"})
"""Beside the arrays of `npz.NAMINGS`, in their order, the arrays with the labels."""

EXPECTED = (
    "a folder with a folder for each class, an npz file with labels (labels beside images, y_train beside x_train, train_labels "
    "beside train), or idx: files with labels"
)


def class_names(dataset: str, entries: Sequence[Entry], origin: str = "") -> np.ndarray:
    """The class of each image, str [N].

    Args:
        dataset: as `DataConfig.dataset`, its path absolute.
        entries: of the images in a manifest.
        origin: the split of the source that all of them are of; "": each entry says it.

    Raises:
        UserError: the place does not tell the classes, or not of all images.
    """
    kind, _, place = dataset.partition(":")
    if kind == "folder":
        return _of_folders(dataset, entries)
    if kind == "npz":
        read = _of_npz
    elif kind == "idx":
        read = _of_idx
    elif dataset == "digits":
        read = _of_digits
    else:
        raise UserError(f"{dataset}: the classes of its images are not known; expected {EXPECTED}")
    found: dict[str, np.ndarray] = {}
    names = []
    for entry in entries:
        split = origin or entry.origin
        if split not in found:
            found[split] = read(place, split)
        number = int(entry.key.removeprefix("image "))
        if number >= len(found[split]):
            raise UserError(f"{dataset}: expected a label for each image, received {len(found[split])} for {entry.name}")
        names.append(str(found[split][number]))
    return np.array(names, str)


def _of_folders(dataset, entries):
    names = [entry.key.partition("/") for entry in entries]
    outside = next((entry.key for entry, (_, slash, _) in zip(entries, names) if not slash), None)
    if outside is not None:
        raise UserError(f"{dataset}: {outside} lies in no folder of a class; expected {EXPECTED}")
    return np.array([first for first, _, _ in names], str)


def _of_npz(path, split):
    with as_path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
        arrays = set(archive.files)
        naming = next((number for number, one in enumerate(NAMINGS) if one["train"] in arrays), 0)
        name = LABELS[naming].get(split, "")
        if name not in arrays:
            of = NAMINGS[naming].get(split, split)
            raise UserError(f"{path}: expected an array {name} with the classes of {of}, found none")
        num_images = _length(archive, NAMINGS[naming][split])
        try:
            labels = archive[name]
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{path}, array {name}: cannot be read ({' '.join(str(error).split())})") from error
    if labels.ndim == 2 and labels.shape[1] == 1:  # as keras.datasets gives them
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iuUS":
        received = f"{labels.dtype} {list(labels.shape)}"
        raise UserError(f"{path}, array {name}: expected integers or texts [N], a class an image, received {received}")
    if len(labels) != num_images:
        raise UserError(f"{path}, array {name}: expected a label for each of {num_images} images, received {len(labels)}")
    return np.char.decode(labels) if labels.dtype.kind == "S" else labels


def _length(archive, name):
    """The length of an array in an npz file, of which the header alone is read."""
    with archive.zip.open(f"{name}.npy") as file:
        headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        return headers[np.lib.format.read_magic(file)](file)[0][0]


def _of_idx(directory, split):
    stem = idx_files.STEMS[split]
    names = [f"{stem}-labels{ending}" for ending in ("-idx1-ubyte", "-idx1-ubyte.gz", ".idx1-ubyte", ".idx1-ubyte.gz")]
    path = next((path for name in names if os.path.isfile(path := os.path.join(directory, name))), None)
    if path is None:
        raise UserError(f"idx:{directory}: expected one of {', '.join(names)} with the classes, found none of them")
    try:
        with (gzip.open if path.endswith(".gz") else open)(path, "rb") as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read whole ({error}); fetch it again") from error
    if content[:4] != bytes([0, 0, idx_files.UINT8, 1]) or len(content) - 8 != int.from_bytes(content[4:8], "big"):
        raise UserError(f"{path}: expected an IDX file of uint8 with one dimension, whole, received something else")
    return np.frombuffer(content, np.uint8, offset=8)


def _of_digits(place, split):
    def datasets():
        import sklearn.datasets

        return sklearn.datasets

    return require_package(datasets, "scikit-learn").load_digits().target
