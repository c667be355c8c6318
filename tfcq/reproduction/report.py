"""table.md, table.png, report.json of an ablation: the paper's numbers and ours, all protocols, whether the orders agree."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping

from tfcq.errors import UserError
from tfcq.evaluation.comparable import differences
from tfcq.evaluation.figures import default_style
from tfcq.evaluation.tables import markdown_table
from tfcq.machine import paths
from tfcq.machine.files import replacing, write_text
from tfcq.metrics.registry import direction_of, is_number
from tfcq.reproduction.curves import Curves, json_of, lines_of
from tfcq.reproduction.rows import Table

PAPER_NAMES = {"bits_per_dim": "BPD", "classifier_score": "IS", "frechet_distance": "FID"}
"""The paper's names of the numbers of `tfcq.reproduction.rows.BETTER`."""

_WORDS = {"bits_per_dim": "bits/dim", "classifier_score": "classifier score", "frechet_distance": "Frechet distance"}
_FIRST = ("bits_per_dim", "elbo", "classifier_score", "frechet_distance", "kernel_distance")
_HEADINGS = {"bits_per_dim": "bits/dim (importance-weighted)", "elbo": "bits/dim (ELBO)"}
_ERRORS = (
    "bits_per_dim_standard_error",
    "standard_deviation_over_seeds",
    "standard_error",
    "standard_deviation_over_splits",
)
_EQUAL_WEIGHTS = 0.005
_PROTOCOL = (
    "split",
    "num_images",
    "num_importance_samples",
    "num_generated",
    "num_real",
    "num_real_as_generated",
    "seed",
    "seeds",
    "temperature",
    "extractor",
    "checksum",
    "preprocessing",
)


def write_report(
    table: Table,
    rows: Mapping[str, dict],
    output: str | os.PathLike,
    sentences: Iterable[str],
    has_plane: bool = False,
    curves: Curves | None = None,
) -> paths.AnyPath:
    """Writes OUTPUT/table.md and its figure OUTPUT/table.png, and for programs OUTPUT/report.json
    (JSON, with null for numbers that are not finite).

    Args:
        table: the table of the paper.
        rows: {row name: record of `tfcq.reproduction.run.Ablation`}; rows without a record were not run.
        output: folder.
        sentences: how the rows were trained, for the protocol.
        has_plane: whether OUTPUT/plane.png (`tfcq.reproduction.plane`) is there, to be shown.
        curves: what OUTPUT/curves.png (`tfcq.reproduction.curves`) shows; None: there is no such picture.

    Returns:
        The path of table.md.

    Raises:
        UserError: the folder cannot be written.
    """
    output, sentences = paths.as_path(output), list(sentences)
    try:
        output.mkdir(parents=True, exist_ok=True)
        with default_style():
            _draw(table, rows, output / "table.png")
        write_text(output / "table.md", _text(table, rows, sentences, has_plane, curves))
        values = _finite(_values(table, rows, sentences) | ({"curves": json_of(curves)} if curves else {}))
        write_text(output / "report.json", json.dumps(values, indent=2, allow_nan=False) + "\n")
    except OSError as error:
        raise UserError(f"output {output}: cannot be written: {error.strerror}") from error
    return output / "table.md"


def entries(record: Mapping) -> dict[str, dict]:
    """{name: entry} of the metrics measured for a row; empty if none were."""
    measured = record.get("evaluation", {}).get("measured", {})
    return {name: entry for name, entry in measured.items() if isinstance(entry, dict)}


def value_of(record: Mapping, kind: str) -> float | None:
    """A row's number of a kind, such as "frechet_distance"; None if it was not measured."""
    return next((_value(entry) for name, entry in entries(record).items() if is_number(name, kind)), None)


def _value(entry):
    return entry.get("bits_per_dim", entry.get("value"))


def _columns(rows):
    """The names of all numbers that were measured; those that the paper has come first."""
    names = list(dict.fromkeys(name for record in rows.values() for name in entries(record)))
    known = [name for kind in _FIRST for name in names if is_number(name, kind)]
    return known + [name for name in names if name not in known]


