"""A run that is killed between its writes, extended, and changed in what may change ends as one that was left alone."""

import json
import os
import signal

import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorflow.python.framework import config as framework_config

from tfcq import data
from tfcq import workdir as workdirs
from tfcq.config import TrainingConfig
from tfcq.engine.checkpoints import Checkpoints
from tfcq.engine.optimizers import compile_model, new_course
from tfcq.errors import TrainingInterrupted, UserError
from tfcq.evaluation.training_curves import training_curves
from tfcq.machine.interruption import Signals
from tfcq.training import callbacks
from tfcq.training.likelihood_guard import LikelihoodGuard
from tfcq.training.run import train

STEPS = 8


def config(**training):
    settings = {"train_steps": STEPS, "checkpoint_every": 3, "evaluate_every": 2, "warmup_steps": 2, "deterministic": True}
    settings |= training
    return tiny.config(8, training=settings, latent_size=4, **tiny.ROWS["vae"])


def weights(folder):
    reader = tf.train.load_checkpoint(str(folder / "checkpoints" / "last" / f"step-{STEPS}"))
    names = reader.get_variable_to_shape_map().keys() - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
    # What is best is judged by evaluations, of which the runs below have different ones.
    names = [name for name in names if not name.startswith(("save_counter", "best_value"))]
    return {name: np.asarray(reader.get_tensor(name)).tobytes() for name in names}


def rows(folder):
    return [row["step"] for row in workdirs.read_metrics(folder)]


def steps_in_tensorboard(folder, name, tag):
    events = EventAccumulator(str(folder / "tensorboard" / name), size_guidance={"tensors": 0})
    events.Reload()
    return [event.step for event in events.Tensors(tag)]


class Killed(BaseException):
    """Stands for SIGKILL: nothing that training does about errors sees it."""


def train_until_killed(folder, settings, step):
    """Trains until just before the checkpoint of `step` would be written."""
    save = callbacks.Saver.on_step

    def on_step(self, at, logs):
        if at == step:
            raise Killed
        save(self, at, logs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks.Saver, "on_step", on_step)
        with pytest.raises(Killed):
            train(settings, folder)


@pytest.fixture(scope="module", autouse=True)
def deterministic_here_alone():
    yield
    framework_config.disable_op_determinism()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(config(), folder)
    return folder


@pytest.mark.slow
def test_a_run_that_is_killed_changed_and_extended_has_the_bits_of_one_left_alone(whole, tmp_path, capsys):
    folder = tmp_path / "run"
    # Of four steps; killed when steps 2 and 4 are measured and step 3 alone is saved.
    train_until_killed(folder, config(train_steps=4), 4)
    assert rows(folder) == [0, 2, 4]
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"time": "2020-01-01T00:00:00Z", "st')
    for name in ("train", "validation"):
        (path,) = (folder / "tensorboard" / name).iterdir()
        path.write_bytes(path.read_bytes()[:-3])
    changes = {
        "log_every": 2,
        "evaluate_every": 5,
        "checkpoint_every": 2,
        "keep_checkpoints": 9,
        "grid_images": 1,
        "eval_metrics": "frechet_distance",
        "eval_samples": 16,
        "eval_features": "pixels",
        "best_metric": "kernel_distance",
    }
    train(config(**changes), folder)
    said = capsys.readouterr().out
    assert "resumed from step 3" in said and "from step 3 on: training.best_metric: 'elbo' -> 'kernel_distance'; " in said
    assert weights(folder) == weights(whole)  # of training
    assert "step 5: the best checkpoint was chosen by elbo and is chosen by kd_pixels (16 images generated) from now on" in said
    assert workdirs.load(folder).chosen_by.startswith("kd_pixels (16 images generated) ")
    assert rows(folder) == [0, 2, 5, 8]
    assert json.loads((folder / "metrics.json").read_text())["step"] == 8
    (row,) = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert row["step"] == 3 and row["changes"]["training.train_steps"] == [4, 8] and len(row["changes"]) == len(changes) + 1
    assert workdirs.read_config(folder) == config(**changes)
    for tag in ("loss/generator/loss", "optimizer/generator/learning_rate"):
        assert steps_in_tensorboard(folder, "train", tag) == [1, 2, 3, 4, 6, 8]
    for tag in ("density/elbo_bits_per_dim", "grids/samples"):
        assert steps_in_tensorboard(folder, "validation", tag) == [0, 2, 5, 8]
    samples = {path.name for path in (folder / "samples").glob("samples-*")}
    assert samples == {f"samples-{step:08d}.png" for step in (0, 2, 5, 8)}
    # And a command that asks for less finds nothing to do, and says nothing else.
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    train(config(**changes | {"train_steps": 6, "log_every": 7}), folder)
    assert "nothing to do: 8 steps are done and train_steps=6" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_an_evaluation_that_is_interrupted_is_made_when_the_run_is_resumed(whole, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "run"
    measure = callbacks.Evaluation._measure

    def measure_and_be_told(self, step):
        row = measure(self, step)  # its events are written
        if step == 4:
            os.kill(os.getpid(), signal.SIGHUP)
        return row

    judged = []
    monkeypatch.setattr(LikelihoodGuard, "judge_validation", lambda self, *measured: judged.append(measured))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks.Evaluation, "_measure", measure_and_be_told)
        with pytest.raises(TrainingInterrupted, match="SIGHUP at step 4: state saved") as raised:
            train(config(), folder)
    assert raised.value.exit_status == 129 and rows(folder) == [0, 2]
    assert "step 4: the evaluation was interrupted; it is made when the run is resumed" in capsys.readouterr().out
    train(config(), folder)
    assert rows(folder) == rows(whole) == [0, 2, 4, 6, 8]
    for mine, other in zip(workdirs.read_metrics(folder), workdirs.read_metrics(whole), strict=True):
        assert mine["elbo"] == other["elbo"]
    assert judged == [(row["step"], row["elbo"]["bits_per_dim"]) for row in workdirs.read_metrics(folder)]
    assert weights(folder) == weights(whole)
    assert steps_in_tensorboard(folder, "validation", "density/elbo_bits_per_dim") == [0, 2, 4, 6, 8]
    curves = training_curves(folder)["elbo_bits_per_dim"]
    assert [list(steps) for steps, _ in (curves["train"], curves["validation"])] == [list(range(1, 9)), [0, 2, 4, 6, 8]]


