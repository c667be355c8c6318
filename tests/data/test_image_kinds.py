"""Kinds of image files: formats, modes, EXIF, broken bytes. Each decision of the table in tfcq/data/decoding.py."""

import io
import os
import random
import struct
import subprocess
import zlib

import numpy as np
import pytest
from PIL import Image

from tfcq.data.decoding import FORMATS, decode, format_of, verify
from tfcq.data.unfit import UnfitImage

RGB = np.random.RandomState(0).randint(0, 256, (6, 4, 3)).astype(np.uint8)
GREY = RGB[..., 0]
RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
SMOOTH = np.add.outer(np.arange(32) * 4, np.arange(24) * 4).astype(np.uint8)


def encoded(image, file_format, **options):
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, file_format, **options)
    return file.getvalue()


def both(content):
    """What `decode` makes of bytes; `verify` must agree."""
    image = decode(io.BytesIO(content), "a")
    height, width, channels = verify(io.BytesIO(content), "a")
    assert channels == image.shape[2] and sorted((height, width)) == sorted(image.shape[:2])
    assert image.dtype == np.uint8
    return image


def refusal(content, reader=decode):
    with pytest.raises(UnfitImage) as caught:
        reader(io.BytesIO(content), "a.png")
    assert "\n" not in str(caught.value) and str(caught.value).startswith("a.png: ")
    return caught.value


# EXIF.


def entry(tag, kind, count, value):
    return struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")[:4]


def directory(*entries, next_directory=0):
    """A little-endian TIFF header and one directory of entries, as EXIF is."""
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", next_directory)


ORIENTATION, SHORT = 0x112, 3
UPRIGHT_6 = entry(ORIENTATION, SHORT, 1, b"\6\0")
BAD_EXIF = {
    "text": directory(entry(ORIENTATION, 2, 2, b"6\0")),
    "bytes": directory(entry(ORIENTATION, 7, 4, b"\6\0\0\0")),
    "two shorts": directory(entry(ORIENTATION, SHORT, 2, b"\x09\0\6\0")),
    "none": directory(entry(ORIENTATION, SHORT, 0, b"\6\0")),
    "too many": directory(entry(ORIENTATION, SHORT, 2**32 - 1, b"\6\0")),
    "rational nowhere": directory(entry(ORIENTATION, 5, 1, b"\xff\xff\xff\x7f")),
    "double nowhere": directory(entry(ORIENTATION, 12, 1, b"\xff\0\0\0")),
    "no such type": directory(entry(ORIENTATION, 99, 1, b"\6\0")),
    "9": directory(entry(ORIENTATION, SHORT, 1, b"\x09\0")),
    "-6": directory(entry(ORIENTATION, 8, 1, b"\xfa\xff")),
    "huge": directory(entry(ORIENTATION, 4, 1, b"\xff\xff\xff\xff")),
    "a loop": directory(entry(0x8769, 4, 1, b"\x08\0\0\0"), next_directory=8),
    "many entries": b"II*\0\x08\0\0\0\xff\xff" + bytes(60),
    "empty": b"",
    "no header": b"nonsense, but long enough for a header",
    "only a header": b"II*\0",
    "directory nowhere": b"II*\0\xff\xff\xff\xff",
    "cut in the count": directory(UPRIGHT_6)[:9],
    "cut in the entry": directory(UPRIGHT_6)[:16],
    "megabytes": directory(entry(0x927C, 7, 50000, b"\x1a\0\0\0")) + bytes(50000),
}


def with_exif(file_format, exif):
    """GREY in a file of a format, with these bytes as EXIF. A PNG's, WEBP's and JPEG's are all what the plain image gives."""
    return encoded(GREY if file_format != "WEBP" else RGB, file_format, exif=b"Exif\0\0" + exif)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("exif", BAD_EXIF.values(), ids=BAD_EXIF)
@pytest.mark.filterwarnings("ignore")  # Pillow's own, about what it read
def test_broken_exif_counts_as_none(file_format, exif):
    plain = encoded(GREY if file_format != "WEBP" else RGB, file_format)
    np.testing.assert_array_equal(both(with_exif(file_format, exif)), both(plain))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.filterwarnings("ignore")
