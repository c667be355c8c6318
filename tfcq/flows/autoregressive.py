"""Inverse autoregressive flow: latents from noise in one pass, noise from latents one value at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.flows.base import Flow, ImagesShape
from tfcq.flows.bijector import FlowBijector
from tfcq.networks.masked_convolutions import AutoregressiveNetwork


class InverseAutoregressiveFlow(Flow):
    """Shifts and scales each value of the noise by amounts that a network computes from earlier values and a context.

    From noise to latents (forward), all values at once:

        shift, log_scale = network(noise, context)
        latents = (noise - shift) exp(-log_scale);   log_det = -sum(log_scale)

    where entry i of `shift` and of `log_scale` depends only on earlier entries of the noise, in raster order with the
    channels innermost. So the Jacobian is triangular and its diagonal is exp(-log_scale).

    From latents to noise (inverse), entry i needs the noise before it. This is exact, but takes H * W * C runs of the
    network, one after the other, and for a gradient the memory of all of them. A posterior that computes the density of
    its own draws does not need it, because `transform` returns everything; it is for latents from elsewhere, and for
    tests.

    The context, `[N, H, W, K]`, is further information, such as an encoder's features. A flow has a context of K
    channels or none; `build` or the first call decides. TFP, and other code for flows without a context, takes
    `with_context(context)`. For a data-dependent initialisation of the network, call `transform` within
    `data_dependent_initialization`. A vector of latents is a 1x1 map `[N, 1, 1, C]`, for which `kernel_size=1` suffices.

    Args:
        width: the network's number of channels.
        layers: the network's number of hidden masked convolutions, 1 or more.
        kernel_size: the side of the masked kernels, in pixels; odd.
        seed: an integer that fixes the initial values.
        gain: the relative size of the network's initial outputs: near 0 the flow starts near the identity.
        **kwargs: Keras's (`name`, `dtype`, `trainable`).

    Raises:
        UserError: a size that is not positive; when built, an even kernel.

    References:
        Kingma, Salimans, Jozefowicz, Chen, Sutskever and Welling, "Improving variational autoencoders with inverse
        autoregressive flow", 2016, sections 3 and 4; the signs and the order (shift, then scale) are those of the
        authors' program.
    """

    def __init__(
        self,
        width: int = 32,
        layers: int = 1,
        kernel_size: int = 3,
        seed: int | None = 0,
        gain: float = 1.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.network = AutoregressiveNetwork(
            width, layers, kernel_size, seed, gain, name="network", dtype=self.dtype_policy
        )

    def build(self, images_shape: ImagesShape, context_shape: ImagesShape | None = None) -> None:
        """Makes the network for latents `(N, H, W, C)` and a context `(N, H, W, K)`, or None for no context."""
        self.network.build(images_shape, context_shape)

    @tf.autograph.experimental.do_not_convert
    def transform(self, noise: tf.Tensor, context: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """Noise to latents, with the log-determinant of each entry; runs the network once.

        Args:
            noise: `[N, H, W, C]`; any floating dtype, cast to `transform_dtype`.
            context: `[N, H, W, K]`, or None if the flow has none.

        Returns:
            `latents` and `log_scale`, both `[N, H, W, C]`. `log_scale`, nats, is each entry's term of the latents'
            log-density: `log q(latents) = log p(noise) + sum(log_scale)`.

        Raises:
            UserError: shapes that do not match, or a context for a flow that was built without one (or the reverse).
        """
        noise, context = self._prepared(noise, context, "noise")
        with tf.name_scope(f"{self.name}_forward"):
            shift, log_scale = self.network(noise, context)
            return (noise - shift) * tf.exp(-log_scale), log_scale

    @tf.autograph.experimental.do_not_convert
    def inverse_transform(self, latents: tf.Tensor, context: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """Latents to noise, with the log-determinant of each entry; runs the network H * W * C times, in order.

        Args:
            latents: `[N, H, W, C]`; any floating dtype, cast to `transform_dtype`.
            context: `[N, H, W, K]`, or None if the flow has none.

        Returns:
            `noise` and `log_scale`, both `[N, H, W, C]`; `transform` of this noise returns the same `log_scale`.

        Raises:
            UserError: as `transform`.
        """
        latents, context = self._prepared(latents, context, "latents")
        num_entries = int(np.prod(latents.shape[1:]))

        def add_entry(entry, noise, log_scale):
            # Unknown entries are zero, so the network never reads a value that a large scale has made of an unknown one.
            shift, new_log_scale = self.network(noise, context)
            chosen = tf.reshape(tf.range(num_entries) == entry, [1, *latents.shape[1:]])
            # Selected before exp: an overflow in another entry would make the gradient NaN, although its value is dropped.
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

    def inverse_and_log_det(
        self, images: tf.Tensor, training: bool = False, context: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Latents to noise and the log-determinant `[N]`, nats: `inverse_transform` with the entries added."""
        noise, log_scale = self.inverse_transform(images, context)
        return noise, tf.reduce_sum(log_scale, axis=[1, 2, 3])

    def forward_and_log_det(
        self, features: tf.Tensor, training: bool = False, context: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Noise to latents and the log-determinant `[N]`, nats: `transform` with the entries added."""
        latents, log_scale = self.transform(features, context)
        return latents, -tf.reduce_sum(log_scale, axis=[1, 2, 3])

    def call(
        self, images: tf.Tensor, training: bool = False, context: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Calling a flow as a Keras layer calls `inverse_and_log_det`."""
        return self.inverse_and_log_det(images, training, context)

    def with_context(self, context: tf.Tensor | None) -> ContextualFlow:
        """This flow with a fixed `context`, `[N, H, W, K]` or None. Do not store the result."""
        return ContextualFlow(self, context)

    def bijector(self, training: bool = False, context: tf.Tensor | None = None) -> FlowBijector:
        """A fresh `tfb.Bijector` over this flow with a fixed `context`; see `FlowBijector`. `training` has no effect."""
        return self.with_context(context).bijector(training)

    def _prepared(self, value, context, name):
        """The inputs, checked and cast; builds the flow if necessary."""
        value = self._checked(value, name)
        if context is not None:
            context = self._checked(context, "context")
        if not self.built:
            self.build(tuple(value.shape), None if context is None else tuple(context.shape))
        # Checked here, because Keras would wrap an error of the network into several lines.
        self.network.check_context(value, context)
        return value, context


class ContextualFlow:
    """A flow together with one context, with the interface of a flow without a context. It owns no weights.

    Values may have several times as many rows as the context, such as TFP's samples `[S, N, H, W, C]` reshaped to
    `[S * N, H, W, C]`: the context is then repeated as a whole.

    Args:
        flow: an `InverseAutoregressiveFlow`.
        context: `[N, H, W, K]`, or None.

    Raises:
        UserError: by its methods, if the number of rows is not a multiple of the context's and both are known.
    """

    def __init__(self, flow: InverseAutoregressiveFlow, context: tf.Tensor | None):
        self._flow = flow
        self._context = context
        self.name = flow.name
        self.transform_dtype = flow.transform_dtype
        self.features_shape = flow.features_shape
        self.images_shape = flow.images_shape

    def inverse_and_log_det(self, images: tf.Tensor, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """Latents `[N, H, W, C]` to noise and the log-determinant `[N]`, nats."""
        return self._flow.inverse_and_log_det(images, training, self._context_for(images))

    def forward_and_log_det(self, features: tf.Tensor, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """Noise `[N, H, W, C]` to latents and the log-determinant `[N]`, nats."""
        return self._flow.forward_and_log_det(features, training, self._context_for(features))

    def bijector(self, training: bool = False) -> FlowBijector:
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
                "repeat the context yourself if rows and context belong together in another way"
            )
        times = tf.shape(value)[0] // tf.shape(context)[0]
        return tf.tile(context, tf.stack([times, *[1] * (context.shape.rank - 1)]))
