"""Metrics of two sets of images, whoever generated the one: no model is needed. `tfcq.evaluate --generated --reference`."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tfcq import features
from tfcq import workdir as workdirs
from tfcq.checks import check_bool
from tfcq.config import DataConfig
from tfcq.config.evaluation import OF_IMAGE_SETS, EvaluationConfig, metric_names
from tfcq.config.evaluation import protocol as protocol_of
from tfcq.data.all_images import dataset_of
from tfcq.data.dataset import ImageDataset
from tfcq.engine import devices
from tfcq.errors import UserError, named
from tfcq.evaluation import distributions, near_copies, page
from tfcq.evaluation.activations import Activations
from tfcq.evaluation.distributions import Evaluator, RealImages
from tfcq.evaluation.image_sides import ALL, GENERATED, Sides, manifest_of
from tfcq.evaluation.report import CURVES, FOLDER, nearest_figures, prd_figures, write_page
from tfcq.grids import grid
from tfcq.machine import files, paths
from tfcq.metrics import registry

if TYPE_CHECKING:
    from tfcq.features import FeatureExtractor

_GRID = 64
_HEADS = {"num_images": "num images", "jpeg_qualities": "JPEG qualities, estimated"}
_POSSIBLE = (*registry.OF_SAMPLES, *registry.OF_SAMPLES_BY_CLASS)


def evaluate_images(
    generated: str | os.PathLike,
    reference: str | os.PathLike,
    output: str | os.PathLike,
    metrics: str | Sequence[str] | None = None,
    report: bool = True,
    *,
    image_size: int | None = None,
    center_crop: int = 0,
    resize: str = "area",
    color: str = "source",
    **protocol: Any,
) -> dict:
    """Measures metrics of generated images, prints them, and records them in metrics.json, metrics.jsonl and report.md.

    A reference with splits of its own, or any where `split` is given, is read as a run reads its data set: its split (test) is
    compared with, its train split is the floor, and what metrics of training images compare with. Any other reference is
    compared with as a whole.

    Args:
        generated, reference: folder:DIR, list:FILE, npz:FILE, idx:DIR or the name of a data set; a folder alone is folder:DIR.
        output: folder for what is written.
        metrics: names in `tfcq.metrics.registry.OF_SAMPLES` and `OF_SAMPLES_BY_CLASS`, a list or separated by commas, or "all"
            that can be measured. None: the Frechet distance.
        report: whether to write report.md and its figures.
        image_size: side of the squares that images of both sets are made; None: that of the generated images.
        center_crop, resize, color: how they are made so, as in `DataConfig`.
        **protocol: options of `EvaluationConfig`, those in `OF_IMAGE_SETS`.

    Returns:
        The recorded row: a dict of plain values.

    Raises:
        UserError: an unknown metric or option; images that are not there, broken, too few, or not of one size and colour; a
            metric that cannot measure them; a folder that cannot be written.
    """
    folder = _output(output, report)
    _refuse_inside(folder, dataset_of(generated, "generated"), "generated")
    _refuse_inside(folder, dataset_of(reference, "reference"), "reference")
    asked = ["frechet_distance"] if metrics is None else metric_names(metrics)
    config = protocol_of(protocol, OF_IMAGE_SETS)
    _refuse_other_metrics(asked)
    prepared = DataConfig(
        center_crop=center_crop, resize=resize, color=color, data_dir=config.data_dir, data_cache=config.data_cache
    )
    sides = Sides(generated, reference, prepared, image_size, config, "split" in protocol)
    strategy = devices.prepare(config.distribution, config.logical_devices)
    with strategy.scope():
        extractor = features.load(config.features, config.feature_weights or None)
    names = _possible(asked, extractor, sides)
    classes = sides.classes() if any(registry.load(name).classes for name in names) else None
    evaluator = ImageSetEvaluator(sides.generated, sides.reference, sides.split, extractor, config, strategy, classes)
    for note in sides.notes:
        print(f"warning: {note}", flush=True)
    try:
        entries, drawn = evaluator.measure(names, draw=True)
    except tf.errors.OpError as error:
        raise sides.data_error() or error from error
    row: dict[str, Any] = {"generated": sides.facts["generated"]["place"], "reference": sides.facts["reference"]["place"]}
    row |= {"generated_content": sides.facts["generated"]["content"], "split": sides.split, "seed": config.seed}
    for name, entry in entries.items():
        row[name] = entry | {"data": sides.data_of(name, entry), "images": sides.facts}
        notes = [*entry.get("notes", ()), *sides.notes, *evaluator.notes_of(entry)]
        if notes:
            row[name]["notes"] = notes
    with files.writing("output", folder):
        folder.mkdir(parents=True, exist_ok=True)
        row = workdirs.record_metrics(folder, row)
        if report:
            print(f"wrote {_write_report(folder, sides, row, drawn)}", flush=True)
    return row


class ImageSetEvaluator(Evaluator):
    """Compares sets of images with real ones.

    Args:
        generated: for each of the protocol's seeds an `ImageDataset` with the split "generated".
        reference: `ImageDataset` of the real images.
        split: the split of `reference` that is compared with; `ALL`: it has no other.
        extractor: `FeatureExtractor`, made in the strategy's scope.
        config: `EvaluationConfig`.
        strategy: its replicas divide the work; None: one device does it.
        classes: of the generated images, as `Sides.classes` gives them; None: they are not needed.
    """

    def __init__(
        self,
        generated: Sequence[ImageDataset],
        reference: ImageDataset,
        split: str,
        extractor: FeatureExtractor,
        config: EvaluationConfig,
        strategy: tf.distribute.Strategy | None = None,
        classes: Sequence[np.ndarray] | None = None,
    ) -> None:
        super().__init__(reference, reference.image_shape, extractor, config, strategy)
        self._classes = classes
        self._sets, self._split = generated, split
        self._num_generated = generated[0].num_images(GENERATED)

    def notes_of(self, entry: dict) -> list[str]:
        """What is to be said of the floor of an entry."""
        if self._split != ALL or "real" not in entry:
            return []
        compared, taken = self._floor_sizes()
        if (compared, taken) == (entry["num_real"], entry["num_generated"]):
            return []
        return [
            f"for the floor {compared} of the reference images were compared with {taken} others of them, as there are no more "
            "real images; with so few most distances are larger"
        ]

    def _floor_sizes(self):
        """(how many reference images, how many others in the place of generated ones) the floor of a whole set has."""
        total = self._dataset.num_images(ALL)
        taken = min(self._num_generated, total // 2)
        return min(self._config.num_samples, total - taken), taken

    def _generated(self, num_kept: int, kinds: Iterable[bool]) -> dict[bool, list[Activations]]:
        found = [self._activator.real(one, GENERATED, self._num_generated, num_kept, cached=False) for one in self._sets]
        if self._classes:
            found = [dataclasses.replace(one, classes=names) for one, names in zip(found, self._classes)]
        return dict.fromkeys(kinds, found)

    def _real_images(self, num_kept: int) -> RealImages:
        if self._split != ALL:
            real = self._real_images_of_splits(num_kept, self._dataset)
            return dataclasses.replace(real, floor=real.floor and real.floor.first(self._num_generated))
        compared, taken = self._floor_sizes()
        count = min(self._config.num_samples, self._dataset.num_images(ALL))
        found = self._activator.real(self._dataset, ALL, max(count, compared + taken), num_kept)
        rest = slice(compared, compared + taken)
        floor = Activations(
            found.features[rest],
            None if found.logits is None else found.logits[rest],
            self._dataset.images(ALL, range(compared, compared + min(taken, num_kept))),
        )
        reference = found.first(count)
        return RealImages(reference, floor if taken > 1 else None, found.first(compared), None, reference, ALL)

    def _name_of(self, number: int) -> str:
        return manifest_of(self._sets[0]).splits[GENERATED][number].key

    def _facts(self) -> dict[str, Any]:
        return {"split": self._split}


def _output(output, writes_report):
    """The folder for what is written, if it can be."""
    check_bool("report", writes_report)
    folder = paths.folder(output, "output")
    if workdirs.exists(folder):
        raise UserError(f"output {folder}: expected a folder of its own, received that of a run")
    workdirs.check_metrics_writable(folder, "output")
    if writes_report:
        for path in (folder / "report.md", folder / "report.html", folder / FOLDER / CURVES):
            files.check_file("output", path)
    return folder


def _refuse_inside(folder, dataset, option):
    """Raises UserError if the pictures of the report would be images of a set the next time."""
    kind, _, place = dataset.partition(":")
    if kind != "folder" or paths.is_remote(folder):
        return
    inner, outer = (pathlib.Path(os.path.realpath(one)) for one in (folder, place))
    if inner.is_relative_to(outer):
        raise UserError(f"output {folder}: expected a folder that is not in that of {option}, whose images are all below it")


def _refuse_other_metrics(names):
    for name in names:
        own = registry.INCEPTION_NAMES.get(name, name)
        if own != "all" and own not in _POSSIBLE:
            raise UserError(f"metrics: {name} needs a model (--workdir); expected some of {', '.join(_POSSIBLE)}")


def _possible(asked, extractor, sides):
    """The metrics to measure. "all" omits those that cannot be; a metric that is asked for by name must be possible."""

    def check(name):
        own = distributions.check_name(name, extractor, sides.reference.image_shape)
        if registry.load(own).train and sides.split == ALL:
            raise UserError(
                f"metrics: {name} compares with training images, and {sides.facts['reference']['place']} has no train split; "
                "expected a reference with folders train and test, or with --split=test"
            )
        if registry.load(own).classes:
            with named(f"metrics: {name}"):
                sides.classes()
        return own

    return distributions.fitting(_POSSIBLE, check) if asked == ["all"] else [check(name) for name in asked]


def _write_report(folder, sides, row, drawn):
    shown = {GENERATED: sides.generated[0], sides.split: sides.reference}
    figures = []
    for split, name in ((GENERATED, "samples"), (sides.split, "reference")):
        count = min(_GRID, shown[split].num_images(split))
        of = "Generated images" if split == GENERATED else "Reference images"
        figures.append(page.Figure(name, grid(shown[split].images(split, range(count))), f"{of}: {count} of them."))
    figures += [*near_copies.figures(drawn), *nearest_figures(drawn, sides.reference), *prd_figures(drawn, "generated images")]
    shown_facts = ("place", "num_images", "formats", "jpeg_qualities", "sizes", "colours", "prepared")
    rows = [
        [_HEADS.get(name, name), *(_cell(facts.get(name, "")) for facts in sides.facts.values())]
        for name in shown_facts
        if any(name in facts for facts in sides.facts.values())
    ]
    head: list[page.Block] = [
        page.Heading(sides.facts["generated"]["place"], 1),
        page.Text(f"Compared with {sides.facts['reference']['place']}, split: {sides.split}. Evaluated {row['time']}."),
        page.Table(["images", "generated", "reference"], rows),
    ]
    return write_page(folder, head, row, drawn, figures)


def _cell(value):
    if isinstance(value, dict):
        value = ", ".join(f"{name} ({count})" for name, count in value.items())
    return str(value)
