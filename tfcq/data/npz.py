"""`npz:FILE`: images in one file of NumPy's `savez`.

Either arrays `train` and perhaps `validation` and `test`; or `x_train` and perhaps `x_validation` and `x_test`; or one
array `images`. Each uint8 from 0 to 255, [N, h, w] or [N, h, w, c] with c 1 or 3. Where classes are asked for, they are in
arrays of integers or strings [N]: `train_labels` and so on; `y_train`; `labels`. Other arrays are not read.

An ambiguous array is refused with a message on how to write either meaning:

- [h, w, 3], one image, whose rows would be grey images of three columns; [h, w, 1], [h, w, 4]; and [3, h, w], perhaps one image
  with its channels first.
- [N, 3, h, w] and [N, 1, h, w], whose channels come first; [h, w, 3, N], whose images come last.
- floats, booleans and integers of other types: the file does not say whether 1.0 is white or nearly black.
- uint8 with no values but 0 and 1 (`values`).
"""

from __future__ import annotations

import os
import zipfile
import zlib

import numpy as np

from tfcq.data.classes import check_labels
from tfcq.data.sources import RawArray, Source
from tfcq.data.splits import SPLITS
from tfcq.errors import UserError
from tfcq.machine.paths import as_path, is_remote

NAMINGS = (
    {split: split for split in SPLITS},
    {split: f"x_{split}" for split in SPLITS},
    {"train": "images"},
)
"""The sets of names that the splits' arrays may have; the array for "train" must be there."""

LABELS = {name: f"{name}_labels" for name in SPLITS} | {f"x_{name}": f"y_{name}" for name in SPLITS} | {"images": "labels"}
"""{name of an array of images: name of that of their classes}."""

CHANNELS = (1, 3)


def npz(path: str) -> Source:
    """The arrays of an npz file as a Source.

    Raises:
        UserError: no such file, not an npz file, none or several of `NAMINGS`, or an array of another type or shape.
    """
    if not (as_path(path).is_file() if is_remote(path) else os.path.isfile(path)):
        raise UserError(f"npz: expected a file, received {path!r}")
    try:
        archive = np.load(as_path(path).open("rb") if is_remote(path) else path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: expected a file of numpy.savez, received something else ({_line(error)})") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise UserError(f"{path}: expected a file of numpy.savez, received a single array; save it as images=array")
    with archive:
        found = [naming for naming in NAMINGS if naming["train"] in archive.files]
        if len(found) != 1:
            raise UserError(f"{path}: expected exactly one of the arrays train, x_train, images, received "
                            f"{', '.join(archive.files) or 'none'}")
        return Source({split: _raw(archive, path, key) for split, key in found[0].items() if key in archive.files})


def _raw(archive, path, key):
    images, name, unread = _images(archive, path, key), LABELS[key], None
    count = len(images)  # not the images themselves, which `classes` would hold
    if name not in archive.files:
        return RawArray(images, f"{path}, array {key}")
    try:
        labels = _array(archive, path, name, "integers or strings")
    except UserError as error:  # who wants no classes need not know
        labels, unread = np.empty(0), error

    def classes():
        if unread:
            raise unread
        return check_labels(labels, count, f"{path}, array {name}")

    return RawArray(images, f"{path}, array {key}", classes=classes)


def _array(archive, path, key, expected):
    try:
        return archive[key]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}, array {key}: cannot be read ({_line(error)}); expected {expected} without pickled "
                        "objects") from error


def _images(archive, path, key):
    array = _array(archive, path, key, "uint8")
    advice = shape_advice(array.shape) or type_advice(array)
    if advice:
        raise UserError(f"{path}, array {key}: expected uint8 [N, h, w] or [N, h, w, 1 or 3], received {array.dtype} "
                        f"{list(array.shape)}{'' if advice == UNFIT else f' {advice}'}")
    return array[..., None] if array.ndim == 3 else array


UNFIT = "unfit"
"""What the functions below return for an array that is not images and suggests no conversion."""


def shape_advice(shape: tuple[int, ...]) -> str | None:
    """How to turn an array of `shape` into images; None if the shape is right; `UNFIT` if no way suggests itself."""
    if len(shape) == 4 and 0 not in shape[1:]:
        if shape[3] in CHANNELS:
            return None
        if shape[1] in CHANNELS:
            return "with its channels first; move them, np.moveaxis(array, 1, -1)"
        if shape[2] in CHANNELS:
            return "with its images last; move them, np.moveaxis(array, -1, 0)"
        if shape[3] == 4:
            return "whose fourth channel is alpha; drop it, array[..., :3], or flatten it on a background of your choice"
    if len(shape) == 3 and 0 not in shape[1:]:
        if shape[2] in (1, 3, 4) and shape[1] > 4:
            kind = f"one image of {shape[0]}x{shape[1]}x{shape[2]}"
            return (f"which looks like {kind}: as a set of one, array[None]; if it is {shape[0]} grey images of "
                    f"{shape[1]}x{shape[2]}, array[..., None]")
        if shape[0] == 3:
            return (f"which may be one image of {shape[1]}x{shape[2]} with its channels first: np.moveaxis(array, 0, -1)[None]; "
                    "if it is three grey images, array[..., None]")
        return None
    if len(shape) == 2 and shape[1] > 1:
        return "with a row an image; give it height and width (and channels, last), array.reshape(len(array), h, w)"
    return UNFIT


def type_advice(array: np.ndarray) -> str | None:
    """How to turn an array of images into uint8 from 0 to 255; None if it is uint8; `UNFIT` if no way suggests itself."""
    if array.dtype == np.uint8:
        return None
    if array.dtype == bool:
        return "of false and true; black and white are 0 and 255, 255 * array.astype('uint8')"
    if array.dtype.kind not in "fiu" or not array.size:
        return UNFIT
    low, high = array.min(), array.max()
    values = f"of values from {low:.4g} to {high:.4g}"
    if not np.isfinite([low, high]).all():
        return f"{values}; expected finite numbers"
    if array.dtype.kind == "f" or high <= 1:
        if 0 <= low and high <= 1:
            return f"{values}; if 1 is white, np.round(255 * array).astype('uint8')"
        if -1 <= low and high <= 1:
            return f"{values}; if -1 is black and 1 white, np.round(127.5 * (array + 1)).astype('uint8')"
    if 0 <= low and high <= 255:
        return f"{values}; if 255 is white, np.round(array).astype('uint8')"
    return (f"{values}, which is no usual range of pixels; scale them so that 0 is black and 255 white, round, and cast to "
            "uint8")


def _line(error):
    return (str(error).splitlines() or [type(error).__name__])[0]
