"""Ways between points, against Shoemake's formula in NumPy and what it owes at its ends."""

import numpy as np

from tfcq.models.interpolation import between

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
