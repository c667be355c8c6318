"""Autoregressive convolutions: each value of a map is a function of those before it, and of nothing else.

The order is raster order: rows from the top, pixels of a row from the left, and within a pixel by *degree*, an integer
that every channel has. Channels of one degree stand at the same place in the order.
"""

import math

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfcq.errors import UserError
from tfcq.networks.convolutions import Convolution, spawn_seeds

# The authors of IAF multiply what their network says by this, so that an untrained flow is near the identity.
OUTPUT_FACTOR = 0.1

# Of the log-scale, either way: exp of what an untrained network says of an outlier overflows otherwise.
LOG_SCALE_LIMIT = 3.0

# A convolution of gain 1 doubles the variance, for a rectifier's sake; what comes from no rectifier should keep it.
LINEAR_GAIN = math.sqrt(0.5)


class MaskedConvolution(Convolution):
    """A convolution that sees nothing later in raster order than the pixel it computes.

    Of the earlier pixels that its kernel covers it sees all channels. Of the pixel itself, output channel k of degree
    `d_k` sees input channel c of degree `d_c` where

        d_c <  d_k   if strict (type A of the PixelCNN papers), else
        d_c <= d_k             (type B).

    So layers that are not strict, ended by one strict layer of output degrees 0 ... C-1, make each output a function of
    the strictly earlier inputs. The mask is applied before weight normalisation: the norm, and with it the layer's
    `magnitude` and its data-dependent initialisation, is of what is seen. A filter that sees nothing has the kernel 0.

    Args:
        input_degrees: the degrees of the input channels, one integer a channel.
        output_degrees: the degrees of the output channels; as many as there are filters.
        kernel_size: the side of the kernel, in pixels; odd.
        strict: whether a channel is blind to its own degree in its own pixel.
        **kwargs: of `Convolution` (`weight_normalization`, `use_bias`, `gain`, `seed`), and Keras's (`name`, `dtype`,
            `trainable`). The stride is 1.

    Raises:
        UserError: for an even kernel; when built for another number of channels than there are input degrees.

    References:
        van den Oord, Kalchbrenner and Kavukcuoglu, "Pixel recurrent neural networks", 2016, section 3.4; Germain et
        al., "MADE: masked autoencoder for distribution estimation", 2015, section 4.
    """

    def __init__(self, input_degrees, output_degrees, kernel_size=3, strict=False, **kwargs):
        super().__init__(len(output_degrees), kernel_size, **kwargs)
        if kernel_size % 2 == 0 or self.strides != 1:
            raise UserError(
                "a masked convolution has a centre and keeps the map's size: expected odd kernel_size and strides 1, "
                f"got kernel_size={kernel_size} and strides={self.strides}"
            )
        self.input_degrees = tuple(int(degree) for degree in input_degrees)
        self.output_degrees = tuple(int(degree) for degree in output_degrees)
        self.strict = strict

    def build(self, inputs_shape):
        """Makes the weights for `inputs_shape`, `(N, H, W, channels)`, of which only the channels count."""
        if inputs_shape[-1] != len(self.input_degrees):
            raise UserError(
                f"{self.name} has a degree for each input channel: expected {len(self.input_degrees)} channels, "
                f"got {inputs_shape[-1]}; pass as many input_degrees as there are channels"
            )
        super().build(inputs_shape)

    def mask(self):
        """`[kernel_size, kernel_size, channels, filters]`, the variables' dtype: 1 where something is seen, else 0."""
        tap = np.arange(self.kernel_size**2).reshape([self.kernel_size, self.kernel_size, 1, 1])
        # Broadcast by TensorFlow: a graph then holds one small matrix a layer, not a constant of the kernel's size.
        before, here, in_pixel = (
            tf.constant(value, self.variable_dtype)
            for value in (tap < self._centre(), tap == self._centre(), self._seen_in_pixel())
        )
        return before + here * in_pixel

    def effective_kernel(self):
        """The kernel that is applied: `[kernel_size, kernel_size, channels, filters]`, in the variables' dtype."""
        kernel = super().effective_kernel()
        return kernel if self.weight_normalization else self.mask() * kernel

    def _unit_kernel(self):
        # l2_normalize bounds the norm from below: a filter that sees nothing stays zero, with a gradient of zero.
        return tf.math.l2_normalize(self.mask() * self.direction.value, axis=[0, 1, 2])

    def _unit_gain_norm(self):
        norm = super()._unit_gain_norm()
        if self.weight_normalization:
            return norm
        # A kernel is drawn for the whole receptive field: what the mask will take, the rest makes up for.
        channels = len(self.input_degrees)
        seen = self._centre() * channels + np.sum(self._seen_in_pixel(), axis=0)
        return norm * np.sqrt(self.kernel_size**2 * channels / np.maximum(seen, 1))

    def _centre(self):
        """The number of the kernel's tap on the pixel itself, taps counted in raster order."""
        return self.kernel_size**2 // 2

    def _seen_in_pixel(self):
        """`[channels, filters]`, bool: which channels of its own pixel each filter sees."""
        seen, seeing = np.asarray(self.input_degrees)[:, np.newaxis], np.asarray(self.output_degrees)
        return seen < seeing if self.strict else seen <= seeing


