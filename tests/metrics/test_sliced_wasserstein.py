"""Sliced Wasserstein distance against SciPy's in one dimension, closed forms, explicit sums and TF-GAN's pyramid."""

import importlib
import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import scipy.stats
import skimage.data
import sklearn.datasets

from tfcq.errors import UserError
from tfcq.metrics import sliced_wasserstein as module
from tfcq.metrics import tf_gan


def noise(count, height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, channels)).astype(np.uint8)


def crops(count, side=32, seed=0):
    """uint8 [count, side, side, 3]: random crops of a photograph."""
    photograph = skimage.data.astronaut()
    random = np.random.default_rng(seed)
    top, left = (random.integers(0, size - side + 1, count) for size in photograph.shape[:2])
    return np.stack([photograph[y : y + side, x : x + side] for y, x in zip(top, left)])


def digits(count, offset=0):
    images = np.round(sklearn.datasets.load_digits().images * (255 / 16)).astype(np.uint8)[..., None]
    return images[offset : offset + count]


def sphere_mean(dimensions):
    """E |u_1| of a uniform direction u."""
    return math.exp(math.lgamma(dimensions / 2) - math.lgamma((dimensions + 1) / 2)) / math.sqrt(math.pi)


def test_one_dimension_agrees_with_scipy():
    random = np.random.default_rng(0)
    first, second = random.normal(size=(300, 1)).astype(np.float32), random.gamma(2.0, size=(300, 1)).astype(np.float32)
    expected = scipy.stats.wasserstein_distance(first[:, 0], second[:, 0])
    assert module.point_distance(first, second, random, 5) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("num_directions", [1, 16, 37])
def test_projections_agree_with_scipy(num_directions):
    random = np.random.default_rng(1)
    first, second = (random.normal(size=(200, 6)).astype(np.float32) * scale for scale in (1.0, 2.0))
    directions = np.random.default_rng(9).normal(size=(6, num_directions))
    directions /= np.linalg.norm(directions, axis=0)
    expected = np.mean([scipy.stats.wasserstein_distance(first @ u, second @ u) for u in directions.T])
    received = module.point_distance(first, second, np.random.default_rng(9), num_directions)
    assert received == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dimensions", [2, 49])
def test_a_shift_costs_its_mean_projection(dimensions):
    random = np.random.default_rng(2)
    points = random.normal(size=(50, dimensions)).astype(np.float32)
    shift = np.zeros(dimensions, np.float32)
    shift[0] = 3.0
    # Each direction costs |u . shift|, whatever the points are; 4,000 of them leave 1 % of noise.
    received = module.point_distance(points, points[::-1] + shift, random, 4000)
    assert received == pytest.approx(3.0 * sphere_mean(dimensions), rel=0.05)


def test_gaussians_of_two_widths_cost_their_difference():
    random = np.random.default_rng(3)
    points = random.normal(size=(20000, 4)).astype(np.float32)
    # W1 of N(0, 1) and N(0, s^2) is |s - 1| E|z|, in every direction.
    received = module.point_distance(points, -1.5 * points, random, 20)
    assert received == pytest.approx(0.5 * math.sqrt(2 / math.pi), rel=0.05)


@pytest.mark.parametrize("height, width", [(32, 32), (64, 32)])
def test_pyramid_agrees_with_tf_gan(height, width):
    tf_gan.import_tensorflow_gan()
    theirs = importlib.import_module("tensorflow_gan.python.eval.sliced_wasserstein")
    images = noise(3, height, width)
    levels = module.laplacian_pyramid(images, smallest_level=8)
    expected = theirs.laplacian_pyramid(images, num_levels=3)
    assert [level.shape for level in levels] == [tuple(level.shape) for level in expected]
    for level, reference in zip(levels, expected):
        assert level.dtype == np.float32
        np.testing.assert_allclose(level, reference, atol=1e-3)


def test_pyramid_of_odd_sides_agrees_with_explicit_sums_and_gives_the_image_back():
    image = noise(1, 29, 33, channels=1)[0, :, :, 0].astype(np.float64)
    kernel = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256

    def blurred(values):
        return scipy.signal.convolve2d(np.pad(values, 2, mode="reflect"), kernel, mode="valid")

    coarse = blurred(image)[::2, ::2]
    spread = np.zeros_like(image)
    spread[::2, ::2] = coarse
    fine = image - 4 * blurred(spread)
    levels = module.laplacian_pyramid(image[None, :, :, None], smallest_level=15)
    assert [level.shape for level in levels] == [(1, 29, 33, 1), (1, 15, 17, 1)]
    np.testing.assert_allclose(levels[0][0, :, :, 0], fine, atol=1e-4)
    np.testing.assert_allclose(levels[1][0, :, :, 0], coarse, atol=1e-4)


def test_flat_images_have_empty_bands():
    levels = module.laplacian_pyramid(np.full((2, 32, 32, 3), 77, np.uint8), smallest_level=8)
    assert len(levels) == 3
    for band in levels[:-1]:
        np.testing.assert_allclose(band, 0.0, atol=1e-4)
    np.testing.assert_allclose(levels[-1], 77.0, rtol=1e-6)


