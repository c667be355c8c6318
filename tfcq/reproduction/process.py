"""Runs a command of tfcq, passes signals on to it, stops it when its time is over, and measures time of training."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from tfcq.errors import TrainingInterrupted
from tfcq.machine import cluster
from tfcq.training.progress import Progress

SAVED_ON_REQUEST = 128 + signal.SIGTERM
"""The exit status of a training that was saved after SIGTERM."""

_POLL_SECONDS = 0.2


class Clock:
    """Seconds of training, from the end of a process's first step (which traces and compiles), plus earlier processes'.

    They are `Progress.seconds`, plus the time since that was written by this program's own clock. Evaluations and checkpoints
    between steps count; start-up, data, tracing, the evaluation at step 0 and work after the last step do not.

    Args:
        before: seconds of earlier processes.
    """

    def __init__(self, before: float = 0.0):
        self._before, self._seconds = before, 0.0
        self._read: float | None = None  # when the last progress was read

    def read(self, progress: Progress) -> None:
        """Updates the clock with the progress that the training has just written; its first step starts the clock."""
        if progress.state != "starting":
            self._seconds, self._read = progress.seconds, time.monotonic()

    def spent(self) -> float:
        """Seconds so far."""
        return self._before + self._seconds + (0.0 if self._read is None else time.monotonic() - self._read)

    def left(self, budget: float | None) -> float | None:
        """Seconds until the budget is spent; None before the clock has started or if there is no budget."""
        return None if budget is None or self._read is None else budget - self.spent()


class Interrupts:
    """A context manager that passes SIGINT, SIGTERM and SIGHUP on to the running command.

    So the command saves its state before this program ends. The first signal asks the command to end (SIGTERM), a second one
    kills it.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._process: subprocess.Popen | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._handlers[number] = signal.signal(number, self._pass_on)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if self._process and self._process.poll() is None:
            if self._number is None:
                self._process.terminate()
            else:
                self._process.kill()
        self._number = number

    def watch(self, process: subprocess.Popen) -> None:
        """Sets the command to which signals are passed on, also one that was received just before it started."""
        self._process = process
        if self._number is not None:
            process.terminate()

    def check(self, step: int | None) -> None:
        """Raises TrainingInterrupted, with the step that is saved, if a signal was received."""
        if self._number is not None:
            raise TrainingInterrupted(int(self._number), step)


def follow(
    command: list[str],
    interrupts: Interrupts,
    poll: Callable[[], object] = lambda: None,
    seconds_left: Callable[[], float | None] = lambda: None,
) -> tuple[int, str, bool]:
    """Runs a command until it ends or its time is over: then it receives SIGTERM, on which tfcq saves and exits with 143.

    The command trains on this machine alone, and writes to this program's stdout. Its stderr is passed on after its end,
    without the line that reports SIGTERM if its time was over, which is not an error.

    Args:
        command: the command line to run.
        interrupts: passes signals on to the command.
        poll: called several times a second, and once after the end.
        seconds_left: returns the seconds until the command is to be ended (None: no limit yet); called as often as `poll`,
            until it returns 0 or less.

    Returns:
        (exit status, negative if a signal killed it; its stderr; whether its time was over).
    """
    sys.stdout.flush()
    with tempfile.TemporaryFile() as errors:
        # A session of its own: Ctrl-C reaches this program alone, which passes it on once.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stderr=errors, start_new_session=True, env=cluster.alone()
        )
        interrupts.watch(process)
        status, asked = None, False
        try:
            while status is None:
                poll()
                left = None if asked else seconds_left()
                if left is not None and left <= 0.0:
                    process.terminate()
                    asked, left = True, None
                try:
                    status = process.wait(_POLL_SECONDS if left is None else min(left, _POLL_SECONDS))
                except subprocess.TimeoutExpired:
                    pass
            poll()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        errors.seek(0)
        text = errors.read().decode(errors="replace")
    lines = text.splitlines(keepends=True)
    shown = lines[:-1] if asked and status == SAVED_ON_REQUEST else lines  # the last line of a command is that of its error
    print("".join(shown), end="", file=sys.stderr, flush=True)
    return status, text, asked
