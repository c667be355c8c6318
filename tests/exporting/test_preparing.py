"""Files of any size become in a graph, to the byte, what training makes of them by Pillow and NumPy; or are refused as there."""

import functools
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfcq.data.decoding import decode
from tfcq.data.transforms import Transform
from tfcq.data.unfit import UnfitImage
from tfcq.exporting import pictures, preparing

RANDOM = np.random.default_rng(0)


@functools.cache
def in_graph(transform):
    """A function from files to images, of one graph."""
    specs = [tf.TensorSpec([None], tf.string)]
    return tf.function(lambda files: pictures.decoded(files, transform.shape, transform, "files"), specs, autograph=False)


def as_in_training(file, transform):
    pixels = decode(io.BytesIO(file), "a picture")
    transform.check(pixels.shape, "a picture")
    return transform(pixels[None])[0]


def picture(height, width, channels=3):
    return Image.fromarray(RANDOM.integers(0, 256, (height, width, channels), np.uint8).squeeze(2 if channels == 1 else ()))


def file(image, kind="PNG", **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


SIZES = [(1, 1), (3, 7), (8, 8), (9, 9), (31, 64), (64, 31), (33, 32), (97, 101), (600, 401)]
TRANSFORMS = {
    "enlarged and shrunk to 8": Transform(8, 0, "area", 3),
    "33, grey": Transform(33, 0, "area", 1),
    "one pixel": Transform(1, 0, "area", 3),
    "cut to 31, then 7": Transform(7, 31, "area", 1),
    "padded to 32": Transform(32, 0, "pad", 3),
    "cut to 9, padded to 12": Transform(12, 9, "pad", 1),
    "of one kind": Transform(16, 0, "area", 3, "the first"),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_pictures_are_cut_and_resized_as_in_training(name):
    transform, compared, refused = TRANSFORMS[name], [], 0
    for size in SIZES:
        for channels in (1, 3):
            for kind in ("PNG", "JPEG"):
                compared.append(file(picture(*size, channels), kind))
    function = in_graph(transform)
    for one in compared:
        try:
            expected = as_in_training(one, transform)
        except UnfitImage:
            refused += 1
            with pytest.raises(tf.errors.InvalidArgumentError):
                function(tf.constant([one]))
        else:
            assert np.array_equal(function(tf.constant([one]))[0], expected)
    assert len(compared) - refused >= 8 and bool(refused) == ("cut" in name or "pad" in name or "kind" in name)


def test_pictures_of_one_request_may_differ():
    files = [file(picture(40, 30)), file(picture(8, 8, 1)), file(picture(100, 90), "JPEG")]
    transform = Transform(16, 0, "area", 3)
    expected = np.stack([as_in_training(one, transform) for one in files])
    assert np.array_equal(in_graph(transform)(tf.constant(files)), expected)


def exif(orientation, endian):
    found = Image.Exif()
    found.endian = endian
    found[0x010F], found[0x0112], found[0x0132] = "a maker", orientation, "2020:01:01 00:00:00"
    return found.tobytes()


@pytest.mark.parametrize("endian", "<>")
@pytest.mark.parametrize("orientation", range(10))
def test_a_jpeg_is_turned_as_it_says(orientation, endian):
    content = file(picture(9, 14), "JPEG", exif=exif(orientation, endian), progressive=orientation == 6)
    transform = Transform(9, 0, "pad", 3)
    assert np.array_equal(in_graph(transform)(tf.constant([content]))[0], as_in_training(content, transform))


@pytest.mark.parametrize("damage", range(40))
def test_a_damaged_exif_segment_never_turns_otherwise_than_in_training(damage):
    whole = exif(6, "<")
    broken = bytearray(whole)
    random = np.random.default_rng(damage)
    for place in random.integers(6, len(whole), 3):
        broken[place] = random.integers(256)
    content = file(picture(9, 14), "JPEG", exif=bytes(broken[: random.integers(7, len(whole) + 1)]))
    found = ORIENTATION(tf.constant(content)).numpy()
    try:
        expected = Image.open(io.BytesIO(content)).getexif().get(0x0112, 1)
    except Exception:
        expected = 1
    assert 1 <= found <= 8
    if expected in range(2, 9):  # Pillow gives up at a damaged entry before this one, and then says 1
        assert found in (expected, 1)


ORIENTATION = tf.function(preparing.orientation_of, [tf.TensorSpec([], tf.string)], autograph=False)


def test_other_files_than_jpegs_with_exif_are_upright():
    begun = (b"\xff\xd8\xff", b"\xff\xd8\xff\xe1\x00", b"\xff\xd8" + b"\xff\xe1\x00\x02" * 9, b"")
    for content in (file(picture(4, 4), "JPEG"), *begun):
        assert ORIENTATION(tf.constant(content)).numpy() == 1


TRANSPARENT = picture(12, 12).convert("RGBA")
TRANSPARENT.putpixel((3, 4), (1, 2, 3, 254))
KINDS = {
    "palette": (picture(12, 12).convert("P"), {}),
    "palette, opaque": (picture(12, 12).convert("P"), {"transparency": b"\xff" * 256}),
    "palette, transparent": (picture(12, 12).convert("P"), {"transparency": bytes(range(256))}),
    "palette, 4 bits": (picture(12, 12).quantize(16), {"bits": 4}),
    "palette, 4 bits, opaque": (picture(12, 12).quantize(16), {"bits": 4, "transparency": b"\xff" * 16}),
    "palette, 4 bits, transparent": (picture(12, 12).quantize(16), {"bits": 4, "transparency": bytes(range(100, 116))}),
    "one bit": (picture(12, 12, 1).convert("1"), {}),
    "one bit, transparent": (picture(12, 12, 1).convert("1"), {"transparency": 0}),
    "grey, opaque": (picture(12, 12, 1).convert("LA"), {}),
    "rgb, opaque": (picture(12, 12).convert("RGBA"), {}),
    "rgb, transparent": (TRANSPARENT, {}),
    "rgb, a transparent colour": (Image.new("RGB", (12, 12), (1, 2, 3)), {"transparency": (1, 2, 3)}),
    "16 bits": (Image.fromarray(RANDOM.integers(0, 2**16, (12, 12)).astype(np.uint16)), {}),
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds_of_png_are_what_they_are_in_training(name):
    image, options = KINDS[name]
    content, transform = file(image, **options), Transform(8, 0, "area", 3)
    function = in_graph(transform)
    if "transparent" in name or "16" in name:
        with pytest.raises(UnfitImage):
            as_in_training(content, transform)
        with pytest.raises(tf.errors.InvalidArgumentError, match="an opaque picture|at most 8 bits"):
            function(tf.constant([content]))
    else:
        assert np.array_equal(function(tf.constant([content]))[0], as_in_training(content, transform))


def test_what_cannot_be_prepared_is_refused_with_the_reason():
    content = file(picture(12, 10))
    huge = content[:16] + (10000).to_bytes(4, "big") * 2 + content[24:]
    cmyk = file(picture(12, 10).convert("CMYK"), "JPEG")
    for one, transform, reason in (
        (huge, Transform(8, 0, "area", 3), "files: expected at most 33554432 pixels, by height and width, received"),
        (cmyk, Transform(8, 0, "area", 3), "files: expected 1 channel (grey) or 3 (rgb), received"),
        (content, Transform(8, 11, "area", 3), "files: expected height and width of at least 11, received"),
        (content, Transform(8, 0, "pad", 3), "files: expected a height or width of at most 8, received"),
        (content, Transform(8, 0, "area", 1, "the first"), "files: expected grey pictures, 1 channel(s), received"),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            in_graph(transform)(tf.constant([one]))
        assert reason in caught.value.message
