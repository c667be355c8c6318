"""Fully connected networks of vectors."""

import keras
import tensorflow as tf

from tfcq.networks.convolutions import spawn_seeds


class Perceptron(keras.layers.Layer):
    """Vectors float32 [N, inputs] -> float32 [N, outputs]: `layers` times `units` with ReLU, then a linear layer.

    Args:
        inputs: values of an input vector.
        outputs: values of an output vector.
        units: of each hidden layer.
        layers: how many hidden layers.
        output_gain: of the linear layer's first weights, relative to those that keep the variance; 0: all outputs are 0.
        input_skip: whether the linear layer reads the inputs too, beside the last hidden layer.
        seed: an integer that fixes the initial values.
        name: the layer's name.
        dtype: of the hidden layers; None: the precision policy.

    Outputs have the type of the weights: float32 whatever the precision policy, float64 with a `dtype` of float64.
    """

    def __init__(self, inputs, outputs, units, layers, output_gain=1.0, input_skip=False, seed=0, name="perceptron", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.inputs, self.outputs, self.units, self.layers = inputs, outputs, units, layers
        self.output_gain, self.input_skip, self.seed = output_gain, input_skip, seed
        self.build()

    def build(self, inputs_shape=None):
        """Makes all weights (the constructor calls it)."""
        seeds = spawn_seeds(self.seed, self.layers + 1)
        size = self.inputs
        for index, seed in enumerate(seeds[:-1]):
            initializer = keras.initializers.HeNormal(seed)
            hidden = keras.layers.Dense(
                self.units, "relu", kernel_initializer=initializer, name=f"hidden_{index}", dtype=self.dtype_policy
            )
            hidden.build((None, size))
            setattr(self, hidden.name, hidden)
            size = self.units
        # VarianceScaling takes no scale of 0.
        gain = self.output_gain
        initializer = keras.initializers.VarianceScaling(gain**2, seed=seeds[-1]) if gain else "zeros"
        self.last = keras.layers.Dense(self.outputs, kernel_initializer=initializer, dtype=self.variable_dtype, name="outputs")
        self.last.build((None, size + self.inputs * self.input_skip))

    def call(self, inputs):
        """See the class."""
        hidden = inputs
        for index in range(self.layers):
            hidden = getattr(self, f"hidden_{index}")(hidden)
        if self.input_skip:
            hidden = tf.concat([hidden, tf.cast(inputs, hidden.dtype)], axis=-1)
        return self.last(hidden)
