"""Two-dimensional convolutions whose kernel is split into a direction and a magnitude (weight normalisation).

`Convolution` and `TransposedConvolution` can set magnitude and bias from a batch (data-dependent initialisation): a single
layer by `initialize`, a whole network by calling it once within `data_dependent_initialization`.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.networks.weight_normalization import weight_normalized

MapShape = tuple[int | None, int | None, int | None, int]
"""(N, H, W, channels) of a batch of maps; only the channels must be known."""

# For the data-dependent initialisation a channel is constant if its variance, with a kernel of norm 1, is below this.
MINIMUM_VARIANCE = 1e-12

# The layers that the surrounding `data_dependent_initialization` has initialised; None outside such a context.
_initialized_layers: contextvars.ContextVar[list[Convolution] | None] = contextvars.ContextVar(
    "initialized_layers", default=None
)


@contextlib.contextmanager
def data_dependent_initialization() -> Iterator[list[Convolution]]:
    """A context in which weight-normalised convolutions with a bias initialise themselves from their first inputs.

    Running a network once on a batch thus initialises its layers in order, each from the outputs of the initialised
    layers before it (Salimans and Kingma 2016, section 3):

        with data_dependent_initialization() as layers:
            network(images)

    A layer that is called again keeps its weights. Other layers work as usual. The network must be built and run
    eagerly. If its variables are mirrored, call it under `strategy.scope()`, not in `strategy.run`, whose threads do not
    see this context. A context inside another one joins it.

    Yields:
        The list of layers initialised so far, in the order of their calls.

    Raises:
        UserError: a layer is called in a `tf.function` or with inputs that are not finite.
    """
    running = _initialized_layers.get()
    layers = [] if running is None else running
    token = _initialized_layers.set(layers)
    try:
        yield layers
    finally:
        _initialized_layers.reset(token)


def spawn_seeds(seed: int | None, count: int) -> list[Any]:
    """`count` seeds, integers below 2**31, that follow from `seed`; for None `count` times None: Keras draws the seeds."""
    if seed is None:
        return [None] * count
    return [int(state >> 1) for state in np.random.SeedSequence(seed).generate_state(count)]


class Convolution(keras.layers.Layer):
    """A convolution, weight-normalised by default.

    The kernel of output channel k is `w_k = magnitude_k * direction_k / |direction_k|`, with the norm over the whole
    receptive field. It is computed once per call, in the precision of the variables, and then cast to the policy's
    compute dtype: in bfloat16 the norm of a few hundred values would be too inaccurate.

    Every kernel starts with the norm `gain * sqrt(2)`: with `gain=1` this preserves the variance of inputs from a ReLU.

    Args:
        filters: the number of output channels.
        kernel_size: the side of the kernel, in pixels.
        strides: the step between two outputs, in pixels; the padding is always `SAME`.
        weight_normalization: whether the kernel is split into direction and magnitude; False: it is learned directly.
        use_bias: whether a bias is added; it starts at zero.
        gain: the kernels' initial magnitude, relative to the one that preserves the variance; after a data-dependent
            initialisation, the outputs' standard deviation. One number, or one per filter; 0 makes a filter's initial
            outputs zero.
        seed: an integer that fixes the initial values; None: Keras draws a seed (see `keras.utils.set_random_seed`).
        **kwargs: Keras's (`name`, `dtype`, `trainable`).

    Raises:
        UserError: a size that is not positive, or a number of gains that is neither 1 nor the number of filters.

    References:
        Salimans and Kingma, "Weight normalization", 2016, equation 2; He et al., "Delving deep into rectifiers", 2015.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 3,
        strides: int = 1,
        weight_normalization: bool = True,
        use_bias: bool = True,
        gain: float | Sequence[float] = 1.0,
        seed: int | None = 0,
        **kwargs: Any,
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

    def build(self, inputs_shape: MapShape) -> None:
        """Makes the weights for `inputs_shape`, `(N, H, W, channels)`; only the channels are used."""
        channels = inputs_shape[-1]
        shape = (self.kernel_size, self.kernel_size, channels, self.filters)
        norms = self._unit_gain_norm() * self._gains()
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

    def effective_kernel(self) -> tf.Tensor:
        """The kernel that is applied: `[kernel_size, kernel_size, channels, filters]`, in the variables' dtype."""
        if not self.weight_normalization:
            return self.kernel.value
        return weight_normalized(self._directions(), self.magnitude.value)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Convolves `inputs` `[N, H, W, channels]` into `[N, ceil(H / strides), ceil(W / strides), filters]`."""
        layers = _initialized_layers.get()
        if layers is None or self in layers or not (self.weight_normalization and self.use_bias):
            return self._outputs(inputs)
        outputs = self.initialize(inputs)
        layers.append(self)
        return outputs

    def initialize(self, inputs: tf.Tensor) -> tf.Tensor:
        """Sets magnitudes and biases so that each output channel has mean 0 and its gain as deviation over a batch.

        This is equation 5 of Salimans and Kingma, times the gain. A channel that is constant over the batch keeps its
        magnitude. The statistics are computed in the variables' dtype.

        Args:
            inputs: `[N, H, W, channels]`, eager.

        Returns:
            The outputs after the initialisation, as from `call`.

        Raises:
            UserError: the layer has no magnitude or no bias, the call is within a `tf.function`, or inputs are not
                finite.
        """
        if not (self.weight_normalization and self.use_bias):
            raise UserError(
                "data-dependent initialisation sets magnitude and bias: weight_normalization and use_bias must be on, "
                f"got {self.weight_normalization} and {self.use_bias}; set both or do not call initialize"
            )
        if not tf.executing_eagerly():
            raise UserError(f"{self.name}.initialize assigns weights once: call it eagerly, outside of tf.function")
        inputs = tf.convert_to_tensor(inputs)
        if not self.built:
            self.build(inputs.shape)
        outputs = self._convolve(tf.cast(inputs, self.variable_dtype), self._unit_kernel())
        mean, variance = tf.nn.moments(outputs, axes=[0, 1, 2])
        if not np.all(np.isfinite(variance)):
            raise UserError(
                f"{self.name}.initialize expected finite inputs, received some that are not (or overflow): check the "
                "images and the layers before it"
            )
        varies = variance > MINIMUM_VARIANCE
        scaled = tf.constant(self._gains(), variance.dtype) * tf.math.rsqrt(tf.where(varies, variance, 1.0))
        magnitude = tf.where(varies, scaled, self.magnitude.value)
        bias = -magnitude * mean
        self.magnitude.assign(magnitude)
        assert self.bias is not None  # as use_bias is on
        self.bias.assign(bias)
        return tf.cast(magnitude * outputs + bias, self.compute_dtype)

    def compute_output_shape(self, inputs_shape: MapShape) -> MapShape:
        """`(N, H, W, channels)` to the shape of the outputs; unknown sizes stay unknown."""
        batch, *sides, _ = inputs_shape
        height, width = (None if side is None else -(-side // self.strides) for side in sides)
        return batch, height, width, self.filters

    def _gains(self):
        return np.broadcast_to(np.asarray(self.gain, "float64"), [self.filters])

    def _unit_gain_norm(self):
        """The norm of an output channel's kernel that preserves the variance of inputs from a ReLU."""
        return math.sqrt(2.0)

    def _directions(self):
        """The directions of the kernels, in the variables' dtype: `[kernel_size, kernel_size, channels, filters]`."""
        return self.direction.value

    def _unit_kernel(self):
        return tf.math.l2_normalize(self._directions(), axis=[0, 1, 2])

    def _outputs(self, inputs):
        outputs = self._convolve(inputs, tf.cast(self.effective_kernel(), inputs.dtype))
        if self.bias is None:
            return outputs
        return tf.nn.bias_add(outputs, tf.cast(self.bias.value, inputs.dtype))

    def _convolve(self, inputs, kernel):
        return tf.nn.conv2d(inputs, kernel, self.strides, "SAME")


