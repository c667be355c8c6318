"""progress.json: what it says while steps are taken, and at each kind of end."""

import dataclasses
import json
import pathlib
import time

import numpy as np
import psutil
import pytest

from tfcq.errors import TrainingDiverged, TrainingInterrupted, UserError, WorkerLost
from tfcq.machine.interruption import Stopped
from tfcq.training.callbacks.step_progress import _parts
from tfcq.training.progress import FILE, Reporter, read, set_state


@pytest.fixture
def now(monkeypatch):
    """[seconds] that the clock shows."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def reporter(folder, step=0, train_steps=1000, on_progress=None):
    return Reporter(folder, step, train_steps, 1234, 64, {"elbo": "bound", "p/loss": "p loss"}, on_progress)


def test_seconds_are_from_the_first_step_of_a_process_to_its_last(tmp_path, now):
    """Start-up and tracing do not count, an evaluation between steps does, and what follows the last step does not."""
    with reporter(tmp_path, step=10) as report:
        report.start()
        now[0] += 50.0  # an evaluation before the first step, which then traces
        report.took(11, {"p/loss": 3.0})
        first = read(tmp_path)
        now[0] += 4.0
        report.took(12, {"p/loss": 2.0})
        now[0] += 16.0  # an evaluation
        report.took(13, {"p/loss": 1.0, "other": 9.0})
        now[0] += 30.0  # a checkpoint after the last step
    done = read(tmp_path)
    assert (first.state, first.step, first.seconds, first.images_per_second) == ("training", 11, 0.0, None)
    assert (done.state, done.step, done.seconds, done.seconds_per_step) == ("done", 13, 20.0, 10.0)
    assert done.images_per_second == pytest.approx(2 * 64 / 20.0)
    assert (done.train_steps, done.weights, done.losses, done.error) == (1000, 1234, {"p loss": 1.0}, None)


def test_the_file_is_written_every_two_seconds_and_at_the_start_and_the_end(tmp_path, now):
    seen = []
    with reporter(tmp_path, train_steps=50, on_progress=seen.append) as report:
        report.start()
        for step in range(1, 51):
            now[0] += 0.125
            report.took(step, {})
            assert read(tmp_path) == seen[-1]  # the function and the file say the same
    assert [(one.state, one.step) for one in seen] == [
        ("starting", 0), *(("training", step) for step in (1, 17, 33, 49, 50)), ("done", 50)]  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert time.strptime(seen[-1].time, "%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize(
    ("error", "state", "expected"),
    [
        (TrainingInterrupted(15, 2), "interrupted", None),
        (Stopped(), "interrupted", None),
        (KeyboardInterrupt(), "interrupted", None),
        (TrainingDiverged("player p at\nstep 2"), "failed", {"kind": "TrainingDiverged", "line": "player p at step 2"}),
        (UserError("a.png: broken"), "failed", {"kind": "UserError", "line": "a.png: broken"}),
    ],
)
def test_the_last_state_says_how_it_ended(tmp_path, error, state, expected):
    with pytest.raises(type(error)), reporter(tmp_path) as report:
        report.start()
        report.took(1, {"elbo": float("inf"), "p/loss": float("nan")})
        raise error
    text = (tmp_path / FILE).read_text()
    assert "NaN" not in text and "Infinity" not in text  # JSON has neither
    assert json.loads(text)["losses"] == {"bound": None, "p loss": None}
    ended = read(tmp_path)
    assert (ended.state, ended.step, ended.error) == (state, 1, expected)


def test_a_state_that_is_set_later_says_why(tmp_path):
    set_state(tmp_path, "failed")
    assert read(tmp_path) is None
    with reporter(tmp_path) as report:
        report.start()
        set_state(tmp_path, "failed", WorkerLost("worker 0 of 2", "worker 1", 0))
        assert read(tmp_path).error == {"kind": "WorkerLost", "line": str(WorkerLost("worker 0 of 2", "worker 1", 0))}
        set_state(tmp_path, "done")
        assert read(tmp_path).error is None


def test_a_folder_that_cannot_be_written_does_not_end_the_training(tmp_path):
    seen = []
    with reporter(tmp_path / "none", on_progress=seen.append) as report:
        report.took(1, {})
    assert [one.state for one in seen] == ["training", "done"]


def test_reading_of_nothing_and_of_something_else(tmp_path):
    assert read(tmp_path) is None
    for content in ("{", "[]", '{"state": "done"}'):
        pathlib.Path(tmp_path / FILE).write_text(content)
        with pytest.raises(UserError, match="progress.json: the progress cannot be read"):
            read(tmp_path)


def test_memory_is_that_of_the_process_and_of_its_gpu(tmp_path):
    report = Reporter(tmp_path, 0, 1000, 1234, 64, {}, gpu_memory=lambda: 3 * 10**9)
    before = report.progress().memory_bytes
    block = np.ones(2**25)  # 256 MiB
    after = report.progress()
    assert after.memory_bytes - before == pytest.approx(block.nbytes, rel=0.1)
    assert after.memory_bytes == pytest.approx(psutil.Process().memory_info().rss, rel=0.1)
    parts = _parts(dataclasses.replace(after, memory_bytes=12_345_000_000, losses={"loss": 1.0}))
    assert parts == ["step 0/1000", "12.3 GB", "GPU 3.0 GB", "loss 1"]
    assert _parts(dataclasses.replace(after, memory_bytes=None, gpu_memory_bytes=None)) == ["step 0/1000"]


def test_a_file_of_an_earlier_version_has_no_memory(tmp_path):
    values = json.loads(reporter(tmp_path).progress().to_json())
    del values["memory_bytes"], values["gpu_memory_bytes"]
    (tmp_path / FILE).write_text(json.dumps(values))
    assert read(tmp_path).memory_bytes is None
