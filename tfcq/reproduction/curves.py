"""The course of a Frechet distance through the trainings of several runs, and when it is first at most so much.

Xiao et al. 2019 compare methods by it: FID against epochs (Figure 3a), epochs until a FID is reached (Table 2). The numbers
are those of the periodic evaluations of trainings with --eval_metrics=frechet_distance, which
`tfcq.reproduction.measured` reads.

Distances compare only if they were measured alike: on one split of the same images, with the same numbers of images and the
same features. What was measured unlike the most is drawn dashed, named, and left out of the table.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tfcq.errors import UserError
from tfcq.evaluation import figures
from tfcq.evaluation.comparable import differences
from tfcq.evaluation.tables import markdown_table
from tfcq.machine import paths
from tfcq.picture_files import write
from tfcq.reproduction.measured import MeasuredRun, distances_of, read_runs

_MOST_THRESHOLDS = 5
_FINEST = 25.0  # of the greatest distance, between two thresholds
_LOGARITHMIC = 4.0  # a larger ratio of the greatest distance to the smallest is drawn on a logarithmic scale
_SHORT = 24  # characters of a fact that a remark repeats; digests of images are longer
_WORDS = {"content": "the images", "num_generated": "generated images", "num_real": "real images"}


@dataclasses.dataclass(frozen=True)
class Curve:
    """The distances of one run that were measured alike.

    Attributes:
        run: the run.
        points: (step, distance) in the order of the steps; at least one.
        entry: how they were measured, an entry of metrics.json.
        unlike: the facts in which `entry` differs from that of most curves, in words; empty: it compares with them.
    """

    run: MeasuredRun
    points: tuple[tuple[int, float], ...]
    entry: dict[str, Any]
    unlike: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The run's."""
        return self.run.label

    def best(self) -> tuple[int, float]:
        """The (step, distance) of the smallest distance."""
        return min(self.points, key=lambda point: point[1])

    def reached(self, threshold: float) -> int | None:
        """The step of the first evaluation with at most this distance; None: never."""
        return next((step for step, distance in self.points if distance <= threshold), None)


@dataclasses.dataclass(frozen=True)
class Axis:
    """What distances are drawn against: `of(run, step)` is a number of `unit`s."""

    unit: str
    of: Callable[[MeasuredRun, int], float]


@dataclasses.dataclass(frozen=True)
class Curves:
    """What is drawn.

    Attributes:
        distance: the name of the Frechet distance.
        curves: of each run those that compare, then those that do not.
        axes: the first is that of epochs, or of steps where a run's epochs are unknown; then minutes, or steps, if they
            would show something else.
        steps_per_epoch: those of all runs, if they are equal; else None.
        remarks: a line for each thing that is not drawn, or does not compare.
        thresholds: distances of the table, the greatest first.
    """

    distance: str
    curves: list[Curve]
    axes: list[Axis]
    steps_per_epoch: int | None
    remarks: list[str]
    thresholds: list[float]

    @property
    def compared(self) -> list[Curve]:
        """The curves that compare, one a run at most."""
        return [curve for curve in self.curves if not curve.unlike]

    @property
    def num_courses(self) -> int:
        """The number of runs with two or more distances that compare."""
        return sum(len(curve.points) > 1 for curve in self.compared)


def curves_of(
    runs: Iterable[MeasuredRun],
    thresholds: Sequence[float] = (),
    ms_per_step: Mapping[str, Sequence[float]] | None = None,
) -> Curves:
    """Chooses the distance that most runs have, and the curves that compare.

    Args:
        runs: the runs.
        thresholds: distances of the table; empty: round numbers are chosen.
        ms_per_step: {label of a run: milliseconds of a step, of each of its stages}; with those of all runs that are drawn
            there is an axis of minutes.
    """
    runs = list(runs)
    names = distances_of(point for run in runs for point in run.periodic) or ["frechet_distance"]
    distance = max(names, key=lambda name: sum(any(name in point.entries for point in run.periodic) for run in runs))
    curves, remarks = _measured_alike(runs, distance)
    drawn = [run for run in runs if any(curve.run is run for curve in curves)]
    for run in runs:
        if run not in drawn:
            remarks.append(
                f"{run.label}: no {distance} of its training; not drawn; train with --evaluate_every=STEPS "
                "--eval_metrics=frechet_distance"
            )
    axes = []
    lengths = {run.steps_per_epoch for run in drawn}
    if unknown := [run.label for run in drawn if run.steps_per_epoch is None]:
        remarks.append(f"{', '.join(unknown)}: the number of training images is unknown, hence steps in place of epochs")
    elif drawn:
        axes.append(Axis("epochs", MeasuredRun.epochs))
    timed = dict(ms_per_step or {})
    if drawn and all(run.label in timed for run in drawn):
        axes.append(Axis("minutes of steps", lambda run, step: _minutes(run.first_stage_steps, timed[run.label], step)))
    if not axes or (len(axes) == 1 and len(lengths) > 1):
        axes.append(Axis("steps", lambda run, step: step))
    bests = [curve.best()[1] for curve in curves if not curve.unlike]
    return Curves(
        distance,
        curves,
        axes,
        lengths.pop() if len(lengths) == 1 else None,
        remarks,
        sorted(set(thresholds), reverse=True) or thresholds_of(bests),
    )


