"""The weight-normalised convolutions: definitions, start, data-dependent initialisation."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from convolution_cases import batch

from tfcq.errors import UserError
from tfcq.networks import convolutional
from tfcq.networks.convolutions import (
    Convolution,
    TransposedConvolution,
    data_dependent_initialization,
    spawn_seeds,
)


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


# The data-dependent initialisation.


def test_initialize_aims_at_the_gain_whatever_the_magnitude_was():
    gains = np.array([0.0, 0.1, 1.0, 3.0])
    layer = Convolution(4, gain=gains, dtype="float64")
    inputs = 3.0 * batch() + 2.0
    layer.build(inputs.shape)
    layer.magnitude.assign([5.0, 1e-9, -2.0, 0.3])
    layer.bias.assign([1.0, 2.0, 3.0, 4.0])
    outputs = layer.initialize(inputs)
    np.testing.assert_allclose(np.mean(outputs, axis=(0, 1, 2)), 0, atol=1e-10)
    np.testing.assert_allclose(np.std(outputs, axis=(0, 1, 2)), gains, rtol=1e-10)
    np.testing.assert_array_equal(outputs[..., 0], 0.0)
    # Equation 5 by hand: g = gain / sigma[t], b = -mu[t] g with t of the direction alone.
    direction = layer.direction.numpy()
    unit = direction / np.linalg.norm(direction.reshape(-1, 4), axis=0)
    plain = tf.nn.conv2d(inputs, unit, 1, "SAME").numpy().reshape(-1, 4)
    np.testing.assert_allclose(layer.magnitude.value, gains / plain.std(0), rtol=1e-10)
    np.testing.assert_allclose(layer.bias.value, -gains * plain.mean(0) / plain.std(0), rtol=1e-10)


@pytest.mark.parametrize("make", [Convolution, TransposedConvolution])
def test_the_context_initializes_a_whole_network_in_order(make):
    gains = [1.0, 0.1, [0.5, 0.0]]
    layers = [make(2, 4, 2, gain=gain, seed=seed, dtype="float64") for seed, gain in enumerate(gains)]
    with data_dependent_initialization() as initialized:
        hidden = 5.0 + 3.0 * batch(size=16)
        for layer in layers:
            hidden = tf.nn.elu(layer(hidden))
    assert initialized == layers
    again = 5.0 + 3.0 * batch(size=16)
    for layer, gain in zip(layers, gains, strict=True):
        outputs = layer(again)
        np.testing.assert_allclose(np.mean(outputs, axis=(0, 1, 2)), 0, atol=1e-10)
        np.testing.assert_allclose(np.std(outputs, axis=(0, 1, 2)), np.broadcast_to(gain, 2), rtol=1e-8, atol=1e-12)
        again = tf.nn.elu(outputs)
    np.testing.assert_allclose(again, hidden, rtol=1e-10, atol=1e-14)


def weights_of(layer):
    return [weight.numpy() for weight in layer.weights]


def assert_unchanged(layer, before):
    for one, other in zip(weights_of(layer), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_layer_is_initialized_at_its_first_call_only():
    layer = Convolution(2, dtype="float64")
    with data_dependent_initialization():
        layer(batch())
        first = weights_of(layer)
        layer(10.0 * batch())
        with data_dependent_initialization() as inner:
            layer(10.0 * batch())
            assert inner == [layer]
        assert_unchanged(layer, first)
        other = Convolution(2, seed=1, dtype="float64")
        # Still within the outer context.
        np.testing.assert_allclose(np.std(other(10.0 * batch()), axis=(0, 1, 2)), 1, rtol=1e-8)
    before = layer.magnitude.numpy()
    with data_dependent_initialization():
        layer(10.0 * batch())
    np.testing.assert_allclose(layer.magnitude.value, before / 10, rtol=1e-10)


def test_outside_of_the_context_nothing_is_assigned_even_after_an_error():
    layer = Convolution(2, dtype="float64")
    layer(batch())
    before = weights_of(layer)
    with pytest.raises(ZeroDivisionError), data_dependent_initialization(), data_dependent_initialization():
        raise ZeroDivisionError
    layer(10.0 * batch())
    assert_unchanged(layer, before)


def test_another_thread_is_not_in_the_context():
    layer = Convolution(2, dtype="float64")
    layer(batch())
    before = weights_of(layer)
    with data_dependent_initialization() as initialized:
        thread = threading.Thread(target=layer, args=(10.0 * batch(),))
        thread.start()
        thread.join()
    assert initialized == []
    assert_unchanged(layer, before)


@pytest.mark.parametrize("options", [{"weight_normalization": False}, {"use_bias": False}])
def test_the_context_leaves_layers_without_magnitude_or_bias_alone(options):
    layer = Convolution(2, dtype="float64", **options)
    layer(batch())
    before = weights_of(layer)
    with data_dependent_initialization() as initialized:
        layer(10.0 * batch())
    assert initialized == []
    assert_unchanged(layer, before)


def test_the_context_refuses_graphs_and_infinite_inputs_and_assigns_nothing():
    layer = Convolution(2)
    layer(batch(dtype="float32"))
    before = weights_of(layer)
    with data_dependent_initialization() as initialized:
        with pytest.raises(UserError, match="eagerly"):
            tf.function(layer, autograph=False)(batch(dtype="float32"))
        with pytest.raises(UserError, match="expected finite inputs"):
            layer(batch(dtype="float32") * np.inf)
    assert initialized == []
    assert_unchanged(layer, before)


def test_half_precision_takes_its_statistics_in_single_precision():
    inputs = 300.0 + batch(dtype="float32")  # bfloat16 has steps of 2 there
    layers = [Convolution(3, dtype=dtype) for dtype in ("mixed_bfloat16", "float32")]
    rounded = tf.cast(tf.cast(inputs, tf.bfloat16), tf.float32)
    with data_dependent_initialization():
        outputs = [layer(rounded) for layer in layers]
    assert [one.dtype for one in outputs] == [tf.bfloat16, tf.float32]
    np.testing.assert_allclose(layers[0].magnitude.value, layers[1].magnitude.value, rtol=1e-6)
    np.testing.assert_allclose(layers[0].bias.value, layers[1].bias.value, rtol=1e-6)


def test_plain_discriminator_with_weight_normalization(tmp_path):
    network, other, plain = (
        convolutional.discriminator((16, 16, 3), 4, 4, weight_normalization=on) for on in (True, True, False)
    )
    # The same network but for a magnitude for each of its filters.
    assert network.count_params() == plain.count_params() + 4 + 8
    images = 0.5 * tf.random.stateless_normal([8, 16, 16, 3], seed=[0, 1])
    assert np.all(network(images).numpy() != other(images).numpy())
    with data_dependent_initialization() as initialized:
        logits = network(images)
    assert [layer.filters for layer in initialized] == [4, 8] and logits.shape == (8,) and logits.dtype == tf.float32
    np.testing.assert_allclose(np.std(network.layers[0](images), axis=(0, 1, 2)), 1.0, rtol=1e-4)
    path = tf.train.Checkpoint(model=network).save(str(tmp_path / "checkpoint"))
    tf.train.Checkpoint(model=other).restore(path).assert_consumed()
    np.testing.assert_array_equal(other(images), network(images))


def test_mirrored_layers_are_initialized_alike_on_every_replica(two_replicas):
    def network():
        return keras.Sequential(
            [keras.Input((8, 8, 3)), Convolution(4, 3, 2, seed=1), keras.layers.ELU(), TransposedConvolution(2, seed=2)]
        )

    inputs = 2.0 + 3.0 * tf.random.stateless_normal([6, 8, 8, 3], seed=[1, 2])
    alone = network()
    with two_replicas.scope():
        mirrored = network()
        with data_dependent_initialization() as initialized:
            outputs = mirrored(inputs)
    with data_dependent_initialization():
        expected = alone(inputs)
    assert len(initialized) == 2
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)
    for one, other in zip(mirrored.weights, alone.weights, strict=True):
        copies = two_replicas.experimental_local_results(one.value)
        assert len(copies) == 2
        for copy in copies:
            np.testing.assert_allclose(copy.numpy(), other.numpy(), rtol=1e-5, atol=1e-6)
    for result in two_replicas.experimental_local_results(two_replicas.run(mirrored, args=(inputs,))):
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_seeds_follow_from_one_and_none_draws_as_keras_does():
    assert spawn_seeds(3, 4) == spawn_seeds(3, 4) != spawn_seeds(4, 4)
    assert len(set(spawn_seeds(0, 100))) == 100 and all(type(seed) is int for seed in spawn_seeds(0, 2))
    assert spawn_seeds(None, 2) == [None, None]
    starts = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        layers = [Convolution(2, seed=None, dtype="float64") for _ in range(2)]
        starts.append([layer(batch()).numpy() for layer in layers])
    np.testing.assert_array_equal(starts[0], starts[1])
    assert np.all(starts[0][0] != starts[0][1]) and np.all(starts[0][0] != starts[2][0])
