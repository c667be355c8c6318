"""Free bits against NumPy: its value, its gradient, and two replicas that agree with one."""

import numpy as np
import pytest
import tensorflow as tf

from tfcq.losses.free_bits import free_bits

MINIMUM = 0.5
# Batch means 0.2, 0.5 (the floor itself), 1.0, 3.0 and -0.1: a KL by draws may be negative.
MEANS = np.float32([0.2, 0.5, 1.0, 3.0, -0.1])


def example(count=8):
    """float32 [count, 5], in eighths, so that means of a power of two of them are exact; the rows differ much."""
    spread = np.linspace(-2.0, 2.0, count + 1)[:-1, np.newaxis] * [1.0, 0.0, 2.0, 4.0, 1.0]
    spread = np.round(8.0 * (spread - spread.mean(axis=0))) / 8.0
    return (MEANS + spread - spread.mean(axis=0)).astype(np.float32)


@pytest.mark.parametrize("count", [1, 8])
@pytest.mark.parametrize("minimum", [0.1, MINIMUM, 2.0, 10.0])
def test_the_batch_pays_the_larger_of_floor_and_mean(minimum, count):
    kl = np.random.default_rng(0).normal(MEANS, 2.0, (count, 5)).astype(np.float32)
    charged = free_bits(kl, minimum)
    assert charged.shape == (count,) and charged.dtype == tf.float32
    expected = np.sum(np.maximum(minimum, np.mean(kl.astype(np.float64), axis=0)))
    np.testing.assert_allclose(np.mean(charged), expected, rtol=1e-5)


def test_example_by_example_a_channel_costs_its_own_kl_or_the_floor():
    kl = example()
    free = MEANS <= MINIMUM
    expected = np.sum(np.where(free, MINIMUM, kl), axis=1)
    np.testing.assert_allclose(free_bits(kl, MINIMUM), expected, rtol=1e-6)


def test_the_gradient_is_zero_below_the_floor_and_of_the_kl_above():
    kl = tf.constant(example())
    weights = tf.range(1.0, 9.0)  # whatever is done with the result, the gradient is that of the KL
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(kl)
        charged = tf.reduce_sum(weights * free_bits(kl, MINIMUM))
        plain = tf.reduce_sum(weights[:, tf.newaxis] * kl)
    gradient = tape.gradient(charged, kl)
    expected = tape.gradient(plain, kl).numpy() * (MEANS > MINIMUM)
    np.testing.assert_array_equal(gradient, expected)
    assert np.any(expected == 0.0) and np.any(expected != 0.0)


def test_a_floor_of_zero_is_the_plain_sum():
    kl = tf.constant(example())
    with tf.GradientTape() as tape:
        tape.watch(kl)
        charged = free_bits(kl, 0.0)
    np.testing.assert_allclose(charged, np.sum(kl, axis=1), rtol=1e-6)  # with the channel whose mean is negative
    np.testing.assert_array_equal(tape.gradient(charged, kl), np.ones(kl.shape))


def charge(kl):
    with tf.GradientTape() as tape:
        tape.watch(kl)
        charged = free_bits(kl, MINIMUM)
        loss = tf.reduce_sum(tf.square(charged))
    return charged, tape.gradient(loss, kl)


def test_two_replicas_are_charged_as_one(two_replicas):
    kl = tf.constant(example())
    halves = tf.split(kl, 2)
    # What a replica would decide alone is wrong, or the test proves nothing.
    alone = [set(np.flatnonzero(np.mean(half, axis=0) > MINIMUM)) for half in halves]
    assert alone[0] != alone[1]
    expected = charge(kl)
    given = two_replicas.experimental_distribute_values_from_function(
        lambda context: halves[context.replica_id_in_sync_group]
    )
    results = tf.function(lambda values: two_replicas.run(charge, (values,)))(given)
    for result, whole in zip(results, expected, strict=True):
        parts = two_replicas.experimental_local_results(result)
        np.testing.assert_allclose(tf.concat(parts, axis=0), whole, rtol=1e-6)
