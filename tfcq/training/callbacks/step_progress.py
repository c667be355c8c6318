"""How far a training is, in the terminal."""

import time

from tfcq.machine.terminal import ProgressBar
from tfcq.training.callbacks.step import StepCallback


class StepProgress(StepCallback):
    """A `ProgressBar` with step, images/s, time left and some of the logged terms.

    Args:
        total_steps: of the run.
        images_per_step: that a step reads.
        shown: {name of a logged term: what it is called in the line}.
    """

    def __init__(self, total_steps, images_per_step, shown):
        super().__init__()
        self._total, self._images, self._shown = total_steps, images_per_step, shown

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._first, self._start, self._bar = self.step, time.monotonic(), ProgressBar(self._total)

    def on_step(self, step, logs):
        if step == self._first + 1:  # it traces and compiles, and says nothing about the speed
            self._start, self._bar = time.monotonic(), ProgressBar(self._total)
            return
        if not self._bar.due() and step != self._total:
            return
        rate = (step - self._first - 1) * self._images / max(time.monotonic() - self._start, 1e-9)
        left = (self._total - step) * self._images / rate if rate else float("nan")
        terms = [f"{label} {logs[name]:.4g}" for name, label in self._shown.items() if name in logs]
        parts = [f"step {step}/{self._total}", f"{rate:.1f} images/s", f"{left / 60:.1f} min left", *terms]
        self._bar.show(step, parts, last=step == self._total)
