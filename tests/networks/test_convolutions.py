"""The weight-normalised convolution against its definition, its start, and its data-dependent initialisation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.networks.convolutions import Convolution


def batch(channels=3, size=6, dtype="float64"):
    return tf.constant(np.random.default_rng(0).normal(size=(size, 7, 8, channels)), dtype)


@pytest.mark.parametrize("weight_normalization", [True, False])
@pytest.mark.parametrize(("kernel_size", "strides"), [(3, 1), (1, 1), (5, 2)])
def test_it_is_keras_convolution_of_the_normalized_kernel(weight_normalization, kernel_size, strides):
    layer = Convolution(4, kernel_size, strides, weight_normalization, seed=1, dtype="float64")
    inputs = batch()
    layer.build(inputs.shape)
    generator = np.random.default_rng(2)
    for weight in layer.weights:
        weight.assign(generator.normal(size=weight.shape))
    if weight_normalization:
        direction = layer.direction.numpy()
        kernel = layer.magnitude.numpy() * direction / np.linalg.norm(direction.reshape(-1, 4), axis=0)
    else:
        kernel = layer.kernel.numpy()
    reference = keras.layers.Conv2D(4, kernel_size, strides, "same", dtype="float64")
    reference.build(inputs.shape)
    reference.set_weights([kernel, layer.bias.numpy()])
    outputs = layer(inputs)
    np.testing.assert_allclose(outputs, reference(inputs), rtol=1e-10, atol=1e-12)
    assert layer.compute_output_shape(inputs.shape) == tuple(outputs.shape)
    assert layer.compute_output_shape((None, 7, None, 3)) == (None, -(-7 // strides), None, 4)


def test_the_direction_has_no_length():
    layer = Convolution(4, dtype="float64")
    before = layer(batch())
    layer.direction.assign(17.0 * layer.direction.value)
    np.testing.assert_allclose(layer(batch()), before, rtol=1e-10)


@pytest.mark.parametrize("weight_normalization", [True, False])
def test_it_starts_by_keeping_the_variance_of_what_a_relu_feeds_it(weight_normalization):
    inputs = tf.nn.relu(tf.random.stateless_normal([4, 32, 32, 16], seed=[0, 1]))
    outputs = Convolution(64, weight_normalization=weight_normalization, gain=1.0)(inputs)[:, 1:-1, 1:-1]
    assert np.mean(np.square(outputs)) == pytest.approx(1.0, rel=0.15)


@pytest.mark.parametrize("weight_normalization", [True, False])
def test_the_gain_is_one_a_filter_and_zero_silences_it(weight_normalization):
    layer = Convolution(3, weight_normalization=weight_normalization, gain=[0.0, 1.0, 2.0])
    outputs = layer(batch(dtype="float32"))
    kernel = layer.effective_kernel().numpy()
    norms = np.linalg.norm(kernel.reshape(-1, 3), axis=0)
    np.testing.assert_array_equal(outputs[..., 0], 0.0)
    np.testing.assert_allclose(norms, [0.0, 2**0.5, 8**0.5], rtol=1e-5 if weight_normalization else 0.5)


def test_a_seed_fixes_the_start():
    kernels = []
    for seed in (0, 0, 1):
        layer = Convolution(4, seed=seed)
        layer.build((None, 4, 4, 3))
        kernels.append(layer.effective_kernel().numpy())
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert np.all(kernels[0] != kernels[2])


def test_initialize_normalizes_each_output_channel():
    layer = Convolution(4, dtype="float64")
    inputs = 3.0 * batch() + 2.0
    outputs = layer.initialize(inputs)
    np.testing.assert_allclose(np.mean(outputs, axis=(0, 1, 2)), 0, atol=1e-10)
    np.testing.assert_allclose(np.var(outputs, axis=(0, 1, 2)), 1, rtol=1e-10)
    np.testing.assert_allclose(layer(inputs), outputs, rtol=1e-12)


def test_initialize_survives_an_output_that_does_not_vary():
    layer = Convolution(2, 1, gain=[0.0, 1.0], dtype="float64")
    outputs = layer.initialize(batch())
    assert all(np.all(np.isfinite(weight.value)) for weight in layer.weights)
    np.testing.assert_allclose(np.var(outputs, axis=(0, 1, 2)), [0, 1], atol=1e-10)


def test_initialize_refuses_graphs_and_layers_without_what_it_sets():
    with pytest.raises(UserError, match="eagerly"):
        tf.function(Convolution(2).initialize, autograph=False)(batch(dtype="float32"))
    with pytest.raises(UserError, match="got False and True"):
        Convolution(2, weight_normalization=False).initialize(batch(dtype="float32"))


def test_a_half_precision_policy_normalizes_in_single_precision():
    layer = Convolution(4, dtype="mixed_bfloat16")
    outputs = layer(batch(dtype="float32"))
    assert outputs.dtype == tf.bfloat16
    assert all(weight.dtype == "float32" for weight in layer.weights)
    norms = np.linalg.norm(layer.effective_kernel().numpy().reshape(-1, 4), axis=0)
    np.testing.assert_allclose(norms, 2**0.5, rtol=1e-6)


@pytest.mark.parametrize("options", [{"filters": 0}, {"kernel_size": 0}, {"strides": -1}, {"gain": [1.0, 2.0]}])
def test_a_mistake_is_named(options):
    with pytest.raises(UserError):
        Convolution(**{"filters": 3, **options})