def _text(table, rows, sentences, has_plane, curves):
    names = _columns(rows)
    differing = {name: _differing(rows, name) for name in names}
    paper = [kind for kind in PAPER_NAMES if any(kind in row.paper for row in table.rows)]
    headings = [
        "row",
        *(f"paper: {PAPER_NAMES[kind]}" for kind in paper),
        *(_HEADINGS.get(name, name) + (" (!)" if differing[name] else "") for name in names),
        "steps",
        "minutes",
        *(["ms a step, timed"] if any("ms_per_step" in record for record in rows.values()) else []),
        "weights",
        "state",
    ]
    origin = f"The paper's columns: {table.source}. The others are ours." if paper else f"{table.source}. All numbers are ours."
    lines = [f"# {table.title}", "", origin, ""]
    lines += [
        "**Our numbers are for the widths, budget and data below: their levels cannot be compared with the paper's, only the "
        "ranking of the rows. A Frechet distance or score whose name is not fid or inception_score is not the paper's "
        "quantity either.**",
        "",
    ]
    lines_of_table = []
    for row in table.rows:
        record = rows.get(row.name, {})
        measured = entries(record)
        cells = [f"{row.paper[kind]:g}" if kind in row.paper else "-" for kind in paper]
        cells += [_cell(measured[name]) if name in measured else "n/a" for name in names]
        lines_of_table.append([row.name, *cells, *_effort(record, "ms a step, timed" in headings), _state(record)])
    floors = {name: _floor(rows, name) for name in names}
    if any(floors.values()):
        cells = ["-"] * len(paper) + [floors[name] or "-" for name in names]
        lines_of_table.append(["real images in their place", *cells, *["-"] * (len(headings) - len(cells) - 1)])
    if directions := [direction_of(kind) for kind in paper] + [direction_of(name) for name in names]:
        cells = [direction or "-" for direction in directions]
        lines_of_table.append(["better", *cells, *["-"] * (len(headings) - len(cells) - 1)])
    lines.append(markdown_table(headings, lines_of_table))
    lines += ["", "n/a: not measured (not every model has a likelihood).", "", "![ours and the paper's](table.png)", ""]
    if has_plane:
        lines += ["![bits/dim against Frechet distance, each row at each step that was measured](plane.png)", ""]
    if curves:
        lines += ["## The distance during training", "", "![Frechet distance against epochs](curves.png)", ""]
        lines += [*lines_of(curves), ""]
    if table.orders:
        lines += ["## The paper's orders", "", *(f"- {line}" for line in verdicts(table, rows)), ""]
    protocol = [f"- {paths.markdown(sentence)}" for sentence in sentences]
    lines += ["## Protocol", "", *protocol, *_weights(table, rows), *_data(rows), ""]
    marked = {name: ", ".join(found) for name, found in differing.items() if found}
    lines += [f"- `{name}` (!): not measured alike; the rows differ in {found}." for name, found in marked.items()]
    lines += [f"- {line}" for name in names for line in _protocol(rows, name)]
    return "\n".join(lines) + "\n"


def _cell(entry):
    error = next((entry[key] for key in _ERRORS if entry.get(key) is not None), None)
    return f"{_value(entry):.5g}" + ("" if error is None else f" +- {error:.2g}")


def _effort(record, timed):
    """Steps, minutes, milliseconds of a step if rows were `timed`, and weights."""
    if not record:
        return ["n/a"] * (4 if timed else 3)
    weights = f"{record['weights']:,}" if "weights" in record else "n/a"
    step = ", then ".join(f"{stage:.4g}" for stage in record["ms_per_step"]) if "ms_per_step" in record else "n/a"
    return [record["step"], f"{record['seconds'] / 60:.1f}", *([step] if timed else []), weights]


def _state(record):
    if "failure" in record:
        return f"failed: {paths.markdown(record['failure'].replace('|', '/'))}"
    if "evaluation" in record:
        return "measured"
    return "trained" if record.get("step") else "not run"


def _floor(rows, name):
    """The scores of real images; several values if rows were measured differently."""
    found = [entries(record).get(name, {}).get("real") for record in rows.values()]
    return ", ".join(dict.fromkeys(f"{value:.5g}" for value in found if value is not None))


def verdicts(table: Table, rows: Mapping[str, dict]) -> list[str]:
    """A line for each order of the paper's rows: "as in the paper", "not as in the paper" or "unknown", with the numbers."""
    lines = []
    for order in table.orders:
        judged = _judged(order, table, rows)
        numbers = ", ".join(f"{name} {value:.5g}" for name, value in judged["ours"].items())
        if judged["verdict"] == "unknown":
            missing = [name for name in judged["paper"] if name not in judged["ours"]]
            numbers = f"{' and '.join(missing)} {'has' if len(missing) == 1 else 'have'} no number"
        paper = ", ".join(f"{value:g}" for value in judged["paper"].values())
        lines.append(f"{judged['order']}: {judged['verdict']} ({numbers}; the paper: {paper})")
    return lines


