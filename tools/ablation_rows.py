"""The tables that `tools/ablation` knows: of each row the knobs that make it, and the numbers that its paper reports.

Data alone: a table is added to `TABLES` and nothing else changes. Source of those here: Shmelkov, Lucas, Alahari, Schmid,
Verbeek, "Coverage and quality driven training of generative image models", 2018, Tables 1 to 3 (CIFAR-10, 32x32).
"""

import dataclasses

from tfcq.config import SYSTEMS
from tfcq.errors import UserError

WIDTHS = ("width", "discriminator_width", "flow_width", "iaf_width")
"""The knobs that `--narrow` multiplies, where the system has them."""

BETTER = {"bits_per_dim": "lower", "classifier_score": "higher", "frechet_distance": "lower"}
"""The numbers that a paper's row may have, and which values are better."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        name: also its workdir's.
        knobs: {knob of tfcq.train: value}, what makes the row; the command line does not change them.
        paper: {key of `BETTER`: the paper's number}; one that it does not give is left out.
        defaults: {knob: value}, what the row has unless the command line says otherwise.
        factors: {knob: factor above 1} for what is larger than in the other rows; it grows by at least 1.
        likelihood: whether elbo and bits_per_dim can be measured.
    """

    name: str
    knobs: dict
    paper: dict
    defaults: dict = dataclasses.field(default_factory=dict)
    factors: dict = dataclasses.field(default_factory=dict)
    likelihood: bool = True


@dataclasses.dataclass(frozen=True)
class Order:
    """What a paper's numbers say of its rows: every row of a group is better than every row of the groups after it."""

    number: str
    groups: tuple

    def holds(self, values):
        """True or False; None where a number is missing. values: {row name: float}."""
        if any(name not in values for group in self.groups for name in group):
            return None
        sign = 1.0 if BETTER[self.number] == "lower" else -1.0
        ranked = [[sign * values[name] for name in group] for group in self.groups]
        return all(max(better) < min(worse) for better, worse in zip(ranked, ranked[1:]))


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of a paper.

    Attributes:
        title: what stands above it.
        source: paper, table, and what its numbers were measured on.
        model: --model of its rows.
        knobs: what all rows share, unless the command line says otherwise.
        rows: tuple of `Row`.
        orders: tuple of `Order`, those that the paper's numbers show.
    """

    title: str
    source: str
    model: str
    knobs: dict
    rows: tuple
    orders: tuple

    def row(self, name):
        """The row of that name; UserError where there is none."""
        for row in self.rows:
            if row.name == name:
                return row
        raise UserError(f"rows: expected some of {', '.join(row.name for row in self.rows)}, received {name!r}")

    def flags(self, row, given, narrow=1.0):
        """{flag of tfcq.train: value} of a row.

        Args:
            row: `Row` of this table.
            given: {knob: value} of the command line, which the row's own knobs outdo.
            narrow: multiplies the default of each of `WIDTHS` that is not given.

        Raises:
            UserError: a given knob that every row sets for itself, so that it would change nothing.
        """
        for name in given:
            if all(name in one.knobs for one in self.rows):
                raise UserError(
                    f"--{name}={given[name]}: every row of this table sets {name} itself; leave the flag out"
                )
        flags = {"model": self.model} | self.knobs | row.defaults | given | row.knobs
        defaults = {field.name: field.default for field in dataclasses.fields(SYSTEMS[self.model])}
        if narrow != 1.0:
            flags |= {
                name: max(1, round(narrow * flags.get(name, defaults[name])))
                for name in WIDTHS
                if name in defaults and name not in given
            }
        for name, factor in row.factors.items():
            size = flags.get(name, defaults[name])
            flags[name] = max(size + 1, round(factor * size))
        return flags


def _paper(bits_per_dim, classifier_score, frechet_distance):
    """The paper's BPD, IS and FID; None: a dash in the table."""
    numbers = dict(zip(BETTER, (bits_per_dim, classifier_score, frechet_distance)))
    return {name: value for name, value in numbers.items() if value is not None}


_SHARED = {"network": "plain", "latent_levels": 0, "flow_couplings": 3, "flow_blocks": 2}
_GAN = {"coverage": False, "flow_scales": 0}
_CQF = {"flow_scales": 1}
_RESIDUAL = {
    "network": "residual",
    "network_normalization": "weight",
    "discriminator_network": "residual",
}
_TABLE_6 = {"width": 32, "discriminator_width": 32}  # 32, 64, 128, 256 channels
_IAF = {"posterior": "iaf"}
_SOURCE = "Shmelkov et al. 2018, Table {}, on CIFAR-10 at 32x32: BPD, Inception score, FID (Inception)"

