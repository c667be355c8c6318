"""Pictures as a client's images: paths of files, encoded bytes, PIL images, or arrays.

A file is read as training reads it (`tfcq.data.decoding`), so that a likelihood is that of the same pixels. Nothing is resized
or cropped, and colours are never dropped. Needs Pillow, which is imported when the first picture is given.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfcq.checks import dims
from tfcq.errors import UserError


def is_picture(value: Any) -> bool:
    """Whether this is a path, the bytes of a file, or a PIL image."""
    return isinstance(value, str | os.PathLike | bytes | bytearray | memoryview) or _is_pil(value)


def are_pictures(value: Any) -> bool:
    """Whether this is a picture, or a list with pictures in it (and arrays)."""
    return is_picture(value) or (isinstance(value, list | tuple) and any(is_picture(one) for one in value))


def decoded(name: str, pictures: Any) -> list[tuple[str, np.ndarray]]:
    """[(what messages call it, uint8 [h, w, 1 or 3])] of one picture or of a list.

    Raises:
        UserError: a file that cannot be opened, or is no image of 8 bits in grey or RGB.
    """
    if is_picture(pictures):
        return [_decoded(name, pictures)]
    return [_decoded(f"{name}[{place}]", one) for place, one in enumerate(pictures)]


def stacked(name: str, images: Sequence[tuple[str, np.ndarray]], shape: Sequence[int | None]) -> np.ndarray:
    """Decoded pictures as uint8 [N, H, W, C], as the model declares its images.

    Args:
        name: the argument's name, for messages.
        images: what `decoded` returns.
        shape: [H, W, C]; None in it: any size, the same for all.

    Raises:
        UserError: another size, or colours for a model of grey images.
    """
    height, width, channels = (images[0][1].shape[place] if size is None else size for place, size in enumerate(shape))
    rows = []
    for label, image in images:
        if image.shape[:2] != (height, width):
            raise UserError(
                f"{name}: expected pictures of {width}x{height} pixels, received {label} of {image.shape[1]}x{image.shape[0]}; "
                "crop or resize it as the images that the model was trained on"
            )
        if image.shape[2] != channels:
            if (image.shape[2], channels) != (1, 3):
                kinds = {1: "grey", 3: "RGB"}
                expected, received = (kinds.get(one, f"{one} channels") for one in (channels, image.shape[2]))
                raise UserError(
                    f"{name}: expected pictures in {expected}, received {label} in {received}; "
                    "convert it as the images that the model was trained on"
                )
            image = np.repeat(image, 3, axis=2)
        rows.append(image)
    return np.stack(rows)


def _is_pil(value):
    module = sys.modules.get("PIL.Image")  # who has a PIL image has imported it
    return module is not None and isinstance(value, module.Image)


def _decoded(label, picture):
    if isinstance(picture, np.ndarray):
        image = picture[..., None] if picture.ndim == 2 else picture
        if image.dtype != np.uint8 or image.ndim != 3:
            raise UserError(f"{label}: expected uint8 [H, W, C], received {picture.dtype} {dims(*picture.shape)}")
        return label, image
    if not is_picture(picture):
        kind = type(picture).__name__
        raise UserError(f"{label}: expected a path, encoded bytes, a PIL image or an array, received {kind}")
    try:
        from tfcq.data import decoding
        from tfcq.data.unfit import UnfitImage
    except ImportError as error:
        raise UserError(f"pictures need the package pillow ({error}); install it or pass arrays") from error
    if _is_pil(picture):
        label = f"{label} (a PIL image)"
        file: Any = _as_file(label, picture)
    elif isinstance(picture, str | os.PathLike):
        file = label = os.path.expanduser(os.fspath(picture))
    else:
        label = f"{label} ({len(picture)} bytes)"
        file = io.BytesIO(picture)
    try:
        return label, decoding.decode(file, label)
    except UnfitImage as error:
        if not error.kind:  # the fault is not the file's content: it is not there, or must not be read
            raise UserError(f"{label}: expected a picture, received a path that cannot be read: {error.note}") from error
        raise UserError(
            f"{label}: expected an image of 8 bits in grey or RGB, received another file: {error.note}"
        ) from error


def _as_file(label, image):
    """A PIL image as a file without loss, so that all pictures are read by one function."""
    content = io.BytesIO()
    try:
        image.save(content, "PNG", compress_level=0, exif=image.getexif())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{label}: expected 8 bits in grey or RGB, received mode {image.mode} ({error}); convert it"
        ) from error
    content.seek(0)
    return content
