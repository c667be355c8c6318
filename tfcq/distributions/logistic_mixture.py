"""The discretised logistic mixture of 8-bit images (Salimans, Karpathy, Chen, Kingma 2017, as Gatopoulos et al. 2020 use it).

A pixel has K components. A component has a logistic distribution with mean m and scale s for each of the C channels, for values
x = v / 255 in [0, 1]. With three channels the means of later channels depend on the values of earlier ones:

    m_G + a x_R,    m_B + b x_R + c x_G

A value v has the mass of its bin [x - 1/510, x + 1/510], and the outermost bins are open, so that the 256 masses sum to 1:

    P(v) = sigma(p) - sigma(q),    p = (x - m + 1/510) / s,    q = (x - m - 1/510) / s

which equals sigma(p) sigma(-q) (1 - e^(q - p)). Its logarithm, a sum of three, is accurate however small the mass is, so no
approximation by a density is needed. No tensor with an axis of 256 values is created.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp

tfd = tfp.distributions

BIN = 1.0 / 255.0
LOG_SCALES = (-7.0, 20.0)
"""Limits of a log-scale: the lower one is the authors'; at the upper one nearly all mass is in the two open bins."""

_TINY = 1e-7  # keeps uniform noise away from 0 and 1, where a logistic's quantile is infinite