class TransposedConvolution(Convolution):
    """A transposed convolution that multiplies both sides by `strides`, weight-normalised by default.

    It is the gradient of a `SAME` convolution with respect to its input, as a layer: input pixel (i, j) adds its kernel
    around output pixel (strides i, strides j). It has the weights of `Convolution`, in the same layout; the norm of an
    output channel is over (kernel_size, kernel_size, channels).

    An output pixel depends only on every `strides`-th tap of the kernel in each direction, so the norm that preserves the
    variance is `strides` times that of `Convolution`: exactly if `strides` divides `kernel_size`, otherwise on average.

    Args:
        filters: the number of output channels.
        kernel_size: the side of the kernel, in pixels; at least `strides`, or outputs would have no input.
        strides: the factor by which both sides grow.
        weight_normalization, use_bias, gain, seed, **kwargs: as for `Convolution`.

    Raises:
        UserError: as for `Convolution`, and for a kernel smaller than the stride.

    References:
        Salimans and Kingma, "Weight normalization", 2016; Radford et al., DCGAN, 2016.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 4,
        strides: int = 2,
        weight_normalization: bool = True,
        use_bias: bool = True,
        gain: float | Sequence[float] = 1.0,
        seed: int | None = 0,
        **kwargs: Any,
    ):
        super().__init__(filters, kernel_size, strides, weight_normalization, use_bias, gain, seed, **kwargs)
        if kernel_size < strides:
            raise UserError(
                f"kernel_size of a transposed convolution: expected at least strides={strides}, got {kernel_size}; "
                "a smaller kernel leaves outputs without an input"
            )

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Convolves `inputs` `[N, H, W, channels]` into `[N, strides H, strides W, filters]`."""
        return super().call(inputs)

    def compute_output_shape(self, inputs_shape: MapShape) -> MapShape:
        """`(N, H, W, channels)` to the shape of the outputs; unknown sizes stay unknown."""
        batch, *sides, _ = inputs_shape
        height, width = (None if side is None else side * self.strides for side in sides)
        return batch, height, width, self.filters

    def _unit_gain_norm(self):
        return self.strides * super()._unit_gain_norm()

    def _convolve(self, inputs, kernel):
        dynamic = tf.shape(inputs)
        batch, height, width = (dynamic[axis] if size is None else size for axis, size in enumerate(inputs.shape[:3]))
        outputs_shape = tf.stack([batch, height * self.strides, width * self.strides, self.filters])
        # TensorFlow's layout is that of the convolution whose gradient this is: outputs before inputs.
        kernel = tf.transpose(kernel, [0, 1, 3, 2])
        return tf.nn.conv2d_transpose(inputs, kernel, outputs_shape, self.strides, "SAME")


def _constant(values: np.ndarray) -> Callable[..., tf.Tensor]:
    return lambda shape, dtype: tf.reshape(tf.cast(values, dtype), shape)
