"""The levels of VGG16 that the perceptual loss of Xiao et al. (2019) compares (Hoshen and Wolf 2018; Simonyan and Zisserman
2015).

Layers 2, 7, 12, 21 and 30 of PyTorch's VGG16: the first three for images of 28 or 32 pixels, four for 64, five from 128 on.
PyTorch's ReLU works in place, so at each level the authors compare the output of the ReLU after it, except at the last
level, which no ReLU follows. Grey images are repeated to colour, and sides padded with black to a multiple of 32 (28 to 32).

Their pixels are in [-1, 1], where PyTorch's weights expect (x - mean) / 0.226 or so for x in [0, 1]; Keras's weights are for
differences to a mean of x in [0, 255], blue first. So one unit there is 0.226 * 255 here. The outputs are divided by it again:
except for its biases such a network is homogeneous, so the levels have about the authors' weight relative to the pixels.
"""

from __future__ import annotations

import os

import keras
import tensorflow as tf

from tfcq.features.keras_application import load_network
from tfcq.machine import settings

LAYERS = ("block1_conv2", "block2_conv2", "block3_conv2", "block4_conv3", "block5_pool")
"""Keras's names of the five layers."""

UNIT = 0.226 * 255.0
"""One of PyTorch's units of a pixel, and of a feature, in Keras's units."""

_MULTIPLE = 32


def num_levels(image_size: int) -> int:
    """How many levels are compared for images whose side is `image_size` pixels."""
    if image_size <= 32:
        return 3
    return 4 if image_size <= 64 else 5


class VGGLevels:
    """Images float32 [N, H, W, C] in [0, 1], C 1 or 3 -> a list of float32 [N, h, w, channels], one a level.

    Differentiable in the images; the weights are fixed. Not a Keras layer, so that no model saves the weights.

    Args:
        weights: file of VGG16's weights without its top, as Keras has them; None: Keras's own, from its cache or downloaded.

    Attributes:
        path: the weights file that was read.

    Raises:
        UserError: weights that are missing, of another network, or cannot be downloaded.
    """

    def __init__(self, weights: str | os.PathLike | None = None) -> None:
        with settings.keras_defaults():
            network, self.path = load_network("vgg16", weights, _MULTIPLE)
        network.trainable = False
        self._layers = [layer for layer in network.layers if layer.name.startswith("block")]

    def __call__(self, images: tf.Tensor) -> list[tf.Tensor]:
        if images.shape[-1] == 1:
            images = tf.repeat(images, 3, axis=-1)
        height, width = images.shape[1:3]
        images = tf.pad(images, [(0, 0), _padding(height), _padding(width), (0, 0)])
        hidden = UNIT * (2.0 * images[..., ::-1] - 1.0)
        wanted = LAYERS[: num_levels(max(height, width))]
        levels = []
        for layer in self._layers:
            if not isinstance(layer, keras.layers.Conv2D):
                hidden = layer(hidden)
            else:
                kernel, bias = layer.kernel.value, layer.bias.value
                hidden = tf.nn.bias_add(tf.nn.conv2d(hidden, kernel, 1, "SAME"), bias)
                if layer.name != wanted[-1]:
                    hidden = tf.nn.relu(hidden)
            if layer.name in wanted:
                levels.append(hidden / UNIT)
            if layer.name == wanted[-1]:
                return levels
        raise AssertionError("VGG16 without its layers")


def _padding(side):
    """Pixels before and after, to the next multiple of 32."""
    missing = -side % _MULTIPLE
    return missing // 2, missing - missing // 2
