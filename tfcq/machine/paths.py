"""Paths that a user gives: which are accepted, which are refused, and how they are passed to TensorFlow.

`folder`, `file` and `to_read` check a path before anything is done with it: every entry point's flags pass through them,
and so do those of the Python interface. Names may contain anything that fits on one line; `~` is the home folder.
What is written may lie at an address, gs://BUCKET/NAME (`tfcq.machine.remote`): `as_path` makes every path object.

TensorFlow (tf.train.Checkpoint, tf.saved_model, tf.io.gfile) and TFDS find files by patterns: `[a]` matches a folder called
`a`, and `q?` matches every folder with a name of that length. Their patterns cannot be escaped, so they receive
`plain(directory)`, another name of the same folder that has no such characters.
"""

from __future__ import annotations

import errno
import os
import pathlib
import re
import unicodedata
from typing import TYPE_CHECKING, TypeAlias, TypeGuard

from tfcq.errors import UserError

if TYPE_CHECKING:
    from tfcq.machine.remote import RemotePath

AnyPath: TypeAlias = "pathlib.Path | RemotePath"
"""The path of a file or folder of this machine, or at an address; the two have the same methods."""

PATTERN_CHARACTERS = frozenset("*?[\\")
"""Characters that make a name a pattern when TensorFlow or Python matches file names."""

_DESCRIPTORS = "/proc/self/fd"
_LONGEST_BELOW = 200  # bytes of the longest path below a folder, such as checkpoints/last/step-1000_temp/part-00000-of-00001...
_STAGED = ".partial"  # the ending of a file while it is being written
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_REMOTE = re.compile(r"(gs|ram)://")  # `remote.SCHEMES`, whose module takes a tenth of a second to import
_LONGEST_REMOTE = 1024  # bytes of the name of an object in Cloud Storage
_kept: dict[tuple[int, int], int] = {}  # {(device, inode): descriptor} of the folders that `plain` has opened


def as_path(path: str | os.PathLike) -> AnyPath:
    """The path object of any path: a pathlib.Path, or a RemotePath for an address. Nothing is checked."""
    text = os.fspath(path)
    if not _REMOTE.match(text):
        return pathlib.Path(text)
    from tfcq.machine.remote import RemotePath

    return RemotePath(text)


def is_remote(path: str | os.PathLike) -> TypeGuard[RemotePath]:
    """Whether a path is an address, or below one."""
    return bool(_REMOTE.match(os.fspath(path)))


def exists(path: str | os.PathLike) -> bool:
    """Whether there is a file or folder that can be looked at."""
    return as_path(path).exists() if is_remote(path) else os.path.exists(path)


def folder(path: str | os.PathLike, name: str, local: bool = False) -> AnyPath:
    """The path of a folder that exists or can be created.

    Args:
        path: `~` and `~user` at its start are expanded.
        name: name of the argument or flag, with which the error begins.
        local: whether it must be of this machine.

    Returns:
        The path. Checking it again returns the same path.

    Raises:
        UserError: an empty path, a path of several lines or not in UTF-8, another address than gs://BUCKET/NAME, a name that is
            too long, or a file at the path of the folder or of a parent folder. What is at an address is not checked here.
    """
    found = _checked(path, name, "a folder", local)
    if not is_remote(found):
        _require_length(found / ("x" * _LONGEST_BELOW), path, name)
        _require_folder(found, name)
    return found


def file(path: str | os.PathLike, name: str) -> AnyPath:
    """The path of a file that exists or can be written; arguments and errors as in `folder`, and UserError for a folder."""
    found = _checked(path, name, "a file")
    is_folder = len(found.parts) < 3 if is_remote(found) else os.path.isdir(found)
    if os.fspath(path).endswith(os.sep) or is_folder:
        raise UserError(f"{name}: expected a file, received the folder {os.fspath(path)!r}")
    if not is_remote(found):
        _require_length(found.with_name(found.name + _STAGED), path, name)
        _require_folder(found.parent, name)
    return found


def to_read(path: str | os.PathLike, name: str, what: str = "a file or folder", local: bool = True) -> AnyPath:
    """The path of a file or folder that is only read; its reader checks what is there.

    Args:
        path, name: as in `folder`.
        what: what the path is of, for the error.
        local: whether it must be of this machine, as most readers need it.

    Raises:
        UserError: as in `folder`, except that what exists at the path is not checked.
    """
    found = _checked(path, name, what, local)
    if not is_remote(found):
        _require_length(found, path, name)
    return found


