"""A run that was stopped and resumed ends with the bits of one that was not."""

import os
import shutil
import signal

import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny
from tensorflow.python.framework import config as framework_config

from tfcq.errors import TrainingInterrupted
from tfcq.training import callbacks
from tfcq.training.run import train

STEPS = 6
SMALL = tiny.config(
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

# Sums over a whole batch are split between threads only when they are long: sizes that people train with show it, 8x8 does not.
LARGE = tiny.config(
    32,
    data={"dataset": "photo_patches"},
    training={
        "train_steps": 12,
        "checkpoint_every": 6,
        "evaluate_every": 100,
        "deterministic": True,
        "warmup_steps": 2,
        "batch_size": 64,
    },
    width=16,
    discriminator_width=16,
    flow_width=8,
    flow_scales=2,
    network_normalization="batch",
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
    train(SMALL, folder)
    return state(folder)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The workdir of a run that SIGTERM stopped during step 3: the checkpoints of steps 2 and 3 are there."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    train_until_a_signal(SMALL, folder, 3)
    return folder


def differing(received, expected):
    """Names of the tensors that differ, in however little."""
    assert received.keys() == expected.keys() and len(expected) > 50
    return [name for name in expected if np.asarray(received[name]).tobytes() != np.asarray(expected[name]).tobytes()]


@pytest.mark.slow
def test_stopped_by_a_signal_and_resumed(uninterrupted, stopped, tmp_path, capsys):
    folder = shutil.copytree(stopped, tmp_path / "run")
    assert differing(state(folder, 3), uninterrupted)  # else nothing is proved
    assert train(SMALL, folder).steps_taken == STEPS
    assert "resumed from step 3" in capsys.readouterr().out
    assert not differing(state(folder), uninterrupted)


@pytest.mark.slow
def test_resumed_from_the_checkpoint_before_a_truncated_one(uninterrupted, stopped, tmp_path, capsys):
    folder = shutil.copytree(stopped, tmp_path / "run")
    data = folder / "checkpoints" / "last" / "step-3.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    assert train(SMALL, folder).steps_taken == STEPS
    said = capsys.readouterr().out
    assert "step-3" in said and "cannot be read; resumed from step 2" in said
    assert not differing(state(folder), uninterrupted)


@pytest.mark.slow
def test_at_full_size_a_resumed_run_has_the_bits_of_an_uninterrupted_one(tmp_path):
    train(LARGE, tmp_path / "whole")
    train_until_a_signal(LARGE, tmp_path / "resumed", 7)
    train(LARGE, tmp_path / "resumed")
    assert not differing(state(tmp_path / "resumed", 12), state(tmp_path / "whole", 12))
