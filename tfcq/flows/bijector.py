"""The bridge from a flow layer to TensorFlow Probability."""

import tensorflow as tf
import tensorflow_probability as tfp

EVENT_NDIMS = 3  # height, width, channels


class _NoCache:
    """Stands where TFP keeps its cache of results by tensor identity, and keeps nothing.

    TFP's cache answers `inverse(forward(z))` with `z` itself and, worse, an eager tensor that it saw before the weights
    changed with the old result.
    """

    def __init__(self, bijector=None):
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
    """A `tfb.Bijector` over a flow layer, which it reads anew at every call.

    It holds the layer, never a tensor made of its weights, so weights that change between two calls are seen.

    A log-density needs the transformed value and the log-determinant, which TFP asks for one after the other (`inverse`
    then `forward_log_det_jacobian` of its result, in `TransformedDistribution.log_prob`). A flow computes both
    together, so the last run of each direction is remembered, by the identity of its tensors:

      * while a graph is traced (`tf.function`), any question about a tensor seen in this same graph is answered from
        it: the networks inside appear once in the graph, for each direction;
      * eagerly, where weights may change between two calls, only a log-determinant *of the very tensor that this
        bijector returned* is, and once. With batch normalisation in training this is also what makes it right: the
        inverse normalised by the batch, which the forward direction, with its moving statistics, cannot undo.

    Values have shape `[..., H, W, C]`, log-determinants `[...]`, in nats.

    Args:
        flow: a `tfcq.flows.Flow`.
        training: passed to the flow: whether the inverse's normalisations use and learn from the batch's statistics.
        validate_args: TFP's; there is nothing to validate.
        name: TFP's name of its operations.
    """

    _cache = _NoCache()

    def __init__(self, flow, training=False, validate_args=False, name=None):
        parameters = dict(locals())
        self._flow = flow
        self._training = training
        super().__init__(
            forward_min_event_ndims=EVENT_NDIMS,
            dtype=tf.as_dtype(flow.transform_dtype),
            validate_args=validate_args,
            parameters=parameters,
            name=name or f"{flow.name}_bijector",
        )
        # Outside of tf.Module's tracking, which would wrap it and copy it.
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
        """The flow's outputs and log-determinants in this direction, remembered or new."""
        graph = _current_graph()
        if graph is not None and direction in self._runs:
            known_graph, known_value, outputs, log_det = self._runs[direction]
            if known_graph is graph and known_value is value:
                return outputs, log_det
        flow_method = self._flow.forward_and_log_det if direction == "forward" else self._flow.inverse_and_log_det
        if value.shape.rank == EVENT_NDIMS + 1:
            outputs, log_det = flow_method(value, training=self._training)
        else:
            # A flow knows one batch dimension; a distribution may have several, or none.
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
    """The graph that is being traced, or None when eager."""
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