class AutoregressiveNetwork(keras.layers.Layer):
    """Says from the values before each latent, and from a context, how that latent is shifted and scaled.

    Masked convolution, plus the context's share, ELU; `layers` - 1 times (masked convolution, ELU); a strict masked
    convolution with two channels a latent channel, times 0.1. A context of `width` channels is added as it is, any
    other goes through a 1x1 convolution.

    It differs from the authors' in the degrees inside, -1 ... C-2 where theirs are 0 ... C-1: degree C-1 would tell its
    own pixel nothing, while -1, which sees earlier pixels and the context, lets the context of a pixel reach its first
    channel too.

    Args:
        width: the number of channels inside.
        layers: the number of hidden masked convolutions, 1 or more.
        kernel_size: the side of the masked kernels, in pixels; odd. For vectors, maps of 1x1, 1 spares idle weights.
        seed: an integer that fixes the initial values.
        **kwargs: Keras's (`name`, `dtype`, `trainable`).

    Raises:
        UserError: for sizes that are not positive; for an even kernel, when built.

    References:
        Kingma et al., "Improving variational autoencoders with inverse autoregressive flow", 2016, section 4.
    """

    def __init__(self, width=32, layers=1, kernel_size=3, seed=0, **kwargs):
        super().__init__(**kwargs)
        if width < 1 or layers < 1:
            raise UserError(
                f"an autoregressive network needs width >= 1 and layers >= 1, got width={width} and layers={layers}"
            )
        self.width = width
        self.num_layers = layers
        self.kernel_size = kernel_size
        self.seed = seed
        self.context_channels = None
        self.context_convolution = None

    def build(self, latents_shape, context_shape=None):
        """Makes all weights for latents `(N, H, W, C)` and a context `(N, H, W, K)`, or None for no context."""
        *outer, channels = latents_shape
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
                self.context_convolution.build(tuple(context_shape))
        self.inner = [
            convolution(f"inner_{index}", inner_degrees, inner_degrees, seeds[2 + index])
            for index in range(self.num_layers - 1)
        ]
        # tf.train.Checkpoint follows attributes; what stands only in a list on a Keras layer it leaves out in silence.
        for layer in self.inner:
            setattr(self, layer.name, layer)
        self.last = convolution("last", inner_degrees, [*degrees, *degrees], seeds[-1], strict=True)

    def call(self, latents, context=None):
        """What moves each latent.

        Args:
            latents: `[N, H, W, C]`.
            context: `[N, H, W, K]`, or None if the network was built without one.

        Returns:
            `shift` and `log_scale` in [-3, 3], both `[N, H, W, C]`, float32 whatever the policy (float64 for a float64 policy);
            entry (row, column, channel) of both depends on strictly earlier entries of `latents`.

        Raises:
            UserError: for a context that is missing, too much, or of another shape.
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
        # The gradient goes through the limits: one example that leaves them would otherwise stay outside for good.
        return shift, tfp.math.clip_by_value_preserve_gradient(log_scale, -LOG_SCALE_LIMIT, LOG_SCALE_LIMIT)

    def check_context(self, latents, context):
        """Raises a UserError unless `context` is what the network was built for and fits `latents`."""
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

    def compute_output_shape(self, latents_shape, context_shape=None):
        """The shapes of the shift and of the log-scale."""
        return (tuple(latents_shape),) * 2


def _channels(number):
    return "no context" if number is None else f"a context of {number} channels"
