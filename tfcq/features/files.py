"""Weights on disk: their checksum, and whether the network can be asked for them."""

import contextlib
import hashlib
import pathlib
import socket
import threading
import urllib.error
import urllib.request

from tfcq.errors import UserError

DIGITS = 16
"""Hexadecimal digits of a checksum that are kept: 64 bits tell files apart, and fit a table."""

PATIENCE = 5.0
"""Seconds that a server has to answer before the network counts as absent."""


def checksum(path):
    """The first 16 hexadecimal digits of a SHA-256.

    Args:
        path: a file, of whose bytes it is; or a folder: of the relative names and the bytes of all its files, in order
            of name, hidden ones left out.

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


def require_file(path, what):
    """`path` as a pathlib.Path, or UserError: `what` was expected there and it is no file."""
    path = pathlib.Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"weights: expected {what}, received {str(path)!r}, which is "
                        f"{'a folder' if path.is_dir() else 'no file'}")
    return path


def require_server(url, problem):
    """Returns when the server of `url` answers within seconds, else raises UserError(problem and the reason).

    The libraries that download retry for minutes, or wait for ever, on a machine without a network. Proxies of the
    environment are respected. The request runs in a thread because looking up a host's name has no timeout of its own.

    Args:
        url: what is going to be downloaded; only its head is asked for.
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
def stalled_download_fails():
    """Inside, a connection on which nothing arrives for half a minute is an error, where it would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(6 * PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def first_line(error):
    """The first line of what an exception says, else the name of its class."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _failure(url):
    """Why the server of `url` cannot be reached, or ""."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE).close()
    except urllib.error.HTTPError:
        pass  # a server that refuses HEAD is a server that answers; the download itself will say what is wrong
    except (OSError, ValueError) as error:
        return first_line(getattr(error, "reason", error))
    return ""


def _file_digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