def test_patches_are_cut_where_told_and_standardised_by_channel():
    level = noise(3, 9, 10, channels=2).astype(np.float32)
    corners = np.array([[0, 11], [3, 4], [7, 7]])  # of 3 x 4 places
    patches = module.standardised_patches(level, corners)
    expected = []
    for image, pair in zip(level, corners):
        for corner in pair:
            top, left = divmod(corner, 4)
            expected.append(image[top : top + 7, left : left + 7].astype(np.float64).transpose(2, 0, 1))
    expected = np.stack(expected)
    mean, deviation = expected.mean(axis=(0, 2, 3), keepdims=True), expected.std(axis=(0, 2, 3), keepdims=True)
    np.testing.assert_allclose(patches, ((expected - mean) / deviation).reshape(6, 98), atol=1e-5)


def test_a_constant_channel_is_zero_not_noise():
    level = noise(4, 8, 8, channels=2).astype(np.float32)
    level[..., 1] = 1.0 + np.random.default_rng(0).normal(0, 1e-5, level.shape[:3])
    patches = module.standardised_patches(level, np.zeros((4, 3), int)).reshape(12, 2, 49)
    np.testing.assert_array_equal(patches[:, 1], 0.0)
    assert patches[:, 0].std() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(
    "shape, names",
    [
        ((8, 8, 1), ["level_8x8"]),
        ((28, 28, 1), ["level_28x28"]),
        ((32, 32, 3), ["level_32x32", "level_16x16"]),
        ((64, 40, 3), ["level_64x40", "level_32x20"]),
    ],
)
def test_levels_by_size_and_zero_for_equal_images(shape, names):
    images = noise(4, *shape)
    distances = module.sliced_wasserstein(images, images, num_directions=4)
    assert list(distances) == [*names, "mean"]
    assert set(distances.values()) == {0.0}


def test_the_mean_is_that_of_the_levels():
    distances = module.sliced_wasserstein(crops(20), noise(20, 32, 32), num_directions=16, smallest_level=8)
    levels = [value for name, value in distances.items() if name != "mean"]
    assert len(levels) == 3 and distances["mean"] == pytest.approx(np.mean(levels))
    assert all(type(value) is float for value in distances.values())


def test_two_samples_of_one_law_are_near_and_noise_is_far():
    real, other = crops(200, seed=1), crops(200, seed=2)
    floor = module.sliced_wasserstein(real, other)["mean"]
    assert 0 < floor < 0.05
    assert module.sliced_wasserstein(real, noise(200, 32, 32))["mean"] > 5 * floor


def test_a_fault_shows_at_its_own_level():
    real = crops(200)
    random = np.random.default_rng(5)
    fine = random.choice([-12, 12], real.shape)  # one pixel wide: gone at half the resolution
    coarse = scipy.ndimage.gaussian_filter(random.normal(0, 600, real.shape), (0, 4, 4, 0))  # about 50 grey levels
    grained, blotched = (np.clip(128 + (real - 128.0) / 3 + x, 0, 255).astype(np.uint8) for x in (fine, coarse))
    grained, blotched = (module.sliced_wasserstein(real, images) for images in (grained, blotched))
    assert grained["level_32x32"] > 4 * grained["level_16x16"]
    assert blotched["level_16x16"] > 4 * grained["level_16x16"] and blotched["level_32x32"] < grained["level_32x32"]


def test_black_rims_are_no_trouble():
    real, generated = digits(300), digits(300, offset=300).copy()
    real, generated = (np.pad(images, [(0, 0), (12, 12), (12, 12), (0, 0)]) for images in (real, generated))
    distances = module.sliced_wasserstein(real, generated)
    assert np.isfinite(list(distances.values())).all() and 0 < distances["mean"] < 0.1
    black = module.sliced_wasserstein(real, np.zeros_like(real))
    assert np.isfinite(black["mean"]) and black["mean"] > 5 * distances["mean"]


def test_an_affine_change_of_a_sample_is_invisible():
    real = (crops(20) // 4).astype(np.uint8)
    brighter = (real * 2 + 40).astype(np.uint8)
    assert module.sliced_wasserstein(real, brighter)["mean"] == pytest.approx(0.0, abs=1e-5)


def test_the_seed_repeats_and_no_global_generator_is_touched():
    real, generated = digits(40), digits(40, offset=40)
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    values = [module.sliced_wasserstein(real, generated, seed)["mean"] for seed in (3, 3, 4)]
    assert values[0] == values[1] != values[2]
    np.testing.assert_array_equal(np.random.get_state()[1], before)


@pytest.mark.parametrize(
    "real, generated, settings, message",
    [
        (noise(4, 8, 8), noise(5, 8, 8), {}, r"uint8 \[4, 8, 8, 3\] and uint8 \[5, 8, 8, 3\]"),
        (noise(4, 8, 8), noise(4, 8, 8).astype(np.float32), {}, r"float32 \[4, 8, 8, 3\]"),
        (noise(4, 8, 8)[0], noise(4, 8, 8)[0], {}, r"uint8 \[8, 8, 3\]"),
        (noise(4, 6, 8), noise(4, 6, 8), {}, r"7 x 7 pixels or more, received 6 x 8"),
        (noise(0, 8, 8), noise(0, 8, 8), {}, r"received \[0, 8, 8, 3\]"),
        (noise(4, 8, 8), noise(4, 8, 8), {"smallest_level": 6}, "received 6, 64, 128"),
        (noise(4, 8, 8), noise(4, 8, 8), {"num_directions": 0}, "received 16, 64, 0"),
    ],
)
def test_bad_input_is_one_clear_line(real, generated, settings, message):
    with pytest.raises(UserError, match=message) as caught:
        module.sliced_wasserstein(real, generated, **settings)
    assert "\n" not in str(caught.value)
