"""The tables of `tfcq.reproduce`: for each row its options, and the numbers that its paper reports.

Only data: a new table is added to `TABLES`, and nothing else changes. Sources: Shmelkov, Lucas, Alahari, Schmid,
Verbeek, "Coverage and quality driven training of generative image models", 2018, Tables 1 to 3 (CIFAR-10, 32x32) and 4 (its
columns of STL-10, 48x48; those of CIFAR-10 are in Tables 2 and 3a), and Appendices A and B; those of Xiao, Yan, Amit, "Generative
latent flow", 2019, are in `glf_tables`.
"""

import dataclasses

from tfcq.reproduction import glf_tables
from tfcq.reproduction.rows import BETTER, Order, Row, Table


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
    **glf_tables.TABLES,
}
"""--table's values."""
