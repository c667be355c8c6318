"""Values of int32 variables inside of functions that XLA compiles for a GPU.

TensorFlow keeps int32 variables of a GPU in the host's memory, and a compiled function may read no variable of another device
(https://www.tensorflow.org/xla/known_issues, "tf.Variable on a different device"). So they are read before the function,
which is given their values.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterable, Iterator, Sequence

import keras
import tensorflow as tf

_given: contextvars.ContextVar[dict[int, tf.Tensor] | None] = contextvars.ContextVar("given", default=None)


def on_host(variables: Iterable[keras.Variable]) -> list[keras.Variable]:
    """Those of the variables that TensorFlow keeps in the host's memory."""
    return [variable for variable in variables if variable.dtype == "int32"]


@contextlib.contextmanager
def given(variables: Sequence[keras.Variable], values: Sequence[tf.Tensor]) -> Iterator[None]:
    """A context in which `value_of` the variables is `values`, which were read before."""
    token = _given.set({id(variable): value for variable, value in zip(variables, values, strict=True)})
    try:
        yield
    finally:
        _given.reset(token)


def value_of(variable: keras.Variable) -> tf.Tensor:
    """The value of an int32 variable; what is compiled by XLA reads such variables by this function alone."""
    value = (_given.get() or {}).get(id(variable))
    return tf.identity(variable.value) if value is None else value
