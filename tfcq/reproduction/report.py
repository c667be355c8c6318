"""table.md and table.png of an ablation: the paper's numbers beside ours, every protocol, and whether the paper's orders show."""

import json
import pathlib

from tfcq.errors import UserError
from tfcq.evaluation.comparable import differences
from tfcq.evaluation.figures import default_style
from tfcq.evaluation.tables import markdown_table
from tfcq.machine import paths
from tfcq.machine.files import write_text
from tfcq.metrics.registry import is_number

PAPER_NAMES = {"bits_per_dim": "BPD", "classifier_score": "IS", "frechet_distance": "FID"}
"""What the paper calls the numbers of `tfcq.reproduction.tables.BETTER`."""

_WORDS = {"bits_per_dim": "bits/dim", "classifier_score": "classifier score", "frechet_distance": "Frechet distance"}
_FIRST = ("bits_per_dim", "elbo", "classifier_score", "frechet_distance", "kernel_distance")
_HEADINGS = {"bits_per_dim": "bits/dim (importance-weighted)", "elbo": "bits/dim (ELBO)"}
_ERRORS = (
    "bits_per_dim_standard_error",
    "standard_deviation_over_seeds",
    "standard_error",
    "standard_deviation_over_splits",
)
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


def write_report(table, rows, output, sentences):
    """Writes OUTPUT/table.md and OUTPUT/table.png.

    Args:
        table: `tfcq.reproduction.tables.Table`.
        rows: {row name: record of `tfcq.reproduction.run.Ablation`}; rows without one were not run.
        output: folder.
        sentences: on how the rows were trained.

    Returns:
        The path of table.md.

    Raises:
        UserError: the folder cannot be written.
    """
    output = pathlib.Path(output)
    try:
        output.mkdir(parents=True, exist_ok=True)
        with default_style():
            _draw(table, rows, output / "table.png")
        write_text(output / "table.md", _text(table, rows, sentences))
    except OSError as error:
        raise UserError(f"output {output}: cannot be written: {error.strerror}") from error
    return output / "table.md"


def entries(record):
    """{name: entry} of what was measured in a row; empty where nothing was."""
    measured = record.get("evaluation", {}).get("measured", {})
    return {name: entry for name, entry in measured.items() if isinstance(entry, dict)}


def value_of(record, kind):
    """A row's number of that kind, a float; None where it was not measured."""
    return next((_value(entry) for name, entry in entries(record).items() if is_number(name, kind)), None)


def _value(entry):
    return entry.get("bits_per_dim", entry.get("value"))


def _columns(rows):
    """The names of all numbers that were measured: first those that the paper has."""
    names = list(dict.fromkeys(name for record in rows.values() for name in entries(record)))
    known = [name for kind in _FIRST for name in names if is_number(name, kind)]
    return known + [name for name in names if name not in known]


def _text(table, rows, sentences):
    names = _columns(rows)
    unlike = {name: _differing(rows, name) for name in names}
    paper = [kind for kind in PAPER_NAMES if any(kind in row.paper for row in table.rows)]
    headings = [
        "row",
        *(f"paper: {PAPER_NAMES[kind]}" for kind in paper),
        *(_HEADINGS.get(name, name) + (" (!)" if unlike[name] else "") for name in names),
        "steps",
        "minutes",
        "weights",
        "state",
    ]
    lines = [f"# {table.title}", "", f"The paper's columns: {table.source}. The others are ours.", ""]
    lines += [
        "**Ours are of the widths, budget and data below: their levels do not compare with the paper's, only the order of "
        "the rows does. A Frechet distance or score whose name is not fid or inception_score is "
        "not the paper's quantity either.**",
        "",
    ]
    lines_of_table = []
    for row in table.rows:
        record = rows.get(row.name, {})
        measured = entries(record)
        cells = [f"{row.paper[kind]:g}" if kind in row.paper else "-" for kind in paper]
        cells += [_cell(measured[name]) if name in measured else "n/a" for name in names]
        lines_of_table.append([row.name, *cells, *_effort(record), _state(record)])
    floors = {name: _floor(rows, name) for name in names}
    if any(floors.values()):
        cells = ["-"] * len(paper) + [floors[name] or "-" for name in names]
        lines_of_table.append(["real images in their place", *cells, "-", "-", "-", "-"])
    lines.append(markdown_table(headings, lines_of_table))
    lines += ["", "n/a: not measured (not every model has a likelihood).", "", "![ours and the paper's](table.png)", ""]
    lines += ["## Does the paper's order show?", "", *(_order(order, table, rows) for order in table.orders), ""]
    lines += ["## Protocol", "", *(f"- {paths.markdown(sentence)}" for sentence in sentences), *_data(rows), ""]
    marked = {name: ", ".join(found) for name, found in unlike.items() if found}
    lines += [f"- `{name}` (!): not measured alike; the rows differ in {found}." for name, found in marked.items()]
    lines += [f"- {line}" for name in names for line in _protocol(rows, name)]
    return "\n".join(lines) + "\n"


