"""The auto-encoder of the GLF family: InfoGAN's generator as decoder, and an encoder that mirrors it (Xiao et al. 2019, Table 3).

    encoder   4x4 convolution of stride 2, width, ReLU; another, 2 width, BN, ReLU; fully connected 1024, BN, ReLU; outputs
    decoder   fully connected 1024, BN, ReLU; fully connected 2 width (S/4)^2, BN, ReLU; 4x4 transposed convolution of stride 2,
              width, BN, ReLU; another, C, sigmoid

with width = 64 in the paper. A layer before a batch normalisation has no bias. Outputs are float32 whatever the precision policy.
"""

import keras

from tfcq.networks.convolutions import Convolution, TransposedConvolution, spawn_seeds
from tfcq.networks.normalization import BatchNormalization


def encoder(
    image_shape: tuple[int, int, int],
    outputs: int,
    width: int = 64,
    hidden_units: int = 1024,
    seed: int | None = 0,
    name: str = "encoder",
) -> keras.Sequential:
    """A network from images float32 [N, H, W, C] in [0, 1] to float32 [N, outputs].

    Args:
        image_shape: (H, W, C); H and W are multiples of 4.
        outputs: number of latents, or of parameters of their distribution.
        width: channels of the first convolution.
        hidden_units: units of the fully connected layer.
        seed: an integer that fixes the initial values.
        name: the model's name.
    """
    seeds = spawn_seeds(seed, 4)
    layers = [
        keras.Input(image_shape),
        Convolution(width, 4, 2, weight_normalization=False, seed=seeds[0], name="convolution_0"),
        keras.layers.ReLU(),
        Convolution(2 * width, 4, 2, weight_normalization=False, use_bias=False, seed=seeds[1], name="convolution_1"),
        *_normalized_relu(0),
        keras.layers.Flatten(),
        _dense(hidden_units, seeds[2], "dense"),
        *_normalized_relu(1),
        keras.layers.Dense(
            outputs, kernel_initializer=keras.initializers.LecunNormal(seeds[3]), dtype="float32", name="outputs"
        ),
    ]
    return keras.Sequential(layers, name=name)


def decoder(
    image_shape: tuple[int, int, int],
    latent_dim: int,
    width: int = 64,
    hidden_units: int = 1024,
    seed: int | None = 0,
    name: str = "decoder",
) -> keras.Sequential:
    """A network from latents float32 [N, latent_dim] to images float32 [N, H, W, C] in (0, 1); arguments as of `encoder`."""
    height, width_of_images, channels = image_shape
    state = (height // 4, width_of_images // 4, 2 * width)
    seeds = spawn_seeds(seed, 4)
    layers = [
        keras.Input((latent_dim,)),
        _dense(hidden_units, seeds[0], "dense_0"),
        *_normalized_relu(0),
        _dense(state[0] * state[1] * state[2], seeds[1], "dense_1"),
        *_normalized_relu(1),
        keras.layers.Reshape(state),
        TransposedConvolution(width, 4, 2, weight_normalization=False, use_bias=False, seed=seeds[2], name="convolution_0"),
        *_normalized_relu(2),
        TransposedConvolution(
            channels, 4, 2, weight_normalization=False, seed=seeds[3], gain=0.5**0.5, name="convolution_1", dtype="float32"
        ),
        keras.layers.Activation("sigmoid", dtype="float32"),
    ]
    return keras.Sequential(layers, name=name)


def _normalized_relu(index):
    return [BatchNormalization(name=f"normalization_{index}"), keras.layers.ReLU()]


def _dense(units, seed, name):
    """A fully connected layer for use before a batch normalisation, so without a bias."""
    return keras.layers.Dense(units, use_bias=False, kernel_initializer=keras.initializers.HeNormal(seed), name=name)
