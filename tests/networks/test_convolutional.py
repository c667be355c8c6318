"""The plain discriminator: how often it halves, its shapes and widths, precision, gradients, seeds, and its formula."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcq.networks import convolutional
from tfcq.networks.convolutions import Convolution

SIZES = [(8, 4), (32, 4), (64, 8)]
NORMALIZATION = pytest.mark.parametrize("weight_normalization", [False, True], ids=["plain", "weight_normalized"])


@pytest.fixture
def mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


def noise(*shape, seed=0):
    return tf.random.stateless_normal(shape, (seed, 1))


def make(size=8, channels=1, latent_size=4, width=2, weight_normalization=False, seed=1):
    keras.utils.set_random_seed(seed)
    return convolutional.discriminator((size, size, channels), latent_size, width, weight_normalization)


def convolutions(network):
    return [layer for layer in network.layers if isinstance(layer, Convolution)]


@pytest.mark.parametrize(("size", "latent_size", "count"), [(8, 4, 1), (32, 4, 3), (64, 8, 3), (64, 1, 6), (48, 6, 3)])
def test_halvings(size, latent_size, count):
    halvings = convolutional.halvings(size, latent_size)
    assert halvings == count and isinstance(halvings, int)


@NORMALIZATION
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "latent_size"), SIZES)
def test_channels_double_at_each_halving_down_to_one_logit(size, latent_size, channels, weight_normalization):
    network = make(size, channels, latent_size, weight_normalization=weight_normalization)
    layers = convolutions(network)
    assert [layer.filters for layer in layers] == {1: [2], 3: [2, 4, 8]}[len(layers)]
    assert size // 2 ** len(layers) == latent_size
    for layer in layers:
        assert (layer.kernel_size, layer.strides) == (4, 2)
        assert layer.weight_normalization == weight_normalization
    # One weight a value of the last state, and a bias: the state was halved as often as said.
    assert network.layers[-2].count_params() == latent_size**2 * layers[-1].filters + 1
    assert network(noise(5, size, size, channels)).shape == (5,)


def test_the_formula_in_numpy():
    """4x4 windows two pixels apart over a border of one zero; LeakyReLU 0.2; one sum over what is left."""
    network = make(4, 2, 2, width=3)
    images = noise(5, 4, 4, 2).numpy().astype(np.float64)
    kernel, bias, last_kernel, last_bias = (weight.numpy().astype(np.float64) for weight in network.weights)
    padded = np.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)])
    hidden = np.zeros((5, 2, 2, 3))
    for row in range(2):
        for column in range(2):
            window = padded[:, 2 * row : 2 * row + 4, 2 * column : 2 * column + 4]
            hidden[:, row, column] = np.einsum("nijc,ijck->nk", window, kernel) + bias
    assert np.any(hidden < 0.0)
    hidden = np.maximum(hidden, 0.2 * hidden)
    expected = hidden.reshape(5, -1) @ last_kernel[:, 0] + last_bias
    np.testing.assert_allclose(network(images), expected, rtol=1e-4, atol=1e-5)


@NORMALIZATION
def test_logits_and_weights_are_float32_in_mixed_precision(mixed_precision, weight_normalization):
    network = make(weight_normalization=weight_normalization)
    assert network(noise(2, 8, 8, 1)).dtype == tf.float32
    assert {str(weight.dtype) for weight in network.weights} == {"float32"}
    # The policy reaches the convolutions, or the test proves nothing.
    assert all(layer.compute_dtype == "bfloat16" for layer in convolutions(network))


@NORMALIZATION
def test_every_weight_gets_a_gradient(weight_normalization):
    network = make(16, 3, 4, weight_normalization=weight_normalization)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(network(noise(4, 16, 16, 3), training=True) * noise(4, seed=2))
    weights = network.trainable_variables
    assert len(weights) == 2 * (3 if weight_normalization else 2) + 2
    gradients = tape.gradient(loss, [weight.value for weight in weights])
    for weight, gradient in zip(weights, gradients, strict=True):
        assert gradient is not None and np.all(np.isfinite(gradient)), weight.path
        assert np.any(gradient != 0.0), weight.path


@NORMALIZATION
def test_two_seeds_give_two_networks_and_one_seed_one(weight_normalization):
    first, again, other = (make(weight_normalization=weight_normalization, seed=seed).weights for seed in (1, 1, 2))
    for one, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, same)
    drawn = [index for index, weight in enumerate(first) if np.ptp(weight) > 0]
    assert len(drawn) == 2  # the convolution's kernel or direction, and the last layer's kernel
    for index in drawn:
        assert np.all(first[index].numpy() != other[index].numpy())


def test_the_standard_discriminator_is_that_of_table_1():
    """Miyato et al. 2018: 64 - 64/2 - 128 - 128/2 - 256 - 256/2 - 512; their numbers of weights, counted by hand."""
    network = convolutional.discriminator((32, 32, 3), 4, 64, network="standard")
    layers = convolutions(network)
    sizes = [(layer.filters, layer.kernel_size, layer.strides) for layer in layers]
    assert sizes == [(64, 3, 1), (64, 4, 2), (128, 3, 1), (128, 4, 2), (256, 3, 1), (256, 4, 2), (512, 3, 1)]
    weights = [9 * 3 * 64, 16 * 64 * 64, 9 * 64 * 128, 16 * 128 * 128, 9 * 128 * 256, 16 * 256 * 256, 9 * 256 * 512]
    assert [layer.count_params() for layer in layers] == [
        count + size[0] for count, size in zip(weights, sizes, strict=True)
    ]
    assert network.count_params() == sum(weights) + 64 + 64 + 128 + 128 + 256 + 256 + 512 + 4 * 4 * 512 + 1 == 2_935_873
    assert network(noise(2, 32, 32, 3)).shape == (2,)