def _cell(entry):
    error = next((entry[key] for key in _ERRORS if entry.get(key) is not None), None)
    return f"{_value(entry):.5g}" + ("" if error is None else f" +- {error:.2g}")


def _effort(record):
    """Steps, minutes and weights."""
    if not record:
        return ["n/a", "n/a", "n/a"]
    weights = f"{record['weights']:,}" if "weights" in record else "n/a"
    return [record["step"], f"{record['seconds'] / 60:.1f}", weights]


def _state(record):
    if "failure" in record:
        return f"failed: {paths.markdown(record['failure'].replace('|', '/'))}"
    return "measured" if "evaluation" in record else "trained" if record.get("step") else "not run"


def _floor(rows, name):
    """What real images score; several values where rows were measured differently."""
    found = [entries(record).get(name, {}).get("real") for record in rows.values()]
    return ", ".join(dict.fromkeys(f"{value:.5g}" for value in found if value is not None))


def _order(order, table, rows):
    """A line: what the paper's rows show, and whether ours do, with the numbers."""
    named = [name for group in order.groups for name in group]
    values = {name: value_of(rows.get(name, {}), order.number) for name in named}
    values = {name: value for name, value in values.items() if value is not None}
    statement = " before ".join(" and ".join(group) for group in order.groups) + f" on the {_WORDS[order.number]}"
    paper = ", ".join(f"{table.row(name).paper[order.number]:g}" for name in named)
    holds = order.holds(values)
    if holds is None:
        missing = [name for name in named if name not in values]
        answer = f"unknown, without a number of {', '.join(missing)}"
    else:
        answer = f"{'yes' if holds else 'no'} ({', '.join(f'{name} {values[name]:.5g}' for name in named)})"
    return f"- {statement}: {answer}; the paper: {paper}"


def _data(rows):
    """A line a data set that was seen; the rows of one ablation have one."""
    seen = dict.fromkeys(record["evaluation"]["data"] for record in rows.values() if "evaluation" in record)
    return [f"- Data: {paths.markdown(text)}." for text in seen]


def _protocol(rows, name):
    """How a number was measured: a line for each way that occurs, with the rows where there are several."""
    ways = {}
    for row, record in rows.items():
        entry = entries(record).get(name)
        if entry is None:
            continue
        facts = [f"{key}={_plain(entry[key])}" for key in _PROTOCOL if key in entry]
        facts.append(f"checkpoint={record['evaluation']['measured']['checkpoint']}")
        notes = "".join(f" ({note})" for note in entry.get("notes", ()))
        ways.setdefault(f"{entry.get('meaning', 'no meaning recorded')}: {', '.join(facts)}{notes}", []).append(row)
    alone = len(ways) == 1
    return [f"`{name}`{'' if alone else ' of ' + ', '.join(which)}: {way}." for way, which in ways.items()]


def _differing(rows, name):
    """What the rows' measurements of a number differ in, so that they do not compare."""
    return differences([entries(record)[name] for record in rows.values() if name in entries(record)])


def _plain(value):
    return json.dumps(value) if isinstance(value, dict | list) else value


def _draw(table, rows, path):
    """Ours and the paper's, side by side: bits/dim against Frechet distance, or the distances where the paper has no bits/dim."""
    # Here, as it takes half a second that an error in the flags need not wait for.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((11.0, 4.4), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    ours = {
        row.name: {kind: value_of(rows.get(row.name, {}), kind) for kind in ("bits_per_dim", "frechet_distance")}
        for row in table.rows
    }
    paper = {row.name: row.paper for row in table.rows}
    distance = next((name for name in _columns(rows) if is_number(name, "frechet_distance")), "Frechet distance")
    panels = (("ours", ours, distance), ("the paper's", paper, "FID"))
    draw = _draw_points if any("bits_per_dim" in row.paper for row in table.rows) else _draw_bars
    for place, (title, numbers, label) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, 2, place)
        axes.set(title=title)
        drawn = {
            f"C{color}": (name, row)
            for color, (name, row) in enumerate(numbers.items())
            if row.get("frechet_distance") is not None
        }
        draw(axes, drawn, f"{label} (lower is better)")
        if not drawn:
            axes.text(0.5, 0.5, "nothing measured", ha="center", transform=axes.transAxes)
    canvas.print_png(path)


def _draw_points(axes, drawn, label):
    """Bits/dim against Frechet distance; a row without a likelihood is a line at its distance."""
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
    """A bar for each row's Frechet distance, the first row on top."""
    for color, (name, row) in drawn.items():
        bar = axes.barh([name], [row["frechet_distance"]], color=color)
        axes.bar_label(bar, fmt="%.4g", fontsize=7)
    axes.invert_yaxis()
    axes.set(xlabel=label)
