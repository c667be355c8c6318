"""Checks of what a model is asked in Python, by the table of `tfcq.endpoints`, before any network runs.

Without them a wrong array mostly gets an answer: srVAE's log_prob of images in [0, 1] is a number, of almost black images.

What has values (NumPy arrays, eager tensors, Python numbers and lists) is checked in full, as `tfcq.inputs` says. In a graph,
types and the static parts of shapes are checked while it is traced, at no cost later; the endpoints of an export assert the rest
themselves.
"""

import functools
import inspect
import threading

import keras
import tensorflow as tf

from tfcq import inputs
from tfcq.checks import dims
from tfcq.endpoints import INPUTS, METHODS
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
        bound.arguments |= inputs.checked(
            method.__name__,
            {argument: bound.arguments[argument] for argument in given},
            lambda argument: INPUTS[argument].row_shape(self),
            _Argument,
        )
        _asked.inside = True
        try:
            return method(*bound.args, **bound.kwargs)
        finally:
            _asked.inside = False

    # Not by AutoGraph: it would turn a UserError into an error of its own, and no method needs it.
    return tf.autograph.experimental.do_not_convert(ask)


class _Argument(inputs.Argument):
    """An argument that may be a tensor, with values or, while a graph is traced, without."""

    def __init__(self, name, wanted, row, given):
        given = tf.convert_to_tensor(given) if isinstance(given, tf.Variable | keras.Variable) else given
        super().__init__(name, wanted, row, given)

    def value(self):
        if not isinstance(self._given, tf.Tensor):
            return super().value()
        if not hasattr(self._given, "numpy"):
            return self._symbolic(self._given)
        self._converted()
        # It stays on its device and on a tape.
        wanted = self._wanted.dtype
        return self._given if self._given.dtype.name == wanted else tf.cast(self._given, wanted)

    def _symbolic(self, tensor):
        if tensor.dtype.name != self._wanted.dtype or not self._may_fit(tensor.shape):
            shape = dims(*("?" if size is None else size for size in tensor.shape)) if tensor.shape.rank is not None else ""
            raise UserError(f"{self.name}: expected {self._expected()}, received {tensor.dtype.name} {shape}".rstrip())
        if tensor.shape.rank:
            self.num_rows = tensor.shape[0]
        return tensor

    def _may_fit(self, shape):
        """Whether a tf.TensorShape, parts of which may be unknown, may be one of this input."""
        if shape.is_compatible_with(()) and (self._row is None or self._wanted.one_for_all):
            return True
        if self._row is None or not shape.is_compatible_with((None, *self._row)):
            return False
        return shape.rank is None or shape[0] != 0
