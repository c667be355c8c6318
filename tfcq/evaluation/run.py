"""`tfcq.evaluate`: measures the model of a workdir, records each number with its protocol, and writes the report."""

import math
import os
import time
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfcq import data
from tfcq import workdir as workdirs
from tfcq.checks import check_bool
from tfcq.config.evaluation import metric_names
from tfcq.config.evaluation import protocol as protocol_of
from tfcq.engine import devices
from tfcq.errors import UserError
from tfcq.evaluation import distributions
from tfcq.evaluation.classes import ClassEvaluator, by_class
from tfcq.evaluation.comparable import data_facts
from tfcq.evaluation.energy import NUMBER, EnergyEvaluator
from tfcq.evaluation.likelihood import LatentLikelihoodEvaluator, LikelihoodEvaluator, likelihood_auroc
from tfcq.machine import files, paths
from tfcq.machine.terminal import ImageProgress
from tfcq.metrics import registry

_OF_SAMPLES = ("sample", "sample_class")
"""Abilities of the metrics that compare generated images with real ones."""


def evaluate(
    workdir: str | os.PathLike, metrics: str | Sequence[str] | None = None, report: bool = True, **protocol: Any
) -> dict:
    """Measures metrics, prints them, and records them in metrics.json, metrics.jsonl, report.md and TensorBoard.

    Args:
        workdir: folder of a run, a str or os.PathLike.
        metrics: names in `tfcq.metrics.registry.TABLE`, a list or separated by commas, or "all": every metric that the model
            and the extractor support. "elbo" (one draw) and "bits_per_dim" (importance-weighted, K draws) are in bits/dim and
            nats. None: the model's likelihoods of images or else of latents.
        report: whether to write report.md and its figures.
        **protocol: options of `EvaluationConfig`.

    Returns:
        The recorded row: a dict of plain values.

    Raises:
        UserError: an unknown metric or option, or a metric that the model or the extractor does not support.
    """
    workdir = paths.folder(workdir, "workdir")
    check_bool("report", report)
    asked = None if metrics is None else metric_names(metrics)
    config = protocol_of(protocol)
    _check_classes(asked or (), workdirs.read_config(workdir))  # an error if there is no run
    _check_writable(workdir, config.split, report)  # before the work, which may take hours
    strategy = devices.prepare(config.distribution, config.logical_devices)
    with strategy.scope():
        model = workdirs.load(workdir, config.checkpoint, config.image_draw)
        asked = asked or _default_metrics(model)
        extractor = _extractor(asked, model, config)
    chosen = _possible(asked, model, extractor, config)
    dataset = workdirs.load_data(workdir, config)
    dataset.require_images(config.split)
    run = _Run(workdir, model, dataset, config, strategy, extractor)
    row = {
        "step": model.steps_taken,
        "checkpoint": model.checkpoint_of_run,
        "split": config.split,
        "seed": config.seed,
        "dataset": run.data_config.dataset,
    }
    if model.chosen_by:
        row["chosen_by"] = model.chosen_by
        print(f"the best checkpoint, of step {model.steps_taken}, was chosen by {model.chosen_by}", flush=True)
    if hasattr(model.config_of_run.system, "image_draw"):
        row["image_draw"] = model.config_of_run.system.image_draw
    drawn: dict[str, Any] = {}
    try:
        run.measure_likelihoods([name for name in chosen if name in registry.LIKELIHOODS], row, drawn)
        run.measure_latent_likelihood([name for name in chosen if name in registry.LATENT_LIKELIHOODS], row)
        run.measure_classes([name for name in chosen if name in registry.CLASS_PROBABILITIES], row)
        run.measure_energy([name for name in chosen if name in registry.OF_ENERGY], row)
        run.measure_distributions([name for name in chosen if _ability(name) in _OF_SAMPLES], row, drawn)
    except tf.errors.OpError as error:
        raise run.data_error() or error from error
    if notes := _notes_of(dataset):
        for name, entry in row.items():
            if isinstance(entry, dict) and not name.endswith("_other") and "reference_dataset" not in entry:
                entry["notes"] = [*entry.get("notes", ()), *notes]
    try:
        row = workdirs.record_metrics(workdir, row)
        if report:
            from tfcq.evaluation.report import write_report

            print(f"wrote {write_report(workdir, model, dataset, row, drawn, config)}", flush=True)
    except (OSError, tf.errors.OpError) as error:  # OpError: from TensorBoard's files
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise UserError(f"workdir {workdir}: cannot be written: {reason}; free some space and evaluate again") from error
    return row


