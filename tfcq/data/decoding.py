"""Image files to arrays, by Pillow.

Only the formats in `FORMATS` are opened, whatever a file's name says: for others, Pillow starts a program (EPS: Ghostscript)
or runs code that is rarely exercised. A file whose content has another of these formats than its name suggests is read like
any other.

How each kind of image is handled:

| kind | decision |
|---|---|
| grey of 1, 2, 4 or 8 bits (also PGM and PBM) | grey; fewer bits are spread over 0 to 255, one bit is 0 and 255 |
| RGB of 8 bits, YCbCr (JPEG, TIFF) | rgb; YCbCr by JPEG's formula (ITU-T T.871) |
| palette | rgb; a GIF whose palette is the ramp of all greys is grey |
| alpha channel, transparent colour | dropped where every pixel is opaque; otherwise refused, as no background is given |
| animation (GIF, WEBP, PNG), pages (TIFF), pictures of an MPO as phones write it | the first one |
| 16 bits a channel, 32-bit integers, floats | refused: which range becomes 0 to 255 is a choice |
| CMYK, CIE Lab | refused: conversion to RGB needs a colour profile |
| colour profile, gamma | not applied: pixels are the numbers in the file |
| EXIF orientation (in XMP too) | honoured; a truncated value or one outside 1 to 8 is ignored |
| other EXIF, whole or broken | ignored |
| more than twice `PIL.Image.MAX_IMAGE_PIXELS` (179 million pixels) | refused: such files are made to exhaust the memory |
"""

from __future__ import annotations

import contextlib
import os
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from tfcq.data.jpeg_quality import quality_of
from tfcq.data.unfit import UnfitImage

ImageFile = str | os.PathLike | BinaryIO
"""A path, or a binary file object."""

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
"""Pillow's names for the formats that are opened. JPEG includes MPO; PPM includes PGM, PBM and PNM."""

GREY_MODES = ("1", "L", "LA")
RGB_MODES = ("RGB", "RGBA", "RGBX", "P", "PA", "YCbCr")

_BITS_PER_SAMPLE = 258  # TIFF's tag

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How to turn an image of each EXIF orientation; 1 is upright."""


def decode(file: ImageFile, name: str) -> np.ndarray:
    """The image in `file` (a path or a binary file object), uint8 [h, w, c] with c 1 (grey) or 3 (rgb).

    Raises:
        UnfitImage: not an image, truncated, corrupt, or of a kind that the table above refuses; the message has `name`.
    """
    with _opened(file, name) as image:
        channels = _channels(image, name)
        image.load()
        _refuse_transparency(image, name)
        turn = _TURNS.get(_orientation(image))
        if turn is not None:
            image = image.transpose(turn)
        array = np.asarray(image.convert("L" if channels == 1 else "RGB"))
        return array.reshape(*array.shape[:2], channels)


def verify(file: ImageFile, name: str) -> tuple[int, int, int]:
    """(h, w, c) of the image, before EXIF turns it; raises what `decode` would raise.

    The file is read to its end, but a JPEG is decoded at an eighth of its size, which takes a half to a tenth of the time.
    """
    with _opened(file, name) as image:
        shape = image.height, image.width, _channels(image, name)
        image.draft(None, (1, 1))
        image.load()
        _refuse_transparency(image, name)
        return shape


def format_of(file: ImageFile, name: str) -> tuple[str, tuple[int, int, int]]:
    """(format, and (h, w, c) before EXIF turns it) of an image, of whose file only the beginning is read.

    The format is one of `FORMATS`; that of a JPEG is followed by its quality as far as it can be told: "JPEG 75".

    Raises:
        UnfitImage: not an image, or one of a kind that the table above refuses by its mode.
    """
    with _opened(file, name) as image:
        image_format = "JPEG" if image.format == "MPO" else image.format
        tables = getattr(image, "quantization", None) if image_format == "JPEG" else None
        if tables and len(tables.get(0, ())) == 64:
            image_format = f"JPEG {quality_of(tables[0])}"
        return image_format, (image.height, image.width, _channels(image, name))


@contextlib.contextmanager
def _opened(file, name):
    try:
        with Image.open(file, formats=FORMATS) as image:
            yield image
    except UnfitImage:
        raise
    except MemoryError as error:
        raise UnfitImage(f"{name}: too little memory to decode it", name, "too little memory") from error
    except UnidentifiedImageError as error:
        raise _broken(name, f"no {', '.join(FORMATS[:-1])} or {FORMATS[-1]}") from error
    except Exception as error:  # Pillow's decoders raise nearly every class on broken files
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if isinstance(error, OSError) and error.errno is not None:  # an error of the system: Pillow's own have no errno
            reason = error.strerror or reason
            raise UnfitImage(f"{name}: cannot be opened: {reason}", name, reason) from error
        raise _broken(name, reason) from error


def _broken(name, reason):
    return UnfitImage(
        f"{name}: expected a whole image file, received one that cannot be read ({reason}); fix or remove it, or leave out "
        "what cannot be used by --skip_broken_images",
        name,
        reason,
        "broken",
    )


def _channels(image, name):
    bits = _bits(image)
    if bits > 8 or image.mode not in GREY_MODES + RGB_MODES:
        if image.mode == "F":
            kind = "floats"
        else:
            kind = f"{bits} bits a channel" if bits > 8 else f"mode {image.mode}"
        raise UnfitImage(
            f"{name}: expected 8-bit grey or RGB, received {kind}; convert it, or leave out what cannot be used by "
            "--skip_broken_images",
            name,
            kind,
            kind,
        )
    return 1 if image.mode in GREY_MODES else 3


def _bits(image):
    """Bits per channel. Pillow opens 16-bit RGB files as 8-bit ones; only its decoder's arguments show the difference."""
    if image.format == "TIFF":
        return max(np.ravel(image.tag_v2.get(_BITS_PER_SAMPLE, 1)))
    if image.mode == "F":
        return 32
    if image.mode.startswith("I"):
        return 16
    for codec, _, _, arguments in image.tile:
        if image.format == "PNG" and "16" in str(arguments):  # a raw mode such as RGB;16B
            return 16
        if image.format == "PPM" and codec != "raw" and isinstance(arguments, tuple) and arguments[-1] > 255:  # the maximum
            return 16
    return 8


def _refuse_transparency(image, name):
    if "A" not in image.mode and "transparency" not in image.info:
        return
    if image.convert("RGBA").getchannel("A").getextrema()[0] < 255:
        raise UnfitImage(
            f"{name}: expected an opaque image, received transparent pixels; flatten it on a background of your choice, or "
            "leave out what cannot be used by --skip_broken_images",
            name,
            "transparent pixels",
            "transparent",
        )


def _orientation(image):
    """The EXIF orientation, or 1 if none can be read."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # truncated EXIF, wrong types, nonsense: any class of error
        return 1
    return orientation if isinstance(orientation, int) else 1
