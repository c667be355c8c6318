"""What a server answers, in the client's terms: one error for all that goes wrong, and outputs that are what was declared."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from tfcq.checks import dims
from tfcq.errors import UserError

# {number in protobuf's enumeration DataType: (its name there, its type in NumPy)}
DTYPES: dict[int, tuple[str, Any]] = {
    1: ("DT_FLOAT", np.float32),
    2: ("DT_DOUBLE", np.float64),
    3: ("DT_INT32", np.int32),
    4: ("DT_UINT8", np.uint8),
    5: ("DT_INT16", np.int16),
    6: ("DT_INT8", np.int8),
    7: ("DT_STRING", np.object_),
    9: ("DT_INT64", np.int64),
    10: ("DT_BOOL", np.bool_),
    17: ("DT_UINT16", np.uint16),
    19: ("DT_HALF", np.float16),
    22: ("DT_UINT32", np.uint32),
    23: ("DT_UINT64", np.uint64),
}
DTYPE_NAMES = {name: np.dtype(dtype).name for name, dtype in DTYPES.values()}
"""{name in protobuf: name in NumPy}; strings are arrays of objects."""


class ServerError(UserError):
    """A server that cannot be reached, or that refused a request, in one line.

    Attributes:
        code: the name of the canonical status: "UNAVAILABLE", "NOT_FOUND", "INVALID_ARGUMENT", ...
        passing: whether the same request may be answered in a moment: the server is starting, overloaded or changing its version.
    """

    def __init__(self, address: str, code: str, reason: object, passing: bool = False) -> None:
        self.address, self.code, self.passing = address, code, passing
        self.reason = " ".join(str(reason).split())
        super().__init__(f"{address}: {code}: {self.reason}")

    def __reduce__(self):
        return type(self), (
            self.address,
            self.code,
            self.reason,
            self.passing,
        )  # for `pickle`, which knows the message alone


@dataclasses.dataclass(frozen=True)
class Request:
    """What is sent, and how its answer is read; a transport knows no more.

    Attributes:
        where: a URL, or the name of gRPC's method.
        body: what is sent; None for a GET.
        read: makes the result of the transport's answer; raises ServerError.
    """

    where: str
    body: bytes | None
    read: Callable[[Any], Any]


def declared(metadata: Mapping[str, Any], signature: str, address: str) -> dict[str, dict[str, dict[str, Any]]]:
    """{"inputs": {name: {"dtype": str, "shape": list}}, "outputs": the same} of a signature; "" is the default one.

    Raises:
        ServerError: INVALID_ARGUMENT, the model has no such signature.
    """
    signatures, name = metadata["signatures"], signature or "serving_default"
    if name not in signatures:
        known = ", ".join(signatures) or "none"
        reason = f"version {metadata['version']} of the model has no signature {name!r}; it has {known}"
        raise ServerError(address, "INVALID_ARGUMENT", reason)
    return signatures[name]


def has_rows(spec: Mapping[str, Any]) -> bool:
    """Whether a declared tensor is [N, ...] for any N."""
    return spec["shape"] is None or (bool(spec["shape"]) and spec["shape"][0] is None)


class Expected:
    """What one request's outputs must be.

    Args:
        specs: {name: {"dtype": str, "shape": list or None}} of the signature's outputs.
        names: those that were asked for; empty: all.
        num_rows: the N of the request; None: its inputs have no rows.
    """

    def __init__(
        self, specs: Mapping[str, Mapping[str, Any]], names: Iterable[str] = (), num_rows: int | None = None
    ) -> None:
        self.specs, self.names, self.num_rows = specs, tuple(names) or tuple(specs), num_rows

    def shape(self, name: str) -> list[int | None] | None:
        """The shape that an output must have; None in it is any size, None for it any shape."""
        shape, rows = self.specs[name]["shape"], has_rows(self.specs[name]) and self.num_rows is not None
        return [self.num_rows, *shape[1:]] if rows and shape else shape

    def check_shape(self, name: str, shape: tuple[int, ...]) -> None:
        """Raises ValueError unless an output of this shape is as declared, with a row for each of the request's."""
        wanted, rows = self.shape(name), self.num_rows
        if wanted is None:
            fits = rows is None or not has_rows(self.specs[name]) or shape[:1] == (rows,)
            expected = f"{rows} rows"
        else:
            fits = len(wanted) == len(shape) and all(want in (None, have) for want, have in zip(wanted, shape))
            expected = dims(*("?" if size is None else size for size in wanted))
        if not fits:
            raise ValueError(f"output {name!r}: expected {expected}, received {dims(*shape)}")

    def checked(self, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs that were asked for.

        Raises:
            ValueError: one is missing, or is not of the declared type and shape.
        """
        for name in self.names:
            if name not in outputs:
                raise ValueError(
                    f"output {name!r} is missing; received {', '.join(map(repr, sorted(outputs))) or 'none'}"
                )
            wanted = self.specs[name]["dtype"]
            if outputs[name].dtype.name != wanted:
                raise ValueError(f"output {name!r}: expected {wanted}, received {outputs[name].dtype.name}")
            self.check_shape(name, outputs[name].shape)
        return {name: outputs[name] for name in self.names}
