"""TensorBoard's curves of training."""

import time

import tensorflow as tf

from tfcq.training.callbacks.step import StepCallback


class Scalars(StepCallback):
    """Means of every logged term over `every` steps, learning rates and images/s to TensorBoard.

    What a validation measures too has the same name there, one unit and one estimator: see `Terms`.
    """

    def __init__(self, writer, every, images_per_step):
        super().__init__()
        self._writer, self._every, self._images = writer, every, images_per_step
        self._values, self._count = {}, 0

    def on_step(self, step, logs):
        now = time.monotonic()
        if not self._count:
            self._start = now
        for name, value in logs.items():  # not every stage of training has every term
            self._values.setdefault(name, []).append(value)
        self._count += 1
        if step % self._every:
            return
        with self._writer.as_default(step):
            for name, values in self._values.items():
                if not name.endswith("/finite"):
                    tf.summary.scalar(name, sum(values) / len(values))
            for name, optimizer in self.model.player_optimizers.items():
                tf.summary.scalar(f"{name}/learning_rate", float(tf.convert_to_tensor(optimizer.learning_rate)))
            if self._count > 1:
                tf.summary.scalar("images_per_second", (self._count - 1) * self._images / (now - self._start))
        self._writer.flush()
        self._values, self._count = {}, 0
