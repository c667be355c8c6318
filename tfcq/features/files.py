"""Weights on disk: their checksum, and whether they can be downloaded."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

from tfcq.errors import UserError

DIGITS = 16
"""Hexadecimal digits of a checksum that are kept: 64 bits distinguish files, and fit a table."""

PATIENCE = 5.0
"""Seconds that a server has to answer before the network counts as absent."""


def checksum(path: str | os.PathLike) -> str:
    """The first 16 hexadecimal digits of a SHA-256.

    Args:
        path: a file, whose bytes are hashed; or a folder: the relative names and the bytes of all its files are hashed,
            in the order of the names, without hidden files.

    Raises:
        UserError: the path cannot be read.
    """
    path = pathlib.Path(path)
    digest = hashlib.sha256()
    try:
        if path.is_dir():
            names = (file.relative_to(path) for file in path.rglob("*") if file.is_file())
            for name in sorted(name.as_posix() for name in names):
                if not any(part.startswith(".") for part in name.split("/")):
                    digest.update(name.encode() + b"\0" + _file_digest(path / name))
        else:
            return _file_digest(path).hex()[:DIGITS]
    except OSError as error:
        raise UserError(f"weights: cannot read {error.filename or path} ({error.strerror})") from error
    return digest.hexdigest()[:DIGITS]


def require_file(path: str | os.PathLike, what: str) -> pathlib.Path:
    """`path` as a pathlib.Path; UserError, saying that `what` was expected, if it is not a file."""
    path = pathlib.Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"weights: expected {what}, received {str(path)!r}, which is "
                        f"{'a folder' if path.is_dir() else 'no file'}")
    return path


def require_server(url: str, problem: str) -> None:
    """Returns when the server of `url` answers within seconds, else raises UserError(problem and the reason).

    On a machine without a network, the libraries that download retry for minutes or wait for ever. Proxies of the
    environment are respected. The request runs in a thread because looking up a host's name has no timeout of its own.

    Args:
        url: what will be downloaded; the check is a HEAD request.
        problem: what failed and how to mend it, one line.
    """
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(_failure(url)), daemon=True)
    thread.start()
    thread.join(PATIENCE + 1)
    reason = outcome[0] if outcome else "no answer"
    if reason:
        raise UserError(f"{problem} ({url}: {reason})")


@contextlib.contextmanager
def stalled_download_fails() -> Iterator[None]:
    """A context in which a connection fails if nothing arrives for half a minute; otherwise it would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(6 * PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or the name of its class if it has none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _failure(url):
    """Why the server of `url` cannot be reached, or ""."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE).close()
    except urllib.error.HTTPError:
        pass  # the server answers, even if it refuses HEAD; the download itself will report an error
    except (OSError, ValueError) as error:
        return first_line(getattr(error, "reason", error))
    return ""


def _file_digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
