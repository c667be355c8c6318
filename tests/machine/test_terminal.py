"""What stands on a terminal, in a file, and behind a pipe that is closed."""

import io
import os
import pathlib
import pty
import subprocess
import sys
import termios
import tty
from types import SimpleNamespace

import numpy as np
import pytest

from tfcq.machine import terminal
from tfcq.training.callbacks import FirstStep, StepProgress
from tfcq.training.progress import Reporter


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
        monkeypatch.setattr(terminal, "_SECONDS", {"terminal": 0.0, "file": 0.0})
        monkeypatch.setattr(terminal, "_on_terminal", None)
        return sys.stdout

    return output


def train(values):
    """A training whose steps log these losses."""
    shown = {"generator/bits_per_dim": "bits_per_dim", "generator/loss": "generator loss"}
    progress = StepProgress(Reporter("/no/such/folder", 0, len(values), 1234, 64, shown))
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
    assert len(rows[0]) <= 80 and ("images/s" in rows[0]) == (columns >= 40)
    assert "\n" not in out.getvalue()[:-1]


def test_a_part_that_does_not_fit_is_left_out_whole(output):
    for columns in range(12, 60):
        out = output(columns)
        terminal.ProgressBar(50).show(12, ["step 12/50", "1234.5 images/s", "67 min left"])
        (shown,) = screen(out.getvalue(), columns)
        whole = "step 12/50  1234.5 images/s  67 min left"
        fits = next((text for text in (whole, whole[:27]) if len(text) < columns), whole[:10])
        assert shown.startswith(fits[: columns - 1]) and len(shown) < columns
        assert set(shown[len(fits) :]) <= set(" #123456789")  # a bar, and no part of a number


def test_a_bar_fills_what_the_numbers_leave_of_the_line(output):
    for columns, length in ((80, 80 - 1 - 12), (300, 80 - 12), (18, 0)):
        out = output(columns)
        terminal.ProgressBar(50).show(25, ["step 25/50"])
        (shown,) = screen(out.getvalue(), columns)
        assert shown.count("#") == length // 2


def test_nothing_is_left_of_a_longer_line(output):
    out = output(80)
    bars = [terminal.ProgressBar(50), terminal.ProgressBar(1000)]
    for number, text in enumerate(["a" * 75, "b" * 72, "c" * 74, "d" * 73]):
        bars[number // 2].show(number, [text])
        assert screen(out.getvalue(), 80) == [text]
    terminal.clear()
    print("error: none")
    assert screen(out.getvalue(), 80) == ["error: none", ""]


@pytest.mark.parametrize("columns", [0, 80])
def test_what_is_said_in_between_has_a_row_of_its_own_and_no_blank_one(output, columns):
    out = output(columns)
    bar = terminal.ProgressBar(50)
    for text in ("a warning", "the end"):
        bar.show(12, ["progress"])
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


@pytest.mark.parametrize("size", [(0, 0), (1, 40), (24, 80)])
def test_a_bar_is_drawn_on_a_real_terminal_of_any_size(size):
    """(0, 0): nobody has said how large it is."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, size)
    tty.setraw(slave)  # line ends stay as they are written
    program = """
from tfcq.machine import terminal
bar = terminal.ProgressBar(9)
bar.show(3, ["step 3/9", "2 images/s"])
terminal.say("a warning")
bar.show(9, ["step 9/9", "2 images/s"], last=True)
"""
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    folder = pathlib.Path(terminal.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, stdout=slave, env=environment, timeout=60)
    os.close(slave)
    text = os.read(master, 65536).decode()
    os.close(master)
    assert done.returncode == 0 and text.startswith("\rstep 3/9  2 images/s  ") and "\x1b" not in text
    warning, last, rest = screen(text, size[1] or 80)
    assert (warning, rest) == ("a warning", "") and last.startswith("step 9/9  2 images/s  ")


def test_a_notebook_has_a_bar_for_each_and_all_numbers(output, monkeypatch):
    """Its bars are no text: what is said does not take them away, and none takes another's place."""
    bars = []

    class Bar(SimpleNamespace):
        def __init__(self, **settings):
            super().__init__(**settings, n=settings["initial"], drawn=1)
            bars.append(self)

        def refresh(self):
            self.drawn += 1

        def close(self):
            self.closed = (self.n, self.leave)

    out = output(0)
    monkeypatch.setattr(terminal, "_place", lambda: "notebook")
    monkeypatch.setattr(terminal, "_bars", lambda: Bar)
    monkeypatch.setattr(terminal, "_SECONDS", {"notebook": 0.0})
    train([1.0, 2.0, 3.0, 4.0])
    images = terminal.ImageProgress("elbo", 500)
    for done in (100, 200):
        images(done)
        terminal.say("a warning")
    images(500)
    training, evaluation = bars
    assert out.getvalue() == "a warning\n" * 2
    assert training.desc.startswith("step 4/4  ") and training.desc.endswith("bits_per_dim 4  generator loss 400")
    assert (training.drawn, evaluation.drawn) == (3, 2) and training.ncols is None and training.bar_format == "{desc}  {bar}"
    assert training.closed == (4, True) and evaluation.closed == (500, False)  # tqdm marks one that is closed early as failed


def test_a_process_without_terminal_or_notebook_gets_lines_and_no_warning():
    program = "from tfcq.machine import terminal; terminal.ProgressBar(9).show(3, ['step 3/9', '2 images/s'])"
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, cwd=pathlib.Path(terminal.__file__).parents[2], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "step 3/9  2 images/s\n", "")


