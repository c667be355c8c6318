"""What training does to a source image (`tfcq.data.transforms`, `tfcq.data.decoding`), in a graph, to the byte.

A mean over an area is a difference of sums up to two places that lie between pixels. All numbers are integers, so nothing is
rounded before the end.
"""

from __future__ import annotations

import tensorflow as tf

from tfcq.data.transforms import Transform

_LUMA = (299, 587, 114)  # thousandths, ITU-R BT.601-7


def prepared(pixels: tf.Tensor, transform: Transform) -> tf.Tensor:
    """uint8 [h, w, c] -> uint8 [image_size, image_size, channels], as `Transform` makes it; `Transform.check` holds for it."""
    height, width = tf.shape(pixels)[0], tf.shape(pixels)[1]
    side = transform.center_crop or tf.minimum(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    cut = pixels[top : top + side, left : left + side]
    resize = _padded if transform.resize == "pad" else _area_means
    return _to_channels(resize(cut, transform.image_size), transform.channels)


def _padded(pixels, side):
    """[s, s, c], s at most `side`, centred in zeros."""
    missing = side - tf.shape(pixels)[0]
    before = missing // 2
    margins = [before, missing - before]
    return tf.pad(pixels, [margins, margins, [0, 0]])


def _area_means(pixels, side):
    """[s, s, c] -> uint8 [side, side, c], rounded half up."""
    length = tf.shape(pixels)[0]
    sums = _area_sums(tf.cast(pixels, tf.int32), side)
    sums = tf.transpose(_area_sums(tf.transpose(sums, [1, 0, 2]), side), [1, 0, 2])
    area = tf.cast(length, tf.int64) ** 2
    return tf.cast((2 * sums + area) // (2 * area), tf.uint8)


def _area_sums(values, side):
    """[s, ...] -> int64 [side, ...]: sums of rows, weighted by side times their overlap with the target."""
    length = tf.shape(values)[0]
    # Target j covers [j s, (j + 1) s) in units of 1 / side rows: it ends after `whole` rows and `part` / side of the next.
    ends = tf.range(side + 1) * length
    whole, part = ends // side, ends % side
    sums = tf.pad(tf.cumsum(values), [[1, 0], [0, 0], [0, 0]])
    after = tf.gather(values, tf.minimum(whole, length - 1))
    up_to = side * tf.cast(tf.gather(sums, whole), tf.int64) + tf.cast(part, tf.int64)[:, None, None] * tf.cast(after, tf.int64)
    return up_to[1:] - up_to[:-1]


def _to_channels(pixels, channels):
    """[h, w, 1 or 3] as grey or RGB."""
    weights = tf.constant(_LUMA)
    values = tf.cast(pixels, tf.int32)
    if channels == 3:
        return tf.cast(tf.broadcast_to(values, [*tf.unstack(tf.shape(values)[:2]), 3]), tf.uint8)

    def luma():
        return (tf.reduce_sum(values * weights, axis=-1, keepdims=True) + 500) // 1000

    return tf.cast(tf.cond(tf.shape(values)[2] == 1, lambda: values, luma), tf.uint8)


def upright(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """An image [h, w, c] turned as its EXIF orientation says, 1 to 8; others leave it as it is."""
    turned = tf.cond(orientation >= 5, lambda: tf.transpose(pixels, [1, 0, 2]), lambda: pixels)
    # As rows and columns of the turned image: 2, 3, 6, 7 begin at the right, 3, 4, 7, 8 at the bottom.
    mirrored = tf.cond(_any(orientation, 2, 3, 6, 7), lambda: turned[:, ::-1], lambda: turned)
    return tf.cond(_any(orientation, 3, 4, 7, 8), lambda: mirrored[::-1], lambda: mirrored)


def _any(value, *others):
    return tf.reduce_any([value == other for other in others])


def orientation_of(file: tf.Tensor) -> tf.Tensor:
    """The EXIF orientation of a JPEG, int32, of the first directory of its first EXIF segment; 1 if it has none.

    Args:
        file: a string, the whole file.
    """
    content = tf.cast(tf.io.decode_raw(tf.strings.substr(file, 0, _LOOKED_AT), tf.uint8), tf.int32)
    content = tf.pad(content, [[0, _BEYOND]])  # what is read after the end is 0
    size = tf.shape(content)[0] - _BEYOND

    def is_between(place, found, end):
        return (place + 4 <= size) & (found < 0) & (content[place] == 0xFF)

    def next_segment(place, found, end):
        marker, length = content[place + 1], content[place + 2] * 256 + content[place + 3]
        is_exif = (marker == 0xE1) & tf.reduce_all(content[place + 4 : place + 10] == _EXIF)
        ends = (marker == 0xDA) | (length < 2)  # the image begins, or nonsense
        after = place + 2 + length
        return tf.where(ends, size, after), tf.where(is_exif, place + 10, found), tf.minimum(after, size)

    _, start, end = tf.while_loop(is_between, next_segment, (tf.constant(2), tf.constant(-1), tf.constant(0)))
    return tf.cond(start < 0, lambda: tf.constant(1), lambda: _of_directory(content, start, end))


_LOOKED_AT = 2**18  # bytes; a segment has at most 2^16, and EXIF is among the first
_ENTRIES = 64
_BEYOND = 12 * _ENTRIES + 16
_EXIF = tuple(b"Exif\0\0")
_ORIENTATION = 0x0112


def _of_directory(content, start, end):
    """The orientation in TIFF's first directory (TIFF 6.0, section 2); the TIFF data are `content` from `start` to `end`."""
    little = content[start] == 0x49

    def number(place, length):
        """Unsigned numbers of `length` bytes at places."""
        digits = tf.gather(content, tf.clip_by_value(place[..., None] + tf.range(length), 0, tf.shape(content)[0] - 1))
        digits = tf.where(little, digits[..., ::-1], digits)
        return tf.reduce_sum(digits * [256**power for power in reversed(range(length))], axis=-1)

    is_tiff = (content[start] == content[start + 1]) & (number(start + 2, 2) == 42) & (little | (content[start] == 0x4D))
    offset = number(start + 4, 4)
    directory = start + tf.where((offset >= 0) & (offset < end - start), offset, end - start)
    count = tf.minimum(number(directory, 2), _ENTRIES)
    entries = directory + 2 + 12 * tf.range(_ENTRIES)
    is_there = (tf.range(_ENTRIES) < count) & (entries + 12 <= end)
    is_short = (number(entries + 2, 2) == 3) & (number(entries + 4, 4) == 1)
    is_it = (number(entries, 2) == _ORIENTATION) & is_there & is_short
    found = tf.reduce_max(tf.where(is_it, number(entries + 8, 2), 0))
    return tf.where(is_tiff & (found >= 1) & (found <= 8), found, 1)
