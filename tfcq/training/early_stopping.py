"""--early_stopping: a training ends when the number that chooses the best checkpoint stands still."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tfcq.engine.best import ELBO, Criterion
from tfcq.training.best import BestNumber

if TYPE_CHECKING:
    from tfcq.config import TrainingConfig
    from tfcq.models.base import GenerativeModel


class StoppedEarly(Exception):
    """Ends a training whose number stands still before it has taken a step."""


class EarlyStopping:
    """Counts the evaluations without an improvement, as the rows of metrics.jsonl tell: a run that goes on counts on.

    Only the last stage of training counts. A value that is not finite is no improvement. Where the number or its protocol
    changes, counting begins anew.

    Args:
        training: its early_stopping and best_metric.
        model: the model that is trained.

    Raises:
        UserError: evaluations do not measure the number of this model.
    """

    def __init__(self, training: TrainingConfig, model: GenerativeModel):
        self._patience, self._number = training.early_stopping, BestNumber(training.best_metric)
        if self._patience:
            self._number.check(model, f"early_stopping={self._patience} with best_metric={training.best_metric}")
        self._first_step = model.stage_starts[-1]
        self._criterion: Criterion | None = None
        self._begin_anew(0)

    def _begin_anew(self, step):
        self._since, self._rank, self._value, self._waited = step, math.inf, math.nan, 0

    def hear(self, row: dict) -> None:
        """Takes a row of metrics that training wrote; rows come in the order of their steps."""
        step, found = row["step"], self._number.of(row)
        if step <= self._first_step or found is None:
            return
        value, criterion = found
        if criterion != self._criterion:
            self._criterion = criterion
            self._begin_anew(step)
        if math.isfinite(value) and criterion.rank(value) < self._rank:
            self._since, self._rank, self._value, self._waited = step, criterion.rank(value), value, 0
        else:
            self._waited += 1

    @property
    def reason(self) -> str:
        """Why training ends, in words; "": it goes on."""
        if not self._patience or self._waited < self._patience:
            return ""
        unit = " bits/dim" if self._criterion == ELBO else ""
        best = f"{self._value:.5g}{unit}" if math.isfinite(self._value) else "no finite value"
        return (
            f"early stopping: {self._criterion} has not improved in {self._waited} evaluations, since step {self._since} ({best})"
        )
