"""A likelihood that explodes, or stays worse than noise, and is finite."""

import numpy as np

from tfcq.machine.terminal import say
from tfcq.training.callbacks import StepCallback

_WORST = 16.0
"""Bits/dim: twice what uniform noise costs."""

_NO_BEGINNING = 1e8
"""Bits/dim that no run begins with: the least --decoder_sigma, s = 1e-4, costs 1 / (2 s^2 ln 2) = 7e7 where black is white."""

_STEPS, _FEW = 50, 20
"""A median is of `_STEPS` steps; over fewer than `_FEW` a fall cannot be distinguished from noise."""


class LikelihoodGuard(StepCallback):
    """Says when a bound is above 16 bits/dim, twice what uniform noise costs, and no beginning of a normal run; and its end.

    It judges the bound that is trained, by the median of each 50 steps and of the last ones of a run or of its stage, and what
    `judge_validation` is given. Normal runs may begin above 16 (fashion_mnist_cq at 27, a small --decoder_sigma at hundreds) and
    come down. So it warns of a value above it where it is twice the lowest so far or above all beginnings; and, after the
    warm-up, where it does not fall, or at its pace would not be below 16 when the run ends or has taken as many steps again.
    For the same reason it warns and does not stop.

    Args:
        training: `TrainingConfig`.
    """

    def __init__(self, training):
        super().__init__()
        self._training = training
        self._bound, self._validation = _Series(training), _Series(training)
        self._values, self._judged = [], []

    def on_step(self, step, logs):
        name = f"{self.model.trained_bound}_bits_per_dim"
        if name in logs:
            self._values.append(float(logs[name]))
        stage_ended = name not in logs
        ends = stage_ended or step == self._training.train_steps
        # The first steps of a run that goes on may be few; they wait for more.
        enough = step % _STEPS == 0 and (self._judged or len(self._values) >= _STEPS)
        if self._values and (ends or enough):
            self._judge_training(step - 1 if stage_ended else step, name, ends)

    def judge_validation(self, step, bits_per_dim):
        """Judges a bound on the validation split, measured after `step` steps; one warning, of training's bound, is enough.

        In the first 50 steps moving statistics and running means do not follow the weights yet.
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
            if ends:  # a short run, or the short rest of one
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
    """What was judged of one bound.

    Attributes:
        before: (step, value) of the last judgement; None: there was none.
        lowest: value so far.
        warned: whether the last judgement was a bad one.
    """

    def __init__(self, training):
        self._training = training
        self.before, self.lowest, self.warned = None, np.inf, False

    def judge(self, step, value, may_warn=True):
        """A line with {name}, {was} and {when} on a `value` in bits/dim, or ""; the value is `before` afterwards."""
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
        """Whether `value`, which is above `_WORST`, falls fast enough, or that cannot be said."""
        if self.before is None or step - self.before[0] < _FEW or step < self._training.warmup_steps + _FEW:
            return True
        before, steps = self.before[1], step - self.before[0]
        if not value < before:
            return False
        steps_left = max(self._training.train_steps - step, step)
        return value * (value / before) ** (steps_left / steps) <= _WORST
