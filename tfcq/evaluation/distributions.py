"""Metrics of generated against real images, for every seed, and of real against real images as the floor, with the protocol.

`tfcq.metrics.registry` and the modules that it names say what is measured and how.
"""

from __future__ import annotations

import abc
import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tfcq.config.evaluation import EvaluationConfig
from tfcq.data.splits import JOINED
from tfcq.errors import UserError, named
from tfcq.evaluation import near_copies
from tfcq.evaluation.activations import IMAGES_SHOWN, Activations, Activator
from tfcq.evaluation.classes import allotted
from tfcq.metrics import registry
from tfcq.metrics.neighbours import nearest_in_pixels, nearest_neighbours

if TYPE_CHECKING:
    from tfcq.data import ImageDataset
    from tfcq.features import FeatureExtractor
    from tfcq.models.base import GenerativeModel

_NEAREST = 3  # training images shown beside each generated one


@dataclasses.dataclass(frozen=True)
class RealImages:
    """Activations of the real images of an evaluation.

    Attributes:
        reference: what generated images are compared with.
        floor: other real images, which are put in the place of generated ones; None: there are none.
        floor_reference: what those are compared with.
        train: training images, for metrics that compare with them and for the nearest ones; None: there are none.
        held_out: what metrics that compare with training images have as their reference.
        held_out_split: the split that those are of.
    """

    reference: Activations
    floor: Activations | None
    floor_reference: Activations
    train: Activations | None
    held_out: Activations
    held_out_split: str


class Evaluator(abc.ABC):
    """Compares generated images with real ones; subclasses say where both come from.

    Args:
        dataset: `ImageDataset` in whose train split the nearest images are looked for.
        image_shape: (H, W, C) of all images.
        extractor: `FeatureExtractor`, made in the strategy's scope.
        config: `EvaluationConfig`.
        strategy: its replicas divide the work; None: one device does it.
    """

    _suffix = ""
    """What printed names of numbers end with."""

    def __init__(
        self,
        dataset: ImageDataset,
        image_shape: Sequence[int],
        extractor: FeatureExtractor,
        config: EvaluationConfig,
        strategy: tf.distribute.Strategy | None = None,
    ) -> None:
        self._dataset, self._image_shape, self._extractor, self._config = dataset, image_shape, extractor, config
        cache = {"": "~/.cache/tfcq", "none": None}.get(config.cache_dir, config.cache_dir)
        self._activator = Activator(extractor, image_shape, config.batch_size, strategy, cache)
        self._real: dict[int | None, RealImages] = {}  # {number of kept images: `_real_images`}

    @abc.abstractmethod
    def _generated(self, num_kept: int, kinds: Iterable[bool]) -> dict[bool, list[Activations]]:
        """Activations of generated images, with `num_kept` images each, for each of the protocol's seeds.

        {whether their classes must be known: these}, for each of `kinds`.
        """

    @abc.abstractmethod
    def _real_images(self, num_kept: int) -> RealImages:
        """The real images, with `num_kept` images each."""

    @abc.abstractmethod
    def _facts(self) -> dict[str, Any]:
        """What is written beside each number, as plain values; "split" is that of the reference."""

    def _name_of(self, number: int) -> str:
        """The name of a generated image of the first seed."""
        return f"image {number} of seed {self._config.seed}"

    def measure(self, names: Iterable[str], draw: bool = False) -> tuple[dict[str, dict], dict[str, Any]]:
        """Measures and prints metrics.

        Args:
            names: names in `registry.OF_SAMPLES` and `OF_SAMPLES_BY_CLASS`, or the Inception names if the
                extractor is the Inception graph.
            draw: whether to find the nearest training images of generated ones, too.

        Returns:
            ({name of number: entry}, data for the report's figures: {"prd_curve", "near_copies", "nearest"}).
        """
        config, names = self._config, [check_name(name, self._extractor, self._image_shape) for name in names]
        metrics = {name: registry.load(name) for name in names}
        options = {name: {option: getattr(config, option) for option in metric.options} for name, metric in metrics.items()}
        num_kept = max([IMAGES_SHOWN] + [m.num_images(**options[name]) for name, m in metrics.items() if m.sees_images])
        if num_kept not in self._real:
            self._real = {num_kept: self._real_images(num_kept)}  # the same for every call
        kinds = sorted({metric.classes for metric in metrics.values()}) or [False]
        real, sets, facts = self._real[num_kept], self._generated(num_kept, kinds), self._facts()
        if True in kinds:
            real = self._with_classes(real)
        entries: dict[str, dict] = {}
        drawn: dict[str, Any] = {}
        for name, metric in metrics.items():
            more: dict[str, Any] = options[name]
            used, generated, protocol = real, sets[metric.classes], facts
            if metric.train:
                used = dataclasses.replace(real, reference=real.held_out)
                protocol = facts | {"split": real.held_out_split}
                more["train"] = real.train
            with named(name):
                found, curve = measured_entries(name, used, generated, config.seed, self._extractor, protocol, **more)
            if name == "near_copies" and curve:
                drawn[name] = self._copies(found, curve, generated[0], len(more["train"]), draw)
            else:
                drawn[f"{name}_curve"] = curve
            entries |= found
            for key, entry in found.items():
                print(line(key + self._suffix, entry), flush=True)
        if draw and real.train is not None:
            drawn["nearest"] = self._nearest(sets[kinds[0]][0], real.train)
        return entries, {key: value for key, value in drawn.items() if value is not None}

    def _copies(self, entries, found, generated, searched, draw):
        """The list of near copies, `NearCopies`, if it is to be drawn; a note in the entries if not all were searched."""
        if note := near_copies.note(searched, self._dataset.num_images("train")):
            for entry in entries.values():
                entry["notes"] = [*entry.get("notes", ()), *note]
        if not draw:
            return None
        held_out = next(iter(entries.values()))["num_real"]
        quantile = self._config.near_copy_quantile
        return near_copies.listed(found, generated, self._dataset, searched, self._name_of, quantile, held_out)

    def _nearest(self, generated, train):
        """(generated images, {space: their nearest training images, grouped by generated image}, how many were searched)."""
        shown = generated.images[:IMAGES_SHOWN]
        batches = self._dataset.eval_batches("train", self._config.batch_size, len(train))
        features, bank, space = generated.features[: len(shown)], train.features, "feature space"
        count = min(_NEAREST, len(train))
        if self._config.neighbour_distance == "cosine":
            features, bank, space = _directions(features), _directions(bank), "feature space, by cosine distance,"
        found = {
            space: nearest_neighbours(features, bank, count),
            "pixel space": nearest_in_pixels(shown, batches, count),
        }
        nearest = {space: self._dataset.images("train", places.reshape(-1)) for space, (_, places) in found.items()}
        return shown, nearest, len(train)

    def _with_classes(self, real):
        """`real` with the classes of the images that classifiers are trained and tested on, all of the evaluator's data set."""
        if real.train is None:
            return real
        train, held_out = (
            dataclasses.replace(one, classes=self._dataset.classes.by_name(split)[: len(one)])
            for split, one in (("train", real.train), (real.held_out_split, real.held_out))
        )
        return dataclasses.replace(real, train=train, held_out=held_out)

    def _real_images_of_splits(self, num_kept, reference):
        """`RealImages` of the protocol's split of a reference `ImageDataset`, and of the training images of the evaluator's.

        The floor is another split's: the training images, or the test images if the training split is the reference. Metrics
        that compare with the training images have held-out images as their reference.
        """
        config, of_training = self._config, self._config.split in ("train", *JOINED)

        def activations(split, count=config.num_samples, dataset=reference):
            return self._activator.real(dataset, split, count, num_kept)

        def training_images():
            return activations("train", max(config.num_train_images, config.num_samples), self._dataset)

        real = activations(config.split)
        if of_training:
            test = activations("test")
            own = reference is self._dataset and not config.num_train_images  # its first images are the training images
            train = real.first(self._dataset.num_images("train")) if own else training_images()
            return RealImages(real, test, real, train, test, "test")
        train = training_images()
        floor = train.first(config.num_samples) if reference is self._dataset else activations("train")
        return RealImages(real, floor, real, train, real, config.split)


