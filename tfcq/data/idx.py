"""`idx:DIR`: the file format of MNIST (http://yann.lecun.com/exdb/mnist), plain or gzipped.

A file of images is: two zero bytes; the type, 0x08 for uint8; the number of dimensions, 3; the dimensions N, h, w as
big-endian int32; then N h w bytes. Labels are not read.
"""

import gzip
import os
import struct
import zlib

import numpy as np

from tfcq.data.sources import RawArray, Source
from tfcq.errors import UserError

STEMS = {"train": "train", "test": "t10k"}
ENDINGS = ("-images-idx3-ubyte", "-images-idx3-ubyte.gz", "-images.idx3-ubyte", "-images.idx3-ubyte.gz")
UINT8 = 0x08
KINDS = {0x08: "uint8", 0x09: "int8", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}
"""The element types of the format, by their code."""


def idx(directory: str) -> Source:
    """The train and test images of an MNIST-like folder as a Source.

    Raises:
        UserError: no such folder, a missing file, or one that is not whole (see `read_idx`).
    """
    if not os.path.isdir(directory):
        raise UserError(f"idx: expected a folder, received {directory!r}")
    splits = {}
    for split, stem in STEMS.items():
        path = _find(directory, stem)
        splits[split] = RawArray(read_idx(path)[..., None], path)
    return Source(splits)


def read_idx(path: str) -> np.ndarray:
    """The images of one file, uint8 [N, h, w].

    Raises:
        UserError: naming the file: the magic number, the type, the dimensions or the length are wrong, or gzip fails.
    """
    try:
        with (gzip.open if path.endswith(".gz") else open)(path, "rb") as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read whole ({error}); fetch it again") from error
    if len(content) < 4 or content[:2] != b"\0\0":
        raise UserError(f"{path}: expected an IDX file, which starts with two zero bytes, received "
                        f"{content[:4].hex() or 'nothing'}")
    kind, num_dimensions = content[2], content[3]
    if kind != UINT8 or num_dimensions != 3:
        raise UserError(f"{path}: expected type 0x08 (uint8) and 3 dimensions, N images of h x w, received type 0x{kind:02x} "
                        f"({KINDS.get(kind, 'unknown')}) and {num_dimensions}; "
                        "write grey images of 0 to 255 that way, others as npz:")
    if len(content) < 16:
        raise UserError(f"{path}: expected a header of 16 bytes, received {len(content)} bytes; fetch it again")
    shape = struct.unpack(">iii", content[4:16])
    if min(shape[1:]) < 1 or shape[0] < 0:
        raise UserError(f"{path}: expected positive dimensions, received {shape}")
    expected = shape[0] * shape[1] * shape[2]
    if len(content) - 16 != expected:
        raise UserError(f"{path}: expected {expected} bytes for {shape[0]} images of {shape[1]}x{shape[2]}, received "
                        f"{len(content) - 16}; fetch it again")
    return np.frombuffer(content, np.uint8, offset=16).reshape(shape)


def _find(directory, stem):
    names = [stem + ending for ending in ENDINGS]
    for name in names:
        path = os.path.join(directory, name)
        if os.path.isfile(path):
            return path
    raise UserError(f"idx:{directory}: expected one of {', '.join(names)}, found none of them")
