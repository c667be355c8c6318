"""The reconstruction errors that deterministic auto-encoders can be trained with."""

from __future__ import annotations

import tensorflow as tf

from tfcq.config.groups import ReconstructionOptions
from tfcq.errors import UserError
from tfcq.features.files import checksum
from tfcq.features.vgg_levels import VGGLevels
from tfcq.losses.perceptual import perceptual_distance
from tfcq.machine import paths


class ReconstructionError:
    """The error float32 [N] of reconstructions of pixels, both float32 [N, H, W, C] in [0, 1].

    "mse": the sum of squared differences over all values. (With their mean, colour images would have a third of the weight.)
    "perceptual": `perceptual_distance` of pixels in [-1, 1] and of their features at the levels of VGG16. The weights of VGG16
    are read by `load`, because only training needs them. This object is not a Keras layer, so these weights are not in
    checkpoints or exports.

    Args:
        options: the options of the error.

    Attributes:
        name: the name in logs: "reconstruction_error", as in `latent_likelihood`, or "perceptual_distance".
        files_read: see `Trainer.files_read`; filled by `load`.
    """

    def __init__(self, options: ReconstructionOptions):
        self._options = options
        self._levels: VGGLevels | None = None
        self.files_read: dict[str, str] = {}
        self.name = {"mse": "reconstruction_error", "perceptual": "perceptual_distance"}[options.reconstruction]

    def load(self) -> None:
        """Reads the weights that the error needs. Call it under the strategy's scope.

        Raises:
            UserError: the weights cannot be read.
        """
        if self._options.reconstruction != "perceptual":
            return
        given = self._options.perceptual_weights
        path = paths.to_read(given, "perceptual_weights", "a file") if given else None
        if path and not path.exists():
            raise UserError(
                f"perceptual_weights {path}: nothing is there; expected a file of VGG16's weights without its top; if it has "
                "moved, say where it is: --perceptual_weights=FILE"
            )
        self._levels = VGGLevels(path)
        self.files_read = {"system.perceptual_weights": checksum(self._levels.path)}

    def __call__(self, pixels: tf.Tensor, rebuilt: tf.Tensor) -> tf.Tensor:
        if self._options.reconstruction == "mse":
            return tf.reduce_sum(tf.square(pixels - rebuilt), axis=[1, 2, 3])
        if self._levels is None:
            raise ValueError("perceptual error: expected a call of load() before the first use")
        levels = zip(self._levels(pixels), self._levels(rebuilt), strict=True)
        return perceptual_distance([(2.0 * pixels - 1.0, 2.0 * rebuilt - 1.0), *levels])
