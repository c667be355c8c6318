"""Shapes, precision, depth and start of the plain encoder, decoder and discriminator."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcq.networks import convolutional

SIZES = [(8, 4), (32, 4), (64, 8)]
LATENTS = 3


@pytest.fixture
def mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


def noise(*shape, seed=0):
    return tf.random.stateless_normal(shape, (seed, 1))


def coder(make, size=8, channels=1, latent_size=4, form="map", normalization="none", width=2):
    keras.utils.set_random_seed(1)
    return make((size, size, channels), latent_size, LATENTS, form, width, normalization)


def latent_shape(form, latent_size=4, channels=LATENTS):
    return (latent_size, latent_size, channels) if form == "map" else (channels,)


def strided(network):
    kinds = (keras.layers.Conv2D, keras.layers.Conv2DTranspose)
    return [layer for layer in network.layers if isinstance(layer, kinds) and layer.strides == (2, 2)]


@pytest.mark.parametrize(("size", "latent_size", "count"), [(8, 4, 1), (32, 4, 3), (64, 8, 3), (64, 1, 6), (48, 6, 3)])
def test_halvings(size, latent_size, count):
    assert convolutional.halvings(size, latent_size) == count


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "latent_size"), SIZES)
@pytest.mark.parametrize("form", ["map", "vector"])
def test_shapes(form, size, latent_size, channels):
    images = noise(2, size, size, channels)
    encoder = coder(convolutional.encoder, size, channels, latent_size, form)
    parameters = encoder(images)
    assert parameters.shape == (2, *latent_shape(form, latent_size, 2 * LATENTS))
    decoder = coder(convolutional.decoder, size, channels, latent_size, form)
    assert decoder.input_shape == (None, *latent_shape(form, latent_size))
    assert decoder(noise(2, *latent_shape(form, latent_size))).shape == images.shape
    discriminator = convolutional.discriminator((size, size, channels), latent_size, 2)
    assert discriminator(images).shape == (2,)


@pytest.mark.parametrize(("size", "latent_size"), SIZES)
def test_channels_double_at_each_halving(size, latent_size):
    count = convolutional.halvings(size, latent_size)
    widths = [2 * 2**level for level in range(count)]
    encoder = coder(convolutional.encoder, size, 3, latent_size)
    assert [layer.filters for layer in strided(encoder)] == widths
    decoder = coder(convolutional.decoder, size, 3, latent_size)
    assert [layer.filters for layer in strided(decoder)] == [*reversed(widths[:-1]), 3]
    discriminator = convolutional.discriminator((size, size, 3), latent_size, 2)
    assert [layer.filters for layer in strided(discriminator)] == widths
    for network in (encoder, decoder, discriminator):
        assert all(layer.kernel_size == (4, 4) for layer in strided(network))


def networks(form="map", normalization="none"):
    return {
        "encoder": (coder(convolutional.encoder, form=form, normalization=normalization), (8, 8, 1)),
        "decoder": (coder(convolutional.decoder, form=form, normalization=normalization), latent_shape(form)),
        "discriminator": (convolutional.discriminator((8, 8, 1), 4, 2), (8, 8, 1)),
    }


@pytest.mark.parametrize("form", ["map", "vector"])
def test_outputs_and_weights_are_float32_in_mixed_precision(mixed_precision, form):
    for network, shape in networks(form).values():
        assert network(noise(2, *shape)).dtype == tf.float32
        assert {str(weight.dtype) for weight in network.weights} == {"float32"}
    # The policy reaches the convolutions, or the test proves nothing.
    assert strided(networks(form)["encoder"][0])[0].compute_dtype == "bfloat16"


@pytest.mark.parametrize("normalization", ["none", "batch"])
@pytest.mark.parametrize("form", ["map", "vector"])
def test_every_weight_gets_a_gradient(form, normalization):
    for network, shape in networks(form, normalization).values():
        with tf.GradientTape() as tape:
            outputs = network(noise(4, *shape), training=True)
            loss = tf.reduce_sum(outputs * noise(*outputs.shape, seed=2))
        weights = network.trainable_variables
        gradients = tape.gradient(loss, [weight.value for weight in weights])
        for weight, gradient in zip(weights, gradients, strict=True):
            assert gradient is not None and np.all(np.isfinite(gradient)), weight.path
            assert np.any(gradient != 0.0), weight.path


@pytest.mark.parametrize("form", ["map", "vector"])
def test_batch_normalization_replaces_the_biases(form):
    for name in ("encoder", "decoder"):
        plain, normalized = networks(form)[name][0], networks(form, "batch")[name][0]
        batch = [layer for layer in normalized.layers if isinstance(layer, keras.layers.BatchNormalization)]
        assert batch and all(layer.synchronized for layer in batch)
        assert not [layer for layer in plain.layers if isinstance(layer, keras.layers.BatchNormalization)]
        # Only the last layer keeps its bias.
        assert [layer.use_bias for layer in normalized.layers if hasattr(layer, "use_bias")].count(True) == 1
        assert normalized.layers[-1].use_bias and all(
            layer.use_bias for layer in plain.layers if hasattr(layer, "use_bias")
        )


@pytest.mark.parametrize("form", ["map", "vector"])
@pytest.mark.parametrize(("size", "latent_size"), [(8, 4), (32, 4)])
def test_the_posterior_starts_near_the_prior(form, size, latent_size):
    encoder = coder(convolutional.encoder, size, 3, latent_size, form, width=16)
    # Logit pixels of natural images have about this standard deviation.
    parameters = encoder(2.0 * noise(16, size, size, 3)).numpy()
    assert np.std(parameters) < 0.5
    loc, log_scale = np.split(parameters.astype(np.float64), 2, axis=-1)
    kl = 0.5 * (np.exp(2.0 * log_scale) + loc**2 - 1.0) - log_scale
    assert np.mean(kl) < 0.2  # nats a latent; a head of the usual size gives several
    assert np.std(parameters) > 1e-3  # and still depends on the image


def test_two_seeds_give_two_networks_and_one_seed_one():
    first, again = (coder(convolutional.encoder) for _ in range(2))
    for one, other in zip(first.weights, again.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    keras.utils.set_random_seed(2)
    other = convolutional.encoder((8, 8, 1), 4, LATENTS, "map", 2)
    assert np.any(first.weights[0].numpy() != other.weights[0].numpy())
