"""Rounds in turns with another program, and what is made of their lines."""

import json
import sys

import pytest
from commands import assert_one_line, run_here

from tfcq.benchmarking import rounds
from tfcq.errors import UserError

OURS = [
    {"workload": "first step", "config": "glf", "processor_seconds": 10.0, "seconds": 8.0, "machine": "CPU", "batch_size": 4}
    | {"precision": "float32"},
    {"workload": "train step", "config": "glf", "images_per_second": 90.0, "stage": 0, "peak_rss_mb": 7}
    | {"gflop_per_second": 5.0, "fraction_of_peak": 0.5},
    {"workload": "train step", "config": "glf", "images_per_second": 1.0, "stage": 1, "peak_rss_mb": 9},
    {"workload": "train step", "config": "glf", "images_per_second": 110.0, "stage": 0, "peak_rss_mb": 8},
    {"workload": "machine: float32 matmul 1024", "gflop_per_second": 3.0},
    {"workload": "sample", "config": "glf", "images_per_second": 30.0},
]
THEIRS = [
    {"workload": "W1 first step", "processor_seconds": 4.0},
    {"workload": "W1 GLF train 32x32x3", "images_per_second": 40.0},
    {"workload": "W1 D step only", "images_per_second": 4000.0},
    {"workload": "W1 GLF train 32x32x3", "images_per_second": 60.0},
]


def test_ratios_are_of_medians_and_of_what_both_sides_have():
    found = rounds.ratios("glf", OURS, THEIRS)
    assert [(line["workload"], line["ratio"]) for line in found] == [("first step", 2.5), ("train step", 2.0)]
    assert found[1]["rounds"] == [2.25, 1.833] and found[1]["unit"] == "images_per_second"


def test_the_table_has_a_row_for_each_configuration():
    header, _, row = rounds.table(OURS).splitlines()
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert dict(zip([cell.strip() for cell in header.strip("|").split("|")], cells)) == {
        "machine": "CPU",
        "configuration": "glf",
        "batch": "4",
        "precision": "float32",
        "train, images/s": "110.0",
        "log_prob, images/s": "",
        "sample, images/s": "30.0",
        "GFLOP/s of the train step": "5.0",
        "of the machine's rate": "0.5",
        "first step: s, processor s": "8.0, 10.0",
        "peak memory, MB": "8",
    }


def test_a_round_passes_lines_on_and_an_error_ends_it(monkeypatch, capfd):
    monkeypatch.setattr(sys, "executable", "echo")  # prints its arguments, in place of a measurement
    line = json.dumps({"workload": "train", "images_per_second": 1.0})
    _, theirs = rounds.run_rounds("glf", ["--parts"], 2, f"echo {{name}}; echo '{line}'")
    assert theirs == [json.loads(line)] * 2
    assert capfd.readouterr().out == f"-m tfcq.benchmark --parts --rounds=1 --beside=\nglf\n{line}\n" * 2
    with pytest.raises(UserError, match="a round failed: bash -c exit 3"):
        rounds.run_rounds("glf", [], 1, "exit 3")


def test_a_family_that_fails_leaves_the_table_of_the_others(monkeypatch):
    def run(name, flags, *_):
        if name in ("cqf", "srvae"):
            raise UserError(f"a round failed: {name}")
        return [[{"workload": "sample", "config": name, "images_per_second": 7.0}], []]

    monkeypatch.setattr(rounds, "run_rounds", run)
    status, output, errors = run_here("benchmark", "--families", "--table")
    assert_one_line(status, errors, "a round failed: cqf (and so did srvae)")
    assert [name for name in rounds.FAMILIES if f"| {name} " in output] == [
        name for name in rounds.FAMILIES if name not in ("cqf", "srvae")
    ]
