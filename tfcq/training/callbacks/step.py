"""The base class of all callbacks of training, and the shortest of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras

from tfcq.errors import TrainingInterrupted

if TYPE_CHECKING:
    from tfcq.engine.checkpoints import Checkpoints
    from tfcq.engine.workers import Workers
    from tfcq.machine.interruption import Signals


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
    """Makes signals wait for the end of a step, from the first step on.

    Before that they stop the training at once, since nothing can be saved, and tracing may make the first step take minutes.

    Args:
        signals: the signals of the training.
    """

    def __init__(self, signals: Signals):
        super().__init__()
        self._signals = signals

    def on_step(self, step: int, logs: dict) -> None:
        """Makes signals be recorded only."""
        self._signals.wait()


class Saver(StepCallback):
    """Saves a checkpoint every `every` steps and at the end; after a signal, saves one and raises TrainingInterrupted.

    All workers do so at the same steps: they compare their states, and the chief writes.
    """

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
        elif step % self._every == 0 or step == self._total:
            self.model.settle()
            self._save(step)
        if received:
            raise TrainingInterrupted(received, step)

    def _save(self, step):
        if self._workers.count > 1:
            self._workers.agree({f"state of the model at step {step}": self._checkpoints.digest()})
        self._workers.each(self._checkpoints.save if self._workers.is_chief else lambda: None)
