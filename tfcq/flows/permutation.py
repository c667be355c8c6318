"""A fixed permutation of the last axis: as a TFP bijector, and as a flow of channels drawn from a seed."""

from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfcq.flows.base import Flow, ImagesShape, zero_log_det
from tfcq.networks.host_variables import value_of


@tf.custom_gradient
def _permuted(tensor: tf.Tensor, order: tf.Tensor, inverse: tf.Tensor) -> tuple[tf.Tensor, Any]:
    """Channels `order` of a tensor [..., C]; `inverse` is the inverse permutation.

    The gradient is the inverse permutation. TensorFlow's own, a sum of segments, has no deterministic kernel on GPUs.
    """
    return tf.gather(tensor, order, axis=-1), lambda upstream: (_permuted(upstream, inverse, order), None, None)


class Permute(tfp.bijectors.Permute):
    """`tfb.Permute` of the last axis, with a gradient that has a deterministic kernel on GPUs."""

    def _forward(self, x):
        return _permuted(x, *self._orders())

    def _inverse(self, y):
        return _permuted(y, *reversed(self._orders()))

    def _orders(self):
        return self.permutation, tf.math.invert_permutation(self.permutation)


class ChannelPermutation(Flow):
    """Feature channel k is image channel `permutation[k]`; the permutation is drawn once from the seed, then fixed.

    The permutation is a weight that is not trained, so that a model reloaded elsewhere has the same one even if the
    random generator has changed. The log-determinant is 0.

    Args:
        seed: an integer that fixes the permutation.
        **kwargs: Keras's (`name`, `dtype`, `trainable`).
    """

    def __init__(self, seed: int | None = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.seed = seed

    def build(self, images_shape: ImagesShape) -> None:
        """Draws the permutation of the C channels of `images_shape`."""
        drawn = np.random.default_rng(self.seed).permutation(images_shape[-1])
        self.permutation = self.add_weight(
            name="permutation",
            shape=drawn.shape,
            dtype="int32",
            initializer=lambda shape, dtype: tf.reshape(tf.constant(drawn, dtype), shape),
            trainable=False,
            autocast=False,
        )

    def _inverse_and_log_det(self, images, training):
        return _permuted(images, *self._orders()), zero_log_det(images)

    def _forward_and_log_det(self, features, training):
        return _permuted(features, *reversed(self._orders())), zero_log_det(features)

    def _orders(self):
        """The permutation, and its inverse."""
        order = value_of(self.permutation)
        return order, tf.math.invert_permutation(order)
