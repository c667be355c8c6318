"""The densely connected conditioner of the flow that is srVAE's prior (Gatopoulos et al. 2020)."""

import keras
import tensorflow as tf

from tfcq.flows.conditioner import SCALE_GAIN
from tfcq.networks.convolutions import Convolution, spawn_seeds
from tfcq.networks.dense_blocks import DenseBlock


class DenseConditioner(keras.layers.Layer):
    """A dense block with attention and a 3x3 convolution to a shift and a raw log-scale; else as `ResidualConditioner`.

    Args:
        outputs: channels of the shift and of the raw log-scale each.
        growth, steps: of the block.
        seed: an integer that fixes the initial values.
        **kwargs: Keras's (`name`, `dtype`, `trainable`).
    """

    def __init__(self, outputs, growth, steps, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.outputs = outputs
        seeds = spawn_seeds(seed, 2)
        self.block = DenseBlock(growth, steps, seeds[0], name="block", dtype=self.dtype_policy)
        gains = [0.0] * outputs + [SCALE_GAIN] * outputs
        self.last = Convolution(2 * outputs, 3, gain=gains, seed=seeds[1], name="last", dtype=self.dtype_policy)

    @classmethod
    def maker(cls, growth, steps):
        """What `AffineCoupling` and `ImageFlow` take as `conditioner`."""
        return lambda outputs, seed, name, dtype: cls(outputs, growth, steps, seed, name=name, dtype=dtype)

    def build(self, inputs_shape):
        """Builds the layers for `inputs_shape`, `(N, H, W, channels)`."""
        self.block.build(inputs_shape)
        self.last.build(self.block.compute_output_shape(inputs_shape))

    def call(self, inputs, training=False):
        """`inputs` `[N, H, W, channels]` to `shift` and `raw_log_scale`, each `[N, H, W, outputs]`, compute dtype."""
        return tuple(tf.split(self.last(self.block(inputs)), 2, axis=-1))

    def compute_output_shape(self, inputs_shape):
        """The shapes of the shift and of the raw log-scale."""
        return ((*inputs_shape[:-1], self.outputs),) * 2