def _check_classes(asked, config):
    for name in asked:
        if name in registry.OF_SAMPLES_BY_CLASS and not config.class_conditional:
            raise UserError(
                f"metrics: {name} needs generated images of known classes, and samples of this run have none; expected it of a "
                "run with --class_conditional, or with --generated=DIR, a folder of images with a folder for each class, or "
                "npz:FILE with labels"
            )


def _notes_of(dataset):
    """Notes for every number that was measured on the images of a run, a list of str."""
    differs = [f"not on the images that the run began with: {dataset.differs}"] if dataset.differs else []
    return differs + ([dataset.doubt] if dataset.doubt else [])


def _check_writable(workdir, split, report):
    workdirs.check_metrics_writable(workdir)
    if report:
        from tfcq.evaluation.report import CURVES, FOLDER, events_folder

        for path in (workdir / "report.md", workdir / "report.html", workdir / FOLDER / CURVES):
            files.check_file("workdir", path)
        files.check_folder("workdir", events_folder(workdir, split))


def _default_metrics(model):
    for ability in ("likelihood", "latent_likelihood"):
        if ability in model.abilities:
            return [*registry.names(ability), *(registry.CLASS_PROBABILITIES if model.class_names else ())]
    examples = ",".join(registry.OF_SAMPLES[:3])
    raise UserError(f"{model.name} (as configured) has no likelihood; expected --metrics={examples} or others")


def _ability(name):
    """The ability that a metric needs, by any of the metric's names."""
    return registry.TABLE[registry.INCEPTION_NAMES.get(name, name)].ability


def _extractor(asked, model, config):
    """The feature extractor, or None if no metric needs it."""
    if "sample" not in model.abilities or not any(name == "all" or _ability(name) in _OF_SAMPLES for name in asked):
        return None
    from tfcq import features

    return features.load(config.features, config.feature_weights or None)


def _possible(asked, model, extractor, config):
    """The metrics to measure. "all" omits unsupported metrics; a metric that is asked for by name must be supported."""
    if asked == ["all"]:
        possible = [name for name in registry.TABLE if _ability(name) in model.abilities]
        return distributions.fitting(possible, lambda name: _check_name(name, model, extractor, config))
    for name in asked:
        if _ability(name) not in model.abilities:
            raise model.cannot(_ability(name))
    return [_check_name(name, model, extractor, config) for name in asked]


def _check_name(name, model, extractor, config):
    """The metric's own name; UserError if the extractor, the size of the images or another reference does not suit it."""
    if _ability(name) not in _OF_SAMPLES:
        return name
    own = distributions.check_name(name, extractor, model.image_shape)
    if config.reference_dataset and registry.load(own).train:
        raise UserError(f"metrics: {name} compares with the run's own images; expected it without --reference_dataset")
    return own


