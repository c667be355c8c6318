"""An approximate posterior of a VAE: a Gaussian that an inverse autoregressive flow makes more flexible."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp

from tfcq.errors import UserError

tfd = tfp.distributions


class IAFPosterior(tfp.distributions.Distribution):
    """q(latents | context): a Gaussian with independent entries, pushed through a flow.

        noise ~ N(0, I);   base = loc + scale noise;   latents, log_scale = flow.transform(base, context)
        log q(latents) = sum(-noise^2 / 2 - log(2 pi) / 2 - log(scale) + log_scale)

    `draw_with_log_prob` turns noise into latents and returns log q of each entry, for a KL of each channel; it runs the
    flow's network once. `log_prob` takes any latents; it is exact and runs the network once per entry.

    The noise is an argument and never drawn here, because TFP's noise would differ between replicas. So `sample` raises.

    Like every TFP object over Keras weights, it is valid only in the call that created it: do not store it.

    Args:
        loc: `[N, H, W, C]`, the Gaussian's means.
        scale: `[N, H, W, C]`, its standard deviations, positive.
        flow: a `tfcq.flows.InverseAutoregressiveFlow`, or an object with its `transform`, `bijector` and `transform_dtype`.
        context: the flow's context, `[N, H, W, K]`, or None.
        validate_args: argument of TFP without effect; there is nothing to validate.
        name: name of the distribution and of its operations.

    Raises:
        UserError: `loc` and `scale` do not have the same shape `[N, H, W, C]`, or the flow refuses the context.

    References:
        Kingma et al., "Improving variational autoencoders with inverse autoregressive flow", 2016, algorithm 1.
    """

    def __init__(
        self,
        loc: tf.Tensor,
        scale: tf.Tensor,
        flow: Any,
        context: tf.Tensor | None = None,
        validate_args: bool = False,
        name: str = "iaf_posterior",
    ):
        parameters = dict(locals())
        dtype = tf.as_dtype(flow.transform_dtype)
        self._loc = tf.cast(tf.convert_to_tensor(loc), dtype)
        self._scale = tf.cast(tf.convert_to_tensor(scale), dtype)
        if self._loc.shape.rank != 4 or not self._loc.shape.is_compatible_with(self._scale.shape):
            raise UserError(
                "loc and scale of a posterior must have one shape [N, H, W, C], got "
                f"{self._loc.shape} and {self._scale.shape}: reshape them; a vector is a 1x1 map"
            )
        self._flow = flow
        self._context = context
        super().__init__(
            dtype=dtype,
            reparameterization_type=tfd.FULLY_REPARAMETERIZED,
            validate_args=validate_args,
            allow_nan_stats=False,
            parameters=parameters,
            name=name,
        )

    @property
    def loc(self) -> tf.Tensor:
        """The means of the Gaussian, `[N, H, W, C]`: those of the flow's input, not of the latents."""
        return self._loc

    @property
    def scale(self) -> tf.Tensor:
        """The standard deviations of the Gaussian, `[N, H, W, C]`: those of the flow's input, not of the latents."""
        return self._scale

    def draw(self, noise: tf.Tensor) -> tf.Tensor:
        """Latents drawn with standard normal `noise`, both `[N, H, W, C]`; differentiable in loc, scale and the flow."""
        return self.draw_with_log_prob(noise)[0]

    def draw_with_log_prob(self, noise: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Latents drawn with `noise` and the log-density of each entry, from one run of the flow's network.

        Args:
            noise: `[N, H, W, C]`, standard normal.

        Returns:
            `latents`, `[N, H, W, C]`, and `log_prob`, `[N, H, W, C]`, nats: entry i is log q(latent i | latents before
            it), and the sum over H, W and C is `log_prob(latents)`.
        """
        noise = tf.cast(tf.convert_to_tensor(noise), self.dtype)
        latents, log_scale = self._flow.transform(self._loc + self._scale * noise, self._context)
        # Uses the noise itself: (base - loc) / scale would only add rounding errors.
        base_log_prob = -0.5 * tf.square(noise) - 0.5 * math.log(2.0 * math.pi) - tf.math.log(self._scale)
        return latents, base_log_prob + log_scale

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        properties = tfp.util.ParameterProperties
        return {"loc": properties(event_ndims=3), "scale": properties(event_ndims=3)}

    def _event_shape(self):
        return self._loc.shape[1:]

    def _event_shape_tensor(self):
        return tf.shape(self._loc)[1:]

    def _log_prob(self, latents):
        base = tfd.Independent(tfd.Normal(self._loc, self._scale), 3)
        bijector = self._flow.bijector(context=self._context)
        return tfd.TransformedDistribution(base, bijector).log_prob(latents)

    def _sample_n(self, n, seed=None):
        raise UserError(f"{self.name} draws from a given noise only: expected draw(noise), got sample; call draw")
