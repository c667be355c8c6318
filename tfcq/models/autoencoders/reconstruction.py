"""The errors of reconstruction that the deterministic auto-encoders may train by."""

import tensorflow as tf

from tfcq.errors import UserError
from tfcq.features.files import checksum
from tfcq.features.vgg_levels import VGGLevels
from tfcq.losses.perceptual import perceptual_distance
from tfcq.machine import paths


class ReconstructionError:
    """Pixels and their reconstructions, float32 [N, H, W, C] in [0, 1] -> float32 [N].

    "mse": the squares of the differences, summed over all values. (Their mean would weigh colour by a third.)
    "perceptual": `perceptual_distance` of pixels in [-1, 1] and of the levels of VGG16 of those; its weights are read by
    `load`, as only training needs them. This object is no Keras layer, so that they are in no checkpoint and no export.

    Args:
        options: with `reconstruction` and `perceptual_weights`.

    Attributes:
        name: what logs call it: "reconstruction_error", as `latent_likelihood` has it, or "perceptual_distance".
        files_read: as of `GenerativeModel`, once they are.
    """

    def __init__(self, options):
        self._options = options
        self._levels, self.files_read = None, {}
        self.name = {"mse": "reconstruction_error", "perceptual": "perceptual_distance"}[options.reconstruction]

    def load(self):
        """Reads what the error needs; call it under the strategy's scope. UserError where it cannot be had."""
        if self._options.reconstruction != "perceptual":
            return
        path = self._options.perceptual_weights
        path = paths.to_read(path, "perceptual_weights", "a file") if path else None
        if path and not path.exists():
            raise UserError(
                f"perceptual_weights {path}: nothing is there; expected a file of VGG16's weights without its top; if it has "
                "moved, say where it is: --perceptual_weights=FILE"
            )
        self._levels = VGGLevels(path)
        self.files_read = {"system.perceptual_weights": checksum(self._levels.path)}

    def __call__(self, pixels, rebuilt):
        if self._options.reconstruction == "mse":
            return tf.reduce_sum(tf.square(pixels - rebuilt), axis=[1, 2, 3])
        levels = zip(self._levels(pixels), self._levels(rebuilt), strict=True)
        return perceptual_distance([(2.0 * pixels - 1.0, 2.0 * rebuilt - 1.0), *levels])
