"""Many images as one picture: a grid with gutters and, where its rows or columns have kinds, labels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from numpy.typing import ArrayLike

from tfcq.checks import check_images

GUTTER = 2
"""Pixels of the picture between two images."""

SMALLEST_SHOWN = 48
"""Pixels of the picture that the shorter side of an image has at least; smaller images cannot be judged by eye."""

_BACKGROUND, _INK = 224, 32  # a light grey, which is neither the black of digits nor the white of a product's photograph
_FONT_PIXELS = 11
_MARGIN = 3  # pixels around a label


def zoom_of(height: int, width: int) -> int:
    """The whole factor by which a grid enlarges images of that size in pixels."""
    return max(1, math.ceil(SMALLEST_SHOWN / min(height, width)))


def grid(
    images: ArrayLike, columns: int | None = None, column_labels: Sequence[str] = (), row_labels: Sequence[str] = ()
) -> np.ndarray:
    """One picture of many images, row by row: uint8 [height, width, C] from uint8 [N, H, W, C].

    Small images are enlarged by a whole factor (`zoom_of`), by repeating their pixels, and `GUTTER` pixels lie between two
    images. Labels are above and to the left of the images; gutters, labels' background and empty cells are light grey.

    >>> grid(np.zeros((3, 24, 24, 1), np.uint8)).shape  # two rows, each side enlarged twice
    (98, 98, 1)

    Args:
        images: uint8 [N, H, W, C], N of at least 1.
        columns: images in a row; None: as square as possible.
        column_labels: texts above the columns, from the left, repeated if the columns are a multiple of them. An empty one
            leaves its place to the text before it. All are turned by a quarter if one is too wide for its place.
        row_labels: texts beside the rows, from the top.

    Raises:
        UserError: images of another shape, or floats, which would look black.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.dtype.kind == "f":
        check_images(images, "images")
    zoom = zoom_of(*images.shape[1:3])
    images = images.repeat(zoom, axis=1).repeat(zoom, axis=2)
    count, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    cells = np.full((rows * columns, height + GUTTER, width + GUTTER, channels), _BACKGROUND, np.uint8)
    cells[:count, :height, :width] = images
    cells = cells.reshape(rows, columns, height + GUTTER, width + GUTTER, channels)
    picture = cells.transpose(0, 2, 1, 3, 4).reshape(rows * (height + GUTTER), columns * (width + GUTTER), channels)
    picture = picture[:-GUTTER, :-GUTTER]
    if column_labels:
        labels = [*column_labels] * max(1, columns // len(column_labels))
        picture = np.concatenate([_heads(labels, width + GUTTER, picture.shape[1], channels), picture])
    if row_labels:
        side = _sides(row_labels, height + GUTTER, picture.shape[0], channels)
        picture = np.concatenate([side, picture], axis=1)
    return picture


def _heads(labels, step, width, channels):
    """Labels above columns whose left edges are `step` pixels apart: uint8 [height, width, channels]."""
    lengths = [_length(label) for label in labels]
    starts = [place for place, label in enumerate(labels) if label]
    rooms = [(after - place) * step for place, after in zip(starts, [*starts[1:], len(labels)])]
    fits = all(lengths[place] + 2 <= room for place, room in zip(starts, rooms))
    if fits:
        # A label of one column is in its middle, one of several begins at the first of them.
        offsets = [max(0, step - GUTTER - lengths[place]) // 2 if room == step else 0 for place, room in zip(starts, rooms)]
        places = [(place * step + offset, 0, labels[place]) for place, offset in zip(starts, offsets)]
        return _written(places, width, _line_height(), channels)
    # Written along the rows of a picture that is then turned, so that they are read from below.
    height = max(lengths) + 2 * _MARGIN
    middle = (step - GUTTER - _line_height()) // 2
    turned = _written([(_MARGIN, place * step + middle, labels[place]) for place in starts], height, width, channels)
    return turned.transpose(1, 0, 2)[::-1]


def _sides(labels, step, height, channels):
    """Labels beside rows whose top edges are `step` pixels apart, at the bottom of a height: uint8 [height, width, channels]."""
    width = max(map(_length, labels)) + 2 * _MARGIN
    top = height + GUTTER - step * len(labels)  # column labels are above
    middle = (step - GUTTER - _line_height()) // 2
    places = [(width - _MARGIN - _length(label), top + place * step + middle, label) for place, label in enumerate(labels)]
    return _written(places, width, height, channels)


def _written(places, width, height, channels):
    """Texts at (left, top, text) on the background: uint8 [height, width, channels]."""
    picture = PIL.Image.new("L", (width, height), _BACKGROUND)
    draw = PIL.ImageDraw.Draw(picture)
    for left, top, text in places:
        draw.text((left, top + _MARGIN), text, _INK, _font())
    return np.repeat(np.asarray(picture)[..., None], channels, axis=2)


def _font():
    return PIL.ImageFont.load_default(_FONT_PIXELS)


def _length(text):
    return math.ceil(_font().getlength(text))


def _line_height():
    return sum(_font().getmetrics()) + 2 * _MARGIN
