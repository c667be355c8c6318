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
        self._training, self._values, self._medians, self._lowest, self._told = training, {}, {}, {}, set()

    def on_step(self, step, logs):
        for name, value in logs.items():
            player, _, term = name.rpartition("/")
            if term == "bits_per_dim":
                self._values.setdefault(player, []).append(value)
                self._lowest.setdefault(player, value)
        if step % self._STEPS == 0:
            for player, values in self._values.items():
                self._judge(step, player, float(np.median(values)), len(values))
                self._lowest[player] = min(self._lowest[player], *values)
            self._values = {}

    def _judge(self, step, player, median, count):
        before, lowest = self._medians.get(player, np.inf), self._lowest[player]
        self._medians[player] = median
        if median <= self._WORST:
            if player in self._told:
                print(f"\nstep {step}: player {player} is at {median:.4g} bits/dim again", flush=True)
            self._told.discard(player)
        elif player not in self._told and (median > 2.0 * lowest or median >= before):
            self._told.add(player)
            names = ("learning_rate", "clip_norm", "warmup_steps")
            knobs = ", ".join(f"--{name}={getattr(self._training, name):g}" for name in names)
            print(
                f"\nstep {step}: warning: player {player} was at {median:.4g} bits/dim in the last {count} steps (lowest before: "
                f"{lowest:.4g}; uniform noise: 8); here {knobs}; in a new run a lower rate, a clip_norm or a longer warm-up "
                "would help",
                flush=True,
            )
