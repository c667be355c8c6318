"""The bridge from a flow layer to TensorFlow Probability."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf
import tensorflow_probability as tfp

if TYPE_CHECKING:
    from tfcq.flows.autoregressive import ContextualFlow
    from tfcq.flows.base import Flow

EVENT_NDIMS = 3  # height, width, channels


class _NoCache:
    """Replaces TFP's cache of results by tensor identity, and stores nothing.

    TFP's cache returns `z` itself for `inverse(forward(z))`. Worse, for an eager tensor that it saw before the weights
    changed it returns the old result.
    """

    def __init__(self, bijector: Any = None):
        self._bijector = bijector

    def __get__(self, bijector, bijector_class=None):
        return _NoCache(bijector)

    def forward(self, x):
        return self._bijector._forward(x)

    def inverse(self, y):
        return self._bijector._inverse(y)

    def forward_attributes(self, x):
        return {}

    def inverse_attributes(self, y):
        return {}


class FlowBijector(tfp.bijectors.Bijector):
    """A `tfb.Bijector` over a flow layer, which it evaluates anew at every call.

    It holds the layer, never a tensor computed from its weights, so it sees weights that change between two calls.

    A log-density needs the transformed value and the log-determinant, which TFP requests one after the other (`inverse`,
    then `forward_log_det_jacobian` of its result, in `TransformedDistribution.log_prob`). A flow computes both
    together, so the results of the last run in each direction are kept, by the identity of the tensors:

      * while a graph is traced (`tf.function`), they are reused for the same tensor in the same graph, so that the
        networks inside appear only once per direction in the graph;
      * eagerly, where weights may change between two calls, only the log-determinant of *the very tensor that this
        bijector returned* is reused, and only once. With batch normalisation in training this is necessary for a
        correct result: the inverse normalises by the batch, which the forward direction, with its moving statistics,
        cannot undo.

    Values have shape `[..., H, W, C]`, log-determinants `[...]`, in nats.

    Args:
        flow: a `tfcq.flows.Flow`, or a `ContextualFlow`.
        condition: `[N, condition_size]`, passed to a `Flow`, whose images then have one batch dimension; None: none is.
        training: passed to the flow: whether normalisations of the inverse use the batch's statistics and update theirs.
        validate_args: argument of TFP without effect; there is nothing to validate.
        name: name of the bijector and of its operations.
    """

    _cache = _NoCache()

    def __init__(
        self,
        flow: Flow | ContextualFlow,
        training: bool = False,
        validate_args: bool = False,
        name: str | None = None,
        condition: tf.Tensor | None = None,
    ):
        parameters = dict(locals())
        self._flow = flow
        self._training = training
        self._given = self._no_dependency({} if condition is None else {"condition": condition})
        super().__init__(
            forward_min_event_ndims=EVENT_NDIMS,
            dtype=tf.as_dtype(flow.transform_dtype),
            validate_args=validate_args,
            parameters=parameters,
            name=name or f"{flow.name}_bijector",
        )
        # Outside tf.Module's tracking, which would wrap and copy it.
        self._runs = self._no_dependency({})

    @classmethod
    def _parameter_properties(cls, dtype):
        return {}

    def _forward(self, x):
        return self._run("forward", x)[0]

    def _inverse(self, y):
        return self._run("inverse", y)[0]

    def _forward_log_det_jacobian(self, x):
        log_det = self._log_det_of_returned("inverse", x)
        return self._run("forward", x)[1] if log_det is None else -log_det

    def _inverse_log_det_jacobian(self, y):
        log_det = self._log_det_of_returned("forward", y)
        return self._run("inverse", y)[1] if log_det is None else -log_det

    def _run(self, direction, value):
        """The flow's outputs and log-determinants in this direction, kept from the last run or computed."""
        graph = _current_graph()
        if graph is not None and direction in self._runs:
            known_graph, known_value, outputs, log_det = self._runs[direction]
            if known_graph is graph and known_value is value:
                return outputs, log_det
        flow_method = self._flow.forward_and_log_det if direction == "forward" else self._flow.inverse_and_log_det
        if value.shape.rank == EVENT_NDIMS + 1:
            outputs, log_det = flow_method(value, training=self._training, **self._given)
        else:
            # A flow has one batch dimension; a distribution may have several, or none.
            batch_shape, event_shape = tf.shape(value)[:-EVENT_NDIMS], value.shape[-EVENT_NDIMS:]
            outputs, log_det = flow_method(tf.reshape(value, [-1, *event_shape]), training=self._training)
            outputs = tf.reshape(outputs, tf.concat([batch_shape, outputs.shape[1:]], axis=0))
            outputs = tf.ensure_shape(outputs, [*value.shape[:-EVENT_NDIMS], *outputs.shape[-EVENT_NDIMS:]])
            log_det = tf.reshape(log_det, batch_shape)
        self._runs[direction] = (graph, value, outputs, log_det)
        return outputs, log_det

    def _log_det_of_returned(self, direction, value):
        """The log-determinant that came with `value`, if the last run in `direction` returned it, else None."""
        graph = _current_graph()
        known_graph, _, outputs, log_det = self._runs.get(direction, (None, None, None, None))
        if outputs is not value or known_graph is not graph:
            return None
        if graph is None:
            del self._runs[direction]
        return log_det

    def _forward_event_shape(self, input_shape):
        return tf.TensorShape(self._flow.images_shape(tuple(input_shape)))

    def _inverse_event_shape(self, output_shape):
        return tf.TensorShape(self._flow.features_shape(tuple(output_shape)))

    def _forward_event_shape_tensor(self, input_shape):
        return tf.stack(self._flow.images_shape(tuple(tf.unstack(input_shape))))

    def _inverse_event_shape_tensor(self, output_shape):
        return tf.stack(self._flow.features_shape(tuple(tf.unstack(output_shape))))


def _current_graph():
    """The graph that is being traced, or None in eager execution."""
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