class DistributionEvaluator(Evaluator):
    """Compares a model's images with real ones; make it once and use it for every evaluation of the model.

    Args:
        model: a `GenerativeModel` that can sample; its weights may change between calls.
        dataset: `ImageDataset`.
        extractor: `FeatureExtractor`, made in the strategy's scope.
        config: `EvaluationConfig`.
        strategy: its replicas divide the work; None: one device does it.
        reference: `ImageDataset` that samples are compared with in place of `dataset`, in which training images are still looked
            for; None: `dataset`.
    """

    def __init__(
        self,
        model: GenerativeModel,
        dataset: ImageDataset,
        extractor: FeatureExtractor,
        config: EvaluationConfig,
        strategy: tf.distribute.Strategy | None = None,
        reference: ImageDataset | None = None,
    ) -> None:
        super().__init__(dataset, model.image_shape, extractor, config, strategy)
        self._model, self._reference = model, reference or dataset
        if self._reference is not dataset:
            self._suffix = f" of {config.reference_dataset}"

    def _generated(self, num_kept: int, kinds: Iterable[bool]) -> dict[bool, list[Activations]]:
        config, model = self._config, self._model

        def drawn(classes):
            return [
                self._activator.generated(model, config.num_samples, seed, config.temperature, num_kept, classes)
                for seed in range(config.seed, config.seed + config.num_seeds)
            ]

        # Not the model's own draws of classes: no class is missing by chance.
        return {kind: drawn(allotted(model.class_shares, config.num_samples) if kind else None) for kind in kinds}

    def _real_images(self, num_kept: int) -> RealImages:
        return self._real_images_of_splits(num_kept, self._reference)

    def _facts(self) -> dict[str, Any]:
        return {"split": self._config.split, "temperature": self._config.temperature}


