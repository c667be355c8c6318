"""Figures of the report: curves as data, and pictures of them, uint8 [H, W, 3], drawn by matplotlib without a display."""

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np

_INCHES, _DOTS = (6.4, 4.0), 110
_LONGEST_LABEL = 28  # characters; a path of a hundred characters leaves no room for the curves
_BINS = 60
_CUT = 2.0  # times the range of the values that are shown: the range from which the others are left out


@dataclasses.dataclass(frozen=True)
class Chart:
    """Curves over one axis.

    Attributes:
        curves: {label: (x [n], y [n])}; of steps x has one value more, the edges.
        x_label, y_label: what the axes show, with unit and the better direction.
        title: of the figure.
        x_range, y_range: (lowest, highest) value that is shown; None: all are.
        hidden: a sentence that says what lies beyond the ranges; "": nothing.
        are_steps: whether a curve is constant between two edges, and the area below it filled: a histogram.
        dashed: labels of the curves that are dashed, such as those that the others are to be compared with.
        notes: {label: what the legend says after it}.
    """

    curves: dict[str, tuple[np.ndarray, np.ndarray]]
    x_label: str
    y_label: str
    title: str
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    hidden: str = ""
    are_steps: bool = False
    dashed: Collection[str] = ()
    notes: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def picture(self) -> np.ndarray:
        """The chart as a picture, uint8 [H, W, 3]; its second title says what lies beyond it."""

        def draw(figure):
            axes = figure.add_subplot()
            for label, (x, y) in self.curves.items():
                named = short_label(label) + self.notes.get(label, "")
                if self.are_steps:
                    axes.stairs(y, x, fill=True, alpha=0.55, label=named)
                else:
                    style = {"linestyle": "--", "color": "0.4"} if label in self.dashed else {}
                    axes.plot(x, y, label=named, linewidth=1.0, **style)
            axes.set(xlabel=self.x_label, ylabel=self.y_label, xlim=self.x_range, ylim=self.y_range)
            axes.set_title(self.title, fontsize=10 if self.hidden else 12, pad=18 if self.hidden else None)
            if self.hidden:
                axes.text(0.5, 1.015, self.hidden, fontsize=7.5, ha="center", va="bottom", transform=axes.transAxes)
            axes.legend()

        return rendered(draw, _INCHES)


def prd_curves(curves: dict[str, dict[str, np.ndarray]], real: Collection[str] = ()) -> Chart:
    """Precision against recall (Sajjadi et al. 2018, Fig. 5).

    Args:
        curves: {label: {"precision": [A], "recall": [A]}}.
        real: labels of the curves of real images.
    """
    return Chart(
        {label: (curve["recall"], curve["precision"]) for label, curve in curves.items()},
        "recall: share of the real images' features that is covered (higher is better)",
        "precision (higher is better)",
        "precision and recall (PRD)",
        (0.0, 1.02),
        (0.0, 1.02),
        dashed=real,
    )


def histogram(values: dict[str, np.ndarray], unit: str) -> Chart:
    """Overlaid histograms of per-image values; values: {label: [N]}, unit: that of the horizontal axis."""
    edges = np.histogram_bin_edges(np.concatenate(list(values.values())), _BINS)
    curves = {label: (edges, np.histogram(one, edges, density=True)[0]) for label, one in values.items()}
    means = {label: f": mean {np.mean(one):.3f}" for label, one in values.items()}
    return Chart(curves, unit, "share of the images per unit", "per image", are_steps=True, notes=means)


def lines(
    series: dict[str, tuple[np.ndarray, np.ndarray]], x_label: str, y_label: str, title: str, shown: float = 1.0
) -> Chart:
    """Lines over one axis; series: {label: ([x], [y])}.

    The lowest fraction `shown` of the values is in the range that is shown, and the others are where they would not flatten
    them to less than half; `hidden` says how many values are not shown, and up to which.
    """
    heights = np.concatenate([np.asarray(y, np.float64) for _, y in series.values()])
    finite = heights[np.isfinite(heights)]
    remarks, y_range = [], None
    if len(finite) < len(heights):
        remarks.append(f"{len(heights) - len(finite)} of {len(heights)} values, which are not finite")
    if len(finite):
        low, high, highest = finite.min(), np.quantile(finite, shown), finite.max()
        if highest - low < _CUT * (high - low):
            high = highest
        margin = 0.08 * max(high - low, 1e-9)
        y_range = (float(low - margin), float(high + margin))
        if above := int((finite > y_range[1]).sum()):
            remarks.append(f"{above} of {len(heights)} values above this range, up to {highest:.4g}")
    hidden = f"Not shown: {'; '.join(remarks)}." if remarks else ""
    return Chart(series, x_label, y_label, title, y_range=y_range, hidden=hidden)


def bars(rows: dict[str, dict[str, float]], errors: dict[str, dict[str, float]]) -> np.ndarray:
    """A panel per number, a bar per model: a picture, uint8 [H, W, 3].

    Args:
        rows: {name of number, with unit and better direction: {label: value}}; a name may have several lines.
        errors: half widths in the same form.
    """
    labels = list(dict.fromkeys(label for row in rows.values() for label in row))
    columns = min(4, len(rows))
    height = -(-len(rows) // columns)

    def draw(figure):
        for place, (name, row) in enumerate(rows.items(), start=1):
            axes = figure.add_subplot(height, columns, place)
            for position, label in enumerate(labels):
                if label in row:
                    axes.bar(position, row[label], yerr=errors.get(name, {}).get(label), color=f"C{position}", capsize=3)
            axes.set_title(name, fontsize=8)
            axes.set_xticks(range(len(labels)), [short_label(label) for label in labels], rotation=30, ha="right", fontsize=7)
            axes.tick_params(axis="y", labelsize=7)

    return rendered(draw, (3.0 * columns, 2.6 * height))


@contextlib.contextmanager
def default_style() -> Iterator[None]:
    """A context in which matplotlib draws in its default style, not in that of a matplotlibrc, which may require LaTeX."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


def short_label(label: str) -> str:
    """A name of a run or of data as a label: shortened if long, and with a space before `_`, which would hide the label."""
    if len(label) > _LONGEST_LABEL:
        label = f"{label[: _LONGEST_LABEL // 2 - 2]}...{label[-_LONGEST_LABEL // 2 + 1 :]}"
    return f" {label}" if label.startswith("_") else label


def rendered(draw: Callable[[Any], object], inches: tuple[float, float]) -> np.ndarray:
    """The picture, uint8 [H, W, 3], that `draw` draws on a matplotlib Figure of that width and height in inches."""
    # Imported here: it takes half a second that no other command needs.
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Names are not formulas, even with dollars in them; letters that the font lacks become boxes.
    with default_style(), matplotlib.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure = Figure(inches, dpi=_DOTS, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        draw(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()
