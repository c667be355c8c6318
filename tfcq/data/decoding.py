"""Image files to arrays, by Pillow.

What is accepted: 8 bits a channel, grey (also bilevel) or RGB (also palettes, which count as RGB). An EXIF orientation
is honoured: pixels arrive as a viewer shows them. An alpha channel is dropped where every pixel is opaque; an image
with a transparent pixel is refused, as its colours there depend on a background that nobody named. 16-bit, float and
CMYK images are refused, as turning them into 8-bit grey or RGB is a choice of range or colour profile. Animations give
their first frame.
"""

import contextlib

import numpy as np
from PIL import Image, ImageOps

from tfcq.errors import UserError

GREY_MODES = ("1", "L", "LA")
RGB_MODES = ("RGB", "RGBA", "P", "PA")

# What Pillow's decoders raise on broken files; a SyntaxError is its word for a malformed PNG.
BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, OverflowError, Image.DecompressionBombError)


def decode(file, name):
    """The image in `file` (a path or a binary file object), uint8 [h, w, c] with c 1 (grey) or 3 (rgb).

    Raises:
        UserError: no image, truncated or corrupt, or of a kind that is refused above; names it by `name`.
    """
    with _opened(file, name) as image:
        channels = _channels(image, name)
        ImageOps.exif_transpose(image, in_place=True)
        if "A" in image.mode or "transparency" in image.info:
            if image.convert("RGBA").getchannel("A").getextrema()[0] < 255:
                raise UserError(f"{name}: expected an opaque image, received transparent pixels; flatten it on a "
                                "background of your choice")
        array = np.asarray(image.convert("L" if channels == 1 else "RGB"))
        return array.reshape(*array.shape[:2], channels)


def inspect(file, name):
    """(h, w, c) of the image by its header alone; h and w are those before EXIF turns it. Raises as `decode`."""
    with _opened(file, name) as image:
        return image.height, image.width, _channels(image, name)


@contextlib.contextmanager
def _opened(file, name):
    try:
        with Image.open(file) as image:
            yield image
    except UserError:
        raise
    except BROKEN as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{name}: expected a whole image file, received one that cannot be read ({reason}); mend or "
                        "remove it") from error


def _channels(image, name):
    # Pillow opens 16-bit RGB PNG files as 8-bit ones and says so only in the decoder's arguments.
    deep = image.format == "PNG" and any("16" in str(tile[3]) for tile in image.tile)
    if deep or image.mode not in GREY_MODES + RGB_MODES:
        kind = "16 bits" if deep or image.mode.startswith("I") else f"mode {image.mode}"
        raise UserError(f"{name}: expected 8-bit grey or RGB, received {kind}; convert it")
    return 1 if image.mode in GREY_MODES else 3
