"""Fully connected networks for vectors."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfcq.networks.convolutions import spawn_seeds
from tfcq.networks.normalization import BatchNormalization


class Perceptron(keras.layers.Layer):
    """Vectors float32 [N, inputs] -> float32 [N, outputs]: hidden layers with ReLU, then a linear layer.

    Outputs have the dtype of the weights: float32 whatever the precision policy, float64 with a `dtype` of float64.

    Args:
        inputs: number of values of an input vector.
        outputs: number of values of an output vector.
        units: units of each hidden layer.
        layers: number of hidden layers.
        output_gain: initial size of the linear layer's weights, relative to weights that preserve the variance; 0: all
            outputs are 0.
        input_skip: whether the linear layer also reads the inputs, besides the last hidden layer.
        seed: an integer that fixes the initial values.
        name: the layer's name.
        dtype: dtype or policy of the hidden layers; None: the precision policy.
        normalization: the batch normalisation of hidden layers: "" (none) | "before" each ReLU, in place of a bias | "after" it.
        condition_size: how many values a condition has, such as a class as one-hot; 0: there is none. It shifts the first hidden
            layer before its ReLU, by nothing at first.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        units: int,
        layers: int,
        output_gain: float = 1.0,
        input_skip: bool = False,
        seed: int | None = 0,
        name: str = "perceptron",
        dtype: str | keras.DTypePolicy | None = None,
        normalization: str = "",
        condition_size: int = 0,
    ):
        super().__init__(name=name, dtype=dtype)
        self.inputs, self.outputs, self.units, self.layers = inputs, outputs, units, layers
        self.output_gain, self.input_skip, self.seed, self.normalization = output_gain, input_skip, seed, normalization
        self.condition_size = condition_size
        self.build()

    def build(self, inputs_shape: tuple[int | None, int] | None = None) -> None:
        """Makes all weights; called by the constructor."""
        seeds = spawn_seeds(self.seed, self.layers + 1)
        size = self.inputs
        for index, seed in enumerate(seeds[:-1]):
            initializer = keras.initializers.HeNormal(seed)
            before = self.normalization == "before"
            linear = before or self._is_shifted(index)
            hidden = keras.layers.Dense(
                self.units,
                None if linear else "relu",
                use_bias=not before,
                kernel_initializer=initializer,
                name=f"hidden_{index}",
                dtype=self.dtype_policy,
            )
            hidden.build((None, size))
            setattr(self, hidden.name, hidden)
            size = self.units
            if self.normalization:
                normalization = BatchNormalization(name=f"normalization_{index}", dtype=self.dtype_policy)
                normalization.build((None, size))
                setattr(self, normalization.name, normalization)
        if self.condition_size:
            self.of_condition = keras.layers.Dense(
                self.units, use_bias=False, kernel_initializer="zeros", name="condition", dtype=self.dtype_policy
            )
            self.of_condition.build((None, self.condition_size))
        # VarianceScaling does not take a scale of 0.
        gain = self.output_gain
        initializer = keras.initializers.VarianceScaling(gain**2, seed=seeds[-1]) if gain else "zeros"
        self.last = keras.layers.Dense(self.outputs, kernel_initializer=initializer, dtype=self.variable_dtype, name="outputs")
        self.last.build((None, size + self.inputs if self.input_skip else size))

    def call(self, inputs: tf.Tensor, training: bool = False, condition: tf.Tensor | None = None) -> tf.Tensor:
        """Vectors [N, inputs] to [N, outputs]; in `training`, hidden layers are normalised by the batch's statistics.

        `condition`: [N, condition_size]; None: without.
        """
        hidden = inputs
        for index in range(self.layers):
            hidden = getattr(self, f"hidden_{index}")(hidden)
            if self._is_shifted(index):
                hidden = hidden if condition is None else hidden + self.of_condition(condition)
                hidden = hidden if self.normalization == "before" else tf.nn.relu(hidden)
            if self.normalization:
                hidden = getattr(self, f"normalization_{index}")(hidden, training=training)
            if self.normalization == "before":
                hidden = tf.nn.relu(hidden)
        if self.input_skip:
            hidden = tf.concat([hidden, tf.cast(inputs, hidden.dtype)], axis=-1)
        return self.last(hidden)

    def _is_shifted(self, index):
        return bool(self.condition_size) and index == 0
