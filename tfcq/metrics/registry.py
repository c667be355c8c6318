"""The one table of what a model is measured by: names, meanings, and the numbers that each metric gives.

A metric of samples is a module of this package, which ends with `METRIC` (how it is measured: `tfcq.metrics.metric`), and its
line in `TABLE`. Names of flags and their help, checks, units, the report and comparisons follow from both. The likelihoods are
computed by the model and `tfcq.evaluation.likelihood`.

Plain Python, without NumPy: flags are checked by these names before anything large is imported.
"""

import dataclasses
import importlib

from tfcq.metrics.metric import Metric


@dataclasses.dataclass(frozen=True)
class Number:
    """A number that a metric gives.

    Attributes:
        meaning: a sentence with the direction that is better; "": the metric's.
        unit: in words; "": it has none, or (of likelihoods) several.
    """

    meaning: str = ""
    unit: str = ""


@dataclasses.dataclass(frozen=True)
class Listed:
    """A line of `TABLE`.

    Attributes:
        ability: what a model must be able to do: "likelihood", "latent_likelihood" or "sample" (`GenerativeModel.abilities`).
        meaning: a sentence for --help and beside the number, with the direction that is better.
        module: of tfcq.metrics, which has its `METRIC`; "": a likelihood.
        numbers: {name: Number}; empty: one, of the metric's name.
        short: what the number is called before the extractor's name (fd_pixels); "": its name.
        inception: what metric and number are called where the extractor is the Inception graph, and only there; "": as elsewhere.
    """

    ability: str
    meaning: str
    module: str = ""
    numbers: dict[str, Number] = dataclasses.field(default_factory=dict)
    short: str = ""
    inception: str = ""


TABLE = {
    "elbo": Listed("likelihood", "bound on -log P(image) by one draw of what is random; lower bits/dim are better"),
    "bits_per_dim": Listed(
        "likelihood",
        "bound on -log P(image) by one draw of what is random, tightened by K importance-weighted draws; lower bits/dim are "
        "better",
    ),
    "latent_likelihood": Listed(
        "latent_likelihood",
        "log p(latents of an image), and how well the latents give the image back; not a likelihood of images",
        numbers={
            "latent_log_prob": Number(
                "log p(latents of an image), nats: a density of latents, and none of images; higher is likelier", "nats"
            ),
            "reconstruction_error": Number(
                "squared differences of an image and its reconstruction, pixels in [0, 1], summed; lower is better",
                "squares of pixels in [0, 1]",
            ),
        },
    ),
    "frechet_distance": Listed(
        "sample",
        "Frechet distance of Gaussians fitted to features (Heusel et al. 2017); lower is better",
        "frechet",
        short="fd",
        inception="fid",
    ),
    "classifier_score": Listed(
        "sample",
        "exp E KL(p(y|x) || p(y)) of a classifier (Salimans et al. 2016); higher is better",
        "classifier_score",
        inception="inception_score",
    ),
    "kernel_distance": Listed(
        "sample",
        "MMD^2 of features under a cubic kernel, unbiased (Binkowski et al. 2018); lower is better",
        "kernel",
        short="kd",
        inception="kid",
    ),
    "prd": Listed(
        "sample",
        "precision and recall for distributions (Sajjadi et al. 2018): F8 weighs recall, F1/8 precision; higher is better",
        "precision_recall",
        numbers={"prd_f8": Number(), "prd_f1_8": Number()},
    ),
    "neighbours": Listed(
        "sample",
        "nearest neighbours: precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020); "
        "higher is better",
        "neighbours",
        numbers={"precision": Number(), "recall": Number(), "density": Number(), "coverage": Number()},
    ),
    "memorisation": Listed(
        "sample",
        "whether generated images lie nearer to training images than held-out real ones do (z of Meehan et al. 2020); far "
        "below 0: copies",
        "memorisation",
    ),
    "ms_ssim": Listed(
        "sample", "mean similarity of pairs of generated images (Odena et al. 2017); near the real one is better", "diversity"
    ),
    "sliced_wasserstein": Listed(
        "sample",
        "sliced Wasserstein distance of patches of Laplacian pyramids (Karras et al. 2018); lower is better",
        "sliced_wasserstein",
    ),
}
"""{name: Listed}, in the order in which they are measured."""


def names(ability: str) -> tuple[str, ...]:
    """The metrics of models with that ability."""
    return tuple(name for name, line in TABLE.items() if line.ability == ability)


LIKELIHOODS = names("likelihood")
"""Metrics of real images under the model: bound by one draw, importance-weighted estimate."""

LATENT_LIKELIHOODS = names("latent_likelihood")
"""Of real images, for models that are a density of latents and not of images."""

OF_SAMPLES = names("sample")
"""Metrics of generated beside real images."""

INCEPTION_NAMES = {line.inception: name for name, line in TABLE.items() if line.inception}
"""{what a metric is called where the extractor is the Inception graph: its own name}."""


def load(name: str) -> Metric:
    """How a metric of samples, a name of `OF_SAMPLES`, is measured."""
    return importlib.import_module(f"tfcq.metrics.{TABLE[name].module}").METRIC


def numbers_of(name: str) -> dict[str, Number]:
    """{name: Number} of the numbers that a metric gives, before the extractor's name is put behind it."""
    return TABLE[name].numbers or {name: Number()}


def recorded_name(name: str, number: str, extractor) -> str:
    """What metrics.json calls a number of the metric `name`; only the Inception graph's are fid, kid and inception_score.

    `extractor`: a `FeatureExtractor`; None: the metric looks at images alone.
    """
    line = TABLE[name]
    if extractor is None:
        return number
    if extractor.is_inception and line.inception:
        return line.inception
    return f"{line.short or number}_{extractor.name}"


def is_number(recorded: str, number: str) -> bool:
    """Whether `recorded`, a name of metrics.json, is that number, by any extractor."""
    for name in OF_SAMPLES:
        if number in numbers_of(name):
            line = TABLE[name]
            return recorded in (number, line.inception) or recorded.startswith(f"{line.short or number}_")
    return recorded == number


def unit_of(recorded: str) -> str:
    """The unit of a number of metrics.json, in words; "": it has none, or (of likelihoods) several."""
    return next((numbers_of(name)[recorded].unit for name in TABLE if recorded in numbers_of(name)), "")


def flag_help() -> str:
    """What --metrics takes, a line a metric."""
    lines = []
    for name, line in TABLE.items():
        other = f", with --features=inception also {line.inception}" if line.inception else ""
        lines.append(f"{name}{other}: {line.meaning}")
    return "\n".join(lines)
