"""The convolutional discriminators, with LeakyReLU 0.2. Logits are float32 whatever the precision policy.

    standard   the standard CNN of Miyato et al. 2018, on which Shmelkov et al. 2018 build (Section 5, appendix A): before each
               halving a 3x3 convolution of the same width, and a last one. For 32x32 images, width 64 and 3 halvings:
               64 - 64/2 - 128 - 128/2 - 256 - 256/2 - 512.
    plain      the halvings alone

Each halving is a 4x4 convolution of stride 2. Channels start at `width` and double after each halving.
"""

import math

import keras

from tfcq.networks.convolutions import Convolution


def halvings(image_size: int, latent_size: int) -> int:
    """The number of halvings from `image_size` to `latent_size`."""
    return int(math.log2(image_size // latent_size))


def discriminator(
    image_shape: tuple[int, int, int],
    latent_size: int,
    width: int,
    weight_normalization: bool = False,
    name: str = "discriminator",
    network: str = "plain",
) -> keras.Sequential:
    """A network from images float32 [N, H, W, C] in [-1, 1] to logits float32 [N] (positive for real).

    Args:
        image_shape: (H, W, C); H and W are latent_size times 1, 2, 4, ...
        latent_size: the side at which the halving stops, in pixels.
        width: number of channels of the first convolution.
        weight_normalization: whether each convolution's kernel is split into direction and magnitude (Salimans and Kingma 2016).
        name: the model's name.
        network: "standard" or "plain"; see the module.
    """
    layers = [keras.Input(image_shape)]

    def add(filters, kernel_size, strides):
        layers.append(Convolution(filters, kernel_size, strides, weight_normalization, seed=None))
        layers.append(keras.layers.LeakyReLU(negative_slope=0.2))

    steps = halvings(image_shape[0], latent_size)
    for level in range(steps):
        if network == "standard":
            add(width * 2**level, 3, 1)
        add(width * 2**level, 4, 2)
    if network == "standard":
        add(width * 2**steps, 3, 1)
    layers += [keras.layers.Flatten(), keras.layers.Dense(1, dtype="float32")]
    layers += [keras.layers.Reshape((), dtype="float32")]
    return keras.Sequential(layers, name=name)
