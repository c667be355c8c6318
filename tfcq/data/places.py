"""Suggests the `dataset` that a path without the right prefix was probably meant to be."""

import difflib
import os
import re

PREFIXES = ("idx", "folder", "npz")
_IDX_FILE = re.compile(r"(images|labels)[-.]idx[13]-ubyte(\.gz)?$")
_IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_PACKED = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".7z", ".rar")


def is_path(dataset: str) -> bool:
    """Whether a `dataset` without a known prefix is surely a path; a folder of the same name must not hide a TFDS data set."""
    _, colon, place = dataset.partition(":")
    if os.path.isabs(dataset) or dataset.startswith(("~", "./", "../")):
        return True
    if colon and os.sep in place:  # TFDS has versions there
        return True
    return not os.path.isdir(dataset) and bool(_asks_for(dataset))


def meant(dataset: str) -> str:
    """' (did you mean ...?)' for a path with a missing, misspelt or wrong prefix; '' if no suggestion is better."""
    prefix, colon, place = dataset.partition(":")
    near = difflib.get_close_matches(prefix, PREFIXES, n=1) if colon else []
    if near and not _exists(dataset):
        path, prefix = place, near[0]
    elif _exists(dataset) or is_path(dataset):
        path, prefix = dataset, "folder"
    else:
        return ""
    value = _asks_for(path) or f"{prefix}:{path}"
    if value == dataset:
        return ""
    missing = "" if _exists(path) else f"there is no {path}; "
    return f" ({missing}{value if ' ' in value.removesuffix(path) else f'did you mean {value}?'})"


def _exists(path):
    return os.path.exists(os.path.expanduser(path))


def _asks_for(path):
    """The `dataset` that fits a folder's content or a file's name; advice in words if none would work; '' if unknown."""
    full, folder = os.path.expanduser(path), os.path.dirname(path) or "."
    name = path.lower()
    if os.path.isdir(full):
        return f"idx:{path}" if any(_IDX_FILE.search(file) for file in os.listdir(full)) else f"folder:{path}"
    if name.endswith(".npz"):
        return f"npz:{path}"
    if name.endswith(".npy"):
        return "an array goes into a file for npz:FILE by numpy.savez(FILE, images=array)"
    if name.endswith(_PACKED):
        return "unpack it, and give folder:DIR"
    if name.endswith(_IMAGES):
        return f"folder:{folder}"
    return f"idx:{folder}" if _IDX_FILE.search(path) else ""
