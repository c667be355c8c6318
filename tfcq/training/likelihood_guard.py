"""Warnings of a likelihood that explodes, or stays worse than noise, while it is finite."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tfcq.machine.terminal import say
from tfcq.training.callbacks import StepCallback

if TYPE_CHECKING:
    from tfcq.config import TrainingConfig

_WORST = 16.0
"""Bits/dim: twice the cost of uniform noise."""

_NO_BEGINNING = 1e8
"""Bits/dim above the start of any run: the smallest --decoder_sigma, s = 1e-4, costs 1 / (2 s^2 ln 2) = 7e7, black for white."""

_STEPS, _FEW = 50, 20
"""Medians are of `_STEPS` steps; over fewer than `_FEW` a decrease cannot be distinguished from noise."""


class LikelihoodGuard(StepCallback):
    """Warns when a bound stays above 16 bits/dim, twice the cost of uniform noise, and reports when it has recovered.

    It judges the bound that is trained, by the median of each 50 steps and of the last steps of a run or of its stage, and the
    bounds passed to `judge_validation`. Normal runs may begin above 16 (fashion_mnist_cq at 27, a small --decoder_sigma at
    hundreds) and decrease. So it warns of a value above 16 if the value is twice the lowest so far or above the start of every
    run; and, after the warm-up, if it does not decrease, or so slowly that it would not be below 16 when the run ends or has
    taken as many steps again. For the same reason it only warns, and does not stop the training.

    Args:
        training: options of the training.
    """

    def __init__(self, training: TrainingConfig):
        super().__init__()
        self._training = training
        self._bound, self._validation = _Series(training), _Series(training)
        self._values: list[float] = []
        self._judged: list[float] = []

    def on_step(self, step: int, logs: dict) -> None:
        """Collects the trained bound, and judges it every 50 steps and at the end of the run or stage."""
        name = f"{self.model.trained_bound}_bits_per_dim"
        if name in logs:
            self._values.append(float(logs[name]))
        stage_ended = name not in logs
        ends = stage_ended or step == self._training.train_steps
        # The first steps of a resumed run may be few; they wait for more.
        enough = step % _STEPS == 0 and (self._judged or len(self._values) >= _STEPS)
        if self._values and (ends or enough):
            self._judge_training(step - 1 if stage_ended else step, name, ends)

    def judge_validation(self, step: int, bits_per_dim: float) -> None:
        """Judges a bound on the validation split after `step` steps; a warning of the trained bound is not repeated.

        In the first 50 steps, moving statistics and running means lag behind the weights, so only extreme values count.
        """
        may_warn = not self._bound.warned and (step >= _STEPS or not bits_per_dim < _NO_BEGINNING)
        line = self._validation.judge(step, bits_per_dim, may_warn=may_warn)
        if line:
            say(f"step {step}: {line.format(name='validation elbo_bits_per_dim', was='is', when='')}")
        self._validation.lowest = min(self._validation.lowest, bits_per_dim)

    def _judge_training(self, step, name, ends):
        values, self._values = self._values, []
        count = min(max(len(values), 10), _STEPS)
        last = (self._judged + values)[-count:]
        if self._bound.before is None:
            if ends:  # a short run, or a short last part of one
                quarter = max(1, len(values) // 4)
                last = values[-quarter:]
                if len(values) >= _FEW:
                    self._bound.before = (step - len(values) + quarter, float(np.median(values[:quarter])))
            self._bound.lowest = min(values[: max(1, len(values) - len(last))])
        line = self._bound.judge(step, float(np.median(last)))
        if line:
            when = f" in the last {len(last)} steps" if len(last) > 1 else ""
            say(f"step {step}: {line.format(name=name, was='was', when=when)}")
        self._bound.lowest = min(self._bound.lowest, *values)
        self._judged = values


class _Series:
    """The values of one bound.

    Attributes:
        before: (step, value) of the last judgement; None: there was none.
        lowest: the lowest value so far.
        warned: whether the last judgement was a warning.
    """

    def __init__(self, training):
        self._training = training
        self.before: tuple[int, float] | None = None
        self.lowest, self.warned = np.inf, False

    def judge(self, step, value, may_warn=True):
        """A message about a `value` in bits/dim, with fields {name}, {was} and {when}, or ""; sets `before`."""
        fine = value <= _WORST
        bad = not fine and (not value < _NO_BEGINNING or value > 2.0 * self.lowest or not self._falls(step, value))
        self.before = (step, value)
        if fine:
            warned, self.warned = self.warned, False
            return f"{{name}} is at {value:.4g} again" if warned else ""
        if self.warned or not bad or not may_warn:
            return ""
        self.warned = True
        names = ("learning_rate", "clip_norm", "warmup_steps")
        options = ", ".join(f"--{name}={getattr(self._training, name):g}" for name in names)
        lowest = f"lowest before: {self.lowest:.4g}; " if np.isfinite(self.lowest) else ""
        return (
            f"warning: {{name}} {{was}} at {value:.4g}{{when}} ({lowest}uniform noise: 8); here {options}; a new run may need a "
            "lower rate, a clip_norm, a longer warm-up or more steps"
        )

    def _falls(self, step, value):
        """Whether `value`, which is above `_WORST`, decreases fast enough, or too few steps were taken to judge it."""
        if self.before is None or step - self.before[0] < _FEW or step < self._training.warmup_steps + _FEW:
            return True
        before, steps = self.before[1], step - self.before[0]
        if not value < before:
            return False
        steps_left = max(self._training.train_steps - step, step)
        return value * (value / before) ** (steps_left / steps) <= _WORST
