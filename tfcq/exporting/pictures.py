"""Picture files in a graph: images from strings, each a whole file, and back; of exactly the model's size and channels."""

from __future__ import annotations

import tensorflow as tf

# PNG (W3C, third edition), 5.2 and 11.2.1: a signature, then the chunk IHDR with width, height and the bits of a value.
_PNG, _JPEG = tuple(b"\x89PNG\r\n\x1a\n"), (0xFF, 0xD8, 0xFF)
_WIDTH, _HEIGHT, _DEPTH = slice(16, 20), slice(20, 24), 24  # bytes
_COMPRESSION = 1  # of zlib: 64x64 pixels in 0.08 ms


def require(condition: tf.Tensor, message: str, value: tf.Tensor) -> tf.Operation:
    """An operation that fails with INVALID_ARGUMENT, a message and a value unless a condition holds when the graph runs."""
    return tf.debugging.Assert(condition, [message, value], summarize=8)


def encoded(images: tf.Tensor) -> tf.Tensor:
    """Files in PNG, strings [N], of images uint8 [N, H, W, C], C of 1 (grey) or 3 (rgb)."""
    return tf.io.encode_png(images, compression=_COMPRESSION)


def decoded(files: tf.Tensor, shape: tuple[int, ...], name: str) -> tf.Tensor:
    """Images uint8 [N, H, W, C] of files in PNG or JPEG, strings [N].

    Sizes are compared before any pixel is decoded, so that a small file cannot demand much memory. JPEG gives the pixels that
    Pillow gives; an orientation in EXIF is not applied. The graph fails with INVALID_ARGUMENT for other kinds of files,
    another size or number of channels (an alpha channel is one), more than 8 bits a value, and damaged files.

    Args:
        files: strings [N].
        shape: (H, W, C) of each image.
        name: of the input, for the messages.
    """
    start = tf.cast(tf.io.decode_raw(files, tf.uint8, fixed_length=_DEPTH + 1), tf.int32)  # zeros after the end of a file
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

    def image(row):
        file, is_png, png_size = row
        size = tf.cond(is_png, lambda: png_size, lambda: tf.io.extract_jpeg_shape(file)[:2])
        expected = f"{name}: expected height and width {list(shape[:2])}, received"
        fits = require(tf.reduce_all(size == shape[:2]), expected, size)
        with tf.control_dependencies([fits]):
            pixels = tf.cond(
                is_png,
                lambda: tf.io.decode_png(file),
                lambda: tf.io.decode_jpeg(file, dct_method="INTEGER_ACCURATE"),
            )
        channels = tf.shape(pixels)[2]
        fits = require(channels == shape[2], f"{name}: expected a number of channels of {shape[2]}, received", channels)
        with tf.control_dependencies([fits]):
            return tf.identity(pixels)

    with tf.control_dependencies(checks):
        # The shape is declared out here: inside, the graph optimizer would believe it, and drop the check of the channels.
        images = tf.map_fn(image, (tf.identity(files), is_png, sizes), fn_output_signature=tf.uint8)
        return tf.ensure_shape(images, (None, *shape))