def test_exif_cut_anywhere_is_whole_or_none(file_format):
    whole = directory(entry(0x11A, 5, 1, b"\x26\0\0\0"), UPRIGHT_6) + struct.pack("<II", 72, 1)
    upright = both(with_exif(file_format, b""))
    turned = np.rot90(upright, -1)
    found = [both(with_exif(file_format, whole[:length])) for length in range(len(whole) + 1)]
    for image in found:
        assert np.array_equal(image, upright) or np.array_equal(image, turned)
    assert np.array_equal(found[-1], turned) and np.array_equal(found[0], upright)


# Tags beside a good orientation: whoever writes the EXIF anew without it, as Pillow's `exif_transpose`, stumbles over them.
OTHER_TAGS = {
    "width of text": entry(0x100, 2, 4, b"six\0"), "negative width": entry(0x100, 8, 1, b"\xff\xff"),
    "text of numbers": entry(0x10E, 4, 1, b"\xff\xff\xff\xff"), "bytes of numbers": entry(0x111, 7, 4, b"abcd"),
    "rational of text": entry(0x11A, 2, 3, b"72\0"), "a float": entry(0x101, 11, 1, b"\0\0\x80\x7f"),
    "directory of text": entry(0x8769, 2, 4, b"abc\0"), "directory nowhere": entry(0x8825, 4, 1, b"\xff\xff\xff\xff"),
    "directory at itself": entry(0x8769, 4, 1, b"\x08\0\0\0"),
}


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("other", OTHER_TAGS.values(), ids=OTHER_TAGS)
@pytest.mark.filterwarnings("ignore")
def test_a_good_orientation_beside_broken_tags_is_honoured(file_format, other):
    exif = directory(*sorted((UPRIGHT_6, other), key=lambda row: struct.unpack_from("<H", row)))
    upright = both(with_exif(file_format, b""))
    np.testing.assert_array_equal(both(with_exif(file_format, exif)), np.rot90(upright, -1))


def grey_tiff(*entries):
    """GREY as an uncompressed TIFF by hand, with more entries."""
    height, width = GREY.shape
    own = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 0), (277, 1), (278, height), (279, GREY.size)]
    rows = [entry(tag, 4, 1, struct.pack("<I", value)) for tag, value in own] + list(entries)
    rows.sort(key=lambda row: struct.unpack_from("<H", row))
    start = struct.pack("<I", len(directory(*rows)))
    rows = [row[:8] + start if row[:2] == struct.pack("<H", 273) else row for row in rows]
    return directory(*rows) + GREY.tobytes()


TIFF_ORIENTATIONS = [
    (2, 2, b"6\0"), (7, 4, b"\6\0\0\0"), (3, 2, b"\x09\0\6\0"), (3, 0, b"\6\0"), (3, 2**32 - 1, b"\6\0"),
    (5, 1, b"\xff\xff\xff\x7f"), (12, 1, b"\xff\0\0\0"), (99, 1, b"\6\0"), (3, 1, b"\x09\0"), (8, 1, b"\xfa\xff"),
    (4, 1, b"\xff\xff\xff\xff"),
]


@pytest.mark.parametrize("kind, count, value", TIFF_ORIENTATIONS)
@pytest.mark.filterwarnings("ignore")
def test_a_broken_orientation_of_a_tiff_counts_as_none(kind, count, value):
    np.testing.assert_array_equal(both(grey_tiff(entry(ORIENTATION, kind, count, value)))[..., 0], GREY)


# What orientation v asks for, by EXIF 2.32, 4.6.4: where the stored 0th row and 0th column lie in the scene.
SCENES = {
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, -1), 7: lambda a: a[::-1, ::-1].swapaxes(0, 1), 8: np.rot90,
}


@pytest.mark.parametrize("orientation", SCENES)
def test_each_orientation_in_each_format(orientation):
    exif = directory(entry(ORIENTATION, SHORT, 1, bytes([orientation])))
    for file_format in ("JPEG", "PNG", "WEBP"):
        upright = both(with_exif(file_format, b""))
        np.testing.assert_array_equal(both(with_exif(file_format, exif)), SCENES[orientation](upright))
    tiff = grey_tiff(entry(ORIENTATION, SHORT, 1, bytes([orientation])))
    np.testing.assert_array_equal(both(tiff)[..., 0], SCENES[orientation](GREY))


