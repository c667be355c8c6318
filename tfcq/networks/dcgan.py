"""An auto-encoder for large images, of DCGAN's networks (Radford et al. 2016), as Xiao et al. (2019) have for CelebA-HQ.

    encoder   4x4 convolutions of stride 2 down to 4x4, leaky ReLU; BN after all but the first; fully connected, outputs
    decoder   fully connected to 4x4, BN, ReLU; 4x4 transposed convolutions of stride 2, BN, ReLU; the last: C channels, sigmoid

The map next to the images has `width` channels and each smaller one twice as many: 1024 at 4x4 for images of 256x256 and
width = 32, where DCGAN's generator starts. There are no fully connected layers but those between 4x4 maps and latents;
InfoGAN's would have 1.07e9 weights at 256x256.

That the auto-encoder is "based on DCGAN" is all that the paper says. The width, the kernels (those of the other networks) and the
sigmoid (DCGAN: tanh, for pixels in [-1, 1]) are ours; the leaky ReLU of slope 0.2 is of DCGAN's discriminator. A layer before
a batch normalisation has no bias. Outputs are float32 whatever the precision policy.
"""

from __future__ import annotations

import math

import keras

from tfcq.config.groups import DCGAN_SMALLEST
from tfcq.networks.convolutions import Convolution, TransposedConvolution, spawn_seeds
from tfcq.networks.normalization import BatchNormalization

_SLOPE = 0.2  # of the leaky ReLU below 0


def encoder(
    image_shape: tuple[int, int, int], outputs: int, width: int = 32, seed: int | None = 0, name: str = "encoder"
) -> keras.Sequential:
    """A network from images float32 [N, H, W, C] in [0, 1] to float32 [N, outputs].

    Args:
        image_shape: (H, W, C); H = W is 8, 16, 32, ...
        outputs: number of latents, or of parameters of their distribution.
        width: channels of the first convolution.
        seed: an integer that fixes the initial values.
        name: the model's name.
    """
    halvings = _halvings(image_shape)
    seeds = spawn_seeds(seed, halvings + 1)
    layers: list[keras.layers.Layer | keras.KerasTensor] = [keras.Input(image_shape)]
    for index in range(halvings):
        options = {"weight_normalization": False, "use_bias": not index, "seed": seeds[index], "name": f"convolution_{index}"}
        layers.append(Convolution(width * 2**index, 4, 2, **options))
        if index:
            layers.append(BatchNormalization(name=f"normalization_{index}"))
        layers.append(keras.layers.LeakyReLU(_SLOPE))
    initializer = keras.initializers.LecunNormal(seeds[-1])
    layers.append(keras.layers.Flatten())
    layers.append(keras.layers.Dense(outputs, kernel_initializer=initializer, dtype="float32", name="outputs"))
    return keras.Sequential(layers, name=name)


def decoder(
    image_shape: tuple[int, int, int], latent_dim: int, width: int = 32, seed: int | None = 0, name: str = "decoder"
) -> keras.Sequential:
    """A network from latents float32 [N, latent_dim] to images float32 [N, H, W, C] in (0, 1); arguments as of `encoder`."""
    halvings = _halvings(image_shape)
    seeds = spawn_seeds(seed, halvings + 1)
    state = (DCGAN_SMALLEST, DCGAN_SMALLEST, width * 2 ** (halvings - 1))
    initializer = keras.initializers.HeNormal(seeds[0])
    layers: list[keras.layers.Layer | keras.KerasTensor] = [
        keras.Input((latent_dim,)),
        keras.layers.Dense(math.prod(state), use_bias=False, kernel_initializer=initializer, name="dense"),
        keras.layers.Reshape(state),
    ]
    for index in range(halvings):
        last = index == halvings - 1
        options = {"weight_normalization": False, "use_bias": last, "seed": seeds[index + 1], "name": f"convolution_{index}"}
        layers += [BatchNormalization(name=f"normalization_{index}"), keras.layers.ReLU()]
        if last:
            options |= {"gain": 0.5**0.5, "dtype": "float32"}
        layers.append(TransposedConvolution(image_shape[2] if last else state[2] // 2 ** (index + 1), 4, 2, **options))
    layers.append(keras.layers.Activation("sigmoid", dtype="float32"))
    return keras.Sequential(layers, name=name)


def _halvings(image_shape):
    """How many times images are halved to reach the smallest maps."""
    return round(math.log2(image_shape[0] / DCGAN_SMALLEST))
