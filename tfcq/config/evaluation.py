"""How an evaluation measures: the options of `tfcq.evaluate`. What it measures: `tfcq.metrics.registry`. No TensorFlow."""

import dataclasses

from tfcq.config.fields import Section, option, suggestion
from tfcq.errors import UserError
from tfcq.machine.paths import folder
from tfcq.metrics.registry import INCEPTION_NAMES, TABLE


def metric_names(metrics):
    """The list of metrics that names, in a sequence or separated by commas, ask for; ["all"] where that is among them.

    Raises:
        UserError: an unknown name, or none; what is no names at all.
    """
    if not isinstance(metrics, str | list | tuple):
        raise UserError(f"metrics: expected names, in a list or separated by commas, received {metrics!r}")
    names = metrics.split(",") if isinstance(metrics, str) else list(metrics)
    asked = [name for name in names if name != "all"] if names else [""]
    check_metrics("metrics", asked, TABLE, "all or some of")
    return ["all"] if "all" in names else names


def check_metrics(option, names, known, expected="some of"):
    """Raises UserError where one of `names` is none of the metrics `known`, nor what the Inception graph's are called."""
    for name in names:
        if name not in (*known, *INCEPTION_NAMES):
            raise UserError(
                f"{option}: expected {expected} {', '.join(known)}, received {name or 'none'!r}"
                + suggestion(name, (*known, *INCEPTION_NAMES))
            )


@dataclasses.dataclass(frozen=True, repr=False)
class ImagesPlace(Section):
    """Where the images of a trained run are now, for what looks at them after training."""

    dataset: str = option(
        "",
        "where the run's images are now, as --dataset of tfcq.train; they must be the same; empty: where they were",
        paths=("idx:", "folder:", "npz:"),
    )
    data_dir: str = option("", "the folder where TFDS keeps the run's images now; empty: where it did", paths=("",))
    accept_changed_data: bool = option(
        False,
        "goes on with those of the run's images that are there, where some are gone or have another content; of a run "
        "without a list of its images (earlier versions kept none): goes on in another place, or splits other images anew",
    )

    def of(self, config):
        """A run's DataConfig `config` with the place where its images are now."""
        given = {name: value for name in ("dataset", "data_dir") if (value := getattr(self, name))}
        return dataclasses.replace(config, **given)


@dataclasses.dataclass(frozen=True, repr=False)
class EvaluationConfig(ImagesPlace):
    """The protocol of an evaluation: what is compared with what, and how. Recorded with every number."""

    split: str = option(
        "test", "the split of the real images that are measured or compared with", choices=("train", "validation", "test")
    )
    num_images: int = option(
        0, "how many real images the likelihoods are measured on, the first of the split; 0: all", minimum=0, unit="images"
    )
    num_importance_samples: int = option(
        50,
        "how many draws an image bits_per_dim takes (K): of the latents, or of the dequantisation where nothing else is "
        "random",
        minimum=1,
    )
    likelihood_dataset: str = option(
        "",
        "another data set, named as in --dataset and prepared as the run's, whose likelihoods (of the same split) are set "
        "beside; empty: none",
        paths=("idx:", "folder:", "npz:"),
    )
    likelihood_test_split: str = option(
        "test", "the split of --likelihood_dataset that is its test split, as --test_split (downsampled_imagenet: validation)"
    )
    image_draw: str = option(
        "",
        "how images are drawn from logistic mixtures, instead of the run's --image_draw: sample | mode; empty: as the run "
        "says",
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
        "how many images are generated, and at most how many real ones of the split they are compared with",
        minimum=2, unit="images",
    )
    num_train_images: int = option(
        0,
        "how many training images memorisation looks for the nearest ones in; at least num_samples are used where there are; "
        "0: num_samples",
        minimum=0, unit="images",
    )
    num_pairs: int = option(
        2000,
        "how many random pairs of generated images ms_ssim is the mean of, where there are so many",
        minimum=2, unit="pairs",
    )
    num_seeds: int = option(1, "how many times images are generated anew, with seed, seed + 1, ...", minimum=1, maximum=100)
    seed: int = option(0, "the seed of all noise and of the choices of random metrics", minimum=0, maximum=2**31 - 101)
    temperature: float = option(1.0, "the factor of the prior's standard deviation when images are generated", minimum=0.0)
    batch_size: int = option(
        250, "how many images are computed at a time; it changes no number but by rounding", minimum=1, unit="images"
    )
    checkpoint: str = option("best", "the checkpoint that is evaluated: best | last", choices=("best", "last"))
    distribution: str = option(
        "auto",
        "how devices are used: auto (mirrored where there are several) | none | mirrored",
        choices=("auto", "none", "mirrored"),
    )
    logical_devices: int = option(1, "the number of devices that the CPU is split into", minimum=1, maximum=64)
    cache_dir: str = option(
        "", "the folder where features of real images are kept between evaluations; empty: ~/.cache/tfcq; none: nowhere"
    )

    def check(self):
        if self.cache_dir not in ("", "none"):
            folder(self.cache_dir, "cache_dir")
