"""The coverage-quality plane: bits/dim against the Frechet distance, a point for each run and checkpoint.

Coverage is measured by bits/dim, quality by the distance (Shmelkov et al. 2018, Section 5); the lower left is best. The
points of a run are joined in the order of their steps. Runs that differ in the weight of the quality loss alone are joined by a
dashed curve, in the order of that weight (lambda). A run without a likelihood is a line at its distance.

Nothing is measured here. The numbers are those that `tfcq.evaluate` recorded in the run's folder, and those of the periodic
evaluations of a training with --eval_metrics=frechet_distance, which are of the validation images. Of a folder without
metrics.jsonl, metrics.json is read.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfcq import workdir as workdirs
from tfcq.config import SYSTEMS, DataConfig, TrainingConfig
from tfcq.errors import UserError
from tfcq.evaluation import figures
from tfcq.evaluation.comparable import differences
from tfcq.machine import paths
from tfcq.metrics.registry import is_number
from tfcq.picture_files import write

BITS = {"bits_per_dim": "importance-weighted", "elbo": "ELBO"}
"""{number that may be the horizontal axis: its estimator}, the preferred one first."""

_INCHES = (9.0, 5.6)
_WEIGHT = "quality_weight"


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
    """A run, for the plane.

    Attributes:
        label: in the legend.
        points: in the order of their steps.
        weight: its quality_weight; None: unknown, or it has no such option.
        others: its other options that decide the numbers of training, equal for runs that may be joined by the weight.
    """

    label: str
    points: tuple[Point, ...]
    weight: float | None = None
    others: str = ""

    def of_split(self, split: str) -> list[Point]:
        """Its points of one split."""
        return [point for point in self.points if point.split == split]


@dataclasses.dataclass(frozen=True)
class Plane:
    """What is drawn.

    Attributes:
        bits: the number that is the horizontal axis, a key of `BITS`.
        distance: the name of the Frechet distance that is the vertical axis.
        curves: {(label of the run, split): [(step, bits/dim, distance)]}, in the order of the steps.
        lines: {label of a run without a likelihood: its last distance}.
        by_weight: curves of [(lambda, bits/dim, distance)] through the last points of runs that differ in lambda alone.
        remarks: a line for each thing that is not drawn, for numbers that were not measured alike, and for runs of one lambda.
    """

    bits: str
    distance: str
    curves: dict[tuple[str, str], list[tuple[int, float, float]]]
    lines: dict[str, float]
    by_weight: list[list[tuple[float, float, float]]]
    remarks: list[str]

    @property
    def num_points(self) -> int:
        """The number of points."""
        return sum(len(points) for points in self.curves.values())


def read_run(folder: str | os.PathLike, label: str) -> MeasuredRun:
    """Reads what was measured of a run.

    Raises:
        UserError: a file of the folder cannot be read.
    """
    place = paths.as_path(folder)
    rows = workdirs.read_metrics(place)
    if not rows and paths.exists(place / "metrics.json"):
        rows = [_read_object(place / "metrics.json")]
    merged: dict[tuple[int, str], dict[str, dict]] = {}
    for row in rows:  # the newest entry of a step counts
        of_row = {name: entry for name, entry in row.items() if isinstance(entry, dict) and _is_drawn(name)}
        for name, entry in of_row.items():
            split = entry.get("split", row.get("split", "test"))
            merged.setdefault((row.get("step", 0), split), {})[name] = entry | {"split": split}
    points = tuple(Point(step, split, entries) for (step, split), entries in sorted(merged.items()) if entries)
    weight, others = None, ""
    if paths.exists(place / "config.json"):
        options = _read_object(place / "config.json", ("system", "data", "training"))
        weight, others = options.get("system", {}).get(_WEIGHT), _others(options)
    return MeasuredRun(label, points, weight, others)


def _others(options):
    """JSON of the options that decide the numbers of training, but the weight."""
    kinds = {"system": SYSTEMS.get(str(options.get("model"))), "data": DataConfig, "training": TrainingConfig}
    found = {name: value for name, value in options.items() if name not in kinds}
    for section, kind in kinds.items():
        rules = {field.name: field.metadata["on_resume"] for field in dataclasses.fields(kind)} if kind else {}
        found[section] = {
            name: value
            for name, value in options.get(section, {}).items()
            if name != _WEIGHT and rules.get(name) not in ("free", "extends", "layout")  # those may change within a run
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


def _is_drawn(name):
    return name in BITS or is_number(name, "frechet_distance")


def labels_of(folders: Sequence[paths.AnyPath]) -> dict[str, paths.AnyPath]:
    """{label: folder}: the names of the folders, or their whole paths if two have one name."""
    names = [folder.name for folder in folders]
    return {name if names.count(name) == 1 else str(folder): folder for name, folder in zip(names, folders)}


def plane_of(runs: Iterable[MeasuredRun]) -> Plane:
    """Chooses the two numbers that most points have, and the points that have both."""
    runs = list(runs)
    distances = list(dict.fromkeys(name for run in runs for one in run.points for name in one.entries if name not in BITS))
    axes = [(bits, distance) for bits in BITS for distance in distances] or [("bits_per_dim", "frechet_distance")]

    def count(pair: tuple[str, str]) -> int:
        return sum(all(name in point.entries for name in pair) for run in runs for point in run.points)

    bits, distance = max(axes, key=count)
    plane, drawn = Plane(bits, distance, {}, {}, [], []), []
    for run in runs:
        for split in dict.fromkeys(point.split for point in run.points):
            points = []
            for point in run.of_split(split):
                x, y = point.value(bits), point.value(distance)
                if x is None or y is None:
                    other = [name for name in BITS if name in point.entries]
                    if y is not None and other:
                        plane.remarks.append(f"{run.label}, step {point.step}: {other[0]} instead of {bits}; not drawn")
                    continue
                broken = [name for name, value in ((bits, x), (distance, y)) if not math.isfinite(value)]
                if broken:
                    plane.remarks.append(f"{run.label}, step {point.step}: {' and '.join(broken)} not finite; not drawn")
                    continue
                points.append((point.step, x, y))
                drawn.append(point)
            if points:
                plane.curves[run.label, split] = points
        if not any(label == run.label for label, _ in plane.curves):
            _without_points(run, plane)
    plane.by_weight[:] = _by_weight(runs, plane)
    for name in (bits, distance):
        if found := differences([point.entries[name] for point in drawn]):
            plane.remarks.append(f"{name}: not measured alike; the points differ in {', '.join(found)}")
    return plane


def _without_points(run, plane):
    """Makes a line of a run that has distances alone; otherwise remarks that it is not drawn."""
    distances = [point.value(plane.distance) for point in run.points if plane.distance in point.entries]
    if distances and math.isfinite(distances[-1]) and not any(name in one.entries for one in run.points for name in BITS):
        plane.lines[run.label] = distances[-1]
    elif not any(remark.startswith(f"{run.label}, step ") for remark in plane.remarks):
        plane.remarks.append(
            f"{run.label}: expected {plane.bits} and {plane.distance} of one step and split, found none; not drawn; measure them "
            "with tfcq evaluate --metrics=elbo,bits_per_dim,frechet_distance"
        )


def _by_weight(runs, plane):
    """Curves through the last points of runs that differ in nothing but the weight of the quality loss."""
    found: dict[tuple[str, str], dict[float, dict[str, tuple[float, float]]]] = {}
    for run in runs:
        for (label, split), points in plane.curves.items():
            if label == run.label and run.weight is not None:
                found.setdefault((run.others, split), {}).setdefault(run.weight, {})[label] = points[-1][1:]
    curves = [one for one in found.values() if len(one) > 1]
    equal = [(", ".join(one), weight) for curve in curves for weight, one in curve.items() if len(one) > 1]
    for labels, weight in dict.fromkeys(equal):  # once, not for each split
        plane.remarks.append(
            f"{labels}: the same options, with {_WEIGHT}={weight:g}; the curve by lambda passes through all of them"
        )
    return [[(weight, *point) for weight in sorted(curve) for point in curve[weight].values()] for curve in curves]


def draw(axes: Any, plane: Plane) -> None:
    """Draws the plane on matplotlib's axes."""
    labels = list(dict.fromkeys([*(label for label, _ in plane.curves), *plane.lines]))
    splits = list(dict.fromkeys(split for _, split in plane.curves))
    for (label, split), points in plane.curves.items():
        steps, xs, ys = zip(*points)
        filled = {} if split == splits[0] else {"markerfacecolor": "white"}
        shown = figures.short_label(label) + (f" ({split})" if len(splits) > 1 else "")
        color = f"C{labels.index(label) % 10}"
        axes.plot(xs, ys, marker="o", markersize=5, linewidth=1.2, color=color, label=shown, **filled)
        for position in {0, len(points) - 1}:  # the others are between them
            last = position == len(points) - 1  # runs go to the left
            _write(axes, f"{steps[position]:,}", (xs[position], ys[position]), (-6, 3) if last else (6, 3), color)
    for label, height in plane.lines.items():
        shown = f"{figures.short_label(label)} (no bits/dim)"
        axes.axhline(height, color=f"C{labels.index(label) % 10}", linestyle=":", linewidth=1.2, label=shown)
    for number, curve in enumerate(plane.by_weight):
        weights, xs, ys = zip(*curve)
        name = None if number else "by lambda"
        axes.plot(xs, ys, color="0.45", linestyle="--", linewidth=1.0, zorder=1.5, label=name)
        for weight, x, y in curve:
            _write(axes, f"λ = {weight:g}", (x, y), (-6, -9), "0.25")
    axes.margins(0.12)
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set(
        title="coverage and quality: the lower left is better; numbers at points are steps",
        xlabel=f"bits/dim ({BITS[plane.bits]})",
        ylabel=f"Frechet distance ({plane.distance})",
    )
    if labels:
        axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))


def _write(axes, text, point, offset, color):
    side = "right" if offset[0] < 0 else "left"
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5}
    axes.annotate(text, point, offset, textcoords="offset points", fontsize=7, color=color, ha=side, bbox=box)


def write_plane(path: str | os.PathLike, folders: Mapping[str, str | os.PathLike], fewest: int = 1) -> Plane:
    """Draws the runs of some folders into a picture; the file is not written if there are fewer points than `fewest`.

    Args:
        path: the file, with an ending of a picture.
        folders: {label: folder}.
        fewest: see above.

    Raises:
        UserError: a file cannot be read or written.
    """
    plane = plane_of(read_run(folder, label) for label, folder in folders.items())
    if plane.num_points >= fewest:
        picture = figures.rendered(lambda figure: draw(figure.add_subplot(), plane), _INCHES)
        try:
            write(path, picture)
        except OSError as error:
            raise UserError(f"plane {path}: cannot be written: {error.strerror}") from error
    return plane
