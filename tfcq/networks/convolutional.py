"""Plain convolutional encoder, decoder and discriminator: a 4x4 convolution of stride 2 for each halving.

Channels double at each halving, from `width`; ELU in the first two, LeakyReLU 0.2 in the discriminator (paper 000,
appendix A; the layout is that of DCGAN-like networks of Miyato et al. 2018, which the paper's Section 5 starts from).
Outputs are float32 whatever the precision policy.
"""

import math

import keras


def halvings(image_size, latent_size):
    """How many times `image_size` is halved to reach `latent_size`, an int of at least 1."""
    return int(math.log2(image_size // latent_size))


def _normalization(name):
    if name == "batch":
        return [keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, synchronized=True)]
    return []


def encoder(image_shape, latent_size, latent_channels, latent_form, width, normalization="none", name="encoder"):
    """Network from features float32 [N, H, W, C] to posterior parameters float32 [N, *latents, 2 latent_channels].

    Args:
        image_shape: (H, W, C) of the features.
        latent_size: side of the coarsest layer.
        latent_channels: channels of the latents.
        latent_form: "map": latents [latent_size, latent_size, latent_channels]; "vector": [latent_channels].
        width: channels at the finest resolution.
        normalization: "none" or "batch".
    """
    count = halvings(image_shape[0], latent_size)
    layers = [keras.Input(image_shape)]
    for level in range(count):
        layers += [
            keras.layers.Conv2D(
                width * 2**level, 4, 2, "same", use_bias=normalization == "none", kernel_initializer="he_normal"
            ),
            *_normalization(normalization),
            keras.layers.ELU(),
        ]
    # A small head starts the posterior near the prior; the usual size starts with a KL of thousands of nats.
    head = {"kernel_initializer": keras.initializers.VarianceScaling(0.01), "dtype": "float32"}
    if latent_form == "vector":
        layers += [keras.layers.Flatten(), keras.layers.Dense(2 * latent_channels, **head)]
    else:
        layers += [keras.layers.Conv2D(2 * latent_channels, 3, 1, "same", **head)]
    return keras.Sequential(layers, name=name)


def decoder(image_shape, latent_size, latent_channels, latent_form, width, normalization="none", name="decoder"):
    """Network from latents float32 [N, *latents] to feature means float32 [N, H, W, C]; arguments as in `encoder`."""
    count = halvings(image_shape[0], latent_size)
    use_bias = normalization == "none"
    top = width * 2 ** (count - 1)
    if latent_form == "vector":
        layers = [
            keras.Input((latent_channels,)),
            keras.layers.Dense(latent_size**2 * top, use_bias=use_bias),
            *_normalization(normalization),
            keras.layers.ELU(),
            keras.layers.Reshape((latent_size, latent_size, top)),
        ]
    else:
        layers = [
            keras.Input((latent_size, latent_size, latent_channels)),
            keras.layers.Conv2D(top, 3, 1, "same", use_bias=use_bias),
            *_normalization(normalization),
            keras.layers.ELU(),
        ]
    for level in reversed(range(count - 1)):
        layers += [
            keras.layers.Conv2DTranspose(width * 2**level, 4, 2, "same", use_bias=use_bias),
            *_normalization(normalization),
            keras.layers.ELU(),
        ]
    layers += [keras.layers.Conv2DTranspose(image_shape[2], 4, 2, "same", dtype="float32")]
    return keras.Sequential(layers, name=name)


def discriminator(image_shape, latent_size, width, name="discriminator"):
    """Network from images float32 [N, H, W, C] in [-1, 1] to logits float32 [N] (real is positive)."""
    layers = [keras.Input(image_shape)]
    for level in range(halvings(image_shape[0], latent_size)):
        layers += [keras.layers.Conv2D(width * 2**level, 4, 2, "same"), keras.layers.LeakyReLU(negative_slope=0.2)]
    layers += [keras.layers.Flatten(), keras.layers.Dense(1, dtype="float32")]
    layers += [keras.layers.Reshape((), dtype="float32")]
    return keras.Sequential(layers, name=name)
