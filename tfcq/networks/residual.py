"""Pre-activated residual blocks, and the residual discriminator of Table 6 (Shmelkov et al. 2018, appendix A)."""

from typing import Any

import keras
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.networks.convolutional import halvings
from tfcq.networks.convolutions import Convolution, MapShape, spawn_seeds
from tfcq.networks.normalization import BatchNormalization

ACTIVATIONS = {"relu": tf.nn.relu, "elu": tf.nn.elu}
RESAMPLINGS = ("none", "down", "up")

# The usual gain of a convolution makes up for a ReLU before it, which halves the variance; the skip has no ReLU.
LINEAR_GAIN = 0.5**0.5


class ResidualBlock(keras.layers.Layer):
    """`skip(x) + residual_scale * residual(x)`; the residual is activation, 3x3 convolution, activation, 3x3 convolution.

    The skip is the identity if the width does not change, otherwise a 1x1 convolution. "down" averages 2x2 pixels, at the
    end of the residual and before the skip's convolution (pooling and a 1x1 convolution commute, and in this order they
    cost a quarter). "up" repeats each pixel 2x2 times, before the residual's first convolution and after the skip's.
    Unlike with a transposed convolution, every output has the same number of inputs, so there is no checkerboard pattern.

    Batch normalisation, if any, precedes each activation; the convolution between the two then has no bias.

    Latents may stand beside the state, as the last channels of the inputs. Then each has a skip of its own: that of the
    state is scaled by sqrt(1 - f) and that of the latents, always a 1x1 convolution, starts with the gain sqrt(f), where f
    is `joined_fraction`. So f is the fraction of the outputs' variance that is due to the latents at the start, before the
    residual, whatever the normalisation and the numbers of channels.

    Args:
        filters: the number of output channels.
        resampling: "none", "down" (half the side) or "up" (twice the side).
        activation: "relu" or "elu".
        weight_normalization: whether the convolutions are weight-normalised.
        batch_normalization: whether there is batch normalisation, synchronised over replicas, with momentum 0.9.
        residual_scale: factor of the residual: 1 in discriminators; 0.1 in ladders of many blocks, which then start near
            the identity (Kingma et al. 2016, in their code).
        joined: the number of channels of latents beside the state; 0: there are none.
        joined_fraction: their fraction of the variance, in (0, 1).
        seed: an integer that fixes the initial values; None: Keras draws a seed (see `keras.utils.set_random_seed`).
        **kwargs: Keras's (`name`, `dtype`, `trainable`).

    Raises:
        UserError: an unknown resampling or activation, or a number of filters that is not positive; when built, a side
            that "down" cannot halve.

    References:
        He et al., "Identity mappings in deep residual networks", 2016; Gulrajani et al., "Improved training of
        Wasserstein GANs", 2017 (the blocks with resampling).
    """

    def __init__(
        self,
        filters: int,
        resampling: str = "none",
        activation: str = "relu",
        weight_normalization: bool = False,
        batch_normalization: bool = False,
        residual_scale: float = 1.0,
        joined: int = 0,
        joined_fraction: float = 0.5,
        seed: int | None = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        for argument, value, known in (
            ("resampling", resampling, RESAMPLINGS),
            ("activation", activation, ACTIVATIONS),
        ):
            if value not in known:
                raise UserError(
                    f"{argument} of a residual block: expected one of {', '.join(known)}, received {value!r}"
                )
        self.filters = filters
        self.resampling = resampling
        self.activation = activation
        self.weight_normalization = weight_normalization
        self.batch_normalization = batch_normalization
        self.residual_scale = residual_scale
        self.joined = joined
        self.joined_fraction = joined_fraction if joined else 0.0
        seeds = spawn_seeds(seed, 4)
        self.first = self._convolution("first", 3, seeds[0], use_bias=not batch_normalization)
        self.second = self._convolution("second", 3, seeds[1])
        # Made in `build`, where the width of the inputs is known.
        self.skip: Convolution | None = None
        self.joined_skip: Convolution | None = None
        self._skip_seeds = seeds[2:]
        self.first_normalization: BatchNormalization | None = None
        self.second_normalization: BatchNormalization | None = None
        if batch_normalization:
            self.first_normalization = BatchNormalization(name="first_normalization", dtype=self.dtype_policy)
            self.second_normalization = BatchNormalization(name="second_normalization", dtype=self.dtype_policy)

    def build(self, inputs_shape: MapShape) -> None:
        """Makes the weights for `inputs_shape`, `(N, H, W, channels)`."""
        inner_shape = (*inputs_shape[:-1], self.filters)
        if self.resampling == "down" and any(side is not None and side % 2 for side in inputs_shape[1:3]):
            raise UserError(
                f"{self.name} halves images: expected even sides, received {inputs_shape[1]} x {inputs_shape[2]}; "
                "choose a latent_size that the image size is 2, 4, 8, ... times"
            )
        self.first.build(inputs_shape)
        self.second.build(inner_shape)
        state_channels = inputs_shape[-1] - self.joined
        if state_channels != self.filters:
            gain = LINEAR_GAIN * (1.0 - self.joined_fraction) ** 0.5
            self.skip = self._convolution("skip", 1, self._skip_seeds[0], gain=gain)
            self.skip.build((*inputs_shape[:-1], state_channels))
        if self.joined:
            gain = LINEAR_GAIN * self.joined_fraction**0.5
            self.joined_skip = self._convolution("joined_skip", 1, self._skip_seeds[1], gain=gain)
            self.joined_skip.build((*inputs_shape[:-1], self.joined))
        if self.first_normalization is not None:
            self.first_normalization.build(inputs_shape)
        if self.second_normalization is not None:
            self.second_normalization.build(inner_shape)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """`inputs` `[N, H, W, channels]` to `[N, H', W', filters]` in the compute dtype; H' is H, H / 2 or 2 H.

        Args:
            inputs: features before their activation; the last `joined` channels are latents.
            training: whether batch normalisation uses the statistics of this batch and updates the moving ones.
        """
        activate = ACTIVATIONS[self.activation]
        residual = inputs
        if self.first_normalization is not None:
            residual = self.first_normalization(residual, training=training)
        residual = activate(residual)
        if self.resampling == "up":
            residual = upsample(residual)
        residual = self.first(residual)
        if self.second_normalization is not None:
            residual = self.second_normalization(residual, training=training)
        residual = self.second(activate(residual))

        if self.resampling == "down":
            residual, inputs = downsample(residual), downsample(inputs)
        state_channels = inputs.shape[-1] - self.joined
        skip = inputs[..., :state_channels] if self.joined else inputs
        if self.skip is not None:
            skip = self.skip(skip)
        elif self.joined:
            skip *= (1.0 - self.joined_fraction) ** 0.5
        if self.joined_skip is not None:
            skip += self.joined_skip(inputs[..., state_channels:])
        if self.resampling == "up":
            skip = upsample(skip)
        return skip + self.residual_scale * residual

    def compute_output_shape(self, inputs_shape: MapShape) -> MapShape:
        """`(N, H, W, channels)` to the shape of the outputs; unknown sizes stay unknown."""
        batch, height, width, _ = inputs_shape
        if self.resampling == "down":
            height, width = (None if side is None else side // 2 for side in (height, width))
        elif self.resampling == "up":
            height, width = (None if side is None else side * 2 for side in (height, width))
        return batch, height, width, self.filters

    def _convolution(self, name, kernel_size, seed, **options):
        return Convolution(
            self.filters,
            kernel_size,
            weight_normalization=self.weight_normalization,
            seed=seed,
            name=name,
            dtype=self.dtype_policy,
            **options,
        )


def downsample(images: tf.Tensor) -> tf.Tensor:
    """Averages 2x2 pixels: `[N, H, W, C]` to `[N, H / 2, W / 2, C]`."""
    return tf.nn.avg_pool2d(images, 2, 2, "VALID")


def upsample(images: tf.Tensor) -> tf.Tensor:
    """Repeats each pixel 2x2 times: `[N, H, W, C]` to `[N, 2 H, 2 W, C]`."""
    return tf.repeat(tf.repeat(images, 2, axis=1), 2, axis=2)


def discriminator(
    image_shape: tuple[int, int, int],
    latent_size: int,
    width: int,
    blocks: int = 1,
    weight_normalization: bool = False,
    name: str = "discriminator",
) -> keras.Sequential:
    """The residual discriminator (Table 6): images float32 [N, H, W, C] in [-1, 1] to logits float32 [N], positive for real.

    The layers: 3x3 convolution to width / 2; residual block to width; blocks that halve the side and double the width
    until the side is `latent_size`; ReLU, mean over the pixels, one dense unit. For 32x32 images, latent_size=4 and
    width=32 these are the 16, 32, 64, 128, 256 channels of Table 6. Keras draws the seeds of the initial values (see
    `keras.utils.set_random_seed`).

    Args:
        image_shape: (H, W, C); H and W are latent_size times 1, 2, 4, ...
        latent_size: the side at which the halving stops, in pixels.
        width: number of channels of the first block.
        blocks: number of residual blocks at each resolution; those after the first change neither side nor width. All
            residuals are scaled by 1 / sqrt(blocks), so that the initial size of the outputs does not depend on it.
        weight_normalization: whether the convolutions are weight-normalised.
        name: the model's name.

    Returns:
        The network. Logits, and the mean before them, are float32 whatever the precision policy.

    Raises:
        UserError: fewer blocks than 1, or a side that cannot be halved.
    """
    if blocks < 1:
        raise UserError(f"blocks of a discriminator: expected at least 1 at each resolution, received {blocks}")
    options: dict[str, Any] = {"weight_normalization": weight_normalization, "seed": None}
    layers = [keras.Input(image_shape), Convolution(max(1, width // 2), name="first", **options)]
    for level in range(halvings(image_shape[0], latent_size) + 1):
        for block in range(blocks):
            layers.append(
                ResidualBlock(
                    width * 2**level,
                    resampling="down" if level and not block else "none",
                    residual_scale=blocks**-0.5,
                    name=f"block_{level}_{block}",
                    **options,
                )
            )
    layers += [
        keras.layers.ReLU(),
        keras.layers.GlobalAveragePooling2D(dtype="float32"),
        keras.layers.Dense(1, dtype="float32"),
        keras.layers.Reshape((), dtype="float32"),
    ]
    return keras.Sequential(layers, name=name)
