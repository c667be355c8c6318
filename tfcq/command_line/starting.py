"""How a command starts TensorFlow, stops and fails: exit statuses, signals, closed streams, one line for an error."""

import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Callable

from tfcq.errors import TrainingDiverged, TrainingInterrupted, UserError
from tfcq.machine import paths, settings, terminal
from tfcq.machine.interruption import Signals, Stopped


def run(work: Callable[[], int | None], outlives_stdout: bool = False) -> int:
    """Calls `work()`, prints the one line of an error to stderr, and returns the exit status.

    A user's mistake is 2, a run that diverged 1, an interrupted one 130 (Ctrl-C), 143 (SIGTERM) or 129 (SIGHUP). Any other
    exception is a fault of the program and is raised.

    Args:
        work: what the command does; returns its exit status, None for 0.
        outlives_stdout: whether it goes on where nobody reads stdout any more (`| head`), as its results are files. Otherwise
            a BrokenPipeError of `work` is 141, as in shells, without a line.
    """
    terminal.open_standard_streams()
    for stream in (sys.stdout, sys.stderr):  # a file's name may have letters that a terminal's encoding has not
        stream.reconfigure(errors="backslashreplace")
    try:
        with terminal.outlived_stdout() if outlives_stdout else contextlib.nullcontext(), Signals() as signals:
            try:
                with signals.at_once():
                    status = work()
            except KeyboardInterrupt:
                return _fail(TrainingInterrupted(signal.SIGINT, None), "interrupted")
            except Stopped:
                return _fail(TrainingInterrupted(signals.received, None), f"signal {signals.received}: interrupted")
            sys.stdout.flush()
        return status or 0
    except (UserError, TrainingDiverged, TrainingInterrupted) as error:
        return _fail(error)
    except BrokenPipeError:
        terminal.discard(sys.stdout)
        return 128 + signal.SIGPIPE


def start_tensorflow() -> None:
    """Imports TensorFlow without the dozen lines about its build that it writes to stderr; they are shown if it fails.

    Commands call it once the flags are known to be right, which takes a tenth of a second; this takes five.

    Raises:
        UserError: a setting of the machine that would change a run: see `tfcq.machine.settings`.
    """
    settings.check_environment()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            settings.import_tensorflow()
            import tensorflow as tf

            tf.config.list_physical_devices()
        except UserError:
            raise
        except Exception:
            said.seek(0)
            os.write(kept, said.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _fail(error: Exception, text: str | None = None) -> int:
    text = str(text or error)
    line = "".join(each if paths.is_one_line(each) else each.encode("unicode_escape").decode() for each in text)
    try:
        terminal.clear()
        print(f"error: {line}", file=sys.stderr, flush=True)
    except OSError:  # nobody reads it; the exit status says it too
        terminal.discard(sys.stdout)
        terminal.discard(sys.stderr)
    return error.exit_status
