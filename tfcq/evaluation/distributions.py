"""The metrics that compare generated with real images: each one's name, what it needs, and the numbers it gives.

A metric is a function (real, generated, seed) -> Numbers, of two `Activations`. `DistributionEvaluator` runs it on every
seed's images, on real against real for the floor, and writes the protocol beside each number.
"""

import dataclasses
import time
from collections.abc import Callable

import numpy as np

from tfcq.errors import UserError
from tfcq.evaluation.activations import IMAGES_SHOWN, Activator
from tfcq.metrics.classifier_score import classifier_score
from tfcq.metrics.diversity import ms_ssim_diversity
from tfcq.metrics.frechet import GaussianStatistics, frechet_distance
from tfcq.metrics.kernel import kernel_distance
from tfcq.metrics.neighbours import memorisation_report, nearest_in_pixels, nearest_neighbours, neighbour_scores
from tfcq.metrics.precision_recall import prd
from tfcq.metrics.sliced_wasserstein import sliced_wasserstein

_NEAREST = 3  # training images beside each generated one that is shown


@dataclasses.dataclass
class Numbers:
    """What a metric gives for one set of generated images.

    Attributes:
        values: {name: float}.
        details: {name: dict of plain values}, written beside the value of that name.
        notes: sentences for the reader.
        curve: what the report draws, or None.
    """

    values: dict
    details: dict = dataclasses.field(default_factory=dict)
    notes: list = dataclasses.field(default_factory=list)
    curve: dict | None = None


@dataclasses.dataclass(frozen=True)
class Metric:
    """A line of `METRICS`.

    Attributes:
        measure: function (real, generated, seed) -> Numbers; memorisation's has the training images as a fourth. What else
            it takes by name has defaults, and may come from the protocol.
        needs: "features", "logits" or "images".
        meaning: for the report, with the direction that is better.
        floor: whether real images are measured in the place of the generated ones too.
    """

    measure: Callable
    needs: str
    meaning: str
    floor: bool = True


class DistributionEvaluator:
    """Compares a model's images with real ones; make it once and use it for every evaluation of the model.

    The reference is the split of the protocol. The floor is another split's real images in the place of generated ones:
    the training images', or the test images' where the training split is the reference. Memorisation compares distances to
    training images with those of held-out images.

    Args:
        model: a `GenerativeModel` that can sample; its weights may change between calls.
        dataset: `ImageDataset`.
        extractor: of `tfcq.features`, made in the strategy's scope.
        config: `EvaluationConfig`.
        strategy: whose replicas share the work; None: one does it.
    """

    def __init__(self, model, dataset, extractor, config, strategy=None):
        self._model, self._dataset, self._extractor, self._config = model, dataset, extractor, config
        cache = {"": "~/.cache/tfcq", "none": None}.get(config.cache_dir, config.cache_dir)
        self._activator = Activator(extractor, model.image_shape, config.batch_size, strategy, cache)
        self._real = {}  # by how many images are kept

    def measure(self, names, draw=False):
        """Measures and prints.

        Args:
            names: keys of `METRICS`, or, where the extractor is the Inception graph, their other names.
            draw: whether the training images nearest to generated ones are looked for too.

        Returns:
            ({name of number: entry}, what the report draws: {"prd_curve", "nearest"}).
        """
        config, names = self._config, [check_name(name, self._extractor) for name in names]
        num_kept = None if any(METRICS[name].needs == "images" for name in names) else IMAGES_SHOWN
        if num_kept not in self._real:
            self._real = {num_kept: self._real_activations(num_kept)}  # the same for every call
        real, floor, train, held_out = self._real[num_kept]
        generated = [
            self._activator.generated(self._model, config.num_samples, seed, config.temperature, num_kept)
            for seed in range(config.seed, config.seed + config.num_seeds)
        ]
        facts = {"split": config.split, "temperature": config.temperature}
        entries, drawn = {}, {}
        for name in names:
            if name == "memorisation":
                held_out_split = "test" if train is real else config.split
                told = facts | {"split": held_out_split}
                found, _ = compare(name, held_out, generated, None, config.seed, self._extractor, told, train)
            else:
                options = {"num_pairs": config.num_pairs} if name == "ms_ssim" else {}
                found, drawn[f"{name}_curve"] = compare(
                    name, real, generated, floor, config.seed, self._extractor, facts, **options
                )
            entries |= found
            for key, entry in found.items():
                print(line(key, entry), flush=True)
        if draw:
            drawn["nearest"] = self._nearest(generated[0], train, config.split if train is real else "train")
        return entries, {key: value for key, value in drawn.items() if value is not None}

    def _nearest(self, generated, train, split):
        """(generated images, {space: their nearest training images, those of one image together})."""
        shown = generated.images[:IMAGES_SHOWN]
        batches = self._dataset.eval_batches(split, self._config.batch_size, len(train))
        found = {
            "feature space": nearest_neighbours(generated.features[: len(shown)], train.features, _NEAREST),
            "pixel space": nearest_in_pixels(shown, batches, _NEAREST),
        }
        return shown, {space: self._dataset.images(split, places.reshape(-1)) for space, (_, places) in found.items()}

    def _real_activations(self, num_kept):
        """(the reference, the floor's, training images, held-out images), with `num_kept` images each."""
        config = self._config

        def activations(split, count):
            return self._activator.real(self._dataset, split, count, num_kept)

        real = activations(config.split, config.num_samples)
        if config.split == "train":
            test = activations("test", config.num_samples)
            return real, test, real, test
        train = activations("train", max(config.num_train_images, config.num_samples))
        return real, train.first(config.num_samples), train, real


