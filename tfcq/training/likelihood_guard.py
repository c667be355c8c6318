"""A likelihood that explodes and stays finite."""

import numpy as np

from tfcq.training.callbacks import StepCallback


class LikelihoodGuard(StepCallback):
    """Says when a bound is above `_WORST` bits/dim, twice what uniform noise costs, where that is an explosion; and its end.

    It is one where the median of `_STEPS` steps was lower before, or at least does not fall: normal runs may begin above it
    (fashion_mnist_cq at 27, a small --decoder_sigma at hundreds) and come down. For the same reason it warns and does not stop.

    Args:
        training: `TrainingConfig`.
    """

    _WORST, _STEPS = 16.0, 50

    def __init__(self, training):
        super().__init__()
        self._training, self._values, self._medians, self._was_low, self._told = training, {}, {}, set(), set()

    def on_step(self, step, logs):
        for name, value in logs.items():
            player, _, term = name.rpartition("/")
            if term == "bits_per_dim":
                self._values.setdefault(player, []).append(value)
        if step % self._STEPS == 0:
            for player, values in self._values.items():
                self._judge(step, player, float(np.median(values)), len(values))
            self._values = {}

    def _judge(self, step, player, median, count):
        before, self._medians[player] = self._medians.get(player, np.inf), median
        if median <= self._WORST:
            if player in self._told:
                print(f"\nstep {step}: player {player} is at {median:.4g} bits/dim again", flush=True)
            self._told.discard(player)
            self._was_low.add(player)
        elif player not in self._told and (player in self._was_low or median >= before):
            self._told.add(player)
            names = ("learning_rate", "clip_norm", "warmup_steps")
            knobs = ", ".join(f"--{name}={getattr(self._training, name):g}" for name in names)
            print(
                f"\nstep {step}: warning: player {player} was at {median:.4g} bits/dim in the last {count} steps (uniform "
                f"noise: 8) and is not coming down; here {knobs}; in a new run a lower rate, a clip_norm or a longer warm-up "
                "would help",
                flush=True,
            )
