"""Checks of what a model is asked, by the table of `tfcq.endpoints`: of arrays, numbers and lists, as a client sends them.

NumPy alone; `tfcq.models.arguments` does the same for a model in Python, and for tensors.

* 8-bit images are uint8 and nothing else, since a number's meaning hangs on its type. Other inputs may be of another type of
  their kind (float64 latents, int64 seeds) where every value fits.
* Python lists and numbers have no type: they are taken where each value is one of the type, as in a JSON request.
* N is at least 1, and the same for all inputs.
"""

import numbers

import numpy as np

from tfcq.checks import as_array, dims, image_advice, shown
from tfcq.endpoints import INPUTS, blamed_last
from tfcq.errors import UserError


class Argument:
    """One argument of one call.

    Args:
        name: as messages have it, "method(argument)".
        wanted: `tfcq.endpoints.Input`.
        row: shape of a row, a tuple of ints (None in it: any); None: a single number without rows.
        given: what the caller passed.

    Attributes:
        num_rows: N, where it is known and the argument has rows.
    """

    def __init__(self, name, wanted, row, given):
        self.name, self._wanted, self._row, self._given = name, wanted, row, given
        self.num_rows = None

    def value(self):
        """What was given, of the table's type: an array, or a number where one was given.

        Raises:
            UserError: another type, shape or range.
        """
        array = self._converted()
        return array.item() if isinstance(self._given, numbers.Number) else array

    def _converted(self):
        wanted, low, high = np.dtype(self._wanted.dtype), self._wanted.minimum, self._wanted.maximum
        array = as_array(self._given, self.name, self._expected())
        if not self._is_of_type(array) or not self._fits(array.shape):
            raise self._error(array)
        with np.errstate(over="ignore"):  # what float32 cannot hold is told as not finite
            converted = array.astype(wanted, copy=False)
        finite = wanted.kind != "f" or np.isfinite(converted).all()
        if not finite or (low is not None and converted.min() < low) or (high is not None and converted.max() > high):
            raise self._error(array)
        if self._row is not None and array.ndim == 1 + len(self._row):
            self.num_rows = len(array)
        return converted

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
        wanted, low, high = self._wanted, self._wanted.minimum, self._wanted.maximum
        if wanted.dtype == "uint8":
            low, high = 0, 255
        bounds = f" in {low}..{high}" if high is not None else f" of at least {low}" if low is not None else ""
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
            return image_advice(array, argument, self._row)
        if argument == "seeds":
            return "tfcq.row_seeds(N) makes seeds of N rows"
        if array.ndim and not len(array):
            return "pass at least one row"
        if self._row and array.shape == tuple(self._row):
            return f"{argument}[None] is one row"
        return ""


def checked(method, given, row_shape, kind=Argument):
    """{argument: value} of what `method` is given, of the types of the table.

    Args:
        method: its name, for messages.
        given: {argument: what the caller passed}.
        row_shape: function from an argument's name to the shape of its rows, as of `Argument`.
        kind: `Argument`, or a class that also takes tensors.

    Raises:
        UserError: an argument of a wrong type, shape, range or number of rows.
    """
    values, leader, count = {}, None, None
    for argument in blamed_last(given):
        one = kind(f"{method}({argument})", INPUTS[argument], row_shape(argument), given[argument])
        values[argument] = one.value()
        if one.num_rows is not None:
            leader, count = (argument, one.num_rows) if count is None else (leader, count)
            if one.num_rows != count:
                mend = f"tfcq.row_seeds({count}) makes them" if argument == "seeds" else "pass one for each"
                raise UserError(f"{one.name}: expected {count} rows, as many as {leader}, received {one.num_rows}; {mend}")
    return values
