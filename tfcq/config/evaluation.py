"""The protocol of an evaluation: the options of `tfcq.evaluate`. Its metrics: `tfcq.metrics.registry`. No TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from tfcq.config.fields import Section, option, suggestion
from tfcq.errors import UserError
from tfcq.machine.paths import folder
from tfcq.metrics.registry import INCEPTION_NAMES, TABLE

if TYPE_CHECKING:
    from tfcq.config.data import DataConfig


def metric_names(metrics: str | Sequence[str]) -> list[str]:
    """The metrics named in a sequence, or in a text separated by commas; ["all"] if "all" is among them.

    Raises:
        UserError: an unknown name, no name, or another type.
    """
    if not isinstance(metrics, str | list | tuple):
        raise UserError(f"metrics: expected names, in a list or separated by commas, received {metrics!r}")
    names = metrics.split(",") if isinstance(metrics, str) else list(metrics)
    asked = [name for name in names if name != "all"] if names else [""]
    check_metrics("metrics", asked, TABLE, "all or some of")
    return ["all"] if "all" in names else names


def check_metrics(option: str, names: Iterable[str], known: Collection[str], expected: str = "some of") -> None:
    """Raises UserError if one of `names` is neither a metric of `known` nor a name of a metric of the Inception graph.

    Args:
        option: name of the option, with which the message begins.
        names: the names to check.
        known: names of metrics that are accepted.
        expected: words before the known names in the message.
    """
    for name in names:
        if name not in (*known, *INCEPTION_NAMES):
            raise UserError(
                f"{option}: expected {expected} {', '.join(known)}, received {name or 'none'!r}"
                + suggestion(name, (*known, *INCEPTION_NAMES))
            )


OF_IMAGE_SETS = (
    *("split", "reference_test_split", "num_samples", "num_seeds", "seed", "features", "feature_weights"),
    *("num_train_images", "neighbour_distance", "near_copy_quantile", "num_pairs", "data_dir", "data_cache"),
    *("batch_size", "distribution", "logical_devices", "cache_dir"),
)
"""The options of `EvaluationConfig` that have a meaning where two sets of images are compared, without a model."""


def protocol(options: dict[str, Any], known: Collection[str] = ()) -> EvaluationConfig:
    """The `EvaluationConfig` of some options, its paths absolute.

    Args:
        options: {name: value}.
        known: the options that are accepted; empty: all.

    Raises:
        UserError: another option, or a value that an option cannot have.
    """
    fields = [field.name for field in dataclasses.fields(EvaluationConfig)]
    for name in options:
        if name not in fields:
            raise UserError(f"evaluate: unknown option {name!r}{suggestion(name, known or fields)}")
        if name not in (known or fields):
            raise UserError(f"{name}: expected it with a run alone (--workdir), and not where two sets of images are compared")
    return EvaluationConfig(**options).absolute()


@dataclasses.dataclass(frozen=True, repr=False)
class ImagesPlace(Section):
    """Where the images of a trained run are now, for commands that read them after training."""

    dataset: str = option(
        "",
        "where the run's images are now, as --dataset of tfcq.train; they must be the same images; empty: where they were",
        paths=("idx:", "folder:", "npz:"),
    )
    data_dir: str = option("", "the folder where TFDS keeps the run's images now; empty: the same as before", paths=("",))
    data_cache: str = option(
        "", "the folder where images are kept decoded, as --data_cache of tfcq.train; empty: the run's", paths=("",),
        words=("none",),
    )
    accept_changed_data: bool = option(
        False,
        "goes on with those of the run's images that are left, if some are gone or have changed; for a run without a list of "
        "its images (earlier versions kept none): goes on in another place, or splits other images anew",
    )

    def of(self, config: DataConfig) -> DataConfig:
        """A run's DataConfig `config`, changed to the place where its images are now."""
        given = {name: value for name in ("dataset", "data_dir", "data_cache") if (value := getattr(self, name))}
        return dataclasses.replace(config, **given)


