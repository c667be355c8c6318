"""metrics.jsonl and metrics.json: a row an evaluation."""

import json
import pathlib

from tfcq.machine import json_lines
from tfcq.machine.files import check_file, write_text
from tfcq.workdir.history import now


def record_metrics(workdir, row):
    """Appends `row` (a dict of plain values, with its time) to metrics.jsonl and makes it metrics.json."""
    folder = pathlib.Path(workdir)
    row = {"time": now(), **row}
    json_lines.append(folder / "metrics.jsonl", row)
    _write_last_metrics(folder, row)
    return row


def check_metrics_writable(workdir):
    """Raises UserError where `record_metrics` could not write: metrics.jsonl is appended to, metrics.json replaced."""
    check_file("workdir", pathlib.Path(workdir) / "metrics.jsonl", appends=True)
    check_file("workdir", pathlib.Path(workdir) / "metrics.json")


def read_metrics(workdir):
    """The rows of metrics.jsonl, a list of dicts; [] where there are none; UserError where it cannot be read."""
    return json_lines.read(pathlib.Path(workdir) / "metrics.jsonl")


def drop_metrics_after(workdir, step):
    """Takes rows of training beyond `step` out of metrics.jsonl; metrics.json is the last row that remains.

    A run that goes on from `step` writes them again. Rows of `tfcq.evaluate` stay: they are of checkpoints that were there, and
    nothing writes them again.
    """

    def step_of(row):
        return row.get("step", 0)

    def up_to_step(rows):
        of_training = json_lines.last_course([row for row in rows if "checkpoint" not in row], step_of)
        kept = {id(row) for row in of_training if step_of(row) <= step}
        return [row for row in rows if "checkpoint" in row or id(row) in kept]

    folder = pathlib.Path(workdir)
    if not (folder / "metrics.jsonl").exists():
        return
    rows = json_lines.rewrite(folder / "metrics.jsonl", up_to_step)
    if rows:
        _write_last_metrics(folder, rows[-1])
    else:
        (folder / "metrics.json").unlink(missing_ok=True)


def _write_last_metrics(folder, row):
    write_text(folder / "metrics.json", json.dumps(row, indent=2) + "\n")
