"""The curves of training."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import tensorflow as tf

from tfcq.training.callbacks.step import StepCallback

if TYPE_CHECKING:
    from tfcq.training.loggers import Loggers


class Scalars(StepCallback):
    """Logs means of every term over `every` steps, learning rates and images/s.

    A term that validation measures too has the same name, unit and estimator there: see `Terms`.

    Args:
        loggers: take the rows.
        every: number of steps.
        images_per_step: number of images that training reads in a step.
        pause: the least seconds between two writes of their files; `write` writes what is left.
    """

    def __init__(self, loggers: Loggers, every: int, images_per_step: int, pause: float = 0.0):
        super().__init__()
        self._pause, self._written = pause, time.monotonic()
        self._rows: list[tuple[int, dict[str, float]]] = []
        self._loggers, self._every, self._images = loggers, every, images_per_step
        self._values: dict[str, list] = {}
        self._count = 0

    def on_step(self, step: int, logs: dict) -> None:
        """Collects the logged terms, and writes them every `every` steps."""
        now = time.monotonic()
        if not self._count:
            self._start = now
        for name, value in logs.items():  # not every stage of training has every term
            self._values.setdefault(name, []).append(value)
        self._count += 1
        if step % self._every:
            return
        row = {name: sum(values) / len(values) for name, values in self._values.items() if not name.endswith("/finite")}
        for name, optimizer in self.model.player_optimizers.items():
            row[f"{name}/learning_rate"] = float(tf.convert_to_tensor(optimizer.learning_rate))
        if self._count > 1:
            row["images_per_second"] = (self._count - 1) * self._images / (now - self._start)
        self._rows.append((step, row))
        if now - self._written >= self._pause:
            self.write()
        self._values, self._count = {}, 0

    def write(self) -> None:
        """Writes the rows that are not yet in the files."""
        if not self._rows:
            return
        for step, row in self._rows:
            self._loggers.add("train", step, row)
        self._loggers.flush("train")
        self._rows, self._written = [], time.monotonic()
