"""Metrics of two sets of images, whoever generated the one: no model is needed. `tfcq.evaluate --generated --reference`."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tfcq import data, features
from tfcq import workdir as workdirs
from tfcq.checks import check_bool
from tfcq.config import DataConfig
from tfcq.config.evaluation import OF_IMAGE_SETS, EvaluationConfig, metric_names
from tfcq.config.evaluation import protocol as protocol_of
from tfcq.data.all_images import all_splits, dataset_of, whole
from tfcq.data.dataset import ImageDataset, open_source
from tfcq.data.formats import Formats, differences
from tfcq.data.holding import cache_folder
from tfcq.data.manifest import Manifest
from tfcq.data.sources import Source
from tfcq.data.split_images import by_position
from tfcq.data.splits import JOINED, fixed_permutation
from tfcq.data.transforms import KINDS, Transform
from tfcq.engine import devices
from tfcq.errors import UserError, named
from tfcq.evaluation import distributions, near_copies, page
from tfcq.evaluation.activations import Activations
from tfcq.evaluation.comparable import data_facts
from tfcq.evaluation.distributions import Evaluator, RealImages
from tfcq.evaluation.report import CURVES, FOLDER, nearest_figures, prd_figures, write_page
from tfcq.grids import grid
from tfcq.machine import files, paths
from tfcq.metrics import registry

if TYPE_CHECKING:
    from tfcq.features import FeatureExtractor

ALL = "all"
"""The split of a reference without splits."""

_GENERATED = "generated"
_GRID = 64


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
        metrics: names in `tfcq.metrics.registry.OF_SAMPLES`, a list or separated by commas, or "all" that can be measured.
            None: the Frechet distance.
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
    sides = _Sides(generated, reference, prepared, image_size, config, "split" in protocol)
    strategy = devices.prepare(config.distribution, config.logical_devices)
    with strategy.scope():
        extractor = features.load(config.features, config.feature_weights or None)
    names = _possible(asked, extractor, sides)
    evaluator = ImageSetEvaluator(sides.generated, sides.reference, sides.split, extractor, config, strategy)
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
    """

    def __init__(
        self,
        generated: Sequence[ImageDataset],
        reference: ImageDataset,
        split: str,
        extractor: FeatureExtractor,
        config: EvaluationConfig,
        strategy: tf.distribute.Strategy | None = None,
    ) -> None:
        super().__init__(reference, reference.image_shape, extractor, config, strategy)
        self._sets, self._split = generated, split
        self._num_generated = generated[0].num_images(_GENERATED)

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

    def _generated(self, num_kept: int) -> list[Activations]:
        return [self._activator.real(one, _GENERATED, self._num_generated, num_kept, cached=False) for one in self._sets]

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
        return _manifest(self._sets[0]).splits[_GENERATED][number].key

    def _facts(self) -> dict[str, Any]:
        return {"split": self._split}