def _measured_alike(runs, distance):
    """([Curve], remarks): each run's points, divided by how they were measured."""
    kinds: list[list[dict]] = []  # the entries of each way to measure
    parts: dict[tuple[int, int], list[tuple[int, float]]] = {}  # {(number of the run, of the way): points}
    remarks = []
    for number, run in enumerate(runs):
        for point in run.periodic:
            value = point.value(distance)
            if value is None:
                continue
            if not math.isfinite(value):
                remarks.append(f"{run.label}, step {point.step}: {distance} not finite; not drawn")
                continue
            entry = point.entries[distance]
            kind = next((place for place, kind in enumerate(kinds) if not differences([kind[0], entry])), len(kinds))
            if kind == len(kinds):
                kinds.append([])
            kinds[kind].append(entry)
            parts.setdefault((number, kind), []).append((point.step, value))
    if not kinds:
        return [], remarks
    usual = max(range(len(kinds)), key=lambda kind: (sum(which == kind for _, which in parts), len(kinds[kind])))
    curves = []
    for (number, kind), points in sorted(parts.items(), key=lambda part: (part[0][1] != usual, part[0])):
        unlike = _in_words(differences([kinds[usual][0], kinds[kind][0]]), kinds[kind][0], kinds[usual][0])
        curves.append(Curve(runs[number], tuple(sorted(points)), kinds[kind][0], unlike if kind != usual else ()))
        if kind != usual:
            of_steps = f"steps {points[0][0]:,} to {points[-1][0]:,}" if len(points) > 1 else f"step {points[0][0]:,}"
            remarks.append(
                f"{runs[number].label}, {of_steps}: does not compare, as it differs from the others in {', '.join(unlike)}; "
                "drawn dashed, not in the table"
            )
    return curves, remarks


def _in_words(names, entry, usual):
    """The facts in which two entries differ, with their values where these are short."""
    own, other = (one | one.get("data", {}) for one in (entry, usual))
    found = []
    for name in names:
        values = f"{own.get(name)} instead of {other.get(name)}"
        short = max(len(str(one.get(name))) for one in (own, other)) <= _SHORT
        found.append(f"{_WORDS.get(name, name)} ({values})" if short else _WORDS.get(name, name))
    return tuple(found)


def _minutes(first_stage_steps, ms_per_step, step):
    """The minutes of so many steps, by the milliseconds of a step of one or two stages."""
    first = min(step, first_stage_steps) if len(ms_per_step) > 1 else step
    return (first * ms_per_step[0] + (step - first) * ms_per_step[-1]) / 60e3


def thresholds_of(bests: Sequence[float]) -> list[float]:
    """Round distances by which runs can be told apart, the greatest first.

    Args:
        bests: the smallest distance of each run.

    Returns:
        Three to five multiples of a power of ten, of twice or five times that: from one that the best run has reached up to
        one that all have. Empty without a positive distance.
    """
    low, high = min(bests, default=0.0), max(bests, default=0.0)
    if low <= 0.0:
        return []
    exponent = math.floor(math.log10(high)) - 2
    for power, factor in itertools.product(range(exponent, exponent + 4), (1, 2, 5)):
        width = factor * 10.0**power
        first, last = (math.ceil(round(value / width, 9)) for value in (low, high))
        if width >= high / _FINEST and last - first < _MOST_THRESHOLDS:
            # From the decimal text, so that 0.3 is not 0.30000000000000004.
            return [float(f"{number * factor}e{power}") for number in range(max(last, first + 2), first - 1, -1)]
    return []


def thresholds_from(words: Sequence[str]) -> list[float]:
    """The distances that --thresholds gives.

    Raises:
        UserError: not a positive number.
    """
    found = []
    for word in words:
        try:
            found.append(float(word))
        except ValueError:
            found.append(math.nan)
        if not (math.isfinite(found[-1]) and found[-1] > 0.0):
            raise UserError(f"thresholds: expected distances above 0, such as 100,80,60, received {word!r}")
    return found


