"""Images and pixels: their units and conversions.

`images` are uint8 [N, H, W, C] outside a model. Inside, `pixels` are float32 in [0, 256): the 8-bit value plus
dequantisation noise in [0, 1), so that a density on [0, 256]^D bounds the probability of the 8-bit image and a uniform
density costs exactly 8 bits per dimension.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfcq import picture_files


def bits_per_dim(log_prob: tf.Tensor, image_shape: Sequence[int]) -> tf.Tensor:
    """-log_prob / (D ln 2), in bits.

    >>> uniform = -np.log(256.0) * 64  # log P of each image of 8x8 where all are equally likely
    >>> float(bits_per_dim(uniform, (8, 8, 1)))
    8.0

    Args:
        log_prob: float [N], nats per 8-bit image.
        image_shape: (H, W, C); D = H W C.
    """
    return -log_prob / (math.prod(image_shape) * math.log(2.0))


def dequantize(images: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
    """Pixels float32 in [0, 256): `images` uint8 [N, H, W, C] plus `noise` [N, H, W, C] in [0, 1)."""
    return tf.cast(images, tf.float32) + noise


def quantize(pixels: tf.Tensor) -> tf.Tensor:
    """The 8-bit images (uint8) whose bins [v, v + 1) hold `pixels`; values outside [0, 256) go to the nearest bin."""
    return tf.cast(tf.clip_by_value(tf.math.floor(pixels), 0.0, 255.0), tf.uint8)


def halve(images: tf.Tensor) -> tf.Tensor:
    """Halves the side of images, antialiased: uint8 [N, H, W, C] to uint8 [N, H / 2, W / 2, C], H and W even.

    Each output pixel is a weighted mean under a triangle: weights 1, 3, 3, 1 along either axis, without those outside the
    image, as in Pillow's bilinear filter. The means are exact and rounded half up, so they are the same on every machine.
    """
    sums = _triangle_sums(_triangle_sums(tf.cast(images, tf.int32), 1), 2)
    ones = np.ones((1, *images.shape[1:3], 1), np.int32)
    areas = _triangle_sums(_triangle_sums(ones, 1), 2)
    return tf.cast((2 * sums + areas) // (2 * areas), tf.uint8)


def _triangle_sums(values, axis):
    """Sums of int32 [N, H, W, C] under weights 1, 3, 3, 1 along an axis, at every other pixel."""
    length = values.shape[axis]
    padded = tf.pad(values, [[1, 1] if index == axis else [0, 0] for index in range(4)])
    taps = [padded[(slice(None),) * axis + (slice(first, first + length - 1, 2),)] for first in range(4)]
    return taps[0] + 3 * (taps[1] + taps[2]) + taps[3]


def luminance(images: tf.Tensor) -> tf.Tensor:
    """Grey images of colour images: uint8 [N, H, W, 3] to uint8 [N, H, W, 1].

    0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), rounded half up.
    """
    red, green, blue = tf.unstack(tf.cast(images, tf.int32), axis=-1)
    return tf.cast((299 * red + 587 * green + 114 * blue + 500) // 1000, tf.uint8)[..., None]


def to_network_range(pixels: tf.Tensor) -> tf.Tensor:
    """Pixels [0, 256] to [-1, 1], the range that discriminators see."""
    return pixels / 128.0 - 1.0


def write_png(path: str | os.PathLike, picture: np.ndarray) -> None:
    """Writes uint8 [H, W, C] (C = 1 or 3) as a PNG, whole or not at all; creates the folder."""
    picture_files.write(path, picture)
