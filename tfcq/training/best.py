"""The number of the periodic evaluations by which a run's best checkpoint is chosen: --best_metric."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfcq.engine.best import ELBO, VALIDATION, Criterion
from tfcq.errors import UserError
from tfcq.metrics import registry

if TYPE_CHECKING:
    from tfcq.models.base import GenerativeModel


class BestNumber:
    """A number that evaluations during training measure.

    Args:
        name: one of `tfcq.config.training.BEST_METRICS`.

    Attributes:
        metric: the metric that gives it, or its name with the Inception graph, which requires that extractor.
        of_samples: whether it is a number of generated images.
    """

    def __init__(self, name: str):
        self._name, self._number = name, registry.INCEPTION_NAMES.get(name, name)
        own = registry.metric_of(name)
        self.metric = name if name in registry.INCEPTION_NAMES else own
        self._ability = registry.TABLE[own].ability
        self.of_samples = self._ability == "sample"

    def check(self, model: GenerativeModel, needed_by: str = "") -> None:
        """Raises UserError if the model cannot be measured so; by elbo, the default, no checkpoint is the best then.

        `needed_by`: the options that need the number, also if it is elbo; "": none but best_metric.
        """
        if (self._name != ELBO.number or needed_by) and self._ability not in model.abilities:
            raise UserError(f"{needed_by or f'best_metric={self._name}'}: {model.cannot(self._ability)}")

    def of(self, row: dict) -> tuple[float, Criterion] | None:
        """The number in a row of metrics.jsonl, and what it is; None if the row does not have it."""
        for name, entry in row.items():
            if isinstance(entry, dict) and registry.is_number(name, self._number):
                if name == ELBO.number:
                    return entry["bits_per_dim"], ELBO
                protocol = {key: entry[key] for key in ("num_generated", "checksum") if key in entry}
                if entry.get("split", VALIDATION) != VALIDATION:  # records of earlier versions have no split
                    protocol["split"] = entry["split"]
                return entry["value"], Criterion(name, registry.better(self._name), protocol)
        return None
