"""The tables of `tfcq.reproduce`: for each row its options, and the numbers that its paper reports.

Only data: a new table is added to `TABLES`, and nothing else changes. Sources: Shmelkov, Lucas, Alahari, Schmid,
Verbeek, "Coverage and quality driven training of generative image models", 2018, Tables 1 to 3 (CIFAR-10, 32x32) and 4 (its
columns of STL-10, 48x48; those of CIFAR-10 are in Tables 2 and 3a), and Appendices A and B; Xiao, Yan, Amit, "Generative latent
flow", 2019, Table 1 (its column of Fashion-MNIST, 28x28) and Appendix B.
"""

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


def _paper(bits_per_dim, classifier_score, frechet_distance):
    """The paper's BPD, IS and FID; None: a dash in the table."""
    numbers = dict(zip(BETTER, (bits_per_dim, classifier_score, frechet_distance)))
    return {name: value for name, value in numbers.items() if value is not None}


_SHARED = {"latent_levels": 0, "flow_couplings": 3, "flow_blocks": 2, "num_validation": 1000}
# Table 1: the standard CNN of Miyato et al. 2018, whose generator has batch normalisation; latents at several resolutions, as
# in all of the paper's models (Section 5.1).
_STANDARD = {
    "network": "standard",
    "network_normalization": "batch",
    "discriminator_network": "standard",
}
_GAN = {"coverage": False, "flow_scales": 0}
# Without a flow p(x|z) is a Gaussian of RGB values (Section 5.1). One of their logits, which lie inside of (-3, 3), would be
# another model: its variance falls towards black and white, and it has about 0.15 bits/dim less.
_NO_FLOW = {"flow_scales": 0, "pixel_transform": "affine"}
_CQF = {"flow_scales": 1}
_RESIDUAL = {
    "network": "residual",
    "network_normalization": "weight",
    "discriminator_network": "residual",
}
_TABLE_6 = {"width": 32, "discriminator_width": 32}  # 32, 64, 128, 256 channels
_IAF = {"posterior": "iaf"}
_FREE_BITS = {"free_bits": 0.25}  # the default of the program of Kingma et al. 2016, which the paper uses
_SOURCE = "Shmelkov et al. 2018, Table {}, on CIFAR-10 at 32x32: BPD, Inception score, FID (Inception)"

WIDER = 1.01
"""The factor of CQ's channels with which it has as many weights as CQF (Section 5.1).

Within 0.7 % for `--narrow` from 0.125 to 1 (measured).
"""

