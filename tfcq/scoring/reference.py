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


def unusualness(row: Mapping[str, Any], column: str) -> float:
    """The number of a column by which a row is ranked, larger for less usual images; infinite where it is not a number."""
    number = float(row[column])
    return float("inf") if np.isnan(number) else COLUMNS[column].unusual * number


class Reference:
    """Scores of held-out images, as a model gives them to images that it was made for.

    Args:
        rows: the numbers of each held-out image, by column; those that could not be used have none and are passed over.
        flag_by: a column of `columns.FLAG_BY`, by which images are ranked and flagged.

    Attributes:
        count: the number of held-out images.

    Raises:
        UserError: fewer than two held-out images, a number among theirs that is not finite, or likelihoods that are all equal.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]], flag_by: str) -> None:
        kept = [numbers_of(row) for row in rows if "unfit" not in row]
        self.count, self.flag_by = len(kept), flag_by
        if self.count < 2:
            raise UserError(f"held_out: expected at least two images that can be used, received {self.count}")
        self._bits: np.ndarray | None = None
        if "bits_per_dim" in kept[0]:
            self._bits = _finite("bits_per_dim", [row["bits_per_dim"] for row in kept])
            self._mean, self._deviation = self._bits.mean(), self._bits.std(ddof=1)
            if not self._deviation:
                raise UserError("held_out: expected images whose bits_per_dim differ, received equal ones")
        if flag_by != "typicality":
            self._ranks = np.sort(_finite(flag_by, [unusualness(row, flag_by) for row in kept]))

    def typicality(self, bits_per_dim: float) -> float:
        """|bits_per_dim - mean| of the held-out images, in their standard deviations (of n - 1)."""
        return float(abs(bits_per_dim - self._mean) / self._deviation)

    def percentile_and_p_value(self, row: Mapping[str, Any]) -> tuple[float, float]:
        """How unusual a row is among the held-out images.

        Returns:
            The percentage of them that are less unusual, with ties counted half, 0 to 100; and (1 + those that are as unusual
            or more) / (1 + all of them), a conformal p-value. For an image drawn as they were it is at most a with a
            probability of at most a, whatever the model (Vovk et al. 2005, "Algorithmic learning in a random world").
            By typicality the mean is here that of the held-out images and this one, so that none of them is at an advantage.
        """
        if self.flag_by == "typicality":
            assert self._bits is not None
            bits = row["bits_per_dim"]
            if not np.isfinite(bits):
                return 100.0, 1.0 / (1.0 + self.count)
            mean = (self.count * self._mean + bits) / (self.count + 1.0)
            distances, distance = np.abs(self._bits - mean), abs(bits - mean)
            below, equal = int(np.sum(distances < distance)), int(np.sum(distances == distance))
        else:
            below, upto = (int(np.searchsorted(self._ranks, unusualness(row, self.flag_by), side)) for side in ("left", "right"))
            equal = upto - below
        return 100.0 * (below + 0.5 * equal) / self.count, (1.0 + self.count - below) / (1.0 + self.count)

    def complete(self, row: Mapping[str, Any], false_alarm_rate: float) -> dict[str, Any]:
        """The numbers of a row of a part with those by the held-out images: typicality, percentile, flagged."""
        full = numbers_of(row)
        if self._bits is not None:
            full["typicality"] = self.typicality(full["bits_per_dim"])
        percentile, p_value = self.percentile_and_p_value(full)
        return full | {"percentile": percentile, "flagged": p_value <= false_alarm_rate}


def _finite(column, values):
    values = np.array(values, np.float64)
    if not np.isfinite(values).all():
        raise UserError(f"held_out: expected finite numbers in {column}, received others: the model is of no use for scores")
    return values
