"""Trains and evaluates the rows of a table, each for the same budget, and keeps the state, so that it can be resumed.

OUTPUT/state.json    the plan; the times of the rows' steps, if the budget is minutes; for each row: steps and seconds taken,
                     number of weights, measurements, failures
OUTPUT/ROW/          the workdir of a row

The state is written whole at each change and every few seconds of training. A training that is asked to end saves a
checkpoint; after a crash the last checkpoint may be older than the seconds in the state, and the seconds of the lost steps are
subtracted. Each row has a thread that follows its commands, so that several rows can be trained at a time; the state is changed
and written under a lock.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tfcq import workdir as workdirs
from tfcq.errors import UserError, signal_name
from tfcq.machine import files, paths
from tfcq.reproduction.process import SAVED_ON_REQUEST, Ended, Interrupts, follow
from tfcq.training import progress as training_progress
from tfcq.workdir.history import now

ENDLESS = 10**9
"""--train_steps of a row whose budget is minutes, before its step is timed."""

_SAVE_SECONDS = 5.0
_REMOTE_READ_SECONDS = 1.0  # between two looks at a progress that lies at an address


@dataclasses.dataclass(frozen=True)
class Budget:
    """The budget of each row's training, either minutes or steps.

    Attributes:
        minutes: minutes of steps, more than 0, as they were timed before training (`timed`). None: steps count.
        steps: number of training steps. None: minutes count.
        row_steps: {row name: steps}, for rows with another number than `steps`.
        timed: {row name: steps} that take so many minutes; empty before the steps are timed.

    Raises:
        UserError: both or none of the two.
    """

    minutes: float | None = None
    steps: int | None = None
    row_steps: dict[str, int] = dataclasses.field(default_factory=dict)
    timed: dict[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.steps is None):
            received = "neither" if self.minutes is None else "both"
            raise UserError(f"budget: expected one of --budget_minutes and --budget_steps, received {received}")
        if self.row_steps and self.steps is None:
            raise UserError("--row_steps with --budget_minutes: expected --budget_steps, the steps of the other rows")

    def plan(self) -> dict[str, Any]:
        """JSON values for the plan of an `Ablation`; equal if rows are trained for the same budget."""
        plan: dict[str, Any] = {"minutes": self.minutes, "steps": self.steps}
        if self.row_steps:
            plan["row_steps"] = self.row_steps
        if self.minutes:
            plan["timed"] = True  # plans without it are of rows that were stopped by the clock, in another number of steps
        return plan

    def steps_of(self, row: str) -> int | None:
        """The steps of the row of that name; None if the budget is minutes and the row's step is not timed."""
        return self.row_steps.get(row, self.timed.get(row, self.steps))

    def flags(self, flags: Mapping[str, Any], row: str = "", first_stage_fraction: float = 0.0) -> dict[str, int]:
        """The flags of tfcq.train for the budget; unless given, periodic evaluations are made only at the end, or never.

        Args:
            flags: {flag of tfcq.train: value} of the row.
            row: name of the row.
            first_stage_fraction: fraction of the row's steps in its first stage of training; 0: it has no stages.

        Raises:
            UserError: a flag that the budget decides.
        """
        if "train_steps" in flags:
            raise UserError(
                f"--train_steps={flags['train_steps']}: the budget decides when a row ends; expected --budget_steps instead"
            )
        steps = self.steps_of(row) or ENDLESS
        own = {"train_steps": steps}
        if "evaluate_every" not in flags:
            own["evaluate_every"] = steps
        if first_stage_fraction and "first_stage_steps" not in flags:
            own["first_stage_steps"] = max(1, round(first_stage_fraction * steps))
        return own


