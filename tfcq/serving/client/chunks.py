"""The inputs of a call: as the model declares them, and cut into requests of nearly equal size.

Both transports take the same types, because what is sent is always of the declared one: a value is converted where nothing
is lost, and refused otherwise. All rows are looked at before the first request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfcq.checks import as_array, dims, shown
from tfcq.errors import UserError
from tfcq.serving.client.answers import DTYPE_NAMES, has_rows

MOST_BYTES = 2**24
"""Bytes of pictures in a request: a server may refuse a body of 64 MiB, and base64 makes a third more of them."""


def as_declared(
    signature: str, inputs: Mapping[str, Any], specs: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, np.ndarray], int | None]:
    """The inputs as arrays of the declared types, and their number of rows; None if none of them has rows.

    Args:
        signature: its name, for messages.
        inputs: {input name: array, list or number}.
        specs: {input name: {"dtype": str, "shape": list or None}}.

    Raises:
        UserError: other names than declared, a type, value or shape that does not fit, no rows, or different numbers of rows.
    """
    if set(inputs) != set(specs):
        expected, received = (", ".join(sorted(names)) or "none" for names in (specs, inputs))
        raise UserError(f"signature {signature!r}: expected the inputs {expected}, received {received}")
    arrays = {name: _converted(f"{signature}({name})", inputs[name], specs[name]) for name in specs}
    counts = {name: len(array) for name, array in arrays.items() if has_rows(specs[name]) and array.ndim}
    if 0 in counts.values():
        raise UserError(f"signature {signature!r}: expected at least one row, received none")
    if len(set(counts.values())) > 1:
        each = ", ".join(f"{count} of {name}" for name, count in counts.items())
        raise UserError(f"signature {signature!r}: expected as many rows of each input, received {each}")
    return arrays, next(iter(counts.values()), None)


def cut(
    arrays: Mapping[str, np.ndarray], specs: Mapping[str, Mapping[str, Any]], num_rows: int | None, most: int
) -> list[tuple[dict[str, np.ndarray], int | None]]:
    """[(the arrays of a request, its number of rows)]: as few as have at most `most` rows each, whose numbers differ by one.

    Strings, which are pictures, are `MOST_BYTES` in a request on the average.
    """
    if num_rows is None:
        return [(dict(arrays), num_rows)]
    num_bytes = sum(len(string) for array in arrays.values() if array.dtype.kind == "O" for string in array.flat)
    count = min(num_rows, max(-(-num_rows // most), -(-num_bytes // MOST_BYTES)))
    bounds = [-(-num_rows * place // count) for place in range(count + 1)]  # the larger ones first
    return [
        (
            {
                name: array[start:stop] if has_rows(specs[name]) and array.ndim else array
                for name, array in arrays.items()
            },
            stop - start,
        )
        for start, stop in zip(bounds, bounds[1:])
    ]


def _converted(name, value, spec):
    if spec["dtype"] not in DTYPE_NAMES.values():
        raise UserError(f"{name}: the model expects {spec['dtype']}, which this client does not send")
    wanted, shape = np.dtype(spec["dtype"]), spec["shape"]
    sizes = "" if shape is None else f" {dims(*('N' if size is None else size for size in shape))}"
    array = _strings(name, value) if wanted.kind == "O" else as_array(value, name, f"{wanted.name}{sizes}")
    fits = shape is None or (
        len(shape) == array.ndim and all(want in (None, have) for want, have in zip(shape, array.shape))
    )
    if not fits or not _keeps(array, wanted):
        received = f"strings {dims(*array.shape)}" if wanted.kind == "O" else shown(array)
        raise UserError(f"{name}: expected {wanted.name}{sizes}, received {received}")
    return np.ascontiguousarray(array, wanted).reshape(array.shape)


def _keeps(array, wanted):
    """Whether every value fits `wanted`."""
    kind = array.dtype.kind
    if array.dtype == wanted:
        return True
    if wanted.kind == "f":
        with np.errstate(over="ignore"):
            return kind in "iuf" and not (np.isinf(array.astype(wanted)) & np.isfinite(array)).any()
    if wanted.kind in "iu":
        bounds = np.iinfo(wanted)
        return kind in "iu" and (not array.size or (array.min() >= bounds.min and array.max() <= bounds.max))
    return False


def _strings(name, value):
    """Bytes and texts as an array of bytes; NumPy's own type for bytes would drop zeros at their ends."""

    def encoded(item):
        if not isinstance(item, str | bytes):
            raise UserError(f"{name}: expected strings, received {type(item).__name__}")
        return item.encode() if isinstance(item, str) else bytes(item)

    array = np.array(value, dtype=object)
    return np.asarray(np.frompyfunc(encoded, 1, 1)(array), dtype=object).reshape(array.shape)
