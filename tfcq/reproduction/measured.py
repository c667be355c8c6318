"""What was measured of runs, read from their folders for pictures of several runs (`plane`, `curves`).

Nothing is measured here. The numbers are those that `tfcq.evaluate` recorded in the run's folder, and those of the periodic
evaluations of a training with --eval_metrics=frechet_distance. Of a folder without metrics.jsonl, metrics.json is read.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence

from tfcq import workdir as workdirs
from tfcq.config import SYSTEMS, Config, DataConfig, TrainingConfig
from tfcq.config.groups import FIRST_STAGES
from tfcq.data.splits import SPLITS
from tfcq.errors import UserError
from tfcq.evaluation.comparable import completed, data_facts
from tfcq.machine import paths
from tfcq.metrics.registry import is_number
from tfcq.workdir import images as images_of_runs

BITS = {"bits_per_dim": "importance-weighted", "elbo": "ELBO"}
"""{number that may be the horizontal axis of the plane: its estimator}, the preferred one first."""

WEIGHT = "quality_weight"
"""The option by which runs of the plane are joined."""


@dataclasses.dataclass(frozen=True)
class Point:
    """What was measured at one step on one split: {name in metrics.json: entry}, of likelihoods and Frechet distances."""

    step: int
    split: str
    entries: dict[str, dict]

    def value(self, name: str) -> float | None:
        """A number; None if it was not measured."""
        entry = self.entries.get(name)
        return None if entry is None else float(entry.get("bits_per_dim", entry.get("value", math.nan)))


@dataclasses.dataclass(frozen=True)
class MeasuredRun:
    """A run and what was measured of it.

    Attributes:
        label: in legends and tables.
        points: in the order of their steps, of the training's evaluations and of `tfcq.evaluate`; of a number that both
            measured at one step on one split, the later one.
        periodic: those of the training alone, whose entries say of which data they are (`comparable.completed`).
        weight: its quality_weight; None: unknown, or it has no such option.
        others: its other options that decide the numbers of training, equal for runs that may be joined by the weight.
        steps_per_epoch: the steps, of one batch each, in which the training images are seen once, by whole batches; a
            discriminator's further turns do not count. None: unknown.
        first_stage_steps: the steps of the first of two stages of training; 0: there is one stage.
    """

    label: str
    points: tuple[Point, ...]
    periodic: tuple[Point, ...] = ()
    weight: float | None = None
    others: str = ""
    steps_per_epoch: int | None = None
    first_stage_steps: int = 0

    def of_split(self, split: str) -> list[Point]:
        """Its points of one split."""
        return [point for point in self.points if point.split == split]

    def epochs(self, step: int) -> float:
        """The epochs of so many steps; NaN: unknown."""
        return step / self.steps_per_epoch if self.steps_per_epoch else math.nan


def read_run(folder: str | os.PathLike, label: str) -> MeasuredRun:
    """Reads what was measured of a run.

    Raises:
        UserError: a file of the folder cannot be read.
    """
    place = paths.as_path(folder)
    rows = workdirs.read_metrics(place)
    if not rows and paths.exists(place / "metrics.json"):
        rows = [_read_object(place / "metrics.json")]
    options = {}
    if paths.exists(place / "config.json"):
        options = _read_object(place / "config.json", ("system", "data", "training"))
    system = options.get("system", {})
    data = _data_of_splits(place, options)
    of_training = [row for row in rows if "checkpoint" not in row]  # rows of tfcq.evaluate have one
    return MeasuredRun(
        label,
        points=_points(rows),
        periodic=_points(of_training, lambda entry, row: completed(entry, row, data.get(entry["split"], {"dataset": None}))),
        weight=system.get(WEIGHT),
        others=_others(_completed(options)) if options else "",
        steps_per_epoch=_steps_per_epoch(place, options),
        first_stage_steps=next((system[name] for name in FIRST_STAGES if system.get(name)), 0),
    )


def _points(rows, finished=lambda entry, row: entry):
    """The rows' numbers by step and split; the newest entry of a step counts."""
    merged: dict[tuple[int, str], dict[str, dict]] = {}
    for row in rows:
        of_row = {name: entry for name, entry in row.items() if isinstance(entry, dict) and _is_drawn(name)}
        for name, entry in of_row.items():
            split = entry.get("split", row.get("split", "test"))
            merged.setdefault((row.get("step", 0), split), {})[name] = finished(entry | {"split": split}, row)
    return tuple(Point(step, split, entries) for (step, split), entries in sorted(merged.items()))


def _is_drawn(name):
    return name in BITS or is_distance(name)


def is_distance(name: str) -> bool:
    """Whether a number of metrics.json is a Frechet distance, of whatever features."""
    return is_number(name, "frechet_distance")


def _data_of_splits(place, options):
    """{split: `data_facts` of its images} of a run."""
    known = {field.name for field in dataclasses.fields(DataConfig)}
    try:
        config = DataConfig(**{name: value for name, value in options.get("data", {}).items() if name in known})
    except UserError:  # of another version
        return {}
    facts, sizes = images_of_runs.data_facts(place), workdirs.kept_sizes(place)
    contents = facts.get("fingerprints") or {}
    channels = (facts.get("image_shape") or [None])[-1]
    return {split: data_facts(config, channels, sizes.get(split), contents.get(split)) for split in SPLITS}


def _steps_per_epoch(place, options):
    count, size = workdirs.kept_sizes(place).get("train"), options.get("training", {}).get("batch_size")
    return count // size or None if count and size else None


def _completed(options):
    """Options of a run, with those that its version of tfcq did not have; as they are, where this one does not know them."""
    try:
        return Config.from_json(json.dumps(options), of_a_run=True).to_dict()
    except UserError:
        return options


def _others(options):
    """JSON of the options that decide the numbers of training, but the weight."""
    kinds = {"system": SYSTEMS.get(str(options.get("model"))), "data": DataConfig, "training": TrainingConfig}
    found = {name: value for name, value in options.items() if name not in kinds}
    for section, kind in kinds.items():
        rules = {field.name: field.metadata["on_resume"] for field in dataclasses.fields(kind)} if kind else {}
        found[section] = {
            name: value
            for name, value in options.get(section, {}).items()
            if name != WEIGHT and rules.get(name) not in ("free", "extends", "layout")  # those may change within a run
        }
    return json.dumps(found, sort_keys=True)


def _read_object(path, sections=()):
    """The JSON object of a file, whose sections, where it has them, are objects too."""
    try:
        found = json.loads(path.read_text())
        if not isinstance(found, dict):
            raise ValueError("no JSON object")
        if broken := [name for name in sections if not isinstance(found.get(name, {}), dict)]:
            raise ValueError(f"no JSON object: {', '.join(broken)}")
        return found
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}; expected a JSON object") from error


def labels_of(folders: Sequence[paths.AnyPath]) -> dict[str, paths.AnyPath]:
    """{label: folder}: the names of the folders, or their whole paths if two have one name."""
    names = [folder.name for folder in folders]
    return {name if names.count(name) == 1 else str(folder): folder for name, folder in zip(names, folders)}


def read_runs(folders: Mapping[str, str | os.PathLike]) -> list[MeasuredRun]:
    """`read_run` of {label: folder}."""
    return [read_run(folder, label) for label, folder in folders.items()]


def distances_of(points: Iterable[Point]) -> list[str]:
    """The names of the Frechet distances that some points have, in their order."""
    return list(dict.fromkeys(name for point in points for name in point.entries if is_distance(name)))