_ROWS_1 = (
    Row("gan", _GAN, _paper(None, 6.8, 31.4), likelihood=""),
    Row("vae", {"quality_weight": 0.0} | _NO_FLOW, _paper(4.4, 2.0, 171.0)),
    Row("cq", _NO_FLOW, _paper(4.4, 5.1, 58.6), factors={"width_scale": WIDER}, as_large_as="cqf"),
    Row("cqf", _CQF, _paper(3.9, 7.1, 28.0)),
)
_ROWS_2 = (
    dataclasses.replace(_ROWS_1[0], defaults=_STANDARD),
    Row("gan_residual", _GAN | _RESIDUAL, _paper(None, 7.4, 24.0), _TABLE_6, likelihood=""),
    Row("cqf", _CQF, _paper(3.90, 7.1, 28.0), _STANDARD),
    Row("cqf_residual", _CQF | _RESIDUAL, _paper(3.84, 7.5, 26.0), _TABLE_6),
    Row("cqf_residual_iaf", _CQF | _RESIDUAL | _IAF, _paper(3.77, 7.9, 20.1), _TABLE_6 | _FREE_BITS),
    Row(
        "cqf_residual_iaf_large_d",
        _CQF | _RESIDUAL | _IAF,
        _paper(3.74, 8.1, 18.6),
        _TABLE_6 | _FREE_BITS,
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
# Of the model without a flow the paper has samples (Figure 6) and no numbers.
_ROWS_3B = (
    Row("no_flow", _NO_FLOW, {}),
    *_rows_3(
        {(1, 2): (3.52, 3.0, 112.0), (2, 2): (3.41, 4.5, 85.5), (3, 2): (3.45, 4.4, 78.7), (4, 1): (3.49, 4.1, 82.4)},
    ),
)
# "+2 scales" has the discriminator of Table 3a. On CIFAR-10 its numbers are those of 2 blocks (BPD) and of 4 (IS, FID).
_ROWS_4 = (
    Row("large_d", {"flow_scales": 1}, _paper(4.0, 8.6, 52.7), factors={"discriminator_width": 2.0}),
    Row("two_scales", {"flow_scales": 2}, _paper(3.82, 8.6, 52.1)),
)
_ROWS_LAMBDA = tuple(Row(f"lambda_{weight:g}", {"quality_weight": weight} | _CQF, {}) for weight in (0.0, 1.0, 10.0, 100.0))
_HALVED = {"learning_rate_drops": "0.5:0.5"}  # after half of the epochs
# These epochs do not include the pre-training.
_WAE = {
    "batch_size": 100,
    "beta_1": 0.5,
    "discriminator_learning_rate": 5e-4,
    "learning_rate_drops": "/0.3:0.5,0.5:0.2",
}
_TWO_STAGE = {"batch_size": 100, "learning_rate": 1e-4, "learning_rate_drops": "0.375:0.5,0.75:0.5"}
# From the authors' code (Hoshen et al. 2019): the learning rate of IMLE is constant.
_GLANN = {
    "latent_dim": 64,
    "batch_size": 128,
    "beta_1": 0.5,
    "learning_rate_drops": ",".join(f"0.{tenth}:0.5" for tenth in range(1, 10)) + "/",
}
_AT_ONCE = {"first_stage_steps": 0}
_PERCEPTUAL = {"reconstruction": "perceptual"}


def _glf_row(name, distance, defaults, model="", options=None, likelihood="images", first_stage_fraction=0.0):
    return Row(
        name,
        options or {},
        {"frechet_distance": distance},
        defaults,
        likelihood=likelihood,
        model=model or name,
        first_stage_fraction=first_stage_fraction,
    )


# Settings of MNIST (the same for Fashion-MNIST, by Appendix B). The two-stage VAE's stages are as its epochs, 400 and 800.
# GLANN's authors have 500 epochs and 50, which left a fifth of an epoch for IMLE in a table's minutes; its steps cost little.
_ROWS_GLF = (
    _glf_row("vae", 57.5, _HALVED),
    _glf_row("wae_gan", 31.5, _WAE, likelihood="latents"),
    _glf_row("two_stage_vae", 26.1, _TWO_STAGE, first_stage_fraction=1.0 / 3.0),
    _glf_row("rae_gmm", 25.1, _HALVED, likelihood="latents"),
    _glf_row("vae_flow_prior", 51.8, _HALVED),
    _glf_row("vae_flow_posterior", 55.1, _HALVED),
    _glf_row("glann", 13.0, _GLANN, options=_PERCEPTUAL, likelihood="", first_stage_fraction=0.25),
    _glf_row("glf", 21.3, _HALVED, options=_AT_ONCE | {"reconstruction": "mse"}, likelihood="latents"),
    _glf_row("glf_perceptual", 10.3, _HALVED, "glf", options=_AT_ONCE | _PERCEPTUAL, likelihood="latents"),
)
_REFINED = (("cqf_residual_iaf_large_d",), ("cqf_residual_iaf",), ("cqf_residual",), ("cqf",))
_ONE, _TWO = ("scales_1_blocks_2",), ("scales_2_blocks_2",)

TABLES = {
    "1": Table(
        "GAN, VAE, both losses (CQ), both losses and a flow (CQF)",
        _SOURCE.format("1"),
        "cqf",
        _SHARED | _STANDARD,
        _ROWS_1,
        (
            Order("bits_per_dim", (("cqf",), ("cq", "vae"))),
            Order("frechet_distance", (("cqf",), ("cq",), ("vae",))),
            Order("classifier_score", (("cqf",), ("cq",))),
            Order("frechet_distance", (("cqf",), ("gan",), ("cq", "vae"))),
            Order("classifier_score", (("cqf",), ("gan",), ("cq",), ("vae",))),
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
        _SHARED | _RESIDUAL | _TABLE_6 | _IAF | _FREE_BITS,
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
        _SHARED | _RESIDUAL | _TABLE_6 | _IAF | _FREE_BITS | {"quality_weight": 0.0},
        _ROWS_3B,
        (
            Order("bits_per_dim", (_TWO, _ONE)),
            Order("bits_per_dim", (_TWO, ("scales_3_blocks_2", "scales_4_blocks_1"))),
            Order("frechet_distance", (("scales_2_blocks_2", "scales_3_blocks_2", "scales_4_blocks_1"), _ONE)),
        ),
    ),
    "4": Table(
        "the best models on larger images: a larger discriminator, and a flow of two scales",
        "Shmelkov et al. 2018, Table 4, on STL-10 at 48x48: BPD, Inception score, FID (Inception)",
        "cqf",
        _SHARED | _RESIDUAL | _TABLE_6 | _IAF | _FREE_BITS | {"image_size": 48, "latent_size": 3, "batch_size": 32},
        _ROWS_4,
        (Order("bits_per_dim", (("two_scales",), ("large_d",))),),
    ),
    "lambda": Table(
        "CQF by the weight of the quality loss (lambda)",
        "Shmelkov et al. 2018, Appendix A, where 10 to 100 work best and all numbers are of 100",
        "cqf",
        _SHARED | _STANDARD,
        _ROWS_LAMBDA,
        (),
    ),
    "glf": Table(
        "GLF compared with other auto-encoders",
        "Xiao et al. 2019, Table 1, on Fashion-MNIST at 28x28: FID (Inception)",
        "glf",
        {"batch_size": 256, "optimizer": "adam", "learning_rate": 1e-3},
        _ROWS_GLF,
        (
            Order("frechet_distance", (("glf",), ("vae", "vae_flow_posterior", "vae_flow_prior"))),
            Order("frechet_distance", (("glf",), ("wae_gan", "two_stage_vae", "rae_gmm"))),
            Order("frechet_distance", (("glf_perceptual",), ("glann",), ("glf",))),
        ),
        metrics=("frechet_distance", "prd"),
    ),
}
"""--table's values."""
