"""Flows that bring each channel to zero mean and unit variance."""

import numpy as np
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.flows.base import Flow, constant_log_det

# A channel whose variance over the initial batch is below this counts as constant: it keeps its scale. Pixels differ by
# 1/256 at the least, so a channel that is not constant is far above.
CONSTANT_VARIANCE = 1e-8


class _ChannelAffine(Flow):
    """`features = (images - loc) * exp(-log_scale)`, a loc and a log_scale a channel, wherever these come from."""

    def _normalize(self, images, loc, log_scale):
        features = (images - loc) * tf.exp(-log_scale)
        return features, constant_log_det(-_num_pixels(images) * tf.reduce_sum(log_scale), images)

    def _denormalize(self, features, loc, log_scale):
        images = features * tf.exp(log_scale) + loc
        return images, constant_log_det(_num_pixels(features) * tf.reduce_sum(log_scale), features)


class ActNorm(_ChannelAffine):
    """A learned affine map of each channel, set from the first batch (`initialize`) to normalise it.

    `features = (images - loc) * exp(-log_scale)`; `log_det = -H W sum(log_scale)`, nats. The two directions are
    inverses of one another at every moment, which batch normalisation's are not while it trains.

    `initialize` leaves each channel of the batch with mean 0 and variance 1. A channel that the batch does not vary is
    only shifted: its scale stays, instead of becoming infinite.

    References:
        Kingma and Dhariwal, "Glow", 2018, section 3.1.
    """

    def build(self, images_shape):
        """Makes `loc` and `log_scale`, `[C]`, zero: the identity."""
        self.loc = self.add_transform_weight("loc", (images_shape[-1],))
        self.log_scale = self.add_transform_weight("log_scale", (images_shape[-1],))

    def initialize(self, images):
        """Sets `loc` and `log_scale` to the batch's means and log standard deviations; returns its features."""
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
    """Batch normalisation as a bijection, after the authors of RealNVP.

    `features = (images - mean) / sqrt(variance + epsilon)`, `log_det = -H W / 2 sum(log(variance + epsilon))`, nats.

    In the inverse direction with `training=True`, mean and variance are the batch's, over all replicas, gradients flow
    through them, and the moving ones go `rate` of the way towards them; each example's log-determinant is then that of
    the map with the statistics held fixed, as in the paper. Everywhere else the moving ones are used and nothing
    changes. So, while training, forward does not undo inverse exactly; `ActNorm` does.

    Args:
        rate: how far the moving statistics go towards a batch's, in (0, 1].
        epsilon: added to the variance, positive.
        **kwargs: Keras's (`name`, `dtype`, `trainable`).

    Raises:
        UserError: for a rate or an epsilon out of range.

    References:
        Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2017, section 3.7 and appendix E.
    """

    def __init__(self, rate=0.1, epsilon=1e-4, **kwargs):
        super().__init__(**kwargs)
        if not 0.0 < rate <= 1.0:
            raise UserError(f"rate of {self.name} must be in (0, 1], got {rate}: 0.1 is the authors'")
        if not epsilon > 0.0:
            raise UserError(f"epsilon of {self.name} must be positive, got {epsilon}: 1e-4 is the authors'")
        self.rate = rate
        self.epsilon = epsilon

    def build(self, images_shape):
        """Makes the moving statistics, `[C]`: mean 0 and variance 1."""
        # Replicas hold equal values, because the statistics are synchronised; the mean keeps them so.
        options = {"shape": (images_shape[-1],), "trainable": False, "aggregation": "mean"}
        self.moving_mean = self.add_transform_weight("moving_mean", **options)
        self.moving_variance = self.add_transform_weight("moving_variance", initializer="ones", **options)

    def initialize(self, images):
        """Sets the moving statistics to the batch's; returns its features."""
        images = self._checked_eager(images)
        mean, variance = tf.nn.moments(images, axes=[0, 1, 2])
        self.moving_mean.assign(mean)
        self.moving_variance.assign(variance)
        return self.inverse_and_log_det(images)[0]

    def _inverse_and_log_det(self, images, training):
        if not training:
            return self._normalize(images, self.moving_mean.value, self._log_deviation(self.moving_variance.value))
        mean, variance = _synchronized_moments(images)
        self._move(self.moving_mean, mean)
        self._move(self.moving_variance, variance)
        return self._normalize(images, mean, self._log_deviation(variance))

    def _forward_and_log_det(self, features, training):
        return self._denormalize(features, self.moving_mean.value, self._log_deviation(self.moving_variance.value))

    def _log_deviation(self, variance):
        return 0.5 * tf.math.log(variance + self.epsilon)

    def _move(self, moving, value):
        moving.assign(moving.value + self.rate * (tf.stop_gradient(value) - moving.value))


def _num_pixels(images):
    return float(np.prod(images.shape[1:3]))


def _synchronized_moments(images):
    """Mean and variance of each channel, `[C]`, over the batches of all replicas, which must be of one size."""
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return tf.nn.moments(images, axes=[0, 1, 2])
    # The mean first, then the squares about it: the mean of squares less the square of the mean cancels in float32.
    mean = replica.all_reduce(tf.distribute.ReduceOp.MEAN, tf.reduce_mean(images, axis=[0, 1, 2]))
    squares = tf.reduce_mean(tf.math.squared_difference(images, mean), axis=[0, 1, 2])
    return mean, replica.all_reduce(tf.distribute.ReduceOp.MEAN, squares)
