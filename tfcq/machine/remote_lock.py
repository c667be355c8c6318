"""A lock of files alone, for object stores, which have no locks and no way to make a file only if it is not there.

Who wants the lock of PATH writes a file of its own, PATH-TOKEN, and then lists those of others; if there are any, it
removes its own and waits. A store lists what has been written before (Cloud Storage does), so the second of two writers sees
the first: both may step back, but never both go on. While a lock is held its file is written again every REFRESH seconds. A
file that has not changed for PATIENCE seconds, by the clock of who looks at it, is a killed process's, and is removed.

A holder that was cut off for longer may find its file gone: then another has the lock, and `require` says so.
"""

from __future__ import annotations

import contextlib
import errno
import random
import secrets
import threading
import time
from collections.abc import Callable

from tfcq.machine.remote import RemotePath

REFRESH = 15.0
"""Seconds from one sign of life of a holder to the next."""

PATIENCE = 60.0
"""Seconds without a sign of life after which a holder is taken for dead."""

_POLL = (0.2, 1.0)  # seconds between two looks, drawn at random, so that two that step back do not meet again


class RemoteLock:
    """A context manager that holds the lock of a path.

    Args:
        path: any path, which need not exist.
        holder: one line on who holds it, for messages.
        wait: whether to wait while another holds the lock; if false, entering raises BlockingIOError, whose `strerror` is the
            other's `holder`, once the other has given a sign of life, for which it waits at most PATIENCE seconds.
        say: called once with a line if entering has to wait.
    """

    def __init__(
        self, path: RemotePath, holder: str = "", wait: bool = True, say: Callable[[str], object] = lambda line: None
    ) -> None:
        self._folder, self._prefix = path.parent, f"{path.name}-"
        self._file = path.with_name(f"{self._prefix}{secrets.token_hex(6)}")
        self._holder, self._wait, self._say = holder, wait, say
        self._signs = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._refresh, daemon=True)

    def __enter__(self) -> RemoteLock:
        seen: dict[RemotePath, tuple[bytes, float]] = {}
        try:
            while True:
                others = self._others()
                if not others:
                    self._write()
                    if not self._others():
                        self._thread.start()
                        return self
                    self._file.unlink(missing_ok=True)
                for path in others:
                    self._judge(path, seen)
                time.sleep(random.uniform(*_POLL))
        except BaseException:
            with contextlib.suppress(OSError):
                self._file.unlink(missing_ok=True)
            raise

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(OSError):  # it will be taken for that of a killed process
            self._file.unlink(missing_ok=True)

    def require(self) -> None:
        """Raises BlockingIOError if another has taken the lock, as this process gave no sign of life for long."""
        if not self._is_there():
            raise BlockingIOError(errno.EAGAIN, next((self._holder_of(path) for path in self._others()), ""))

    def holder(self) -> str:
        """The line of who holds the lock, or is about to; "": nobody."""
        return next((self._holder_of(path) for path in sorted(self._listed())), "")

    def _others(self):
        return [path for path in self._listed() if path != self._file]

    def _is_there(self):
        return self._file in self._listed()

    def _listed(self):
        """The files of all that want the lock, now: `exists` may be seconds late."""
        try:
            return [path for path in self._folder.iterdir() if path.name.startswith(self._prefix)]
        except FileNotFoundError:
            return []

    def _judge(self, path, seen):
        """Removes another's file if its holder is dead; raises BlockingIOError if it lives and is not waited for."""
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return
        first, since = seen.setdefault(path, (content, time.monotonic()))
        if content != first:
            if not self._wait:
                raise BlockingIOError(errno.EAGAIN, self._holder_of(path))
            seen[path] = (content, time.monotonic())
        elif time.monotonic() - since >= PATIENCE:
            path.unlink(missing_ok=True)
        elif time.monotonic() - since > _POLL[1]:
            self._say(f"{self._holder_of(path) or 'another process'}: waiting up to {PATIENCE:.0f} s for a sign of life")
            self._say = lambda line: None

    @staticmethod
    def _holder_of(path):
        try:
            return path.read_text().partition("\n")[0]
        except (OSError, UnicodeDecodeError):  # it may end at this moment
            return ""

    def _write(self):
        self._signs += 1
        self._file.write_bytes(f"{self._holder}\n{self._signs}\n".encode())

    def _refresh(self):
        while not self._ended.wait(REFRESH):
            with contextlib.suppress(OSError):  # a network may fail for a while
                if not self._is_there():
                    return
                self._write()
