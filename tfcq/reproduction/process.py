"""Runs a command of tfcq, passes signals on to it, and ends it in time; and how long a training has trained."""

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from tfcq.errors import TrainingInterrupted
from tfcq.training.progress import Progress

SAVED_ON_REQUEST = 128 + signal.SIGTERM
"""The trainer's exit status after SIGTERM, on which it saves."""

_POLL_SECONDS = 0.2


class Clock:
    """Seconds of training: from the end of a process's first step on, which traces and compiles; those of processes before it
    are added.

    They are `Progress.seconds`, and this program's own clock since these were written. Evaluations and checkpoints between
    steps count; start-up, data, tracing, the evaluation at step 0 and what follows the last step do not.

    Args:
        before: seconds of earlier processes.
    """

    def __init__(self, before: float = 0.0):
        self._before, self._seconds, self._read = before, 0.0, None

    def read(self, progress: Progress) -> None:
        """Takes what the training has just written; its first step starts the clock."""
        if progress.state != "starting":
            self._seconds, self._read = progress.seconds, time.monotonic()

    def spent(self) -> float:
        """Seconds so far."""
        return self._before + self._seconds + (0.0 if self._read is None else time.monotonic() - self._read)

    def left(self, budget: float | None) -> float | None:
        """Seconds until the budget is spent; None before the clock has started or where there is no budget."""
        return None if budget is None or self._read is None else budget - self.spent()


class Interrupts:
    """Hands SIGINT, SIGTERM and SIGHUP on to the running command, so that it saves before this program ends.

    A context. The first signal asks the command to end (SIGTERM); a second one kills it.
    """

    def __init__(self):
        self._number, self._process, self._handlers = None, None, {}

    def __enter__(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._handlers[number] = signal.signal(number, self._hand_on)
        return self

    def __exit__(self, *_):
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _hand_on(self, number, frame):
        if self._process and self._process.poll() is None:
            self._process.terminate() if self._number is None else self._process.kill()
        self._number = number

    def watch(self, process):
        """Names the command that signals go to; one that came just before it started is not lost."""
        self._process = process
        if self._number is not None:
            process.terminate()

    def check(self, step):
        """Raises TrainingInterrupted where a signal came. step: the one that is saved."""
        if self._number is not None:
            raise TrainingInterrupted(int(self._number), step)


def follow(
    command: list[str],
    interrupts: Interrupts,
    poll: Callable[[], object] = lambda: None,
    seconds_left: Callable[[], float | None] = lambda: None,
) -> tuple[int, str, bool]:
    """Runs a command to its end, or to the end of its time: then it gets SIGTERM, on which tfcq saves and exits 143.

    It writes to this program's stdout. What it writes to stderr is passed on when it has ended, but for the line that says
    that it was ended, where its time was over: that is no error.

    Args:
        command: what to run.
        interrupts: `Interrupts`.
        poll: called several times a second, and once after the end.
        seconds_left: function to the seconds until the command is to be ended, called as often until they are 0 or less;
            None: no limit (yet).

    Returns:
        (exit status, negative where a signal killed it; what it wrote to stderr; whether its time was over).
    """
    sys.stdout.flush()
    with tempfile.TemporaryFile() as errors:
        # A session of its own: Ctrl-C reaches this program alone, which hands it on once.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=errors, start_new_session=True)
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
    shown = lines[:-1] if asked and status == SAVED_ON_REQUEST else lines  # an entry point ends with the line of its error
    print("".join(shown), end="", file=sys.stderr, flush=True)
    return status, text, asked
