"""A two-dimensional convolution whose kernel is split into a direction and a magnitude (weight normalisation)."""

import math

import keras
import numpy as np
import tensorflow as tf

from tfcq.errors import UserError

# A variance below this counts as none at all in the data-dependent initialisation.
MINIMUM_VARIANCE = 1e-12


class Convolution(keras.layers.Layer):
    """A convolution, weight-normalised unless told otherwise.

    The kernel of output channel k is `w_k = magnitude_k * direction_k / |direction_k|`, the norm taken over the whole
    receptive field. It is computed once a call, in the variables' own precision, and only then cast to the policy's
    compute dtype: in bfloat16 the norm of a few hundred squares would lose the digits that make it useful.

    Every kernel starts with the norm `gain * sqrt(2)`: with `gain=1` that keeps the variance of what a ReLU feeds it.

    Args:
        filters: the number of output channels.
        kernel_size: the side of the kernel, in pixels.
        strides: the step between two outputs, in pixels; the padding is always `SAME`.
        weight_normalization: False learns the kernel directly.
        use_bias: whether a bias, zero at first, is added.
        gain: the kernels' initial magnitude, relative to the variance-keeping one; one number, or one a filter. 0 makes
            a filter's first outputs zero.
        seed: an integer that fixes the initial values.
        **kwargs: Keras's (`name`, `dtype`, `trainable`).

    Raises:
        UserError: for a size that is not positive, or as many gains as there are not filters.

    References:
        Salimans and Kingma, "Weight normalization", 2016, equation 2; He et al., "Delving deep into rectifiers", 2015.
    """

    def __init__(
        self,
        filters,
        kernel_size=3,
        strides=1,
        weight_normalization=True,
        use_bias=True,
        gain=1.0,
        seed=0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        for name, value in (("filters", filters), ("kernel_size", kernel_size), ("strides", strides)):
            if value < 1:
                raise UserError(f"{name} of a convolution must be 1 or more, got {value}: pass a positive integer")
        if np.size(gain) not in (1, filters):
            raise UserError(f"gain must be one number or one a filter: expected {filters} of them, got {np.size(gain)}")
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = strides
        self.weight_normalization = weight_normalization
        self.use_bias = use_bias
        self.gain = gain
        self.seed = seed

    def build(self, inputs_shape):
        """Makes the weights for `inputs_shape`, `(N, H, W, channels)`, of which only the channels count."""
        channels = inputs_shape[-1]
        shape = (self.kernel_size, self.kernel_size, channels, self.filters)
        norms = math.sqrt(2.0) * np.broadcast_to(np.asarray(self.gain, "float64"), [self.filters])
        # autocast=False: the norm is taken before the cast to the compute dtype.
        if self.weight_normalization:
            self.direction = self.add_weight(
                name="direction",
                shape=shape,
                initializer=keras.initializers.RandomNormal(stddev=0.05, seed=self.seed),
                autocast=False,
            )
            self.magnitude = self.add_weight(
                name="magnitude", shape=(self.filters,), initializer=_constant(norms), autocast=False
            )
        else:
            fan_in = self.kernel_size**2 * channels
            normal = keras.initializers.RandomNormal(stddev=1.0 / math.sqrt(fan_in), seed=self.seed)
            self.kernel = self.add_weight(
                name="kernel",
                shape=shape,
                initializer=lambda shape, dtype: normal(shape, dtype=dtype) * tf.cast(norms, dtype),
                autocast=False,
            )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros", autocast=False)

    def effective_kernel(self):
        """The kernel that is applied: `[kernel_size, kernel_size, channels, filters]`, in the variables' dtype."""
        if not self.weight_normalization:
            return self.kernel.value
        return self.magnitude.value * tf.math.l2_normalize(self.direction.value, axis=[0, 1, 2])

    def call(self, inputs):
        """Convolves `inputs` `[N, H, W, channels]` into `[N, ceil(H / strides), ceil(W / strides), filters]`."""
        outputs = tf.nn.conv2d(inputs, tf.cast(self.effective_kernel(), inputs.dtype), self.strides, "SAME")
        if self.bias is None:
            return outputs
        return tf.nn.bias_add(outputs, tf.cast(self.bias.value, inputs.dtype))

    def initialize(self, inputs):
        """Sets magnitudes and biases from a batch: each output channel then has mean 0 and variance 1 over it.

        Equation 5 of the paper above. A channel that the batch leaves constant keeps its magnitude.

        Args:
            inputs: `[N, H, W, channels]`, eager.

        Returns:
            The outputs after the initialisation, `[N, ceil(H / strides), ceil(W / strides), filters]`.

        Raises:
            UserError: where the layer has no magnitude or no bias to set, or within a `tf.function`.
        """
        if not (self.weight_normalization and self.use_bias):
            raise UserError(
                "data-dependent initialisation sets magnitude and bias: weight_normalization and use_bias must be on, "
                f"got {self.weight_normalization} and {self.use_bias}; set both or do not call initialize"
            )
        if not tf.executing_eagerly():
            raise UserError(f"{self.name}.initialize assigns weights once: call it eagerly, outside of tf.function")
        outputs = self(inputs)
        mean, variance = tf.nn.moments(tf.cast(outputs, self.variable_dtype), axes=[0, 1, 2])
        varies = variance > MINIMUM_VARIANCE
        inverse_deviation = tf.where(varies, tf.math.rsqrt(tf.where(varies, variance, 1.0)), 1.0)
        self.magnitude.assign(self.magnitude.value * inverse_deviation)
        self.bias.assign((self.bias.value - mean) * inverse_deviation)
        return self(inputs)

    def compute_output_shape(self, inputs_shape):
        """`(N, H, W, channels)` to the shape of the outputs; unknown sizes stay unknown."""
        batch, height, width, _ = inputs_shape
        sides = [None if side is None else -(-side // self.strides) for side in (height, width)]
        return (batch, *sides, self.filters)


def _constant(values):
    return lambda shape, dtype: tf.reshape(tf.cast(values, dtype), shape)
