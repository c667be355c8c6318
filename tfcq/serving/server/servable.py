"""One loaded version of a SavedModel: its signatures, the checks on a request, and the warm-up."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable

import numpy as np
import tensorflow as tf
from absl import logging
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from . import stopping
from .errors import RequestError, as_request_error, invalid
from .tensor_protos import check_names, check_tensor, to_arrays
from .versions import SAVED_MODEL_FILE

DEFAULT_SIGNATURE = "serving_default"
WARMUP_FILE = os.path.join("assets.extra", "tf_serving_warmup_requests")

# TF Serving reads at most this many records (saved_model_warmup_util.h), and so does this server.
MAX_WARMUP_RECORDS = 1000


class Servable:
    """A version of a model, ready to answer; safe to use from several threads.

    Args:
        path: the version's directory, with `saved_model.pb` in it.

    Raises:
        Exception: any error of TensorFlow for a SavedModel that it cannot read.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.signature_defs = _read_signature_defs(path)
        self._model = tf.saved_model.load(self._plain(path))  # keeps the variables, which the signatures do not reference
        self._signatures = dict(self._model.signatures)

    def input_specs(self, signature_name: str) -> dict[str, tf.TensorSpec]:
        """{input name: tf.TensorSpec} of a signature; an empty name means the default one.

        Raises:
            RequestError: INVALID_ARGUMENT if there is no such signature.
        """
        return self._signature(signature_name).structured_input_signature[1]

    def predict(
        self,
        signature_name: str,
        inputs: dict[str, np.ndarray],
        output_filter: Iterable[str] = (),
        deadline: float | None = None,
    ) -> dict[str, np.ndarray]:
        """Runs a signature.

        Args:
            signature_name: the signature; an empty name means "serving_default".
            inputs: {input name: numpy array}, each with the dtype and a shape that the signature declares. (The
                declared shape is not enforced by a loaded SavedModel itself.)
            output_filter: the names of the outputs to return; empty for all of them.
            deadline: when the answer is of no use any more, in seconds of `time.monotonic()`; None: never. A running model
                ends at its next turn of a loop (see `stopping`).

        Returns:
            {output name: numpy array}.

        Raises:
            RequestError: INVALID_ARGUMENT for inputs or outputs that the signature does not have, and for what the
                graph's own assertions refuse; DEADLINE_EXCEEDED; CANCELLED if the thread's `stopping.Call` is; the code of
                TensorFlow's error otherwise.
        """
        function = self._signature(signature_name)
        specs = function.structured_input_signature[1]
        check_names(specs, inputs)
        for name, spec in specs.items():
            array = np.asarray(inputs[name])
            check_tensor(name, tf.as_dtype(array.dtype), array.shape, spec)
        available = sorted(function.structured_outputs)
        wanted = list(output_filter) or available
        for name in wanted:
            if name not in available:
                raise invalid(f"output {name!r} is not in the signature; its outputs: {', '.join(available)}")
        if len(set(wanted)) != len(wanted):
            raise invalid(f"output_filter names an output twice: {', '.join(wanted)}")
        try:
            with stopping.until(deadline):
                outputs = function(**{name: tf.constant(array) for name, array in inputs.items()})
            return {name: outputs[name].numpy() for name in wanted}
        except tf.errors.OpError as error:
            raise as_request_error(error) from error

    def warm_up(self) -> int:
        """Replays the recorded requests of `assets.extra/tf_serving_warmup_requests`, if there are any.

        Returns:
            The number of requests that were replayed. A record that cannot be read or run causes a warning only:
            warm-up makes the first requests fast, but does not decide whether a model may serve.
        """
        path = os.path.join(self.path, WARMUP_FILE)
        replayed = 0
        if not os.path.exists(path):
            return replayed
        try:
            for record in tf.data.TFRecordDataset(path).take(MAX_WARMUP_RECORDS):
                log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
                if log.WhichOneof("log_type") != "predict_log":
                    raise invalid(f"record {replayed + 1} is a {log.WhichOneof('log_type')}, not a predict_log")
                request = log.predict_log.request
                signature_name = request.model_spec.signature_name
                inputs = to_arrays(request.inputs, self.input_specs(signature_name))
                self.predict(signature_name, inputs, request.output_filter)
                replayed += 1
        except Exception as error:
            logging.warning("warm-up of %s stopped after %d requests: %s", self.path, replayed, as_request_error(error))
        return replayed

    def _plain(self, path):
        """A name of a directory without pattern characters, as TensorFlow reads `[a]` in a path as `a`.

        It is valid as long as this object exists, as the model may read its assets later. (`tfcq.machine.paths.plain` does the
        same.)
        """
        if not set(path) & set("*?[\\") or not os.path.isdir("/proc/self/fd"):
            return path
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        weakref.finalize(self, os.close, descriptor)
        return f"/proc/self/fd/{descriptor}"

    def _signature(self, name):
        name = name or DEFAULT_SIGNATURE
        if name not in self._signatures:
            known = ", ".join(sorted(self._signatures))
            raise invalid(f"signature {name!r} is not in the model; its signatures: {known}")
        return self._signatures[name]


def _read_signature_defs(path):
    """{name: SignatureDef} of the version's serving graph, for the metadata endpoint."""
    with open(os.path.join(path, SAVED_MODEL_FILE), "rb") as file:
        saved_model = saved_model_pb2.SavedModel.FromString(file.read())
    for meta_graph in saved_model.meta_graphs:
        if "serve" in meta_graph.meta_info_def.tags:
            signature_defs = {}
            for name, signature in meta_graph.signature_def.items():
                signature_defs[name] = meta_graph_pb2.SignatureDef()
                signature_defs[name].CopyFrom(signature)
            return signature_defs
    raise RequestError("FAILED_PRECONDITION", f"{path} has no graph with the tag 'serve'")