def _judged(order, table, rows):
    """{"order" in words, "verdict", "ours" and "paper": {row: number}} of a ranking of the paper's rows."""
    named = [name for group in order.groups for name in group]
    values = {name: value_of(rows.get(name, {}), order.number) for name in named}
    values = {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
    words = {True: "as in the paper", False: "not as in the paper", None: "unknown"}
    return {
        "order": " before ".join(" and ".join(group) for group in order.groups) + f" on the {_WORDS[order.number]}",
        "verdict": words[order.holds(values)],
        "ours": values,
        "paper": {name: table.row(name).paper[order.number] for name in named},
    }


def _weights(table, rows):
    """A line for each row that is to have as many weights as another one."""
    lines = []
    for row in table.rows:
        both = [rows.get(name, {}).get("weights") for name in (row.name, row.as_large_as)]
        if row.as_large_as and all(both):
            more = both[0] / both[1] - 1.0
            marked = "" if abs(more) <= _EQUAL_WEIGHTS else "(!) "
            lines.append(
                f"- {marked}{row.name} is to have as many weights as {row.as_large_as}: {both[0]:,} and {both[1]:,}, "
                f"{100.0 * more:+.2g} %."
            )
    return lines


def _values(table, rows, sentences):
    """The content of report.json."""
    found = {}
    for row in table.rows:
        record = rows.get(row.name, {})
        effort = {name: record[name] for name in ("step", "seconds", "ms_per_step", "weights", "failure") if name in record}
        found[row.name] = {"paper": row.paper, "measured": entries(record), "state": _state(record)} | effort
    orders = [_judged(order, table, rows) for order in table.orders]
    return {"title": table.title, "source": table.source, "protocol": sentences, "rows": found, "orders": orders}


def _finite(values):
    """The values with None for numbers that are not finite, which JSON lacks."""
    if isinstance(values, Mapping):
        return {name: _finite(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def _data(rows):
    """A line per data set; all rows of one ablation have the same."""
    seen = dict.fromkeys(record["evaluation"]["data"] for record in rows.values() if "evaluation" in record)
    return [f"- Data: {paths.markdown(text)}." for text in seen]


def _protocol(rows, name):
    """How a number was measured: a line for each protocol, with its rows if there are several protocols."""
    protocols: dict[str, list[str]] = {}
    for row, record in rows.items():
        entry = entries(record).get(name)
        if entry is None:
            continue
        facts = [f"{key}={_plain(entry[key])}" for key in _PROTOCOL if key in entry]
        facts.append(f"checkpoint={record['evaluation']['measured']['checkpoint']}")
        notes = "".join(f" ({note})" for note in entry.get("notes", ()))
        protocol = f"{entry.get('meaning', 'no meaning recorded')}: {', '.join(facts)}{notes}"
        protocols.setdefault(protocol, []).append(row)
    if len(protocols) == 1:
        return [f"`{name}`: {protocol}." for protocol in protocols]
    return [f"`{name}` of {', '.join(which)}: {protocol}." for protocol, which in protocols.items()]


def _differing(rows, name):
    """In what the rows' measurements of a number differ, so that they cannot be compared."""
    return differences([entries(record)[name] for record in rows.values() if name in entries(record)])


def _plain(value):
    return json.dumps(value) if isinstance(value, dict | list) else value


def _draw(table, rows, path):
    """Draws our numbers beside the paper's: bits/dim and Frechet distance, or only distances if the paper has no bits/dim."""
    # Imported here, as it takes half a second, for which errors in the flags do not wait.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ours = {
        row.name: {kind: value_of(rows.get(row.name, {}), kind) for kind in ("bits_per_dim", "frechet_distance")}
        for row in table.rows
    }
    paper = {row.name: row.paper for row in table.rows}
    distance = next((name for name in _columns(rows) if is_number(name, "frechet_distance")), "Frechet distance")
    given = {kind for row in table.rows for kind in row.paper}
    panels = [("ours", ours, distance)] + ([("the paper's", paper, "FID")] if "frechet_distance" in given else [])
    draw = _draw_bars if given and "bits_per_dim" not in given else _draw_points
    figure = Figure((5.5 * len(panels), 4.4), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for place, (title, numbers, label) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), place)
        axes.set(title=title)
        drawn = {
            f"C{color}": (name, row)
            for color, (name, row) in enumerate(numbers.items())
            if row.get("frechet_distance") is not None
        }
        draw(axes, drawn, f"{label} (lower is better)")
        if not drawn:
            axes.text(0.5, 0.5, "nothing measured", ha="center", transform=axes.transAxes)
    with replacing(path) as file:
        canvas.print_png(file)


def _draw_points(axes, drawn, label):
    """Draws bits/dim against Frechet distance; a row without a likelihood is a line at its distance."""
    for color, (name, row) in drawn.items():
        bits, height = row.get("bits_per_dim"), row["frechet_distance"]
        if bits is None:
            axes.axhline(height, color=color, linestyle="--", linewidth=1.0, label=f"{name} (no bits/dim)")
        else:
            axes.scatter([bits], [height], color=color, label=name)
    axes.set(xlabel="bits/dim (lower is better)", ylabel=label)
    if drawn:
        axes.legend(fontsize=7)


def _draw_bars(axes, drawn, label):
    """Draws a bar for each row's Frechet distance, the first row on top."""
    for color, (name, row) in drawn.items():
        bar = axes.barh([name], [row["frechet_distance"]], color=color)
        axes.bar_label(bar, fmt="%.4g", fontsize=7)
    axes.invert_yaxis()
    axes.set(xlabel=label)