# Formats.


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.eps"])
@pytest.mark.parametrize("reader", [decode, verify])
def test_postscript_starts_no_program(tmp_path, monkeypatch, name, reader):
    """Pillow opens an EPS file under any name, and its `load` starts Ghostscript where there is one."""
    started = []
    monkeypatch.setattr(subprocess, "check_call", lambda *arguments, **options: started.append(arguments))
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", "gs")
    monkeypatch.setattr("PIL.EpsImagePlugin.has_ghostscript", lambda: True)
    (tmp_path / name).write_bytes(encoded(RGB, "EPS"))
    with pytest.raises(UnfitImage) as caught:
        reader(str(tmp_path / name), "a.jpg")
    assert not started and "no PNG, JPEG, WEBP, BMP, TIFF, GIF or PPM" in str(caught.value)


@pytest.mark.parametrize("file_format", ["ICO", "TGA", "PCX", "SGI", "IM", "JPEG2000", "AVIF", "EPS", "ICNS", "DDS", "XBM"])
def test_other_formats_are_refused(file_format):
    Image.init()
    if file_format not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {file_format}")
    image = Image.fromarray(np.zeros((64, 64, 3), np.uint8)).convert("1" if file_format == "XBM" else "RGB")
    assert "no PNG, JPEG" in str(refusal(encoded(image, file_format)))


@pytest.mark.parametrize("content_of", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "MPO"])
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_a_file_of_another_allowed_format_than_its_name_says_is_read(tmp_path, content_of, name):
    (tmp_path / name).write_bytes(encoded(SMOOTH, content_of))
    image = decode(str(tmp_path / name), name)
    assert np.abs(image[..., 0].astype(int) - SMOOTH).max() <= (8 if content_of in ("JPEG", "WEBP", "MPO") else 0)


def test_formats_are_known_to_pillow():
    Image.init()
    assert set(FORMATS) <= set(Image.OPEN)


# Kinds of pixels.


def png(header, rows, *chunks):
    """A PNG by hand."""
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", *header, 0, 0, 0)) +
            b"".join(chunk(*one) for one in chunks) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def tiff_of(bits, photometric, samples, content, sample_format=1):
    """A 2x2 TIFF by hand."""
    own = {256: 2, 257: 2, 259: 1, 262: photometric, 273: 0, 277: samples, 278: 2, 279: len(content), 339: sample_format}
    rows = {tag: entry(tag, 4, 1, struct.pack("<I", value)) for tag, value in own.items()}
    rows[258] = entry(258, SHORT, 1, struct.pack("<H", bits))
    if samples == 3:  # three numbers do not fit into the entry
        size = len(directory(*rows.values()))
        rows[258] = entry(258, SHORT, 3, struct.pack("<I", size))
        content = struct.pack("<HHH", bits, bits, bits) + content
        rows[273] = entry(273, 4, 1, struct.pack("<I", size + 6))
    else:
        rows[273] = entry(273, 4, 1, struct.pack("<I", len(directory(*rows.values()))))
    return directory(*(rows[tag] for tag in sorted(rows))) + content


def ycbcr_to_rgb(values):
    """ITU-T T.871, section 7, in float64."""
    luma, blue, red = np.moveaxis(values.astype(np.float64), -1, 0)
    channels = (luma + 1.402 * (red - 128), luma - 0.344136 * (blue - 128) - 0.714136 * (red - 128), luma + 1.772 * (blue - 128))
    return np.clip(np.rint(np.stack(channels, -1)), 0, 255)


USED = {
    "1-bit PNG": (encoded(Image.fromarray(np.eye(8, dtype=bool)), "PNG"), 255 * np.eye(8)),
    "1-bit TIFF": (encoded(Image.fromarray(np.eye(8, dtype=bool)), "TIFF"), 255 * np.eye(8)),
    "1-bit PBM": (b"P1 2 2 0 1 1 0", [[255, 0], [0, 255]]),
    "2-bit PNG": (png((4, 1, 2, 0), b"\0\x1b"), [[0, 85, 170, 255]]),
    "4-bit PNG": (png((2, 1, 4, 0), b"\0\x1f"), [[17, 255]]),
    "4-bit PGM": (b"P5 2 1 15 \x01\x0f", [[17, 255]]),
    "grey": (encoded(GREY, "PNG"), GREY),
    "grey GIF": (encoded(RAMP, "GIF"), RAMP),
    "opaque grey alpha": (encoded(Image.merge("LA", [Image.fromarray(GREY), Image.new("L", (4, 6), 255)]), "PNG"), GREY),
    "RGB BMP": (encoded(RGB, "BMP"), RGB),
    "RGB TIFF": (encoded(RGB, "TIFF"), RGB),
    "packed TIFF": (encoded(RGB, "TIFF", compression="tiff_lzw"), RGB),
    "RGB PPM": (encoded(RGB, "PPM"), RGB),
    "opaque alpha": (encoded(np.dstack([RGB, np.full((6, 4), 255, np.uint8)]), "PNG"), RGB),
    "unused fourth channel": (encoded(Image.fromarray(RGB).convert("RGBX"), "TIFF"), RGB),
    "palette": (encoded(Image.fromarray(RGB).quantize(24), "PNG"), np.asarray(Image.fromarray(RGB).quantize(24).convert("RGB"))),
    "palette GIF": (encoded(Image.fromarray(RGB).quantize(24), "GIF"),
                    np.asarray(Image.fromarray(RGB).quantize(24).convert("RGB"))),
    "animated GIF": (encoded(RAMP, "GIF", save_all=True, append_images=[Image.fromarray(255 - RAMP)]), RAMP),
    "animated PNG": (encoded(RGB, "PNG", save_all=True, append_images=[Image.fromarray(255 - RGB)]), RGB),
    "animated WEBP": (encoded(RGB, "WEBP", lossless=True, save_all=True, append_images=[Image.fromarray(255 - RGB)]), RGB),
    "pages of a TIFF": (encoded(GREY, "TIFF", save_all=True, append_images=[Image.fromarray(255 - GREY)]), GREY),
}


