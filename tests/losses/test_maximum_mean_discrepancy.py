"""WAE's MMD against a double loop in NumPy, and what an unbiased statistic owes."""

import numpy as np
import pytest
import tensorflow as tf

from tfcq.losses.maximum_mean_discrepancy import SCALES, inverse_multiquadratic_mmd


def samples(count=9, dim=3, shift=0.0, seed=0, dtype=np.float32):
    random = np.random.RandomState(seed)
    return [random.standard_normal((count, dim)).astype(dtype) + dtype(offset) for offset in (0.0, shift)]


@pytest.mark.parametrize("sigma", [1.0, 1.7])
def test_the_formula_in_numpy(sigma):
    first, second = samples(shift=0.5, dtype=np.float64)  # a difference of sums: float32 leaves five digits of it
    count, dim = first.shape

    def kernel(one, other):
        constants = np.array(SCALES) * 2.0 * dim * sigma**2
        return np.sum(constants / (constants + np.sum((one - other) ** 2)))

    within = across = 0.0
    for i in range(count):
        for j in range(count):
            across += kernel(first[i], second[j]) / count**2
            if i != j:
                within += (kernel(first[i], first[j]) + kernel(second[i], second[j])) / (count * (count - 1))
    assert float(inverse_multiquadratic_mmd(first, second, sigma)) == pytest.approx(within - 2.0 * across, rel=1e-11)


def test_it_is_zero_on_the_average_for_one_distribution_and_not_for_two():
    same = [float(inverse_multiquadratic_mmd(*samples(40, seed=seed))) for seed in range(60)]
    other = [float(inverse_multiquadratic_mmd(*samples(40, shift=0.7, seed=seed))) for seed in range(20)]
    assert abs(np.mean(same)) < 3.0 * np.std(same) / np.sqrt(len(same)) and min(same) < 0.0
    assert np.mean(other) > 5.0 * np.std(same)


def test_its_gradient_draws_samples_together():
    first, second = (tf.constant(sample) for sample in samples(50, shift=1.0))
    with tf.GradientTape() as tape:
        tape.watch(first)
        loss = inverse_multiquadratic_mmd(first, second)
    gradient = tape.gradient(loss, first)
    assert np.isfinite(gradient).all() and float(inverse_multiquadratic_mmd(first - 5.0 * gradient, second)) < float(loss)
