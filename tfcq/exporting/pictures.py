"""Picture files in a graph: images from strings, each a whole file, cut and resized as in training; and images as files."""

from __future__ import annotations

import tensorflow as tf

from tfcq.data.transforms import KINDS, Transform
from tfcq.exporting import preparing

# PNG (W3C, third edition), 5.2 and 11.2.1: a signature, then the chunk IHDR with width, height, bits of a value, colour type.
_PNG, _JPEG = tuple(b"\x89PNG\r\n\x1a\n"), (0xFF, 0xD8, 0xFF)
_WIDTH, _HEIGHT, _DEPTH, _COLOURS = slice(16, 20), slice(20, 24), 24, 25  # bytes
_OF_GREY = (0, 4)  # colour types
_COMPRESSION = 1  # of zlib: 64x64 pixels in 0.08 ms

MOST_PIXELS = 2**25
"""Pixels of a picture at most, 33.6 million: such a one takes 0.5 GB while it is resized."""


def require(condition: tf.Tensor, message: str, value: tf.Tensor) -> tf.Operation:
    """An operation that fails with INVALID_ARGUMENT, a message and a value unless a condition holds when the graph runs."""
    return tf.debugging.Assert(condition, [message, value], summarize=8)


def encoded(images: tf.Tensor) -> tf.Tensor:
    """Files in PNG, strings [N], of images uint8 [N, H, W, C], C of 1 (grey) or 3 (rgb)."""
    return tf.io.encode_png(images, compression=_COMPRESSION)


def decoded(files: tf.Tensor, shape: tuple[int, ...], transform: Transform | None, name: str) -> tf.Tensor:
    """Images uint8 [N, H, W, C] of files in PNG or JPEG, strings [N].

    The pixels are those that `tfcq.data.decoding` gives, which decodes by Pillow: a palette is its colours, an opaque alpha
    channel is dropped, a JPEG is turned as its EXIF segment says (not XMP, nor what a PNG says). Sizes are looked at before
    any pixel is decoded, so that a small file cannot demand much memory. The graph fails with INVALID_ARGUMENT for other kinds
    of files, sizes that `transform` refuses, another kind of colours where it converts none, transparent pixels, CMYK, more
    than 8 bits a value, and damaged files.

    Args:
        files: strings [N].
        shape: (H, W, C) of each image.
        transform: what training does to the images of the data set; None: nothing, and files must have exactly `shape`.
        name: of the input, for the messages.
    """
    start = tf.cast(tf.io.decode_raw(files, tf.uint8, fixed_length=_COLOURS + 1), tf.int32)  # zeros after the end of a file
    is_png = tf.reduce_all(start[:, : len(_PNG)] == _PNG, axis=1)
    is_file = is_png | tf.reduce_all(start[:, : len(_JPEG)] == _JPEG, axis=1)
    checks = [
        require(
            tf.reduce_all(is_file),
            f"{name}: expected PNG or JPEG files (by REST base64 in an object b64), received some that begin with bytes",
            start[~is_file][:, :8],
        ),
        require(
            tf.reduce_all(~is_png | (start[:, _DEPTH] <= 8)),
            f"{name}: expected at most 8 bits for a value of a PNG, received",
            start[is_png][:, _DEPTH],
        ),
    ]
    place = [1 << 24, 1 << 16, 1 << 8, 1]
    sizes = tf.stack([tf.reduce_sum(start[:, part] * place, axis=1) for part in (_HEIGHT, _WIDTH)], axis=1)
    grey = tf.reduce_any(start[:, _COLOURS, None] == _OF_GREY, axis=1)

    def image(row):
        file, is_png, png_size, is_grey, depth = row
        png_shape = tf.concat([png_size, [tf.where(is_grey, 1, 3)]], 0)
        found = tf.cond(is_png, lambda: png_shape, lambda: tf.io.extract_jpeg_shape(file))
        with tf.control_dependencies(_checks(found, shape, transform, name)):
            pixels = tf.cond(is_png, lambda: _of_png(file, is_grey, depth, name), lambda: _of_jpeg(file))
        if transform is None:
            return pixels
        return preparing.prepared(pixels, transform)

    with tf.control_dependencies(checks):
        # One by one, for the sake of memory. The shape is declared out here: inside, the graph optimizer would believe it.
        given = (tf.identity(files), is_png, sizes, grey, start[:, _DEPTH])
        images = tf.map_fn(image, given, fn_output_signature=tf.uint8, parallel_iterations=1)
        return tf.ensure_shape(images, (None, *shape))


def _checks(found, shape, transform, name):
    """Operations that fail if a picture whose file says (h, w, c) cannot become an image of `shape`."""
    size, channels = found[:2], found[2]
    checks = []

    def expect(condition, what, value=size):
        checks.append(require(condition, f"{name}: expected {what}, received", value))

    few = tf.reduce_prod(tf.cast(size, tf.int64)) <= MOST_PIXELS
    expect(few & tf.reduce_all(size > 0), f"at most {MOST_PIXELS} pixels, by height and width")
    expect((channels == 1) | (channels == 3), "1 channel (grey) or 3 (rgb)", channels)
    if transform is None:
        expect(tf.reduce_all(size == shape[:2]), f"height and width {list(shape[:2])}")
    elif transform.center_crop:
        expect(tf.reduce_all(size >= transform.center_crop), f"height and width of at least {transform.center_crop}")
    elif transform.resize == "pad":
        expect(tf.reduce_min(size) <= transform.image_size, f"a height or width of at most {transform.image_size}")
    if transform is None or transform.same_channels_as:
        expect(channels == shape[2], f"{KINDS[shape[2]]} pictures, {shape[2]} channel(s)", channels)
    return checks


def _of_png(file, is_grey, depth, name):
    pixels = tf.io.decode_png(file, channels=4)  # red, green, blue, opacity, whatever the file has
    opacity = tf.cast(tf.reduce_min(pixels[..., 3]), tf.int32)
    unspread = tf.bitwise.left_shift(1, tf.minimum(depth, 8)) - 1  # what libpng adds to few bits
    is_opaque = (opacity == 255) | (opacity == unspread)
    opaque = require(is_opaque, f"{name}: expected an opaque picture, received pixels with an opacity of", opacity)
    with tf.control_dependencies([opaque]):
        return tf.cond(is_grey, lambda: pixels[..., :1], lambda: pixels[..., :3])


def _of_jpeg(file):
    pixels = tf.io.decode_jpeg(file, dct_method="INTEGER_ACCURATE")
    return preparing.upright(pixels, preparing.orientation_of(file))
