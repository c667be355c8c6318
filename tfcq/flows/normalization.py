"""Flows that normalise each channel to zero mean and unit variance."""

from typing import Any

import numpy as np
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.flows.base import Flow, ImagesShape, constant_log_det
from tfcq.networks.normalization import part_of_batch, statistics_may_move

# A channel whose variance over the initial batch is below this counts as constant and keeps its scale. Pixels differ by
# at least 1/256, so the variance of any other channel is far above.
CONSTANT_VARIANCE = 1e-8


class _ChannelAffine(Flow):
    """`features = (images - loc) * exp(-log_scale)`, with a loc and a log_scale for each channel."""

    def _normalize(self, images, loc, log_scale):
        features = (images - loc) * tf.exp(-log_scale)
        return features, constant_log_det(-_num_pixels(images) * tf.reduce_sum(log_scale), images)

    def _denormalize(self, features, loc, log_scale):
        images = features * tf.exp(log_scale) + loc
        return images, constant_log_det(_num_pixels(features) * tf.reduce_sum(log_scale), features)


class ActNorm(_ChannelAffine):
    """A learned affine map of each channel, set from the first batch (`initialize`) to normalise it.

    `features = (images - loc) * exp(-log_scale)`; `log_det = -H W sum(log_scale)`, nats. The two directions are
    always inverses of each other, unlike those of batch normalisation in training.

    `initialize` gives each channel of the batch mean 0 and variance 1. A channel that is constant over the batch is only
    shifted and keeps its scale, which would be infinite otherwise.

    References:
        Kingma and Dhariwal, "Glow", 2018, section 3.1.
    """

    def build(self, images_shape: ImagesShape) -> None:
        """Makes `loc` and `log_scale`, `[C]`, both zero: the identity."""
        self.loc = self.add_transform_weight("loc", (images_shape[-1],))
        self.log_scale = self.add_transform_weight("log_scale", (images_shape[-1],))

    def initialize(self, images: tf.Tensor) -> tf.Tensor:
        """Sets `loc` and `log_scale` to the batch's means and log standard deviations; returns the batch's features."""
        images = self._checked_eager(images)
        mean, variance = tf.nn.moments(images, axes=[0, 1, 2])
        self.loc.assign(mean)
        log_deviation = 0.5 * tf.math.log(variance)
        self.log_scale.assign(tf.where(variance < CONSTANT_VARIANCE, self.log_scale.value, log_deviation))
        return self.inverse_and_log_det(images)[0]

    def _inverse_and_log_det(self, images, training):
        return self._normalize(images, self.loc.value, self.log_scale.value)

    def _forward_and_log_det(self, features, training):
        return self._denormalize(features, self.loc.value, self.log_scale.value)


class BatchNormalizationFlow(_ChannelAffine):
    """Batch normalisation as a bijection, as by the authors of RealNVP.

    `features = (images - mean) / sqrt(variance + epsilon)`, `log_det = -H W / 2 sum(log(variance + epsilon))`, nats.

    In the inverse direction with `training=True`, mean and variance are those of the batch over all replicas. Gradients
    pass through them, and the moving statistics move the fraction `rate` of the way towards them, or less for a part of a
    batch (`statistics_of`). Each example's log-determinant is that of the map with the statistics held fixed, as in the
    paper. In all other cases the moving statistics are used and nothing changes. So in training, forward is not the exact
    inverse of inverse; with `ActNorm` it is.

    Args:
        rate: the fraction of the way that the moving statistics move towards a whole batch's, in (0, 1].
        epsilon: added to the variance, positive.
        **kwargs: Keras's (`name`, `dtype`, `trainable`).

    Raises:
        UserError: a rate or an epsilon out of range.

    References:
        Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2017, section 3.7 and appendix E.
    """

    def __init__(self, rate: float = 0.1, epsilon: float = 1e-4, **kwargs: Any):
        super().__init__(**kwargs)
        if not 0.0 < rate <= 1.0:
            raise UserError(f"rate of {self.name} must be in (0, 1], got {rate}: 0.1 is the authors'")
        if not epsilon > 0.0:
            raise UserError(f"epsilon of {self.name} must be positive, got {epsilon}: 1e-4 is the authors'")
        self.rate = rate
        self.epsilon = epsilon

    def build(self, images_shape: ImagesShape) -> None:
        """Makes the moving statistics, `[C]`: mean 0 and variance 1."""
        # Replicas hold equal values, because the statistics are synchronised; their mean is the same value.
        options: dict[str, Any] = {"shape": (images_shape[-1],), "trainable": False, "aggregation": "mean"}
        self.moving_mean = self.add_transform_weight("moving_mean", **options)
        self.moving_variance = self.add_transform_weight("moving_variance", initializer="ones", **options)

    def initialize(self, images: tf.Tensor) -> tf.Tensor:
        """Sets the moving statistics to the batch's; returns the batch's features."""
        images = self._checked_eager(images)
        mean, variance = tf.nn.moments(images, axes=[0, 1, 2])
        self.moving_mean.assign(mean)
        self.moving_variance.assign(variance)
        return self.inverse_and_log_det(images)[0]

    def _inverse_and_log_det(self, images, training):
        if not training:
            return self._normalize(images, self.moving_mean.value, self._log_deviation(self.moving_variance.value))
        mean, variance = _synchronized_moments(images)
        if statistics_may_move():
            self._move(self.moving_mean, mean)
            self._move(self.moving_variance, variance)
        return self._normalize(images, mean, self._log_deviation(variance))

    def _forward_and_log_det(self, features, training):
        return self._denormalize(features, self.moving_mean.value, self._log_deviation(self.moving_variance.value))

    def _log_deviation(self, variance):
        return 0.5 * tf.math.log(variance + self.epsilon)

    def _move(self, moving, value):
        rate = 1.0 - (1.0 - self.rate) ** part_of_batch()  # k parts move the statistics about as far as the whole batch
        moving.assign(moving.value + rate * (tf.stop_gradient(value) - moving.value))


def _num_pixels(images):
    return float(np.prod(images.shape[1:3]))


def _synchronized_moments(images):
    """Mean and variance of each channel, `[C]`, over the batches of all replicas, which must have the same size."""
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return tf.nn.moments(images, axes=[0, 1, 2])
    # The mean first, then squared differences from it: E[x^2] - E[x]^2 would suffer from cancellation in float32.
    mean = replica.all_reduce(tf.distribute.ReduceOp.MEAN, tf.reduce_mean(images, axis=[0, 1, 2]))
    squares = tf.reduce_mean(tf.math.squared_difference(images, mean), axis=[0, 1, 2])
    return mean, replica.all_reduce(tf.distribute.ReduceOp.MEAN, squares)