class _Sides:
    """Both sets of images, opened, and what is recorded of them.

    Attributes:
        generated: for each seed an `ImageDataset` with the split "generated".
        reference: `ImageDataset` of the real images.
        split: the split of them that is compared with.
        facts: {"generated" | "reference": plain values: place, number, formats, sizes, how they were prepared}.
        notes: what makes a comparison doubtful, sentences.
    """

    def __init__(self, generated, reference, prepared, image_size, config, split_given):
        places = {"generated": dataset_of(generated, "generated"), "reference": dataset_of(reference, "reference")}
        raw = _generated_images(dataclasses.replace(prepared, dataset=places["generated"]))
        count = min(config.num_samples, len(raw) // config.num_seeds)
        if count < 2:
            raise UserError(
                f"generated: expected at least two images{' for each of num_seeds' if config.num_seeds > 1 else ''}, found "
                f"{len(raw)} in {places['generated']}"
            )
        # Of more images than are compared a fixed random choice, in the order of their names: names may be those of classes.
        chosen = np.sort(fixed_permutation(len(raw))[: count * config.num_seeds].reshape(config.num_seeds, count))
        raws = [raw.select(indices) for indices in chosen]
        formats = Formats.of(raws, _GENERATED, cache_folder(prepared.data_cache))
        size = _size_of(formats) if image_size is None else image_size
        settings = {side: dataclasses.replace(prepared, dataset=place, image_size=size) for side, place in places.items()}
        self._data_config = dataclasses.replace(settings["reference"], test_split=config.reference_test_split)
        self.generated = [whole(one, settings["generated"], _GENERATED) for one in raws]
        self.reference, self.split, compared = _reference(self._data_config, config, split_given)
        shapes = [self.generated[0].image_shape, self.reference.image_shape]
        if shapes[0] != shapes[1]:
            colours = [KINDS[shape[2]] for shape in shapes]
            raise UserError(
                f"the generated images are {colours[0]}, the reference images {colours[1]}: expected one kind; color=grey or "
                "color=rgb converts them all"
            )
        transform = Transform(size, prepared.center_crop, prepared.resize, shapes[0][2])
        reference_formats = Formats.of(compared, "reference", cache_folder(prepared.data_cache))
        content = "-".join(_manifest(one).fingerprint(_GENERATED) for one in self.generated)
        self.facts = {
            "generated": {"place": places["generated"], "num_images": len(raw), "content": content} | formats.facts(transform),
            "reference": {
                "place": places["reference"],
                "num_images": self.reference.num_images(self.split),
                "content": _manifest(self.reference).fingerprint(self.split),
            }
            | reference_formats.facts(transform),
        }
        self.notes = differences(formats, reference_formats, transform) + self._repeated()

    def _repeated(self):
        """A note on generated images that are reference images too; none if there are none."""
        of_reference = _manifest(self.reference).splits
        known = {entry.digest for one in JOINED.get(self.split, (self.split,)) for entry in of_reference[one]}
        generated = [entry.digest for one in self.generated for entry in _manifest(one).splits[_GENERATED]]
        count = sum(digest in known for digest in generated)
        return [f"{count} of {len(generated)} generated images are reference images too, byte for byte"] if count else []

    def data_of(self, name, entry):
        """`data_facts` of an entry of that name."""
        images = self.facts["reference"]
        found = data_facts(self._data_config, self.reference.image_shape[-1], images["num_images"], images["content"])
        return found | ({"train_content": _manifest(self.reference).fingerprint("train")} if "num_train" in entry else {})

    def data_error(self) -> UserError | None:
        """The error of an image that could not be read while something was measured; None: there was none."""
        return next(filter(None, (one.take_error() for one in (*self.generated, self.reference))), None)


def _manifest(dataset: ImageDataset) -> Manifest:
    assert dataset.manifest is not None  # `data.load` and `whole` give one
    return dataset.manifest


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
        if own != "all" and own not in registry.OF_SAMPLES:
            raise UserError(f"metrics: {name} needs a model (--workdir); expected some of {', '.join(registry.OF_SAMPLES)}")


def _possible(asked, extractor, sides):
    """The metrics to measure. "all" omits those that cannot be; a metric that is asked for by name must be possible."""

    def check(name):
        own = distributions.check_name(name, extractor, sides.reference.image_shape)
        if registry.load(own).train and sides.split == ALL:
            raise UserError(
                f"metrics: {name} compares with training images, and {sides.facts['reference']['place']} has no train split; "
                "expected a reference with folders train and test, or with --split=test"
            )
        return own

    return distributions.fitting(registry.OF_SAMPLES, check) if asked == ["all"] else [check(name) for name in asked]


def _generated_images(config):
    """The generated images; of a data set with several splits those of its test split."""
    splits = all_splits(config, "generated")
    if len(splits) > 1 and "test" not in splits:
        raise UserError(f"generated: {config.dataset}: expected one split or one of the name test, found {', '.join(splits)}")
    (raw,) = splits.values() if len(splits) == 1 else [splits["test"]]
    return raw


def _size_of(formats):
    """The side of images that are square and all of one size."""
    if len(formats.sizes) > 1:
        shown = ", ".join(f"{size} ({count})" for size, count in list(formats.sizes.items())[:3])
        raise UserError(f"generated: expected images of one size, received {shown}, ...; --image_size=N resizes them all")
    (size,) = formats.sizes
    height, width = map(int, size.split("x"))
    if height != width:
        raise UserError(f"generated: expected square images, received {size}; --image_size=N cuts and resizes them")
    return height


def _reference(config, protocol, split_given):
    """(`ImageDataset`, the split that is compared with, RawImages of the images that are)."""
    if config.dataset.startswith("list:"):
        if split_given:
            raise UserError("split: expected it with a reference that is no list, which has no splits")
        source = Source(all_splits(config, "reference"))
        (raw,) = source.splits.values()
        source = Source({"": raw.select(fixed_permutation(len(raw)))})
    else:
        with named("reference"):
            source = open_source(config)
    if split_given or len(source.splits) > 1:
        dataset = data.load(config, source=source)
        dataset.require_images(protocol.split)
        return dataset, protocol.split, _of_split(source, config, protocol.split, protocol.num_samples)
    (raw,) = source.splits.values()
    if not config.dataset.startswith(("folder:", "list:")):  # of those the order is random already; arrays may lie by classes
        raw = raw.select(fixed_permutation(len(raw)))
    if len(raw) < 2:
        raise UserError(f"reference: expected at least two images, found {len(raw)} in {config.dataset}")
    return whole(raw, config, ALL), ALL, [raw.select(np.arange(min(len(raw), protocol.num_samples)))]


def _of_split(source, config, split, count):
    """RawImages of the first `count` images of a split."""
    images, found = by_position(source, config)[0], []
    for one in JOINED.get(split, (split,)):
        indices = images[one].indices[:count]
        found.append(source.splits[images[one].origins[0]].select(indices))
        count -= len(indices)
    return found


def _write_report(folder, sides, row, drawn):
    shown = {_GENERATED: sides.generated[0], sides.split: sides.reference}
    figures = []
    for split, name in ((_GENERATED, "samples"), (sides.split, "reference")):
        count = min(_GRID, shown[split].num_images(split))
        of = "Generated images" if split == _GENERATED else "Reference images"
        figures.append(page.Figure(name, grid(shown[split].images(split, range(count))), f"{of}: {count} of them."))
    figures += [*near_copies.figures(drawn), *nearest_figures(drawn, sides.reference), *prd_figures(drawn, "generated images")]
    named = ("place", "num_images", "formats", "sizes", "colours", "prepared")
    rows = [[name.replace("_", " "), *(_cell(sides.facts[side][name]) for side in sides.facts)] for name in named]
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
