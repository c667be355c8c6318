"""`npz:FILE`: images in one file of NumPy's `savez`.

Either arrays `train` and perhaps `validation` and `test`; or `x_train` and perhaps `x_validation` and `x_test`; or one
array `images`. Each uint8, [N, h, w] or [N, h, w, c] with c 1 or 3. Other arrays (labels) are not read.
"""

import os
import zipfile
import zlib

import numpy as np

from tfcq.data.sources import RawArray, Source
from tfcq.data.splits import SPLITS
from tfcq.errors import UserError

NAMINGS = (
    {split: split for split in SPLITS},
    {split: f"x_{split}" for split in SPLITS},
    {"train": "images"},
)
"""The names of the splits' arrays, one way or another; the one for "train" must be there."""


def npz(path):
    """The arrays of an npz file as a Source.

    Raises:
        UserError: no such file, no npz file, no or several of the namings, or an array of another type or shape.
    """
    if not os.path.isfile(path):
        raise UserError(f"npz: expected a file, received {path!r}")
    try:
        archive = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: expected a file of numpy.savez, received something else ({_line(error)})") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise UserError(f"{path}: expected a file of numpy.savez, received a single array; save it as images=array")
    with archive:
        found = [naming for naming in NAMINGS if naming["train"] in archive.files]
        if len(found) != 1:
            raise UserError(f"{path}: expected exactly one of the arrays train, x_train, images, received "
                            f"{', '.join(archive.files) or 'none'}")
        return Source({split: RawArray(_images(archive, path, key), f"{path}, array {key}")
                       for split, key in found[0].items() if key in archive.files})


def _images(archive, path, key):
    try:
        array = archive[key]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}, array {key}: cannot be read ({_line(error)}); expected uint8 without pickled "
                        "objects") from error
    pixels = array[..., None] if array.ndim == 3 else array
    if array.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] not in (1, 3) or 0 in pixels.shape[1:]:
        raise UserError(f"{path}, array {key}: expected uint8 [N, h, w] or [N, h, w, 1 or 3], received {array.dtype} "
                        f"{list(array.shape)}")
    return pixels


def _line(error):
    return (str(error).splitlines() or [type(error).__name__])[0]
