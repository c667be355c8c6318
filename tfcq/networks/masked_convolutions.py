"""Autoregressive convolutions: each value of a map depends only on the values before it.

The order is raster order: rows from the top, pixels of a row from the left, and within a pixel by *degree*, an integer
that every channel has. Channels of equal degree have the same place in the order.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfcq.errors import UserError
from tfcq.networks.convolutions import Convolution, MapShape, spawn_seeds

# The authors of IAF multiply their network's outputs by this, so that an untrained flow is near the identity.
OUTPUT_FACTOR = 0.1

# Limit of the log-scale's absolute value: otherwise exp overflows for an outlier in an untrained network.
LOG_SCALE_LIMIT = 3.0

# A convolution of gain 1 doubles the variance, to make up for a rectifier; after no rectifier it should preserve it.
LINEAR_GAIN = math.sqrt(0.5)


class MaskedConvolution(Convolution):
    """A convolution whose outputs at a pixel do not depend on pixels later in raster order.

    It uses all channels of the earlier pixels that its kernel covers. Within the pixel itself, output channel k of degree
    `d_k` depends on input channel c of degree `d_c` if

        d_c <  d_k   if strict (type A of the PixelCNN papers), else
        d_c <= d_k             (type B).

    So after several non-strict layers and a final strict layer with output degrees 0 ... C-1, each output depends only on
    earlier inputs. The mask is applied before weight normalisation: the norm, and thus the layer's `magnitude` and its
    data-dependent initialisation, covers only the taps that are used. A filter without such taps has the kernel 0.

    Args:
        input_degrees: the degrees of the input channels, one integer per channel.
        output_degrees: the degrees of the output channels; their number is that of the filters.
        kernel_size: the side of the kernel, in pixels; odd.
        strict: whether, within its own pixel, a channel ignores channels of its own degree.
        **kwargs: arguments of `Convolution` (`weight_normalization`, `use_bias`, `gain`, `seed`), and Keras's (`name`, `dtype`,
            `trainable`). The stride is 1.

    Raises:
        UserError: an even kernel; when built, a number of channels other than that of the input degrees.

    References:
        van den Oord, Kalchbrenner and Kavukcuoglu, "Pixel recurrent neural networks", 2016, section 3.4; Germain et
        al., "MADE: masked autoencoder for distribution estimation", 2015, section 4.
    """

    def __init__(
        self,
        input_degrees: Iterable[int],
        output_degrees: Sequence[int],
        kernel_size: int = 3,
        strict: bool = False,
        **kwargs: Any,
    ):
        super().__init__(len(output_degrees), kernel_size, **kwargs)
        if kernel_size % 2 == 0 or self.strides != 1:
            raise UserError(
                "a masked convolution has a centre and keeps the map's size: expected odd kernel_size and strides 1, "
                f"got kernel_size={kernel_size} and strides={self.strides}"
            )
        self.input_degrees = tuple(int(degree) for degree in input_degrees)
        self.output_degrees = tuple(int(degree) for degree in output_degrees)
        self.strict = strict

    def build(self, inputs_shape: MapShape) -> None:
        """Makes the weights for `inputs_shape`, `(N, H, W, channels)`; only the channels are used."""
        if inputs_shape[-1] != len(self.input_degrees):
            raise UserError(
                f"{self.name} has a degree for each input channel: expected {len(self.input_degrees)} channels, "
                f"got {inputs_shape[-1]}; pass as many input_degrees as there are channels"
            )
        super().build(inputs_shape)

    def mask(self) -> tf.Tensor:
        """`[kernel_size, kernel_size, channels, filters]` in the variables' dtype: 1 for taps that are used, else 0."""
        tap = np.arange(self.kernel_size**2).reshape([self.kernel_size, self.kernel_size, 1, 1])
        # Broadcast by TensorFlow, so that a graph holds one small matrix per layer, not a constant of the kernel's size.
        before, here, in_pixel = (
            tf.constant(value, self.variable_dtype)
            for value in (tap < self._centre(), tap == self._centre(), self._seen_in_pixel())
        )
        return before + here * in_pixel

    def effective_kernel(self) -> tf.Tensor:
        """The kernel that is applied: `[kernel_size, kernel_size, channels, filters]`, in the variables' dtype."""
        kernel = super().effective_kernel()
        return kernel if self.weight_normalization else self.mask() * kernel

    def _directions(self):
        # The norm is bounded from below: a filter without taps stays zero, with a gradient of zero.
        return self.mask() * super()._directions()

    def _unit_gain_norm(self):
        norm = super()._unit_gain_norm()
        if self.weight_normalization:
            return norm
        # A kernel is drawn for the whole receptive field: the taps that are used make up for the masked ones.
        channels = len(self.input_degrees)
        seen = self._centre() * channels + np.sum(self._seen_in_pixel(), axis=0)
        return norm * np.sqrt(self.kernel_size**2 * channels / np.maximum(seen, 1))

    def _centre(self):
        """The number, in raster order, of the kernel's tap on the pixel itself."""
        return self.kernel_size**2 // 2

    def _seen_in_pixel(self):
        """`[channels, filters]`, bool: which channels of its own pixel each filter uses."""
        seen, seeing = np.asarray(self.input_degrees)[:, np.newaxis], np.asarray(self.output_degrees)
        return seen < seeing if self.strict else seen <= seeing


