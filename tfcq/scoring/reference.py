"""Images compared with held-out ones: percentile, typicality, and which of them are flagged at a false-alarm rate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tfcq.errors import UserError
from tfcq.scoring.columns import COLUMNS


def numbers_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """`row`, of a part, and what follows from its own numbers: complexity_corrected."""
    if "bits_per_dim" not in row:
        return dict(row)
    return {**row, "complexity_corrected": row["bits_per_dim"] - row["complexity"]}


class Reference:
    """Scores of held-out images, as a model gives them to images that it was made for.

    Args:
        rows: the numbers of each held-out image, by column; those that could not be used have none and are passed over.
        flag_by: a column of `columns.FLAG_BY`, by which images are ranked and flagged.

    Attributes:
        count: the number of held-out images.

    Raises:
        UserError: fewer than two held-out images, or a number among theirs that is not finite.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]], flag_by: str) -> None:
        kept = [numbers_of(row) for row in rows if "unfit" not in row]
        self.count, self.flag_by = len(kept), flag_by
        if self.count < 2:
            raise UserError(f"held_out: expected at least two images that can be used, received {self.count}")
        bits = np.array([row.get("bits_per_dim", 0.0) for row in kept], np.float64)
        self._mean, self._deviation = bits.mean(), bits.std(ddof=1)
        self._ranks = np.sort([self.unusualness(row) for row in kept])
        if not (np.isfinite(self._ranks).all() and np.isfinite(bits).all()):
            raise UserError(f"held_out: expected finite numbers in {flag_by}, received others: the model is of no use for scores")

    def typicality(self, bits_per_dim: float) -> float:
        """|bits_per_dim - mean| of the held-out images, in their standard deviations (of n - 1)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(abs(np.float64(bits_per_dim) - self._mean) / self._deviation)

    def unusualness(self, row: Mapping[str, Any]) -> float:
        """The number by which a row is ranked, larger for less usual images; infinite where it is not a number."""
        number = self.typicality(row["bits_per_dim"]) if self.flag_by == "typicality" else row[self.flag_by]
        return float("inf") if np.isnan(number) else COLUMNS[self.flag_by].unusual * float(number)

    def percentile(self, unusualness: float) -> float:
        """The percentage of the held-out images that are less unusual, with ties counted half: 0 to 100."""
        below, upto = (np.searchsorted(self._ranks, unusualness, side) for side in ("left", "right"))
        return 50.0 * float(below + upto) / self.count

    def p_value(self, unusualness: float) -> float:
        """(1 + the held-out images that are as unusual or more) / (1 + all of them), a conformal p-value.

        For an image drawn as they were it is at most a with a probability of at most a, whatever the model (Vovk et al. 2005,
        "Algorithmic learning in a random world").
        """
        above = self.count - int(np.searchsorted(self._ranks, unusualness, "left"))
        return (1.0 + above) / (1.0 + self.count)

    def complete(self, row: Mapping[str, Any], false_alarm_rate: float) -> dict[str, Any]:
        """The numbers of a row of a part with those by the held-out images: typicality, percentile, flagged."""
        full = numbers_of(row)
        if "bits_per_dim" in full:
            full["typicality"] = self.typicality(full["bits_per_dim"])
        unusual = self.unusualness(full)
        return full | {"percentile": self.percentile(unusual), "flagged": self.p_value(unusual) <= false_alarm_rate}
