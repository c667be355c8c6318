"""Runs commands of tfcq, several at a time if need be, and passes signals on to them."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from tfcq.errors import TrainingInterrupted
from tfcq.machine import cluster

SAVED_ON_REQUEST = 128 + signal.SIGTERM
"""The exit status of a training that was saved after SIGTERM."""

_POLL_SECONDS = 0.2


class Ended(Exception):
    """A command was asked to end without a signal (`Interrupts.end_all`)."""


class Interrupts:
    """A context manager that passes SIGINT, SIGTERM and SIGHUP on to the running commands.

    So a command saves its state before this program ends. The first signal asks the commands to end (SIGTERM), a second one
    kills them. The context is entered in the main thread; commands may be followed in others.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._asked = False  # the commands to end
        self._processes: list[subprocess.Popen] = []
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._handlers[number] = signal.signal(number, self._pass_on)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        first, self._number = self._number is None, number  # before `end_all`: a thread that looks now must find the signal
        if first:
            self.end_all()
        else:
            for process in self._running():
                process.kill()

    def _running(self):
        return [process for process in self._processes if process.poll() is None]

    def watch(self, process: subprocess.Popen) -> None:
        """Adds a command to which signals are passed on, also one that was received just before it started."""
        self._processes.append(process)  # atomic: other threads add theirs
        if self._asked:
            process.terminate()

    def end_all(self) -> None:
        """Asks the running commands, and those that start later, to end; once, as a second SIGTERM would not let them save."""
        if not self._asked:
            self._asked = True
            for process in self._running():
                process.terminate()

    def check(self, step: int | None) -> None:
        """Raises TrainingInterrupted, with the step that is saved, if a signal was received; `Ended` after `end_all`."""
        if self._number is not None:
            raise TrainingInterrupted(int(self._number), step)
        if self._asked:
            raise Ended


def follow(
    command: list[str], interrupts: Interrupts, poll: Callable[[], object] = lambda: None, prefix: str = ""
) -> tuple[int, str]:
    """Runs a command until it ends.

    The command trains on this machine alone, and writes to this program's stdout. Its stderr is passed on after its end.

    Args:
        command: the command line to run.
        interrupts: passes signals on to the command.
        poll: called several times a second, and once after the end.
        prefix: put before each line that the command writes, where several run at a time.

    Returns:
        (exit status, negative if a signal killed it; its stderr).
    """
    sys.stdout.flush()
    with tempfile.TemporaryFile() as errors:
        # A session of its own: Ctrl-C reaches this program alone, which passes it on once.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if prefix else None, stderr=errors, start_new_session=True,
            env=cluster.alone(),
        )  # fmt: skip
        interrupts.watch(process)
        copying = threading.Thread(target=_copy_lines, args=(process.stdout, prefix), daemon=True)
        if prefix:
            copying.start()
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
            if prefix:
                copying.join(_POLL_SECONDS * 25)  # not for ever: what a killed command started may hold its output open
        errors.seek(0)
        text = errors.read().decode(errors="replace")
    print("".join(prefix + line for line in text.splitlines(keepends=True)), end="", file=sys.stderr, flush=True)
    return status, text


def _copy_lines(source, prefix):
    with source:
        for line in source:
            print(f"{prefix}{line.decode(errors='replace').rstrip()}", flush=True)
