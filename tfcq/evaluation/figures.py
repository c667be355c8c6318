"""Figures of the report, drawn by matplotlib without a display: each function returns uint8 [H, W, 3]."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

_INCHES, _DOTS = (6.4, 4.0), 110
_LONGEST_LABEL = 28  # characters; a path of a hundred characters leaves no room for the curves


def prd_curves(curves: dict[str, dict[str, np.ndarray]]) -> np.ndarray:
    """Precision against recall (Sajjadi et al. 2018, Fig. 5); curves: {label: {"precision": [A], "recall": [A]}}."""

    def draw(axes):
        for label, curve in curves.items():
            axes.plot(curve["recall"], curve["precision"], label=short_label(label))
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02), title="precision and recall (PRD)")
        axes.legend(loc="upper right")

    return _drawn(draw)


def histogram(values: dict[str, np.ndarray], unit: str) -> np.ndarray:
    """Overlaid histograms of per-image values; values: {label: [N]}, unit: that of the horizontal axis."""

    def draw(axes):
        bins = np.histogram_bin_edges(np.concatenate(list(values.values())), 60)
        for label, one in values.items():
            axes.hist(one, bins, density=True, alpha=0.55, label=f"{short_label(label)}: mean {np.mean(one):.3f}")
        axes.set(xlabel=unit, ylabel="density", title="per image")
        axes.legend()

    return _drawn(draw)


def lines(series: dict[str, tuple[np.ndarray, np.ndarray]], x_label: str, title: str, shown: float = 1.0) -> np.ndarray:
    """Lines over one axis; series: {label: ([x], [y])}. The lowest fraction `shown` of the values is in the visible range."""

    def draw(axes):
        for label, (x, y) in series.items():
            axes.plot(x, y, label=short_label(label), linewidth=1.0)
        heights = np.concatenate([y for _, y in series.values()])
        heights = heights[np.isfinite(heights)]
        if len(heights):
            low, high = heights.min(), np.quantile(heights, shown)
            margin = 0.08 * max(high - low, 1e-9)
            axes.set_ylim(low - margin, high + margin)
        axes.set(xlabel=x_label, title=title)
        axes.legend()

    return _drawn(draw)


def bars(rows: dict[str, dict[str, float]], errors: dict[str, dict[str, float]]) -> np.ndarray:
    """A panel per number, a bar per model; rows: {name of number: {label: value}}, errors: half widths in the same form."""
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

    return rendered(draw, (3.0 * columns, 2.5 * height))


@contextlib.contextmanager
def default_style() -> Iterator[None]:
    """A context in which matplotlib draws in its default style, not in that of a matplotlibrc, which may require LaTeX."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


def _drawn(draw):
    return rendered(lambda figure: draw(figure.add_subplot()), _INCHES)


def short_label(label):
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