def test_a_notebook_without_widgets_has_one_line_that_is_rewritten(output, monkeypatch):
    output(0)
    assert terminal._place() == "file"
    monkeypatch.setitem(sys.modules, "ipykernel", SimpleNamespace())
    assert terminal._place() == "terminal"
    out = sys.stdout
    train(np.geomspace(123456.0, 1.0, 100))
    (row, rest) = screen(out.getvalue(), 80)
    assert row.startswith("step 100/100  ") and rest == "" and out.getvalue().count("\n") == 1


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
    monkeypatch.setattr(terminal, "_SECONDS", {"file": 30.0})
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    progress = terminal.ImageProgress("elbo", 500)
    for second in range(100):
        now[0] = float(second)
        progress(second + 1)
    assert len(out.getvalue().splitlines()) == 3


def test_a_training_says_that_it_builds_the_step_of_a_stage(output, monkeypatch):
    """Building may take minutes, without a step that could be shown."""
    out, now = output(0), [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    players = [SimpleNamespace(name=name, stage=stage) for name, stage in (("a", 0), ("b", 0), ("c", 1))]
    first = FirstStep(SimpleNamespace(wait=lambda: None))
    first.set_model(SimpleNamespace(steps_taken=5, stage_at=lambda step: int(step >= 7), players=lambda: players))
    first.on_train_begin()
    for batch in range(3):
        first.on_train_batch_begin(batch)
        print(f"batch {batch}")
        now[0] += 90.0
        first.on_train_batch_end(batch)
    assert out.getvalue().splitlines() == [
        "step 6: building the training step of a, b ...", "batch 0", "step 6: built and taken in 90.0 s", "batch 1",
        "step 8: building the training step of c ...", "batch 2", "step 8: built and taken in 90.0 s",
    ]  # fmt: skip


@pytest.mark.parametrize("columns", [0, 60])
def test_a_stage_is_shown_while_it_runs(output, monkeypatch, columns):
    """In a file when 30 s have passed, in a terminal at once: a stage may take minutes."""
    out, now = output(columns), [0.0]
    monkeypatch.setattr(terminal, "_SECONDS", {"file": 30.0, "terminal": 0.5})
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    progress = terminal.StageProgress("exporting", 3)
    for second, stage in ((0.1, "building sample"), (40.0, "building encode"), (50.0, "writing the SavedModel")):
        now[0] = second
        progress.begin(stage)
        shown = screen(out.getvalue(), columns or 80)[0] if columns else out.getvalue()
        assert (stage in shown) == (columns > 0 or stage == "building encode")
    progress.close()
    assert out.getvalue() == "exporting 2/3: building encode\n" if not columns else screen(out.getvalue(), columns) == [""]


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


def test_a_search_is_shown_after_three_seconds_in_a_log_and_on_a_terminal(output, monkeypatch):
    now = [50.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    for columns in (0, 80):
        out = output(columns)
        monkeypatch.setattr(terminal, "_SECONDS", {"terminal": 0.5, "file": 30.0})
        search = terminal.SearchProgress("looking for images in /a")
        for found in range(70):  # one a second
            search(found)
            now[0] += 1.0
        if columns:
            (row,) = screen(out.getvalue(), columns)
            assert row.startswith("looking for images in /a: 69 so far")
        else:
            lines = out.getvalue().splitlines()
            assert lines == [f"looking for images in /a: {found} so far" for found in (3, 33, 63)]
        search.close()
        assert screen(out.getvalue(), 80)[-1] == ""
