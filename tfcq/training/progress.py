"""The progress of a training, for other programs and for Python: progress.json in the folder of the run. No TensorFlow.

    progress = read("runs/digits")
    progress.state, progress.step, progress.train_steps, progress.losses
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import psutil

from tfcq.errors import TrainingInterrupted, UserError
from tfcq.machine import paths
from tfcq.machine.files import write_text
from tfcq.machine.interruption import Stopped

FILE = "progress.json"

WRITE_SECONDS = 2.0
"""The least time between two writes of the file while steps are taken."""

REMOTE_WRITE_SECONDS = 10.0
"""The same, if the folder is at an address: a write takes a good part of a second there, and the training waits for it."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """The progress of a training; the fields of progress.json.

    A process that is killed leaves the file unchanged, with the state "starting" or "training" and an old `time`: while steps
    are taken, the file is written every 2 s (10 s at an address) or after each step, whichever is longer, but not during an
    evaluation.

    Attributes:
        state: "starting": the run has begun or resumed, and this process has taken no step yet; "training"; "done": all
            `train_steps` are taken; "stopped": early, as evaluations brought no improvement (early_stopping); "interrupted": by
            a signal, and saved if a step was taken; "failed".
        step: the last step that was taken, by this process or an earlier one.
        train_steps: the step at which the run ends.
        seconds: time of training in this process, from the end of its first step, which traces and compiles, to the end of its
            last step so far. Evaluations and checkpoints between steps count; start-up, data, tracing, an evaluation before
            the first step and work after the last step do not.
        seconds_per_step: mean over these seconds; None before the second step of the process.
        images_per_second: images that training reads, mean over these seconds; None before the second step of the process.
        weights: number of weights of the model.
        losses: {name: value} of the last step, as in the progress bar; None for a value that is not finite.
        error: if the training has failed, {"kind": name of the exception's class, "line": its message}; else None.
        time: when this was written, as in metrics.jsonl: UTC, "2026-01-31T12:00:00Z".
        memory_bytes: what the process has in memory (resident); None: unknown, as in files of earlier versions.
        gpu_memory_bytes: the most that TensorFlow has had allocated so far on the GPU that it used most; None: without a GPU.
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
    memory_bytes: int | None = None
    gpu_memory_bytes: int | None = None

    def to_json(self) -> str:
        """The content of progress.json."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def read(workdir: str | os.PathLike) -> Progress | None:
    """The progress of the last training in a run's folder; None if there is no progress.json.

    Raises:
        UserError: the file cannot be read.
    """
    path = paths.as_path(workdir) / FILE
    try:
        values = json.loads(path.read_text())
        fields = [field for field in dataclasses.fields(Progress) if field.default is dataclasses.MISSING or field.name in values]
        return Progress(**{field.name: values[field.name] for field in fields})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: the progress cannot be read: {error!r}; remove it; the next training writes it anew"
        ) from error


def set_state(workdir: str | os.PathLike, state: str, error: BaseException | None = None) -> None:
    """Changes the state in progress.json, where there is one that can be read and written; `error` is why it failed."""
    with contextlib.suppress(OSError, UserError):
        last = read(workdir)
        if last and last.state != state:
            changed = dataclasses.replace(last, state=state, error=_described(error))
            write_text(paths.as_path(workdir) / FILE, changed.to_json())


def _described(error):
    return None if error is None else {"kind": type(error).__name__, "line": " ".join(str(error).split())}


class Reporter:
    """A context manager that writes progress.json, and passes each `Progress` to a function too.

    Its end, with or without an exception, is the end of the training, and writes the last state.

    Args:
        folder: existing folder of the run.
        step: the step from which training resumes.
        train_steps: the step at which it ends.
        weights: number of weights of the model.
        images_per_step: number of images that training reads in a step.
        shown: {name of a logged term: its name in `Progress.losses`}.
        on_progress: called with the `Progress` each time that the file is written; None: the file is written only.
        gpu_memory: returns `Progress.gpu_memory_bytes`.

    Attributes:
        train_steps: as given.
        error_of_callback: what `on_progress` raised, after which it is not called again; None: nothing.
        stopped_early: whether the training ends before `train_steps`; to be set then.
    """

    stopped_early = False

    error_of_callback: BaseException | None = None

    def __init__(
        self,
        folder: str | os.PathLike,
        step: int,
        train_steps: int,
        weights: int,
        images_per_step: int,
        shown: dict[str, str],
        on_progress: Callable[[Progress], object] | None = None,
        gpu_memory: Callable[[], int | None] = lambda: None,
    ):
        self._gpu_memory, self._process = gpu_memory, psutil.Process()
        self._path, self._on_progress = paths.as_path(folder) / FILE, on_progress
        self._seconds = REMOTE_WRITE_SECONDS if paths.is_remote(self._path) else WRITE_SECONDS
        self._begin = self._step = step
        self.train_steps, self._weights, self._images, self._shown = train_steps, weights, images_per_step, shown
        self._logs: Mapping[str, Any] = {}
        self._first_step_ended: float | None = None
        self._last_step_ended = self._written = 0.0

    def __enter__(self) -> Reporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self._report("stopped" if self.stopped_early else "done")
        elif isinstance(error, (TrainingInterrupted, Stopped, KeyboardInterrupt)):
            self._report("interrupted")
        else:
            self._report("failed", error)

    def start(self) -> None:
        """Reports that the run has begun or resumed in its folder, after all checks."""
        self._report("starting")

    def took(self, step: int, logs: Mapping[str, Any]) -> None:
        """Reports that step number `step`, counted from 1, has ended and logged these terms."""
        self._step, self._logs, self._last_step_ended = step, logs, time.monotonic()
        is_first = self._first_step_ended is None
        if is_first:
            self._first_step_ended = self._last_step_ended
        if is_first or step == self.train_steps or time.monotonic() - self._written >= self._seconds:
            self._report("training")

    def progress(self, state: str = "training", error: BaseException | None = None) -> Progress:
        """The current `Progress`."""
        seconds = 0.0 if self._first_step_ended is None else self._last_step_ended - self._first_step_ended
        steps = self._step - self._begin - 1  # the first step is not in these seconds
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
            error=_described(error),
            time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            memory_bytes=self._process.memory_info().rss,
            gpu_memory_bytes=self._gpu_memory(),
        )

    def _report(self, state, error=None):
        progress = self.progress(state, error)
        with contextlib.suppress(OSError):  # a full disk ends a training only when it cannot save a checkpoint
            write_text(self._path, progress.to_json())
        self._written = time.monotonic()
        if not self._on_progress or self.error_of_callback:
            return
        try:
            self._on_progress(progress)
        except BaseException as raised:
            self.error_of_callback = raised
            if error is None and state != "interrupted":  # otherwise what ended training counts
                raise
