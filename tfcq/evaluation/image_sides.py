"""Both sets of images of `tfcq.evaluate --generated --reference`, opened, and what is recorded of them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfcq import data
from tfcq.config import DataConfig
from tfcq.config.evaluation import EvaluationConfig
from tfcq.data.all_images import all_splits, dataset_of, whole
from tfcq.data.classes import Labels
from tfcq.data.dataset import FEW, ImageDataset, open_source
from tfcq.data.formats import Formats, differences
from tfcq.data.holding import cache_folder
from tfcq.data.manifest import Manifest
from tfcq.data.sources import Source
from tfcq.data.split_images import by_position
from tfcq.data.splits import JOINED, fixed_permutation
from tfcq.data.transforms import KINDS, Transform
from tfcq.errors import UserError, named
from tfcq.evaluation.comparable import data_facts
from tfcq.metrics.tstr import check_classes

ALL = "all"
"""The split of a reference without splits."""

GENERATED = "generated"


class Sides:
    """Both sets of images, opened, and what is recorded of them.

    Attributes:
        generated: for each seed an `ImageDataset` with the split "generated".
        reference: `ImageDataset` of the real images.
        split: the split of them that is compared with.
        facts: {"generated" | "reference": plain values: place, number, formats, sizes, how they were prepared}.
        notes: what makes a comparison doubtful, sentences.

    Raises:
        UserError: images that are not there, broken, too few, or not of one size and colour.
    """

    def __init__(
        self,
        generated: str | os.PathLike,
        reference: str | os.PathLike,
        prepared: DataConfig,
        image_size: int | None,
        config: EvaluationConfig,
        split_given: bool,
    ) -> None:
        places = {"generated": dataset_of(generated, "generated"), "reference": dataset_of(reference, "reference")}
        raw, of_several = _generated_images(dataclasses.replace(prepared, dataset=places["generated"]))
        count = min(config.num_samples, len(raw) // config.num_seeds)
        if count < 2:
            raise UserError(
                f"generated: expected at least two images{' for each of num_seeds' if config.num_seeds > 1 else ''}, found "
                f"{len(raw)} in {places['generated']}"
            )
        # Of more images than are compared a fixed random choice, in the order of their names: names may be those of classes.
        chosen = np.sort(fixed_permutation(len(raw))[: count * config.num_seeds].reshape(config.num_seeds, count))
        raws = [raw.select(indices) for indices in chosen]
        self._chosen, self._labels = chosen, raw.labels
        formats = Formats.of(raws, GENERATED, cache_folder(prepared.data_cache))
        size = _size_of(formats) if image_size is None else image_size
        settings = {side: dataclasses.replace(prepared, dataset=place, image_size=size) for side, place in places.items()}
        self._data_config = dataclasses.replace(settings["reference"], test_split=config.reference_test_split)
        self.generated = [whole(one, settings["generated"], GENERATED) for one in raws]
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
        content = "-".join(manifest_of(one).fingerprint(GENERATED) for one in self.generated)
        self.facts = {
            "generated": {"place": places["generated"], "num_images": len(raw), "content": content} | formats.facts(transform),
            "reference": {
                "place": places["reference"],
                "num_images": self.reference.num_images(self.split),
                "content": manifest_of(self.reference).fingerprint(self.split),
            }
            | reference_formats.facts(transform),
        }
        self.notes = of_several + differences(formats, reference_formats, transform) + self._few(count) + self._repeated()
        self._classes: list[np.ndarray] = []

    def classes(self) -> list[np.ndarray]:
        """The classes of each seed's generated images, str [N], which are classes of training images of the reference.

        Raises:
            UserError: the classes of either are not known, or are not the same.
        """
        if not self._classes:
            with named("generated"):
                names = Labels.read(self._labels, self.facts["generated"]["place"]).by_name()
            with named("reference"):
                classes = self.reference.classes
            found = [names[indices] for indices in self._chosen]
            check_classes(np.concatenate(found), classes.by_name("train"))
            self._classes = found
        return self._classes

    def _few(self, count):
        """Notes on sets of so few images that numbers are mostly noise; of a data set's splits that is told as it is opened."""
        counts = {"generated": count, **({"reference": self.reference.num_images(ALL)} if self.split == ALL else {})}
        return [
            f"only {number} {side} images are compared: with fewer than {FEW}, most numbers are noise for the most part"
            for side, number in counts.items()
            if number < FEW
        ]

    def _repeated(self):
        """Notes on generated images that repeat each other, or are reference images too; none if there are none."""
        of_reference = manifest_of(self.reference).splits
        known = {entry.digest for one in JOINED.get(self.split, (self.split,)) for entry in of_reference[one]}
        generated = [entry.digest for one in self.generated for entry in manifest_of(one).splits[GENERATED]]
        copies, repeats = sum(digest in known for digest in generated), len(generated) - len(set(generated))
        notes = {
            f"{repeats} of {len(generated)} generated images repeat others of them, byte for byte": repeats,
            f"{copies} of {len(generated)} generated images are reference images too, byte for byte": copies,
        }
        return [note for note, number in notes.items() if number]

    def data_of(self, name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
        """`data_facts` of an entry of that name."""
        images = self.facts["reference"]
        found = data_facts(self._data_config, self.reference.image_shape[-1], images["num_images"], images["content"])
        return found | ({"train_content": manifest_of(self.reference).fingerprint("train")} if "num_train" in entry else {})

    def data_error(self) -> UserError | None:
        """The error of an image that could not be read while something was measured; None: there was none."""
        return next(filter(None, (one.take_error() for one in (*self.generated, self.reference))), None)


def manifest_of(dataset: ImageDataset) -> Manifest:
    """The manifest of an opened set of images."""
    assert dataset.manifest is not None  # `data.load` and `whole` give one
    return dataset.manifest


def _generated_images(config):
    """(the generated images, of a data set with several splits those of its test split; a note if it was chosen)."""
    splits = all_splits(config, "generated")
    if len(splits) > 1 and "test" not in splits:
        raise UserError(f"generated: {config.dataset}: expected one split or one of the name test, found {', '.join(splits)}")
    if len(splits) == 1:
        (raw,) = splits.values()
        return raw, []
    counts = ", ".join(f"{split} {len(raw)}" for split, raw in splits.items())
    note = f"{config.dataset} has the splits {counts}: of the generated images those of its test split alone are measured"
    return splits["test"], [note]


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
