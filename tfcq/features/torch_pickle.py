"""PyTorch's weight files without PyTorch: a state dict as {name: numpy array}.

Both formats are read. The older is one stream: pickles of a magic number, the protocol, the writer's system, the state
dict, and the list of storage keys, then for each key its element count (int64) and its elements. The newer
(since PyTorch 1.6) is an uncompressed zip archive: `<folder>/data.pkl` is the state dict, `<folder>/data/<key>` hold
the elements. In both, the state dict's pickle names storages by persistent ids, and tensors are rebuilt as strided
views of them.

A pickle may call any function it names. So only the few classes below may be named; anything else is refused.
"""

from __future__ import annotations

import collections
import io
import math
import os
import pickle
import struct
import typing
import zipfile

import numpy as np

from tfcq.errors import UserError
from tfcq.features.files import first_line

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001

STORAGES = {
    "DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2",
    "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "<i1", "ByteStorage": "<u1",
    "BoolStorage": "?",
}
"""{class in module torch: NumPy's name of its elements}. bfloat16 has none."""


def read_state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The tensors of a PyTorch state dict file.

    Args:
        path: a local .pth or .pt file of either format.

    Returns:
        {name: array}, in the file's order, little-endian, each with memory of its own.

    Raises:
        UserError: naming the file: it is missing, truncated, damaged, not a state dict, or names a class that is not
            allowed.
    """
    path = os.fspath(path)
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    stream = io.BytesIO(content)
    try:
        read = _read_zip if zipfile.is_zipfile(stream) else _read_stream
        stream.seek(0)
        tensors, storages = read(stream)
        return {name: _array(name, tensor, storages) for name, tensor in tensors.items()}
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _read_stream(stream):
    """({name: _Tensor}, {key: elements}) of the older format."""
    magic, protocol, system = (_load(stream, "header") for _ in range(3))
    if magic != MAGIC_NUMBER or protocol != PROTOCOL:
        raise UserError("expected a PyTorch file, received another pickle")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise UserError("expected a file of a little-endian machine; write it again on one")
    storages: dict[str, _Storage] = {}
    tensors = _state_dict(_load(stream, "state dict", storages))
    keys = _load(stream, "storage keys")
    if not isinstance(keys, list) or sorted(map(repr, keys)) != sorted(map(repr, storages)):
        raise UserError(f"expected the keys of {len(storages)} storages, received others; fetch the file again")
    elements = {}
    for key in keys:
        storage = storages[key]
        count, = struct.unpack("<q", _exactly(stream, 8, key))
        if count != storage.num_elements:
            raise UserError(f"expected {storage.num_elements} elements in storage {key}, received {count}; fetch the file "
                            "again")
        elements[key] = np.frombuffer(_exactly(stream, count * storage.width, key), storage.kind)
    if stream.read(1):
        raise UserError("expected the end of the file after the last storage, received more; fetch the file again")
    return tensors, elements


def _read_zip(stream):
    """({name: _Tensor}, {key: elements}) of the newer format."""
    try:
        with zipfile.ZipFile(stream) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise UserError("expected a PyTorch file with one data.pkl, received a zip archive with "
                                f"{len(pickles)}")
            folder = pickles[0].removesuffix("data.pkl")
            order = f"{folder}byteorder"
            if order in archive.namelist() and archive.read(order) != b"little":
                raise UserError("expected a file of a little-endian machine; write it again on one")
            storages: dict[str, _Storage] = {}
            tensors = _state_dict(_load(io.BytesIO(archive.read(pickles[0])), "state dict", storages))
            elements = {}
            for key, storage in storages.items():
                content = archive.read(f"{folder}data/{key}")
                expected = storage.num_elements * storage.width
                if len(content) != expected:
                    raise UserError(f"expected {expected} bytes in storage {key}, received {len(content)}; fetch the "
                                    "file again")
                elements[key] = np.frombuffer(content, storage.kind)
    except UserError:
        raise
    except Exception as error:  # zipfile documents one class for damaged archives and raises many
        raise UserError(f"expected a whole PyTorch file, received a damaged archive ({first_line(error)}); fetch "
                        "it again") from error
    return tensors, elements


class _Storage(typing.NamedTuple):
    """A storage that a pickle names: its key, NumPy's name of its elements' type, and their number."""

    key: str
    kind: str
    num_elements: int

    @property
    def width(self):
        """Bytes of an element."""
        return np.dtype(self.kind).itemsize


class _Tensor(typing.NamedTuple):
    """A view of a storage; offset and strides count elements."""

    storage: _Storage
    offset: int
    shape: tuple
    strides: tuple


class _Unpickler(pickle.Unpickler):
    """Resolves only the classes that a state dict of plain tensors names.

    A pickle can also set attributes of the objects that it receives. So it receives only strings, named tuples, a class that
    is implemented in C, and a function made for it.

    Args:
        stream: binary file, at the start of a pickle.
        storages: dict that receives {key: _Storage}.
    """

    def __init__(self, stream, storages):
        super().__init__(stream, encoding="ascii")
        self.storages = storages
        self.allowed = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            # the arguments after the strides concern training
            ("torch._utils", "_rebuild_tensor_v2"): lambda *arguments: _Tensor(*arguments[:4]),
            **{("torch", name): kind for name, kind in STORAGES.items()},
        }

    def find_class(self, module, name):
        try:
            return self.allowed[module, name]
        except KeyError as error:
            raise UserError(f"expected a state dict of plain tensors, received a pickle that names {module}.{name}, "
                            "which is refused; save `model.state_dict()` alone") from error

    def persistent_load(self, identity):
        word, kind, key, _, count, *view = identity
        if word != "storage" or kind not in STORAGES.values() or not isinstance(key, str) or any(view):
            raise UserError(f"expected storages of numbers, received the persistent id {identity!r:.80}")
        if type(count) is not int or count < 0:
            raise UserError(f"expected a count of elements in storage {key}, received {count!r:.40}")
        storage = _Storage(key, kind, count)
        if self.storages.setdefault(key, storage) != storage:
            raise UserError(f"expected one type and size of storage {key}, received two")
        return storage


def _load(stream, what, storages=None):
    """The object of the next pickle; `storages` receives the storages that it names."""
    try:
        return _Unpickler(stream, {} if storages is None else storages).load()
    except UserError:
        raise
    except Exception as error:  # damaged pickles raise nearly every class there is
        raise UserError(f"expected a whole PyTorch file, received one truncated or damaged in its {what} "
                        f"({type(error).__name__}); fetch it again") from error


def _state_dict(loaded):
    if not isinstance(loaded, dict):
        raise UserError(f"expected a state dict, received {type(loaded).__name__}; save `model.state_dict()`")
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise UserError(f"expected tensors by name, received {type(value).__name__} under {name!r:.80}; save "
                            "`model.state_dict()` alone")
    return loaded


def _exactly(stream, count, key):
    content = stream.read(count)
    if len(content) != count:
        raise UserError(f"expected {count} bytes of storage {key}, received {len(content)}: the file is truncated; "
                        "fetch it again")
    return content


def _array(name, tensor, storages):
    """The tensor's elements, copied; UserError if its view leaves its storage."""
    storage, offset, shape, strides = tensor
    if not isinstance(storage, _Storage) or not _counts((offset,)) or not _counts(shape) or not _counts(strides) or (
        len(shape) != len(strides)
    ):
        raise UserError(f"expected a tensor under {name!r}, received a damaged one; fetch the file again")
    if 0 in shape:
        return np.empty(shape, storage.kind)
    end = 1 + offset + sum((size - 1) * stride for size, stride in zip(shape, strides))
    if max(end, math.prod(shape)) > storage.num_elements:
        raise UserError(f"expected {name!r} {list(shape)} inside its storage of {storage.num_elements} elements, received one "
                        f"that ends at {max(end, math.prod(shape))}; fetch the file again")
    steps = [stride * storage.width for stride in strides]
    return np.lib.stride_tricks.as_strided(storages[storage.key][offset:], shape, steps, writeable=False).copy()


def _counts(numbers):
    """Whether this is a tuple of integers of 0 or more."""
    return isinstance(numbers, tuple) and all(type(number) is int and number >= 0 for number in numbers)
