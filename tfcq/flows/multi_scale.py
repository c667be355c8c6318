"""One scale of a multi-scale flow: half of the dimensions leave early, the rest go through a coarser flow."""

from typing import Any

import tensorflow as tf

from tfcq.errors import UserError
from tfcq.flows.base import Flow, ImagesShape
from tfcq.flows.squeeze import squeeze, squeezed_shape, unsqueeze


class MultiScale(Flow):
    """One scale of a multi-scale flow and all the scales that follow it, as one bijection of images.

    Image to feature: `fine` is applied to the image. Then one diagonal of each 2x2 block of pixels stays (a checkerboard
    half), and the other half of the dimensions, `[H/2, W/2, 2C]`, goes through `coarse`, which may be a `MultiScale`
    again. Its features return to their pixels' places in the blocks, so the features have the shape of the image. The
    log-determinants are added.

    Args:
        fine: a `Flow` of `[H, W, C]` images whose features have the same shape; H and W even.
        coarse: a `Flow` of `[H/2, W/2, 2C]` images whose features have the same shape.
        **kwargs: Keras's (`name`, `dtype`, `trainable`).

    Raises:
        UserError: when built, an odd height or width.

    References:
        Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2017, section 3.6.
    """

    takes_condition = True

    def __init__(self, fine: Flow, coarse: Flow, **kwargs: Any):
        super().__init__(**kwargs)
        self.fine = fine
        self.coarse = coarse

    def build(self, images_shape: ImagesShape) -> None:
        """Builds both flows."""
        batch, shape = images_shape[0], images_shape[1:]
        if shape[0] % 2 or shape[1] % 2:
            raise UserError(f"{self.name} halves the image: expected even height and width, got {shape[0]}x{shape[1]}")
        self.fine.build(images_shape)
        height, width, channels = squeezed_shape(shape)
        self.coarse.build((batch, height, width, channels // 2))

    def initialize(self, images: tf.Tensor) -> tf.Tensor:
        """Initialises `fine` from the images, and `coarse` from its half of the features."""
        going_on, staying = _halves(self.fine.initialize(self._checked_eager(images)))
        return _whole(self.coarse.initialize(going_on), staying)

    def _inverse_and_log_det(self, images, training, condition=None):
        features, fine_log_det = self.fine.inverse_and_log_det(images, training, condition)
        going_on, staying = _halves(features)
        going_on, coarse_log_det = self.coarse.inverse_and_log_det(going_on, training, condition)
        return _whole(going_on, staying), fine_log_det + coarse_log_det

    def _forward_and_log_det(self, features, training, condition=None):
        going_on, staying = _halves(features)
        going_on, coarse_log_det = self.coarse.forward_and_log_det(going_on, training, condition)
        images, fine_log_det = self.fine.forward_and_log_det(_whole(going_on, staying), training, condition)
        return images, fine_log_det + coarse_log_det


def _halves(features):
    """`[N, H, W, C]` to its two checkerboard halves, each `[N, H/2, W/2, 2C]`."""
    return tf.split(squeeze(features, diagonals_first=True), 2, axis=-1)


def _whole(going_on, staying):
    return unsqueeze(tf.concat([going_on, staying], axis=-1), diagonals_first=True)
