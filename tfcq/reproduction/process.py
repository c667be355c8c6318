"""Runs a command of tfcq, hears what it prints, and ends it in time; and what its lines say of the training time.

The command writes to a pseudo terminal, where it tells its progress twice a second; to a pipe it would tell every 30 s.
"""

import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
import tty

from tfcq.errors import TrainingInterrupted

_SHOWN_SECONDS = 30.0  # between lines of progress where stdout is no terminal
_PROGRESS = re.compile(r"step (\d+)/\d+  ")


class Clock:
    """Seconds of training: from a process's first line of progress on; those of processes before it are added.

    That line comes about a second after the first step, which traces and compiles. Evaluations and checkpoints between
    steps count; start-up, data, tracing, the evaluation at step 0 and what follows the last step do not.

    Args:
        before: seconds of earlier processes.
    """

    def __init__(self, before=0.0):
        self._before, self._start = before, None

    def read(self, line):
        """The step that a line of progress tells, and None for any other line; the first one starts the clock."""
        match = _PROGRESS.match(line)
        if match and self._start is None:
            self._start = time.monotonic()
        return int(match[1]) if match else None

    def spent(self):
        """Seconds so far."""
        return self._before + (0.0 if self._start is None else time.monotonic() - self._start)

    def left(self, budget):
        """Seconds until the budget is spent; None before the clock has started or where there is no budget."""
        return None if budget is None or self._start is None else budget - self.spent()


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


def follow(command, interrupts, on_line=lambda line: None, seconds_left=lambda: None):
    """Runs a command to its end, or to the end of its time: then it gets SIGTERM, on which tfcq saves and exits 143.

    Args:
        command: list of strings.
        interrupts: `Interrupts`.
        on_line: called with each line of its output, without the line's end; lines of progress come twice a second.
        seconds_left: function to the seconds until the command is to be ended, called once a second and more often until
            they are 0 or less; None: no limit (yet).

    Returns:
        (exit status, negative where a signal killed it; what it wrote to stderr; whether its time was over).
    """
    master, slave = os.openpty()
    tty.setraw(slave)  # line ends stay as they are written
    with tempfile.TemporaryFile() as errors:
        # A session of its own: Ctrl-C reaches this program alone, which hands it on once.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=slave, stderr=errors, start_new_session=True
        )
        os.close(slave)
        interrupts.watch(process)
        asked, rest, printer = False, b"", _Printer()
        try:
            while True:
                left = None if asked else seconds_left()
                if left is not None and left <= 0.0:
                    process.terminate()
                    asked, left = True, None
                chunk = _read(master, process, left)
                if chunk is None:
                    break
                *lines, rest = re.split(rb"([\r\n]+)", rest + chunk)
                for text, end in zip(lines[::2], lines[1::2]):
                    line = text.decode(errors="replace").rstrip()
                    if line:
                        on_line(line)
                        printer.show(line, b"\n" in end)
            status = process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            os.close(master)
        printer.end()
        errors.seek(0)
        text = errors.read().decode(errors="replace")
    expected = f"error: signal {int(signal.SIGTERM)} " if asked else None  # the end of its time is no error
    shown = [line for line in text.splitlines(keepends=True) if not (expected and line.startswith(expected))]
    print("".join(shown), end="", file=sys.stderr, flush=True)
    return status, text, asked


def _read(master, process, left):
    """What the command wrote, b"" where a second or its time passed without; None after its end."""
    ended = process.poll() is not None  # before the look: what it wrote at last is then there to be read
    ready, _, _ = select.select(
        [master], [], [], 0.0 if ended else min(1.0, max(left if left is not None else 1.0, 0.0))
    )
    if not ready:
        return None if ended else b""
    try:
        return os.read(master, 65536) or None
    except OSError:  # Linux says so at the end of a pseudo terminal
        return None


class _Printer:
    """Passes lines on; those that a later one overwrites only now and then, where stdout is no terminal."""

    def __init__(self):
        self._terminal, self._open, self._shown = sys.stdout.isatty(), False, float("-inf")

    def show(self, line, final):
        """final: whether the line ended with a new line."""
        if self._terminal:
            print(f"\r{line:<110}", end="\n" if final else "", flush=True)
            self._open = not final
        elif final or time.monotonic() - self._shown >= _SHOWN_SECONDS:
            print(line, flush=True)
            self._shown = self._shown if final else time.monotonic()

    def end(self):
        """Ends a line that is still open."""
        if self._open:
            print(flush=True)
