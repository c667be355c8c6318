"""How 8-bit images of any size become what a network was trained on."""

from __future__ import annotations

import tensorflow as tf

BILINEAR = "bilinear, antialias=True"
"""A protocol's name for `resize`. Without antialiasing, the way of shrinking images changes a Frechet distance by more than
models differ (Parmar et al. 2022, On Aliased Resizing and Surprising Subtleties in GAN Evaluation)."""

BILINEAR_OF_TENSORFLOW_1 = "bilinear, antialias=False, half_pixel_centers=False"
"""A protocol's name for `resize_as_tensorflow_1`."""


def to_rgb(images: tf.Tensor) -> tf.Tensor:
    """uint8 [N, H, W, 3]: grey images [N, H, W, 1] repeat their channel, RGB images stay as they are."""
    return tf.repeat(images, 3, axis=3) if images.shape[3] == 1 else images


def resize(images: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """float32 [N, height, width, C] in [0, 255] from uint8 [N, H, W, C], antialiased where an axis shrinks."""
    if images.shape[1:3] == (height, width):
        return tf.cast(images, tf.float32)
    # Antialiasing widens the filter only on axes that shrink. If none does, the plain kernel gives the same values in a
    # third of the time, and exists for GPUs.
    shrinks = images.shape[1] > height or images.shape[2] > width
    return tf.image.resize(images, (height, width), method="bilinear", antialias=shrinks)


def resize_as_tensorflow_1(images: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """float32 [N, height, width, C] in [0, 255] from uint8 [N, H, W, C], the way the published FID was measured.

    Output pixel i samples the input at i H / height, not at pixel centres, and nothing is antialiased: the
    ResizeBilinear of 2015 that is part of the Inception graph.
    """
    return tf.raw_ops.ResizeBilinear(images=images, size=(height, width), align_corners=False, half_pixel_centers=False)
