"""A run that was stopped and resumed ends with the bits of one that was not."""

import os
import shutil
import signal
import time

import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny
from commands import command, start
from tensorflow.python.framework import config as framework_config

from tfcq.errors import TrainingInterrupted
from tfcq.training import callbacks
from tfcq.training.run import train

STEPS = 6
CONFIG = tiny.config(
    8,
    training={
        "train_steps": STEPS,
        "checkpoint_every": 2,
        "evaluate_every": 100,
        "deterministic": True,
        "warmup_steps": 2,
    },
    latent_size=4,
    flow_couplings=1,
    network_normalization="batch",
    flow_normalization="batch",
    discriminator_steps=2,
)

@pytest.fixture(scope="module", autouse=True)
def deterministic_here_alone():
    yield
    framework_config.disable_op_determinism()


def state(folder, step=STEPS):
    """Every tensor of a last checkpoint: weights, optimizers, statistics, the step."""
    reader = tf.train.load_checkpoint(str(folder / "checkpoints" / "last" / f"step-{step}"))
    names = reader.get_variable_to_shape_map().keys() - {
        "_CHECKPOINTABLE_OBJECT_GRAPH",
        "save_counter/.ATTRIBUTES/VARIABLE_VALUE",
    }
    return {name: reader.get_tensor(name) for name in names}


def train_until_a_signal(config, folder, signalled_step):
    """Trains until SIGTERM, which comes during a step."""
    on_step = callbacks.FiniteGuard.on_step

    def kill_then_guard(self, step, logs):
        if step == signalled_step:
            os.kill(os.getpid(), signal.SIGTERM)
        on_step(self, step, logs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks.FiniteGuard, "on_step", kill_then_guard)
        with pytest.raises(TrainingInterrupted, match=f"at step {signalled_step}") as raised:
            train(config, folder)
    assert raised.value.exit_status == 143


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(CONFIG, folder)
    return state(folder)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The workdir of a run that SIGTERM stopped during step 3: the checkpoints of steps 2 and 3 are there."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    train_until_a_signal(CONFIG, folder, 3)
    return folder


def differing(received, expected):
    """Names of the tensors that differ, in however little."""
    assert received.keys() == expected.keys() and len(expected) > 50
    return [name for name in expected if np.asarray(received[name]).tobytes() != np.asarray(expected[name]).tobytes()]


@pytest.mark.slow
def test_stopped_by_a_signal_and_resumed(uninterrupted, stopped, tmp_path, capsys):
    folder = shutil.copytree(stopped, tmp_path / "run")
    assert differing(state(folder, 3), uninterrupted)  # else nothing is proved
    assert train(CONFIG, folder).steps_taken == STEPS
    assert "resumed from step 3" in capsys.readouterr().out
    assert not differing(state(folder), uninterrupted)


@pytest.mark.slow
def test_resumed_from_the_checkpoint_before_a_truncated_one(uninterrupted, stopped, tmp_path, capsys):
    folder = shutil.copytree(stopped, tmp_path / "run")
    data = folder / "checkpoints" / "last" / "step-3.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    assert train(CONFIG, folder).steps_taken == STEPS
    said = capsys.readouterr().out
    assert "step-3" in said and "cannot be read; resumed from step 2" in said
    assert not differing(state(folder), uninterrupted)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_at_full_size_a_resumed_run_has_the_bits_of_an_uninterrupted_one(tmp_path):
    # In processes of their own and side by side: threads that are short of cores show what depends on their order. Sums
    # over a whole batch are split between threads only when they are long, so 8x8 images would show nothing.
    flags = {
        "dataset": "photo_patches",
        "latent_channels": 8,
        "width": 16,
        "discriminator_width": 16,
        "flow_width": 8,
        "flow_scales": 2,
        "flow_couplings": 1,
        "flow_blocks": 1,
        "network_normalization": "batch",
        "train_steps": 10,
        "checkpoint_every": 4,
        "warmup_steps": 2,
        "validation_images": 8,
        "grid_images": 1,
    }

    def begin(name):
        return start(command("train", **flags, workdir=tmp_path / name), stderr=None)

    whole, stopped = begin("whole"), begin("resumed")
    try:
        while not (tmp_path / "resumed/checkpoints/last/step-4.index").exists() and stopped.poll() is None:
            time.sleep(0.02)
        stopped.send_signal(signal.SIGTERM)
        stopped.communicate()
        assert stopped.returncode == 143
        resumed = begin("resumed")
        said, _ = resumed.communicate()
        assert resumed.returncode == 0 and "resumed from step" in said
        whole.communicate()
        assert whole.returncode == 0
    finally:
        for process in (whole, stopped):
            process.kill()
    assert not differing(state(tmp_path / "resumed", 10), state(tmp_path / "whole", 10))
