"""The one table of the metrics: names, meanings, and the numbers that each gives.

A metric of samples is a module of this package, which ends with `METRIC` (how it is measured: `tfcq.metrics.metric`), and a
line in `TABLE`. Names of flags and their help, checks, units, the report and comparisons follow from both. The likelihoods are
computed by the model and `tfcq.evaluation.likelihood`.

Plain Python, without NumPy: flags are checked by these names before anything large is imported.
"""

from __future__ import annotations

import dataclasses
import importlib
from typing import TYPE_CHECKING

from tfcq.metrics.metric import Metric

if TYPE_CHECKING:
    from tfcq.features.extractor import FeatureExtractor


@dataclasses.dataclass(frozen=True)
class Number:
    """A number that a metric gives.

    Attributes:
        meaning: a sentence that says which direction is better; "": the metric's.
        unit: in words; "": it has none, or (likelihoods) several.
        better: which values are better, "lower" or "higher"; "": as the metric says.
    """

    meaning: str = ""
    unit: str = ""
    better: str = ""


@dataclasses.dataclass(frozen=True)
class Listed:
    """A line of `TABLE`.

    Attributes:
        ability: what a model must be able to do (`GenerativeModel.abilities`): "likelihood", "latent_likelihood", "energy",
            "class_probabilities", "sample" or "sample_class": images of known classes, as files may be, too.
        meaning: a sentence for --help and the report, which says which direction is better.
        module: name of the module of tfcq.metrics that has its `METRIC`; "": a likelihood or an energy.
        numbers: {name: Number}; empty: one, of the metric's name.
        short: the number's name before that of the extractor (fd_pixels); "": its own.
        inception: name of metric and number with the Inception graph as extractor, and only then; "": the usual one.
        better: which values of its numbers are better, "lower" or "higher"; "": neither.
        near: what good values are near, where neither is better; "": unknown.
    """

    ability: str
    meaning: str
    module: str = ""
    numbers: dict[str, Number] = dataclasses.field(default_factory=dict)
    short: str = ""
    inception: str = ""
    better: str = ""
    near: str = ""


TABLE = {
    "elbo": Listed(
        "likelihood", "bound on -log P(image) by one draw of what is random; lower bits/dim are better", better="lower"
    ),
    "bits_per_dim": Listed(
        "likelihood",
        "bound on -log P(image) by one draw of what is random, tightened by K importance-weighted draws; lower bits/dim are "
        "better",
        better="lower",
    ),
    "latent_likelihood": Listed(
        "latent_likelihood",
        "log p(latents of an image), and how well the latents give the image back; not a likelihood of images",
        numbers={
            "latent_log_prob": Number(
                "log p(latents of an image), nats: a density of latents, and none of images; higher is likelier", "nats", "higher"
            ),
            "reconstruction_error": Number(
                "squared differences of an image and its reconstruction, pixels in [0, 1], summed; lower is better",
                "squares of pixels in [0, 1]",
                "lower",
            ),
        },
    ),
    "energy": Listed(
        "energy",
        "AUROC of the model's energy, by which generated images are told from real ones, one by one; 0.5: it tells nothing",
        numbers={"energy_auroc": Number()},
    ),
    "classes": Listed(
        "class_probabilities",
        "how well the model knows the classes of images, of a model of --class_conditional",
        numbers={
            "class_accuracy": Number(
                "share of images whose most probable class, by Bayes's rule, is their own; higher is better", "", "higher"
            ),
            "log_prob_given_class": Number(
                "log P(image | its class), or log p(latents of an image | its class), nats; higher is likelier", "nats", "higher"
            ),
            "bits_per_dim_given_class": Number(
                "bound on -log P(image | its class), of a model that is a density of images; lower is better", "bits/dim", "lower"
            ),
        },
    ),
    "frechet_distance": Listed(
        "sample",
        "Frechet distance of Gaussians fitted to features (Heusel et al. 2017); lower is better",
        "frechet",
        short="fd",
        inception="fid",
        better="lower",
    ),
    "classifier_score": Listed(
        "sample",
        "exp E KL(p(y|x) || p(y)) of a classifier (Salimans et al. 2016); higher is better",
        "classifier_score",
        inception="inception_score",
        better="higher",
    ),
    "kernel_distance": Listed(
        "sample",
        "MMD^2 of features under a cubic kernel, unbiased (Binkowski et al. 2018); lower is better",
        "kernel",
        short="kd",
        inception="kid",
        better="lower",
    ),
    "prd": Listed(
        "sample",
        "precision and recall for distributions (Sajjadi et al. 2018): F8 weighs recall, F1/8 precision; higher is better",
        "precision_recall",
        numbers={"prd_f8": Number(), "prd_f1_8": Number()},
        better="higher",
    ),
    "neighbours": Listed(
        "sample",
        "nearest neighbours: precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020); "
        "higher is better",
        "neighbours",
        numbers={"precision": Number(), "recall": Number(), "density": Number(), "coverage": Number()},
        better="higher",
    ),
    "memorisation": Listed(
        "sample",
        "whether generated images lie nearer to training images than held-out real ones do (z of Meehan et al. 2020); far "
        "below 0: copies",
        "memorisation",
        near="0",
    ),
    "near_copies": Listed(
        "sample",
        "fraction of generated images that are nearer to a training image than all but a few of the held-out ones are, by "
        "features or by pixels; the report lists them",
        "near_copies",
        near="the real one",
    ),
    "tstr": Listed(
        "sample_class",
        "train on synthetic, test on real (Esteban et al. 2017): accuracy of a logistic regression on features",
        "tstr",
        numbers={
            "tstr_accuracy": Number(
                "fraction of real held-out images whose class is found by a logistic regression on features that was trained on "
                "generated images; higher is better",
                better="higher",
            ),
            "tstr_ratio": Number(
                "this accuracy over that of one trained on as many real images; higher is better", better="higher"
            ),
        },
    ),
    "tstr_cnn": Listed(
        "sample_class",
        "train on synthetic, test on real (Esteban et al. 2017): accuracy of a small convolutional network on pixels",
        "tstr_cnn",
        numbers={
            "tstr_cnn_accuracy": Number(
                "fraction of real held-out images whose class is found by a small convolutional network that was trained on "
                "generated images; higher is better",
                better="higher",
            ),
            "tstr_cnn_ratio": Number(
                "this accuracy over that of one trained on as many real images; higher is better", better="higher"
            ),
        },
    ),
    "ms_ssim": Listed(
        "sample", "mean similarity of pairs of generated images (Odena et al. 2017); near the real one is better", "diversity",
        near="the real one",
    ),
    "ms_ssim_pggan": Listed(
        "sample",
        "mean similarity of disjoint pairs of generated images as Karras et al. 2018 define it, at sides divisible by 16; near "
        "the real one is better",
        "ms_ssim_pggan",
        near="the real one",
    ),
    "sliced_wasserstein": Listed(
        "sample",
        "sliced Wasserstein distance of patches of Laplacian pyramids (Karras et al. 2018); lower is better",
        "sliced_wasserstein",
        better="lower",
    ),
}
"""{name: Listed}, in the order in which they are measured."""


