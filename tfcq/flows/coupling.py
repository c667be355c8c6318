"""Affine coupling: one half of an image is shifted and scaled by amounts that a network computes from the other half."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.flows.base import Flow, ImagesShape
from tfcq.flows.conditioner import ResidualConditioner

MASKS = ("checkerboard", "channel")


class AffineCoupling(Flow):
    """Shifts and scales one half of an image, the moving half, as a function of the other half, which is kept.

    Image to feature, for the moving half x, with `shift` and `raw` from the conditioner:

        log_scale = a tanh(raw);   y = (x + shift) exp(log_scale);   log_det = sum(log_scale)

    and feature to image `x = y exp(-log_scale) - shift`. The scalar `a` is learned. It starts at 0, as does the shift,
    so the coupling starts as the identity.

      * `checkerboard`: the pixels (row, column) with `row + column + parity` even are kept; the conditioner reads
        the image with the other pixels set to zero, and the mask as one more channel (a pixel may also be zero).
      * `channel`: parity 0 keeps the first half of the channels, parity 1 the second (for an odd C the first half is the
        smaller one); the conditioner reads only the kept half.

    In the forward direction the conditioner always runs in inference mode, so a loss on samples does not change the
    statistics of its batch normalisation.

    Args:
        mask: "checkerboard" or "channel".
        parity: 0 or 1: the half that is kept.
        width: the conditioner's number of channels.
        blocks: the conditioner's number of residual blocks.
        weight_normalization: whether the conditioner's convolutions are weight-normalised.
        batch_normalization: whether the conditioner has batch normalisation.
        output_kernel_size: the side of the kernel of the conditioner's last convolution, in pixels.
        seed: an integer that fixes the initial values.
        conditioner: function of (number of moving channels, seed, name, dtype) that makes another conditioner, a Keras
            layer with the inputs and outputs of `ResidualConditioner`. Width, blocks and the options of normalisation and
            kernel then have no effect.
        condition_size: how many values the condition has on which the usual conditioner depends, besides; 0: there is none.
        **kwargs: Keras's (`name`, `dtype`, `trainable`).

    Raises:
        UserError: an unknown mask or parity; when built, fewer than two channels for "channel".

    References:
        Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2017, equations 7 and 8, section 3.4. As in the
        authors' program, the shift is added before scaling.
    """

    takes_condition = True

    def __init__(
        self,
        mask: str = "checkerboard",
        parity: int = 0,
        width: int = 32,
        blocks: int = 2,
        weight_normalization: bool = True,
        batch_normalization: bool = False,
        output_kernel_size: int = 1,
        seed: int | None = 0,
        conditioner: Callable[[int, int | None, str, Any], keras.layers.Layer] | None = None,
        condition_size: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.condition_size = condition_size
        if mask not in MASKS:
            raise UserError(f"unknown coupling mask: expected one of {', '.join(MASKS)}, got {mask!r}")
        if parity not in (0, 1):
            raise UserError(f"the parity of a coupling says which half is kept: expected 0 or 1, got {parity!r}")
        self.mask = mask
        self.parity = parity
        self.width = width
        self.blocks = blocks
        self.weight_normalization = weight_normalization
        self.batch_normalization = batch_normalization
        self.output_kernel_size = output_kernel_size
        self.seed = seed
        self._make_conditioner = conditioner or self._residual_conditioner

    def _residual_conditioner(self, outputs, seed, name, dtype):
        return ResidualConditioner(
            outputs,
            self.width,
            self.blocks,
            self.weight_normalization,
            self.batch_normalization,
            self.output_kernel_size,
            seed,
            condition_size=self.condition_size,
            name=name,
            dtype=dtype,
        )

    def build(self, images_shape: ImagesShape) -> None:
        """Makes `a` and the conditioner for `images_shape`, `(N, H, W, C)`."""
        *outer, channels = images_shape
        if self.mask == "channel" and channels < 2:
            raise UserError(
                f"{self.name} splits the channels in halves: expected 2 or more, got {channels}; squeeze the images "
                'first, or use mask="checkerboard"'
            )
        if self.mask == "checkerboard":
            read, moved = channels + 1, channels
        else:
            first, second = channels // 2, channels - channels // 2
            read, moved = (first, second) if self.parity == 0 else (second, first)
        self.log_scale_factor = self.add_transform_weight("log_scale_factor", ())
        self.conditioner = self._make_conditioner(moved, self.seed, "conditioner", self.dtype_policy)
        self.conditioner.build((*outer, read))

    def _inverse_and_log_det(self, images, training, condition=None):
        kept, moving = self._split(images)
        shift, log_scale = self._parameters(kept, training, condition)
        return self._join(kept, (moving + shift) * tf.exp(log_scale)), tf.reduce_sum(log_scale, axis=[1, 2, 3])

    def _forward_and_log_det(self, features, training, condition=None):
        kept, moving = self._split(features)
        shift, log_scale = self._parameters(kept, False, condition)
        return self._join(kept, moving * tf.exp(-log_scale) - shift), -tf.reduce_sum(log_scale, axis=[1, 2, 3])

    def _split(self, images):
        """The part for the conditioner, and the part that moves; for a checkerboard both are the whole image."""
        if self.mask == "checkerboard":
            return images, images
        half = images.shape[-1] // 2
        first, second = images[..., :half], images[..., half:]
        return (first, second) if self.parity == 0 else (second, first)

    def _join(self, kept, moved):
        if self.mask == "checkerboard":
            return moved
        return tf.concat([kept, moved] if self.parity == 0 else [moved, kept], axis=-1)

    def _parameters(self, images, training, condition):
        """The shift and the log-scale of the moving part, in the transform's dtype; kept pixels have 0 and 0."""
        factor = self.log_scale_factor.value
        if self.mask == "channel":
            shift, raw = self._computed(images, training, condition)
            return shift, factor * tf.tanh(raw)
        kept = tf.constant(checkerboard(images.shape[1], images.shape[2], self.parity), images.dtype)
        channel = tf.broadcast_to(kept, tf.concat([tf.shape(images)[:-1], [1]], axis=0))
        shift, raw = self._computed(tf.concat([images * kept, channel], axis=-1), training, condition)
        moving = 1.0 - kept
        return moving * shift, (factor * moving) * tf.tanh(raw)

    def _computed(self, inputs, training, condition):
        given = {"condition": condition} if self.condition_size and condition is not None else {}
        shift, raw = self.conditioner(inputs, training=training, **given)
        return tf.cast(shift, self.transform_dtype), tf.cast(raw, self.transform_dtype)


def checkerboard(height: int, width: int, parity: int) -> np.ndarray:
    """`[1, height, width, 1]`, float64: 1 where `row + column + parity` is even, else 0."""
    even = (np.arange(height)[:, np.newaxis] + np.arange(width) + parity) % 2 == 0
    return even.astype("float64")[np.newaxis, :, :, np.newaxis]
