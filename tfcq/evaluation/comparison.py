"""Compares evaluated workdirs and images in a table and figures; reads what `tfcq.evaluate` recorded and runs no model."""

import json
import os
import shlex
from collections.abc import Sequence

import numpy as np

from tfcq import images as units
from tfcq import workdir as workdirs
from tfcq.checks import check_kind
from tfcq.errors import UserError
from tfcq.evaluation import figures, page, web_page
from tfcq.evaluation.comparable import completed, data_facts, differences
from tfcq.evaluation.report import CURVES, FOLDER, REAL, main_value, real_curve, unit_of
from tfcq.machine import paths
from tfcq.machine.files import check_file, write_text
from tfcq.metrics import registry


def write_comparison(folders: Sequence[str | os.PathLike], output: str | os.PathLike) -> paths.AnyPath:
    """Writes OUTPUT/comparison.md and its figures, and OUTPUT/comparison.html, which has all in one file.

    Args:
        folders: workdirs of evaluated runs, and folders that `image_sets.evaluate_images` has written.
        output: folder; created if it does not exist.

    Returns:
        The path of comparison.md.

    Raises:
        UserError: a workdir without an evaluation, or a folder that cannot be written.
    """
    check_kind("compare", folders, (list, tuple), "a list of folders")
    compared, place = [paths.folder(folder, "compare") for folder in folders], paths.folder(output, "output")
    path = place / "comparison.md"
    for name in (path.name, "comparison.html", "numbers.png", "prd.png"):
        check_file("output", place / name)
    labels = _labels(compared)
    measured = {label: latest_numbers(folder) for label, folder in zip(labels, compared)}
    names = list(dict.fromkeys(name for numbers in measured.values() for name in numbers))
    same = {name: [numbers[name] for numbers in measured.values() if name in numbers] for name in names}
    unlike = {name: found for name, entries in same.items() if (found := differences(entries))}
    shown = [page.Figure("numbers", _bars(measured, names, unlike), "The numbers; half widths are those of the table.")]
    curves: dict[str, dict[str, np.ndarray]] = {}
    stale = []
    for label, folder in zip(labels, compared):
        curve, time = _prd_curve(folder)
        times = {entry["time"] for name, entry in measured[label].items() if name.startswith("prd_")}
        if curve and (time is None or time in times):  # None: an earlier version did not record it
            curves[label] = curve
        elif times:
            stale.append(label)
    if curves:
        shown.append(_prd_figure(curves, any(name.startswith("prd_") for name in unlike)))
    for figure in shown:
        units.write_png(place / f"{figure.name}.png", figure.picture)
    blocks = [*_blocks(measured, names, unlike, shown, stale)]
    write_text(place / "comparison.html", web_page.page(blocks))
    write_text(path, page.markdown(blocks, ""))
    return path


def latest_numbers(workdir: str | os.PathLike) -> dict[str, dict]:
    """{name: entry} of a workdir: the newest entry of each number that `tfcq.evaluate` measured at the last evaluated step,
    with the "step" and the "time" of its row. Of evaluated images those that were measured last; there is no step.

    Entries of earlier versions are completed from their row and the run's configuration.
    """
    if workdirs.has_evaluated_images(workdir):
        return _numbers_of_images(workdirs.read_metrics(workdir))
    data = data_facts(workdirs.read_config(workdir).data, _channels(workdir))
    rows = [row for row in workdirs.read_metrics(workdir) if "checkpoint" in row]  # training's rows have none
    if not rows:
        flag = shlex.quote(f"--workdir={workdir}")
        raise UserError(f"workdir {workdir}: expected an evaluation; make one with python -m tfcq.evaluate {flag}")
    numbers: dict[str, dict] = {}
    for row in rows:
        if row["step"] == rows[-1]["step"]:
            of_row = {name: row.get(name) for name in ("step", "time")}
            numbers |= {name: completed(entry, row, data) | of_row for name, entry in row.items() if isinstance(entry, dict)}
    return numbers


def _numbers_of_images(rows):
    """As `latest_numbers`, of the rows of `image_sets.evaluate_images`: those of the images that were measured last."""
    numbers: dict[str, dict] = {}
    for row in rows:
        if row["generated_content"] == rows[-1]["generated_content"]:
            numbers |= {name: entry | {"time": row["time"]} for name, entry in row.items() if isinstance(entry, dict)}
    return numbers


def _channels(workdir):
    try:
        return workdirs.read_image_shape(workdir)[-1]
    except UserError:  # an evaluation may have been copied without data.json
        return None