@pytest.mark.parametrize("best_so_far", [9.0, 3.0])
def test_the_best_is_known_though_a_kill_came_between_it_and_the_checkpoint(tmp_path, best_so_far):
    """Step 4 was saved before its evaluation, which a resumed run made; killed soon after, it resumes from step 4 again."""
    model = tiny.compiled(config(), channels=1)
    model.step.assign(4)
    checkpoints = Checkpoints(tmp_path, model, 3)
    checkpoints.best_value.assign(best_so_far)
    evaluation = callbacks.Evaluation(
        tmp_path, model, data.load(config().data), config().training, checkpoints, Signals()
    )
    evaluation.row_at_start = {"step": 4, "elbo": {"bits_per_dim": 5.0}}
    judged = []
    evaluation.guard = type("Guard", (), {"judge_validation": lambda self, *measured: judged.append(measured)})()
    evaluation.on_train_begin()  # measures nothing: there is no writer
    assert checkpoints.best_value.numpy() == min(best_so_far, 5.0) and judged == [(4, 5.0)]
    assert [path.name for path in tmp_path.glob("checkpoints/best/*.index")] == ["step-4.index"] * (best_so_far > 5.0)


# Schedules.


@pytest.mark.parametrize(
    ("schedule", "before", "after"),
    [
        ({"learning_rate_schedule": "linear"}, 0.0, 0.05),
        ({"learning_rate_schedule": "cosine"}, 0.0, 0.05),
        ({"learning_rate_drops": "0.75:0.1"}, 0.01, 0.1),
        ({"learning_rate_schedule": "constant"}, None, None),
        ({"learning_rate_schedule": "exponential", "learning_rate_decay": 0.9}, None, None),
    ],
    ids=lambda value: next(iter(value.values())) if isinstance(value, dict) else "",
)
def test_extending_says_what_becomes_of_the_learning_rate(schedule, before, after):
    model = tiny.build(tiny.config(model="vae"))
    old, new = (TrainingConfig(train_steps=steps, learning_rate=0.1, **schedule) for steps in (10, 20))
    line = new_course(model, old, new, 10)
    if before is None:
        assert line == ""
    else:
        assert line == (
            "train_steps 10 -> 20: the learning rates' course is now that of 20 steps; learning_rate at step 10: "
            f"{before:.4g} -> {after:.4g}"
        )
    assert new_course(model, old, new, 0) == new_course(model, new, new, 10) == ""


def test_extending_a_staged_run_lengthens_its_last_stage_alone():
    """A first stage of 4 steps, then 6, extended to 16: each stage's drop comes after half of its own steps."""
    drops = {"learning_rate": 0.1, "learning_rate_drops": "0.5:0.01/0.5:0.1"}
    old, new = (TrainingConfig(train_steps=steps, **drops) for steps in (10, 20))
    rates = []
    for training in (old, new):
        model = tiny.build(tiny.config(model="glf", first_stage_steps=4))
        compile_model(model, training)
        assert model.stage_starts == (0, 4) and model.stage_at(10) == 1
        schedules = [model.player_optimizers[player.name]._learning_rate for player in model.players()]
        rates.append([[round(float(schedule(step)), 6) for step in range(16)] for schedule in schedules])
    assert rates[0][0] == rates[1][0] == [0.1] * 2 + [0.001] * 14  # done by then
    assert rates[0][1] == [0.1] * 3 + [0.01] * 13
    assert rates[1][1] == [0.1] * 8 + [0.01] * 8
    assert new_course(model, old, new, 10).endswith("that of 20 steps; learning_rate at step 10: 0.01 -> 0.1")


# What the command makes of a workdir.


def test_a_disk_that_fills_and_a_file_that_goes_are_told_apart(tmp_path):
    from tfcq.training.run import _in_a_line

    full = _in_a_line(OSError(28, "No space left on device"), tmp_path)
    own = _in_a_line(OSError(30, "Read-only file system", str(tmp_path / "samples" / "a.png")), tmp_path)
    gone = _in_a_line(FileNotFoundError(2, "No such file or directory", "/data/images/7.png"), tmp_path)
    written = _in_a_line(tf.errors.ResourceExhaustedError(None, None, "/run/a; No space left on device"), tmp_path)
    memory = _in_a_line(tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"), tmp_path)
    other = _in_a_line(tf.errors.NotFoundError(None, None, "/x 'No space left on device' is not there"), tmp_path)
    assert str(written) == str(full) and memory is None and other is None
    assert all(isinstance(error, UserError) for error in (full, own, gone))
    assert str(full).startswith(f"workdir {tmp_path}: cannot be written: No space left on device; ")
    assert str(own).startswith(f"workdir {tmp_path}: cannot be written: Read-only file system; ")
    assert str(gone).startswith("/data/images/7.png: No such file or directory; the checkpoints in ")
