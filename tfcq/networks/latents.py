"""One layer of latents of a top-down hierarchy: its prior, its posterior and its KL.

As in Kingma et al. 2016 (the ladder with inverse autoregressive flow) and Sonderby et al. 2016, with `evidence` from the
encoder's way up and `state` from the decoder's way down,

    prior      p(z | state)           = N(m, s),       m and log s computed from the state; N(0, I) for the first layer
    posterior  q(z | state, evidence) = N(r + q, ...)  means and log-deviations are sums of terms from evidence and state

With a flow the posterior is this normal distribution transformed by one autoregressive step, which also reads a context that is
a sum of terms from both.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfcq.distributions.iaf_posterior import IAFPosterior
from tfcq.networks.convolutions import Convolution

if TYPE_CHECKING:
    from tfcq.flows import InverseAutoregressiveFlow

tfd = tfp.distributions

HEAD_GAIN = 0.07
"""Relative size of the initial statistics, so that a posterior starts near its prior and not thousands of nats away."""

PRIOR_LOG_SCALES, POSTERIOR_LOG_SCALES = (-3.0, 3.0), (-7.0, 3.0)
"""Limits of log-deviations. They bound how much wider than its prior a posterior can be, because the square of that ratio is in
the KL: with wide limits one outlying image cost 1e9 nats and ended a run. A posterior may be much narrower than its prior."""


class ClassTerm(keras.layers.Layer):
    """What a class adds to statistics: classes as one-hot, [N, classes], to float32 [N, *shape], 0 at first.

    Args:
        shape: of the terms.
        name: the layer's name.
    """

    def __init__(self, shape: tuple[int, ...], name: str):
        super().__init__(name=name, dtype="float32")
        self.shape = tuple(shape)

    def build(self, condition_shape: tuple[int | None, int]) -> None:
        """Makes the terms of each class."""
        self.terms = self.add_weight(name="terms", shape=(condition_shape[1], math.prod(self.shape)), initializer="zeros")

    def call(self, condition: tf.Tensor) -> tf.Tensor:
        """See the class. A product, as the gradient of a gather has no deterministic kernel on GPUs."""
        return tf.reshape(tf.matmul(condition, self.terms), [-1, *self.shape])


@dataclasses.dataclass
class Inferred:
    """Latents drawn from a posterior, and their KL.

    Attributes:
        latents: float32 [N, *shape].
        kl: float32 [N, C], nats, for each channel: exact given the state if the posterior is normal, estimated from this
            draw if it has a flow.
        log_ratio: float32 [N], nats: log p(z | state) - log q(z | state, evidence) at this draw.
    """

    latents: tf.Tensor
    kl: tf.Tensor
    log_ratio: tf.Tensor


class LatentLayer(keras.layers.Layer):
    """One layer of latents; see the module.

    Args:
        shape: shape of the latents: (side, side, C) or (C,).
        state_channels: channels of the state, [N, side, side, state_channels]; None: the first layer, which has no state.
        inference: whether there is a posterior.
        flow: the flow of the posterior, or None.
        context_channels: channels of the flow's context.
        weight_normalization: whether the convolution that reads the state is weight-normalised.
        head_gain: the gain of that convolution: the relative size of its initial outputs.
        seed: an integer that fixes the initial values of that convolution.
        num_classes: the number of classes of images, on which the prior depends; 0: it does not. A class shifts means and
            log-deviations, at each place those of the first layer, by 0 at first.
        **kwargs: Keras's (`name`, `dtype`).
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        state_channels: int | None = None,
        inference: bool = True,
        flow: InverseAutoregressiveFlow | None = None,
        context_channels: int = 0,
        weight_normalization: bool = False,
        head_gain: float = HEAD_GAIN,
        seed: int | None = 0,
        num_classes: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.shape = tuple(shape)
        self.num_classes = num_classes
        self.channels = self.shape[-1]
        self.num_statistics = 2 * self.channels + (context_channels if flow is not None else 0)
        self.flow = flow
        self._context_channels = context_channels
        self.head: Convolution | None = None
        if state_channels is not None:
            self.head = Convolution(
                2 * self.channels + (self.num_statistics if inference else 0),
                3,
                weight_normalization=weight_normalization,
                gain=head_gain,
                seed=seed,
                dtype="float32",
                name="head",
            )
        self._state_channels = state_channels
        if num_classes:
            space = self.shape[:-1] if state_channels is None else (1,) * (len(self.shape) - 1)
            self.of_class = ClassTerm((*space, 2 * self.channels), name="class_prior")

    def build(self, state_shape: tuple[int | None, ...] | None = None) -> None:
        """Makes all weights; the sizes are those of the constructor."""
        height, width, channels = self._map_shape
        if self.flow is not None:
            self.flow.build((None, height, width, channels), (None, height, width, self._context_channels))
        if self.head is not None and self._state_channels is not None:
            self.head.build((None, height, width, self._state_channels))
        if self.num_classes:
            self.of_class.build((None, self.num_classes))

    @property
    def _map_shape(self) -> tuple[int, int, int]:
        """The shape of the latents as a map: a vector is one pixel."""
        if len(self.shape) == 1:
            return 1, 1, self.channels
        height, width, channels = self.shape
        return height, width, channels

    def _as_map(self, values):
        return tf.reshape(values, [-1, *self._map_shape[:-1], values.shape[-1]])

    def prior(
        self, state: tf.Tensor | None, condition: tf.Tensor | None = None
    ) -> tfp.distributions.Distribution:
        """p(z | state), a `tfd.Normal` of batch shape [N, *shape] (`shape` for the first layer, with `state` None).

        `condition`: classes as one-hot, [N, num_classes]; None: without.
        """
        return self._read(state, condition)[0]

    def generate(
        self, state: tf.Tensor | None, noise: tf.Tensor, temperature: tf.Tensor, condition: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Latents [N, *shape] from the prior and standard normal `noise`; `temperature` [N, 1, ...] scales the deviation."""
        prior = self.prior(state, condition)
        return prior.loc + prior.scale * temperature * noise

    def infer(
        self, state: tf.Tensor | None, evidence: tf.Tensor, noise: tf.Tensor, condition: tf.Tensor | None = None
    ) -> Inferred:
        """Draws latents from the posterior.

        Args:
            state: float [N, side, side, state_channels], or None for the first layer.
            evidence: float32 [N, *shape[:-1], num_statistics], from the encoder.
            noise: standard normal, float32 [N, *shape]; zeros give the posterior's central value.
            condition: as for `prior`.
        """
        prior, below = self._read(state, condition)
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
            posterior = IAFPosterior(self._as_map(base.loc), self._as_map(base.scale), self.flow, self._as_map(context))
            drawn = posterior.draw_with_log_prob(tf.broadcast_to(self._as_map(noise), tf.shape(posterior.loc)))
            latents, log_posterior = (tf.reshape(values, [-1, *self.shape]) for values in drawn)
            log_ratio = prior.log_prob(latents) - log_posterior
            kl = -log_ratio
        space = list(range(1, len(self.shape)))
        return Inferred(
            latents, tf.reduce_sum(kl, axis=space) if space else kl, tf.reduce_sum(log_ratio, axis=[*space, len(self.shape)])
        )

    def _read(self, state, condition):
        """The prior, and the state's term of the posterior's statistics (None for the first layer)."""
        terms = None if condition is None else tf.split(self.of_class(condition), 2, axis=-1)
        if state is None or self.head is None:
            if terms is not None:
                return tfd.Normal(terms[0], tf.exp(_limited(terms[1], PRIOR_LOG_SCALES))), None
            return tfd.Normal(tf.zeros(self.shape), 1.0), None
        statistics = self.head(state)
        loc, log_scale = statistics[..., : self.channels], statistics[..., self.channels : 2 * self.channels]
        if terms is not None:
            loc, log_scale = loc + terms[0], log_scale + terms[1]
        return tfd.Normal(loc, tf.exp(_limited(log_scale, PRIOR_LOG_SCALES))), statistics[..., 2 * self.channels :]


def _limited(log_scale, limits):
    # The gradient passes through the limits; otherwise an example outside of them would stay there for good.
    return tfp.math.clip_by_value_preserve_gradient(log_scale, *limits)
