"""What stands between a user's call and a model's method, by the table of `tfcq.endpoints`.

Before the method: arguments are checked, before any network runs, and those left out are filled in. Without the checks a wrong
array mostly gets an answer: srVAE's log_prob of images in [0, 1] is a number, of almost black images. What has values (NumPy
arrays, eager tensors, Python numbers and lists) is checked in full, as `tfcq.inputs` says. In a graph, types and the static parts
of shapes are checked while it is traced, at no cost later; the endpoints of an export assert the rest themselves.

After it: the answer is made of NumPy arrays. It stays tensors in a `tf.function`, and where an argument is a tensor, as under a
`tf.GradientTape`.
"""

import contextlib
import functools
import inspect
import numbers
import threading

import keras
import numpy as np
import tensorflow as tf

from tfcq import inputs
from tfcq.checks import check_integer, dims
from tfcq.endpoints import INPUTS, METHODS
from tfcq.errors import UserError
from tfcq.seeds import row_seeds

_call = threading.local()  # whether a method of a model runs in this thread: what it asks another is no user's call


@contextlib.contextmanager
def internal():
    """While it lasts, methods of models in this thread are called as they are: no checks, and tensors for answers."""
    before, _call.internal = getattr(_call, "internal", False), True
    try:
        yield
    finally:
        _call.internal = before


def checked(method):
    """`method` of a `GenerativeModel`, one of `METHODS`, as users call it.

    `seeds` may be left out: they are `row_seeds(N, seed)`, where `seed` (an int, 0 by default) is an argument of every method
    that takes seeds. `sample` takes the number of images in their place.

    Raises, when it is called:
        UserError: an ability that the model lacks, or an argument of a wrong type, shape, range or number of rows.
    """
    name = method.__name__
    ability, arguments = METHODS[name]
    signature = inspect.signature(method)
    takes_seeds = "seeds" in signature.parameters

    @functools.wraps(method)
    def call(self, *args, **kwargs):
        if getattr(_call, "internal", False):
            return method(self, *args, **kwargs)
        self.require(ability)
        seed = check_integer(f"{name}(seed)", kwargs.pop("seed", 0)) if takes_seeds else 0
        if name == "sample":
            args, kwargs = _with_seeds_of_count(args, kwargs, seed)
        given = signature.bind_partial(self, *args, **kwargs).arguments
        for argument in signature.parameters:
            default = INPUTS[argument].default if argument in INPUTS else None
            if default is not None:
                given.setdefault(argument, default)
        if given.get("seeds", 0) is None:
            del given["seeds"]
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
        call.__signature__ = _with_optional_seeds(signature)
    # Not by AutoGraph: it would turn a UserError into an error of its own, and no method needs it.
    return tf.autograph.experimental.do_not_convert(call)


def _with_seeds_of_count(args, kwargs, seed):
    """The arguments of `sample` with seeds where the number of images stands in their place."""
    kwargs = dict(kwargs)
    count = kwargs.pop("num_images", None)
    if args and (args[0] is None or isinstance(args[0], numbers.Number | np.generic)):
        count, args = (args[0] if count is None else count), (None, *args[1:])
    seeds = kwargs.pop("seeds", None) if not args or args[0] is None else args[0]
    if (count is None) == (seeds is None):
        received = "neither" if seeds is None else "both"
        raise UserError(f"sample(seeds): expected the number of images, or seeds of rows (tfcq.row_seeds), received {received}")
    if seeds is None:
        seeds = row_seeds(check_integer("sample(num_images)", count, 1), seed)
    return (seeds, *args[1:]), kwargs


def _seeds_of_rows(rows, seed):
    """Seeds int32 [N, 2] of the stream `seed` for `rows` [N, ...], an array or tensor whose N a graph may not know yet."""
    if rows.shape[0] is not None:
        return row_seeds(int(rows.shape[0]), seed)
    numbers_of_rows = tf.range(tf.shape(rows)[0])
    return tf.stack([tf.fill(tf.shape(numbers_of_rows), seed), numbers_of_rows], axis=1)


def _with_optional_seeds(signature):
    """What `help` shows of a method: seeds may be left out, and `seed` given."""
    parameters = [
        one.replace(default=None) if one.name == "seeds" else one for one in signature.parameters.values()
    ]
    parameters.append(inspect.Parameter("seed", inspect.Parameter.KEYWORD_ONLY, default=0))
    return signature.replace(parameters=parameters)


def _array(value):
    return value.numpy() if isinstance(value, tf.Tensor) else value


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