def _labels(folders):
    """The names of the folders, or their whole paths if names are not distinct."""
    names = [folder.absolute().name for folder in folders]
    if len(set(names)) == len(names) and ".." not in names:
        return names
    labels = [str(folder) for folder in folders]
    for label in labels:
        if labels.count(label) > 1:
            raise UserError(f"compare: expected each workdir once, received {label!r} twice")
    return labels


def _bars(measured, names, unlike):
    rows: dict[str, dict[str, float]] = {}
    errors: dict[str, dict[str, float]] = {}
    for name in names:
        for label, numbers in measured.items():
            if name in numbers:
                value, error, _ = main_value(numbers[name])
                better = registry.direction_of(name)
                axis = filter(None, (unit_of(name, numbers[name]), better and f"better: {better}"))
                title = "\n".join([_marked(name, unlike), *axis])
                rows.setdefault(title, {})[label] = value
                if error is not None:
                    errors.setdefault(title, {})[label] = error
    return figures.bars(rows, errors)


def _prd_curve(folder):
    """(the curve of the last report or None, the time of the row that it belongs to or None if unknown)."""
    try:
        with (folder / FOLDER / CURVES).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            curve = {name.removeprefix("prd_"): arrays[name] for name in arrays.files if name.startswith("prd_")}
            if not {"precision", "recall"} <= curve.keys():
                return None, None
            return curve, str(arrays["time"]) if "time" in arrays.files else None
    except (OSError, KeyError, ValueError):
        return None, None


def _marked(name, unlike):
    return f"{name} (!)" if name in unlike else name


def _prd_figure(curves, differ):
    """The curves of precision and recall; that of real images is the first run's, unless protocols `differ`."""
    caption = "Precision and recall for distributions (Sajjadi et al. 2018)."
    first = next((curve for curve in curves.values() if "real_precision" in curve), None)
    if first is not None and not differ and REAL not in curves:
        curves = curves | {REAL: real_curve(first)}
        caption += " The dashed curve is of other real images in the place of the generated ones: about what a perfect model has."
    return page.Figure.of("prd", figures.prd_curves(curves, real=[REAL]), caption)


def _blocks(measured, names, unlike, shown, stale):
    remarks, rows = [], []
    for name in names:
        entries = {label: numbers[name] for label, numbers in measured.items() if name in numbers}
        found = list(dict.fromkeys(filter(None, (unit_of(name, one) for one in entries.values()))))
        remarks += [f"{name}: {unit}." for unit in found]
        cells = [_cell(entries.get(label)) for label in measured]
        floors = {f"{entry['real']:.5g}": None for entry in entries.values() if "real" in entry}
        rows.append([_marked(name, unlike), *cells, ", ".join(floors), "; ".join(found), registry.direction_of(name)])
    remarks += _origins(measured)
    remarks += [f"{name}: not measured alike; they differ in {', '.join(found)}." for name, found in unlike.items()]
    if any(figure.name == "prd" for figure in shown) and any(name.startswith("prd_") for name in unlike):
        remarks.append("The curves of precision and recall below: not measured alike either.")
    for label in stale:
        remarks.append(f"{label}: no curve of precision and recall, as its last report, if any, is of another evaluation.")
    yield page.Heading("Comparison", 1)
    yield page.Table(["number", *measured, "real", "unit", "better"], rows)
    yield page.Text("real: what other real images score in the place of the generated ones.")
    if remarks:
        yield page.Bullets(remarks)
    yield from shown


def _origins(measured):
    """Lines that say of which models the numbers are, and on which split's images."""
    lines: list[str] = []
    splits: dict[str | None, dict[str, None]] = {}
    for label, numbers in measured.items():
        of_images = {json.dumps(entry["images"]["generated"]): entry for entry in numbers.values() if "images" in entry}
        for entry in of_images.values():
            images = entry["images"]["generated"]
            kinds = ", ".join([*images["formats"], *images["sizes"], *images["prepared"]])
            lines.append(f"{label}: images of {images['place']} ({kinds}).")
            lines += [f"{label}: {note}." for note in entry.get("notes", ())]
        steps = dict.fromkeys(
            f"step {entry['step']}, {entry.get('checkpoint', '?')}" for entry in numbers.values() if "images" not in entry
        )
        if steps:
            lines.append(f"{label}: {'; '.join(steps)} checkpoint.")
        for name, entry in numbers.items():
            splits.setdefault(entry.get("split"), {})[name] = None
    return lines + [f"Of {split} images: {', '.join(names)}." for split, names in splits.items() if split]


def _cell(entry):
    if entry is None:
        return ""
    value, error, _ = main_value(entry)
    return f"{value:.5g}" + ("" if error is None else f" +- {error:.2g}")
