"""Where the numbers of a training and of its evaluations are written: TensorBoard's files, tables as CSV, Weights & Biases.

`LOGGERS` of `tfcq.config.training` has their names, `opened` makes those that a run names. To add one: a class with the methods
of `Logger`, its name there, and its line in `opened`.

A run that resumes goes on in the same files: rows beyond the checkpoint are cut off (`drop_after`), and written again.
"""

from __future__ import annotations

import csv
import io
import json
import os
import uuid
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from tfcq import workdir as workdirs
from tfcq.config import Config
from tfcq.errors import UserError
from tfcq.machine import files
from tfcq.machine.paths import AnyPath, is_remote
from tfcq.training import events

SPLITS = ("train", "validation")
"""What is written apart: means over training steps, and evaluations between steps."""

CSV_FOLDER = "csv"

WANDB = "wandb.json"
"""File of a workdir with the id of its run at Weights & Biases."""

Pictures = Mapping[str, np.ndarray]


class Logger(Protocol):
    """A place where numbers are written.

    `flush` and `close` may raise what writing there raises (OSError, tf.errors.OpError).
    """

    def add(self, split: str, step: int, scalars: Mapping[str, float], pictures: Pictures) -> None:
        """Takes the scalars {name: value} and pictures {name: uint8 [H, W, C]} of a step; each step once, ascending."""

    def flush(self, split: str) -> None:
        """Writes what was taken of a split."""

    def close(self) -> None:
        """Ends the writing."""


class TensorBoard:
    """Writes tensorboard/train and tensorboard/validation.

    Args:
        workdir: folder of the run.
    """

    def __init__(self, workdir: AnyPath) -> None:
        self._writers = {split: workdirs.event_writer(workdir / "tensorboard" / split) for split in SPLITS}

    def add(self, split: str, step: int, scalars: Mapping[str, float], pictures: Pictures) -> None:
        with self._writers[split].as_default(step):
            for name, value in scalars.items():
                tf.summary.scalar(workdirs.tag_of(name), value)
            for name, picture in pictures.items():
                tf.summary.image(f"grids/{name}", picture[None])

    def flush(self, split: str) -> None:
        self._writers[split].flush()

    def close(self) -> None:
        _close_all(self._writers.values())


class Csv:
    """Writes csv/train.csv and csv/validation.csv: a row for each step, a column for each scalar; no pictures.

    A scalar that begins later (of another stage, or an option that was given on resuming) gets a column at the end; cells of
    steps without a value are empty.

    Args:
        workdir: folder of the run.
    """

    def __init__(self, workdir: AnyPath) -> None:
        self._paths = {split: workdir / CSV_FOLDER / f"{split}.csv" for split in SPLITS}
        self._columns = {split: _rows(path)[0] or ["step"] for split, path in self._paths.items()}
        self._new: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}

    def add(self, split: str, step: int, scalars: Mapping[str, float], pictures: Pictures) -> None:
        self._new[split].append({"step": step} | {name: repr(float(value)) for name, value in scalars.items()})

    def flush(self, split: str) -> None:
        path, columns, rows = self._paths[split], self._columns[split], self._new[split]
        if not rows:
            return
        more = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in columns]
        columns += more
        added = _text([[row.get(name, "") for name in columns] for row in rows])
        if more or is_remote(path):  # the heading changes; or nothing can be appended
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_text(path, _text([columns, *(_filled(row, columns) for row in _rows(path)[1])]) + added)
        else:
            with open(path, "a", newline="") as file:
                file.write(added)
        self._new[split] = []

    def close(self) -> None:
        for split in SPLITS:
            self.flush(split)


