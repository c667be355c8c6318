"""The auto-encoder of the GLF family: its layers and sizes (Xiao et al. 2019, Table 3), precision, gradients, seeds."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcq.networks import infogan
from tfcq.networks.convolutions import Convolution, TransposedConvolution


def kinds(network):
    names = {
        Convolution: "convolution",
        TransposedConvolution: "transposed",
        keras.layers.Dense: "dense",
        keras.layers.ReLU: "relu",
    }
    known = [(kind, name) for kind, name in names.items()]
    found = []
    for layer in network.layers:
        name = next((name for kind, name in known if type(layer) is kind), None)
        found.append("normalization" if "normalization" in layer.name else name)
    return [name for name in found if name]


def test_layers_are_those_of_the_paper():
    assert kinds(infogan.encoder((28, 28, 1), 20)) == [
        *("convolution", "relu", "convolution", "normalization", "relu", "dense", "normalization", "relu", "dense")
    ]
    assert kinds(infogan.decoder((28, 28, 1), 20)) == [
        *("dense", "normalization", "relu", "dense", "normalization", "relu"),
        *("transposed", "normalization", "relu", "transposed"),
    ]


@pytest.mark.parametrize(("shape", "latents"), [((28, 28, 1), 20), ((32, 32, 3), 64)])
def test_as_many_weights_as_counted_by_hand(shape, latents):
    """Kernels, biases where no normalisation follows, and four numbers a normalised channel."""
    side, channels = shape[0] // 4, shape[2]
    flat = 128 * side * side
    encoder = 16 * channels * 64 + 64 + 16 * 64 * 128 + 4 * 128 + flat * 1024 + 4 * 1024 + 1024 * latents + latents
    decoder = latents * 1024 + 4 * 1024 + 1024 * flat + 4 * flat + 16 * 128 * 64 + 4 * 64 + 16 * 64 * channels + channels
    assert infogan.encoder(shape, latents).count_params() == encoder
    assert infogan.decoder(shape, latents).count_params() == decoder


@pytest.mark.parametrize("shape", [(8, 8, 3), (28, 28, 1), (12, 8, 1)])
def test_shapes_and_range(shape):
    images = tf.random.stateless_uniform((3, *shape), (0, 1))
    latents = infogan.encoder(shape, 5, width=4, hidden_units=6)(images)
    assert latents.shape == (3, 5)
    rebuilt = infogan.decoder(shape, 5, width=4, hidden_units=6)(100.0 * latents).numpy()
    assert rebuilt.shape == (3, *shape) and 0.0 <= rebuilt.min() and rebuilt.max() <= 1.0


def test_outputs_and_weights_are_float32_in_mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        networks = infogan.encoder((8, 8, 1), 3, 4, 6), infogan.decoder((8, 8, 1), 3, 4, 6)
    finally:
        keras.config.set_dtype_policy(before)
    latents = networks[0](tf.ones((2, 8, 8, 1)))
    assert latents.dtype == tf.float32 and networks[1](latents).dtype == tf.float32
    assert {str(weight.dtype) for network in networks for weight in network.weights} == {"float32"}
    assert any(layer.compute_dtype == "bfloat16" for network in networks for layer in network.layers)


def test_every_weight_gets_a_gradient_and_training_moves_statistics():
    encoder, decoder = infogan.encoder((8, 8, 2), 3, 4, 6), infogan.decoder((8, 8, 2), 3, 4, 6)
    images = tf.random.stateless_uniform((6, 8, 8, 2), (0, 1))
    before = [value.numpy() for value in encoder.non_trainable_variables]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(images - decoder(encoder(images, training=True), training=True)))
    weights = [*encoder.trainable_variables, *decoder.trainable_variables]
    for weight, gradient in zip(weights, tape.gradient(loss, [one.value for one in weights]), strict=True):
        assert gradient is not None and np.any(gradient != 0.0), weight.path
    moved = [np.any(old != value.numpy()) for old, value in zip(before, encoder.non_trainable_variables, strict=True)]
    assert all(moved)


def test_seeds_decide_the_weights():
    first, again, other = (infogan.decoder((8, 8, 1), 3, 4, 6, seed=seed).weights for seed in (1, 1, 2))
    for one, same, another in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one, same)
        assert np.ptp(one) == 0.0 or np.any(one.numpy() != another.numpy())
