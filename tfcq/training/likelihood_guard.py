"""A likelihood that explodes and stays finite."""

import numpy as np

from tfcq.training.callbacks import StepCallback


class LikelihoodGuard(StepCallback):
    """Says when a bound is above `_WORST` bits/dim, twice what uniform noise costs, where that is an explosion; and its end.

    The median of `_STEPS` steps is one where it is twice the lowest value so far, or does not fall: normal runs may begin above
    `_WORST` (fashion_mnist_cq at 27, a small --decoder_sigma at hundreds) and come down. For the same reason it warns and does
    not stop.

    Args:
        training: `TrainingConfig`.
    """

    _WORST, _STEPS = 16.0, 50

    def __init__(self, training):
        super().__init__()
        self._training, self._values, self._told = training, [], False
        self._before, self._lowest = np.inf, None

    def on_step(self, step, logs):
        name = f"{self.model.trained_bound}_bits_per_dim"
        if name in logs:  # not every stage of training has a bound
            self._values.append(logs[name])
            self._lowest = logs[name] if self._lowest is None else self._lowest
        if step % self._STEPS == 0 and self._values:
            self._judge(step, name, float(np.median(self._values)))
            self._lowest = min(self._lowest, *self._values)
            self._values = []

    def _judge(self, step, name, median):
        before, self._before = self._before, median
        if median <= self._WORST:
            if self._told:
                print(f"\nstep {step}: {name} is at {median:.4g} again", flush=True)
            self._told = False
        elif not self._told and (median > 2.0 * self._lowest or median >= before):
            self._told = True
            names = ("learning_rate", "clip_norm", "warmup_steps")
            knobs = ", ".join(f"--{knob}={getattr(self._training, knob):g}" for knob in names)
            print(
                f"\nstep {step}: warning: {name} was at {median:.4g} in the last {len(self._values)} steps (lowest before: "
                f"{self._lowest:.4g}; uniform noise: 8); here {knobs}; in a new run a lower rate, a clip_norm or a longer "
                "warm-up would help",
                flush=True,
            )
