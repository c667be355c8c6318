"""The signatures of an exported model: dict in, dict out, every tensor `[N, ...]`, inputs checked in the graph.

The table in `tfcq.endpoints` says which there are, their inputs and outputs. Each is the model's method of an endpoint's
name; those of picture files call those of arrays. `serving_default` is `sample`. A row's answer depends on that row only, so a
server may batch requests together. A loaded SavedModel does not enforce the shapes that its signatures declare, so the graph
does: a wrong request fails with INVALID_ARGUMENT and the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import tensorflow as tf

from tfcq.data.transforms import Transform
from tfcq.endpoints import ENDPOINTS, INPUTS, SIGNATURES, Input, blamed_last
from tfcq.exporting import pictures
from tfcq.exporting.pictures import require

if TYPE_CHECKING:
    from tfcq.models.base import GenerativeModel

_FILE = Input("string", (), "a file in PNG or JPEG")


def names_of(abilities: Collection[str]) -> list[str]:
    """The signatures of a model with these abilities, but for `serving_default`."""
    return [name for name, signature in SIGNATURES.items() if signature.ability in abilities]


class ServingModule:
    """What is saved of a model: its variables and one function for each of its abilities.

    Args:
        model: a `GenerativeModel`.
        num_importance_samples: K of the endpoints `likelihood` and `unit_gaussian_likelihood`.
    """

    def __init__(self, model: GenerativeModel, num_importance_samples: int) -> None:
        self._model = model
        self._fixed = {"num_importance_samples": num_importance_samples}
        self._readers: dict[str, tf.types.experimental.ConcreteFunction] = {}

    def signatures(
        self, begin: Callable[[str], object] = lambda name: None
    ) -> dict[str, tf.types.experimental.ConcreteFunction]:
        """{name: concrete function}, including `serving_default`; `begin` is called with each name before it is traced."""
        functions: dict[str, tf.types.experimental.ConcreteFunction] = {}
        for name in names_of(self._model.abilities):
            begin(name)
            functions[name] = self.signature(name, functions.get(SIGNATURES[name].ability))
        return functions | {"serving_default": functions["sample"]}

    def save(self, folder: str, signatures: dict[str, tf.types.experimental.ConcreteFunction]) -> None:
        """Saves the variables and `signatures` as a SavedModel in a folder; without gradients, as an export only answers.

        The model itself is not saved: TensorFlow would add each function that it has traced, of a trained model its step.
        """
        saved = tf.Module(name="serving")
        saved.tracked_variables = [variable.value for variable in self._model.variables]
        without = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(saved, folder, signatures=signatures, options=without)

    def signature(
        self, name: str, of_arrays: tf.types.experimental.ConcreteFunction | None = None
    ) -> tf.types.experimental.ConcreteFunction:
        """A signature of an ability of the model: {tensor: array [N, ...]} by keyword -> {output: tensor [N, ...]}.

        Args:
            name: a key of `SIGNATURES`.
            of_arrays: the signature of the same ability for arrays, which one for picture files calls; None: it is made.
        """
        signature = SIGNATURES[name]
        if signature.encoded:
            return self._of_files(signature, of_arrays or self.signature(signature.ability))
        endpoint = ENDPOINTS[name]
        fixed = {argument: self._fixed[argument] for argument in endpoint.fixed}

        def answer(*tensors):
            answers = getattr(self._model, name)(*self._checked(endpoint.inputs, tensors), **fixed)
            return answers if isinstance(answers, dict) else dict(zip(endpoint.outputs, [answers], strict=True))

        return tf.function(answer, self._specs(signature), autograph=False).get_concrete_function()

    def _of_files(self, signature, of_arrays):
        names = {argument: name for name, argument in SIGNATURES[signature.ability].inputs.items()}

        def answer(*tensors):
            given = {}
            for (name, argument), tensor in zip(signature.inputs.items(), tensors, strict=True):
                if signature.takes_files(argument):
                    tensor = self._reader(argument, name)(tensor)
                given[names[argument]] = tensor
            answers = of_arrays(**given)  # a call: the model's nodes are there once
            return {
                name: pictures.encoded(answers[output]) if signature.answers_files(output) else answers[output]
                for name, output in signature.outputs.items()
            }

        return tf.function(answer, self._specs(signature), autograph=False).get_concrete_function()

    def _reader(self, argument, name):
        """The function from picture files to the images of an argument; one, which every signature calls."""
        if argument not in self._readers:
            shape = INPUTS[argument].row_shape(self._model) or ()
            transform = _transform(self._model, argument, shape)

            def images(files):
                return pictures.decoded(_checked(files, _FILE, name, self._model), shape, transform, name)

            spec = tf.TensorSpec((None,), tf.string, name)
            self._readers[argument] = tf.function(images, [spec], autograph=False).get_concrete_function()
        return self._readers[argument]

    def _specs(self, signature):
        return [
            tf.TensorSpec((None,), tf.string, name)
            if signature.takes_files(argument)
            else tf.TensorSpec((None, *(INPUTS[argument].row_shape(self._model) or ())), INPUTS[argument].dtype, name)
            for name, argument in signature.inputs.items()
        ]

    def _checked(self, inputs, tensors):
        """The tensors of a request in their order, with the assertions of the table added to the graph."""
        given, checked, first = dict(zip(inputs, tensors, strict=True)), {}, None
        for argument in blamed_last(given):
            checked[argument] = _checked(given[argument], INPUTS[argument], argument, self._model, first)
            first = checked[argument] if first is None else first
        return [checked[argument] for argument in given]


def _transform(model, argument, shape):
    """What training did to source images before the model saw them; None: it is not known, or they are no such images."""
    config = getattr(model, "config_of_run", None)
    if config is None or argument == "compressed":
        return None
    data = config.data
    of_one_kind = "what the model was trained on" if data.color == "source" else ""
    return Transform(shape[0], data.center_crop, data.resize, shape[2], of_one_kind)


def _checked(tensor, wanted, argument, model, rows_of=None):
    """`tensor`, whose rank, sizes, number of rows, finiteness (floats) and range the graph asserts when it runs."""
    name, row_shape = wanted.endpoint_name or argument, wanted.row_shape(model)
    # The declared shape is known while tracing, and checks of known facts are dropped; so the tensor is made to forget it.
    tensor = tf.raw_ops.PlaceholderWithDefault(input=tensor, shape=tf.TensorShape(None))
    shape = tf.shape(tensor)
    # As text, since the graph optimizer trusts the declared rank and drops a check of the rank itself.
    sizes = tf.strings.reduce_join(tf.strings.as_string(shape[1:]), separator=",")
    fits = tf.logical_and(tf.equal(sizes, ",".join(map(str, row_shape))), tf.reduce_sum(shape[:1]) > 0)
    letters = ", ".join(["N", *map(str, row_shape)])
    checks = [require(fits, f"{name}: expected shape [{letters}] with N of at least 1, received", shape)]
    with tf.control_dependencies(checks):
        tensor = tf.identity(tensor)
        if rows_of is not None:
            rows = tf.stack([tf.shape(rows_of)[0], shape[0]])
            checks.append(require(tf.equal(*tf.unstack(rows)), f"{name}: expected as many rows as the other input", rows))
        if tensor.dtype.is_floating:
            finite = tf.reduce_all(tf.math.is_finite(tensor))
            checks.append(require(finite, f"{name}: expected finite values, received", shape))
    with tf.control_dependencies(checks):
        tensor = tf.identity(tensor)
        kind = tensor.dtype.as_numpy_dtype
        most = getattr(model, wanted.maximum) if isinstance(wanted.maximum, str) else wanted.maximum
        bounds = (("least", wanted.minimum, tf.greater_equal), ("most", most, tf.less_equal))
        checks = [
            require(tf.reduce_all(keeps(tensor, kind(bound))), f"{name}: expected at {word} {bound}, received", tensor)
            for word, bound, keeps in bounds
            if bound is not None
        ]
    with tf.control_dependencies(checks):
        return tf.ensure_shape(tensor, (None, *row_shape))