def is_one_line(text: str) -> bool:
    """Whether `text` can be shown in one line and written as UTF-8: no control characters, line ends or lone surrogates."""
    return not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text)


def plain(directory: str | os.PathLike) -> str:
    """A name of an existing folder without pattern characters, for TensorFlow and TFDS.

    This is `directory` itself if it has none, else the folder's entry in /proc/self/fd. The entry stays valid until the
    process ends, because TensorFlow may read files there only when they are first used (assets, deferred restores). Each
    folder is opened once.

    Args:
        directory: path of the folder.

    Raises:
        OSError: there is no such folder.
        UserError: a system without /proc.
    """
    name = os.fspath(directory)
    if PATTERN_CHARACTERS.isdisjoint(name):  # no address has any
        return name
    if not os.path.isdir(_DESCRIPTORS):
        raise UserError(
            f"{name}: expected a path without {' '.join(sorted(PATTERN_CHARACTERS))}, which TensorFlow takes as patterns on a "
            "system without /proc; rename the folder, or give a link to it"
        )
    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY)
    status = os.fstat(descriptor)
    # By identity: a folder that was removed and made again is another one. The inode of an open folder is not reused.
    kept = _kept.setdefault((status.st_dev, status.st_ino), descriptor)
    if kept != descriptor:
        os.close(descriptor)
    return f"{_DESCRIPTORS}/{kept}"


def restore_name(text: str, directory: str | os.PathLike) -> str:
    """The message `text`, with the directory's own name instead of the one that `plain` gave it."""
    return re.sub(rf"{_DESCRIPTORS}/\d+", lambda _: os.fspath(directory), text)


def markdown(text: str) -> str:
    """`text` escaped for Markdown, for a line or a cell of a table."""
    return re.sub(r"[\\`*\[\]<>|~&$]|(?<!\w)_|_(?!\w)", r"\\\g<0>", text)


def _checked(path, name, what, local=False):
    if not isinstance(path, str | os.PathLike):
        raise UserError(f"{name}: expected the path of {what}, a str or pathlib.Path, received {path!r}")
    text = os.fspath(path)
    if not text:
        raise UserError(f"{name}: expected {what}, received an empty path")
    if not is_one_line(text) or os.fsencode(text) != text.encode():
        raise UserError(f"{name}: expected a path of one line in UTF-8, received {text!r}; rename it, or give a link to it")
    if _ADDRESS.match(text):
        return _address(text, name, what, local)
    found = pathlib.Path(os.path.expanduser(text))
    # pathlib shortens `./~` to `~`, which a second check would take for the home folder.
    return found.absolute() if str(found).startswith("~") else found


def _address(text, name, what, local):
    where = "of this machine" if local else "of this machine or gs://BUCKET/NAME"
    if local or not _REMOTE.match(text):
        raise UserError(f"{name}: expected {what} {where}, received the address {text!r}")
    if any(part in ("", ".", "..") for part in text.removesuffix("/").partition("://")[2].split("/")):
        raise UserError(f"{name}: expected {what} {where} without empty names, . and .., received {text!r}")
    if not PATTERN_CHARACTERS.isdisjoint(text):
        marks = " ".join(sorted(PATTERN_CHARACTERS))
        raise UserError(f"{name}: expected an address without {marks}, which TensorFlow takes as patterns, received {text!r}")
    if len(text.encode()) + _LONGEST_BELOW > _LONGEST_REMOTE:
        raise UserError(f"{name}: {text!r} is too long a name for an object store; shorten it")
    return as_path(text)


def _require_length(longest, path, name):
    try:
        os.lstat(longest.absolute())
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UserError(f"{name}: {os.fspath(path)!r} is too long a name for this file system; shorten it") from error


def _require_folder(path, name):
    """Raises UserError if `path`, or its nearest parent that exists, is not a folder."""
    there = next((one for one in (path, *path.parents) if os.path.lexists(one)), None)
    if there is not None and not os.path.isdir(there):
        kind = "a file" if os.path.exists(there) else "a broken link"
        packed = "; a packed model becomes a folder by tfcq unpack" if there.suffix == ".zip" and name == "workdir" else ""
        raise UserError(f"{name}: expected a folder, received {str(there)!r}, which is {kind}{packed}")
