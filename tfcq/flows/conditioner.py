"""The residual network that computes from one part of an image how the other part is shifted and scaled."""

from typing import Any

import keras
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.networks.convolutions import Convolution, MapShape, spawn_seeds
from tfcq.networks.normalization import BatchNormalization

# Added to a variance, as by the authors of RealNVP.
EPSILON = 1e-4

# Keeps the raw scales of an untrained network in the range where tanh is steep.
SCALE_GAIN = 0.25


class ResidualConditioner(keras.layers.Layer):
    """A pre-activated residual convolutional network with two outputs: a shift and a raw log-scale.

    The network: 3x3 convolution; `blocks` times (ReLU, 3x3, ReLU, 3x3, added to its input); ReLU, 1x1 convolution. Batch
    normalisation, if any, precedes each ReLU. What differs from the network in the program of RealNVP's authors, for speed:

      * Their last ReLU and convolution read the sum of 1x1 convolutions of the states before and after each block, ours the
        last state.
      * They normalise the inputs by batch normalisation, doubled before checkerboards, and the first convolution reads
        ReLU(x) and ReLU(-x); here it reads x. Either has the mask as one more channel in checkerboard couplings.
      * The first kernel of the network and of each block has no magnitude of its own there; here every kernel has one.

    The shift starts at zero, the raw log-scale does not: it is multiplied by a factor of the coupling that starts at 0,
    and if both were zero, neither would get a gradient.

    Args:
        outputs: the number of channels of the shift, and of the raw log-scale.
        width: the number of channels inside.
        blocks: the number of residual blocks.
        weight_normalization: whether the convolutions are weight-normalised.
        batch_normalization: whether there is batch normalisation, synchronised over replicas.
        output_kernel_size: the side of the last convolution's kernel, in pixels.
        seed: an integer that fixes the initial values.
        condition_size: how many values a condition has, such as a class as one-hot; 0: there is none. It shifts the outputs of
            the first convolution, by nothing at first.
        **kwargs: Keras's (`name`, `dtype`, `trainable`).

    Raises:
        UserError: a width that is not positive, or a negative number of blocks.

    References:
        Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2017, section 4.1; He et al., "Identity
        mappings in deep residual networks", 2016.
    """

    def __init__(
        self,
        outputs: int,
        width: int = 32,
        blocks: int = 2,
        weight_normalization: bool = True,
        batch_normalization: bool = False,
        output_kernel_size: int = 1,
        seed: int | None = 0,
        condition_size: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if width < 1 or blocks < 0:
            raise UserError(f"a conditioner needs width >= 1 and blocks >= 0, got width={width} and blocks={blocks}")
        self.outputs = outputs
        self.width = width
        self.blocks = blocks
        self.weight_normalization = weight_normalization
        self.batch_normalization = batch_normalization
        self.seed = seed
        seeds = iter(spawn_seeds(seed, 2 * blocks + 2))

        def convolution(name):
            # Batch normalisation would subtract a bias again.
            use_bias = not batch_normalization
            return Convolution(
                width, 3, 1, weight_normalization, use_bias, seed=next(seeds), name=name, dtype=self.dtype_policy
            )

        self.first = convolution("first")
        self.inner = [convolution(f"block_{index // 2}_{index % 2}") for index in range(2 * blocks)]
        self.last = Convolution(
            2 * outputs,
            output_kernel_size,
            1,
            weight_normalization,
            gain=[0.0] * outputs + [SCALE_GAIN] * outputs,
            seed=next(seeds),
            name="last",
            dtype=self.dtype_policy,
        )
        self.normalizations: list[BatchNormalization] = []
        if batch_normalization:
            self.normalizations = [
                BatchNormalization(EPSILON, name=f"normalization_{index}", dtype=self.dtype_policy)
                for index in range(2 * blocks + 1)
            ]
        self.condition_size = condition_size
        if condition_size:
            self.of_condition = keras.layers.Dense(
                width, use_bias=False, kernel_initializer="zeros", name="condition", dtype=self.dtype_policy
            )
        # tf.train.Checkpoint follows attributes; it silently leaves out layers that are only in a list on a Keras layer.
        for layer in (*self.inner, *self.normalizations):
            setattr(self, layer.name, layer)

    def build(self, inputs_shape: MapShape) -> None:
        """Builds the layers for `inputs_shape`, `(N, H, W, channels)`."""
        inner_shape = (*inputs_shape[:-1], self.width)
        self.first.build(inputs_shape)
        if self.condition_size:
            self.of_condition.build((None, self.condition_size))
        for layer in (*self.inner, *self.normalizations, self.last):
            layer.build(inner_shape)

    def call(
        self, inputs: tf.Tensor, training: bool = False, condition: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """`inputs` `[N, H, W, channels]` to `shift` and `raw_log_scale`, each `[N, H, W, outputs]`, compute dtype.

        `condition`: `[N, condition_size]`; None: without.
        """
        hidden = self.first(inputs)
        if condition is not None:
            hidden += self.of_condition(condition)[:, tf.newaxis, tf.newaxis]
        for block in range(self.blocks):
            residual = self.inner[2 * block](self._activate(hidden, 2 * block, training))
            residual = self.inner[2 * block + 1](self._activate(residual, 2 * block + 1, training))
            hidden = residual + hidden
        parameters = self.last(self._activate(hidden, 2 * self.blocks, training))
        shift, raw_log_scale = tf.split(parameters, 2, axis=-1)
        return shift, raw_log_scale

    def compute_output_shape(self, inputs_shape: MapShape) -> tuple[MapShape, MapShape]:
        """The shapes of the shift and of the raw log-scale."""
        shape = (*inputs_shape[:-1], self.outputs)
        return shape, shape

    def _activate(self, hidden, index, training):
        if self.batch_normalization:
            hidden = self.normalizations[index](hidden, training=training)
        return tf.nn.relu(hidden)
