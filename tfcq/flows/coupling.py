"""Affine coupling: one half of an image moves, by what a network reads in the other half."""

import numpy as np
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.flows.base import Flow
from tfcq.flows.conditioner import ResidualConditioner

MASKS = ("checkerboard", "channel")


class AffineCoupling(Flow):
    """Scales and shifts the half that a mask lets move, as a function of the half that it keeps.

    Image to feature, for the moving half x, with `shift` and `raw` from the conditioner:

        log_scale = a tanh(raw);   y = (x + shift) exp(log_scale);   log_det = sum(log_scale)

    and feature to image `x = y exp(-log_scale) - shift`. The scalar `a` is learned and starts at 0, and so does the
    shift: the coupling starts as the identity.

      * `checkerboard`: the pixels (row, column) with `row + column + parity` even are kept; the conditioner reads the
        image without the others, and the mask as one more channel (a zero could also be a pixel's value).
      * `channel`: parity 0 keeps the first half of the channels, parity 1 the second (the smaller half first where C is
        odd); the conditioner reads just that half.

    In the forward direction the conditioner always runs as in inference: a loss on samples leaves its batch
    normalisation alone.

    Args:
        mask: "checkerboard" or "channel".
        parity: 0 or 1, which half is kept.
        width: the conditioner's number of channels.
        blocks: its number of residual blocks.
        weight_normalization: whether its convolutions are weight-normalised.
        batch_normalization: whether it has batch normalisation.
        output_kernel_size: the side of its last convolution's kernel, in pixels.
        seed: an integer that fixes its initial values.
        conditioner: makes another conditioner, a Keras layer with the inputs and outputs of `ResidualConditioner`, from
            (number of moving channels, seed, name, dtype); width, blocks and the options of normalisation and kernel are
            then without meaning.
        **kwargs: Keras's (`name`, `dtype`, `trainable`).

    Raises:
        UserError: for an unknown mask or parity; when built with "channel" for fewer than two channels.

    References:
        Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2017, equations 7 and 8, section 3.4. Its
        authors' program adds the shift before it scales, and so does this.
    """

    def __init__(
        self,
        mask="checkerboard",
        parity=0,
        width=32,
        blocks=2,
        weight_normalization=True,
        batch_normalization=False,
        output_kernel_size=1,
        seed=0,
        conditioner=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
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
            name=name,
            dtype=dtype,
        )

    def build(self, images_shape):
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

    def _inverse_and_log_det(self, images, training):
        kept, moving = self._split(images)
        shift, log_scale = self._parameters(kept, training)
        return self._join(kept, (moving + shift) * tf.exp(log_scale)), tf.reduce_sum(log_scale, axis=[1, 2, 3])

    def _forward_and_log_det(self, features, training):
        kept, moving = self._split(features)
        shift, log_scale = self._parameters(kept, training=False)
        return self._join(kept, moving * tf.exp(-log_scale) - shift), -tf.reduce_sum(log_scale, axis=[1, 2, 3])

    def _split(self, images):
        """What the conditioner reads of, and what moves. In a checkerboard all moves, the kept pixels by nothing."""
        if self.mask == "checkerboard":
            return images, images
        half = images.shape[-1] // 2
        first, second = images[..., :half], images[..., half:]
        return (first, second) if self.parity == 0 else (second, first)

    def _join(self, kept, moved):
        if self.mask == "checkerboard":
            return moved
        return tf.concat([kept, moved] if self.parity == 0 else [moved, kept], axis=-1)

    def _parameters(self, images, training):
        """The shift and the log-scale of what moves, in the transform's dtype."""
        factor = self.log_scale_factor.value
        if self.mask == "channel":
            shift, raw = self._condition(images, training)
            return shift, factor * tf.tanh(raw)
        kept = tf.constant(checkerboard(*images.shape[1:3], self.parity), images.dtype)
        channel = tf.broadcast_to(kept, tf.concat([tf.shape(images)[:-1], [1]], axis=0))
        shift, raw = self._condition(tf.concat([images * kept, channel], axis=-1), training)
        moving = 1.0 - kept
        return moving * shift, (factor * moving) * tf.tanh(raw)

    def _condition(self, inputs, training):
        shift, raw = self.conditioner(inputs, training=training)
        return tf.cast(shift, self.transform_dtype), tf.cast(raw, self.transform_dtype)


def checkerboard(height, width, parity):
    """`[1, height, width, 1]`, float64: 1 where `row + column + parity` is even, else 0."""
    even = (np.arange(height)[:, np.newaxis] + np.arange(width) + parity) % 2 == 0
    return even.astype("float64")[np.newaxis, :, :, np.newaxis]
