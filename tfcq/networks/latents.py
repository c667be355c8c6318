"""One layer of latents of a top-down hierarchy: its prior, its posterior, its KL.

Kingma et al. 2016 (the ladder with inverse autoregressive flow) and Sonderby et al. 2016: with `evidence` from the encoder's way
up and `state` from the decoder's way down,

    prior      p(z | state)           = N(m, s),       m and log s read in the state; of the first layer N(0, I)
    posterior  q(z | state, evidence) = N(r + q, ...)  means and log-deviations are sums of what either way says

and with a flow the posterior is that normal's image under one autoregressive step, which also reads a context from both ways.
"""

import dataclasses

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfcq.distributions.iaf_posterior import IAFPosterior
from tfcq.networks.convolutions import Convolution

tfd = tfp.distributions

HEAD_GAIN = 0.07
"""Relative size of the first statistics: a posterior that starts near its prior, not thousands of nats away."""

PRIOR_LOG_SCALES, POSTERIOR_LOG_SCALES = (-3.0, 3.0), (-7.0, 3.0)
"""Limits. A posterior may be as narrow as it likes; what is bounded is how much wider than its prior it can be, because the
square of that ratio is in the KL: with wide limits one outlying image cost 1e9 nats, and ended a run."""


@dataclasses.dataclass
class Inferred:
    """Latents drawn from a posterior, and what they cost.

    Attributes:
        latents: float32 [N, *shape].
        kl: float32 [N, C], nats, of each channel: exact given the state where the posterior is a normal, by this draw where
            it has a flow.
        log_ratio: float32 [N], nats: log p(z | state) - log q(z | state, evidence) at this draw.
    """

    latents: tf.Tensor
    kl: tf.Tensor
    log_ratio: tf.Tensor


class LatentLayer(keras.layers.Layer):
    """See the module.

    Args:
        shape: of the latents: (side, side, C) or (C,).
        state_channels: channels of the state, [N, side, side, state_channels]; None: the first layer, which has no state.
        inference: whether there is a posterior.
        flow: `tfcq.flows.InverseAutoregressiveFlow` of the posterior, or None.
        context_channels: channels of the flow's context.
        weight_normalization: of the convolution that reads the state.
        seed: an integer that fixes its initial values.
        **kwargs: Keras's (`name`, `dtype`).
    """

    def __init__(
        self,
        shape,
        state_channels=None,
        inference=True,
        flow=None,
        context_channels=0,
        weight_normalization=False,
        seed=0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.shape = tuple(shape)
        self.channels = self.shape[-1]
        self.num_statistics = 2 * self.channels + (context_channels if flow is not None else 0)
        self.flow = flow
        self._context_channels = context_channels
        self.head = None
        if state_channels is not None:
            self.head = Convolution(
                2 * self.channels + inference * self.num_statistics,
                3,
                weight_normalization=weight_normalization,
                gain=HEAD_GAIN,
                seed=seed,
                dtype="float32",
                name="head",
            )
        self._state_channels = state_channels

    def build(self, state_shape=None):
        """Makes all weights; the sizes are the constructor's."""
        if self.flow is not None:
            self.flow.build((None, *self._map_shape), (None, *self._map_shape[:-1], self._context_channels))
        if self.head is not None:
            self.head.build((None, *self.shape[:-1], self._state_channels))

    @property
    def _map_shape(self):
        """The latents as a map: a vector is one pixel."""
        return self.shape if len(self.shape) == 3 else (1, 1, self.channels)

    def _as_map(self, values):
        return tf.reshape(values, [-1, *self._map_shape[:-1], values.shape[-1]])

    def prior(self, state):
        """p(z | state) as `tfd.Normal`, batch shape [N, *shape] (the first layer, `state` None: `shape`)."""
        return self._read(state)[0]

    def generate(self, state, noise, temperature):
        """A draw from the prior of `noise` (standard normal, [N, *shape]); `temperature` [N, 1, ...] scales its deviation."""
        prior = self.prior(state)
        return prior.loc + prior.scale * temperature * noise

    def infer(self, state, evidence, noise):
        """A draw from the posterior, `Inferred`.

        Args:
            state: float [N, side, side, state_channels], or None.
            evidence: float32 [N, *shape[:-1], num_statistics] of the encoder.
            noise: standard normal, float32 [N, *shape]; zeros give the posterior's central value.
        """
        prior, below = self._read(state)
        statistics = evidence if below is None else evidence + below
        loc, log_scale, context = tf.split(
            statistics, [self.channels, self.channels, self.num_statistics - 2 * self.channels], axis=-1
        )
        base = tfd.Normal(loc, tf.exp(_limited(log_scale, POSTERIOR_LOG_SCALES)))
        if self.flow is None:
            latents = base.loc + base.scale * noise
            log_ratio = prior.log_prob(latents) - base.log_prob(latents)
            kl = tfd.kl_divergence(base, prior)
        else:
            posterior = IAFPosterior(*map(self._as_map, (base.loc, base.scale)), self.flow, self._as_map(context))
            drawn = posterior.draw_with_log_prob(tf.broadcast_to(self._as_map(noise), tf.shape(posterior.loc)))
            latents, log_posterior = (tf.reshape(values, [-1, *self.shape]) for values in drawn)
            log_ratio = prior.log_prob(latents) - log_posterior
            kl = -log_ratio
        space = list(range(1, len(self.shape)))
        return Inferred(
            latents, tf.reduce_sum(kl, axis=space) if space else kl, tf.reduce_sum(log_ratio, axis=[*space, len(self.shape)])
        )

    def _read(self, state):
        """The prior, and what the state says of the posterior (None: nothing)."""
        if state is None:
            return tfd.Normal(tf.zeros(self.shape), 1.0), None
        statistics = self.head(state)
        loc, log_scale = statistics[..., : self.channels], statistics[..., self.channels : 2 * self.channels]
        return tfd.Normal(loc, tf.exp(_limited(log_scale, PRIOR_LOG_SCALES))), statistics[..., 2 * self.channels :]


def _limited(log_scale, limits):
    # The gradient goes through the limits: one example that leaves them would otherwise stay outside for good.
    return tfp.math.clip_by_value_preserve_gradient(log_scale, *limits)
