"""Rounds of measurements in processes of their own, in turns with other programs, and what they come to.

On a shared machine only times that were measured side by side can be compared. A program beside is any command; of its output
the lines are used that are JSON objects with `workload` and `images_per_second` (or `processor_seconds`, for a first step).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from tfcq.errors import UserError

FAMILIES: dict[str, tuple[str, ...]] = {
    "cqf": ("--preset=benchmark_cqf",),
    "realnvp": ("--preset=benchmark_realnvp",),
    "glf": ("--preset=cifar10_glf",),
    "srvae": ("--preset=cifar10_srvae", "--batch_size=8"),
    "vae_bijective_prior": ("--preset=cifar10_vae_bijective_prior", "--batch_size=8"),
    "soft_introvae": ("--preset=cifar10_soft_introvae",),
    "introvae": ("--preset=cifar10_introvae", "--image_size=64", "--batch_size=16", "--pretraining_steps=0", "--margin=100"),
}
"""{a name: the flags of its configuration} of what `--families` measures."""

_WORDS = {
    "first step": ("first step",),
    "train step": ("train", "step"),
    "log_prob": ("log_prob", "likelihood"),
    "sample": ("sample",),
}
"""Which words in the name of a workload of the program beside make it one of ours; the first of its lines that has one counts."""


def run_rounds(name: str, flags: Sequence[str], rounds: int, beside: str | None) -> list[list[dict[str, Any]]]:
    """Measures a configuration `rounds` times, each time in a new process and then the program beside; passes all output on.

    Args:
        name: of the configuration; it stands for {name} in `beside`.
        flags: of `tfcq.benchmark`, without `--rounds` and `--beside`.
        rounds: how many times.
        beside: a shell command; None: nothing is run beside.

    Returns:
        [lines of tfcq, lines of the program beside].

    Raises:
        UserError: a process fails.
    """
    commands = [[sys.executable, "-m", "tfcq.benchmark", *flags, "--rounds=1", "--beside="]]
    if beside:
        commands.append(["bash", "-c", beside.replace("{name}", name)])
    lines: list[list[dict[str, Any]]] = [[], []]
    for _ in range(rounds):
        for found, command in zip(lines, commands):
            found += _lines_of(command)
    return lines


def _lines_of(command):
    """The JSON objects among the lines that a command prints; they are passed on while it runs."""
    found = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            try:
                read = json.loads(line)
            except ValueError:
                continue
            if isinstance(read, dict) and "workload" in read:
                found.append(read)
    if process.returncode:
        raise UserError(f"a round failed: {' '.join(command)}")
    return found


def ratios(name: str, ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A line for each workload that both sides have: medians over the rounds, and the speed of tfcq over the other's.

    For a first step, `ratio` is tfcq's processor seconds over the other's.
    """
    found = []
    for workload, words in _WORDS.items():
        unit = "processor_seconds" if workload == "first step" else "images_per_second"
        sides = [
            [line[unit] for line in ours if line["workload"] == workload and line.get("stage", 0) == 0 and unit in line],
            _of_first(theirs, words, unit),
        ]
        if all(sides):
            one, other = (statistics.median(values) for values in sides)
            found.append(
                {"ratio": round(one / other, 3), "workload": workload, "name": name, "unit": unit, "tfcq": one, "beside": other}
                | {"rounds": [round(first / second, 3) for first, second in zip(*sides)]}
            )
    return found


def _of_first(lines, words, unit):
    """The values, one a round, of the workload of the first line whose name has one of the words."""
    if words != ("first step",):
        lines = [line for line in lines if "first step" not in line["workload"]]
    names = [line["workload"] for line in lines if unit in line and any(word in line["workload"] for word in words)]
    return [line[unit] for line in lines if names and line["workload"] == names[0] and unit in line]


_COLUMNS = {
    "machine": "machine",
    "config": "configuration",
    "batch_size": "batch",
    "precision": "precision",
    "train step": "train, images/s",
    "log_prob": "log_prob, images/s",
    "sample": "sample, images/s",
    "gflop_per_second": "GFLOP/s of the train step",
    "fraction_of_peak": "of the machine's rate",
    "first step": "first step: s, processor s",
    "memory": "peak memory, MB",
}


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """The rows of the table of the documentation, in Markdown: one for each configuration among the lines."""
    rows: dict[str, dict[str, Any]] = {}
    for line in lines:
        if "config" not in line or line.get("stage", 0):
            continue
        row = rows.setdefault(line["config"], {key: line.get(key, "") for key in _COLUMNS})
        row |= {key: line[key] for key in ("gflop_per_second", "fraction_of_peak") if key in line}
        if line["workload"] == "first step":
            row["first step"] = f"{line['seconds']}, {line['processor_seconds']}"
        else:
            row[line["workload"]] = line.get("images_per_second", "")
        if line["workload"] == "train step":
            row["memory"] = line.get("peak_device_mb", line["peak_rss_mb"])
    named = [{heading: row[key] for key, heading in _COLUMNS.items()} for row in rows.values()]
    return tabulate(named, headers="keys", tablefmt="github", disable_numparse=True)