def lines_of(curves: Curves) -> list[str]:
    """Markdown: a table for each axis of epochs or minutes, how the distances were measured, and the remarks."""
    lines = []
    for axis in curves.axes:
        if axis is not curves.axes[0] and axis.unit == "steps":
            continue
        headings = ["row", "smallest", f"{axis.unit} until then", f"{axis.unit} in all"]
        headings += [f"at most {threshold:g}" for threshold in curves.thresholds]
        cells = []
        for curve in curves.compared:
            (step, smallest), last = curve.best(), curve.points[-1][0]
            reached = [curve.reached(threshold) for threshold in curves.thresholds]
            steps = [_number(axis.of(curve.run, one)) if one is not None else "never" for one in (step, last, *reached)]
            cells.append([paths.markdown(curve.label), f"{smallest:.4g}", *steps])
        title = f"{axis.unit[0].upper()}{axis.unit[1:]} until `{curves.distance}` is at most so much:"
        lines += [title, "", markdown_table(headings, cells), ""]
    lines += [f"- {paths.markdown(sentence)}" for sentence in _sentences(curves)]
    return lines


def _sentences(curves):
    entry = curves.compared[0].entry if curves.compared else {}
    split, generated, real = (entry.get(name, "?") for name in ("split", "num_generated", "num_real"))
    found = [
        f"{curves.distance}: {generated} generated and {real} real images of the {split} split, measured during training. A "
        "cell is the first evaluation with at most that distance, so it is exact up to the steps between two evaluations."
    ]
    if curves.axes and curves.axes[0].unit == "epochs":
        found.append("An epoch is the steps, of one batch each, that take whole batches of the training images once.")
    if any(axis.unit.startswith("minutes") for axis in curves.axes):
        found.append("Minutes are steps times the time of a step, as timed before training.")
    return found + curves.remarks


def _number(value):
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def json_of(curves: Curves) -> dict[str, Any]:
    """The same for report.json: {"distance", "thresholds", "rows": {label: what was measured, by steps}}."""
    rows = {
        curve.label: {
            "steps_per_epoch": curve.run.steps_per_epoch,
            "split": curve.entry.get("split"),
            "num_generated": curve.entry.get("num_generated"),
            "num_real": curve.entry.get("num_real"),
            "points": [list(point) for point in curve.points],
            "step_at_most": [curve.reached(threshold) for threshold in curves.thresholds],
        }
        for curve in curves.compared
    }
    return {"distance": curves.distance, "thresholds": curves.thresholds, "rows": rows, "remarks": curves.remarks}


def draw(figure: Any, curves: Curves) -> None:
    """Draws a panel for each axis on matplotlib's figure."""
    panels = figure.subplots(1, len(curves.axes), sharey=True, squeeze=False)[0]
    labels = list(dict.fromkeys(curve.label for curve in curves.curves))
    heights = [distance for curve in curves.curves for _, distance in curve.points]
    for axes, axis in zip(panels, curves.axes):
        for threshold in curves.thresholds:
            axes.axhline(threshold, color="0.8", linestyle=":", linewidth=0.8, zorder=1.0)
        for curve in curves.curves:
            place = labels.index(curve.label)
            style = {"linestyle": "--", "markerfacecolor": "white"} if curve.unlike else {}
            shown = figures.short_label(curve.label) + (" (does not compare)" if curve.unlike else "")
            xs, ys = zip(*((axis.of(curve.run, step), distance) for step, distance in curve.points))
            marker = "os^"[place // 10 % 3]
            axes.plot(xs, ys, marker=marker, markersize=3.5, linewidth=1.2, color=f"C{place % 10}", label=shown, **style)
        axes.set(xlabel=axis.unit)
        axes.set_xlim(left=0.0)
        axes.grid(color="0.92", linewidth=0.6)
        axes.set_axisbelow(True)
    if curves.axes[0].unit == "epochs" and (length := curves.steps_per_epoch):
        above = panels[0].secondary_xaxis("top", functions=(lambda epochs: epochs * length, lambda steps: steps / length))
        above.set_xlabel("steps")
    panels[0].set_ylabel(f"Frechet distance ({curves.distance}), lower is better")
    if min(heights) > 0.0 and max(heights) > _LOGARITHMIC * min(heights):
        _logarithmic(panels[0])
    panels[-1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))


def _logarithmic(axes):
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    axes.set_yscale("log")  # shared by all panels
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())


def write_curves(
    path: str | os.PathLike,
    folders: Mapping[str, str | os.PathLike],
    thresholds: Sequence[float] = (),
    ms_per_step: Mapping[str, Sequence[float]] | None = None,
    fewest: int = 0,
) -> Curves:
    """Draws the runs of some folders into a picture.

    Args:
        path: the file, with an ending of a picture. It is not written without a point, or with fewer `Curves.num_courses`
            than `fewest`.
        folders: {label: folder}.
        thresholds, ms_per_step: as of `curves_of`.
        fewest: see above.

    Raises:
        UserError: a file cannot be read or written.
    """
    curves = curves_of(read_runs(folders), thresholds, ms_per_step)
    if curves.curves and curves.num_courses >= fewest:
        picture = figures.rendered(lambda figure: draw(figure, curves), (3.2 + 4.6 * len(curves.axes), 4.8))
        try:
            write(path, picture)
        except OSError as error:
            raise UserError(f"curves {path}: cannot be written: {error.strerror}") from error
    return curves
