"""Runs a command of tfcq, and passes signals on to it."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from types import FrameType
from typing import Any

from tfcq.errors import TrainingInterrupted
from tfcq.machine import cluster

SAVED_ON_REQUEST = 128 + signal.SIGTERM
"""The exit status of a training that was saved after SIGTERM."""

_POLL_SECONDS = 0.2


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
    command: list[str], interrupts: Interrupts, poll: Callable[[], object] = lambda: None
) -> tuple[int, str]:
    """Runs a command until it ends.

    The command trains on this machine alone, and writes to this program's stdout. Its stderr is passed on after its end.

    Args:
        command: the command line to run.
        interrupts: passes signals on to the command.
        poll: called several times a second, and once after the end.

    Returns:
        (exit status, negative if a signal killed it; its stderr).
    """
    sys.stdout.flush()
    with tempfile.TemporaryFile() as errors:
        # A session of its own: Ctrl-C reaches this program alone, which passes it on once.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stderr=errors, start_new_session=True, env=cluster.alone()
        )
        interrupts.watch(process)
        status = None
        try:
            while status is None:
                poll()
                try:
                    status = process.wait(_POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    pass
            poll()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        errors.seek(0)
        text = errors.read().decode(errors="replace")
    print(text, end="", file=sys.stderr, flush=True)
    return status, text
