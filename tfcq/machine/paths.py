"""Paths that a user gives: which are taken, which are refused, and how TensorFlow is told of them.

`folder`, `file` and `to_read` check a path before anything is done with it: every entry point's flags pass through them,
and so do the functions of the Python interface. Names may hold anything that fits on one line; `~` is the home folder.

TensorFlow (tf.train.Checkpoint, tf.saved_model, tf.io.gfile) and TFDS find files by patterns: to them a folder called `[a]` is
one called `a`, and `q?` is every folder of that length. They have no way to say that a name is meant as it is, so they are
handed `plain(directory)`, another name of the same folder that has no such characters.
"""

import errno
import os
import pathlib
import re
import unicodedata

from tfcq.errors import UserError

PATTERN_CHARACTERS = frozenset("*?[\\")
"""What makes a name a pattern to TensorFlow's or Python's matching of file names."""

_DESCRIPTORS = "/proc/self/fd"
_LONGEST_BELOW = 200  # bytes of what is written below a folder, such as checkpoints/last/step-1000_temp/part-00000-of-00001...
_STAGED = ".partial"  # the ending of a file while it is written
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_kept = {}  # {(device, inode): descriptor} of the folders that `plain` has named


def folder(path, name):
    """The path of a folder that is there or can be made.

    Args:
        path: str or os.PathLike; `~` and `~user` at its start are expanded.
        name: of what it is for, which the error begins with.

    Returns:
        pathlib.Path. Checked again it stays the same.

    Raises:
        UserError: an empty path, one of several lines or that is not UTF-8, an address (gs://...), a name that is too long,
            or a file where the folder or one above it would be.
    """
    found = _checked(path, name, "a folder")
    _require_length(found / ("x" * _LONGEST_BELOW), path, name)
    _require_folder(found, name)
    return found


def file(path, name):
    """The path of a file that is there or can be written; as `folder`, but for a file. UserError for a folder."""
    found = _checked(path, name, "a file")
    if os.fspath(path).endswith(os.sep) or os.path.isdir(found):
        raise UserError(f"{name}: expected a file, received the folder {os.fspath(path)!r}")
    _require_length(found.with_name(found.name + _STAGED), path, name)
    _require_folder(found.parent, name)
    return found


def to_read(path, name, what="a file or folder"):
    """The path of something that is only read; whoever reads it says what it must be.

    Args:
        path, name: as of `folder`.
        what: it is, which the error tells.

    Raises:
        UserError: as of `folder`, but for what is there.
    """
    found = _checked(path, name, what)
    _require_length(found, path, name)
    return found


def is_one_line(text):
    """Whether `text` can be shown in one line and written as UTF-8: no control characters, line ends or lone surrogates."""
    return not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text)


def plain(directory):
    """A name of an existing folder without pattern characters, for TensorFlow and TFDS.

    It is `directory` itself where that has none, else the folder's entry in /proc/self/fd, which holds in this process until it
    ends: TensorFlow may read what it has loaded from there (assets, what is restored later) when it is first used. A folder
    is opened once, however often it is asked for.

    Args:
        directory: str or os.PathLike.

    Returns:
        str.

    Raises:
        OSError: there is no such folder.
        UserError: a system without /proc.
    """
    name = os.fspath(directory)
    if PATTERN_CHARACTERS.isdisjoint(name):
        return name
    if not os.path.isdir(_DESCRIPTORS):
        raise UserError(
            f"{name}: expected a path without {' '.join(sorted(PATTERN_CHARACTERS))}, which TensorFlow takes as patterns on a "
            "system without /proc; rename the folder, or give a link to it"
        )
    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY)
    status = os.fstat(descriptor)
    # By identity: where the folder was removed and made again, this is another one. An open folder's number is not given away.
    kept = _kept.setdefault((status.st_dev, status.st_ino), descriptor)
    if kept != descriptor:
        os.close(descriptor)
    return f"{_DESCRIPTORS}/{kept}"


def restore_name(text, directory):
    """A message in which the name that `plain` gave a directory is the directory's own again."""
    return re.sub(rf"{_DESCRIPTORS}/\d+", lambda _: os.fspath(directory), text)


def markdown(text):
    """`text` so that Markdown shows it as it is, in a line or in a cell of a table."""
    return re.sub(r"[\\`*\[\]<>|~&$]|(?<!\w)_|_(?!\w)", r"\\\g<0>", text)


def _checked(path, name, what):
    if not isinstance(path, str | os.PathLike):
        raise UserError(f"{name}: expected the path of {what}, a str or pathlib.Path, received {path!r}")
    text = os.fspath(path)
    if not text:
        raise UserError(f"{name}: expected {what}, received an empty path")
    if not is_one_line(text) or os.fsencode(text) != text.encode():
        raise UserError(f"{name}: expected a path of one line in UTF-8, received {text!r}; rename it, or give a link to it")
    if _ADDRESS.match(text):
        raise UserError(f"{name}: expected {what} of this machine, received the address {text!r}")
    found = pathlib.Path(os.path.expanduser(text))
    # pathlib takes `./~` for `~`, which would be the home folder when it is checked again.
    return found.absolute() if str(found).startswith("~") else found


def _require_length(longest, path, name):
    try:
        os.lstat(longest.absolute())
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UserError(f"{name}: {os.fspath(path)!r} is too long a name for this file system; shorten it") from error


def _require_folder(path, name):
    """UserError where `path`, or the nearest above it that is there, is no folder."""
    there = next((one for one in (path, *path.parents) if os.path.lexists(one)), None)
    if there is not None and not os.path.isdir(there):
        kind = "a file" if os.path.exists(there) else "a broken link"
        raise UserError(f"{name}: expected a folder, received {str(there)!r}, which is {kind}")
