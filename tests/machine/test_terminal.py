"""What stands on a terminal, in a file, and behind a pipe that is closed."""

import io
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tfcq.machine import terminal
from tfcq.training.callbacks import StepProgress


class Output(io.StringIO):
    """A stdout that is a terminal, or not."""

    def __init__(self, tty):
        super().__init__()
        self._tty = tty

    def isatty(self):
        return self._tty


def screen(text, columns):
    """The rows that a terminal of that width shows of a text, without the blanks at their ends."""
    rows, column = [[]], 0
    for character in text:
        if character == "\n":
            rows.append([])
            column = 0
        elif character == "\r":
            column = 0
        else:
            if column == columns:
                rows.append([])
                column = 0
            rows[-1][column : column + 1] = character
            column += 1
    return ["".join(row).rstrip() for row in rows]


@pytest.fixture
def output(monkeypatch):
    """Function that makes stdout a terminal of some columns, or a file (0 columns)."""

    def output(columns):
        monkeypatch.setattr(sys, "stdout", Output(columns > 0))
        monkeypatch.setenv("COLUMNS", str(columns or 80))
        monkeypatch.setattr(terminal, "_SECONDS", {True: 0.0, False: 0.0})
        monkeypatch.setattr(terminal, "_columns_shown", 0)
        return sys.stdout

    return output


def train(values):
    """A training whose steps log these losses."""
    progress = StepProgress(len(values), 64, {"generator/bits_per_dim": "bits_per_dim", "generator/loss": "generator loss"})
    progress.set_model(type("Model", (), {"steps_taken": 0}))
    progress.on_train_begin()
    for batch, value in enumerate(values):
        progress.on_train_batch_end(batch, {"generator/bits_per_dim": value, "generator/loss": 100.0 * value})


@pytest.mark.parametrize("columns", [8, 20, 40, 79, 80, 81, 200])
def test_training_keeps_to_one_row(output, columns):
    out = output(columns)
    train(np.geomspace(123456.0, 1.0, 1000))
    rows = screen(out.getvalue(), columns)
    assert len(rows) == 2 and rows[1] == ""
    assert len(rows[0]) < columns
    assert rows[0].startswith("step 1000/1000"[: columns - 1])
    assert ("generator loss 100" in rows[0]) == (columns == 200)
    assert "\n" not in out.getvalue()[:-1]


def test_a_part_that_does_not_fit_is_left_out_whole(output):
    for columns in range(12, 60):
        out = output(columns)
        terminal.ProgressLine().show(["step 12/50", "1234.5 images/s", "67 min left"])
        shown = out.getvalue().strip("\r").rstrip()
        assert shown in ("step 12/50"[: columns - 1], "step 12/50  1234.5 images/s", "step 12/50  1234.5 images/s  67 min left")


def test_nothing_is_left_of_a_longer_line(output):
    out = output(80)
    line = terminal.ProgressLine()
    for parts in (["a" * 70], ["b" * 30], ["c" * 50], ["d"]):
        line.show(parts)
        assert screen(out.getvalue(), 80) == parts
    terminal.clear()
    print("error: none")
    assert screen(out.getvalue(), 80) == ["error: none", ""]


@pytest.mark.parametrize("columns", [0, 80])
def test_what_is_said_in_between_has_a_row_of_its_own_and_no_blank_one(output, columns):
    out = output(columns)
    line = terminal.ProgressLine()
    for text in ("a warning", "the end"):
        line.show(["progress"])
        terminal.say(text)
    assert screen(out.getvalue(), columns or 80) == (
        ["a warning", "the end", ""] if columns else ["progress", "a warning", "progress", "the end", ""]
    )


def test_evaluation_leaves_its_row_to_the_result(output):
    out = output(60)
    progress = terminal.ImageProgress("features of the train split", 500)
    for done in range(64, 500 + 64, 64):
        progress(min(done, 500))
    assert "448/500 images" in out.getvalue()
    print("elbo: 3.5 bits/dim")
    assert screen(out.getvalue(), 60) == ["elbo: 3.5 bits/dim", ""]


def test_a_file_gets_whole_lines(output):
    out = output(0)
    train([1.0, 2.0, 3.0])
    terminal.ImageProgress("elbo", 500)(250)
    lines = out.getvalue().splitlines()
    assert "\r" not in out.getvalue() and len(lines) == 3
    assert lines[1].startswith("step 3/3  ") and lines[1].endswith("bits_per_dim 3  generator loss 300")
    assert lines[2].startswith("elbo: 250/500 images  ")


def test_a_file_gets_a_line_each_thirty_seconds(output, monkeypatch):
    out = output(0)
    monkeypatch.setattr(terminal, "_SECONDS", {True: 0.5, False: 30.0})
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    progress = terminal.ImageProgress("elbo", 500)
    for second in range(100):
        now[0] = float(second)
        progress(second + 1)
    assert len(out.getvalue().splitlines()) == 3


PROGRAM = """
import sys
from tfcq.command_line import starting
def main():
    for number in range({lines}):
        print("line", number, "x" * 5000, flush=True)
    open("done", "w").close()
sys.exit(starting.run(main, outlives_stdout={outlives}))
"""


def piped(arguments, folder, reader):
    """(exit status, stderr) of a Python process whose stdout goes to `reader`, a shell command, or is closed."""
    command = f'"$0" "$@" {reader}; exit ${{PIPESTATUS[0]}}'
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(terminal.__file__).parents[2])}
    shell = ["bash", "-c", command, sys.executable, *arguments]
    done = subprocess.run(shell, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("outlives", "reader", "status", "finished"),
    [
        (True, "| head -n 1", 0, True),
        (True, "| true", 0, True),
        (True, ">&-", 0, True),
        (False, "| head -n 1", 141, False),
        (False, ">&-", 0, True),
    ],
)
def test_a_closed_stdout_ends_quietly_or_is_outlived(tmp_path, outlives, reader, status, finished):
    program = PROGRAM.format(lines=200, outlives=outlives)
    assert piped(["-c", program], tmp_path, reader) == (status, "")
    assert (tmp_path / "done").exists() == finished


@pytest.mark.parametrize("reader", ["| true", "| head -n 1", ">&-", "2>&1 | true"])
def test_help_and_mistakes_with_a_closed_stdout(tmp_path, reader):
    for arguments, statuses in ((["--helpfull"], (0, 141)), (["--num_samples=0"], (2,))):
        status, errors = piped(["-m", "tfcq.sample", *arguments], tmp_path, reader)
        assert status in statuses
        assert "Traceback" not in errors and "Broken" not in errors


def test_closed_streams_are_not_taken_for_files(tmp_path):
    """A file that is opened where stdout was closed must not get what is printed."""
    program = """
from tfcq.command_line import starting
def main():
    with open("file", "w") as file:
        print("printed", flush=True)
        file.write("written")
starting.run(main)
"""
    assert piped(["-c", program], tmp_path, "<&- >&- 2>&-")[0] == 0
    assert (tmp_path / "file").read_text() == "written"
