"""The plain convolutional discriminator: for each halving a 4x4 convolution of stride 2 and LeakyReLU 0.2.

Channels start at `width` and double at each halving (Shmelkov et al. 2018, appendix A; the layout is that of the DCGAN-like
networks of Miyato et al. 2018, from which the paper's Section 5 starts). Logits are float32 whatever the precision policy.
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
) -> keras.Sequential:
    """A network from images float32 [N, H, W, C] in [-1, 1] to logits float32 [N] (positive for real).

    `weight_normalization` splits each convolution's kernel into direction and magnitude (Salimans and Kingma 2016).
    """
    layers = [keras.Input(image_shape)]
    for level in range(halvings(image_shape[0], latent_size)):
        layers.append(Convolution(width * 2**level, 4, 2, weight_normalization, seed=None))
        layers.append(keras.layers.LeakyReLU(negative_slope=0.2))
    layers += [keras.layers.Flatten(), keras.layers.Dense(1, dtype="float32")]
    layers += [keras.layers.Reshape((), dtype="float32")]
    return keras.Sequential(layers, name=name)
