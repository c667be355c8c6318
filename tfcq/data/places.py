"""What a `dataset` was probably meant to be where it is a path without the right prefix in front."""

import difflib
import os
import re

PREFIXES = ("idx", "folder", "npz")
_IDX_FILE = re.compile(r"(images|labels)[-.]idx[13]-ubyte(\.gz)?$")
_IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_PACKED = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".7z", ".rar")


def is_path(dataset):
    """Whether a value of `dataset` without a known prefix is a path for certain: a folder of the same name hides no TFDS set."""
    _, colon, place = dataset.partition(":")
    if os.path.isabs(dataset) or dataset.startswith(("~", "./", "../")):
        return True
    if colon and os.sep in place:  # TFDS has versions there
        return True
    return not os.path.isdir(dataset) and bool(_asks_for(dataset))


def meant(dataset):
    """' (did you mean ...?)' for a path with no prefix, a misspelt or a wrong one; '' where nothing better is known."""
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
    """The value of `dataset`, or a sentence where none would do, that a folder's content or a file's name calls for; or ''."""
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
