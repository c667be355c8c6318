"""Paths that are not of this machine: `gs://` (Google Cloud Storage), and `ram://` (this process's memory; for tests).

`RemotePath` has those methods of pathlib.Path that tfcq calls, with the same errors. TensorFlow's file systems do the work;
it is imported when a file is first asked for. An object store is no disk, and the class has nothing that such a store lacks:

* A file is written whole: it appears, or replaces the one before it, when its upload ends (`write_bytes`). There is no
  appending, and no file that is half written.
* Nothing is renamed. A folder is the beginning of its files' names; renaming one would copy and delete file by file.
* TensorFlow remembers for 5 s that a file was there, and its size. What another process has written since is seen by `iterdir`
  and `read_bytes`, and only later by `exists`, `is_file` and `stat`.
* There are no links, permissions, locks or free space. `tfcq.machine.remote_lock` keeps a second writer out by files alone.

It is tested with `ram://`, and with a file system that refuses what an object store lacks. TensorFlow's own gs:// code was
tried with a stand-in for Cloud Storage's JSON API on this machine; with Cloud Storage itself: UNMEASURED.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import io
import os
import pathlib
import re
import threading
import time
import types
from collections.abc import Iterator
from typing import IO, Any

from etils import epath
from etils.epath import backend

from tfcq.errors import UserError

SCHEMES = ("gs", "ram")
"""The schemes of `RemotePath`, of those that TensorFlow registers. Others are refused until they are tested."""

_BEGINNING = re.compile(rf"({'|'.join(SCHEMES)}):/*")
_LONGEST_REASON = 200
_PIECE = 2**24  # bytes
_REMEMBERED = 5.0  # seconds, GCS_STAT_CACHE_MAX_AGE
_RAM = threading.RLock()  # held by who replaces a file in ram://, which cannot replace one, and by who looks there


class RemoteError(OSError, UserError):
    """A store cannot be reached, or refuses: an OSError for who writes files, and one line for who does not expect it."""

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}; expected a network, and a bucket that this machine's account may use"


class RemotePath(epath.Path):
    """A path such as gs://BUCKET/NAME.

    Methods raise FileNotFoundError and FileExistsError as pathlib.Path's methods of the same names do; all else is a
    RemoteError.
    """

    def __str__(self) -> str:
        # As parts of a path, gs://b/x is gs:/b/x.
        return _BEGINNING.sub(r"\1://", super().__str__(), count=1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    @property
    def parent(self) -> RemotePath:
        """The folder above; that of a bucket is the bucket."""
        return super().parent if len(self.parts) > 2 else self

    @property
    def parents(self) -> tuple[RemotePath, ...]:  # type: ignore[override]
        """The folders above, the nearest first; the last is the bucket."""
        return (self.parent, *self.parent.parents) if len(self.parts) > 2 else ()

    def is_absolute(self) -> bool:
        """True: an address is relative to nothing."""
        return True

    def absolute(self) -> RemotePath:
        """The path itself."""
        return self

    def expanduser(self) -> RemotePath:
        """The path itself."""
        return self

    def is_symlink(self) -> bool:
        """False: there are no links."""
        return False

    def exists(self) -> bool:
        """Whether there is a file or folder."""
        with self._os_errors():
            return _gfile().exists(str(self))

    def is_dir(self) -> bool:
        """Whether there is a folder."""
        with self._os_errors():
            return _gfile().isdir(str(self))

    def iterdir(self) -> Iterator[RemotePath]:
        """What lies in the folder."""
        with self._replaced_whole(), self._os_errors():
            names = _gfile().listdir(str(self))
        return iter([self / name.rstrip("/") for name in names if name.strip("/")])  # a store ends folders with a slash

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """What matches a pattern of names, without `**`; nothing where there is no folder. Only the pattern has wildcards."""
        first, _, rest = pattern.partition("/")
        if first == "**":
            raise NotImplementedError(f"{self}: a pattern without ** was expected, received {pattern!r}")
        try:
            children = sorted(self.iterdir())
        except FileNotFoundError:
            return
        for child in children:
            if fnmatch.fnmatchcase(child.name, first):
                yield from child.glob(rest) if rest else (child,)

    def rglob(self, pattern: str) -> Iterator[RemotePath]:
        """What has a name that matches `pattern`, in the folder and all folders below it."""
        with self._os_errors():
            found = [(folder, name) for folder, folders, names in _gfile().walk(str(self)) for name in (*folders, *names)]
        matching = (type(self)(folder) / name.rstrip("/") for folder, name in found)
        return iter(sorted(path for path in matching if fnmatch.fnmatchcase(path.name, pattern)))

    def stat(self) -> Any:
        """`st_size` (bytes) and `st_mtime` (seconds, 0 where the file system keeps no times) alone."""
        with self._os_errors():
            found = _gfile().stat(str(self))
        return types.SimpleNamespace(st_size=found.length, st_mtime=found.mtime_nsec / 1e9)

    def open(self, mode: str = "r", *_: Any, **__: Any) -> IO[Any]:
        """The file for reading, which is read whole: mode "rb", or "r" for text in UTF-8. `write_bytes` writes."""
        if mode not in ("r", "rb"):
            raise ValueError(f"{self}: a mode of reading was expected, r or rb, received {mode!r}; write_bytes writes")
        return io.BytesIO(self.read_bytes()) if mode == "rb" else io.StringIO(self.read_text())

    def read_bytes(self) -> bytes:
        """The content as it is now."""
        began = time.monotonic()
        while True:
            try:
                # In pieces: TensorFlow remembers the size of a file for 5 s, and reads no more of it without a size.
                with self._replaced_whole(), _gfile().GFile(str(self), "rb") as file:
                    return b"".join(iter(lambda: file.read(_PIECE), b""))
            except Exception as error:
                # The file is shorter than TensorFlow remembers.
                if type(error).__name__ != "InternalError" or time.monotonic() - began > 2 * _REMEMBERED:
                    with self._os_errors():
                        raise
                time.sleep(_REMEMBERED / 5)

    def read_text(self, encoding: str | None = None) -> str:
        """The content as text in UTF-8."""
        return self.read_bytes().decode(encoding or "utf-8")

    def write_bytes(self, data: bytes) -> int:
        """Writes a file, or replaces it; returns the number of bytes. The folders above it need not exist."""
        with self._replaced_whole():
            self._prepare()
            with self._os_errors(), _gfile().GFile(str(self), "wb") as file:
                file.write(data)
        return len(data)

    def write_text(self, data: str, *_: Any, **__: Any) -> int:
        """Writes text in UTF-8 as `write_bytes` does."""
        return self.write_bytes(data.encode())

    def upload(self, source: pathlib.Path) -> None:
        """Writes a file that is not there yet, from one of this machine, which may be larger than memory."""
        self._prepare()
        with self._os_errors():
            _gfile().copy(str(source), str(self))

    def mkdir(self, mode: int | None = None, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing, as a folder is the beginning of its files' names; FileExistsError if there are any, unless `exist_ok`."""
        # TensorFlow would write an empty file for it, and for ever look for the bucket if there is none.
        if not exist_ok and self.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self))

    def unlink(self, missing_ok: bool = False) -> None:
        """Removes a file."""
        with contextlib.suppress(*[FileNotFoundError] if missing_ok else []), self._os_errors():
            _gfile().remove(str(self))

    def rmdir(self) -> None:
        """Removes an empty folder."""
        if any(True for _ in self.iterdir()):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(self))
        self.rmtree()

    def rmtree(self, missing_ok: bool = False) -> None:
        """Removes a folder and all in it."""
        with contextlib.suppress(*[FileNotFoundError] if missing_ok else []), self._os_errors():
            _gfile().rmtree(str(self))

    def rename(self, target: Any) -> RemotePath:
        """Raises OSError: see the module."""
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), str(self))

    replace = rename

    def _prepare(self):
        """Before a file is written to ram://, which adds to a file that exists, and lists no folder that was not made."""
        if self.parts[0] == "ram:":
            with self._os_errors():
                _gfile().makedirs(str(self.parent))
            self.unlink(missing_ok=True)

    def _replaced_whole(self):
        """The block sees no file of ram:// between its removal and its writing; nothing elsewhere, where a store replaces it."""
        return _RAM if self.parts[0] == "ram:" else contextlib.nullcontext()

    @contextlib.contextmanager
    def _os_errors(self):
        """Turns TensorFlow's errors in the block into OSErrors, with the cause in one line."""
        try:
            yield
        except backend.tf_backend.tf.errors.OpError as error:
            kinds = {"NotFoundError": (FileNotFoundError, errno.ENOENT), "AlreadyExistsError": (FileExistsError, errno.EEXIST)}
            kind, code = kinds.get(type(error).__name__, (RemoteError, errno.EIO))
            text = " ".join((error.message or "").split())[:_LONGEST_REASON]
            raise kind(code, text or os.strerror(code), str(self)) from error


def _gfile():
    return backend.tf_backend.gfile  # tf.io.gfile; imports TensorFlow
