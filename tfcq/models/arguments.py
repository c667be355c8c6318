"""Checks of what a model is asked in Python, by the table of `tfcq.endpoints`, before any network runs.

Without them a wrong array mostly gets an answer: srVAE's log_prob of images in [0, 1] is a number, of almost black images.

What has values (NumPy arrays, eager tensors, Python numbers and lists) is checked in full. In a graph, types and the static
parts of shapes are checked while it is traced, at no cost later; the endpoints of an export assert the rest themselves.

* 8-bit images are uint8 and nothing else, since a number's meaning hangs on its type. Other inputs may be of another type of
  their kind (float64 latents, int64 seeds) where every value fits.
* Python lists and numbers have no type: they are taken where each value is one of the type, as in a JSON request.
* N is at least 1, and the same for all inputs.
"""

import functools
import inspect
import numbers
import threading

import keras
import numpy as np
import tensorflow as tf

from tfcq.checks import as_array, dims, image_advice, shown
from tfcq.endpoints import INPUTS, METHODS, blamed_last
from tfcq.errors import UserError

_asked = threading.local()  # whether a method of a model runs in this thread: what it asks another is no user's


def checked(method):
    """`method` of a `GenerativeModel`, one of `METHODS`, with the checks before it.

    Raises, when it is called:
        UserError: an ability that the model lacks, or an argument of a wrong type, shape, range or number of rows.
    """
    ability, arguments = METHODS[method.__name__]
    signature = inspect.signature(method)

    @functools.wraps(method)
    def ask(self, *args, **kwargs):
        if getattr(_asked, "inside", False):
            return method(self, *args, **kwargs)
        self.require(ability)
        bound = signature.bind(self, *args, **kwargs)
        given = [argument for argument in arguments if argument in bound.arguments]
        bound.arguments |= _checked(self, method.__name__, {argument: bound.arguments[argument] for argument in given})
        _asked.inside = True
        try:
            return method(*bound.args, **bound.kwargs)
        finally:
            _asked.inside = False

    # Not by AutoGraph: it would turn a UserError into an error of its own, and no method needs it.
    return tf.autograph.experimental.do_not_convert(ask)


def _checked(model, method, given):
    """{argument: value} of `given`, converted to the types of the table."""
    values, leader, count = {}, None, None
    for argument in blamed_last(given):
        one = _Argument(f"{method}({argument})", INPUTS[argument], INPUTS[argument].row_shape(model), given[argument])
        values[argument] = one.value()
        if one.num_rows is not None:
            leader, count = (argument, one.num_rows) if count is None else (leader, count)
            if one.num_rows != count:
                mend = f"tfcq.row_seeds({count}) makes them" if argument == "seeds" else "pass one for each"
                raise UserError(f"{one.name}: expected {count} rows, as many as {leader}, received {one.num_rows}; {mend}")
    return values


class _Argument:
    """One argument of one call.

    Args:
        name: as messages have it.
        wanted: `Input`.
        row: shape of a row.
        given: what the caller passed.

    Attributes:
        num_rows: N, where it is known and the argument has rows.
    """

    def __init__(self, name, wanted, row, given):
        self.name, self._wanted, self._row = name, wanted, row
        self._given = tf.convert_to_tensor(given) if isinstance(given, tf.Variable | keras.Variable) else given
        self.num_rows = None

    def value(self):
        """What the method gets: the given array or tensor, of the table's type."""
        given, wanted = self._given, np.dtype(self._wanted.dtype)
        if isinstance(given, tf.Tensor) and not hasattr(given, "numpy"):
            return self._symbolic(given)
        array = as_array(given, self.name, self._expected())
        low, high = self._wanted.minimum, self._wanted.maximum
        if not self._is_of_type(array) or not self._fits(array.shape):
            raise self._error(array)
        with np.errstate(over="ignore"):  # what float32 cannot hold is told as not finite
            converted = array.astype(wanted, copy=False)
        finite = wanted.kind != "f" or np.isfinite(converted).all()
        if not finite or (low is not None and converted.min() < low) or (high is not None and converted.max() > high):
            raise self._error(array)
        if self._row is not None and array.ndim == 1 + len(self._row):
            self.num_rows = len(array)
        if isinstance(given, tf.Tensor):  # it stays on its device and on a tape
            return given if given.dtype.name == wanted.name else tf.cast(given, wanted.name)
        return array.item() if isinstance(given, numbers.Number) else converted

    def _symbolic(self, tensor):
        if tensor.dtype.name != self._wanted.dtype or not self._fits(tensor.shape):
            shape = dims(*("?" if size is None else size for size in tensor.shape)) if tensor.shape.rank is not None else ""
            raise UserError(f"{self.name}: expected {self._expected()}, received {tensor.dtype.name} {shape}".rstrip())
        if tensor.shape.rank:
            self.num_rows = tensor.shape[0]
        return tensor

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
        """Whether a shape, parts of which may be unknown, is one of this input."""
        shape = tf.TensorShape(shape)
        if shape.is_compatible_with(()) and (self._row is None or self._wanted.one_for_all):
            return True
        if self._row is None or not shape.is_compatible_with((None, *self._row)):
            return False
        return shape.rank is None or shape[0] != 0

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
