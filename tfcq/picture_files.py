"""Pictures as files; the ending of the name decides the format."""

from __future__ import annotations

import io
import os

import numpy as np
from PIL import Image, features

from tfcq.errors import UserError
from tfcq.machine.files import replacing
from tfcq.machine.paths import as_path, is_remote

_AS_PHOTOGRAPHS = {"quality": 95, "subsampling": 0}  # colours at full resolution: small images are inspected pixel by pixel
_FORMATS: dict[str, tuple[str, dict]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", _AS_PHOTOGRAPHS),
    ".jpeg": ("JPEG", _AS_PHOTOGRAPHS),
}
if features.check("webp"):
    _FORMATS[".webp"] = ("WEBP", {"lossless": True})


ENDINGS = tuple(_FORMATS)
"""The endings of names of pictures, in small letters."""


def check_name(path: str | os.PathLike) -> None:
    """Raises UserError if the ending of a picture's name is not that of a format which can be written, or if it is a folder."""
    path = str(path)
    ending = os.path.splitext(path)[1]
    if path.endswith(("/", os.sep)) or (not is_remote(path) and os.path.isdir(path)):
        raise UserError(f"output {path}: expected a file such as {os.path.join(path, 'picture.png')}, received a folder")
    if ending.lower() not in _FORMATS:
        received = repr(ending) if ending else f"no ending; expected {path}.png"
        raise UserError(f"output {path}: expected a name that ends in {', '.join(_FORMATS)}, received {received}")


def write(path: str | os.PathLike, picture: np.ndarray) -> None:
    """Writes a picture in the format of its name's ending, whole or not at all; creates the folder.

    JPEG is written at quality 95 with colours at full resolution, WebP without loss.

    Args:
        path: path of the file.
        picture: uint8 [H, W, C], C 1 or 3.

    Raises:
        UserError: a name that `check_name` refuses, or a picture larger than the format can hold.
        OSError: the file cannot be written.
    """
    check_name(path)
    content = encoded(picture, os.path.splitext(path)[1], str(path))
    path = as_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(content)


def encoded(picture: np.ndarray, ending: str = ".png", name: str = "") -> bytes:
    """The content of a picture's file: see `write`.

    Args:
        picture: uint8 [H, W, C], C 1 or 3.
        ending: of the file's name.
        name: of the file, for messages.
    """
    picture = np.asarray(picture)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] not in (1, 3):
        raise ValueError(f"a picture is uint8 [H, W, 1 or 3], received {picture.dtype} {list(picture.shape)}")
    format_, options = _FORMATS[ending.lower()]
    content = io.BytesIO()
    try:
        Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture).save(content, format_, **options)
    except (OSError, ValueError) as error:
        height, width = picture.shape[:2]
        raise UserError(f"output {name}: {format_} cannot hold {width}x{height} pixels ({error}); expected .png") from error
    return content.getvalue()


def decoded(content: bytes) -> np.ndarray:
    """The picture uint8 [H, W, 1 or 3] of a file that `encoded` made."""
    picture = np.asarray(Image.open(io.BytesIO(content)))
    return picture[..., None] if picture.ndim == 2 else picture
