"""The densely connected conditioner of the flow in srVAE's prior (Gatopoulos et al. 2020)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfcq.flows.conditioner import SCALE_GAIN
from tfcq.networks.convolutions import Convolution, MapShape, spawn_seeds
from tfcq.networks.dense_blocks import DenseBlock


class DenseConditioner(keras.layers.Layer):
    """A dense block with attention and a 3x3 convolution; same inputs and outputs as `ResidualConditioner`.

    Args:
        outputs: the number of channels of the shift, and of the raw log-scale.
        growth, steps: arguments of the `DenseBlock`.
        seed: an integer that fixes the initial values.
        **kwargs: Keras's (`name`, `dtype`, `trainable`).
    """

    def __init__(self, outputs: int, growth: int, steps: int, seed: int | None = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.outputs = outputs
        seeds = spawn_seeds(seed, 2)
        self.block = DenseBlock(growth, steps, seeds[0], name="block", dtype=self.dtype_policy)
        gains = [0.0] * outputs + [SCALE_GAIN] * outputs
        self.last = Convolution(2 * outputs, 3, gain=gains, seed=seeds[1], name="last", dtype=self.dtype_policy)

    @classmethod
    def maker(cls, growth: int, steps: int) -> Callable[[int, int | None, str, Any], DenseConditioner]:
        """A function that makes such layers, for the argument `conditioner` of `AffineCoupling` and `ImageFlow`."""

        def make(outputs: int, seed: int | None, name: str, dtype: Any) -> DenseConditioner:
            return cls(outputs, growth, steps, seed, name=name, dtype=dtype)

        return make

    def build(self, inputs_shape: MapShape) -> None:
        """Builds the layers for `inputs_shape`, `(N, H, W, channels)`."""
        self.block.build(inputs_shape)
        self.last.build(self.block.compute_output_shape(inputs_shape))

    def call(self, inputs: tf.Tensor, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """`inputs` `[N, H, W, channels]` to `shift` and `raw_log_scale`, each `[N, H, W, outputs]`, compute dtype."""
        shift, raw_log_scale = tf.split(self.last(self.block(inputs)), 2, axis=-1)
        return shift, raw_log_scale

    def compute_output_shape(self, inputs_shape: MapShape) -> tuple[MapShape, MapShape]:
        """The shapes of the shift and of the raw log-scale."""
        shape = (*inputs_shape[:-1], self.outputs)
        return shape, shape
