"""How a command stops and fails: exit statuses, signals, one line. Closed streams: tests/machine/test_terminal.py."""

import os
import signal
import time

import pytest

from tfcq.command_line import starting
from tfcq.errors import TrainingDiverged, TrainingInterrupted, UserError, WorkerLost


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("one thing"), 2, "error: one thing\n"),
        (TrainingDiverged("it grew"), 1, "error: it grew\n"),
        (TrainingInterrupted(15, 7), 143, f"error: {TrainingInterrupted(15, 7)}\n"),
        (WorkerLost("worker 0 of 2", "worker 1", 7), 75, f"error: {WorkerLost('worker 0 of 2', 'worker 1', 7)}\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (None, 0, ""),
    ],
    ids=repr,
)
def test_exit_statuses(capsys, error, status, line):
    def main():
        if error:
            raise error

    assert (starting.run(main), capsys.readouterr().err) == (status, line)


def test_a_mistake_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        starting.run(lambda: 1 // 0)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_is_one_line_and_its_status(capsys, number, status):
    before, cleaned = signal.getsignal(number), []

    def main():
        try:
            os.kill(os.getpid(), number)
            time.sleep(10.0)
        finally:
            cleaned.append(True)

    assert (starting.run(main), capsys.readouterr().err) == (status, f"error: {number.name}: interrupted\n")
    assert cleaned and signal.getsignal(number) is before