class _Run:
    """One evaluation of one model."""

    def __init__(self, workdir, model, dataset, config, strategy, extractor):
        self.workdir, self.model, self.dataset, self.config = workdir, model, dataset, config
        self.strategy, self.extractor = strategy, extractor
        self.data_config = config.absolute().of(model.config_of_run.data)  # names the place where the images were found
        self._others: list[data.ImageDataset] = []
        # Before the first number, as it may raise.
        self._reference = self._other_data(config.reference_dataset, config.reference_test_split)

    def data_error(self) -> UserError | None:
        """The error of an image that could not be read while something was measured; None: there was none."""
        errors = [dataset.take_error() for dataset in (self.dataset, *self._others)]
        return next(filter(None, errors), None)

    def measure_likelihoods(self, names, row, drawn):
        """Adds entries to `row`, and per-image bits/dim to `drawn["likelihoods"]`."""
        if not names:
            return
        # Before the first number, as it may raise.
        other, other_config = self._other_data(self.config.likelihood_dataset, self.config.likelihood_test_split)
        evaluator = LikelihoodEvaluator(self.model, self.strategy)
        if self.model.likelihood_note:
            print(f"note: {self.model.likelihood_note}", flush=True)
        for name in names:
            bits = self._likelihood(name, evaluator, self.dataset, self.data_config, "", row)
            drawn.setdefault("likelihoods", {})[name] = {self.data_config.dataset: bits}
        if other is None:
            return
        for name in names:
            bits = self._likelihood(name, evaluator, other, other_config, "_other", row)
            (own_name, own), = drawn["likelihoods"][name].items()
            # The same data set makes sense with another test split.
            other_name = self.config.likelihood_dataset + (" (other)" if self.config.likelihood_dataset == own_name else "")
            drawn["likelihoods"][name][other_name] = bits
            # How well the likelihood separates the two data sets; 1/2 is chance.
            row[f"{name}_other"]["auroc"] = likelihood_auroc(own, bits)

    def _other_data(self, dataset, test_split):
        """The `ImageDataset` of a data set other than the run's and its DataConfig, or (None, None) if it has no name."""
        if not dataset:
            return None, None
        settings, place = self.model.config_of_run.data, self.config
        config = settings.other(self.model.image_shape[-1], dataset, test_split, place.data_dir, place.data_cache)
        self._others.append(data.load(config))
        return self._others[-1], config

    def _facts(self, split, dataset=None, settings=None):
        """The facts in every entry that make it comparable: see `tfcq.evaluation.comparable`.

        Args:
            split: split of the real images.
            dataset, settings: `ImageDataset` and its `DataConfig`; None: the run's.
        """
        dataset, settings = dataset or self.dataset, settings or self.data_config
        content = dataset.manifest and dataset.manifest.fingerprint(split)
        facts = data_facts(settings, dataset.image_shape[-1], dataset.num_images(split), content)
        return {"split": split, "checkpoint": self.model.checkpoint_of_run, "data": facts}

    def _likelihood(self, name, evaluator, dataset, settings, suffix, row):
        config, start = self.config, time.monotonic()
        total = min(config.num_images or math.inf, dataset.num_images(config.split))
        batches = dataset.eval_batches(config.split, config.batch_size, total)
        progress = ImageProgress(name, total)
        if name == "elbo":
            terms = evaluator.elbo_terms(batches, config.seed, progress)
            values = terms.pop("elbo")
            facts = evaluator.parts(terms)
        else:
            values = evaluator.log_prob(batches, config.num_importance_samples, config.seed, progress)
            facts = {"num_importance_samples": config.num_importance_samples}
        entry = evaluator.summary(values) | facts | {"meaning": registry.TABLE[name].meaning}
        entry |= self._facts(config.split, dataset, settings) | {"seed": config.seed}
        if self.model.likelihood_note:
            entry["notes"] = [self.model.likelihood_note]
        if suffix:
            entry |= {"dataset": config.likelihood_dataset}
        elif self.model.class_names:
            bits = evaluator.bits_per_dim(values)
            entry["by_class"] = by_class(bits, self._classes(total), self.model.class_names)
        row[name + suffix] = entry | {"seconds": round(time.monotonic() - start, 1)}
        error = entry["bits_per_dim_standard_error"]
        print(
            f"{name}: {entry['bits_per_dim']:.4f}"
            + ("" if error is None else f" +- {error:.4f}")
            + f" bits/dim ({config.likelihood_dataset + ' ' if suffix else ''}{config.split}, {total} images"
            + (", ELBO" if name == "elbo" else f", K={config.num_importance_samples}")
            + ")",
            flush=True,
        )
        if name == "elbo":
            terms = ", ".join(f"{term} {nats:.5g}" for term, nats in entry["terms"].items())
            print(f"  of {-entry['nats']:.5g} nats: {terms}", flush=True)
        return evaluator.bits_per_dim(values)

    def measure_latent_likelihood(self, names, row):
        """Adds entries to `row`."""
        if not names:
            return
        config, start = self.config, time.monotonic()
        total = min(config.num_images or math.inf, self.dataset.num_images(config.split))
        batches = self.dataset.eval_batches(config.split, config.batch_size, total)
        evaluator = LatentLikelihoodEvaluator(self.model, self.strategy)
        entries = evaluator.entries(batches, config.seed, ImageProgress("latent_likelihood", total))
        self._add(row, entries, start, total)

    def measure_classes(self, names, row):
        """Adds entries to `row`."""
        if not names:
            return
        config, start = self.config, time.monotonic()
        total = min(config.num_images or math.inf, self.dataset.num_images(config.split))
        batches = self.dataset.eval_batches(config.split, config.batch_size, total)
        evaluator, progress = ClassEvaluator(self.model, self.strategy), ImageProgress("classes", total)
        asked = (batches, self._classes(total), config.num_importance_samples, config.seed, progress)
        self._add(row, evaluator.entries(*asked), start, total)

    def _add(self, row, entries, start, total):
        """Adds {name: entry} of a split's images to `row`, and prints each."""
        config, seconds = self.config, round(time.monotonic() - start, 1)
        for name, entry in entries.items():
            row[name] = entry | self._facts(config.split) | {"seed": config.seed, "seconds": seconds}
            error = f" +- {entry['standard_error']:.2g}" if "standard_error" in entry else ""
            print(f"{name}: {entry['value']:.5g}{error} ({config.split}, {total} images)", flush=True)

    def _classes(self, total):
        return self.dataset.classes_of(self.config.split, self.model.class_names)[:total]

    def measure_energy(self, names, row):
        """Adds an entry to `row`."""
        if not names:
            return
        config, start = self.config, time.monotonic()
        total = min(config.num_images or math.inf, config.num_samples, self.dataset.num_images(config.split))
        batches = self.dataset.eval_batches(config.split, config.batch_size, total)
        how = {"image_draw": row["image_draw"]} if "image_draw" in row else {}
        evaluator, progress = EnergyEvaluator(self.model, self.strategy), ImageProgress("energy", total)
        entry = evaluator.entry(batches, config.seed, config.temperature, progress)
        entry |= how | self._facts(config.split) | {"seed": config.seed, "seconds": round(time.monotonic() - start, 1)}
        row[NUMBER] = entry
        print(f"{NUMBER}: {entry['value']:.4f} ({config.split}, {total} images, as many samples)", flush=True)

    def measure_distributions(self, names, row, drawn):
        """Adds entries to `row`, and data of the report's figures to `drawn`."""
        if not names:
            return
        config = self.config
        other, settings = self._reference
        evaluator = distributions.DistributionEvaluator(self.model, self.dataset, self.extractor, config, self.strategy, other)
        entries, pictures = evaluator.measure(names, draw=True)
        how = {"image_draw": row["image_draw"]} if "image_draw" in row else {}
        how |= {"reference_dataset": config.reference_dataset} if other else {}
        row |= {name: entry | self._facts(entry["split"], other, settings) | how for name, entry in entries.items()}
        for name, entry in entries.items():
            if "num_train" in entry and self.dataset.manifest:  # the metric compares with the training images, too
                row[name]["data"]["train_content"] = self.dataset.manifest.fingerprint("train")
        drawn |= pictures
