"""Signals that ask a process to stop: Ctrl-C, SIGTERM, and SIGHUP (the terminal was closed)."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def reinstall() -> None:
    """Installs Python's handlers of these signals again, after a library has put its own in their place.

    Outside the main thread nothing changes.
    """
    for number in NUMBERS:
        handler = signal.getsignal(number)
        if handler is not None:
            with contextlib.suppress(ValueError):  # not the main thread
                signal.signal(number, handler)


class Stopped(BaseException):
    """Raised when a signal stops the work at once; not an Exception, so that no handler on the way catches it as an error."""


class Signals:
    """A context manager that records the first signal, or stops the work at once; restores the handlers at its end.

    SIGHUP stays ignored if it is ignored already (`nohup`). Outside the main thread no signal is recorded: Python lets only
    the main thread set handlers.

    Attributes:
        received: number of the first signal; None: none was received.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict = {}
        self._at_once = False

    def __enter__(self) -> Signals:
        for number in NUMBERS:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            try:
                self._before[number] = signal.signal(number, self._record)
            except ValueError:  # not the main thread
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: it was set from C
        self._before = {}

    def _record(self, number, frame):
        self.received = self.received or int(number)
        if self._at_once:
            self._at_once = False  # only once: the cleanup is not interrupted
            raise Stopped

    def stop_at_once(self) -> None:
        """Makes signals raise `Stopped` from now on, including one that was received before."""
        if self.received:
            raise Stopped
        self._at_once = True

    def wait(self) -> None:
        """Makes signals be recorded only, from now on."""
        self._at_once = False

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Makes signals raise `Stopped` in the block, as `stop_at_once`; restores the previous state after it."""
        before = self._at_once
        self.stop_at_once()
        try:
            yield
        finally:
            self._at_once = before and not self.received
