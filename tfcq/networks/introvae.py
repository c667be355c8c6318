"""The encoder and the generator of IntroVAE (Huang et al. 2018, Appendix B), for image sides 2^k of at least 8.

    encoder    5x5 convolution, BN, LeakyReLU(0.2), 2x2 mean; for each further width a block and a 2x2 mean; a block at 4x4;
               fully connected
    generator  fully connected to 4x4 maps of the last width, ReLU; for each width from the last to the first a block and
               each pixel repeated 2x2 times; a block; 5x5 convolution, no activation
    block      3x3 convolution, BN, LeakyReLU, 3x3 convolution, plus the input (through a 1x1 convolution if widths differ),
               BN, LeakyReLU

The paper's fully connected layer of 8192 values comes from 512 channels at 4x4; smaller images and widths have fewer. Widths
start at `width` and double at each halving, up to 512: width 32 gives those of 256x256 images (32, 64, 128, 256, 512, 512),
width 16 those of 1024x1024, as in the authors' code. Convolutions before a normalisation have no bias. Outputs are float32.

In place of batch normalisation there may be group normalisation (Wu and He, "Group normalization", 2018) of 16 channels each,
whose statistics are an image's own: what the encoder says of an image does then not depend on the others. Or none.
"""

import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfcq.networks.convolutions import Convolution, MapShape, spawn_seeds
from tfcq.networks.normalization import BatchNormalization, frozen_statistics

MOST_WIDTH = 512
"""The largest number of channels of a layer."""

SMALLEST = 4
"""The side of the maps between the convolutions and the fully connected layers, in pixels."""

_SLOPE = 0.2  # of LeakyReLU below 0

_GROUP = 16  # channels of a group, if their number can be divided so (Wu and He 2018, Table 3)


