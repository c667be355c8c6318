"""The auto-encoder of DCGAN's networks: its layers, its number of weights by hand, its gradients, the sizes that it takes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny

from tfcq.errors import UserError
from tfcq.networks import dcgan


def kinds(network):
    return [type(layer).__name__ for layer in network.layers]


def test_layers_of_32_pixels():
    """Batch normalisation everywhere but on the encoder's first and the decoder's last map, as in DCGAN."""
    block = ["Convolution", "BatchNormalization", "LeakyReLU"]
    assert kinds(dcgan.encoder((32, 32, 3), 5, 4)) == ["Convolution", "LeakyReLU", *block, *block, "Flatten", "Dense"]
    block = ["BatchNormalization", "ReLU", "TransposedConvolution"]
    assert kinds(dcgan.decoder((32, 32, 3), 5, 4)) == ["Dense", "Reshape", *3 * block, "Activation"]


@pytest.mark.parametrize(("side", "width", "latents"), [(64, 8, 20), (256, 32, 64)])
def test_as_many_weights_as_counted_by_hand(side, width, latents):
    """Kernels of 4x4 between maps that double n - 1 times, from width to width 2^(n - 1), with side = 4 2^n.

    sum_k (width 2^(k-1)) (width 2^k), k = 1 ... n - 1, is 2 width^2 (4^(n-1) - 1) / 3; a normalised channel has four numbers.
    """
    halvings = {64: 4, 256: 6}[side]
    largest = width * 2 ** (halvings - 1)
    inner = 16 * 2 * width**2 * (4 ** (halvings - 1) - 1) // 3
    flat, normalized = 16 * largest, 4 * (2 * largest - width)  # width + 2 width + ... + largest
    encoder = 16 * 3 * width + width + inner + (normalized - 4 * width) + flat * latents + latents
    decoder = latents * flat + normalized + inner + 16 * width * 3 + 3
    assert dcgan.encoder((side, side, 3), latents, width).count_params() == encoder
    assert dcgan.decoder((side, side, 3), latents, width).count_params() == decoder
    if side == 256:
        assert (largest, encoder + decoder) == (1024, 24_464_099)


def test_every_weight_gets_a_gradient_and_reconstructions_are_in_range():
    encoder, decoder = dcgan.encoder((16, 16, 2), 3, 4), dcgan.decoder((16, 16, 2), 3, 4)
    images = tf.random.stateless_uniform((6, 16, 16, 2), (0, 1))
    with tf.GradientTape() as tape:
        rebuilt = decoder(encoder(images, training=True), training=True)
        loss = tf.reduce_sum(tf.square(images - rebuilt))
    assert rebuilt.shape == images.shape and 0.0 < np.min(rebuilt) and np.max(rebuilt) < 1.0
    weights = [*encoder.trainable_variables, *decoder.trainable_variables]
    for weight, gradient in zip(weights, tape.gradient(loss, [one.value for one in weights]), strict=True):
        assert gradient is not None and np.any(gradient != 0.0), weight.path
    # Leaky: a negative value keeps a fifth.
    leaky = next(layer for layer in encoder.layers if isinstance(layer, keras.layers.LeakyReLU))
    np.testing.assert_allclose(leaky(tf.constant([[-1.0, 2.0]])), [[-0.2, 2.0]], rtol=1e-6)


def test_a_size_that_cannot_be_halved_to_4_is_refused():
    assert tiny.config(8, model="rae_gmm", autoencoder_network="dcgan").system.without_effect().keys() == {"hidden_units"}
    for size in (4, 28, 48):
        with pytest.raises(UserError, match=f"image_size={size} with autoencoder_network=dcgan: expected one of 8, 16, 32"):
            tiny.config(size, model="rae_gmm", autoencoder_network="dcgan")
