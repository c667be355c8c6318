"""Signals that ask a process to stop: Ctrl-C, SIGTERM, and SIGHUP, which a terminal sends that goes away."""

import contextlib
import signal

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Stopped(BaseException):
    """Raised by a signal where it stops at once; no Exception, so that nothing on the way takes it for an error of its own."""


class Signals:
    """Notes the first signal, or stops at once; a context manager that gives the handlers back.

    SIGHUP stays ignored where it is (`nohup`). In another thread than the main one nothing is noted: signals are their owner's.

    Attributes:
        received: the number of the first signal; None: none came.
    """

    def __init__(self):
        self.received, self._before, self._at_once = None, {}, False

    def __enter__(self):
        for number in NUMBERS:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread
                break
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: it was set from C
        self._before = {}

    def _note(self, number, frame):
        self.received = self.received or int(number)
        if self._at_once:
            self._at_once = False  # once: what cleans up is not interrupted
            raise Stopped

    def stop_at_once(self):
        """From here on a signal, also one that has come already, raises `Stopped`."""
        if self.received:
            raise Stopped
        self._at_once = True

    def wait(self):
        """From here on a signal is noted only."""
        self._at_once = False

    @contextlib.contextmanager
    def at_once(self):
        """Within, as `stop_at_once`; after it, as before."""
        before = self._at_once
        self.stop_at_once()
        try:
            yield
        finally:
            self._at_once = before and not self.received