def widths(image_size: int, width: int) -> list[int]:
    """The channels at each resolution from `image_size` / 2 down to 4; the first is also that of the images' resolution."""
    return [min(MOST_WIDTH, width * 2**halving) for halving in range(int(math.log2(image_size // SMALLEST)))]


class Block(keras.layers.Layer):
    """A residual block with normalisation and activation after the sum; see the module.

    Args:
        filters: number of channels of the outputs.
        normalization: "batch", "group" or "none"; without normalisation the convolutions have biases.
        seed: an integer that fixes the initial values.
        **kwargs: Keras's (`name`, `dtype`, `trainable`).
    """

    def __init__(self, filters: int, normalization: str = "batch", seed: int | None = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.filters, self.normalization = filters, normalization
        self._seeds = spawn_seeds(seed, 3)

    def build(self, inputs_shape: MapShape) -> None:
        """Makes the weights for `inputs_shape`, `(N, H, W, channels)`."""
        use_bias = self.normalization == "none"
        options: dict[str, Any] = {"weight_normalization": False, "use_bias": use_bias, "dtype": self.dtype_policy}
        inner = (*inputs_shape[:-1], self.filters)
        self.first = Convolution(self.filters, 3, seed=self._seeds[0], name="first", **options)
        self.second = Convolution(self.filters, 3, seed=self._seeds[1], name="second", **options)
        self.first.build(inputs_shape)
        self.second.build(inner)
        self.skip = None
        if inputs_shape[-1] != self.filters:
            options["use_bias"] = False
            self.skip = Convolution(self.filters, 1, gain=0.5**0.5, seed=self._seeds[2], name="skip", **options)
            self.skip.build(inputs_shape)
        self.first_normalization = normalization_of(self.normalization, self.filters, "first_normalization", self.dtype_policy)
        self.second_normalization = normalization_of(self.normalization, self.filters, "second_normalization", self.dtype_policy)
        for layer in (self.first_normalization, self.second_normalization):
            if layer:
                layer.build(inner)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """`inputs` `[N, H, W, channels]` to `[N, H, W, filters]`."""
        hidden = self.first(inputs)
        if self.first_normalization:
            hidden = self.first_normalization(hidden, training=training)
        hidden = self.second(tf.nn.leaky_relu(hidden, _SLOPE)) + (self.skip(inputs) if self.skip else inputs)
        if self.second_normalization:
            hidden = self.second_normalization(hidden, training=training)
        return tf.nn.leaky_relu(hidden, _SLOPE)

    def compute_output_shape(self, inputs_shape: MapShape) -> MapShape:
        """`(N, H, W, channels)` to `(N, H, W, filters)`."""
        return (*inputs_shape[:-1], self.filters)


def normalization_of(
    kind: str, channels: int, name: str, dtype: keras.DTypePolicy | None = None
) -> keras.layers.Layer | None:
    """A layer that normalises maps of so many channels: "batch", "group"; None for "none"."""
    if kind == "group":
        groups = math.gcd(channels, max(1, channels // _GROUP))
        return keras.layers.GroupNormalization(groups, epsilon=1e-5, name=name, dtype=dtype)
    return BatchNormalization(name=name, dtype=dtype) if kind == "batch" else None


class Recomputed(keras.layers.Layer):
    """A layer whose intermediate values are computed again for the gradient: less memory, one more forward pass.

    In the second forward pass batch normalisation does not update its moving statistics.

    Args:
        layer: a layer with `call(inputs, training)`.
        **kwargs: Keras's.
    """

    def __init__(self, layer: keras.layers.Layer, **kwargs: Any):
        super().__init__(**kwargs)
        self.layer = layer

    def build(self, inputs_shape: MapShape) -> None:
        """Builds the layer."""
        self.layer.build(inputs_shape)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The outputs of the layer."""
        calls: list[None] = []

        def run(values):
            calls.append(None)
            with frozen_statistics(len(calls) > 1):
                return self.layer(values, training=training)

        return tf.recompute_grad(run)(inputs) if training else self.layer(inputs)

    def compute_output_shape(self, inputs_shape: MapShape) -> MapShape:
        """The shape of the layer's outputs."""
        return self.layer.compute_output_shape(inputs_shape)


def encoder(
    image_shape: tuple[int, int, int],
    outputs: int,
    width: int,
    normalization: str = "batch",
    recompute: bool = False,
    seed: int | None = 0,
    name: str = "encoder",
) -> keras.Sequential:
    """A network from images float32 [N, S, S, C] to float32 [N, outputs].

    Args:
        image_shape: (S, S, C), S a power of two, at least 8.
        outputs: number of parameters of the latents' distribution.
        width: number of channels at the images' own resolution.
        normalization: "batch", "group" or "none".
        recompute: whether the blocks, and the layers before them, are `Recomputed`.
        seed: an integer that fixes the initial values.
        name: name of the network.
    """
    channels = widths(image_shape[0], width)
    seeds = iter(spawn_seeds(seed, len(channels) + 2))
    block, again = _blocks(normalization, recompute)
    first = Convolution(
        channels[0], 5, weight_normalization=False, use_bias=normalization == "none", seed=next(seeds), name="first"
    )
    normalizing = normalization_of(normalization, channels[0], "first_normalization")
    stem = [first, *filter(None, [normalizing]), keras.layers.LeakyReLU(_SLOPE), keras.layers.AveragePooling2D(2)]
    layers = [keras.Input(image_shape), again(keras.Sequential(stem, name="stem"))]
    for index, filters in enumerate(channels[1:]):
        layers += [block(filters, next(seeds), f"block_{index}"), keras.layers.AveragePooling2D(2)]
    layers += [
        block(channels[-1], next(seeds), "block_last"),
        keras.layers.Flatten(),
        keras.layers.Dense(
            outputs, kernel_initializer=keras.initializers.LecunNormal(next(seeds)), dtype="float32", name="outputs"
        ),
    ]
    return keras.Sequential(layers, name=name)


def generator(
    image_shape: tuple[int, int, int],
    latent_dim: int,
    width: int,
    normalization: str = "batch",
    recompute: bool = False,
    seed: int | None = 0,
    name: str = "decoder",
) -> keras.Sequential:
    """A network from latents float32 [N, latent_dim] to images float32 [N, S, S, C]; arguments as of `encoder`."""
    channels = widths(image_shape[0], width)[::-1]
    seeds = iter(spawn_seeds(seed, len(channels) + 3))
    block, _ = _blocks(normalization, recompute)
    state = (SMALLEST, SMALLEST, channels[0])
    layers = [
        keras.Input((latent_dim,)),
        keras.layers.Dense(
            math.prod(state), "relu", kernel_initializer=keras.initializers.HeNormal(next(seeds)), name="first"
        ),
        keras.layers.Reshape(state),
    ]
    for index, filters in enumerate(channels):
        layers += [block(filters, next(seeds), f"block_{index}"), keras.layers.UpSampling2D(interpolation="nearest")]
    layers += [
        block(channels[-1], next(seeds), "block_last"),
        Convolution(
            image_shape[-1], 5, weight_normalization=False, gain=0.5**0.5, seed=next(seeds), name="outputs", dtype="float32"
        ),
    ]
    return keras.Sequential(layers, name=name)


def _blocks(
    normalization: str, recompute: bool
) -> tuple[Callable[[int, int | None, str], keras.layers.Layer], Callable[[keras.layers.Layer], keras.layers.Layer]]:
    """A function that makes a block, and one that wraps a layer in `Recomputed` if `recompute` is on."""

    def again(layer: keras.layers.Layer) -> keras.layers.Layer:
        return Recomputed(layer, name=f"recomputed_{layer.name}") if recompute else layer

    def block(filters: int, seed: int | None, name: str) -> keras.layers.Layer:
        return again(Block(filters, normalization, seed, name=name))

    return block, again
