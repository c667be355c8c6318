"""How commands start TensorFlow, stop and fail: exit statuses, signals, closed streams, errors in one line."""

import contextlib
import gc
import os
import signal
import sys
import tempfile
from collections.abc import Callable

from tfcq.errors import TrainingDiverged, TrainingInterrupted, UserError, WorkerLost, signal_name
from tfcq.machine import paths, settings, terminal
from tfcq.machine.interruption import Signals, Stopped


def run(work: Callable[[], int | None], outlives_stdout: bool = False) -> int:
    """Calls `work()`, prints an error as one line to stderr, and returns the exit status.

    The status is 2 for a user's mistake, 1 for a run that diverged, 130 (Ctrl-C), 143 (SIGTERM) or 129 (SIGHUP) for an
    interrupted one, and 75 for one that lost another of its workers: try again. Any other exception is a fault of the program
    and is raised.

    Args:
        work: the work of the command; returns its exit status, None for 0.
        outlives_stdout: whether the command goes on if nobody reads stdout any more (`| head`), as its results are files.
            Otherwise a BrokenPipeError of `work` gives the status 141, as in shells, without a message.
    """
    terminal.open_standard_streams()
    for stream in (sys.stdout, sys.stderr):  # a file name may have characters that the terminal's encoding lacks
        if hasattr(stream, "reconfigure"):  # a notebook's or a test's stream may lack it
            stream.reconfigure(errors="backslashreplace")
    try:
        with terminal.outlived_stdout() if outlives_stdout else contextlib.nullcontext(), Signals() as signals:
            try:
                with signals.at_once():
                    status = work()
            except KeyboardInterrupt:
                return _fail(TrainingInterrupted(signal.SIGINT, None), "interrupted")
            except Stopped:
                number = signals.received or 0  # a signal raised Stopped
                return _fail(TrainingInterrupted(number, None), f"{signal_name(number)}: interrupted")
            sys.stdout.flush()
        return status or 0
    except (UserError, TrainingDiverged, TrainingInterrupted, WorkerLost) as error:
        return _fail(error)
    except BrokenPipeError:
        terminal.discard(sys.stdout)
        return 128 + signal.SIGPIPE


def start_tensorflow() -> None:
    """Imports TensorFlow without the lines about its build that it writes to stderr; they are shown if the import fails.

    Commands call it after checking their flags: the check takes a tenth of a second, the import five seconds.

    Raises:
        UserError: a setting of the machine that would change a run: see `tfcq.machine.settings`.
    """
    settings.check_environment()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    first = "tensorflow" not in sys.modules
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as output:
        os.dup2(output.fileno(), 2)
        try:
            with settings.without_optional_imports():
                settings.import_tensorflow()
            import tensorflow as tf

            tf.config.list_physical_devices()
        except UserError:
            raise
        except Exception:
            output.seek(0)
            os.write(kept, output.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
    if first:  # the process is the command's. What was imported stays; the last collection alone would take a second for it
        gc.freeze()


def reach(*given: str | os.PathLike | None) -> None:
    """Starts TensorFlow if one of the paths is an address, whose files are read through it; raises as `start_tensorflow`."""
    if any(path is not None and paths.is_remote(path) for path in given):
        start_tensorflow()


def _fail(error: UserError | TrainingDiverged | TrainingInterrupted | WorkerLost, text: str | None = None) -> int:
    text = str(text or error)
    line = "".join(each if paths.is_one_line(each) else each.encode("unicode_escape").decode() for each in text)
    try:
        terminal.clear()
        print(f"error: {line}", file=sys.stderr, flush=True)
    except OSError:  # nobody reads it; the exit status reports it too
        terminal.discard(sys.stdout)
        terminal.discard(sys.stderr)
    return error.exit_status
