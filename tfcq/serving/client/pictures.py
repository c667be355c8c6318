"""Pictures as a client's images: paths of files, encoded bytes, PIL images, or arrays.

A file is read as training reads it (`tfcq.data.decoding`). Pictures of the model's size are sent as arrays. Others are sent as
files, which the exported model cuts, resizes and converts as training did: a JPEG as it is, all others in PNG, without loss.
Needs Pillow, which is imported when the first picture is given.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tfcq.checks import dims
from tfcq.errors import UserError

_COMPRESSION = 1  # of zlib: a server decodes it once


def is_picture(value: Any) -> bool:
    """Whether this is a path, the bytes of a file, or a PIL image."""
    return isinstance(value, str | os.PathLike | bytes | bytearray | memoryview) or _is_pil(value)


def are_pictures(value: Any) -> bool:
    """Whether this is a picture, or a list with pictures in it (and arrays)."""
    return is_picture(value) or (isinstance(value, list | tuple) and any(is_picture(one) for one in value))


class Picture:
    """A picture that can be read. Of a file its bytes are kept, not its pixels, of which a photograph has many.

    Args:
        name: what messages call it; a file adds its path or its number of bytes.
        given: a path, encoded bytes, a PIL image, or uint8 [h, w], [h, w, 1] or [h, w, 3].

    Attributes:
        label: what messages call it.

    Raises:
        UserError: a file that cannot be opened, or is no image of 8 bits in grey or RGB; another array.
    """

    def __init__(self, name: str, given: Any) -> None:
        self.label = name
        if isinstance(given, np.ndarray):
            image = given[..., None] if given.ndim == 2 else given
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3) or not image.size:
                last = "; the channels are expected last" if image.ndim == 3 and image.shape[0] in (1, 3) else ""
                raise UserError(
                    f"{name}: expected uint8 [H, W, C] with C of 1 (grey) or 3 (RGB), received {given.dtype} "
                    f"{dims(*given.shape)}{last}"
                )
            self._image: np.ndarray | None = image
            self._shape = image.shape
            return
        if not is_picture(given):
            kind = type(given).__name__
            raise UserError(f"{name}: expected a path, encoded bytes, a PIL image or an array, received {kind}")
        self.label, self._content = _file(name, given)
        self._image = None
        self._shape = _read(self.label, self._content, "verify")

    def pixels(self) -> np.ndarray:
        """uint8 [h, w, 1 or 3], turned as its EXIF says."""
        if self._image is None:
            return _read(self.label, self._content, "decode")
        return self._image

    def has_shape(self, shape: Sequence[int | None]) -> bool:
        """Whether its pixels can be an image [H, W, C] (None: any size) without any change, but for grey as equal RGB values."""
        if sorted(self._shape[:2]) != sorted(have if size is None else size for size, have in zip(shape, self._shape[:2])):
            return False  # not even turned: it need not be decoded
        pixels = self.pixels().shape
        return pixels[2] in (shape[2] or pixels[2], 1) and all(want in (None, have) for want, have in zip(shape, pixels[:2]))

    def file(self) -> bytes:
        """A PNG or JPEG file whose pixels an exported model decodes as `pixels` does."""
        if self._image is None and self._content.startswith(b"\xff\xd8\xff") and not _is_turned_by_xmp(self._content):
            return self._content
        return as_png(self.pixels())


def opened(name: str, pictures: Any) -> list[Picture]:
    """The pictures of an argument: one, or a list.

    Args:
        name: the argument's name, for messages.
        pictures: as `are_pictures` recognises them.

    Raises:
        UserError: one that cannot be read.
    """
    if is_picture(pictures):
        return [Picture(name, pictures)]
    return [Picture(f"{name}[{place}]", one) for place, one in enumerate(pictures)]


def have_shape(images: np.ndarray | list[Picture], shape: Sequence[int | None]) -> bool:
    """Whether images [N, h, w, c] or pictures can be sent as arrays of rows [H, W, C]; None: any size."""
    if isinstance(images, np.ndarray):
        return all(want in (None, have) for want, have in zip(shape, images.shape[1:]))
    return all(picture.has_shape(shape) for picture in images)


def as_files(name: str, images: np.ndarray | list[Picture]) -> np.ndarray:
    """Images [N, h, w, c] or pictures as PNG and JPEG files, an array of bytes objects [N]."""
    pictures = [Picture(name, image) for image in images] if isinstance(images, np.ndarray) else images
    files = np.empty(len(pictures), object)
    files[:] = [picture.file() for picture in pictures]
    return files


def as_images(name: str, files: Iterable[bytes]) -> np.ndarray:
    """uint8 [N, H, W, C] of a server's files, all of one size."""
    return np.stack([_read(name, file, "decode") for file in files])


