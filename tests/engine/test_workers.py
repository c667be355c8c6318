"""What workers do together, as threads that hand each other texts; tests/integration/test_worker_processes.py has processes."""

import ctypes
import os
import signal
import threading

import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny
from worker_threads import OneOf, together

from tfcq.data import ImageDataset
from tfcq.engine import devices
from tfcq.engine import workers as module
from tfcq.engine.batches import step_batches
from tfcq.engine.workers import Workers
from tfcq.errors import UserError
from tfcq.machine import interruption
from tfcq.machine.cluster import Cluster
from tfcq.machine.interruption import Signals


def test_workers_that_agree_go_on():
    assert together(lambda worker: worker.agree({"step": "4", "seed": "0"})) == [None] * 3


@pytest.mark.parametrize(
    "facts, message",
    [
        ({"step": "8", "seed": "0"}, "worker 2 of 3 has another step than the chief: 8 instead of 4; all workers need the same"),
        ({"step": "4"}, "worker 2 of 3 has another seed than the chief: nothing instead of 0; "),
        ({"step": "4", "seed": "0", "width": "3"}, "worker 2 of 3 has another width than the chief: 3 instead of nothing; "),
    ],
)
def test_where_one_differs_all_end_with_the_same_line(facts, message):
    errors = together(lambda worker: worker.agree(facts if worker.index == 2 else {"step": "4", "seed": "0"}))
    assert len({str(error) for error in errors}) == 1 and str(errors[0]).startswith(message)


def test_a_mistake_that_one_finds_ends_all():
    line = f"images: broken: {', '.join(f'{number}.png' for number in range(100))}"

    def find(worker):
        if worker.index == 1:
            raise UserError(line)
        return worker.index

    errors = together(lambda worker: worker.each(lambda: find(worker)))
    assert [str(error) for error in errors] == [f"worker 1 of 3: {line}", line, f"worker 1 of 3: {line}"]
    assert together(lambda worker: worker.each(lambda: worker.index)) == [0, 1, 2]


@pytest.mark.parametrize(
    "error, text",
    [
        (OSError(28, "No space left on device", "samples/a.png"), "[Errno 28] No space left on device: 'samples/a.png'"),
        (tf.errors.UnavailableError(None, None, "the store\ndid not answer"), "the store did not answer"),
        (OSError(), "OSError"),
    ],
)
def test_a_disk_that_fails_one_ends_all(error, text):
    """Each with the status of a mistake: a scheduler starts a training again where a worker says that another is lost."""

    def write(worker):
        if worker.index == 0:
            raise error

    errors = together(lambda worker: worker.each(lambda: write(worker)))
    assert errors[0] is error and [str(other) for other in errors[1:]] == [f"worker 0 of 3: {text}"] * 2


def test_one_process_is_a_worker_that_waits_for_nobody():
    worker = Workers()
    assert (worker.count, worker.is_chief, worker.flags(), worker.count_shown) == (1, True, [], "")
    assert worker.share("text") == ["text"] and worker.each(lambda: 3) == 3
    worker.agree({"step": "4"})
    worker.wait()
    with worker.watched(lambda lost: pytest.fail("nobody can be lost")):
        pass
    with Signals() as signals:
        worker.listen(signals)
        assert worker.stop is None
        signal.raise_signal(signal.SIGTERM)
        assert worker.stop == signal.SIGTERM


def test_a_signal_to_one_is_known_to_all_once_they_have_heard():
    workers = [OneOf(index, 2) for index in range(2)]
    with Signals() as signals:
        workers[1].listen(signals)
        signal.raise_signal(signal.SIGHUP)
        flags = [worker.flags() for worker in workers]
        assert [worker.stop for worker in workers] == [None, None]  # not at once: they would save different steps
        for worker in workers:
            worker.hear(np.mean(flags, axis=0))
    assert [worker.stop for worker in workers] == [signal.SIGHUP] * 2
    workers[0].hear([0.0, 0.0, 0.0])
    assert workers[0].stop == signal.SIGHUP


