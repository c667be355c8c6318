"""The pixel bijectors against float64 formulas and autodiff; `tf.identity` keeps TFP's cache out of the round trips."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tfcq.distributions.pixels import PixelLogit, pixel_bijector

NAMES = ("logit", "affine")
PIXELS = np.concatenate([[0.0, 1e-3, 0.5], np.arange(1.0, 256.0, 3.7), [255.5, 255.999, 256.0]])


def tensor(values):
    return tf.constant(values, tf.float32)


def inverse_in_float64(name, pixels):
    probability = 0.05 + 0.9 * np.asarray(pixels, np.float64) / 256.0
    return np.log(probability / (1.0 - probability)) if name == "logit" else np.asarray(pixels, np.float64) / 128.0 - 1.0


def log_slope_in_float64(name, unbounded):
    """log |d unbounded / d pixels|."""
    unbounded = np.asarray(unbounded, np.float64)
    if name == "affine":
        return np.full_like(unbounded, -math.log(128.0))
    return np.logaddexp(0.0, unbounded) + np.logaddexp(0.0, -unbounded) + math.log(0.9) - math.log(256.0)


@pytest.mark.parametrize("name", NAMES)
def test_inverse_is_the_formula_with_finite_edges(name):
    unbounded = pixel_bijector(name).inverse(tensor(PIXELS))
    assert unbounded.dtype == tf.float32
    np.testing.assert_allclose(unbounded, inverse_in_float64(name, PIXELS), rtol=1e-5, atol=1e-6)
    edge = math.log(0.95 / 0.05) if name == "logit" else 1.0
    np.testing.assert_allclose(pixel_bijector(name).inverse(tensor([0.0, 128.0, 256.0])), [-edge, 0.0, edge], atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_round_trips_both_ways(name):
    unbounded = pixel_bijector(name).inverse(tensor(PIXELS))
    pixels = pixel_bijector(name).forward(tf.identity(unbounded))
    np.testing.assert_allclose(pixels, PIXELS, rtol=1e-5, atol=1e-4)
    start = np.linspace(-2.9, 2.9, 41) if name == "logit" else np.linspace(-1.0, 1.0, 41)
    pixels = pixel_bijector(name).forward(tensor(start))
    assert np.min(pixels) >= 0.0 and np.max(pixels) <= 256.0
    again = pixel_bijector(name).inverse(tf.identity(pixels))
    np.testing.assert_allclose(again, start, rtol=1e-5, atol=1e-5)


def test_every_eight_bit_value_survives_the_round_trip():
    values = np.arange(256)
    for noise in (0.01, 0.5, 0.99):
        unbounded = PixelLogit().inverse(tensor(values + noise))
        pixels = PixelLogit().forward(tf.identity(unbounded))
        np.testing.assert_array_equal(np.floor(pixels), values)


def test_the_logit_leaves_the_pixels_range_by_fifteen_grey_levels_at_most():
    pixels = PixelLogit().forward(tensor([-1e6, -1e3, 1e3, 1e6])).numpy()
    np.testing.assert_allclose(pixels, [-0.05 * 256 / 0.9] * 2 + [0.95 * 256 / 0.9] * 2, rtol=1e-6)
    assert 14.0 < -pixels[0] < 15.0


@pytest.mark.parametrize("name", NAMES)
def test_log_determinants_are_the_formula_and_the_derivative(name):
    pixels = tensor(PIXELS)
    expected = log_slope_in_float64(name, inverse_in_float64(name, PIXELS))
    inverse_log_det = pixel_bijector(name).inverse_log_det_jacobian(pixels, event_ndims=0)
    np.testing.assert_allclose(tf.broadcast_to(inverse_log_det, pixels.shape), expected, rtol=1e-5, atol=1e-5)

    with tf.GradientTape() as tape:
        tape.watch(pixels)
        unbounded = pixel_bijector(name).inverse(pixels)
    slope = tape.gradient(unbounded, pixels)
    np.testing.assert_allclose(np.log(slope), expected, rtol=1e-5, atol=1e-5)

    unbounded = tf.identity(unbounded)
    forward_log_det = pixel_bijector(name).forward_log_det_jacobian(unbounded, event_ndims=0)
    np.testing.assert_allclose(tf.broadcast_to(forward_log_det, pixels.shape), -expected, rtol=1e-5, atol=1e-5)
    with tf.GradientTape() as tape:
        tape.watch(unbounded)
        again = pixel_bijector(name).forward(unbounded)
    np.testing.assert_allclose(np.log(tape.gradient(again, unbounded)), -expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_sums_over_its_pixels(name):
    shape = (2, 3, 4, 3)
    pixels = np.random.default_rng(0).uniform(0.0, 256.0, shape)
    log_det = pixel_bijector(name).inverse_log_det_jacobian(tensor(pixels), event_ndims=3)
    expected = log_slope_in_float64(name, inverse_in_float64(name, pixels)).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(tf.broadcast_to(log_det, [2]), expected, rtol=1e-5)


def test_a_uniform_density_pushed_through_the_logit_integrates_to_one():
    unbounded = np.linspace(-math.log(19.0), math.log(19.0), 20001)
    log_det = PixelLogit().forward_log_det_jacobian(tensor(unbounded), event_ndims=0)
    density = np.exp(-math.log(256.0) + log_det.numpy().astype(np.float64))
    np.testing.assert_allclose(np.trapezoid(density, unbounded), 1.0, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_uniform_density_has_8_bits_per_dim(name):
    """It is uniform in (-1, 1) by the affine way, and a logistic density cut to 90 % by the logit."""
    pixels = np.random.default_rng(0).uniform(0.0, 256.0, (2, 3, 3, 2))
    unbounded = inverse_in_float64(name, pixels)
    sigmoid = 1.0 / (1.0 + np.exp(-unbounded))
    density = np.full(pixels.shape, 0.5) if name == "affine" else sigmoid * (1.0 - sigmoid) / 0.9
    log_det = pixel_bijector(name).inverse_log_det_jacobian(tensor(pixels), event_ndims=3)
    nats = np.log(density).sum(axis=(1, 2, 3)) + log_det
    np.testing.assert_allclose(-nats / (18 * math.log(2.0)), 8.0, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1e2, 1e3, 1e6])
def test_gradients_far_out_are_finite(name, size):
    unbounded = tensor([-size, size])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(unbounded)
        pixels = pixel_bijector(name).forward(unbounded)
        log_det = tf.broadcast_to(pixel_bijector(name).forward_log_det_jacobian(unbounded, event_ndims=0), [2])
    assert np.all(np.isfinite(pixels)) and np.all(np.isfinite(log_det))
    assert np.all(np.isfinite(tape.gradient(pixels, unbounded)))
    slope = tape.gradient(log_det, unbounded)
    if name == "logit":  # -|l| and a constant
        np.testing.assert_allclose(log_det, -size - math.log(0.9 / 256.0), rtol=1e-6)
        np.testing.assert_allclose(slope, [1.0, -1.0], rtol=1e-6)
    else:
        assert slope is None or not np.any(slope)


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="expected logit or affine, received 'sigmoid'"):
        pixel_bijector("sigmoid")
