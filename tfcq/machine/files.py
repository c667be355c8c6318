"""Files: written whole or not at all, locked against a second process, and tried before long work. Plain Python."""

import contextlib
import errno
import fcntl
import os
import pathlib
import shutil
import stat
import tempfile

from tfcq.errors import UserError

PARTIAL = ".partial"
"""What the name of a file ends with while it is written."""

_PROBE_BYTES = 64 * 1024  # a disk that has no room for these has none for a checkpoint or a picture
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}


class Lock:
    """A lock on a file, which is made where it is not there; a context manager.

    It is the kernel's (`flock`): it goes when the process ends, killed or not, and no reboot leaves it behind.

    Args:
        path: of the file.
        wait: whether to wait for another who holds it; false: BlockingIOError.

    Attributes:
        path: of the file.
        file: open for reading and writing bytes.
        held: false where the file system has no locks (some network file systems): nothing is held then.
    """

    def __init__(self, path, wait=True):
        self.path, self._wait = pathlib.Path(path), wait

    def __enter__(self):
        while True:
            self.file = open(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
            try:
                self.held = self._acquire()
                if self._is_at_its_path():
                    return self
            except BaseException:
                self.file.close()
                raise
            self.file.close()  # whoever held it has removed or replaced the file meanwhile

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

    def __exit__(self, *_):
        self.file.close()


@contextlib.contextmanager
def replacing(path):
    """An open file (bytes) that takes the place of `path` when the block ends; after an error `path` is as it was.

    It stands beside its place until then, as NAME.partial. What a killed process left there is overwritten; two processes that
    write the same file take turns.

    Raises:
        OSError: it cannot be written, or its place is taken by something that is no file.
    """
    path = pathlib.Path(os.path.realpath(path))  # a link stays, and what it leads to is replaced
    _refuse_what_is_no_file(path)
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


def write_text(path, text):
    """Writes a text file, UTF-8, whole or not at all."""
    with replacing(path) as file:
        file.write(text.encode())


def remove_partial(folder):
    """Removes what killed processes left of files of ours below `folder`; what is being written stays."""
    for path in pathlib.Path(folder).rglob(f"*.*{PARTIAL}"):
        if path.suffixes[-2] not in (".json", ".jsonl", ".png", ".md", ".npz"):
            continue
        with contextlib.suppress(OSError), Lock(path, wait=False) as lock:
            if lock.held:
                path.unlink()


def check_folder(what, folder):
    """Tries to write a file into a folder, which need not be there yet, and leaves nothing behind.

    Args:
        what: "workdir", "export_dir", ...: how the message begins.
        folder: path.

    Raises:
        UserError: it cannot be written.
    """
    with writing(what, folder):
        _try(pathlib.Path(folder))


def check_file(what, path, appends=False):
    """As `check_folder`, for a file that is to be made or replaced, by `replacing`: one that is read-only may be.

    Args:
        what, path: as of `check_folder`.
        appends: whether a file that is there is written where it is (`json_lines`); it must be writable itself then.
    """
    with writing(what, path):
        path = pathlib.Path(os.path.realpath(path))
        _refuse_what_is_no_file(path)
        _try(path.parent)
        written = path if appends else path.with_name(path.name + PARTIAL)  # the latter: a killed process may have left it
        if written.exists():
            os.close(os.open(written, os.O_RDWR))
        if not appends and _belongs_to_another(path):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def check_room(what, folder, num_bytes):
    """Raises UserError where the disk of a folder that is there has less than `num_bytes` left."""
    with writing(what, folder):
        usage = shutil.disk_usage(folder)
    if usage.total and usage.free < num_bytes:  # a file system that tells no size has no total
        raise UserError(
            f"{what} {folder}: expected {_megabytes(num_bytes)} of free space, found {_megabytes(usage.free)}; free some "
            "space or use another folder"
        )


@contextlib.contextmanager
def writing(what, path):
    """Within, an OSError becomes the UserError that says that `what` ("workdir", ...) at `path` cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{what} {path}: cannot be written: {error.strerror or error}") from error


def _try(folder):
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
    """Whether a file is another user's in a folder such as /tmp, where everybody makes files and replaces only their own."""
    if not path.exists():
        return False
    folder, user = os.stat(path.parent), os.geteuid()
    return bool(folder.st_mode & stat.S_ISVTX) and user not in (0, folder.st_uid, os.stat(path).st_uid)


def _refuse_what_is_no_file(path):
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "expected a file, it is a device or a pipe")


def _sync_folder(folder):
    with contextlib.suppress(OSError):  # not every file system can
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _megabytes(num_bytes):
    return f"{num_bytes / 1e6:.3g} MB"
