"""Weight normalisation of a kernel, as one operation of a graph with a gradient in closed form."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

_SMALLEST = 1e-12
"""Least square of a norm, as in tf.math.l2_normalize: the kernel of a filter of zeros is zero."""


def weight_normalized(direction: tf.Tensor, magnitude: tf.Tensor) -> tf.Tensor:
    """The kernel whose filter k is `magnitude_k * direction_k / |direction_k|` (Salimans and Kingma 2016, equation 2).

    Args:
        direction: float [height, width, channels, filters].
        magnitude: float [filters], of the same dtype.

    Returns:
        float [height, width, channels, filters]; zero where a filter's direction is zero.
    """
    direction, magnitude = tf.convert_to_tensor(direction), tf.convert_to_tensor(magnitude)
    kernel = _function(direction.dtype)(direction, magnitude)
    kernel.set_shape(direction.shape)
    return kernel


@functools.cache
def _function(dtype: tf.DType) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """`_weight_normalized` as one function for kernels of all shapes.

    A deep network has hundreds of kernels. As a dozen operations each they would be most of a training step's graph, and the
    time to the first step grows with the graph. TensorFlow calls such a function instead of copying its body into the graph.
    """
    signature = [tf.TensorSpec([None] * 4, dtype), tf.TensorSpec([None], dtype)]
    return tf.function(_weight_normalized, signature, autograph=False, experimental_attributes={"_noinline": True})


@tf.custom_gradient
def _weight_normalized(direction: tf.Tensor, magnitude: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
    squares = tf.reduce_sum(tf.square(direction), axis=[0, 1, 2])
    inverse = tf.math.rsqrt(tf.maximum(squares, _SMALLEST))

    def gradient(slope: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        of_magnitude = tf.reduce_sum(slope * direction, axis=[0, 1, 2]) * inverse
        # A filter as small as the bound has a fixed norm, through which no gradient passes.
        passes = tf.cast(squares >= _SMALLEST, direction.dtype)
        of_direction = (magnitude * inverse) * slope - (magnitude * tf.square(inverse) * of_magnitude * passes) * direction
        return of_direction, of_magnitude

    return direction * (magnitude * inverse), gradient