class WeightsAndBiases:
    """Writes to a run at Weights & Biases (`WANDB_MODE=offline`: to WORKDIR/wandb), with the run's options as its configuration.

    The names begin with train/ and validation/. A run that resumes goes on as the same run there. Its steps only rise: what it
    has of steps beyond the checkpoint stays, as the same steps give the same numbers, and is not written again.

    Args:
        workdir: folder of the run.
        config: its Config.

    Raises:
        UserError: wandb is not installed, or cannot begin a run.
    """

    def __init__(self, workdir: AnyPath, config: Config) -> None:
        self._wandb = _imported()
        if is_remote(workdir):
            raise UserError(f"loggers: wandb keeps files in the workdir; expected a folder of this machine, received {workdir}")
        path = workdir / WANDB
        try:
            kept = json.loads(path.read_text())["id"]
        except (OSError, ValueError, KeyError, TypeError):
            kept = ""
        try:
            self._run = self._wandb.init(
                id=kept or uuid.uuid4().hex[:16],
                resume="allow",
                dir=os.fspath(workdir),
                project=os.environ.get("WANDB_PROJECT", "tfcq"),
                name=os.environ.get("WANDB_NAME", workdir.absolute().name),
                config=config.to_dict(),
                settings=self._wandb.Settings(console="off"),  # it would take standard output
            )
        except Exception as error:  # of its classes, and of its service process
            raise UserError(
                f"loggers: wandb cannot begin a run: {' '.join(str(error).split())[:200]}; expected wandb login, "
                "WANDB_MODE=offline, or --loggers without wandb"
            ) from error
        self._first = self._run.starting_step if self._run.resumed else 0
        files.write_text(path, json.dumps({"id": self._run.id}) + "\n")

    def add(self, split: str, step: int, scalars: Mapping[str, float], pictures: Pictures) -> None:
        if step < self._first:
            return
        shown = {name: self._wandb.Image(picture.squeeze()) for name, picture in pictures.items()}
        self._run.log({f"{split}/{name}": value for name, value in {**scalars, **shown}.items()}, step=step)

    def flush(self, split: str) -> None:
        pass  # it sends by itself

    def close(self) -> None:
        self._run.finish()


class Loggers:
    """Several loggers as one, with `flush` and `close` for all of them.

    Args:
        parts: the loggers.
    """

    def __init__(self, parts: list[Logger]) -> None:
        self._parts = parts

    def add(self, split: str, step: int, scalars: Mapping[str, float], pictures: Pictures | None = None) -> None:
        """As `Logger.add`."""
        for part in self._parts:
            part.add(split, step, scalars, pictures or {})

    def flush(self, split: str) -> None:
        """As `Logger.flush`."""
        for part in self._parts:
            part.flush(split)

    def close(self) -> None:
        """As `Logger.close`, of all, whatever one raises."""
        _close_all(self._parts)


def check(config: Config) -> None:
    """Raises UserError if a package of the loggers that a Config names is not installed."""
    if "wandb" in config.training.names_of_loggers():
        _imported()


def begun(workdir: AnyPath, config: Config) -> list[Logger]:
    """Those of the loggers that may refuse, begun before anything is written to the run's own files."""
    return [WeightsAndBiases(workdir, config)] if "wandb" in config.training.names_of_loggers() else []


def opened(workdir: AnyPath, config: Config, begun: list[Logger]) -> Loggers:
    """All loggers that a Config names, of a run whose folder has begun; `begun` are those of the function of that name."""
    names = config.training.names_of_loggers()
    parts: list[Logger] = [made(workdir) for name, made in (("tensorboard", TensorBoard), ("csv", Csv)) if name in names]
    return Loggers([*parts, *begun])


def drop_after(workdir: AnyPath, split: str, step: int) -> None:
    """Cuts the files of a split after `step`; -1: all of it is removed."""
    events.drop_after(workdir / "tensorboard" / split, step)
    path = workdir / CSV_FOLDER / f"{split}.csv"
    if path.exists():
        columns, rows = _rows(path)
        kept = [row for row in rows if int(row[0]) <= step]
        if kept:
            files.write_text(path, _text([columns, *(_filled(row, columns) for row in kept)]))
        else:
            path.unlink()


def _close_all(parts):
    """Closes all of them, whatever one raises; raises the last of these errors."""
    failed = None
    for part in parts:
        try:
            part.close()
        except (OSError, tf.errors.OpError) as error:
            failed = error
    if failed:
        raise failed


def _imported():
    try:
        import wandb
    except ImportError as error:
        raise UserError(
            f"loggers: wandb cannot be imported ({error}); pip install 'tfcq[wandb]', or leave it out of --loggers"
        ) from error
    return wandb


def _rows(path):
    """(columns, rows as lists of str) of a CSV file; a last line without its end, of a killed writer, is left out."""
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        return [], []
    rows = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline="")))
    return (rows[0], [row for row in rows[1:] if row and row[0].isdigit()]) if rows else ([], [])


def _filled(row, columns):
    return [*row, *[""] * (len(columns) - len(row))]


def _text(rows):
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