@dataclasses.dataclass(frozen=True, repr=False)
class EvaluationConfig(ImagesPlace):
    """The protocol of an evaluation: what is compared with what, and how. Recorded with every number."""

    split: str = option(
        "test",
        "the split of the real images that are measured or compared with",
        choices=("train", "validation", "test", "train_and_validation"),
    )
    num_images: int = option(
        0,
        "how many real images, the first of the split, likelihoods and energies are measured on; 0: all",
        minimum=0, unit="images",
    )
    num_importance_samples: int = option(
        50,
        "the number of draws per image of bits_per_dim (K): of the latents, or of the dequantisation noise if nothing else "
        "is random",
        minimum=1,
    )
    likelihood_dataset: str = option(
        "",
        "another data set, named as in --dataset and prepared as the run's, whose likelihoods (of the same split) are "
        "measured for comparison; empty: none",
        paths=("idx:", "folder:", "npz:"),
    )
    likelihood_test_split: str = option(
        "test", "the test split of --likelihood_dataset, as --test_split (downsampled_imagenet: validation)"
    )
    reference_dataset: str = option(
        "",
        "another data set, named as in --dataset and prepared as the run's, with whose images (of the same split) samples are "
        "compared in place of the run's; empty: the run's",
        paths=("idx:", "folder:", "npz:"),
    )
    reference_test_split: str = option("test", "the test split of --reference_dataset, as --test_split")
    image_draw: str = option(
        "",
        "how images are drawn from logistic mixtures, instead of the run's --image_draw: sample | mode; empty: as in the run",
        choices=("", "sample", "mode"),
    )
    features: str = option(
        "efficientnet_lite0",
        "the features that images are compared by: inception | efficientnet_lite0 | keras:NAME | saved_model:DIR | pixels",
        paths=("saved_model:",),
    )
    feature_weights: str = option("", "the file or folder with the weights of --features; empty: its usual place", paths=("",))
    num_samples: int = option(
        10000,
        "the number of images that are generated, and the largest number of real ones of the split to compare them with",
        minimum=2, unit="images",
    )
    num_train_images: int = option(
        0,
        "how many training images memorisation, near_copies and the report search for the nearest ones; at least num_samples, if "
        "there are so many; 0: num_samples",
        minimum=0, unit="images",
    )
    neighbour_distance: str = option(
        "euclidean",
        "how the report compares features when it looks for the nearest training images: euclidean | cosine (their directions "
        "alone)",
        choices=("euclidean", "cosine"),
    )
    near_copy_quantile: float = option(
        0.01,
        "near_copies flags a generated image if fewer than this fraction of the held-out images are nearer to a training image",
        minimum=1e-5, maximum=0.5,
    )
    num_pairs: int = option(
        2000,
        "the number of pairs of generated images over which ms_ssim (random pairs) and ms_ssim_pggan (disjoint ones) are "
        "averaged, if there are so many",
        minimum=2, unit="pairs",
    )
    num_seeds: int = option(1, "how many times images are generated anew, with seed, seed + 1, ...", minimum=1, maximum=100)
    seed: int = option(0, "the seed of all noise and of the choices of random metrics", minimum=0, maximum=2**31 - 101)
    temperature: float = option(1.0, "the factor of the prior's standard deviation when images are generated", minimum=0.0)
    batch_size: int = option(
        250, "how many images are computed at a time; it changes numbers only by rounding", minimum=1, unit="images"
    )
    checkpoint: str = option("best", "the checkpoint that is evaluated: best | last", choices=("best", "last"))
    distribution: str = option(
        "auto",
        "how devices are used: auto (mirrored if there are several) | none | mirrored",
        choices=("auto", "none", "mirrored"),
    )
    logical_devices: int = option(1, "the number of devices that the CPU is split into", minimum=1, maximum=64)
    cache_dir: str = option(
        "", "the folder where features of real images are cached between evaluations; empty: ~/.cache/tfcq; none: no cache"
    )

    def check(self) -> None:
        """Raises UserError if the folder of the cache cannot be one."""
        if self.cache_dir not in ("", "none"):
            folder(self.cache_dir, "cache_dir")
