"""Inverse autoregressive flow: latents from noise in one pass, noise from latents one value at a time."""

import numpy as np
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.flows.base import Flow
from tfcq.flows.bijector import FlowBijector
from tfcq.networks.masked_convolutions import AutoregressiveNetwork


class InverseAutoregressiveFlow(Flow):
    """Shifts and scales each value of the noise by what a network reads in the values before it, and in a context.

    From noise to latents (forward), all values at once:

        shift, log_scale = network(noise, context)
        latents = (noise - shift) exp(-log_scale);   log_det = -sum(log_scale)

    where entry i of `shift` and of `log_scale` depends on strictly earlier entries of the noise, in raster order with
    the channels innermost. So the Jacobian is triangular and its diagonal is exp(-log_scale).

    From latents to noise (inverse), entry i needs the noise before it: exact, but H * W * C runs of the network, one
    after the other, and where a gradient is taken the memory of as many. A posterior that scores its own draws never
    needs it (`transform` says everything); it is for scoring latents from elsewhere, and for tests.

    The context, `[N, H, W, K]`, is what else is known (an encoder's features). A flow has one, of K channels, or none:
    `build` or the first call decides. To TFP, and to all else that knows flows without a context, show
    `with_context(context)`. The data-dependent initialisation of the network goes through `transform`, called within
    `data_dependent_initialization`. A vector of latents is a 1x1 map `[N, 1, 1, C]`; `kernel_size=1` fits it.

    Args:
        width: the network's number of channels.
        layers: its number of hidden masked convolutions, 1 or more.
        kernel_size: the side of its masked kernels, in pixels; odd.
        seed: an integer that fixes its initial values.
        **kwargs: Keras's (`name`, `dtype`, `trainable`).

    Raises:
        UserError: for a size that is not positive; for an even kernel, when built.

    References:
        Kingma, Salimans, Jozefowicz, Chen, Sutskever and Welling, "Improving variational autoencoders with inverse
        autoregressive flow", 2016, sections 3 and 4; the signs and the order (shift, then scale) are of its authors'
        program.
    """

    def __init__(self, width=32, layers=1, kernel_size=3, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.network = AutoregressiveNetwork(width, layers, kernel_size, seed, name="network", dtype=self.dtype_policy)

    def build(self, images_shape, context_shape=None):
        """Makes the network for latents `(N, H, W, C)` and a context `(N, H, W, K)`, or None for no context."""
        self.network.build(tuple(images_shape), None if context_shape is None else tuple(context_shape))

    @tf.autograph.experimental.do_not_convert
    def transform(self, noise, context=None):
        """Noise to latents, with the log-determinant entry by entry: one run of the network.

        Args:
            noise: `[N, H, W, C]`; any floating dtype, cast to `transform_dtype`.
            context: `[N, H, W, K]`, or None if the flow has none.

        Returns:
            `latents` and `log_scale`, both `[N, H, W, C]`. `log_scale`, nats, is what each entry adds to the latents'
            log-density: `log q(latents) = log p(noise) + sum(log_scale)`.

        Raises:
            UserError: for shapes that do not fit, or a context where the flow was built without one (or the reverse).
        """
        noise, context = self._prepared(noise, context, "noise")
        with tf.name_scope(f"{self.name}_forward"):
            shift, log_scale = self.network(noise, context)
            return (noise - shift) * tf.exp(-log_scale), log_scale

    @tf.autograph.experimental.do_not_convert
    def inverse_transform(self, latents, context=None):
        """Latents to noise, with the log-determinant entry by entry: H * W * C runs of the network, in order.

        Args:
            latents: `[N, H, W, C]`; any floating dtype, cast to `transform_dtype`.
            context: `[N, H, W, K]`, or None if the flow has none.

        Returns:
            `noise` and `log_scale`, both `[N, H, W, C]`; the same `log_scale` that `transform` of this noise gives.

        Raises:
            UserError: as `transform`.
        """
        latents, context = self._prepared(latents, context, "latents")
        num_entries = int(np.prod(latents.shape[1:]))

        def add_entry(entry, noise, log_scale):
            # What is not known yet stands at zero, so no network ever reads a value that a wild scale made of nothing.
            shift, new_log_scale = self.network(noise, context)
            chosen = tf.reshape(tf.range(num_entries) == entry, [1, *latents.shape[1:]])
            # Chosen before exp: an overflow elsewhere would make the gradient NaN, though its value is dropped.
            new_log_scale = tf.where(chosen, new_log_scale, 0.0)
            new_noise = tf.where(chosen, latents * tf.exp(new_log_scale) + shift, 0.0)
            return entry + 1, noise + new_noise, log_scale + new_log_scale

        with tf.name_scope(f"{self.name}_inverse"):
            _, noise, log_scale = tf.while_loop(
                lambda entry, *_: entry < num_entries,
                add_entry,
                (tf.constant(0), tf.zeros_like(latents), tf.zeros_like(latents)),
                parallel_iterations=1,
                maximum_iterations=num_entries,
            )
        return noise, log_scale

    def inverse_and_log_det(self, images, training=False, context=None):
        """Latents to noise and its log-determinant `[N]`, nats: `inverse_transform`, summed."""
        noise, log_scale = self.inverse_transform(images, context)
        return noise, tf.reduce_sum(log_scale, axis=[1, 2, 3])

    def forward_and_log_det(self, features, training=False, context=None):
        """Noise to latents and its log-determinant `[N]`, nats: `transform`, summed."""
        latents, log_scale = self.transform(features, context)
        return latents, -tf.reduce_sum(log_scale, axis=[1, 2, 3])

    def call(self, images, training=False, context=None):
        """A flow called as a Keras layer is `inverse_and_log_det`."""
        return self.inverse_and_log_det(images, training, context)

    def with_context(self, context):
        """This flow given `context`, `[N, H, W, K]` or None: a `ContextualFlow`. Use it and let it go."""
        return ContextualFlow(self, context)

    def bijector(self, training=False, context=None):
        """A fresh `tfb.Bijector` over this flow given `context`; see `FlowBijector`. `training` changes nothing."""
        return self.with_context(context).bijector(training)

    def _prepared(self, value, context, name):
        """The inputs, checked and cast; the flow is built if it is not."""
        value = self._checked(value, name)
        if context is not None:
            context = self._checked(context, "context")
        if not self.built:
            self.build(tuple(value.shape), None if context is None else tuple(context.shape))
        # Here, not only within the network, whose errors Keras would wrap into several lines.
        self.network.check_context(value, context)
        return value, context


class ContextualFlow:
    """A flow together with one context: it owns no weight and looks like a flow that needs none.

    Values may have several times as many rows as the context, as samples of TFP's do after `[S, N, H, W, C]` became
    `[S * N, H, W, C]`: the context is then repeated as a whole.

    Args:
        flow: an `InverseAutoregressiveFlow`.
        context: `[N, H, W, K]`, or None.

    Raises:
        UserError: by its methods, for a number of rows that is no multiple of the context's, if both are known.
    """

    def __init__(self, flow, context):
        self._flow = flow
        self._context = context
        self.name = flow.name
        self.transform_dtype = flow.transform_dtype
        self.features_shape = flow.features_shape
        self.images_shape = flow.images_shape

    def inverse_and_log_det(self, images, training=False):
        """Latents `[N, H, W, C]` to noise and its log-determinant `[N]`, nats."""
        return self._flow.inverse_and_log_det(images, training, self._context_for(images))

    def forward_and_log_det(self, features, training=False):
        """Noise `[N, H, W, C]` to latents and its log-determinant `[N]`, nats."""
        return self._flow.forward_and_log_det(features, training, self._context_for(features))

    def bijector(self, training=False):
        """A fresh `tfb.Bijector`; see `FlowBijector`."""
        return FlowBijector(self, training=training)

    def _context_for(self, value):
        if self._context is None:
            return None
        context = tf.convert_to_tensor(self._context)
        rows, known = value.shape[0], context.shape[0]
        if rows is not None and rows == known:
            return context
        if rows is not None and known is not None and rows % known:
            raise UserError(
                f"{self.name} was given {rows} rows and a context of {known}: expected a multiple of {known}; "
                "repeat the context yourself if rows are to share it in another way"
            )
        times = tf.shape(value)[0] // tf.shape(context)[0]
        return tf.tile(context, tf.stack([times, *[1] * (context.shape.rank - 1)]))
