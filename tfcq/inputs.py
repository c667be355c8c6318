"""Checks of the arguments of a model's methods and endpoints, by the table of `tfcq.endpoints`.

Arguments are arrays, numbers and lists, as a client sends them.

NumPy alone; `tfcq.models.arguments` does the same for a model in Python, and for tensors.

* 8-bit images must be uint8, as the meaning of a number depends on its type. Other inputs may be of another type of
  their kind (float64 latents, int64 seeds) if every value fits.
* Python lists and numbers have no dtype: they are accepted if each value fits the type, as in a JSON request.
* N is at least 1, and the same for all inputs.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfcq.checks import as_array, dims, image_advice, shown
from tfcq.endpoints import INPUTS, Input, blamed_last
from tfcq.errors import UserError


class Argument:
    """One argument of one call.

    Args:
        name: "method(argument)", for messages.
        wanted: what the table says about the argument.
        row: shape of a row (None in it: any size); None: a single number without rows.
        given: what the caller passed.

    Attributes:
        num_rows: N, if it is known and the argument has rows; else None.
    """

    def __init__(self, name: str, wanted: Input, row: tuple[int | None, ...] | None, given: Any):
        self.name, self._wanted, self._row, self._given = name, wanted, row, given
        self.num_rows: int | None = None

    def value(self) -> Any:
        """The value given, converted to the table's type: an array, or a number if a number was given.

        Raises:
            UserError: another type, shape or range.
        """
        array = self._converted()
        return array.item() if isinstance(self._given, numbers.Number) else array

    def _converted(self):
        wanted, (low, high) = np.dtype(self._wanted.dtype), self._bounds()
        array = as_array(self._given, self.name, self._expected())
        if not self._is_of_type(array) or not self._fits(array.shape):
            raise self._error(array)
        with np.errstate(over="ignore"):  # a value too large for float32 becomes infinite, and is refused below
            converted = array.astype(wanted, copy=False)
        finite = wanted.kind != "f" or np.isfinite(converted).all()
        if not finite or (low is not None and converted.min() < low) or (high is not None and converted.max() > high):
            raise self._error(array)
        if self._row is not None and array.ndim == 1 + len(self._row):
            self.num_rows = len(array)
        return converted

    def _bounds(self):
        high = self._wanted.maximum
        return self._wanted.minimum, None if isinstance(high, str) else high  # the model's, which is not known here

    def _is_of_type(self, array):
        wanted, kind, typed = np.dtype(self._wanted.dtype), array.dtype.kind, hasattr(self._given, "dtype")
        if wanted.kind == "b":
            return kind == "b"
        if wanted.kind == "f":
            return kind == "f" or (kind in "iu" and (self._wanted.one_for_all or not typed))
        if typed and wanted == np.uint8:
            return array.dtype == np.uint8
        bounds = np.iinfo(wanted)
        return kind in "iu" and (not array.size or (array.min() >= bounds.min and array.max() <= bounds.max))

    def _fits(self, shape):
        if shape == ():
            return self._row is None or self._wanted.one_for_all
        if self._row is None or len(shape) != 1 + len(self._row) or not shape[0]:
            return False
        return all(want in (None, have) for want, have in zip(self._row, shape[1:]))

    def _expected(self):
        wanted, (low, high) = self._wanted, self._bounds()
        if wanted.dtype == "uint8":
            low, high = 0, 255
        bounds = ""
        if high is not None:
            bounds = f" in {low}..{high}"
        elif low is not None:
            bounds = f" of at least {low}"
        finite = ", finite" if wanted.dtype == "float32" else ""
        if self._row is None:
            return f"an int{bounds}"
        single = "one number or " if wanted.one_for_all and wanted.dtype != "bool" else ""
        return f"{single}{wanted.dtype} {dims('N', *self._row)}{bounds}{finite}"

    def _error(self, array):
        if isinstance(self._given, numbers.Number):
            received, mend = f"{type(self._given).__name__} {self._given!r}", ""
        else:
            received, mend = shown(array), self._advice(array)
        return UserError(f"{self.name}: expected {self._expected()}, received {received}{mend and f'; {mend}'}")

    def _advice(self, array):
        argument = self.name[self.name.index("(") + 1 : -1]
        if self._wanted.dtype == "uint8":
            return image_advice(array, argument, self._row or (None, None, None))
        if argument.endswith("seeds"):
            return "tfcq.row_seeds(N) makes seeds of N rows"
        if array.ndim and not len(array):
            return "pass at least one row"
        if self._row and array.shape == tuple(self._row):
            return f"{argument}[None] is one row"
        return ""


def as_text(values: Any) -> Any:
    """bytes in UTF-8, one or an array of objects, as str: of an output of type "string"; other bytes become surrogates."""
    array = np.asarray(values, object)
    return np.array([one.decode("utf-8", "surrogateescape") for one in array.flat], str).reshape(array.shape)[()]


def checked(
    method: str,
    given: Mapping[str, Any],
    row_shape: Callable[[str], tuple[int | None, ...] | None],
    kind: type[Argument] = Argument,
) -> dict[str, Any]:
    """{argument: value} of a call of `method`, with the values converted to the types of the table.

    Args:
        method: name of the method, for messages.
        given: {argument: what the caller passed}.
        row_shape: function from an argument's name to the shape of its rows, as in `Argument`.
        kind: `Argument`, or a subclass that also takes tensors.

    Raises:
        UserError: an argument of a wrong type, shape, range or number of rows.
    """
    values: dict[str, Any] = {}
    leader, count = "", None
    for argument in blamed_last(given):
        one = kind(f"{method}({argument})", INPUTS[argument], row_shape(argument), given[argument])
        values[argument] = one.value()
        if one.num_rows is not None:
            if count is None:
                leader, count = argument, one.num_rows
            elif one.num_rows != count:
                mend = f"tfcq.row_seeds({count}) makes them" if argument.endswith("seeds") else "pass one for each"
                raise UserError(f"{one.name}: expected {count} rows, as many as {leader}, received {one.num_rows}; {mend}")
    return values
