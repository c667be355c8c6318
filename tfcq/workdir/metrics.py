"""metrics.jsonl and metrics.json: a row per evaluation."""

from __future__ import annotations

import json
import os

from tfcq.machine import json_lines
from tfcq.machine.files import check_file, replacing
from tfcq.machine.paths import as_path
from tfcq.workdir.history import now


def record_metrics(workdir: str | os.PathLike, row: dict) -> dict:
    """Adds the time to `row` (a dict of plain values), appends it to metrics.jsonl, writes it to metrics.json; returns it.

    A training and an evaluation may do so at a time: metrics.json is the last row of metrics.jsonl.
    """
    folder = as_path(workdir)
    row = {"time": now(), **row}
    with replacing(folder / "metrics.json") as file:  # two processes take turns, with both files
        json_lines.append(folder / "metrics.jsonl", row)
        file.write(_json(row))
    return row


def check_metrics_writable(folder: str | os.PathLike, what: str = "workdir") -> None:
    """Raises UserError if `record_metrics` could not write: metrics.jsonl is appended to, metrics.json replaced.

    `what`: what the folder is, for the message.
    """
    check_file(what, as_path(folder) / "metrics.jsonl", appends=True)
    check_file(what, as_path(folder) / "metrics.json")


def read_metrics(workdir: str | os.PathLike) -> list[dict]:
    """The rows of metrics.jsonl; [] if there are none; UserError if it cannot be read."""
    return json_lines.read(as_path(workdir) / "metrics.jsonl")


def has_evaluated_images(folder: str | os.PathLike) -> bool:
    """Whether a folder, which is none of a run, has numbers of images that `tfcq.evaluate --generated` measured."""
    is_run = (as_path(folder) / "config.json").is_file()
    return not is_run and any("generated" in row for row in read_metrics(folder))


def drop_metrics_after(workdir: str | os.PathLike, step: int) -> None:
    """Removes rows of training beyond `step` from metrics.jsonl; metrics.json becomes the last row that remains.

    A run that resumes from `step` writes these rows again. Rows of `tfcq.evaluate` are kept: the checkpoints that they
    describe existed, and nothing writes the rows again.
    """

    def step_of(row):
        return row.get("step", 0)

    def up_to_step(rows):
        of_training = json_lines.last_course([row for row in rows if "checkpoint" not in row], step_of)
        kept = {id(row) for row in of_training if step_of(row) <= step}
        return [row for row in rows if "checkpoint" in row or id(row) in kept]

    folder = as_path(workdir)
    if not (folder / "metrics.jsonl").exists():
        return
    with replacing(folder / "metrics.json") as file:
        rows = json_lines.rewrite(folder / "metrics.jsonl", up_to_step)
        file.write(_json(rows[-1] if rows else {}))
    if not rows:
        (folder / "metrics.json").unlink(missing_ok=True)


def _json(row):
    return (json.dumps(row, indent=2) + "\n").encode()
