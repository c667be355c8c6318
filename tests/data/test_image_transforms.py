"""Cut, resize and colour against references written another way."""

import fractions
import math

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfcq.config import DataConfig
from tfcq.data.transforms import Transform, cut_center, pad_center, resize_area, to_channels
from tfcq.errors import UserError


def noise(*shape):
    return np.random.RandomState(sum(shape)).randint(0, 256, shape).astype(np.uint8)


def exact_area(image, side):
    """Area means of [h, w] by rational arithmetic, pixel by pixel, rounded half up."""
    height, width = image.shape
    result = np.zeros((side, side), np.uint8)
    for row in range(side):
        for column in range(side):
            top, bottom = fractions.Fraction(row * height, side), fractions.Fraction((row + 1) * height, side)
            left, right = fractions.Fraction(column * width, side), fractions.Fraction((column + 1) * width, side)
            total = fractions.Fraction(0)
            for y in range(math.floor(top), math.ceil(bottom)):
                for x in range(math.floor(left), math.ceil(right)):
                    part = (min(bottom, y + 1) - max(top, y)) * (min(right, x + 1) - max(left, x))
                    total += part * int(image[y, x])
            result[row, column] = math.floor(total / ((bottom - top) * (right - left)) + fractions.Fraction(1, 2))
    return result


@pytest.mark.parametrize("source, side", [(8, 8), (12, 4), (7, 4), (10, 7), (4, 8), (5, 8), (3, 7), (28, 32), (4, 1)])
def test_area_is_the_exact_mean_over_the_footprint(source, side):
    images = noise(2, source, source, 3)
    resized = resize_area(images, side)
    assert resized.shape == (2, side, side, 3) and resized.dtype == np.uint8
    for number in range(2):
        for channel in range(3):
            np.testing.assert_array_equal(resized[number, :, :, channel],
                                          exact_area(images[number, :, :, channel], side))


def test_area_on_rectangles():
    image = noise(1, 9, 14, 1)
    np.testing.assert_array_equal(resize_area(image, 6)[0, :, :, 0], exact_area(image[0, :, :, 0], 6))


@pytest.mark.parametrize("source, side", [(178, 64), (33, 32), (20, 48)])
def test_area_agrees_with_tensorflow(source, side):
    images = noise(1, source, source, 3)
    theirs = tf.image.resize(images, (side, side), method="area").numpy()
    assert np.abs(resize_area(images, side) - theirs).max() <= 0.5 + 1e-3


def test_area_agrees_with_pillow_where_it_shrinks_by_a_whole_factor():
    image = noise(96, 96, 3)
    theirs = np.asarray(Image.fromarray(image).reduce(3)).astype(int)
    # Pillow multiplies by a truncated 1 / 9 and so falls one short of some exact means, never beyond.
    assert set(np.unique(resize_area(image[None], 32)[0] - theirs)) <= {0, 1}


def test_half_of_a_level_is_rounded_up():
    images = np.array([[[1], [2]], [[1], [2]]], np.uint8)[None]  # mean 1.5
    assert resize_area(images, 1).item() == 2


def test_enlarging_by_a_whole_factor_repeats_pixels():
    images = noise(2, 4, 4, 1)
    np.testing.assert_array_equal(resize_area(images, 12), images.repeat(3, 1).repeat(3, 2))


def test_pad_centres_in_zeros():
    images = np.full((1, 3, 3, 1), 7, np.uint8)
    padded = pad_center(images, 6)
    expected = np.zeros((6, 6), np.uint8)
    expected[1:4, 1:4] = 7  # an odd margin: one more row below and one more column to the right
    np.testing.assert_array_equal(padded[0, :, :, 0], expected)


def test_cut_is_centred():
    images = np.arange(5 * 8, dtype=np.uint8).reshape(1, 5, 8, 1)
    np.testing.assert_array_equal(cut_center(images, 4)[0, :, :, 0], images[0, 0:4, 2:6, 0])