@dataclasses.dataclass(frozen=True)
class Job:
    """One row to be trained and evaluated.

    Attributes:
        name: of the row and its workdir.
        train: {flag of tfcq.train: value}.
        evaluate: {flag of tfcq.evaluate: value}; empty: nothing to measure.
    """

    name: str
    train: dict[str, Any]
    evaluate: dict[str, Any]

    def arguments(self, which: str, workdir: str | os.PathLike) -> list[str]:
        """The command-line arguments of `which`, "train" or "evaluate"."""
        flags = {"workdir": workdir} | getattr(self, which)
        return [f"--{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in flags.items()]


class RowFailed(Exception):
    """A row's command ended with an error; the message has the command, its exit status and its last line."""


class Ablation:
    """The rows of one table under one folder.

    Args:
        output: the folder; created if it does not exist.
        plan: JSON values that describe the ablation; a folder with another plan is refused.
        commands: {"train": [...], "evaluate": [...], "time": [...]}, the commands before their flags; None: those of tfcq.

    Attributes:
        rows: {row name: record}, the state. A record with "shared" is of a row whose minutes were beside other rows.
        timing: {row name: {"ms_per_step": of each stage, "steps", "machine", "time"}} of the rows whose steps are timed.

    Raises:
        UserError: the folder holds another ablation, or cannot be read or written.
    """

    def __init__(
        self,
        output: str | os.PathLike,
        plan: dict[str, Any],
        commands: Mapping[str, Sequence[str]] | None = None,
    ):
        self.output, self._plan = paths.as_path(output), plan
        python = [sys.executable, "-m"]
        modules = {"train": "tfcq.train", "evaluate": "tfcq.evaluate", "time": "tfcq.reproduction.timing"}
        self._commands = commands or {which: [*python, module] for which, module in modules.items()}
        self._path = self.output / "state.json"
        self.rows: dict[str, dict[str, Any]] = {}
        self.timing: dict[str, dict[str, Any]] = {}
        self._lock = threading.RLock()
        self._open()
        self._saved = 0.0

    def time(self, rows: Mapping[str, dict[str, Any]], steps_of: Callable[[str, list[float]], int]) -> dict[str, int]:
        """Times the steps of the rows that are not timed yet, all in turns; what was timed before stays as it is.

        Args:
            rows: {row name: its flags of tfcq.train}.
            steps_of: from a row's name and the milliseconds of a step in each of its stages to its number of steps.

        Returns:
            {row name: number of steps}.

        Raises:
            UserError: a step cannot be taken.
            TrainingInterrupted: SIGTERM, SIGHUP or Ctrl-C.
        """
        missing = {name: flags for name, flags in rows.items() if name not in self.timing}
        if missing:
            self._save()  # a folder that cannot be written is an error before the work
            found = self._time(missing)
            for name, milliseconds in found["ms_per_step"].items():
                measured = {"ms_per_step": milliseconds, "steps": steps_of(name, milliseconds)}
                self.timing[name] = measured | {"machine": found["machine"], "time": now()}
            self._save()
        return {name: self.timing[name]["steps"] for name in rows}

    def _time(self, rows):
        with tempfile.TemporaryDirectory() as temporary, Interrupts() as interrupts:
            result = pathlib.Path(temporary) / "result.json"
            status, errors = follow([*self._commands["time"], str(result), json.dumps(rows)], interrupts)
            interrupts.check(None)
            if status:
                raise UserError(f"the steps cannot be timed: {_failure(status, _last_line(errors))}; expected --budget_steps")
            return json.loads(result.read_text())

    def run(self, jobs: Sequence[Job], after_row: Callable[[], object] = lambda: None, at_once: int = 1) -> list[str]:
        """Trains and evaluates the rows that are not done; a row that fails is recorded, and retried by the next run.

        Args:
            jobs: the rows.
            after_row: called after each row, not for two at a time.
            at_once: number of rows that are trained or evaluated at a time, at least 1; what they write is then prefixed with
                their names.

        Returns:
            The names of the rows that failed.

        Raises:
            TrainingInterrupted: SIGTERM, SIGHUP or Ctrl-C; the state is saved.
        """
        places = {job.name: f"[{number}/{len(jobs)}]" for number, job in enumerate(jobs, start=1)}
        with Interrupts() as interrupts, concurrent.futures.ThreadPoolExecutor(at_once) as threads:
            rows = [
                threads.submit(self._row, job, places[job.name], interrupts, after_row, f"{job.name}: " if at_once > 1 else "")
                for job in jobs
            ]
        errors = [error for row in rows if (error := row.exception())]
        for error in sorted(errors, key=lambda error: isinstance(error, Ended)):  # the cause, not what it ended
            raise error
        return [job.name for job in jobs if "failure" in self.rows[job.name]]

    def _row(self, job, place, interrupts, after_row, prefix):
        """Trains and evaluates a row; an error ends the other rows, too."""
        try:
            interrupts.check(None)  # of a row before
            self._row_to_its_end(job, place, interrupts, after_row, prefix)
        except BaseException:
            interrupts.end_all()
            raise

    def _row_to_its_end(self, job, place, interrupts, after_row, prefix):
        with self._lock:
            record = self.rows.setdefault(job.name, {"step": 0, "seconds": 0.0})
            record.pop("failure", None)
            if job.name in self.timing:
                record["ms_per_step"] = self.timing[job.name]["ms_per_step"]
        print(f"== row {job.name} {place}", flush=True)
        try:
            self._train(job, record, interrupts, prefix)
            self._evaluate(job, record, interrupts, prefix)
        except RowFailed as failure:
            with self._lock:
                record["failure"] = str(failure)
            print(f"row {job.name} failed: {failure}", flush=True)
        finally:
            self._save()
        with self._lock:
            after_row()
        interrupts.check(record["step"])  # a signal between two commands

    def _open(self):
        if not self._path.exists():
            return
        try:
            state = json.loads(self._path.read_text())
            before, self.rows, self.timing = state["plan"], state["rows"], state.get("timing", {})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{self._path}: the state of the ablation cannot be read: {error}; remove it, or use another --output"
            ) from error
        given = json.loads(json.dumps(self._plan))
        differing = [
            f"{name}: {before.get(name)} -> {given.get(name)}"
            for name in sorted(given.keys() | before.keys())
            if before.get(name) != given.get(name)
        ]
        if differing:
            raise UserError(
                f"output {self.output} holds another ablation (saved -> given): {'; '.join(differing)}; expected the same "
                "flags to go on with it, or another --output"
            )

    def _save(self):
        with self._lock:
            state = {"plan": self._plan, "rows": self.rows} | ({"timing": self.timing} if self.timing else {})
            try:
                self.output.mkdir(parents=True, exist_ok=True)
                files.write_text(self._path, json.dumps(state, indent=2) + "\n")
            except OSError as error:
                raise UserError(f"output {self.output}: cannot be written: {error.strerror}") from error
            self._saved = time.monotonic()

    def _train(self, job, record, interrupts, prefix):
        """Trains to the row's last step; `record` has the steps and seconds of the checkpoint."""
        workdir = self.output / job.name
        saved = workdirs.saved_step(workdir)
        before = record["seconds"] * min(1.0, saved / record["step"]) if record["step"] else 0.0
        with self._lock:
            record |= {"step": saved, "seconds": before}
        if saved >= job.train["train_steps"]:
            return
        with self._lock:
            record |= {"shared": True} if prefix else {}
            self._save()
        with files.writing("output", workdir):
            (workdir / training_progress.FILE).unlink(missing_ok=True)  # of an earlier process
        progress: training_progress.Progress | None = None
        pause, looked = _REMOTE_READ_SECONDS if paths.is_remote(workdir) else 0.0, float("-inf")

        def poll():
            nonlocal progress, looked
            if time.monotonic() - looked < pause:
                return
            looked = time.monotonic()
            try:
                latest = training_progress.read(workdir)
            except UserError:  # unreadable for a moment, as on a network's file system; the next one will do
                return
            if latest is None or latest == progress:
                return
            progress = latest
            with self._lock:
                record.update(step=progress.step, seconds=before + progress.seconds, weights=progress.weights)
            if time.monotonic() - self._saved >= _SAVE_SECONDS:
                self._save()

        status, errors = follow([*self._commands["train"], *job.arguments("train", workdir)], interrupts, poll, prefix)
        if status in (0, SAVED_ON_REQUEST):
            with self._lock:
                record["step"] = workdirs.saved_step(workdir)
        interrupts.check(workdirs.saved_step(workdir))
        if status:
            failed = progress is not None and progress.state == "failed" and progress.error
            line = failed["line"] if failed else _last_line(errors)
            raise RowFailed(f"train: {_failure(status, line)}")
        print(f"row {job.name}: {record['step']} steps in {record['seconds'] / 60:.2f} min of training", flush=True)

    def _evaluate(self, job, record, interrupts, prefix):
        """Measures the last checkpoint, unless this was done already."""
        asked = {"flags": job.evaluate, "step": record["step"]}
        done = record.get("evaluation", {})
        if {name: done.get(name) for name in asked} == asked:
            return
        with self._lock:
            record.pop("evaluation", None)
        if not job.evaluate:
            return
        workdir = self.output / job.name
        status, errors = follow([*self._commands["evaluate"], *job.arguments("evaluate", workdir)], interrupts, prefix=prefix)
        interrupts.check(record["step"])
        if status:
            raise RowFailed(f"evaluate: {_failure(status, _last_line(errors))}")
        try:
            measured = json.loads((workdir / "metrics.json").read_text())
            shown = json.loads((workdir / "data.json").read_text())["description"]
        except (OSError, ValueError, KeyError) as error:
            raise RowFailed(f"evaluate: {workdir} has no numbers: {error}") from error
        with self._lock:
            record["evaluation"] = asked | {"measured": measured, "data": shown}


def _failure(status, line):
    cause = signal_name(-status) if status < 0 else f"exit status {status}"
    return f"{cause}: {line}" if line else cause


def _last_line(errors):
    """The error of a command that wrote no progress.json: an evaluation, or a training that was refused at once."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ") if lines else ""