def names(ability: str) -> tuple[str, ...]:
    """The metrics of models with that ability."""
    return tuple(name for name, line in TABLE.items() if line.ability == ability)


LIKELIHOODS = names("likelihood")
"""Metrics of real images under the model: bound by one draw, importance-weighted estimate."""

LATENT_LIKELIHOODS = names("latent_likelihood")
"""Metrics of real images under models that are a density of latents and not of images."""

CLASS_PROBABILITIES = names("class_probabilities")
"""Metrics of real images and their classes, of models that learn images given their class."""

OF_ENERGY = names("energy")
"""Metrics of a model's energy, on real and generated images."""

OF_SAMPLES = names("sample")
"""Metrics that compare generated with real images."""

OF_SAMPLES_BY_CLASS = names("sample_class")
"""Metrics that compare generated images of known classes with real ones."""

INCEPTION_NAMES = {line.inception: name for name, line in TABLE.items() if line.inception}
"""{name of a metric with the Inception graph as extractor: its own name}."""


def load(name: str) -> Metric:
    """How a metric of samples, a name of `OF_SAMPLES` or `OF_SAMPLES_BY_CLASS`, is measured."""
    return importlib.import_module(f"tfcq.metrics.{TABLE[name].module}").METRIC


def numbers_of(name: str) -> dict[str, Number]:
    """{name: Number} of the numbers that a metric gives; the name is the one before the extractor's is appended."""
    return TABLE[name].numbers or {name: Number()}


def recorded_name(name: str, number: str, extractor: FeatureExtractor | None) -> str:
    """The name in metrics.json of a number of the metric `name`; only the Inception graph's are fid, kid and inception_score.

    `extractor`: a `FeatureExtractor`; None: the metric looks at images alone.
    """
    line = TABLE[name]
    if extractor is None:
        return number
    if extractor.is_inception and line.inception:
        return line.inception
    return f"{line.short or number}_{extractor.name}"


def is_number(recorded: str, number: str) -> bool:
    """Whether `recorded`, a name in metrics.json, is that number, with any extractor."""
    for name in (*OF_SAMPLES, *OF_SAMPLES_BY_CLASS):
        if number in numbers_of(name):
            line = TABLE[name]
            return recorded in (number, line.inception) or recorded.startswith(f"{line.short or number}_")
    return recorded == number


def metric_of(number: str) -> str:
    """The metric that gives a number, by any of the number's names before the extractor's is appended.

    Raises:
        KeyError: no metric does.
    """
    own = INCEPTION_NAMES.get(number, number)
    for name in TABLE:
        if own in numbers_of(name):
            return name
    raise KeyError(number)


def better(number: str) -> str:
    """Which values of a number, by a name as for `metric_of`, are better: "lower" or "higher"; "": neither."""
    name = metric_of(number)
    own = numbers_of(name).get(number)  # none for the Inception graph's names
    return (own.better if own else "") or TABLE[name].better


def unit_of(recorded: str) -> str:
    """The unit of a number of metrics.json, in words; "": it has none, or (likelihoods) several."""
    return next((numbers_of(name)[recorded].unit for name in TABLE if recorded in numbers_of(name)), "")


def direction_of(recorded: str) -> str:
    """Which values of a number of metrics.json are better, in words: "lower", "higher", "near ..."; "": none is known to be."""
    exact = [name for name in TABLE if recorded in numbers_of(name)]
    for name in exact or TABLE:  # ms_ssim_pggan is no ms_ssim of an extractor named pggan
        for number, own in numbers_of(name).items():
            if is_number(recorded, number):
                better = own.better or TABLE[name].better
                return better or (f"near {TABLE[name].near}" if TABLE[name].near else "")
    return ""


def flag_help() -> str:
    """What --metrics takes, a line a metric."""
    lines = []
    for name, line in TABLE.items():
        other = f", with --features=inception also {line.inception}" if line.inception else ""
        lines.append(f"{name}{other}: {line.meaning}")
    return "\n".join(lines)