def compare(name, real, generated, floor, seed, extractor, facts, train=None, **options):
    """One metric, measured on each seed's images.

    Args:
        name: key of `METRICS`.
        real: Activations of the reference.
        generated: list of Activations, one a seed.
        floor: Activations of other real images, in the place of generated ones; None: no floor.
        seed: of the metric's own choices; that of the first generated images.
        extractor: whose features they are.
        facts: dict written beside each number: split, checkpoint, ...
        train: Activations of training images, for memorisation.
        **options: of the metric.

    Returns:
        ({name of number: its entry, plain values}, what the report draws of the first seed, or None).
    """
    metric = METRICS[name]
    start = time.monotonic()
    extra = () if train is None else (train,)
    measured = [metric.measure(real, one, seed + number, *extra, **options) for number, one in enumerate(generated)]
    lowest = metric.measure(real, floor, seed, *extra, **options) if metric.floor and floor is not None else None
    seconds = round(time.monotonic() - start, 1)
    entries = {}
    for key in measured[0].values:
        values = [numbers.values[key] for numbers in measured]
        entry = {"value": float(np.mean(values)), "meaning": metric.meaning} | measured[0].details.get(key, {})
        if len(values) > 1:
            entry |= {"per_seed": values, "standard_deviation_over_seeds": float(np.std(values, ddof=1))}
        if lowest is not None:
            entry |= {"real": float(lowest.values[key]), "num_real_as_generated": len(floor)}
        entry |= {"num_real": len(real), "num_generated": len(generated[0])} | facts
        entry |= {"seeds": [seed + number for number in range(len(generated))]}
        if train is not None:
            entry |= {"num_train": len(train)}
        if metric.needs != "images":
            entry |= {"extractor": extractor.name, "checksum": extractor.checksum, "preprocessing": extractor.protocol}
        if measured[0].notes:
            entry["notes"] = measured[0].notes
        entries[named(key, metric, extractor)] = entry | {"seconds": seconds}
    return entries, measured[0].curve


def line(name, entry):
    """What an evaluation prints of an entry."""
    text = f"{name}: {entry['value']:.5g}"
    if "standard_deviation_over_seeds" in entry:
        text += f" +- {entry['standard_deviation_over_seeds']:.2g} over {len(entry['seeds'])} seeds"
    if "real" in entry:
        text += f" (real images in their place: {entry['real']:.5g})"
    return f"{text} [{entry['num_generated']} generated, {entry['num_real']} real]"


_INCEPTION_NAMES = {"frechet_distance": "fid", "classifier_score": "inception_score", "kernel_distance": "kid"}
_SHORT_NAMES = {"frechet_distance": "fd", "kernel_distance": "kd"}


def named(key, metric, extractor):
    """The name of a number in metrics.json: only the Inception graph's are called fid, kid and inception_score."""
    if metric.needs == "images":
        return key
    if extractor.is_inception and key in _INCEPTION_NAMES:
        return _INCEPTION_NAMES[key]
    return f"{_SHORT_NAMES.get(key, key)}_{extractor.name}"


