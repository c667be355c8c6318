"""`idx:DIR`: the file format of MNIST (http://yann.lecun.com/exdb/mnist), plain or gzipped.

A file of images is: two zero bytes; the type, 0x08 for uint8; the number of dimensions, 3; the dimensions N, h, w as
big-endian int32; then N h w bytes. A file of labels, beside it, has type 0x08, one dimension, N, and N bytes; it is read where
classes are asked for.
"""

import functools
import gzip
import os
import struct
import zlib

import numpy as np

from tfcq.data.sources import RawArray, Source
from tfcq.errors import UserError

STEMS = {"train": "train", "test": "t10k"}
ENDINGS = ("-images-idx3-ubyte", "-images-idx3-ubyte.gz", "-images.idx3-ubyte", "-images.idx3-ubyte.gz")
LABEL_ENDINGS = tuple(ending.replace("images", "labels").replace("idx3", "idx1") for ending in ENDINGS)
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
        path = _find(directory, stem, ENDINGS)
        images = read_idx(path)
        there = any(os.path.isfile(os.path.join(directory, stem + ending)) for ending in LABEL_ENDINGS)
        classes = functools.partial(_labels, directory, stem, len(images)) if there else None
        splits[split] = RawArray(images[..., None], path, classes=classes)
    return Source(splits)


def read_idx(path: str) -> np.ndarray:
    """The images of one file, uint8 [N, h, w].

    Raises:
        UserError: naming the file: the magic number, the type, the dimensions or the length are wrong, or gzip fails.
    """
    content = _content(path)
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


def _content(path):
    try:
        with (gzip.open if path.endswith(".gz") else open)(path, "rb") as file:
            return file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read whole ({error}); fetch it again") from error


def _labels(directory, stem, count):
    """The labels of `count` images, uint8 [count]."""
    path = _find(directory, stem, LABEL_ENDINGS)
    content = _content(path)
    if content[:4] != bytes([0, 0, UINT8, 1]) or content[4:8] != struct.pack(">i", count) or len(content) != 8 + count:
        raise UserError(f"{path}: expected an IDX file of {count} labels, type 0x08 (uint8) and 1 dimension, one for each image; "
                        f"received {len(content)} bytes that begin with {content[:8].hex() or 'nothing'}")
    return np.frombuffer(content, np.uint8, offset=8)


def _find(directory, stem, endings):
    names = [stem + ending for ending in endings]
    for name in names:
        path = os.path.join(directory, name)
        if os.path.isfile(path):
            return path
    raise UserError(f"idx:{directory}: expected one of {', '.join(names)}, found none of them")
