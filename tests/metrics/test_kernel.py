"""The kernel distance against its definition pair by pair, closed forms in expectation, and TF-GAN."""

import numpy as np
import pytest
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.metrics.kernel import kernel_distance
from tfcq.metrics.tf_gan import import_tensorflow_gan


def random_features(seed, count, dimension, shift=0.0):
    generator = np.random.default_rng(seed)
    return np.maximum(generator.normal(loc=shift, size=(count, dimension)), 0.0).astype(np.float32)


def distance_pair_by_pair(real, generated):
    """The U-statistic as Binkowski et al. write it: sums over pairs, self-pairs left out, in plain Python."""

    def kernel(first, second):
        return (float(np.dot(first.astype(np.float64), second.astype(np.float64))) / len(first) + 1.0) ** 3

    within = [
        sum(kernel(rows[i], rows[j]) for i in range(len(rows)) for j in range(len(rows)) if i != j)
        / (len(rows) * (len(rows) - 1))
        for rows in (real, generated)
    ]
    between = sum(kernel(first, second) for first in real for second in generated) / (len(real) * len(generated))
    return within[0] + within[1] - 2.0 * between


@pytest.mark.parametrize("num_real, num_generated, dimension", [(12, 12, 3), (20, 9, 16), (2, 2, 1)])
def test_one_block_is_the_definition(num_real, num_generated, dimension):
    real, generated = random_features(1, num_real, dimension), random_features(2, num_generated, dimension, 0.3)
    found = kernel_distance(real, generated, block_size=50)
    np.testing.assert_allclose(found["value"], distance_pair_by_pair(real, generated), rtol=1e-10, atol=1e-13)
    assert found["standard_error"] is None and found["num_blocks"] == 1
    assert found["block_size"] == max(num_real, num_generated)


def test_by_hand():
    """D = 1; x in {0, 1}: k(0, 1) = 1. y in {1, 2}: k = 27. Between: k(0, .) = 1, k(1, 1) = 8, k(1, 2) = 27."""
    found = kernel_distance(np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]]))
    assert found["value"] == pytest.approx(1.0 + 27.0 - 2.0 * (1.0 + 1.0 + 8.0 + 27.0) / 4.0, rel=1e-14)


@pytest.mark.parametrize("num_real, num_generated, block_size", [(60, 60, 20), (61, 47, 20), (100, 30, 30)])
def test_blocks_agree_with_tf_gan(num_real, num_generated, block_size):
    """TF-GAN takes blocks in the given order, and its longer blocks last; so it is handed our permutation, reversed."""
    real, generated = random_features(3, num_real, 24), random_features(4, num_generated, 24, 0.2)
    found = kernel_distance(real, generated, block_size, seed=5)
    generator = np.random.default_rng(5)
    real = real[generator.permutation(num_real)].astype(np.float64)
    generated = generated[generator.permutation(num_generated)].astype(np.float64)
    value, error = import_tensorflow_gan().eval.kernel_classifier_distance_and_std_from_activations(
        tf.constant(real[::-1]), tf.constant(generated[::-1]), block_size
    )
    np.testing.assert_allclose([found["value"], found["standard_error"]], [value, error], rtol=1e-10)
    assert found["num_blocks"] == -(-max(num_real, num_generated) // block_size)
    assert found["block_size"] <= block_size


def test_equal_distributions_are_at_zero_within_the_standard_error():
    """The mean of 60 independent values is within 4 of its standard errors of 0 and of the reported ones; a biased
    statistic (self-pairs left in) would be 20 away."""
    results = [
        kernel_distance(random_features(100 + seed, 200, 8), random_features(900 + seed, 200, 8), block_size=40)
        for seed in range(60)
    ]
    values = np.array([result["value"] for result in results])
    scatter = values.std(ddof=1)
    assert abs(values.mean()) < 4.0 * scatter / np.sqrt(len(values))
    assert values.min() < 0.0 < values.max()
    reported = np.sqrt(np.mean([result["standard_error"] ** 2 for result in results]))
    assert 0.75 < reported / scatter < 1.33  # an honest error: the root mean square of 60, each of 5 blocks


def test_expectation_in_closed_form():
    """D = 1, x ~ N(0, 1), y ~ N(1, 1): E (xx' + 1)^3 = sum_k C(3, k) (E x^k)^2 makes MMD^2 the sum of C(3, k) times the
    squared differences of the moments (0, 1, 0) and (1, 2, 4): 3 * 1 + 3 * 1 + 1 * 16 = 22."""
    generator = np.random.default_rng(6)
    real, generated = generator.normal(size=(40_000, 1)), generator.normal(loc=1.0, size=(40_000, 1))
    found = kernel_distance(real, generated, block_size=400)
    assert found["num_blocks"] == 100
    assert abs(found["value"] - 22.0) < 4.0 * found["standard_error"] < 2.0


def test_the_order_of_the_images_does_not_matter_but_the_seed_is_kept():
    """Sorted sets would give blocks of alike images, and too small a value within them; the shuffling undoes it."""
    real, generated = np.sort(random_features(7, 600, 4), axis=0), np.sort(random_features(8, 600, 4), axis=0)
    whole = kernel_distance(real, generated, block_size=600)["value"]
    found = kernel_distance(real, generated, block_size=100, seed=9)
    assert abs(found["value"] - whole) < 5.0 * found["standard_error"]
    assert found == kernel_distance(real, generated, block_size=100, seed=9)
    assert found["value"] != kernel_distance(real, generated, block_size=100, seed=10)["value"]


def test_float32_features_are_computed_in_float64():
    """Features with large means, where float32 kernels leave no correct digit of a small distance."""
    real, generated = random_features(10, 50, 32, 200.0), random_features(11, 50, 32, 200.01)
    found = kernel_distance(real, generated)["value"]
    np.testing.assert_allclose(found, distance_pair_by_pair(real, generated), rtol=1e-6)
    assert found == kernel_distance(real.astype(np.float64), generated.astype(np.float64))["value"]


@pytest.mark.parametrize(
    "real_shape, generated_shape, block_size, message",
    [
        ((10, 4), (10, 5), 10, r"\[10, 4\] and \[10, 5\]"),
        ((10,), (10, 5), 10, r"real features: .* \[10\]"),
        ((10, 5), (1, 5), 10, r"generated features: .* \[1, 5\]"),
        ((10, 5), (10, 5), 1, "at least 2 images, received 1"),
        ((100, 5), (15, 5), 10, r"each of 10 blocks, received \[100, 5\] and \[15, 5\]"),
    ],
)
def test_refuses(real_shape, generated_shape, block_size, message):
    with pytest.raises(UserError, match=message):
        kernel_distance(np.ones(real_shape, np.float32), np.ones(generated_shape, np.float32), block_size)


def test_refuses_numbers_that_are_not_finite():
    with pytest.raises(UserError, match="generated features: expected finite"):
        kernel_distance(np.ones((4, 2)), np.full((4, 2), np.nan))
