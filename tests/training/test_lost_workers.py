"""What a training says, and how it ends, where another worker or the files of this one are gone."""

import contextlib
import os

import pytest
import tensorflow as tf
from worker_threads import OneOf, together

from tfcq.config import Config, TrainingConfig
from tfcq.errors import UserError, WorkerLost
from tfcq.machine import paths
from tfcq.machine.remote import RemoteError
from tfcq.training import callbacks, progress, run

GONE = tf.errors.UnavailableError(None, None, "it did not\nanswer")


class Ended(BaseException):
    pass


class Model:
    """A model whose training ends with `error`."""

    steps_taken = 0
    stop_training = False

    def __init__(self, workers, error):
        self.workers, self._error = workers, error

    def fit_batches(self, *_, **__):
        raise self._error

    def settle(self):
        pass


class Data:
    take_error = staticmethod(lambda: None)


def end_of(monkeypatch, index, lost, workdir, error):
    """What `_fit` raises of worker `index` of 2, if `lost` cannot be reached."""
    workers = OneOf(index, 2)
    monkeypatch.setattr(workers, "lost", lambda seconds: lost)
    with pytest.raises(Exception) as raised:
        run._fit(Model(workers, error), Data, None, None, workdir, TrainingConfig(), [], None)
    assert workers._over.is_set()
    return raised.value


@pytest.mark.parametrize("index, lost", [(0, 1), (1, 0)])
def test_a_lost_worker_is_named(monkeypatch, tmp_path, index, lost):
    for workdir in (tmp_path, paths.as_path("ram://bucket/none")):
        error = end_of(monkeypatch, index, lost, workdir, GONE)
        assert str(error) == str(WorkerLost(f"worker {index} of 2", f"worker {lost}", 0))


def test_where_all_can_be_reached_the_reason_is_said(monkeypatch, tmp_path):
    error = end_of(monkeypatch, 1, None, tmp_path, GONE)
    assert str(error).startswith("worker 1 of 2: another worker was lost (it did not answer); start all workers again ")
    internal = tf.errors.InternalError(None, None, "a fault")
    assert end_of(monkeypatch, 1, None, tmp_path, internal) is internal


def test_a_store_that_fails_the_chief_is_no_lost_worker(monkeypatch):
    workdir = paths.as_path("ram://bucket/none")
    error = end_of(monkeypatch, 0, None, workdir, GONE)
    assert isinstance(error, UserError) and str(error).startswith(f"workdir {workdir}: cannot be written: it did not answer; ")
    assert isinstance(end_of(monkeypatch, 1, None, workdir, GONE), WorkerLost)  # the chief alone writes there


FULL = tf.errors.ResourceExhaustedError(None, None, "events.out; No space left on device")


@pytest.mark.parametrize("ended_by", [None, UserError("a.png: broken"), ZeroDivisionError()])
def test_curves_that_cannot_be_written_hide_no_other_error(monkeypatch, tmp_path, ended_by):
    closed = []

    class Writer:
        def close(self):
            closed.append(self)
            raise FULL

    monkeypatch.setattr(run.workdirs, "event_writer", lambda folder: Writer())
    with pytest.raises(Exception) as raised, run._loggers(tmp_path, Config(), []):
        if ended_by:
            raise ended_by
    assert len(closed) == 2
    if ended_by:
        assert raised.value is ended_by
    else:
        message = f"workdir {tmp_path}: cannot be written: No space left on device; the checkpoints in {tmp_path} are untouched; "
        assert type(raised.value) is UserError and str(raised.value).startswith(message)


@pytest.mark.parametrize("failing", ["saved_step", "stderr"])
def test_a_process_ends_though_its_files_are_gone(monkeypatch, tmp_path, capsys, failing):
    def end(status):
        raise Ended(status)

    def fail(*_, **__):
        raise RemoteError(5, "no network", "gs://bucket/run")

    monkeypatch.setattr(os, "_exit", end)
    if failing == "saved_step":
        monkeypatch.setattr(run.workdirs, "saved_step", fail)
    else:
        monkeypatch.setattr(run.sys, "stderr", type("Closed", (), {"write": fail, "flush": fail})())
    with pytest.raises(Ended, match="75"):
        run._end(OneOf(0, 2), 1, tmp_path)
    if failing == "saved_step":
        assert capsys.readouterr().err == f"error: {WorkerLost('worker 0 of 2', 'worker 1')}\n"


def test_a_process_that_is_ended_says_why_in_its_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "_exit", lambda status: None)
    with contextlib.suppress(Ended), progress.Reporter(tmp_path, 0, 9, 1, 1, {}) as reporter:
        reporter.start()
        run._end(OneOf(0, 2), 1, tmp_path)
        found = progress.read(tmp_path)
    assert found.state == "failed" and found.error["kind"] == "WorkerLost" and "worker 1 was lost" in found.error["line"]


@pytest.mark.parametrize("step", [0, 2])
def test_an_evaluation_that_fails_the_chief_ends_all(step):
    """With the status of a mistake, and the reason."""
    training = TrainingConfig(evaluate_every=2)

    class Full(callbacks.StepCallback):
        def __init__(self):
            pass

        def on_train_begin(self, logs=None):
            self.on_step(0, {})

        def on_step(self, number, logs):
            if number == step:
                raise OSError(28, "No space left on device")

    def train(worker):
        meeting = callbacks.Meeting(training, worker)
        meeting.set_model(Model(worker, None))
        worker.wait = lambda: None
        if worker.is_chief:
            meeting.evaluation = Full()
        meeting.on_train_begin()
        for _ in range(3):
            meeting.on_train_batch_end(0, {})
        return "done"

    chief, other = together(train, 2)
    assert (type(chief), type(other)) == (OSError, UserError)
    assert str(other) == "worker 0 of 2: [Errno 28] No space left on device"
