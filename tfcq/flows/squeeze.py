"""Two-by-two blocks of pixels to channels, and back."""

from typing import Any

import tensorflow as tf

from tfcq.errors import UserError
from tfcq.flows.base import Flow, ImageShape, ImagesShape, zero_log_det

# The numbers, in the order of rows, of the top left, bottom right, bottom left and top right pixel of a block. The first
# half of the channels in this order are the pixels of one diagonal: the same half of a checkerboard for every colour.
DIAGONALS_FIRST = (0, 3, 2, 1)
BY_ROWS = (0, 1, 2, 3)


def squeeze(images: tf.Tensor, diagonals_first: bool = False) -> tf.Tensor:
    """`[N, H, W, C]` to `[N, H/2, W/2, 4C]`: all colours of a block's first pixel, then of its second, and so on."""
    return _reorder(tf.nn.space_to_depth(images, 2), DIAGONALS_FIRST if diagonals_first else BY_ROWS)


def unsqueeze(images: tf.Tensor, diagonals_first: bool = False) -> tf.Tensor:
    """`[N, H, W, 4C]` to `[N, 2H, 2W, C]`: the inverse of `squeeze` with the same `diagonals_first`."""
    # Either order is its own inverse permutation.
    return tf.nn.depth_to_space(_reorder(images, DIAGONALS_FIRST if diagonals_first else BY_ROWS), 2)


def _reorder(images, order):
    if order == BY_ROWS:
        return images
    positions = tf.split(images, 4, axis=-1)
    return tf.concat([positions[index] for index in order], axis=-1)


def squeezed_shape(shape: ImageShape) -> ImageShape:
    """`(H, W, C)` to `(H/2, W/2, 4C)`."""
    height, width, channels = shape
    return height // 2, width // 2, 4 * channels


def unsqueezed_shape(shape: ImageShape) -> ImageShape:
    """`(H, W, 4C)` to `(2H, 2W, C)`."""
    height, width, channels = shape
    return 2 * height, 2 * width, channels // 4


class Squeeze(Flow):
    """Images `[N, H, W, C]` to features `[N, H/2, W/2, 4C]`: a block of 2x2 pixels becomes one.

    Args:
        diagonals_first: False orders the pixels of a block by rows; True orders them by diagonals, so that the first half
            of the channels is half of a checkerboard. The authors of RealNVP use the former before channel couplings
            (though colour by colour), and the latter before half of the channels leave.
        **kwargs: Keras's (`name`, `dtype`, `trainable`).

    Raises:
        UserError: when built, an odd height or width.

    References:
        Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2017, section 3.6.
    """

    def __init__(self, diagonals_first: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.diagonals_first = diagonals_first

    def build(self, images_shape: ImagesShape) -> None:
        """Checks the sizes; there are no weights."""
        _, height, width, _ = images_shape
        if height % 2 or width % 2:
            raise UserError(f"{self.name} makes blocks of 2x2: expected even height and width, got {height}x{width}")

    def features_shape(self, images_shape: ImageShape) -> ImageShape:
        """`(H/2, W/2, 4C)`."""
        return squeezed_shape(images_shape)

    def images_shape(self, features_shape: ImageShape) -> ImageShape:
        """`(2H, 2W, C/4)`."""
        return unsqueezed_shape(features_shape)

    def _inverse_and_log_det(self, images, training):
        return squeeze(images, self.diagonals_first), zero_log_det(images)

    def _forward_and_log_det(self, features, training):
        return unsqueeze(features, self.diagonals_first), zero_log_det(features)


class Unsqueeze(Flow):
    """Images `[N, H, W, 4C]` to features `[N, 2H, 2W, C]`: undoes a `Squeeze` earlier in a chain.

    Args:
        diagonals_first: the value of the `Squeeze` that it undoes.
        **kwargs: Keras's (`name`, `dtype`, `trainable`).

    Raises:
        UserError: when built, a number of channels that is not a multiple of four.
    """

    def __init__(self, diagonals_first: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.diagonals_first = diagonals_first

    def build(self, images_shape: ImagesShape) -> None:
        """Checks the channels; there are no weights."""
        if images_shape[-1] % 4:
            raise UserError(f"{self.name} unfolds 4 pixels: expected a multiple of 4 channels, got {images_shape[-1]}")

    def features_shape(self, images_shape: ImageShape) -> ImageShape:
        """`(2H, 2W, C/4)`."""
        return unsqueezed_shape(images_shape)

    def images_shape(self, features_shape: ImageShape) -> ImageShape:
        """`(H/2, W/2, 4C)`."""
        return squeezed_shape(features_shape)

    def _inverse_and_log_det(self, images, training):
        return unsqueeze(images, self.diagonals_first), zero_log_det(images)

    def _forward_and_log_det(self, features, training):
        return squeeze(features, self.diagonals_first), zero_log_det(features)
