"""How far a training is, for other programs and for Python: progress.json in the folder of the run. No TensorFlow.

    progress = read("runs/digits")
    progress.state, progress.step, progress.train_steps, progress.losses
"""

import contextlib
import dataclasses
import json
import math
import pathlib
import time
from collections.abc import Callable

from tfcq.errors import TrainingInterrupted, UserError
from tfcq.machine.files import write_text
from tfcq.machine.interruption import Stopped

FILE = "progress.json"

WRITE_SECONDS = 2.0
"""At least, between two writings of the file while steps are taken."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a training is; the fields of progress.json.

    A process that is killed leaves the file as it was, with the state "starting" or "training". `time` is then old: while
    steps are taken the file is written every 2 s or after each step, whichever is longer, but not during an evaluation.

    Attributes:
        state: "starting": the run has begun or goes on, and this process has taken no step yet; "training"; "done";
            "interrupted": by a signal, and saved where a step was taken; "failed".
        step: the last step that was taken, by this process or one before it.
        train_steps: the step at which the run ends.
        seconds: of training in this process: from the end of its first step, which traces and compiles, to the end of the last
            one that it has taken. Evaluations and checkpoints between steps count; start-up, data, tracing, an evaluation
            before the first step and what follows the last step do not.
        seconds_per_step: the mean of these seconds; None before the second step of the process.
        images_per_second: that training has read in these seconds, likewise.
        weights: the number of the model's weights.
        losses: {name: value} of the last step, as in the line of progress; None for a value that is not finite.
        error: where the training has failed, {"kind": the name of the exception's class, "line": its message}; else None.
        time: when this was written, as in metrics.jsonl: UTC, "2026-01-31T12:00:00Z".
    """

    state: str
    step: int
    train_steps: int
    seconds: float
    seconds_per_step: float | None
    images_per_second: float | None
    weights: int
    losses: dict[str, float | None]
    error: dict[str, str] | None
    time: str

    def to_json(self) -> str:
        """The content of progress.json."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def read(workdir) -> Progress | None:
    """The progress of the last training in a run's folder; None where none has written any.

    Raises:
        UserError: the file cannot be read.
    """
    path = pathlib.Path(workdir) / FILE
    try:
        values = json.loads(path.read_text())
        return Progress(**{field.name: values[field.name] for field in dataclasses.fields(Progress)})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: the progress cannot be read: {error!r}; expected what tfcq.train writes; remove the file"
        ) from error


class Reporter:
    """Keeps progress.json, and hands each `Progress` that is written to a function too.

    A context that is left when the training ends, for whatever reason, which is then the last state.

    Args:
        folder: of the run, which is there.
        step: the step from which training goes on.
        train_steps: the step at which it ends.
        weights: the number of the model's weights.
        images_per_step: that training reads.
        shown: {name of a logged term: what it is called in `Progress.losses`}.
        on_progress: function of a `Progress`, called each time that the file is written; None: it is written alone.

    Attributes:
        train_steps: as given.
    """

    def __init__(
        self,
        folder,
        step: int,
        train_steps: int,
        weights: int,
        images_per_step: int,
        shown: dict[str, str],
        on_progress: Callable[[Progress], object] | None = None,
    ):
        self._path, self._on_progress = pathlib.Path(folder) / FILE, on_progress
        self._begin = self._step = step
        self.train_steps, self._weights, self._images, self._shown = train_steps, weights, images_per_step, shown
        self._logs, self._first_step_ended, self._last_step_ended, self._written = {}, None, None, 0.0

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if error is None:
            self._report("done")
        elif isinstance(error, (TrainingInterrupted, Stopped, KeyboardInterrupt)):
            self._report("interrupted")
        else:
            self._report("failed", error)

    def start(self) -> None:
        """The run is in its folder, and nothing is refused any more."""
        self._report("starting")

    def took(self, step: int, logs: dict[str, float]) -> None:
        """Step number `step`, counted from 1, has ended and logged these terms."""
        self._step, self._logs, self._last_step_ended = step, logs, time.monotonic()
        is_first = self._first_step_ended is None
        if is_first:
            self._first_step_ended = self._last_step_ended
        if is_first or step == self.train_steps or time.monotonic() - self._written >= WRITE_SECONDS:
            self._report("training")

    def progress(self, state: str = "training", error: BaseException | None = None) -> Progress:
        """The `Progress` of this moment."""
        seconds = 0.0 if self._first_step_ended is None else self._last_step_ended - self._first_step_ended
        steps = self._step - self._begin - 1  # the first one is before these seconds
        values = {label: float(self._logs[name]) for name, label in self._shown.items() if name in self._logs}
        return Progress(
            state=state,
            step=self._step,
            train_steps=self.train_steps,
            seconds=seconds,
            seconds_per_step=seconds / steps if steps > 0 else None,
            images_per_second=steps * self._images / max(seconds, 1e-9) if steps > 0 else None,
            weights=self._weights,
            losses={label: value if math.isfinite(value) else None for label, value in values.items()},
            error=None if error is None else {"kind": type(error).__name__, "line": " ".join(str(error).split())},
            time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )

    def _report(self, state, error=None):
        progress = self.progress(state, error)
        with contextlib.suppress(OSError):  # a full disk ends a training where it cannot save
            write_text(self._path, progress.to_json())
        self._written = time.monotonic()
        if self._on_progress:
            self._on_progress(progress)