def num_parameters(components: int, channels: int) -> int:
    """The number of parameters of a pixel: each component's logit, means, log-scales and, for 3 channels, coefficients."""
    return components * (1 + 2 * channels + channels * (channels - 1) // 2)


class DiscretizedLogisticMixture(tfp.distributions.Distribution):
    """A distribution of images, uint8 [H, W, C].

    Args:
        pixel_parameters: float32 [..., H, W, num_parameters(K, C)], the outputs of a network: K logits, then for each component C
            means, C log-scales (limited to LOG_SCALES; gradients pass through the limits), and C (C - 1) / 2 coefficients
            before their tanh, in the order a, b, c.
        channels: C, 1 or 3.

    Raises:
        ValueError: another number of parameters or of channels.
    """

    def __init__(self, pixel_parameters: tf.Tensor, channels: int, name: str = "discretized_logistic_mixture"):
        arguments = dict(locals())
        with tf.name_scope(name):
            parameters = tf.convert_to_tensor(pixel_parameters, tf.float32)
        self._pixel_parameters = parameters
        per_component = num_parameters(1, channels)
        if channels not in (1, 3) or not parameters.shape[-1] or parameters.shape[-1] % per_component:
            raise ValueError(
                f"{name}: expected 1 or 3 channels and a multiple of {per_component} parameters, received {channels} and "
                f"{parameters.shape[-1]}"
            )
        self._channels = channels
        self._components = parameters.shape[-1] // per_component
        logits, rest = tf.split(parameters, [self._components, parameters.shape[-1] - self._components], axis=-1)
        rest = tf.reshape(rest, tf.concat([tf.shape(logits), [per_component - 1]], 0))
        means, log_scales, coefficients = tf.split(rest, [channels, channels, per_component - 1 - 2 * channels], axis=-1)
        self._log_weights = tf.nn.log_softmax(logits)
        self._means = means
        self._log_scales = tfp.math.clip_by_value_preserve_gradient(log_scales, *LOG_SCALES)
        self._coefficients = tf.tanh(coefficients)
        super().__init__(
            dtype=tf.uint8,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=False,
            parameters=arguments,
            name=name,
        )

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {"pixel_parameters": tfp.util.ParameterProperties(event_ndims=3)}

    @property
    def pixel_parameters(self) -> tf.Tensor:
        """The parameters as passed to the constructor."""
        return self._pixel_parameters

    @property
    def components(self) -> int:
        """K, the number of components."""
        return self._components

    def _batch_shape(self):
        return self._log_weights.shape[:-3]

    def _batch_shape_tensor(self):
        return tf.shape(self._log_weights)[:-3]

    def _event_shape(self):
        return tf.TensorShape([*self._log_weights.shape[-3:-1], self._channels])

    def _event_shape_tensor(self):
        return tf.concat([tf.shape(self._log_weights)[-3:-1], [self._channels]], 0)

    def _log_prob(self, images):
        """log P of images uint8 [..., H, W, C]: float32 [...], nats."""
        if images.shape[-1] != self._channels:
            raise ValueError(f"{self.name}: expected images of {self._channels} channels, received {images.shape[-1]}")
        levels = tf.cast(images, tf.float32)[..., None, :]
        centred = BIN * levels - self._means_given(BIN * levels)
        precision = tf.exp(-self._log_scales)
        above, below = precision * (centred + 0.5 * BIN), precision * (centred - 0.5 * BIN)
        zero = tf.zeros([])
        # log sigma(p), 0 in the last bin; log sigma(-q), 0 in the first; log(1 - e^(q - p)), 0 in both.
        mass = tf.where(levels < 255.0, -tf.nn.softplus(-above), zero) + tf.where(levels > 0.0, -tf.nn.softplus(below), zero)
        inside = (levels > 0.0) & (levels < 255.0)
        # The limits of the scale keep e^(q - p) away from 0 and 1, where tfp.math.log1mexp has gradients that are not finite.
        mass += tf.where(inside, tf.math.log(-tf.math.expm1(-BIN * precision)), zero)
        of_components = tf.reduce_sum(mass, axis=-1) + self._log_weights
        return tf.reduce_sum(tf.reduce_logsumexp(of_components, axis=-1), axis=[-2, -1])

    def _means_given(self, values):
        """Means of the channels, [..., H, W, K, C], given the values of the channels, [..., H, W, 1, C] in [0, 1]."""
        if self._channels == 1:
            return self._means
        a, b, c = tf.unstack(self._coefficients, axis=-1)
        red, green = values[..., 0], values[..., 1]
        return self._means + tf.stack([tf.zeros_like(a + red), a * red, b * red + c * green], axis=-1)

    def _sample_n(self, count, seed=None):
        seeds = tfp.random.split_seed(seed, 2)
        shape = tf.concat([[count], tf.shape(self._log_weights)[:-1]], 0)
        return self.sample_of(
            tf.random.stateless_uniform(shape, seeds[0], alg="philox"),
            tf.random.stateless_uniform(tf.concat([shape, [self._channels]], 0), seeds[1], alg="philox"),
        )

    def sample_of(self, component_noise: tf.Tensor, channel_noise: tf.Tensor) -> tf.Tensor:
        """The images that the noise determines: exact ancestral sampling, one channel after the other.

        Args:
            component_noise: float32 [..., H, W], uniform in [0, 1); chooses the component.
            channel_noise: float32 [..., H, W, C], uniform in [0, 1); chooses each value, as a quantile of its logistic.

        Returns:
            uint8 [..., H, W, C].
        """
        cumulative = tf.cumsum(tf.exp(self._log_weights), axis=-1)[..., :-1]
        chosen = tf.reduce_sum(tf.cast(component_noise[..., None] >= cumulative, tf.int32), axis=-1)
        noise = tf.clip_by_value(channel_noise, _TINY, 1.0 - _TINY)
        return self._descend(chosen, tf.math.log(noise) - tf.math.log1p(-noise))

    def _mode(self):
        """The means of each pixel's likeliest component, channel after channel: uint8 [..., H, W, C].

        The authors' code draws this image. It need not be the mode of the mixture, which has no closed form.
        """
        chosen = tf.argmax(self._log_weights, axis=-1, output_type=tf.int32)
        return self._descend(chosen, tf.zeros(tf.concat([tf.shape(chosen), [self._channels]], 0)))

    def _descend(self, chosen, quantiles):
        """Images uint8 from chosen components, int32 [..., H, W], and standard logistic values, float32 [..., H, W, C]."""

        def of_component(parameters):
            one_hot = tf.one_hot(chosen, self._components)[..., None]
            return tf.reduce_sum(one_hot * parameters, axis=-2)

        means, scales = of_component(self._means), tf.exp(of_component(self._log_scales))
        coefficients: Any = of_component(self._coefficients) if self._channels == 3 else None
        levels: list[Any] = []
        for channel in range(self._channels):
            mean = means[..., channel]
            if channel == 1:
                mean += coefficients[..., 0] * BIN * levels[0]
            elif channel == 2:
                mean += BIN * (coefficients[..., 1] * levels[0] + coefficients[..., 2] * levels[1])
            value = mean + scales[..., channel] * quantiles[..., channel]
            levels.append(tf.clip_by_value(tf.round(255.0 * value), 0.0, 255.0))
        return tf.cast(tf.stack(levels, axis=-1), tf.uint8)
