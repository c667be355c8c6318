"""Checks of a user's arguments for the methods of a model, according to the table of `tfcq.endpoints`.

Before the method runs, its arguments are checked and default values are filled in. Without checks most wrong arrays would give
an answer: srVAE's log_prob of images in [0, 1] is that of almost black images. Arguments with values (NumPy arrays, eager
tensors, Python numbers and lists) are checked completely by `tfcq.inputs`. In a graph, dtypes and the static parts of shapes are
checked during tracing, at no cost later; the endpoints of an export assert the rest themselves.

After the method has run, its answer is converted to NumPy arrays. In a `tf.function`, or if an argument is a tensor (as under a
`tf.GradientTape`), it remains tensors.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import numbers
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcq import inputs
from tfcq.checks import check_integer, dims
from tfcq.endpoints import INPUTS, METHODS
from tfcq.errors import UserError
from tfcq.seeds import row_seeds

_call = threading.local()  # whether a method of a model runs in this thread: a call inside it is not a user's call


@contextlib.contextmanager
def internal() -> Iterator[None]:
    """A context in which calls of models' methods in this thread are internal: without checks, and answers are tensors."""
    before, _call.internal = getattr(_call, "internal", False), True
    try:
        yield
    finally:
        _call.internal = before


def checked(method: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a method of `GenerativeModel`, one of `METHODS`, in the checks and conversions for a user's call.

    `seeds` may be left out; they are then `row_seeds(N, seed)`. `seed` (an int, 0 by default) becomes an argument of every
    method that takes seeds. `sample` also takes the number of images in their place.

    The wrapped method raises:
        UserError: the model lacks the ability, or an argument has a wrong type, shape, range or number of rows.
    """
    name = method.__name__
    ability, arguments = METHODS[name]
    signature = inspect.signature(method)
    takes_seeds = "seeds" in signature.parameters

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(_call, "internal", False):
            return method(self, *args, **kwargs)
        self.require(ability)
        chosen = kwargs.pop("seed", None) if takes_seeds else None
        seed = 0 if chosen is None else check_integer(f"{name}(seed)", chosen, 0)
        if name == "sample":
            args, kwargs = _with_seeds_of_count(args, kwargs, chosen, seed)
        given = signature.bind_partial(self, *args, **kwargs).arguments
        for argument in signature.parameters:
            default = INPUTS[argument].default if argument in INPUTS else None
            if default is not None:
                given.setdefault(argument, default)
        if given.get("seeds", 0) is None:
            del given["seeds"]
        if chosen is not None and "seeds" in given and name != "sample":
            raise UserError(f"{name}(seed): expected seeds of rows or the seed of all, received both")
        given |= inputs.checked(
            name,
            {argument: given[argument] for argument in arguments if argument in given},
            lambda argument: INPUTS[argument].row_shape(self),
            _Argument,
        )
        if takes_seeds and "seeds" not in given:
            rows = next((given[argument] for argument in arguments if np.ndim(given.get(argument, 0))), None)
            if rows is not None:
                given["seeds"] = _seeds_of_rows(rows, seed)
        with internal():
            answer = method(**given)
        tensors = not tf.executing_eagerly() or any(isinstance(given.get(argument), tf.Tensor) for argument in arguments)
        return answer if tensors else tf.nest.map_structure(_array, answer)

    if takes_seeds:
        call.__signature__ = _with_optional_seeds(signature)  # type: ignore[attr-defined]  # read by inspect.signature
    # Without AutoGraph, which would wrap a UserError in an error of its own; no method needs it.
    return tf.autograph.experimental.do_not_convert(call)


def _with_seeds_of_count(
    args: tuple[Any, ...], kwargs: dict[str, Any], chosen: Any, seed: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of `sample`, with seeds instead of a number of images; `chosen`: whether a seed was given."""
    kwargs = dict(kwargs)
    count = kwargs.pop("num_images", None)
    if args and (args[0] is None or isinstance(args[0], numbers.Number | np.generic)):
        if count is not None and args[0] is not None:
            raise UserError(f"sample(num_images): expected one number of images, received {args[0]} and {count}")
        count, args = (args[0] if count is None else count), (None, *args[1:])
    seeds = kwargs.pop("seeds", None) if not args or args[0] is None else args[0]
    if (count is None) == (seeds is None):
        received = "neither" if seeds is None else "both"
        raise UserError(f"sample(seeds): expected the number of images, or seeds of rows (tfcq.row_seeds), received {received}")
    if seeds is not None and chosen is not None:
        raise UserError("sample(seed): expected seeds of rows or the seed of all, received both")
    if seeds is None:
        seeds = row_seeds(check_integer("sample(num_images)", count, 1), seed)
    return (seeds, *args[1:]), kwargs


def _seeds_of_rows(rows: Any, seed: int) -> Any:
    """Seeds int32 [N, 2] of the stream `seed` for `rows` [N, ...], an array or a tensor; N may be unknown in a graph."""
    if rows.shape[0] is not None:
        return row_seeds(int(rows.shape[0]), seed)
    numbers_of_rows = tf.range(tf.shape(rows)[0])
    return tf.stack([tf.fill(tf.shape(numbers_of_rows), seed), numbers_of_rows], axis=1)


def _with_optional_seeds(signature: inspect.Signature) -> inspect.Signature:
    """The signature that `help` shows: seeds are optional, and there is an argument `seed`."""
    parameters = [
        one.replace(default=None) if one.name == "seeds" else one for one in signature.parameters.values()
    ]
    parameters.append(inspect.Parameter("seed", inspect.Parameter.KEYWORD_ONLY, default=None))
    return signature.replace(parameters=parameters)


def _array(value):
    if not isinstance(value, tf.Tensor):
        return value
    return inputs.as_text(value.numpy()) if value.dtype == tf.string else value.numpy()


class _Argument(inputs.Argument):
    """An argument that may be a tensor: an eager one, or a symbolic one while a graph is traced."""

    def __init__(self, name, wanted, row, given):
        given = tf.convert_to_tensor(given) if isinstance(given, tf.Variable | keras.Variable) else given
        super().__init__(name, wanted, row, given)

    def value(self):
        if not isinstance(self._given, tf.Tensor):
            return super().value()
        if not hasattr(self._given, "numpy"):
            return self._symbolic(self._given)
        self._converted()
        # The tensor stays on its device and on a tape.
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
        """Whether a tf.TensorShape, possibly with unknown parts, is compatible with this input."""
        if shape.is_compatible_with(()) and (self._row is None or self._wanted.one_for_all):
            return True
        if self._row is None or not shape.is_compatible_with((None, *self._row)):
            return False
        return shape.rank is None or shape[0] != 0
