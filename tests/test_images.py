"""Units of images against NumPy in float64, grids against arrays made by hand, PNGs against Pillow."""

import math

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from tfcq import images
from tfcq.errors import UserError


@pytest.mark.parametrize("shape", [(2, 2, 1), (32, 32, 3)])
def test_a_uniform_density_costs_eight_bits(shape):
    size = math.prod(shape)
    log_prob = np.full([4], -size * math.log(256.0))
    np.testing.assert_allclose(images.bits_per_dim(log_prob, shape), 8.0, rtol=1e-15)
    np.testing.assert_allclose(images.bits_per_dim(tf.constant(log_prob, tf.float32), shape), 8.0, rtol=1e-6)
    # One bit less a dimension is half the bins.
    np.testing.assert_allclose(images.bits_per_dim(log_prob + size * math.log(2.0), shape), 7.0, rtol=1e-15)


def test_quantize_floors_and_clips():
    pixels = tf.constant([0.0, 255.999, -3.0, 300.0, 12.0, 11.9999, -1e-6, 256.0, 1e30, -1e30, 0.9999])
    eight_bit = images.quantize(pixels)
    assert eight_bit.dtype == tf.uint8
    np.testing.assert_array_equal(eight_bit, [0, 255, 0, 255, 12, 11, 0, 255, 255, 0, 0])


@pytest.mark.parametrize("noise", [0.0, 0.5, 0.99999])
def test_quantize_undoes_dequantize_for_every_value(noise):
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    pixels = images.dequantize(values, noise)
    assert pixels.dtype == tf.float32
    np.testing.assert_allclose(pixels, values.astype(np.float64) + noise, rtol=1e-6)
    assert np.max(pixels) < 256.0
    np.testing.assert_array_equal(images.quantize(pixels), values)


def test_network_range():
    pixels = tf.constant([0.0, 128.0, 256.0, 64.0])
    np.testing.assert_array_equal(images.to_network_range(pixels), [-1.0, 0.0, 1.0, -0.5])


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_png_is_read_back_by_pillow(tmp_path, channels, mode):
    values = np.random.default_rng(0).integers(0, 256, (5, 7, channels)).astype(np.uint8)
    path = tmp_path / "made" / "here" / "picture.png"
    images.write_png(path, values)
    with PIL.Image.open(path) as read:
        assert read.format == "PNG" and read.mode == mode
        np.testing.assert_array_equal(np.asarray(read).reshape(values.shape), values)
    images.write_png(str(path), 255 - values)  # replaces
    with PIL.Image.open(path) as read:
        np.testing.assert_array_equal(np.asarray(read).reshape(values.shape), 255 - values)
    assert [file.name for file in path.parent.iterdir()] == ["picture.png"]


def test_a_png_that_cannot_be_written_leaves_nothing_behind(tmp_path, monkeypatch):
    values = np.zeros((4, 4, 1), np.uint8)
    path = tmp_path / "picture.png"
    images.write_png(path, values)
    whole = path.read_bytes()

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        images.write_png(path, values + 1)
    monkeypatch.undo()
    assert path.read_bytes() == whole
    assert [file.name for file in tmp_path.iterdir()] == ["picture.png"]

    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match="received a folder"):
        images.write_png(tmp_path / "folder.png", values)
    with pytest.raises(ValueError, match=r"received uint8 \[4, 4, 7\]"):
        images.write_png(tmp_path / "two.png", np.zeros((4, 4, 7), np.uint8))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder.png", "picture.png"]


@pytest.mark.parametrize("shape", [(2, 2, 1), (6, 4, 1), (16, 16, 3), (32, 32, 3)])
def test_half_the_side_is_pillows_antialiased_bilinear(shape):
    given = np.random.RandomState(0).randint(0, 256, (5, *shape)).astype(np.uint8)
    found = images.halve(given)
    assert found.dtype == tf.uint8 and found.shape == (5, shape[0] // 2, shape[1] // 2, shape[2])
    for image, smaller in zip(given, found.numpy(), strict=True):
        picture = PIL.Image.fromarray(image if shape[2] == 3 else image[..., 0])
        expected = picture.resize((shape[1] // 2, shape[0] // 2), PIL.Image.Resampling.BILINEAR)
        # Pillow rounds after each axis.
        assert np.abs(smaller.astype(int) - np.asarray(expected).reshape(smaller.shape)).max() <= 1


def test_means_of_halves_are_exact_and_rounded_half_up():
    weights = np.array([1.0, 3.0, 3.0, 1.0]) / 8.0
    given = np.random.RandomState(1).randint(0, 256, (20, 8, 8, 1)).astype(np.uint8)
    inner = np.einsum("i,j,nij->n", weights, weights, given[:, 1:5, 1:5, 0].astype(np.float64))
    np.testing.assert_array_equal(images.halve(given)[:, 1, 1, 0], np.floor(inner + 0.5))
    corner = np.einsum("i,j,nij->n", weights[1:], weights[1:], given[:, :3, :3, 0].astype(np.float64)) * (8 / 7) ** 2
    np.testing.assert_array_equal(images.halve(given)[:, 0, 0, 0], np.floor(corner + 0.5))
    compiled = tf.function(images.halve, jit_compile=True)
    np.testing.assert_array_equal(compiled(given), images.halve(given))


def test_luminance_is_pillows():
    given = np.random.RandomState(0).randint(0, 256, (5, 8, 8, 3)).astype(np.uint8)
    expected = np.stack([np.asarray(PIL.Image.fromarray(image).convert("L"))[..., None] for image in given])
    found = images.luminance(given).numpy()
    assert found.dtype == np.uint8 and np.abs(found.astype(int) - expected).max() <= 1
