"""What stops `tfcq.train`, on real digits: a weight that is not a number, and signals."""

import os
import signal

import numpy as np
import pytest
import tiny_models as tiny

from tfcq import workdir as workdirs
from tfcq.engine.workers import Workers
from tfcq.errors import TrainingDiverged, TrainingInterrupted
from tfcq.machine.interruption import Signals
from tfcq.training import callbacks, progress
from tfcq.training.run import train


def test_a_weight_that_is_nan_stops_and_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    training = {"train_steps": 5, "checkpoint_every": 2, "evaluate_every": 2}
    settings = tiny.config(8, training=training, latent_size=4, flow_couplings=1, **tiny.ROWS["vae"])
    save, seen = callbacks.Saver.on_step, []

    def save_then_poison(self, step, logs):
        save(self, step, logs)
        if step == 3:
            self.model.encoder.trainable_variables[0].assign(
                np.full_like(self.model.encoder.trainable_variables[0].value, np.nan)
            )

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.Saver, "on_step", save_then_poison)
        with pytest.raises(TrainingDiverged, match=r"player generator at step 4 \(seed 0\)") as raised:
            train(settings, tmp_path, on_progress=seen.append)
    assert [(one.state, one.step) for one in seen[:2]] == [("starting", 0), ("training", 1)]
    assert progress.read(tmp_path) == seen[-1] and (seen[-1].state, seen[-1].step) == ("failed", 3)
    assert seen[-1].error == {"kind": "TrainingDiverged", "line": str(raised.value)}
    assert "generator/loss=nan" in str(raised.value) and raised.value.exit_status == 1
    last = tmp_path / "checkpoints" / "last"
    assert [path.name for path in last.glob("*.index")] == ["step-2.index"]
    for variable in workdirs.load(tmp_path).variables:
        assert np.isfinite(variable.value).all(), variable.path
    assert train(settings, tmp_path).steps_taken == 5  # from step 2, the poison gone


class Recorder:
    """Stands for Checkpoints, and counts."""

    saved = 0

    def save(self):
        self.saved += 1


def alone(signals):
    """The one worker of a process."""
    workers = Workers()
    workers.listen(signals)
    return workers


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_saves_after_the_step_and_gives_the_handlers_back(number, status):
    before = signal.getsignal(number)
    recorder = Recorder()
    with Signals() as signals:
        saver = callbacks.Saver(recorder, every=100, total_steps=1000, workers=alone(signals))
        saver.set_model(tiny.build(tiny.config(**tiny.ROWS["vae"])))
        saver.on_train_begin()
        saver.on_train_batch_end(0)
        assert not recorder.saved
        os.kill(os.getpid(), number)
        with pytest.raises(TrainingInterrupted, match=f"{number.name} at step 2: state saved") as raised:
            saver.on_train_batch_end(1)
    assert recorder.saved == 1 and raised.value.exit_status == status
    assert signal.getsignal(number) is before


def test_a_signal_saves_before_the_model_settles_and_once_more_after_it():
    recorder, seen = Recorder(), []
    model = tiny.build(tiny.config(**tiny.ROWS["vae"]))
    model.fit_to_data = lambda: seen.append(recorder.saved) or True
    with Signals() as signals:
        saver = callbacks.Saver(recorder, every=100, total_steps=1000, workers=alone(signals))
        saver.set_model(model)
        saver.on_train_begin()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(TrainingInterrupted):
            saver.on_train_batch_end(0)
    assert seen == [1] and recorder.saved == 2