@pytest.mark.parametrize("turns, indices", [(1, False), (1, True), (3, False), (3, True)])
def test_workers_rows_are_those_of_the_whole_batch(turns, indices):
    model = type("Model", (), {"batches_per_step": turns, "needs_indices": indices, "class_names": ()})
    dataset = tiny.dataset((4, 4, 1), 20)

    def drawn(rows):
        return [tf.nest.flatten(one) for one in step_batches(dataset, model, 6, 1, 2, rows).take(4).as_numpy_iterator()]

    parts = [drawn(OneOf(index, 3).rows(6)) for index in range(3)]
    for step, whole in enumerate(drawn(None)):
        for number, expected in enumerate(whole):
            np.testing.assert_array_equal(np.concatenate([part[step][number] for part in parts]), expected)


def test_only_a_workers_own_images_are_read():
    read = []
    images = tiny.images((4, 4, 1), 20)

    def gather(indices):
        read.extend(indices)
        return images[indices]

    dataset = ImageDataset("tiny", (4, 4, 1), {"train": (gather, np.arange(20))}, False)
    model = type("Model", (), {"batches_per_step": 1, "needs_indices": False, "class_names": ()})
    (batch,) = step_batches(dataset, model, 20, 1, 0, range(5, 10)).take(1)
    assert batch.shape == (5, 4, 4, 1) and len(read) % 5 == 0 and set(read[:5]) < set(range(20)) and len(set(read[:5])) == 5




@pytest.mark.parametrize("ends_by_itself", [True, False])
def test_a_lost_worker_ends_a_training_that_does_not_notice(monkeypatch, ends_by_itself):
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.01)
    monkeypatch.setattr(module, "GRACE_SECONDS", 60.0 if ends_by_itself else 0.01)
    looked, ended = threading.Event(), threading.Event()
    answers = iter([True, False, True, *[False] * 100])  # one failure is not a loss

    def answers_now(worker):
        looked.set()
        return next(answers)

    monkeypatch.setattr(module, "_answers", answers_now)
    with OneOf(0, 2).watched(lambda lost: ended.set() if lost == 1 else pytest.fail("another worker")):
        assert looked.wait(60)
        if not ends_by_itself:
            assert ended.wait(60)
    assert ended.is_set() != ends_by_itself


def test_a_worker_that_ends_after_the_last_step_is_not_lost(monkeypatch):
    """The chief may have files to write for a while, as at an address."""
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.01)
    monkeypatch.setattr(module, "GRACE_SECONDS", 60.0)
    monkeypatch.setattr(module, "_answers", lambda worker: False)
    chief, ended, before = OneOf(0, 2), [], threading.enumerate()
    with chief.watched(ended.append):
        (watch,) = [one for one in threading.enumerate() if one not in before]
        chief.part()
        watch.join(30)
        assert not watch.is_alive() and ended == []


def test_a_process_that_has_used_tensorflow_cannot_join_a_cluster(monkeypatch):
    monkeypatch.setattr(devices, "JOIN_SECONDS", 0.0)
    tf.zeros(1).numpy()
    with pytest.raises(UserError, match="^TF_CONFIG names 2 workers: expected the training to be the first that uses TensorFlow"):
        devices.prepare(cluster=Cluster(("127.0.0.1:0", "127.0.0.1:1"), 0, "TF_CONFIG"))


def test_the_chief_looks_at_all_and_the_others_at_the_chief(monkeypatch):
    seen = []
    monkeypatch.setattr(module, "_answers", lambda worker: seen.append(worker) or True)
    assert OneOf(0, 4).lost() is None and OneOf(2, 4).lost() is None
    assert seen == [1, 2, 3, 0]
    monkeypatch.setattr(module, "_answers", lambda worker: worker != 2)
    assert OneOf(0, 4).lost(60.0) == 2


def test_signals_are_pythons_again_after_a_library_took_them():
    """As TensorFlow's coordination of workers takes SIGTERM, from C: Python still shows its own handler."""
    with Signals() as signals:
        libc = ctypes.CDLL(None)
        libc.signal(int(signal.SIGTERM), ctypes.c_void_p(1))  # SIG_IGN
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received is None
        interruption.reinstall()
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == signal.SIGTERM


def test_a_batch_that_cannot_be_divided_is_refused_before_the_others_are_waited_for(monkeypatch):
    monkeypatch.setattr(devices.peers, "wait_for_all", lambda *_: pytest.fail("it waits"))
    with pytest.raises(UserError, match="batch_size=33: expected a multiple of the 2 workers"):
        devices.prepare(batch_size=33, cluster=Cluster(("one:1", "two:1"), 0, "TF_CONFIG"))
