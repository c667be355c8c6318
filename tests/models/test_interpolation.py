"""Ways between points and between noise, against Shoemake's formula in NumPy and what it owes at its ends."""

import numpy as np

from tfcq.models.interpolation import NoisePath, between
from tfcq.randomness import RowNoise, row_seeds

RANDOM = np.random.RandomState(0)
FIRST, SECOND = RANDOM.standard_normal((2, 5, 2, 3)).astype(np.float32)
SHARE = np.linspace(0.0, 1.0, 5).astype(np.float32)


def test_straight():
    share = SHARE[:, None, None]
    expected = (1.0 - share) * FIRST + share * SECOND
    np.testing.assert_allclose(between(FIRST, SECOND, SHARE, np.zeros(5, bool)), expected, rtol=1e-5, atol=1e-6)


def test_spherical():
    points = between(FIRST, SECOND, SHARE, np.ones(5, bool)).numpy()
    for row in range(5):
        a, b = FIRST[row].ravel().astype(np.float64), SECOND[row].ravel().astype(np.float64)
        angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        expected = (np.sin((1.0 - SHARE[row]) * angle) * a + np.sin(SHARE[row] * angle) * b) / np.sin(angle)
        np.testing.assert_allclose(points[row].ravel(), expected, rtol=1e-4, atol=1e-5)


def test_on_a_sphere_the_length_stays_where_the_straight_way_cuts_through():
    first, second = (rows / np.linalg.norm(rows, axis=(1, 2), keepdims=True) for rows in (FIRST, SECOND))
    half = np.full(5, 0.5, np.float32)
    curved, straight = (between(first, second, half, np.full(5, kind)).numpy() for kind in (True, False))
    np.testing.assert_allclose(np.linalg.norm(curved, axis=(1, 2)), 1.0, rtol=1e-5)
    assert (np.linalg.norm(straight, axis=(1, 2)) < 0.99).all()


def test_rows_choose_for_themselves_and_directions_without_a_circle_are_joined_straight():
    kinds = np.array([True, False, True, False, True])
    mixed = between(FIRST, SECOND, SHARE, kinds).numpy()
    for kind in (True, False):
        alone = between(FIRST, SECOND, SHARE, np.full(5, kind)).numpy()
        np.testing.assert_array_equal(mixed[kinds == kind], alone[kinds == kind])
    share = np.full(1, 0.25, np.float32)
    for other in (FIRST[:1], -FIRST[:1], 0.0 * FIRST[:1], 3.0 * FIRST[:1]):
        found = between(FIRST[:1], other, share, np.ones(1, bool)).numpy()
        np.testing.assert_allclose(found, 0.75 * FIRST[:1] + 0.25 * other, rtol=1e-4, atol=1e-5)


def test_the_ends_are_the_points_to_the_bit():
    ends = np.float32([0, 1, 0, 1, 0])
    expected = np.where(ends[:, None, None] == 0, FIRST, SECOND)
    for kind in (True, False):
        np.testing.assert_array_equal(between(FIRST, SECOND, ends, np.full(5, kind)), expected)


def test_noise_goes_from_one_samples_to_the_others_and_choices_change_half_way():
    first, second = (RowNoise(row_seeds(5, seed=seed)) for seed in (1, 2))
    kinds = np.array([True, False, True, False, True])
    for path, one, other in (
        (NoisePath(first, second, SHARE, kinds), first, second),
        (NoisePath(first, second, SHARE, kinds).fold(3, 4), first.fold(3, 4), second.fold(3, 4)),
    ):
        for tag in (0, 7):
            expected = between(one.normal((3, 2), tag), other.normal((3, 2), tag), SHARE, kinds)
            np.testing.assert_array_equal(path.normal((3, 2), tag), expected)
            for shape in ((), (2, 3)):
                choices = one.uniform(shape, tag), other.uniform(shape, tag)
                expected = np.where(np.reshape(SHARE < 0.5, (5, *[1] * len(shape))), *choices)
                np.testing.assert_array_equal(path.uniform(shape, tag), expected)
    half = NoisePath(first, second, 0.5, False).normal((2,), 0)  # one number for all
    np.testing.assert_allclose(half, 0.5 * (first.normal((2,), 0) + second.normal((2,), 0)), rtol=1e-6)


def test_a_great_circle_keeps_noise_as_large_as_it_is():
    path = [NoisePath(*(RowNoise(row_seeds(200, seed=seed)) for seed in (1, 2)), 0.5, kind) for kind in (True, False)]
    curved, straight = (float(np.mean(np.square(noise.normal((64,), 0)))) for noise in path)
    assert abs(curved - 1.0) < 0.06 and abs(straight - 0.5) < 0.03  # five standard errors of 12,800 squares