def _directions(features):
    """Rows [N, D] at length 1, whose Euclidean distances grow with the angle between them; a row of zeros stays."""
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def measured_entries(
    name: str,
    real: RealImages,
    generated: Sequence[Activations],
    seed: int,
    extractor: FeatureExtractor,
    facts: dict,
    **more: Any,
) -> tuple[dict[str, dict], dict | None]:
    """One metric, measured on each seed's images.

    Args:
        name: a name in `registry.OF_SAMPLES`.
        real: the real images.
        generated: Activations of generated images, one for each seed.
        seed: seed of the metric's own random choices, and of the first generated images.
        extractor: the extractor of the features.
        facts: written beside each number: split, checkpoint, ...
        **more: further arguments of the metric: see `Metric`.

    Returns:
        ({name of number: its entry, plain values}, the first seed's curve for the report, or None; that of real images in the
        place of generated ones is in it with "real_" before its names).
    """
    metric = registry.load(name)
    reference, floor, floor_reference = real.reference, real.floor if metric.floor else None, real.floor_reference
    if metric.sees_images:  # kept for another metric may be more
        count = metric.num_images(**{option: more[option] for option in metric.options if option in more})
        reference, floor_reference = reference.with_images(count), floor_reference.with_images(count)
        floor, generated = floor and floor.with_images(count), [one.with_images(count) for one in generated]
    start = time.monotonic()
    measured = [metric.measure(reference, one, seed + number, **more) for number, one in enumerate(generated)]
    lowest = None if floor is None else metric.measure(floor_reference, floor, seed, **more)
    seconds = round(time.monotonic() - start, 1)
    entries = {}
    for key in measured[0].values:
        values = [numbers.values[key] for numbers in measured]
        meaning = registry.numbers_of(name)[key].meaning or registry.TABLE[name].meaning
        entry = {"value": float(np.mean(values)), "meaning": meaning} | measured[0].details.get(key, {})
        if "real" in entry:  # as the value: of all seeds
            entry["real"] = float(np.mean([numbers.details[key]["real"] for numbers in measured]))
        if len(values) > 1:
            entry |= {"per_seed": values, "standard_deviation_over_seeds": float(np.std(values, ddof=1))}
        if floor is not None and lowest is not None:
            entry |= {"real": float(lowest.values[key]), "num_real_as_generated": len(floor)}
        entry |= {"num_real": len(reference), "num_generated": len(generated[0])} | facts
        entry |= {"seeds": [seed + number for number in range(len(generated))]}
        if metric.train:
            entry |= {"num_train": len(more["train"])}
        if metric.needs != "images":
            entry |= {"extractor": extractor.name, "checksum": extractor.checksum, "preprocessing": extractor.protocol}
        if measured[0].notes:
            entry["notes"] = measured[0].notes
        recorded = registry.recorded_name(name, key, None if metric.needs == "images" else extractor)
        entries[recorded] = entry | {"seconds": seconds}
    curve = measured[0].curve
    if curve and lowest is not None and lowest.curve:
        curve = curve | {f"real_{name}": values for name, values in lowest.curve.items()}
    return entries, curve


def line(name: str, entry: dict) -> str:
    """The line that an evaluation prints for an entry."""
    text = f"{name}: {entry['value']:.5g}"
    if "standard_deviation_over_seeds" in entry:
        text += f" +- {entry['standard_deviation_over_seeds']:.2g} over {len(entry['seeds'])} seeds"
    if "real" in entry:
        text += f" (real images in their place: {entry['real']:.5g})"
    return f"{text} [{entry['num_generated']} generated, {entry['num_real']} real]"


def fitting(names: Iterable[str], check: Callable[[str], object]) -> list[str]:
    """Those of `names` for which `check` does not raise UserError."""

    def fits(name):
        try:
            check(name)
        except UserError:
            return False
        return True

    return [name for name in names if fits(name)]


def check_name(
    name: str,
    extractor: FeatureExtractor,
    image_shape: Sequence[int],
    option: str = "metrics",
    features: str = "features",
) -> str:
    """The own name of a metric of samples, if the extractor and the images suit it.

    Args:
        name: a name in `registry.OF_SAMPLES`, or of a metric of the Inception graph.
        extractor: the extractor.
        image_shape: (H, W, C).
        option: the option that names the metric, for messages.
        features: the option that names the extractor, for messages.

    Raises:
        UserError: `fid`, `inception_score` or `kid` with another extractor than the Inception graph; a metric of class
            logits with an extractor without classes; a metric that cannot measure images of that size.
    """
    if name in registry.INCEPTION_NAMES:
        own = registry.INCEPTION_NAMES[name]
        if not extractor.is_inception:
            raise UserError(
                f"{option}: {name} is defined for the Inception graph only, received the features {extractor.name}; "
                f"expected {own}, or --{features}=inception"
            )
        name = own
    metric = registry.load(name)
    if metric.needs == "logits" and not extractor.num_classes:
        raise UserError(
            f"{option}: {name} needs classes, which the features {extractor.name} do not have; expected other --{features}, or "
            f"{'another' if option == 'best_metric' else f'{option} without it'}"
        )
    metric.check_size(*image_shape[:2])
    return name
