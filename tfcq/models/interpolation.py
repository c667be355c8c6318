"""Paths between two points of a latent space, and between the noise of two samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfcq.randomness import RowNoise

_PARALLEL = 1e-3  # radians; for nearer directions the path is straight, which is the same in float32


def between(first: tf.Tensor, second: tf.Tensor, fraction: tf.Tensor, spherical: tf.Tensor) -> tf.Tensor:
    """The points at a fraction of the path from `first` to `second`.

    Args:
        first, second: float32 [N, ...].
        fraction: float32 [N]; 0 gives the first, 1 the second, to the bit.
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
    curved &= (fraction > 0.0) & (fraction < 1.0)  # at the ends a straight path's weights are exactly 0 and 1
    sine = tf.where(curved, tf.sin(angle), 1.0)
    weights = [
        tf.where(curved, tf.sin(part * angle) / sine, part)[:, None] for part in (1.0 - fraction, fraction)
    ]
    return tf.reshape(weights[0] * flat + weights[1] * other, tf.shape(first))


class NoisePath(RowNoise):
    """The noise at a fraction of the way between that of two samples, whose ends are theirs to the bit.

    Standard normal draws are joined by `between`, each draw by itself: with several layers of latents, each layer's. Uniform
    draws decide choices (the component of a mixture, the value of a pixel), which have no path: they are the first sample's
    up to half way, then the second's.

    Args:
        first, second: the noise of N samples each.
        fraction: float32 [N], or one number for all, from 0 to 1.
        spherical: bool [N], or one for all; see `between`.
    """

    def __init__(self, first: RowNoise, second: RowNoise, fraction: Any, spherical: Any):
        self._ends, self._fraction, self._spherical = (first, second), fraction, spherical

    def fold(self, *numbers: Any) -> NoisePath:
        """The way between both samples' noise with `numbers` folded in."""
        first, second = (end.fold(*numbers) for end in self._ends)
        return NoisePath(first, second, self._fraction, self._spherical)

    def normal(self, row_shape: Sequence[int], tag: int) -> tf.Tensor:
        """Noise float32 [N, *row_shape]: standard normal at both ends, and on a spherical path nearly so everywhere."""
        first, second = (end.normal(row_shape, tag) for end in self._ends)
        return between(first, second, self._fraction, self._spherical)

    def uniform(self, row_shape: Sequence[int], tag: int) -> tf.Tensor:
        """Noise uniform in [0, 1), float32 [N, *row_shape]."""
        first, second = (end.uniform(row_shape, tag) for end in self._ends)
        nearer = tf.reshape(tf.cast(self._fraction, tf.float32) < 0.5, [-1] + [1] * len(row_shape))
        return tf.where(nearer, first, second)
