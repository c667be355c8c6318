"""The coverage-quality plane: bits/dim against the Frechet distance, a point for each run and checkpoint.

Coverage is measured by bits/dim, quality by the distance (Shmelkov et al. 2018, Section 5); the lower left is best. The
points of a run are joined in the order of their steps. Runs that differ in the weight of the quality loss alone are joined by a
dashed curve, in the order of that weight (lambda). A run without a likelihood is a line at its distance.

Nothing is measured here: `tfcq.reproduction.measured` reads the numbers.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

from tfcq.errors import UserError
from tfcq.evaluation import figures
from tfcq.evaluation.comparable import differences
from tfcq.picture_files import write
from tfcq.reproduction.measured import BITS, WEIGHT, MeasuredRun, distances_of, read_runs

_INCHES = (9.0, 5.6)


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


def plane_of(runs: Iterable[MeasuredRun]) -> Plane:
    """Chooses the two numbers that most points have, and the points that have both."""
    runs = list(runs)
    distances = distances_of(point for run in runs for point in run.points)
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
            f"{labels}: the same options, with {WEIGHT}={weight:g}; the curve by lambda passes through all of them"
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
        told = splits[0] != split and (label, splits[0]) in plane.curves and len(points) == 1
        if told and steps[0] == plane.curves[label, splits[0]][-1][0]:
            continue  # the same step, whose number stands beside the first split's point
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
        if any([one[0] for one in other] == list(weights) for other in plane.by_weight[number + 1 :]):
            continue  # the same weights stand beside another split's curve
        for weight, x, y in curve:
            aside = 6 if weight == weights[-1] else -6  # the last two may be near to each other
            _write(axes, f"λ = {weight:g}", (x, y), (aside, -9), "0.25")
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
    plane = plane_of(read_runs(folders))
    if plane.num_points >= fewest:
        picture = figures.rendered(lambda figure: draw(figure.add_subplot(), plane), _INCHES)
        try:
            write(path, picture)
        except OSError as error:
            raise UserError(f"plane {path}: cannot be written: {error.strerror}") from error
    return plane
