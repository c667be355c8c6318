"""Formats and sizes of image files, kept in the folder of `--data_cache`: files are opened for them once.

An index has the images below one folder. An image is known by its key and stamp (size, times and inode of its file), so one
that was changed or replaced is read again, and one that was added is read alone. An index only saves time: where it cannot be
written, a line says so.
"""

from __future__ import annotations

import hashlib
import os

import numpy as np
import PIL

from tfcq.data.cache import identities
from tfcq.data.folder import ImageFiles
from tfcq.data.sources import RawReader
from tfcq.data.unfit import UnfitImage
from tfcq.machine.files import replacing
from tfcq.machine.terminal import ImageProgress, say

VERSION = 2
"""Raise it when `decoding.format_of` answers otherwise."""

WORTH_KEEPING = 1000
"""From so many images on their headers are kept."""

MOST = 4_000_000
"""An index of more images begins anew, as most of them will have been changed or removed."""

Header = tuple[str, tuple[int, int, int]]


def headers(raw: RawReader, name: str, folder: str | None) -> tuple[list[Header], list[UnfitImage]]:
    """((format, (h, w, c)) of each image that can be read, the others).

    Args:
        raw: the images.
        name: what progress calls them.
        folder: that of the caches; None: nothing is kept.
    """
    keeps = folder is not None and isinstance(raw, ImageFiles) and len(raw) >= WORTH_KEEPING and all(raw.stamps())
    path = _path(raw, folder) if keeps else ""
    wanted = [one.item() for one in identities(raw)] if keeps else []
    known = _read(path) if keeps else {}
    found: list[Header] = []
    new: dict[bytes, Header] = {}
    unfit: list[UnfitImage] = []
    progress = ImageProgress(f"formats of {name}", len(raw))
    for index in range(len(raw)):
        header = known.get(wanted[index]) if keeps else None
        try:
            if header is None:
                header = raw.format_and_shape(index)
                if keeps:
                    new[wanted[index]] = header
            found.append(header)
        except UnfitImage as error:
            unfit.append(error.alone())
        progress(index + 1)
    if new:
        _write(path, (known if len(known) < MOST else {}) | new)
    return found, unfit


def _path(raw, folder):
    """Where the index of the images of a folder is, whichever of them are looked at."""
    place = f"{VERSION} {PIL.__version__} {os.path.realpath(raw.root)}".encode("utf-8", "surrogateescape")
    return os.path.join(folder, f"headers-{hashlib.blake2b(place, digest_size=12).hexdigest()}.npz")


def _read(path):
    """{identity: Header}; {} if there is no index, or one that is damaged."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            names = kept["names"].tolist()
            shapes = map(tuple, kept["shapes"].tolist())
            found = [(names[number], shape) for number, shape in zip(kept["formats"].tolist(), shapes)]
            return dict(zip((one.item() for one in kept["identities"]), found, strict=True))
    except FileNotFoundError:
        return {}
    except Exception as error:  # NumPy raises many classes on a damaged file
        say(f"{path} cannot be read and is rebuilt: {error}")
        return {}


def _write(path, known):
    names = sorted({image_format for image_format, _ in known.values()})
    numbers = {name: number for number, name in enumerate(names)}
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with replacing(path) as file:
            np.savez_compressed(
                file,
                identities=np.array(list(known), "S16"),
                names=np.array(names, str),
                formats=np.array([numbers[image_format] for image_format, _ in known.values()], np.int8),
                shapes=np.array([shape for _, shape in known.values()], np.int32),
            )
    except OSError as error:
        say(f"data_cache {path}: cannot be written: {error.strerror or error}; the next command opens the images again")