_ROWS_1 = (
    Row("gan", _GAN, _paper(None, 6.8, 31.4), likelihood=False),
    Row("vae", {"quality_weight": 0.0, "flow_scales": 0}, _paper(4.4, 2.0, 171.0)),
    # The paper widens CQ's generator by the 1.4 % of weights that CQF's flow adds.
    Row("cq", {"flow_scales": 0}, _paper(4.4, 5.1, 58.6), factors={"width": 1.02}),
    Row("cqf", _CQF, _paper(3.9, 7.1, 28.0)),
)
_ROWS_2 = (
    _ROWS_1[0],
    Row("gan_residual", _GAN | _RESIDUAL, _paper(None, 7.4, 24.0), _TABLE_6, likelihood=False),
    Row("cqf", _CQF, _paper(3.90, 7.1, 28.0)),
    Row("cqf_residual", _CQF | _RESIDUAL, _paper(3.84, 7.5, 26.0), _TABLE_6),
    Row("cqf_residual_iaf", _CQF | _RESIDUAL | _IAF, _paper(3.77, 7.9, 20.1), _TABLE_6),
    Row(
        "cqf_residual_iaf_large_d",
        _CQF | _RESIDUAL | _IAF,
        _paper(3.74, 8.1, 18.6),
        _TABLE_6,
        factors={"discriminator_width": 2.0},
    ),
)


def _rows_3(numbers):
    return tuple(
        Row(f"scales_{scales}_blocks_{blocks}", {"flow_scales": scales, "flow_blocks": blocks}, _paper(*paper))
        for (scales, blocks), paper in numbers.items()
    )


_ROWS_3A = _rows_3(
    {(1, 2): (3.77, 7.9, 20.1), (2, 2): (3.48, 6.9, 27.7), (2, 4): (3.46, 6.9, 28.9), (3, 3): (3.49, 6.5, 31.7)},
)
_ROWS_3B = _rows_3(
    {(1, 2): (3.52, 3.0, 112.0), (2, 2): (3.41, 4.5, 85.5), (3, 2): (3.45, 4.4, 78.7), (4, 1): (3.49, 4.1, 82.4)},
)
_REFINED = (("cqf_residual_iaf_large_d",), ("cqf_residual_iaf",), ("cqf_residual",), ("cqf",))
_ONE, _TWO = ("scales_1_blocks_2",), ("scales_2_blocks_2",)

TABLES = {
    "1": Table(
        "GAN, VAE, both losses (CQ), both losses and a flow (CQF)",
        _SOURCE.format("1"),
        "cqf",
        _SHARED,
        _ROWS_1,
        (
            Order("frechet_distance", (("cqf",), ("cq",), ("vae",))),
            Order("frechet_distance", (("cqf",), ("gan",), ("cq", "vae"))),
            Order("classifier_score", (("cqf",), ("gan",), ("cq",), ("vae",))),
            Order("bits_per_dim", (("cqf",), ("cq", "vae"))),
        ),
    ),
    "2": Table(
        "residual networks, IAF posteriors, a larger discriminator",
        _SOURCE.format("2"),
        "cqf",
        _SHARED,
        _ROWS_2,
        (
            Order("frechet_distance", (("gan_residual",), ("gan",))),
            *(Order(number, _REFINED) for number in ("frechet_distance", "classifier_score", "bits_per_dim")),
        ),
    ),
    "3a": Table(
        "scales and residual blocks of the flow, trained by both losses",
        _SOURCE.format("3a"),
        "cqf",
        _SHARED | _RESIDUAL | _TABLE_6 | _IAF,
        _ROWS_3A,
        (
            Order("bits_per_dim", (_TWO, _ONE)),
            Order("frechet_distance", (_ONE, ("scales_2_blocks_2", "scales_2_blocks_4"), ("scales_3_blocks_3",))),
        ),
    ),
    "3b": Table(
        "scales and residual blocks of the flow, trained by likelihood alone (MLE)",
        _SOURCE.format("3b"),
        "cqf",
        _SHARED | _RESIDUAL | _TABLE_6 | _IAF | {"quality_weight": 0.0},
        _ROWS_3B,
        (
            Order("bits_per_dim", (_TWO, _ONE)),
            Order("bits_per_dim", (_TWO, ("scales_3_blocks_2", "scales_4_blocks_1"))),
            Order("frechet_distance", (("scales_2_blocks_2", "scales_3_blocks_2", "scales_4_blocks_1"), _ONE)),
        ),
    ),
}
"""--table's values."""