def as_png(pixels: np.ndarray) -> bytes:
    """A file of uint8 [h, w, 1 or 3]."""
    from PIL import Image

    content = io.BytesIO()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image.save(content, "PNG", compress_level=_COMPRESSION)
    return content.getvalue()


def stacked(name: str, pictures: Sequence[Picture], shape: Sequence[int | None]) -> np.ndarray:
    """Pictures as uint8 [N, H, W, C], as the model declares its images.

    Args:
        name: the argument's name, for messages.
        pictures: what `opened` returns.
        shape: [H, W, C]; None in it: any size, the same for all.

    Raises:
        UserError: another size, or colours for a model of grey images.
    """
    images = [picture.pixels() for picture in pictures]
    height, width, channels = (images[0].shape[place] if size is None else size for place, size in enumerate(shape))
    rows = []
    for picture, image in zip(pictures, images, strict=True):
        if image.shape[:2] != (height, width):
            raise UserError(
                f"{name}: expected pictures of {width}x{height} pixels, received {picture.label} of "
                f"{image.shape[1]}x{image.shape[0]}; this server's model does not resize: crop or resize it as the images that "
                "the model was trained on"
            )
        if image.shape[2] != channels:
            if (image.shape[2], channels) != (1, 3):
                kinds = {1: "grey", 3: "RGB"}
                expected, received = (kinds.get(one, f"{one} channels") for one in (channels, image.shape[2]))
                raise UserError(
                    f"{name}: expected pictures in {expected}, received {picture.label} in {received}; "
                    "convert it as the images that the model was trained on"
                )
            image = np.repeat(image, 3, axis=2)
        rows.append(image)
    return np.stack(rows)


def _is_turned_by_xmp(content):
    """Whether a JPEG may have an orientation in XMP, which an exported model does not see."""
    return b"http://ns.adobe.com/xap/" in content and b"rientation" in content


def _is_pil(value):
    module = sys.modules.get("PIL.Image")  # who has a PIL image has imported it
    return module is not None and isinstance(value, module.Image)


def _file(name, given):
    """(what messages call it, the bytes of the file) of a path, bytes or a PIL image."""
    if _is_pil(given):
        label = f"{name} (a PIL image)"
        return label, _content_of_pil(label, given)
    if not isinstance(given, str | os.PathLike):
        return f"{name} ({len(given)} bytes)", bytes(given)
    path = os.path.expanduser(os.fspath(given))
    try:
        with open(path, "rb") as file:
            return path, file.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: expected a picture, received a path that cannot be read: {reason}") from error


def _read(label, content, how):
    """What a function of `tfcq.data.decoding` says of a file: "verify" or "decode"."""
    try:
        from tfcq.data import decoding
        from tfcq.data.unfit import UnfitImage
    except ImportError as error:
        raise UserError(f"pictures need the package pillow ({error}); install it or pass arrays") from error
    try:
        return getattr(decoding, how)(io.BytesIO(content), label)
    except UnfitImage as error:
        raise UserError(f"{label}: expected an image of 8 bits in grey or RGB, received another file: {error.note}") from error


def _content_of_pil(label, image):
    """A PIL image as a file without loss, so that all pictures are read by one function."""
    content = io.BytesIO()
    try:
        image.save(content, "PNG", compress_level=_COMPRESSION, exif=image.getexif())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{label}: expected 8 bits in grey or RGB, received mode {image.mode} ({error}); convert it"
        ) from error
    return content.getvalue()
