"""What all callbacks of training have in common, and the shortest of them."""

import keras

from tfcq.errors import TrainingInterrupted


class StepCallback(keras.callbacks.Callback):
    """Calls `on_step(step, logs)` with the number of the step that ended, counted over all runs of the workdir."""

    def on_train_begin(self, logs=None):
        self.step = self.model.steps_taken

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        self.on_step(self.step, logs)


class FirstStep(StepCallback):
    """Ends the time in which a signal stops at once, since nothing can be saved: a first step may take minutes of tracing.

    Args:
        signals: `tfcq.machine.interruption.Signals`.
    """

    def __init__(self, signals):
        super().__init__()
        self._signals = signals

    def on_step(self, step, logs):
        self._signals.wait()


class Saver(StepCallback):
    """Checkpoints every `every` steps and at the end; where a signal has come, saves and raises TrainingInterrupted."""

    def __init__(self, checkpoints, every, total_steps, signals):
        super().__init__()
        self._checkpoints, self._every, self._total, self._signals = checkpoints, every, total_steps, signals

    def on_step(self, step, logs):
        received = self._signals.received
        if received:
            self._checkpoints.save()  # at once: who sent it may not wait until the model has settled
            if self.model.settle():
                self._checkpoints.save()
        elif step % self._every == 0 or step == self._total:
            self.model.settle()
            self._checkpoints.save()
        if received:
            raise TrainingInterrupted(received, step)
