"""What a table of `tfcq.reproduce` is: rows with their options, the paper's numbers, and the orders that these show."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tfcq.config import SYSTEMS, DataConfig, TrainingConfig
from tfcq.config.fields import Section
from tfcq.config.groups import FIRST_STAGES
from tfcq.errors import UserError
from tfcq.metrics import registry

WIDTHS = (
    "width",
    "discriminator_width",
    "flow_width",
    "autoencoder_width",
    "hidden_units",
    "latent_flow_units",
    "adversary_units",
    "second_stage_units",
)
"""The options that `--narrow` multiplies, if the system has them."""

BETTER = {number: registry.better(number) for number in ("bits_per_dim", "classifier_score", "frechet_distance")}
"""{number that a paper's row may have: which values are better}."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        name: of the row and its workdir.
        options: {option of tfcq.train: value} that define the row; the command line cannot change them.
        paper: {key of `BETTER`: the paper's number}, without numbers that the paper does not give.
        defaults: {option: value} of the row, which the command line can change.
        factors: {option: factor above 1} for sizes that are larger than in the other rows; whole numbers grow by at least 1.
        likelihood: of what the row has a density, which decides the likelihoods that are measured: "images", "latents" or "".
        model: --model of this row; empty: the table's.
        first_stage_fraction: fraction of the row's steps in its first stage (--first_stage_steps); 0: no such option.
        as_large_as: the row that this one is to equal in its number of weights; empty: none.
    """

    name: str
    options: dict[str, Any]
    paper: dict[str, float]
    defaults: dict[str, Any] = dataclasses.field(default_factory=dict)
    factors: dict[str, float] = dataclasses.field(default_factory=dict)
    likelihood: str = "images"
    model: str = ""
    first_stage_fraction: float = 0.0
    as_large_as: str = ""


@dataclasses.dataclass(frozen=True)
class Order:
    """A ranking of a paper's rows: every row of a group is better than every row of the groups after it.

    Attributes:
        number: key of `BETTER`, by which the rows are ranked.
        groups: names of rows, the best group first.
    """

    number: str
    groups: tuple[tuple[str, ...], ...]

    def holds(self, values: Mapping[str, float]) -> bool | None:
        """Whether the ranking holds for values {row name: float}; None if one is missing."""
        if any(name not in values for group in self.groups for name in group):
            return None
        sign = 1.0 if BETTER[self.number] == "lower" else -1.0
        ranked = [[sign * values[name] for name in group] for group in self.groups]
        return all(max(better) < min(worse) for better, worse in zip(ranked, ranked[1:]))


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of a paper.

    Attributes:
        title: the heading.
        source: paper, table, and the data of its numbers.
        model: --model of rows that do not name their own.
        options: options of all rows, which the command line can change.
        rows: the rows.
        orders: rankings that the paper's numbers show.
        metrics: metrics that are measured, which the command line can change.
    """

    title: str
    source: str
    model: str
    options: dict[str, Any]
    rows: tuple[Row, ...]
    orders: tuple[Order, ...]
    metrics: tuple[str, ...] = ("bits_per_dim", "elbo", "frechet_distance", "classifier_score", "kernel_distance")

    def row(self, name: str) -> Row:
        """The row of that name; UserError if there is none."""
        for row in self.rows:
            if row.name == name:
                return row
        raise UserError(f"rows: expected some of {', '.join(row.name for row in self.rows)}, received {name!r}")

    def flags(self, row: Row, given: Mapping[str, Any], narrow: float = 1.0) -> dict[str, Any]:
        """{flag of tfcq.train: value} of a row.

        Args:
            row: a row of this table.
            given: {option: value} of the command line, which the row's own options override. Options that only the systems of
                other rows have are left out.
            narrow: factor of the default of each of `WIDTHS` that is not given.

        Raises:
            UserError: a given option that would change nothing: no row has it, or every row that has it sets it.
        """
        for name in given:
            able = [one for one in self.rows if name in self._options_of(one)]
            if not able:
                raise UserError(f"--{name}={given[name]}: no row of this table has such an option; leave the flag out")
            if all(name in one.options for one in able):
                raise UserError(
                    f"--{name}={given[name]}: every row of this table sets {name} itself; leave the flag out"
                )
        known = self._options_of(row)
        taken = {name: value for name, value in given.items() if name in known}
        flags = {"model": row.model or self.model} | self.options | row.defaults | taken | row.options
        defaults = {field.name: field.default for field in dataclasses.fields(self._system(row))}
        if narrow != 1.0:
            flags |= {
                name: max(1, round(narrow * flags.get(name, defaults[name])))
                for name in WIDTHS
                if name in defaults and name not in given
            }
        for name, factor in row.factors.items():
            size = flags.get(name, defaults[name])
            flags[name] = factor * size if isinstance(size, float) else max(size + 1, round(factor * size))
        return flags

    def first_stage_steps(self, row: Row, given: Mapping[str, Any]) -> int | None:
        """The length of a row's first stage of training, an option of its own (`FIRST_STAGES`).

        Args:
            row: a row of this table.
            given: as for `flags`.

        Returns:
            Steps; None if the row has no such option, or its `first_stage_fraction` gives the length.
        """
        flags = self.flags(row, given)
        lengths = {field.name: field.default for field in dataclasses.fields(self._system(row)) if field.name in FIRST_STAGES}
        for name, default in lengths.items():
            if name in flags or not row.first_stage_fraction:
                return flags.get(name, default)
        return None

    def _system(self, row: Row) -> type[Section]:
        return SYSTEMS[row.model or self.model]

    def _options_of(self, row):
        """The names of a row's options: those of its system, and those of every run."""
        sections: tuple[type[Section], ...] = (self._system(row), DataConfig, TrainingConfig)
        return {field.name for section in sections for field in dataclasses.fields(section)}