class AutoregressiveNetwork(keras.layers.Layer):
    """Computes the shift and the log-scale of each latent from the values before it and a context.

    The network: masked convolution, plus a term from the context, ELU; `layers` - 1 times (masked convolution, ELU); a
    strict masked convolution with two channels per latent channel, times 0.1. A context of `width` channels is added as
    it is, any other goes through a 1x1 convolution.

    It differs from the authors' network in the degrees of hidden channels, which are -1 ... C-2 instead of 0 ... C-1. A
    channel of degree C-1 would have no effect within its own pixel, while one of degree -1, which depends on earlier
    pixels and the context, lets the context of a pixel reach its first channel, too.

    Args:
        width: the number of hidden channels.
        layers: the number of hidden masked convolutions, 1 or more.
        kernel_size: the side of the masked kernels, in pixels; odd. For vectors (1x1 maps), 1 avoids unused weights.
        seed: an integer that fixes the initial values.
        gain: the gain of the last convolution: the relative size of the initial outputs.
        **kwargs: Keras's (`name`, `dtype`, `trainable`).

    Raises:
        UserError: sizes that are not positive; when built, an even kernel.

    References:
        Kingma et al., "Improving variational autoencoders with inverse autoregressive flow", 2016, section 4.
    """

    def __init__(
        self,
        width: int = 32,
        layers: int = 1,
        kernel_size: int = 3,
        seed: int | None = 0,
        gain: float = 1.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if width < 1 or layers < 1:
            raise UserError(
                f"an autoregressive network needs width >= 1 and layers >= 1, got width={width} and layers={layers}"
            )
        self.width = width
        self.num_layers = layers
        self.kernel_size = kernel_size
        self.seed = seed
        self.gain = gain
        self.context_channels: int | None = None
        self.context_convolution: Convolution | None = None

    def build(self, latents_shape: MapShape, context_shape: MapShape | None = None) -> None:
        """Makes all weights for latents `(N, H, W, C)` and a context `(N, H, W, K)`, or None for no context."""
        outer, channels = latents_shape[:-1], latents_shape[-1]
        degrees = range(channels)
        inner_degrees = [index * channels // self.width - 1 for index in range(self.width)]
        seeds = spawn_seeds(self.seed, self.num_layers + 2)

        def convolution(name, input_degrees, output_degrees, seed, **options):
            layer = MaskedConvolution(
                input_degrees,
                output_degrees,
                self.kernel_size,
                seed=seed,
                name=name,
                dtype=self.dtype_policy,
                **options,
            )
            layer.build((*outer, len(input_degrees)))
            return layer

        self.first = convolution("first", degrees, inner_degrees, seeds[0], gain=LINEAR_GAIN)
        if context_shape is not None:
            self.context_channels = context_shape[-1]
            if self.context_channels != self.width:
                self.context_convolution = Convolution(
                    self.width, 1, gain=LINEAR_GAIN, seed=seeds[1], name="context", dtype=self.dtype_policy
                )
                self.context_convolution.build(context_shape)
        self.inner = [
            convolution(f"inner_{index}", inner_degrees, inner_degrees, seeds[2 + index])
            for index in range(self.num_layers - 1)
        ]
        # tf.train.Checkpoint follows attributes; it silently leaves out layers that are only in a list on a Keras layer.
        for layer in self.inner:
            setattr(self, layer.name, layer)
        self.last = convolution("last", inner_degrees, [*degrees, *degrees], seeds[-1], strict=True, gain=self.gain)

    def call(self, latents: tf.Tensor, context: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """The shift and the log-scale of each latent.

        Args:
            latents: `[N, H, W, C]`.
            context: `[N, H, W, K]`, or None if the network was built without one.

        Returns:
            `shift` and `log_scale` in [-3, 3], both `[N, H, W, C]`, float32 whatever the policy (float64 for a float64 policy);
            entry (row, column, channel) of both depends only on earlier entries of `latents`.

        Raises:
            UserError: a context that is missing, unexpected or of another shape.
        """
        self.check_context(latents, context)
        hidden = self.first(latents)
        if context is not None:
            hidden += context if self.context_convolution is None else self.context_convolution(context)
        for layer in self.inner:
            hidden = layer(tf.nn.elu(hidden))
        outputs = self.last(tf.nn.elu(hidden))
        dtype = tf.float64 if self.variable_dtype == "float64" else tf.float32
        shift, log_scale = tf.split(OUTPUT_FACTOR * tf.cast(outputs, dtype), 2, axis=-1)
        # The gradient passes through the limits; otherwise an example outside of them would stay there for good.
        return shift, tfp.math.clip_by_value_preserve_gradient(log_scale, -LOG_SCALE_LIMIT, LOG_SCALE_LIMIT)

    def check_context(self, latents: tf.Tensor, context: tf.Tensor | None) -> None:
        """Raises a UserError unless `context` has the channels that the network was built for and matches `latents`."""
        channels = None if context is None else context.shape[-1]
        if channels != self.context_channels:
            raise UserError(
                f"{self.name} was built for {_channels(self.context_channels)}, got {_channels(channels)}: pass the "
                "same kind of context to every call"
            )
        if context is not None and not context.shape[:-1].is_compatible_with(latents.shape[:-1]):
            raise UserError(
                f"the context of {self.name} must have the latents' batch, height and width: expected "
                f"{latents.shape[:-1]}, got {context.shape[:-1]}; resize or repeat it"
            )

    def compute_output_shape(
        self, latents_shape: MapShape, context_shape: MapShape | None = None
    ) -> tuple[MapShape, MapShape]:
        """The shapes of the shift and of the log-scale."""
        return latents_shape, latents_shape


def _channels(number):
    return "no context" if number is None else f"a context of {number} channels"
