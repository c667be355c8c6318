"""The results of all runs as data: configs/results.csv, a row a run, of what is kept in configs/results/.

    python tools/results.py    writes results.csv anew
    python tools/results.py --workdir=DIR --name=NAME --data=CIFAR-10 --command=COMMAND    keeps a run's numbers first

Of a run, in configs/results/NAME/, are kept config.json and the last evaluation, metrics.json, without paths of the machine, and
run.json: minutes of training, weights, the command, and how the minutes were measured.

Columns of results.csv: run, system, data, image_size, steps, batch_size, minutes, weights, checkpoint, seed; then for each number
that any run has NAME, NAME_error (its standard error, or the standard deviation over splits), NAME_real (of real images in the
place of samples) and NAME_protocol (what it was measured of). Minutes are of a machine that run.json describes.
"""

from __future__ import annotations

import csv
import io
import json
import pathlib
import sys
from typing import Any

from tfcq.command_line.command import Command
from tfcq.command_line.flags import Flags
from tfcq.config import Config
from tfcq.errors import UserError
from tfcq.machine.files import write_text
from tfcq.releasing import places
from tfcq.workdir import read_config
from tfcq.workdir.metrics import read_metrics

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
FACTS = ("run", "system", "data", "image_size", "steps", "batch_size", "minutes", "weights", "checkpoint", "seed")


def define(flags: Flags) -> None:
    """The flags of this tool."""
    flags.folder("workdir", None, "A run whose numbers are kept")
    flags.string("name", "", "The name that it gets: that of its flagfile, or TABLE_ROW of a table")
    flags.string("data", "", "What its data set is called, such as CIFAR-10")
    flags.string("command", "", "The command that trained it")
    flags.string("machine", "2 CPU cores, AMD EPYC", "The machine whose minutes are given")
    flags.number("minutes", None, "The minutes of training; left out: those in progress.json")


def main(flags: Flags) -> None:
    """Keeps a run's numbers, if one is given, and writes results.csv."""
    if flags.workdir or flags.name:
        if not (flags.workdir and flags.name and flags.data and flags.command):
            raise UserError("expected --workdir=DIR, --name=NAME, --data=NAME and --command=COMMAND, or none of them")
        facts = {"data": flags.data, "command": flags.command, "machine": flags.machine, "minutes": flags.minutes}
        keep(flags.workdir, CONFIGS / "results" / flags.name, facts)
    text = table(CONFIGS / "results")
    write_text(CONFIGS / "results.csv", text)
    print(f"wrote {CONFIGS / 'results.csv'}: {len(text.splitlines()) - 1} runs", flush=True)


def keep(workdir: pathlib.Path, folder: pathlib.Path, facts: dict[str, Any]) -> None:
    """Writes config.json, metrics.json and run.json of a run into a folder; `facts` are run.json's, minutes None: as trained."""
    config, rows = read_config(workdir), read_metrics(workdir)
    measured = [row for row in rows if "checkpoint" in row]
    if not measured:
        raise UserError(f"workdir {workdir}: expected a run that tfcq evaluate has measured, found none of its rows")
    progress = json.loads((pathlib.Path(workdir) / "progress.json").read_text())
    run = facts | {"weights": progress["weights"]}
    if run["minutes"] is None:
        run["minutes"] = round(progress["seconds"] / 60, 1)
    without = places.without(config)
    names = places.renamed(config, without)
    texts = {
        "config.json": without.to_json(),
        "metrics.json": json.dumps(places.shortened(measured[-1], names), indent=2) + "\n",
        "run.json": json.dumps(run, indent=2) + "\n",
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_text(folder / name, text)


def table(folder: pathlib.Path) -> str:
    """The text of results.csv, of the folders in a folder; numbers as they were recorded."""
    rows = [_row(path) for path in sorted(folder.iterdir()) if (path / "config.json").is_file()]
    numbers = dict.fromkeys(name for row in rows for name in row if name not in FACTS)
    text = io.StringIO()
    writer = csv.DictWriter(text, [*FACTS, *numbers], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def rows_of(path: pathlib.Path) -> list[dict[str, str]]:
    """The rows of results.csv."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def _row(folder):
    config = Config.from_json((folder / "config.json").read_text(), of_a_run=True)
    measured = json.loads((folder / "metrics.json").read_text())
    run = json.loads((folder / "run.json").read_text())
    entries = {name: entry for name, entry in measured.items() if isinstance(entry, dict)}
    row: dict[str, Any] = {
        "run": folder.name,
        "system": config.model,
        "data": run["data"],
        "image_size": config.data.image_size,
        "steps": measured["step"],
        "batch_size": config.training.batch_size,
        "minutes": "" if run["minutes"] is None else run["minutes"],
        "weights": run["weights"],
        "checkpoint": measured.get("checkpoint", "last"),  # a row of training is of its last step
        "seed": measured["seed"],
    }
    for name, entry in entries.items():
        row |= _columns(name, entry, measured["split"])
    return row


def _columns(name, entry, split):
    """The columns of one number of metrics.json."""
    is_bits = "bits_per_dim" in entry
    value = entry["bits_per_dim"] if is_bits else entry.get("value")
    error = next((entry[key] for key in ("bits_per_dim_standard_error", "standard_error", "standard_deviation_over_splits")
                  if key in entry), "")
    of = [entry.get("split", split)]
    of += [f"K={entry['num_importance_samples']}"] if "num_importance_samples" in entry else []
    of += [f"{entry['num_images']} images"] if "num_images" in entry else []
    of += [f"{entry['num_generated']} generated, {entry['num_real']} real"] if "num_generated" in entry else []
    of += [f"{entry['num_pairs']} pairs"] if "num_pairs" in entry else []
    of += [f"features {entry['extractor']} {entry['checksum']}"] if "extractor" in entry else []
    name = f"{name}_bits_per_dim" if is_bits and name != "bits_per_dim" else name
    return {name: value, f"{name}_error": error, f"{name}_real": entry.get("real", ""), f"{name}_protocol": "; ".join(of)}


COMMAND = Command("results", __doc__, define, main)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
