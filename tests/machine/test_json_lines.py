"""Rows of JSON that survive killed writers, a second writer and a resumed run."""

import json
import os
import pathlib
import subprocess
import sys
import threading

import pytest

from tfcq import workdir as workdirs
from tfcq.errors import UserError
from tfcq.machine import json_lines
from tfcq.machine.files import Lock


def row(step, **more):
    return {"time": "then", "step": step, **more}


def write(path, *lines):
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))


def steps(path):
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("tail", "kept"),
    [
        ("", [1]),
        ('{"step": 2, "elb', [1]),
        ("{", [1]),
        ('{"step": 2}', [1, 2]),  # whole but for its end
        ('["step"]', [1]),
        ("\x00\x00\x00", [1]),  # what a crashed file system leaves
    ],
)
def test_a_last_line_that_was_cut_off_is_mended_by_the_next(tmp_path, tail, kept):
    path = tmp_path / "metrics.jsonl"
    write(path, {"step": 1}, tail)
    assert [one["step"] for one in json_lines.read(path)] == [1]
    json_lines.append(path, {"step": 9})
    assert steps(path) == [*kept, 9]


def test_a_file_of_half_a_row_alone(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"st')
    assert json_lines.read(path) == []
    json_lines.append(path, {"step": 9})
    assert steps(path) == [9]


def test_no_file_has_no_rows(tmp_path):
    assert json_lines.read(tmp_path / "metrics.jsonl") == []


@pytest.mark.parametrize("line", ["{broken\n", "[1]\n", "3\n", "\n", '{"step": 1}{"step": 2}\n'])
def test_another_line_that_is_no_row_is_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    write(path, {"step": 1}, line, {"step": 2})
    with pytest.raises(UserError, match=r"metrics\.jsonl: expected one row of JSON .*, received something else at line 2"):
        json_lines.read(path)


def test_two_processes_lose_no_row_while_a_third_rewrites(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, {"step": -1})
    text = (
        "import sys\nfrom tfcq.machine import json_lines\n"
        f"for step in range(60):\n    json_lines.append({str(path)!r}, {{'step': step, 'of': sys.argv[1]}})\n"
    )
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(json_lines.__file__).parents[2])}
    processes = [subprocess.Popen([sys.executable, "-c", text, name], env=environment) for name in "ab"]
    while any(process.poll() is None for process in processes):
        json_lines.rewrite(path, lambda rows: [one for one in rows if one["step"] >= 0])
    assert [process.returncode for process in processes] == [0, 0]
    rows = json_lines.read(path)
    for name in "ab":
        assert [one["step"] for one in rows if one.get("of") == name] == list(range(60))


def test_a_row_waits_for_whoever_rewrites(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, {"step": 1})
    writer = threading.Thread(target=json_lines.append, args=(path, {"step": 2}))
    with Lock(path):
        writer.start()
        writer.join(0.3)
        assert writer.is_alive() and steps(path) == [1]
    writer.join(60.0)
    assert steps(path) == [1, 2]


# metrics.jsonl of a run that goes on from a step.


@pytest.mark.parametrize(
    ("before", "step", "after"),
    [
        ([0, 100, 200], 200, [0, 100, 200]),
        ([0, 100, 200, 300], 250, [0, 100, 200]),  # killed between a row and its checkpoint
        ([0, 100, 200, 300], 300, [0, 100, 200, 300]),
        ([0, 100, 200, 300, 300, 400], 400, [0, 100, 200, 300, 400]),  # as earlier versions resumed
        ([0, 100, 200, 300, 400, 300], 350, [0, 100, 200, 300]),
        ([0, 0, 100], 50, [0]),
        ([0, 100], -1, []),  # nothing was saved: the run begins anew
    ],
)
def test_rows_of_training_beyond_the_step_are_dropped(tmp_path, before, step, after):
    for number, one in enumerate(before):
        workdirs.record_metrics(tmp_path, {"step": one, "number": number})
    workdirs.drop_metrics_after(tmp_path, step)
    rows = workdirs.read_metrics(tmp_path)
    assert [one["step"] for one in rows] == after
    numbers = [one["number"] for one in rows]
    assert numbers == sorted(numbers)
    for one in rows:  # of a step that is there twice the later row holds
        assert one["number"] == max(number for number, other in enumerate(before) if other == one["step"])
    if after:
        assert json.loads((tmp_path / "metrics.json").read_text()) == rows[-1]
    else:
        assert not (tmp_path / "metrics.json").exists()


def test_rows_of_evaluations_stay_and_broken_lines_go(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, row(0), row(300, checkpoint="best"), row(100), "{half" + json.dumps(row(200)) + "\n", row(300), '{"time"')
    workdirs.drop_metrics_after(tmp_path, 200)
    rows = [(one["step"], "checkpoint" in one) for one in workdirs.read_metrics(tmp_path)]
    assert rows == [(0, False), (300, True), (100, False)]


def test_a_disk_that_is_full_leaves_the_rows_as_they_were(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    write(path, row(0), row(100), row(200))
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        workdirs.drop_metrics_after(tmp_path, 100)
    assert path.read_bytes() == before and sorted(one.name for one in tmp_path.iterdir()) == ["metrics.jsonl"]


def test_without_rows_nothing_is_made(tmp_path):
    workdirs.drop_metrics_after(tmp_path, 100)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([], []),
        ([50, 100, 150], [50, 100, 150]),
        ([50, 100, 150, 100, 150, 200], [50, 100, 150, 200]),
        ([350, 400, 450, 300, 350, 400], [300, 350, 400]),
        ([50, 450, 300, 350, 320], [50, 300, 320]),
        ([5, 5, 5], [5]),
    ],
)
def test_the_last_course_of_a_curve_rises(steps, expected):
    points = list(enumerate(steps))
    kept = json_lines.last_course(points, lambda point: point[1])
    assert [step for _, step in kept] == expected
    assert all(number == max(other for other, at in points if at == step) for number, step in kept)
