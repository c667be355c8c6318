"""Files: written whole or not at all, locked against a second process, and tested before long work. Plain Python.

A path may be an address (`tfcq.machine.remote`): its files are written whole by the store itself, from memory.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import pathlib
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from typing import IO

from tfcq.errors import UserError
from tfcq.machine.paths import AnyPath, as_path, is_remote

PARTIAL = ".partial"
"""The ending of a file's name while the file is being written."""

_PROBE_BYTES = 64 * 1024  # a disk without room for these has no room for a checkpoint or a picture either
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}


class Lock:
    """A context manager that locks a file of this machine, and creates the file if it does not exist.

    The lock is the kernel's (`flock`): it is released when the process ends, even if killed, and never survives a reboot.

    Args:
        path: path of the file.
        wait: whether to wait while another process holds the lock; if false, entering raises BlockingIOError instead.

    Attributes:
        path: path of the file.
        file: the file, open for reading and writing bytes; set on entering.
        held: whether the lock is held; false on file systems without locks (some network file systems). Set on entering.
    """

    file: IO[bytes]
    held: bool

    def __init__(self, path: str | os.PathLike, wait: bool = True):
        self.path, self._wait = pathlib.Path(path), wait

    def __enter__(self) -> Lock:
        while True:
            self.file = open(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
            try:
                self.held = self._acquire()
                if self._is_at_its_path():
                    return self
            except BaseException:
                self.file.close()
                raise
            self.file.close()  # the previous holder has removed or replaced the file meanwhile

    def _acquire(self):
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | (0 if self._wait else fcntl.LOCK_NB))
            return True
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return False
            raise

    def _is_at_its_path(self):
        try:
            return os.path.samestat(os.fstat(self.file.fileno()), os.stat(self.path))
        except FileNotFoundError:
            return False

    def __exit__(self, *_: object) -> None:
        self.file.close()


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[IO[bytes]]:
    """Opens a file (bytes) that replaces `path` when the block ends; after an error `path` is unchanged.

    Until then the data is in NAME.partial, in the same folder. A NAME.partial that a killed process left is overwritten;
    two processes that write the same file take turns.

    Raises:
        OSError: the file cannot be written, or `path` is a folder, a device or a pipe.
    """
    if is_remote(path):
        content = io.BytesIO()
        yield content
        as_path(path).write_bytes(content.getvalue())
        return
    path = pathlib.Path(os.path.realpath(path))  # a link is kept, and its target is replaced
    _refuse_other_than_file(path)
    staged = path.with_name(path.name + PARTIAL)
    with Lock(staged) as lock:
        try:
            lock.file.truncate()
            yield lock.file
            lock.file.flush()
            os.fsync(lock.file.fileno())
            os.replace(staged, path)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file in UTF-8, whole or not at all."""
    with replacing(path) as file:
        file.write(text.encode())


def names(folder: str | os.PathLike) -> list[str]:
    """The names of what lies in a folder, in no order."""
    return [path.name for path in as_path(folder).iterdir()] if is_remote(folder) else os.listdir(folder)


def truncate(path: AnyPath, num_bytes: int) -> None:
    """Keeps the first bytes of a file."""
    if is_remote(path):
        path.write_bytes(path.read_bytes()[:num_bytes])
    else:
        os.truncate(path, num_bytes)


def remove_partial(folder: str | os.PathLike) -> None:
    """Removes the partial files that killed processes left below `folder`; files that are being written now are kept."""
    if is_remote(folder):
        return  # there are none
    for path in pathlib.Path(folder).rglob(f"*.*{PARTIAL}"):
        if path.suffixes[-2] not in (".json", ".jsonl", ".png", ".md", ".npz", ".gz"):
            continue
        with contextlib.suppress(OSError), Lock(path, wait=False) as lock:
            if lock.held:
                path.unlink()


def check_folder(what: str, folder: str | os.PathLike) -> None:
    """Checks that files can be written to a folder, by writing one and removing it again.

    Args:
        what: how the message begins: "workdir", "export_dir", ...
        folder: path of the folder, which need not exist yet.

    Raises:
        UserError: the folder cannot be written.
    """
    with writing(what, folder):
        _write_probe(as_path(folder))


def check_file(what: str, path: str | os.PathLike, appends: bool = False) -> None:
    """Checks that a file can be created or replaced by `replacing`. A read-only file can be replaced.

    Args:
        what: how the message begins, as in `check_folder`.
        path: path of the file, which need not exist yet.
        appends: whether an existing file is written in place (`json_lines`), so that it must be writable itself.

    Raises:
        UserError: the file cannot be written.
    """
    with writing(what, path):
        if is_remote(path):
            _write_probe(as_path(path).parent)
            return
        path = pathlib.Path(os.path.realpath(path))
        _refuse_other_than_file(path)
        _write_probe(path.parent)
        written = path if appends else path.with_name(path.name + PARTIAL)  # a killed process may have left it
        if written.exists():
            os.close(os.open(written, os.O_RDWR))
        if not appends and _belongs_to_another(path):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def check_room(what: str, folder: str | os.PathLike, num_bytes: int) -> None:
    """Raises UserError if the disk of an existing folder has less than `num_bytes` of free space; a store has no such limit."""
    if is_remote(folder):
        return
    with writing(what, folder):
        usage = shutil.disk_usage(folder)
    if usage.total and usage.free < num_bytes:  # total is 0 on a file system that does not report its size
        raise UserError(
            f"{what} {folder}: expected {_megabytes(num_bytes)} of free space, found {_megabytes(usage.free)}; free some "
            "space or use another folder"
        )


@contextlib.contextmanager
def writing(what: str, path: str | os.PathLike) -> Iterator[None]:
    """Turns an OSError in the block into the UserError that `what` ("workdir", ...) at `path` cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{what} {path}: cannot be written: {error.strerror or error}") from error


def _write_probe(folder):
    if is_remote(folder):
        path = folder / f".tfcq-{secrets.token_hex(6)}"
        path.write_bytes(b"")
        path.unlink()
        return
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    descriptor, path = tempfile.mkstemp(prefix=".tfcq-", dir=folder)
    try:
        with open(descriptor, "wb") as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    finally:
        os.unlink(path)


def _belongs_to_another(path):
    """Whether a file belongs to another user, in a folder such as /tmp where users can replace only files of their own."""
    if not path.exists():
        return False
    folder, user = os.stat(path.parent), os.geteuid()
    return bool(folder.st_mode & stat.S_ISVTX) and user not in (0, folder.st_uid, os.stat(path).st_uid)


def _refuse_other_than_file(path):
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "expected a file, it is a device or a pipe")


def _sync_folder(folder):
    with contextlib.suppress(OSError):  # not every file system supports it
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _megabytes(num_bytes):
    return f"{num_bytes / 1e6:.3g} MB"
