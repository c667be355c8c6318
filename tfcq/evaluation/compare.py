"""Several evaluated workdirs in one table and figure; reads what `tfcq.evaluate` recorded and runs no model."""

import json
import shlex

import numpy as np

from tfcq import images as units
from tfcq import paths
from tfcq import workdir as workdirs
from tfcq.errors import UserError
from tfcq.evaluation import figures
from tfcq.evaluation.report import CURVES, FOLDER, main_value
from tfcq.files import check_folder

_PROTOCOL = {"split", "dataset", "temperature", "seed", "seeds", "extractor", "checksum", "preprocessing", "block_size"}
"""With every num_...: what two entries must share to be comparable."""



def compare(workdirs_to_compare, output):
    """Writes OUTPUT/comparison.md and its figures.

    Args:
        workdirs_to_compare: folders of runs that were evaluated.
        output: folder, made where it is not there.

    Returns:
        The path of comparison.md.

    Raises:
        UserError: a workdir without an evaluation, or a folder that cannot be written.
    """
    folders, output = [paths.folder(folder, "compare") for folder in workdirs_to_compare], paths.folder(output, "output")
    check_folder("output", output)
    labels = _labels(folders)
    measured = {label: latest_numbers(folder) for label, folder in zip(labels, folders)}
    names = list(dict.fromkeys(name for numbers in measured.values() for name in numbers))
    pictures = {"numbers": _bars(measured, names)}
    curves = {label: curve for label, folder in zip(labels, folders) if (curve := _prd_curve(folder))}
    if curves:
        pictures["prd"] = figures.prd_curves(curves)
    for name, picture in pictures.items():
        units.write_png(output / f"{name}.png", picture)
    path = output / "comparison.md"
    workdirs.write_text(path, _text(measured, names, pictures))
    return path


def latest_numbers(workdir):
    """{name: entry} of a workdir: of each number the newest that `tfcq.evaluate` measured at the newest evaluated step."""
    workdirs.read_config(workdir)  # says it where there is no run
    rows = [row for row in workdirs.read_metrics(workdir) if "checkpoint" in row]  # those of training have none
    if not rows:
        flag = shlex.quote(f"--workdir={workdir}")
        raise UserError(f"workdir {workdir}: expected an evaluation; make one with python -m tfcq.evaluate {flag}")
    numbers = {}
    for row in rows:
        if row["step"] == rows[-1]["step"]:
            numbers |= {name: entry for name, entry in row.items() if isinstance(entry, dict)}
    return numbers


def _labels(folders):
    """The names of the folders, with as much of the path as tells them apart."""
    names = [folder.absolute().name for folder in folders]
    if len(set(names)) == len(names) and ".." not in names:
        return names
    labels = [str(folder) for folder in folders]
    for label in labels:
        if labels.count(label) > 1:
            raise UserError(f"compare: expected each workdir once, received {label!r} twice")
    return labels


def _protocol(entry):
    return {key: value for key, value in entry.items() if key in _PROTOCOL or key.startswith("num_")}


def _bars(measured, names):
    rows, errors = {}, {}
    for name in names:
        for label, numbers in measured.items():
            if name in numbers:
                value, error, _ = main_value(numbers[name])
                rows.setdefault(name, {})[label] = value
                if error is not None:
                    errors.setdefault(name, {})[label] = error
    return figures.bars(rows, errors)


def _prd_curve(folder):
    try:
        with np.load(folder / FOLDER / CURVES, allow_pickle=False) as arrays:
            return {"precision": arrays["prd_precision"], "recall": arrays["prd_recall"]}
    except (OSError, KeyError, ValueError):
        return None


def _text(measured, names, pictures):
    headings = ["number", *map(paths.markdown, measured), "real"]
    lines = ["# Comparison", "", f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    unlike = []
    for name in names:
        entries = {label: numbers[name] for label, numbers in measured.items() if name in numbers}
        protocols = [_protocol(entry) for entry in entries.values()]
        differing = sorted(
            key for key in set().union(*protocols) if len({json.dumps(one.get(key)) for one in protocols}) > 1
        )
        if differing:
            unlike.append(f"- {name}: not measured alike; they differ in {', '.join(differing)}.")
        cells = [_cell(entries.get(label)) for label in measured]
        floors = {f"{entry['real']:.5g}": None for entry in entries.values() if "real" in entry}
        lines.append(f"| {name}{' (!)' if differing else ''} | {' | '.join(cells)} | {', '.join(floors)} |")
    lines += ["", "real: what other real images score in the place of the generated ones.", "", *unlike, ""]
    for name in pictures:
        lines += [f"![{name}]({name}.png)", ""]
    return "\n".join(lines)


def _cell(entry):
    if entry is None:
        return ""
    value, error, _ = main_value(entry)
    return f"{value:.5g}" + ("" if error is None else f" +- {error:.2g}")
