"""IntroVAE's networks: a block by its definition, sizes at the paper's widths, recomputation."""

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
