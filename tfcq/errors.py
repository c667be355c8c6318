"""Errors that a user can fix: commands print their one line and exit with their status."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator


class UserError(ValueError):
    """A mistake in flags, files or requests.

    The message is one line: what happened, what was expected, what was received, how to mend it.
    """

    exit_status = 2


@contextlib.contextmanager
def named(what: str) -> Iterator[None]:
    """Begins the message of a UserError of the block with `what` it is about."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{what}: {error}") from error


class TrainingDiverged(ArithmeticError):
    """A loss or a gradient stopped being finite; the last good checkpoint is untouched."""

    exit_status = 1


class WorkerLost(Exception):
    """Another worker of a training on several machines ended or cannot be reached, so that this one cannot go on.

    Args:
        worker: which one this is, such as "worker 0 of 2".
        lost: which one is lost, such as "worker 1"; "": unknown.
        step: the step of the last checkpoint; 0: there is none; None: unknown.
        reason: what is known, in one line, if it is unknown which one is lost; "": nothing.
    """

    exit_status = 75  # EX_TEMPFAIL of sysexits.h: try again

    def __init__(self, worker: str, lost: str, step: int | None = None, reason: str = ""):
        unknown = "resume from the last checkpoint, if there is one"
        then = unknown if step is None else f"resume from step {step}" if step else "begin anew"
        super().__init__(
            f"{worker}: {lost or 'another worker'} was lost{f' ({reason})' if reason else ''}; start all workers again with the "
            f"same command: they {then}"
        )


class TrainingInterrupted(Exception):
    """SIGTERM, Ctrl-C or SIGHUP was received; the state was saved before this was raised.

    Args:
        signal_number: the signal (15, 2 or 1); the exit status is 128 plus this number, by the convention of shells.
        step: the step that was saved; None: no step was taken, so there was nothing to save.
    """

    def __init__(self, signal_number: int, step: int | None):
        when = "before a step was taken: nothing to save" if step is None else f"at step {step}: state saved"
        again = "start" if step is None else "resume"
        super().__init__(f"{signal_name(signal_number)} {when}; run the same command again to {again}")
        self.exit_status = 128 + signal_number


def signal_name(number: int) -> str:
    """Such as "SIGTERM"; "signal 35" for a number that has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