@pytest.mark.parametrize("content, expected", USED.values(), ids=USED)
def test_kinds_that_are_used(content, expected):
    expected = np.asarray(expected)
    np.testing.assert_array_equal(both(content), expected if expected.ndim == 3 else expected[..., None])


def test_ycbcr_is_converted_by_the_formula_of_jpeg():
    values = np.random.RandomState(1).randint(0, 256, (16, 16, 3)).astype(np.uint8)
    image = both(encoded(Image.frombytes("YCbCr", (16, 16), values.tobytes()), "TIFF"))
    assert np.abs(image - ycbcr_to_rgb(values)).max() <= 1  # Pillow's integer tables round each term


def test_the_first_picture_of_a_phones_file_is_used():
    """MPO: several JPEG pictures in one file that is named .jpg."""
    other = Image.fromarray(255 - SMOOTH)
    several = encoded(SMOOTH, "MPO", save_all=True, append_images=[other])
    assert Image.open(io.BytesIO(several)).format == "MPO"
    np.testing.assert_array_equal(both(several), both(encoded(SMOOTH, "JPEG")))


def transparent_palette():
    image = Image.fromarray(RGB).quantize(8)
    return encoded(image, "PNG", transparency=image.getpixel((0, 0)))


FLOATS = np.float32([[0, 0.5], [1, 2]])
REFUSED = {
    "16-bit grey PNG": (png((2, 1, 16, 0), b"\0" + bytes(4)), "16 bits a channel"),
    "16-bit RGB PNG": (png((1, 1, 16, 2), b"\0" + bytes(6)), "16 bits a channel"),
    "16-bit RGBA PNG": (png((1, 1, 16, 6), b"\0" + bytes(8)), "16 bits a channel"),
    "16-bit grey TIFF": (encoded(np.zeros((2, 2), np.uint16), "TIFF"), "16 bits a channel"),
    "16-bit RGB TIFF": (tiff_of(16, 2, 3, bytes(24)), "16 bits a channel"),
    "12-bit grey TIFF": (tiff_of(12, 1, 1, bytes(6)), "12 bits a channel"),
    "16-bit PGM": (b"P5 2 1 65535 " + bytes(4), "16 bits a channel"),
    "10-bit PGM": (b"P5 2 1 1023 " + bytes(4), "16 bits a channel"),
    "16-bit PPM": (b"P6 1 1 65535 " + bytes(6), "16 bits a channel"),
    "16-bit plain PPM": (b"P3 1 1 65535 0 0 0", "16 bits a channel"),
    "integers TIFF": (encoded(np.zeros((2, 2), np.int32), "TIFF"), "32 bits a channel"),
    "float TIFF": (encoded(FLOATS, "TIFF"), "floats"),
    "float PFM": (encoded(FLOATS, "PPM"), "floats"),
    "CMYK JPEG": (encoded(Image.new("CMYK", (8, 8)), "JPEG"), "mode CMYK"),
    "CMYK TIFF": (encoded(Image.new("CMYK", (8, 8)), "TIFF"), "mode CMYK"),
    "Lab TIFF": (encoded(Image.new("LAB", (8, 8)), "TIFF"), "mode LAB"),
    "transparent pixels": (encoded(np.dstack([RGB, np.full((6, 4), 254, np.uint8)]), "PNG"), "transparent"),
    "transparent WEBP": (encoded(np.dstack([RGB, np.zeros((6, 4), np.uint8)]), "WEBP", lossless=True), "transparent"),
    "transparent TIFF": (encoded(np.dstack([RGB, np.zeros((6, 4), np.uint8)]), "TIFF"), "transparent"),
    "transparent colour": (transparent_palette(), "transparent"),
    "transparent grey": (encoded(np.zeros((2, 2), np.uint8), "PNG", transparency=0), "transparent"),
}


