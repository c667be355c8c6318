"""Densely connected networks with channel attention (Gatopoulos et al. 2020, Appendix; Huang et al. 2016, Zhang et al. 2018).

    step       1x1 convolution to 4 growth channels, 3x3 convolution to growth channels, concatenated to the inputs; ELU
    block      `steps` steps, then attention: each channel is multiplied by a sigmoid of two 1x1 convolutions of all
               channels' means over the image
    network    `blocks` blocks, 1x1 convolution
    encoder    `halvings` times (block, 3x3 convolution of stride 2; channels and growth double); block, 1x1 convolution
    decoder    `doublings` times (block, 3x3 transposed convolution of stride 2; channels and growth halve); 3x3 convolution

All convolutions are weight-normalised, with a data-dependent initialisation to a deviation of 0.01, as in the authors' code.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfcq.networks.convolutions import Convolution, MapShape, TransposedConvolution, spawn_seeds

DEVIATION = 0.01
"""Standard deviation of each convolution's outputs after the data-dependent initialisation."""

_REDUCTION = 8  # factor by which the attention reduces the channels inside


class ChannelAttention(keras.layers.Layer):
    """Multiplies each channel by a number in (0, 1) that a network computes from all channels' means over the image."""

    def __init__(self, seed: int | None = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.seed = seed

    def build(self, inputs_shape: MapShape) -> None:
        """Makes the weights for `inputs_shape`, `(N, H, W, channels)`."""
        channels = inputs_shape[-1]
        seeds = spawn_seeds(self.seed, 2)
        self.reduced = _convolution("reduced", max(1, channels // _REDUCTION), 1, seeds[0], self)
        self.reduced.build((None, 1, 1, channels))
        self.gates = _convolution("gates", channels, 1, seeds[1], self)
        self.gates.build((None, 1, 1, self.reduced.filters))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """`inputs` `[N, H, W, channels]`, scaled channel by channel."""
        # In float32: a sum over an image overflows float16.
        means = tf.cast(tf.reduce_mean(tf.cast(inputs, tf.float32), axis=[1, 2], keepdims=True), inputs.dtype)
        return inputs * tf.sigmoid(self.gates(self.reduced(means)))


class DenseBlock(keras.layers.Layer):
    """`[N, H, W, channels]` to `[N, H, W, channels + steps growth]`; see the module.

    Args:
        growth: number of channels that a step adds.
        steps: number of steps.
        seed: an integer that fixes the initial values.
        **kwargs: Keras's (`name`, `dtype`, `trainable`).
    """

    def __init__(self, growth: int, steps: int, seed: int | None = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.growth, self.steps, self.seed = growth, steps, seed

    def build(self, inputs_shape: MapShape) -> None:
        """Makes the weights for `inputs_shape`, `(N, H, W, channels)`."""
        outer, channels = inputs_shape[:-1], inputs_shape[-1]
        seeds = iter(spawn_seeds(self.seed, 2 * self.steps + 1))
        for step in range(self.steps):
            wide = _convolution(f"wide_{step}", 4 * self.growth, 1, next(seeds), self)
            wide.build((*outer, channels))
            added = _convolution(f"added_{step}", self.growth, 3, next(seeds), self)
            added.build((*outer, wide.filters))
            setattr(self, wide.name, wide)
            setattr(self, added.name, added)
            channels += self.growth
        self.attention = ChannelAttention(next(seeds), name="attention", dtype=self.dtype_policy)
        self.attention.build((*outer, channels))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """`inputs` `[N, H, W, channels]` to `[N, H, W, channels + steps growth]`."""
        hidden = inputs
        for step in range(self.steps):
            added = getattr(self, f"added_{step}")(getattr(self, f"wide_{step}")(hidden))
            hidden = tf.nn.elu(tf.concat([hidden, added], axis=-1))
        return self.attention(hidden)

    def compute_output_shape(self, inputs_shape: MapShape) -> MapShape:
        """`(N, H, W, channels)` to the shape of the outputs."""
        return (*inputs_shape[:-1], inputs_shape[-1] + self.steps * self.growth)


def network(
    inputs_shape: tuple[int, int, int],
    outputs: int,
    growth: int,
    steps: int,
    blocks: int,
    seed: int | None = 0,
    name: str = "dense_network",
) -> keras.Sequential:
    """`blocks` dense blocks and a 1x1 convolution, from `[N, H, W, C]` to float32 `[N, H, W, outputs]`.

    Args:
        inputs_shape: (H, W, C).
        outputs: number of channels of the outputs.
        growth, steps: arguments of each `DenseBlock`.
        blocks: number of blocks.
        seed: an integer that fixes the initial values.
        name: name of the network.
    """
    seeds = spawn_seeds(seed, blocks + 1)
    layers = [DenseBlock(growth, steps, seeds[index], name=f"block_{index}") for index in range(blocks)]
    return _sequential(inputs_shape, [*layers, _last(outputs, 1, seeds[-1])], name)


def encoder(
    inputs_shape: tuple[int, int, int],
    outputs: int,
    growth: int,
    steps: int,
    halvings: int,
    seed: int | None = 0,
    name: str = "dense_encoder",
) -> keras.Sequential:
    """A network from `[N, H, W, C]` to float32 `[N, H / 2^halvings, W / 2^halvings, outputs]`.

    Arguments as of `network`; H and W are multiples of 2^halvings.
    """
    seeds, channels = iter(spawn_seeds(seed, 2 * halvings + 2)), inputs_shape[-1]
    layers: list[keras.layers.Layer] = []
    for index in range(halvings + 1):
        layers.append(DenseBlock(growth, steps, next(seeds), name=f"block_{index}"))
        channels += growth * steps
        if index < halvings:
            layers.append(
                Convolution(2 * channels, 3, 2, gain=DEVIATION, seed=next(seeds), name=f"down_{index}")
            )
            channels, growth = 2 * channels, 2 * growth
    return _sequential(inputs_shape, [*layers, _last(outputs, 1, next(seeds))], name)


def decoder(
    inputs_shape: tuple[int, int, int],
    outputs: int,
    growth: int,
    steps: int,
    doublings: int,
    seed: int | None = 0,
    name: str = "dense_decoder",
) -> keras.Sequential:
    """A network from `[N, H, W, C]` to float32 `[N, H 2^doublings, W 2^doublings, outputs]`; arguments as of `network`."""
    seeds, channels = iter(spawn_seeds(seed, 2 * doublings + 1)), inputs_shape[-1]
    layers: list[keras.layers.Layer] = []
    for index in range(doublings):
        layers.append(DenseBlock(growth, steps, next(seeds), name=f"block_{index}"))
        channels = (channels + growth * steps) // 2
        layers.append(
            TransposedConvolution(channels, 3, 2, gain=DEVIATION, seed=next(seeds), name=f"up_{index}")
        )
        growth = max(1, growth // 2)
    return _sequential(inputs_shape, [*layers, _last(outputs, 3, next(seeds))], name)


def _sequential(inputs_shape, layers, name):
    return keras.Sequential([keras.Input(inputs_shape), *layers], name=name)


def _last(outputs, kernel_size, seed):
    return Convolution(outputs, kernel_size, gain=DEVIATION, seed=seed, name="outputs", dtype="float32")


def _convolution(name, filters, kernel_size, seed, owner):
    return Convolution(filters, kernel_size, gain=DEVIATION, seed=seed, name=name, dtype=owner.dtype_policy)