def check_name(name, extractor):
    """Refuses `fid`, `inception_score`, `kid` where the extractor is another; gives the metric's own name.

    Raises:
        UserError: with the name to use.
    """
    for own, inception in _INCEPTION_NAMES.items():
        if name == inception:
            if not extractor.is_inception:
                raise UserError(
                    f"metrics: {name} is defined for the Inception graph only; expected {own} with --features={extractor.name}, "
                    "or --features=inception"
                )
            return own
    return name


# The metrics.


def _frechet(real, generated, seed):
    statistics = [GaussianStatistics.from_features(one.features) for one in (real, generated)]
    notes = [
        f"{one.count} images are too few for a covariance of {len(one.mean)} features (rank at most {one.count - 1}): the "
        "distance is biased upwards; compare it only at equal numbers"
        for one in statistics
        if one.rank_deficient
    ]
    return Numbers({"frechet_distance": frechet_distance(*statistics)}, notes=notes[:1])


def _classifier_score(real, generated, seed):
    splits = min(10, len(generated))
    score = classifier_score(generated.logits, splits)
    detail = {"standard_deviation_over_splits": score["std"], "num_splits": splits}
    return Numbers({"classifier_score": score["mean"]}, {"classifier_score": detail})


def _kernel(real, generated, seed):
    result = dict(kernel_distance(real.features, generated.features, seed=seed))
    return Numbers({"kernel_distance": result.pop("value")}, {"kernel_distance": result})


def _prd(real, generated, seed):
    count = min(len(real), len(generated))
    result = prd(real.features[:count], generated.features[:count], seed=seed)
    detail = {"num_compared": count}
    return Numbers(
        {"prd_f8": result.f_8, "prd_f1_8": result.f_1_8},
        {"prd_f8": detail, "prd_f1_8": detail},
        curve={"precision": result.precision, "recall": result.recall},
    )


def _neighbours(real, generated, seed):
    scores = dict(neighbour_scores(real.features, generated.features))
    names = ("precision", "recall", "density", "coverage")
    detail = {key: value for key, value in scores.items() if key not in names}
    return Numbers({name: scores[name] for name in names}, {name: detail for name in names})


def _memorisation(real, generated, seed, train):
    result = dict(memorisation_report(generated.features, train.features, real.features))
    return Numbers({"memorisation": result.pop("data_copying_z")}, {"memorisation": result})


def _ms_ssim(real, generated, seed, num_pairs=2000):
    pairs = min(num_pairs, len(generated.images) * (len(generated.images) - 1) // 2)
    result = dict(ms_ssim_diversity(generated.images, pairs, seed)) | {"num_compared": len(generated.images)}
    return Numbers({"ms_ssim": result.pop("mean")}, {"ms_ssim": result})


def _sliced_wasserstein(real, generated, seed):
    count = min(len(real.images), len(generated.images))
    result = dict(sliced_wasserstein(real.images[:count], generated.images[:count], seed))
    detail = {"num_compared": count, "levels": {name: value for name, value in result.items() if name != "mean"}}
    return Numbers({"sliced_wasserstein": result["mean"]}, {"sliced_wasserstein": detail})


METRICS = {
    "frechet_distance": Metric(
        _frechet, "features", "Frechet distance of Gaussians fitted to features (Heusel et al. 2017); lower is better"
    ),
    "classifier_score": Metric(
        _classifier_score, "logits", "exp E KL(p(y|x) || p(y)) of a classifier (Salimans et al. 2016); higher is better"
    ),
    "kernel_distance": Metric(
        _kernel, "features", "MMD^2 of features under a cubic kernel, unbiased (Binkowski et al. 2018); lower is better"
    ),
    "prd": Metric(
        _prd,
        "features",
        "precision and recall for distributions (Sajjadi et al. 2018): F8 weighs recall, F1/8 precision; higher is better",
    ),
    "neighbours": Metric(
        _neighbours,
        "features",
        "nearest neighbours: precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020); "
        "higher is better",
    ),
    "memorisation": Metric(
        _memorisation,
        "features",
        "whether generated images lie nearer to training images than held-out real ones do (z of Meehan et al. 2020); far "
        "below 0: copies",
        floor=False,
    ),
    "ms_ssim": Metric(
        _ms_ssim, "images", "mean similarity of pairs of generated images (Odena et al. 2017); near the real one is better"
    ),
    "sliced_wasserstein": Metric(
        _sliced_wasserstein,
        "images",
        "sliced Wasserstein distance of patches of Laplacian pyramids (Karras et al. 2018); lower is better",
    ),
}