@pytest.mark.parametrize("content, kind", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("reader", [decode, verify])
def test_kinds_that_are_refused(content, kind, reader):
    error = refusal(content, reader)
    assert error.kind == kind and kind in str(error) and "--skip_broken_images" in str(error)


def test_a_file_that_fills_the_memory_is_refused_by_its_header(monkeypatch):
    bomb = png((20000, 20000, 8, 2), b"")
    assert "decompression bomb" in str(refusal(bomb)) and refusal(bomb).kind == "broken"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert both(encoded(GREY, "PNG")).shape == (6, 4, 1)
    assert refusal(encoded(SMOOTH, "PNG")).kind == "broken"


def test_a_text_chunk_that_unpacks_to_megabytes_is_refused():
    bomb = zlib.compress(bytes(64 * 2**20))
    content = png((1, 1, 8, 0), b"\0\0", (b"zTXt", b"note\0\0" + bomb))
    assert refusal(content).kind == "broken"


@pytest.mark.parametrize("path, reason", [("nowhere.png", "No such file"), ("folder.png", "Is a directory")])
def test_what_the_system_does_not_open_is_no_broken_image(tmp_path, path, reason):
    """It may come back, so that to leave it out would make another data set of a bad day."""
    os.mkdir(tmp_path / "folder.png")
    with pytest.raises(UnfitImage, match=f"cannot be opened: {reason}") as caught:
        decode(str(tmp_path / path), path)
    assert caught.value.kind == ""


def test_too_little_memory_is_no_broken_image(monkeypatch):
    def load(self):
        raise MemoryError

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    assert refusal(encoded(GREY, "PNG")).kind == ""


SEEDS = {
    "PNG": {"exif": b"Exif\0\0" + directory(UPRIGHT_6)}, "JPEG": {"exif": b"Exif\0\0" + directory(UPRIGHT_6)},
    "WEBP": {"exif": b"Exif\0\0" + directory(UPRIGHT_6)}, "BMP": {}, "TIFF": {}, "GIF": {}, "PPM": {}, "MPO": {},
}


@pytest.mark.parametrize("file_format", SEEDS)
@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes_are_an_image_or_refused(file_format, monkeypatch):
    """200 files of each format with some bytes changed, a third cut short: no other exception, the same for both readers."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10000)  # a damaged header may claim gigabytes
    whole, draw = encoded(RGB, file_format, **SEEDS[file_format]), random.Random(1)
    outcomes = set()
    for _ in range(200):
        content = bytearray(whole)
        for _ in range(draw.choice((1, 1, 2, 4, 16))):
            content[draw.randrange(len(content))] = draw.choice((0, 1, 128, 255, draw.randrange(256)))
        if draw.random() < 0.33:
            content = content[:draw.randrange(len(content))]
        results = []
        for reader in (decode, verify):
            try:
                reader(io.BytesIO(bytes(content)), "a.png")
                results.append(True)
            except UnfitImage as error:
                results.append(False)
                assert "\n" not in str(error) and error.kind
        assert results[0] == results[1]
        outcomes.add(results[0])
    assert outcomes == {True, False}


@pytest.mark.parametrize("file_format", [*FORMATS, "MPO"])
def test_the_format_and_the_size_are_known_by_the_beginning(file_format):
    """Whatever the file's name says. A picture as phones write it is a JPEG."""
    content = encoded(GREY.repeat(16, 0).repeat(16, 1), file_format)
    channels = decode(io.BytesIO(content), "x").shape[2]
    expected = "JPEG 75" if file_format in ("JPEG", "MPO") else file_format  # Pillow's own quality
    assert format_of(io.BytesIO(content), "x") == (expected, (96, 64, channels))


def test_the_format_of_what_is_no_image_is_refused():
    with pytest.raises(UnfitImage, match="x: expected a whole image file"):
        format_of(io.BytesIO(b"no image"), "x")
