"""The fused batch normalisation against Keras's own layer and NumPy, gradients and moving statistics included."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny

from tfcq.networks.normalization import BatchNormalization, frozen_statistics, statistics_of

MAPS = np.random.default_rng(0).normal(3.0, 2.0, (6, 5, 4, 3)).astype(np.float32)


def pair(shape=MAPS.shape, **options):
    """Ours and Keras's of the same weights, moved away from their first values."""
    layers = [
        BatchNormalization(1e-4, **options),
        keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-4, synchronized=True, **options),
    ]
    for layer in layers:
        layer.build(shape)
        tiny.perturb([layer.gamma, layer.beta, layer.moving_mean], 0.5)
        layer.moving_variance.assign([0.5, 2.0, 4.0])
    return layers


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("eager", [False, True])
def test_values_gradients_and_statistics_are_those_of_keras(training, eager):
    found = []
    for layer in pair():
        inputs = tf.constant(MAPS)

        def both_ways(inputs, layer=layer):
            weights = [layer.gamma.value, layer.beta.value]
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                outputs = layer(inputs, training=training)
                loss = tf.reduce_sum(tf.sin(outputs))
            return outputs, *tape.gradient(loss, [inputs, *weights])

        results = both_ways(inputs) if eager else tf.function(both_ways)(inputs)
        found.append([value.numpy() for value in results] + tiny.values([layer.moving_mean, layer.moving_variance]))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    moved = np.abs(found[0][-2] - pair()[0].moving_mean.numpy()).max()
    assert moved > 0.05 if training else moved == 0.0


def test_training_is_the_formula_in_float64():
    layer, _ = pair()
    gamma, beta, mean, variance = (
        value.astype(np.float64) for value in tiny.values([layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance])
    )
    values = MAPS.astype(np.float64)
    batch_mean, batch_variance = values.mean((0, 1, 2)), values.var((0, 1, 2))
    expected = (values - batch_mean) / np.sqrt(batch_variance + 1e-4) * gamma + beta
    np.testing.assert_allclose(layer(tf.constant(MAPS), training=True), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.moving_mean, 0.9 * mean + 0.1 * batch_mean, rtol=1e-5)
    # The biased variance, as Keras keeps it: of 120 values, the unbiased one would be 1 % larger.
    np.testing.assert_allclose(layer.moving_variance, 0.9 * variance + 0.1 * batch_variance, rtol=1e-5)


@pytest.mark.parametrize("case", ["vectors", "half"])
def test_what_the_kernel_does_not_take_goes_keras_way(case):
    options = {"dtype": "mixed_bfloat16"} if case == "half" else {}
    inputs = MAPS[:, 0, 0] if case == "vectors" else MAPS
    ours, theirs = (layer(tf.constant(inputs), training=True) for layer in pair(inputs.shape, **options))
    np.testing.assert_array_equal(ours, theirs)
    assert ours.dtype == ("bfloat16" if case == "half" else "float32")


def test_a_stateless_scope_keeps_the_statistics_as_they_are():
    layer, _ = pair()
    before = tiny.values(layer.variables)
    with keras.StatelessScope():
        layer(tf.constant(MAPS), training=True)
    assert not tiny.changed(before, layer.variables)


def test_two_replicas_normalise_by_the_statistics_of_both(two_replicas):
    alone, _ = pair()
    expected = alone(tf.constant(MAPS), training=True).numpy()
    with two_replicas.scope():
        both, _ = pair()
    halves = two_replicas.experimental_distribute_values_from_function(
        lambda context: tf.constant(np.split(MAPS, 2)[context.replica_id_in_sync_group])
    )
    outputs = tf.function(lambda: two_replicas.run(lambda values: both(values, training=True), args=(halves,)))()
    received = np.concatenate([value.numpy() for value in two_replicas.experimental_local_results(outputs)])
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)
    for name in ("moving_mean", "moving_variance"):
        for value in two_replicas.experimental_local_results(getattr(both, name).value):
            np.testing.assert_allclose(value, getattr(alone, name), rtol=1e-5)


def test_the_gradient_has_a_gradient():
    """As a gradient penalty needs it: of the squared slope, against a difference quotient."""
    layer, _ = pair()
    inputs = tf.constant(MAPS)

    def penalty(inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tf.reduce_sum(tf.sin(layer(inputs, training=False)))
        return tf.reduce_sum(tf.square(tape.gradient(loss, inputs)))

    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = penalty(inputs)
    slope = tape.gradient(value, inputs).numpy().astype(np.float64)
    direction = np.random.default_rng(1).normal(size=MAPS.shape).astype(np.float32)
    ends = [float(penalty(inputs + side * 1e-2 * direction)) for side in (1.0, -1.0)]
    assert (slope * direction).sum() == pytest.approx((ends[0] - ends[1]) / 2e-2, rel=0.02)


@pytest.mark.parametrize("inputs", [MAPS, MAPS[:, 0, 0]], ids=["maps", "vectors"])
def test_statistics_move_where_they_are_owned_and_by_parts(inputs):
    layer, other = pair(inputs.shape)[0], pair(inputs.shape)[0]
    old, mean = layer.moving_mean.numpy(), inputs.mean(axis=tuple(range(inputs.ndim - 1)))
    with statistics_of([layer.gamma], 0.25):
        for _ in range(4):
            layer(tf.constant(inputs), training=True)
        other(tf.constant(inputs), training=True)
        with frozen_statistics():
            layer(tf.constant(inputs), training=True)
    np.testing.assert_allclose(layer.moving_mean, 0.9 * old + 0.1 * mean, rtol=1e-5)
    np.testing.assert_array_equal(other.moving_mean, old)
    other(tf.constant(inputs), training=True)
    np.testing.assert_allclose(other.moving_mean, 0.9 * old + 0.1 * mean, rtol=1e-5)
