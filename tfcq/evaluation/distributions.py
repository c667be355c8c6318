"""Metrics of generated beside real images, on every seed's images and on real against real for the floor, with the protocol.

What is measured, and how: `tfcq.metrics.registry` and the modules that it names.
"""

import time

import numpy as np

from tfcq.errors import UserError
from tfcq.evaluation.activations import IMAGES_SHOWN, Activator
from tfcq.metrics import registry
from tfcq.metrics.neighbours import nearest_in_pixels, nearest_neighbours

_NEAREST = 3  # training images beside each generated one that is shown


class DistributionEvaluator:
    """Compares a model's images with real ones; make it once and use it for every evaluation of the model.

    The reference is the split of the protocol. The floor is another split's real images in the place of generated ones:
    the training images', or the test images' where the training split is the reference. Metrics that compare with the training
    images have held-out images as their reference.

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
            names: of `registry.OF_SAMPLES` or, where the extractor is the Inception graph, their other names.
            draw: whether the training images nearest to generated ones are looked for too.

        Returns:
            ({name of number: entry}, what the report draws: {"prd_curve", "nearest"}).
        """
        config, names = self._config, [check_name(name, self._extractor) for name in names]
        metrics = {name: registry.load(name) for name in names}
        num_kept = None if any(metric.needs == "images" for metric in metrics.values()) else IMAGES_SHOWN
        if num_kept not in self._real:
            self._real = {num_kept: self._real_activations(num_kept)}  # the same for every call
        real, floor, train, held_out = self._real[num_kept]
        generated = [
            self._activator.generated(self._model, config.num_samples, seed, config.temperature, num_kept)
            for seed in range(config.seed, config.seed + config.num_seeds)
        ]
        facts = {"split": config.split, "temperature": config.temperature}
        entries, drawn = {}, {}
        for name, metric in metrics.items():
            more = {option: getattr(config, option) for option in metric.options}
            reference, protocol = real, facts
            if metric.train:
                reference, protocol = held_out, facts | {"split": "test" if train is real else config.split}
                more["train"] = train
            found, curve = measured_entries(name, reference, generated, floor, config.seed, self._extractor, protocol, **more)
            drawn[f"{name}_curve"] = curve
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


def measured_entries(name, real, generated, floor, seed, extractor, facts, **more):
    """One metric, measured on each seed's images.

    Args:
        name: of `registry.OF_SAMPLES`.
        real: Activations of the reference.
        generated: list of Activations, one a seed.
        floor: Activations of other real images, in the place of generated ones; None: no floor.
        seed: of the metric's own choices; that of the first generated images.
        extractor: whose features they are.
        facts: dict written beside each number: split, checkpoint, ...
        **more: what the metric takes besides: see `Metric`.

    Returns:
        ({name of number: its entry, plain values}, what the report draws of the first seed, or None).
    """
    metric = registry.load(name)
    start = time.monotonic()
    measured = [metric.measure(real, one, seed + number, **more) for number, one in enumerate(generated)]
    lowest = metric.measure(real, floor, seed, **more) if metric.floor and floor is not None else None
    seconds = round(time.monotonic() - start, 1)
    entries = {}
    for key in measured[0].values:
        values = [numbers.values[key] for numbers in measured]
        entry = {"value": float(np.mean(values)), "meaning": registry.TABLE[name].meaning} | measured[0].details.get(key, {})
        if len(values) > 1:
            entry |= {"per_seed": values, "standard_deviation_over_seeds": float(np.std(values, ddof=1))}
        if lowest is not None:
            entry |= {"real": float(lowest.values[key]), "num_real_as_generated": len(floor)}
        entry |= {"num_real": len(real), "num_generated": len(generated[0])} | facts
        entry |= {"seeds": [seed + number for number in range(len(generated))]}
        if metric.train:
            entry |= {"num_train": len(more["train"])}
        if metric.needs != "images":
            entry |= {"extractor": extractor.name, "checksum": extractor.checksum, "preprocessing": extractor.protocol}
        if measured[0].notes:
            entry["notes"] = measured[0].notes
        recorded = registry.recorded_name(name, key, None if metric.needs == "images" else extractor)
        entries[recorded] = entry | {"seconds": seconds}
    return entries, measured[0].curve


def line(name, entry):
    """What an evaluation prints of an entry."""
    text = f"{name}: {entry['value']:.5g}"
    if "standard_deviation_over_seeds" in entry:
        text += f" +- {entry['standard_deviation_over_seeds']:.2g} over {len(entry['seeds'])} seeds"
    if "real" in entry:
        text += f" (real images in their place: {entry['real']:.5g})"
    return f"{text} [{entry['num_generated']} generated, {entry['num_real']} real]"


def check_name(name, extractor):
    """A metric's own name, of one that the extractor can serve.

    Raises:
        UserError: `fid`, `inception_score`, `kid` where the extractor is another than the Inception graph; a metric of a
            classifier where the extractor is none.
    """
    if name in registry.INCEPTION_NAMES:
        own = registry.INCEPTION_NAMES[name]
        if not extractor.is_inception:
            raise UserError(
                f"metrics: {name} is defined for the Inception graph only; expected {own} with --features={extractor.name}, "
                "or --features=inception"
            )
        name = own
    if not has_classes_for(name, extractor):
        raise UserError(f"metrics: {name} needs classes, which --features={extractor.name} does not have")
    return name


def has_classes_for(name, extractor):
    """Whether the extractor has classes, where a metric of samples needs them."""
    return registry.load(name).needs != "logits" or bool(extractor.num_classes)