def test_grey_is_the_rounded_bt601_luma():
    levels = np.array([0, 1, 2, 60, 127, 128, 200, 254, 255])
    images = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, 27, 27, 3).astype(np.uint8)
    grey = to_channels(images, 1)
    luma = images.astype(np.float64) @ [0.299, 0.587, 0.114]
    assert grey.shape == (1, 27, 27, 1)
    assert np.abs(grey[..., 0] - luma).max() <= 0.5 + 1e-9
    same = to_channels(np.repeat(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), 3, 3), 1)
    np.testing.assert_array_equal(same.ravel(), np.arange(256))


def test_rgb_of_grey_repeats_the_channel():
    images = noise(2, 4, 4, 1)
    np.testing.assert_array_equal(to_channels(images, 3), np.concatenate([images] * 3, 3))


@pytest.mark.parametrize("resize", ["area", "pad"])
def test_an_image_of_the_target_size_is_unchanged(resize):
    transform = Transform.of(DataConfig(image_size=16, resize=resize), 3, "image 0")
    images = noise(2, 16, 16, 3)
    np.testing.assert_array_equal(transform(images), images)
    assert not transform.changes((16, 16, 3))
    assert transform.changes((16, 17, 3)) and transform.changes((16, 16, 1))


def test_steps_in_order_crop_resize_colour():
    transform = Transform.of(DataConfig(image_size=8, center_crop=16, color="grey"), 3, "image 0")
    images = noise(1, 20, 30, 3)
    np.testing.assert_array_equal(transform(images), to_channels(resize_area(images[:, 2:18, 7:23], 8), 1))
    assert transform.shape == (8, 8, 1)


@pytest.mark.parametrize(
    "shape, options, steps",
    [
        ((8, 8, 1), {}, ""),
        ((8, 9, 1), {}, "cut"),
        ((4, 4, 1), {}, "enlarged"),
        ((20, 16, 3), {"color": "grey"}, "cut, shrunk, converted to grey"),
        ((8, 8, 1), {"color": "rgb"}, "converted to rgb"),
        ((8, 8, 1), {"center_crop": 6}, "cut, enlarged"),
        ((6, 6, 1), {"resize": "pad"}, "padded"),
    ],
)
def test_what_is_done_to_an_image_in_words(shape, options, steps):
    transform = Transform.of(DataConfig(image_size=8, **options), shape[2], "an image")
    assert transform.steps(shape) == steps
    assert transform.changes(shape) == bool(steps)


def test_center_crop_of_an_image_of_the_target_size_is_enlarged_again():
    transform = Transform.of(DataConfig(image_size=8, center_crop=4), 1, "image 0")
    images = noise(1, 8, 8, 1)
    assert transform.changes((8, 8, 1))
    np.testing.assert_array_equal(transform(images), images[:, 2:6, 2:6].repeat(2, 1).repeat(2, 2))


@pytest.mark.parametrize("config, shape, expected", [
    (DataConfig(image_size=8, center_crop=21), (20, 30, 3), "b.png.*center_crop=21.*20x30"),
    (DataConfig(image_size=8, resize="pad"), (9, 30, 3), "b.png.*9x9.*image_size=8.*resize=pad"),
    (DataConfig(image_size=8), (9, 9, 1), "b.png is grey but a.png is rgb.*color=grey or color=rgb"),
    (DataConfig(image_size=8, color="rgb"), (9, 9, 4), "b.png.*1 .grey. or 3 .rgb. channels, received 4"),
])
def test_unfit_images_are_named(config, shape, expected):
    with pytest.raises(UserError, match=expected):
        Transform.of(config, 3, "a.png").check(shape, "b.png")


def test_color_settings_accept_mixed_sources():
    Transform.of(DataConfig(image_size=8, color="grey"), 3, "a.png").check((9, 9, 1), "b.png")
    Transform.of(DataConfig(image_size=8, color="rgb"), 1, "a.png").check((9, 9, 3), "b.png")
