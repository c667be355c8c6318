"""The base class of all callbacks of training, and the shortest of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import keras

from tfcq.errors import TrainingInterrupted
from tfcq.machine.terminal import say

if TYPE_CHECKING:
    from tfcq.engine.checkpoints import Checkpoints
    from tfcq.engine.workers import Workers
    from tfcq.machine.interruption import Signals
    from tfcq.training.callbacks.scalars import Scalars


class StepCallback(keras.callbacks.Callback):
    """Calls `on_step(step, logs)` with the number of the step that ended, counted over all runs of the workdir."""

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Takes the number of steps from the model."""
        self.step = self.model.steps_taken

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Counts the step and calls `on_step`."""
        self.step += 1
        self.on_step(self.step, logs or {})

    def on_step(self, step: int, logs: dict) -> None:
        """Does the work of the callback after a step; `logs` are the step's terms by name."""
        raise NotImplementedError


class FirstStep(StepCallback):
    """Prints that the step of a stage is built, which may take minutes; makes signals wait for the end of a step.

    Before the first step they stop the training at once, since nothing can be saved.

    Args:
        signals: the signals of the training.
    """

    def __init__(self, signals: Signals):
        super().__init__()
        self._signals = signals
        self._stage: int | None = None
        self._began: float | None = None

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Prints which step is built, before the first of a stage."""
        stage = self.model.stage_at(self.step)
        if stage != self._stage:
            self._stage, self._began = stage, time.monotonic()
            names = ", ".join(player.name for player in self.model.players() if player.stage == stage)
            say(f"step {self.step + 1}: building the training step of {names} ...")

    def on_step(self, step: int, logs: dict) -> None:
        """Makes signals be recorded only; prints how long the first step of a stage took."""
        self._signals.wait()
        if self._began is not None:
            say(f"step {step}: built and taken in {time.monotonic() - self._began:.1f} s")
            self._began = None


class Saver(StepCallback):
    """Saves a checkpoint every `every` steps and at the end, also an early one; after a signal, raises TrainingInterrupted too.

    All workers do so at the same steps: they compare their states, and the chief writes.
    """

    curves: Scalars | None = None
    """What must be in its file up to a checkpoint before that is saved; to be set before training begins."""

    def __init__(self, checkpoints: Checkpoints, every: int, total_steps: int, workers: Workers):
        super().__init__()
        self._checkpoints, self._every, self._total, self._workers = checkpoints, every, total_steps, workers

    def on_step(self, step: int, logs: dict) -> None:
        """Saves a checkpoint if one is due or a signal was received."""
        received = self._workers.stop
        if received:
            self._save(step)  # at once: the process may be killed before the model has settled
            if self.model.settle():
                self._save(step)
        elif step % self._every == 0 or step == self._total or self.model.stop_training:
            self.model.settle()
            self._save(step)
        if received:
            raise TrainingInterrupted(received, step)

    def _save(self, step):
        if self._workers.count > 1:
            self._workers.agree({f"state of the model at step {step}": self._checkpoints.digest()})
        self._workers.each(self._write if self._workers.is_chief else lambda: None)

    def _write(self):
        if self.curves:
            self.curves.write()
        self._checkpoints.save()
