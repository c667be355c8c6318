"""IntroVAE's networks: a block by its definition, sizes at the paper's widths, recomputation."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy_layers import convolve

from tfcq.networks import introvae


def test_widths_are_the_papers():
    assert introvae.widths(256, 32) == [32, 64, 128, 256, 512, 512]
    assert introvae.widths(1024, 16) == [16, 32, 64, 128, 256, 512, 512, 512]


def normalize(values):
    return (values - values.mean((0, 1, 2))) / np.sqrt(values.var((0, 1, 2)) + 1e-5)


def leaky(values):
    return np.where(values > 0.0, values, 0.2 * values)


@pytest.mark.parametrize("channels", [3, 5])
def test_a_block_is_its_definition(channels):
    block = introvae.Block(5, seed=1)
    given = np.random.RandomState(0).standard_normal((4, 6, 6, channels)).astype(np.float32)
    block.build(given.shape)
    first, second = (layer.kernel.numpy().astype(np.float64) for layer in (block.first, block.second))
    hidden = convolve(leaky(normalize(convolve(given.astype(np.float64), first))), second)
    hidden += given if channels == 5 else convolve(given, block.skip.kernel.numpy())
    np.testing.assert_allclose(block(given, training=True), leaky(normalize(hidden)), rtol=1e-3, atol=1e-4)
    assert (block.skip is None) == (channels == 5) and block.first.bias is None


@pytest.mark.parametrize("channels, groups", [(32, 2), (8, 1), (24, 1), (48, 3)])
def test_a_block_with_groups_is_its_definition(channels, groups):
    """16 channels a group where that divides them; the statistics are an image's own, in training too."""
    block = introvae.Block(channels, "group", seed=1)
    given = np.random.RandomState(0).standard_normal((3, 6, 6, channels)).astype(np.float32)
    block.build(given.shape)

    def normalized(values):
        grouped = values.reshape(3, 6, 6, groups, channels // groups)
        centred = grouped - grouped.mean((1, 2, 4), keepdims=True)
        return (centred / np.sqrt(grouped.var((1, 2, 4), keepdims=True) + 1e-5)).reshape(values.shape)

    first, second = (layer.kernel.numpy().astype(np.float64) for layer in (block.first, block.second))
    hidden = convolve(leaky(normalized(convolve(given.astype(np.float64), first))), second) + given
    np.testing.assert_allclose(block(given, training=True), leaky(normalized(hidden)), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(block(given[1:2]), block(given, training=True)[1:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("size", [32, 64, 128, 256, 512, 1024])
def test_every_size_has_its_networks(size, recompute):
    """Shapes alone: what the flagfiles of 512 and 1024 train takes a GPU."""
    shape = (size, size, 3)
    encoder, generator = (
        introvae.encoder(shape, 6, 1, recompute=recompute),
        introvae.generator(shape, 3, 1, recompute=recompute),
    )
    assert encoder.output_shape == (None, 6) and generator.output_shape == (None, *shape)
    blocks = [layer for layer in generator.layers if "block" in layer.name]
    assert len(blocks) == np.log2(size // 4) + 1 and blocks[0].output.shape == (None, 4, 4, size // 8)


def test_outputs_and_weights_are_float32_in_mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        networks = [
            (introvae.encoder((8, 8, 1), 3, 4, recompute=recompute), introvae.generator((8, 8, 1), 3, 4, recompute=recompute))
            for recompute in (False, True)
        ]
    finally:
        keras.config.set_dtype_policy(before)
    for encoder, generator in networks:
        weights = [*encoder.trainable_variables, *generator.trainable_variables]
        with tf.GradientTape() as tape:
            latents = encoder(tf.random.stateless_uniform((4, 8, 8, 1), (0, 1)), training=True)
            images = generator(latents, training=True)
            loss = tf.reduce_sum(tf.square(images))
        assert latents.dtype == images.dtype == tf.float32
        assert all(np.all(np.isfinite(one)) for one in tape.gradient(loss, [weight.value for weight in weights]))
        assert {str(weight.dtype) for network in (encoder, generator) for weight in network.weights} == {"float32"}
        assert any(layer.compute_dtype == "bfloat16" for layer in generator.layers)


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (32, 3), (64, 1)])
def test_shapes_and_names(size, channels):
    shape = (size, size, channels)
    encoder, generator = introvae.encoder(shape, 6, 4), introvae.generator(shape, 3, 4)
    assert encoder(np.zeros((2, *shape), np.float32)).shape == (2, 6)
    images = generator(np.zeros((2, 3), np.float32))
    assert images.shape == (2, *shape) and images.dtype == tf.float32
    for network in (encoder, generator):
        names = [variable.path for variable in network.variables]
        assert len(set(names)) == len(names)


def test_recomputed_layers_give_the_same_and_move_their_statistics_once():
    given = np.random.RandomState(0).standard_normal((4, 8, 8, 3)).astype(np.float32)
    results = []
    for recompute in (False, True):
        network = introvae.encoder((8, 8, 3), 4, 4, recompute=recompute, seed=2)
        variables = [variable.value for variable in network.trainable_variables]

        @tf.function
        def both_ways(network=network, variables=variables):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.square(network(given, training=True)))
            return [loss, *tape.gradient(loss, variables)]

        results.append([*both_ways(), *network.non_trainable_variables])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)
