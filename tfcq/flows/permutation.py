"""A fixed random permutation of the channels."""

from typing import Any

import numpy as np
import tensorflow as tf

from tfcq.flows.base import Flow, ImagesShape, zero_log_det


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
        return tf.gather(images, self.permutation.value, axis=-1), zero_log_det(images)

    def _forward_and_log_det(self, features, training):
        order = tf.math.invert_permutation(self.permutation.value)
        return tf.gather(features, order, axis=-1), zero_log_det(features)
