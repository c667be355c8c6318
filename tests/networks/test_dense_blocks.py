"""Densely connected networks: a block by its definition in NumPy, shapes, sizes at the paper's widths, first outputs."""

import numpy as np
import pytest
import tensorflow as tf
from numpy_layers import convolve_weight_normalized as convolve

from tfcq.networks import dense_blocks
from tfcq.networks.convolutions import data_dependent_initialization


def elu(values):
    return np.where(values > 0.0, values, np.expm1(np.minimum(values, 0.0)))


def images(*shape):
    return np.random.RandomState(0).standard_normal(shape).astype(np.float32)


def perturb(layer):
    random = np.random.RandomState(1)
    for variable in layer.trainable_variables:
        variable.assign(variable + 0.3 * random.standard_normal(variable.shape))


@pytest.mark.parametrize(("channels", "reduced"), [(9, 1), (18, 3)])
def test_a_block_is_its_definition(channels, reduced):
    block, given = dense_blocks.DenseBlock(3, 2), images(2, 4, 5, channels)
    block.build(given.shape)
    perturb(block)
    hidden = given.astype(np.float64)
    for step in range(2):
        added = convolve(convolve(hidden, getattr(block, f"wide_{step}")), getattr(block, f"added_{step}"))
        hidden = elu(np.concatenate([hidden, added], axis=-1))
    means = hidden.mean((1, 2), keepdims=True)
    gates = convolve(convolve(means, block.attention.reduced), block.attention.gates)
    np.testing.assert_allclose(block(given), hidden / (1.0 + np.exp(-gates)), rtol=1e-3, atol=1e-4)
    assert block.attention.reduced.filters == reduced and block(given).shape == block.compute_output_shape(given.shape)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: dense_blocks.network((4, 6, 3), 5, 2, 2, 3), (2, 4, 6, 5)),
        (lambda: dense_blocks.encoder((4, 8, 3), 5, 2, 2, 2), (2, 1, 2, 5)),
        (lambda: dense_blocks.decoder((4, 6, 3), 5, 2, 2, 2), (2, 16, 24, 5)),
        (lambda: dense_blocks.decoder((2, 2, 1), 5, 1, 1, 3), (2, 16, 16, 5)),
    ],
)
def test_shapes(make, shape):
    network = make()
    outputs = network(images(2, *network.input_shape[1:]))
    assert outputs.shape == shape and outputs.dtype == tf.float32
    names = [variable.path for variable in network.variables]
    assert len(set(names)) == len(names)


def test_half_precision_survives_a_large_mean():
    block = dense_blocks.DenseBlock(1, 1, dtype="mixed_float16")
    given = np.full((1, 64, 64, 16), 60.0, np.float16)
    block.build(given.shape)
    outputs = block(given)
    assert outputs.dtype == tf.float16 and np.isfinite(outputs).all()


def count(network):
    return sum(int(np.prod(variable.shape)) for variable in network.trainable_variables)


def dense(channels, growth, steps):
    """(channels out, weights) of a block, by hand: a kernel's entries, and a magnitude and a bias a filter."""
    total = 0
    for _ in range(steps):
        total += channels * 4 * growth + 9 * 4 * growth * growth + 2 * 5 * growth
        channels += growth
    reduced = channels // 8
    return channels, total + 2 * channels * reduced + 2 * (channels + reduced)


def test_sizes_at_the_papers_widths_are_those_counted_by_hand():
    total, channels, growth = 0, 3, 16
    for last in (False, False, True):
        channels, weights = dense(channels, growth, 8)
        total += weights
        if not last:
            total += 9 * channels * 2 * channels + 2 * 2 * channels
            channels, growth = 2 * channels, 2 * growth
    total += channels * 32 + 2 * 32
    assert count(dense_blocks.encoder((32, 32, 3), 32, 16, 8, 2)) == total
    total, channels, growth = 0, 16, 128
    for _ in range(2):
        channels, weights = dense(channels, growth, 6)
        total += weights + 9 * channels * (channels // 2) + 2 * (channels // 2)
        channels, growth = channels // 2, growth // 2
    total += 9 * channels * 100 + 2 * 100
    assert count(dense_blocks.decoder((8, 8, 16), 100, 128, 6, 2)) == total


def test_the_data_dependent_initialisation_reaches_every_convolution():
    network, given = dense_blocks.encoder((8, 8, 3), 4, 3, 2, 1), images(16, 8, 8, 3)
    with data_dependent_initialization() as layers:
        network(given)
    # Two blocks of two steps and an attention, one halving, the outputs.
    assert len(layers) == 2 * (2 * 2 + 2) + 2
    np.testing.assert_allclose(np.std(network(given), axis=(0, 1, 2)), dense_blocks.DEVIATION, rtol=1e-3)
