"""Grids of images, against pictures made by hand."""

import numpy as np
import pytest
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.grids import GUTTER, grid, zoom_of

GREY = 224


def picture(size, value, channels=1):
    """An image that `grid` leaves at its size: `value` plus a ramp along the columns."""
    return (np.full([size, size, channels], value) + np.arange(size)[None, :, None]).astype(np.uint8)


def beside(*images):
    """Images with a gutter between two of them, in a row."""
    gutter = np.full_like(images[0], GREY)[:, :GUTTER]
    return np.concatenate([part for image in images for part in (gutter, image)][1:], 1)


def below(*images):
    """Images with a gutter between two of them, in a column."""
    return beside(*(image.swapaxes(0, 1) for image in images)).swapaxes(0, 1)


def test_a_grid_fills_row_by_row_and_leaves_the_rest_in_the_colour_of_the_gutters():
    a, b, c, d, e = (picture(48, value) for value in (1, 50, 100, 150, 200))
    empty = np.full_like(a, GREY)
    expected = below(beside(a, b, c), beside(d, e, empty))
    found = grid([a, b, c, d, e])
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(grid(tf.constant([a, b, c, d, e])), expected)


def test_columns_and_channels():
    a, b, c = (picture(64, value, channels=3) + np.arange(3, dtype=np.uint8) for value in (1, 50, 100))
    np.testing.assert_array_equal(grid([a, b, c], columns=1), below(a, b, c))
    np.testing.assert_array_equal(grid([a, b, c], columns=3), beside(a, b, c))
    np.testing.assert_array_equal(grid([a, b, c], columns=4), beside(a, b, c, np.full_like(a, GREY)))
    np.testing.assert_array_equal(grid([a]), a)


@pytest.mark.parametrize(("side", "zoom"), [(2, 24), (8, 6), (28, 2), (32, 2), (47, 2), (48, 1), (64, 1), (256, 1)])
def test_small_images_are_enlarged_by_whole_factors_without_blurring(side, zoom):
    assert zoom_of(side, 2 * side) == zoom_of(2 * side, side) == zoom
    images = np.random.default_rng(0).integers(0, 256, (3, side, side, 1)).astype(np.uint8)
    large = [np.kron(image[..., 0], np.ones((zoom, zoom)))[..., None].astype(np.uint8) for image in images]
    np.testing.assert_array_equal(grid(images, 3), beside(*large))


def written(labels_area):
    """The first and the last row, and the first and the last column, in which a label's background is not blank."""
    rows, columns = np.nonzero((labels_area != GREY).any(-1))
    return rows.min(), rows.max(), columns.min(), columns.max()


@pytest.mark.parametrize("channels", [1, 3])
def test_labels_of_columns_are_above_them_and_repeat(channels):
    images = np.stack([picture(48, value, channels) for value in range(8)])
    plain, labelled = grid(images, 4), grid(images, 4, ("image", "recon."))
    height = len(labelled) - len(plain)
    np.testing.assert_array_equal(labelled[height:], plain)
    head = labelled[:height]
    assert 10 < height < 30 and head.shape[1:] == plain.shape[1:]
    np.testing.assert_array_equal(head[:, :98], head[:, 100:198])  # two columns of 48 and a gutter between them
    for column in range(2):
        of_column = head[:, 50 * column : 50 * column + 48]
        _, _, left, right = written(of_column)
        assert abs(left - (47 - right)) <= 2  # in the middle
    assert (head[:, :48] != head[:, 50:98]).any()  # each has its own text


def test_a_label_may_stand_for_several_columns_and_is_turned_where_it_is_too_wide():
    images = np.stack([picture(48, value) for value in range(5)])
    plain = grid(images, 5)
    wide = grid(images, 5, ("image", "drawn given the first", "", "", ""))
    assert len(wide) - len(plain) < 30
    _, _, left, right = written(wide[: len(wide) - len(plain), 50:])
    assert left < 4 and right > 80  # from the left edge of the second column, over the third
    narrow = grid(images, 5, ("image", "drawn given the first", "sample", "", ""))
    height = len(narrow) - len(plain)
    np.testing.assert_array_equal(narrow[height:], plain)
    top, bottom, left, right = written(narrow[:height, 50:98])
    assert bottom - top > 80 and right - left < 15  # upwards


def test_labels_of_rows_are_beside_them():
    images = np.stack([picture(48, value) for value in range(6)])
    plain = grid(images, 2, ("a", "b"))
    labelled = grid(images, 2, ("a", "b"), ("image", "", "a longer one"))
    width = labelled.shape[1] - plain.shape[1]
    np.testing.assert_array_equal(labelled[:, width:], plain)
    side = labelled[-148:, :width]  # three rows of 48 and two gutters
    assert (labelled[:-148, :width] == GREY).all() and (side[50:98] == GREY).all()
    for row in (0, 2):
        top, bottom, _, right = written(side[50 * row : 50 * row + 48])
        assert 12 < top < bottom < 36 and width - right < 6  # half way up, close to the images


def test_what_is_no_images_is_refused():
    with pytest.raises(UserError, match="^images: "):
        grid(np.zeros((2, 8, 8, 1), np.float32))
    with pytest.raises(UserError, match=r"received uint8 \[8, 8, 3\]"):
        grid(np.zeros((8, 8, 3), np.uint8))
