"""Stops a training whose numbers are no longer finite."""

from __future__ import annotations

import numpy as np

from tfcq.errors import TrainingDiverged
from tfcq.training.callbacks.step import StepCallback


class FiniteGuard(StepCallback):
    """Stops at the first loss or gradient that is not finite, before anything is saved."""

    def on_step(self, step: int, logs: dict) -> None:
        """Raises TrainingDiverged if a player's step was not finite."""
        for name, value in logs.items():
            player, _, term = name.rpartition("/")
            if term == "finite" and value < 1.0:
                terms = {key: float(other) for key, other in logs.items() if not np.isfinite(other)}
                raise TrainingDiverged(
                    f"player {player} at step {step} (seed {self.model.seed}): loss or gradient is not finite "
                    f"({', '.join(f'{key}={other}' for key, other in terms.items()) or 'loss scale exhausted'}); the last "
                    "checkpoint is untouched; a lower learning rate, --clip_norm or --precision=float32 may help"
                )
