"""Paths between two points of a latent space."""

from __future__ import annotations

import tensorflow as tf

_PARALLEL = 1e-3  # radians; for nearer directions the path is straight, which is the same in float32


def between(first: tf.Tensor, second: tf.Tensor, fraction: tf.Tensor, spherical: tf.Tensor) -> tf.Tensor:
    """The points at a fraction of the path from `first` to `second`.

    Args:
        first, second: float32 [N, ...].
        fraction: float32 [N]; 0 gives the first, 1 the second.
        spherical: bool [N]; False: (1 - t) a + t b. True: sin((1 - t) w) / sin(w) a + sin(t w) / sin(w) b, with w the angle
            between a and b (Shoemake, "Animating rotation with quaternion curves", 1985). Between opposite or zero vectors
            the path is straight.

    Returns:
        float32 [N, ...].
    """
    rows = tf.shape(first)[0]
    flat, other = (tf.reshape(value, [rows, -1]) for value in (first, second))
    cosine = tf.reduce_sum(tf.math.l2_normalize(flat, -1) * tf.math.l2_normalize(other, -1), -1)
    angle = tf.acos(tf.clip_by_value(cosine, -1.0, 1.0))
    length = tf.minimum(tf.norm(flat, axis=-1), tf.norm(other, axis=-1))
    curved = spherical & (angle > _PARALLEL) & (angle < 3.1415926 - _PARALLEL) & (length > 0.0)
    sine = tf.where(curved, tf.sin(angle), 1.0)
    weights = [
        tf.where(curved, tf.sin(part * angle) / sine, part)[:, None] for part in (1.0 - fraction, fraction)
    ]
    return tf.reshape(weights[0] * flat + weights[1] * other, tf.shape(first))
