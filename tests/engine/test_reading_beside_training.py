"""Checkpoints that are read while a training saves and removes them: what is read is whole and as asked for."""

import functools
import gc
import logging

import numpy as np
import pytest
import tensorflow as tf
from checkpoint_cases import assert_holds, build, fill, message_of, steps_in

from tfcq.engine import best
from tfcq.engine.checkpoints import Checkpoints, chosen_by, restore_model


class Training:
    """A training whose model has other values at each of its saves.

    Attributes:
        contents: {step: values of the model's variables}.
    """

    def __init__(self, workdir, keep=1):
        self._model = build()
        self._checkpoints = Checkpoints(workdir, self._model, keep)
        self.contents = {}

    def save(self, step, value=None):
        """Saves one of kind "last", or, with a value, the best."""
        self.contents[step] = fill(self._model, step, seed=step)
        if value is None:
            self._checkpoints.save()
        else:
            assert self._checkpoints.save_if_best(value)


@pytest.fixture
def training(tmp_path):
    made = Training(tmp_path)
    made.save(10)
    made.save(10, value=4.0)
    return made


def meanwhile(monkeypatch, *actions):
    """Does the first action just before the first checkpoint is read, the second before the second, and so on."""
    restore, left = tf.train.Checkpoint.restore, list(actions)

    def read(self, path, options=None):
        if left:
            left.pop(0)()
        return restore(self, path, options)

    monkeypatch.setattr(tf.train.Checkpoint, "restore", read)
    return left


@pytest.mark.parametrize("which", ["last", "best"])
def test_one_that_is_removed_before_it_is_read_gives_the_one_that_followed_it(tmp_path, training, monkeypatch, capsys, which):
    values = {"last": [None, None], "best": [3.0, 2.0]}[which]
    left = meanwhile(monkeypatch, *(functools.partial(training.save, step, value) for step, value in zip((20, 30), values)))
    model = build(seed=1, compiled=False)
    assert restore_model(model, tmp_path, which) == (30, which)
    assert not left and steps_in(tmp_path, which) == [30]
    assert_holds(model, training.contents[30][: len(model.variables)])
    assert capsys.readouterr().out == ""  # nothing was wrong


def damage_the_middle(workdir, training):
    """Lets the reading of the best checkpoint fail when a part of it has been read."""
    (path,) = (workdir / "checkpoints" / "best").glob("*.data-*")
    content, weight = bytearray(path.read_bytes()), max(training.contents[10], key=np.size).tobytes()
    content[content.index(weight)] ^= 0xFF
    path.write_bytes(content)


def test_one_that_is_removed_while_it_is_read_does_not_spoil_the_next(tmp_path, training, monkeypatch, capsys):
    restored, failed = tf.train.Checkpoint.restore, []

    def read(self, path, options=None):
        try:
            return restored(self, path, options)
        except tf.errors.OpError as error:
            failed.append(error)
            training.save(20, value=3.0)
            raise

    damage_the_middle(tmp_path, training)
    monkeypatch.setattr(tf.train.Checkpoint, "restore", read)
    model = build(seed=1, compiled=False)
    assert restore_model(model, tmp_path, "best") == (20, "best")
    assert_holds(model, training.contents[20][: len(model.variables)])
    assert len(failed) == 1 and capsys.readouterr().out == ""


def test_one_that_is_written_again_while_it_is_read_is_read_anew(tmp_path, training, monkeypatch):
    restored, left = tf.train.Checkpoint.restore, [20, 20]

    def read(self, path, options=None):
        found = restored(self, path, options)
        if left:
            training.contents.clear()
            training.save(left.pop())  # the same step with other weights, as where a model settles after a signal
        return found

    training.save(20)
    monkeypatch.setattr(tf.train.Checkpoint, "restore", read)
    model = build(seed=1, compiled=False)
    assert restore_model(model, tmp_path, "last") == (20, "last")
    assert_holds(model, training.contents[20][: len(model.variables)])


def test_a_damaged_best_is_no_hindrance_to_the_last(tmp_path, training, capsys):
    training.save(20)
    damage_the_middle(tmp_path, training)
    said = []
    handler = logging.Handler()
    handler.emit = said.append
    tf.get_logger().addHandler(handler)
    try:
        model = build(seed=1, compiled=False)
        assert restore_model(model, tmp_path, "best") == (20, "last")
        assert_holds(model, training.contents[20][: len(model.variables)])
        assert capsys.readouterr().out.count("\n") == 1  # of the best alone
        del model
        gc.collect()  # TensorFlow speaks when it forgets what it could not read
    finally:
        tf.get_logger().removeHandler(handler)
    assert not said


def test_one_that_is_damaged_is_no_reason_to_wait(tmp_path, training):
    for path in (tmp_path / "checkpoints" / "last").glob("*.data-*"):
        path.write_bytes(path.read_bytes()[:100])
    assert "no checkpoint can be read: " in message_of(restore_model, build(compiled=False), tmp_path, "last")


def test_a_training_that_saves_faster_than_is_read_ends_in_a_line(tmp_path, training, monkeypatch):
    meanwhile(monkeypatch, *(functools.partial(training.save, step) for step in range(11, 200)))
    message = message_of(restore_model, build(compiled=False), tmp_path, "last")
    assert "another process writes them faster than they are read" in message and "--keep_checkpoints" in message


def test_the_record_of_the_best_is_waited_for(tmp_path, training, monkeypatch):
    training.save(20, value=3.0)
    path = tmp_path / "checkpoints" / "best" / best.FILE
    content, path_waits = path.read_text(), []
    before = content.replace('"step": 20', '"step": 19')
    path.write_text(before)
    monkeypatch.setattr(best.time, "sleep", lambda seconds: (path_waits.append(seconds), path.write_text(content)))
    assert chosen_by(tmp_path, 20) == "elbo 3 bits/dim on the validation split (lower is better)" and len(path_waits) == 1
    path.write_text(before)
    monkeypatch.setattr(best.time, "sleep", path_waits.append)
    assert chosen_by(tmp_path, 20) == "" and sum(path_waits) < 1.5
    path.unlink()  # as of an earlier version
    path_waits.clear()
    assert chosen_by(tmp_path, 20) == "" and not path_waits
