"""What is computed of a row: an image of a number (`Sampling`), or a variation of an image (`Varying`).

A stage holds its model and answers batches. It is made of plain values, so that it travels to another process, and loads the
model where it is first asked. Those of images: `image_stages`.

A row's result depends on the row alone: its seed is made of its number or its key. Rounding may still depend on a batch's
length and on a row's place in it. So batches have one length, and row i is at place i modulo that length, whatever the shards:
what is outside of a shard is filled with other rows, and dropped. Results are thus equal to the bit for any number of shards,
on processors of one kind.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

import tfcq
from tfcq.bulk import model as models
from tfcq.bulk.images import images_of_files
from tfcq.bulk.job import Job
from tfcq.bulk.place import ModelPlace
from tfcq.checks import class_number
from tfcq.config import DataConfig
from tfcq.randomness import row_seeds


@dataclasses.dataclass(frozen=True)
class Stage(abc.ABC):
    """A function of rows.

    Args:
        model: where the model is.
        seed: of the random draws, int32, at least 0.
        batch_size: rows of a batch.
    """

    name: ClassVar[str]
    """In job.json."""
    verb: ClassVar[str]
    """What the progress line says."""
    extends: ClassVar[bool] = False
    """Whether more rows are the same rows and others after them, so that a folder of fewer can go on."""

    model: ModelPlace
    seed: int = 0
    batch_size: int = 64

    @property
    @abc.abstractmethod
    def count(self) -> int:
        """The number of rows."""

    @property
    @abc.abstractmethod
    def format(self) -> str:
        """The files of the parts, a key of `formats.FORMATS`."""

    @abc.abstractmethod
    def options(self) -> dict[str, Any]:
        """What decides the results besides the model, the seed and the batches: plain values by the names of flags."""

    def places(self) -> dict[str, str]:
        """Where model and images are, for people."""
        name, value = self.model.given
        return {name: value}

    def content(self) -> dict[str, str]:
        """{key: digest of the content} of some images that are read."""
        return {}

    @abc.abstractmethod
    def _results(self, first: int, rows: slice) -> Any:
        """Results of the rows `first` + i for the i of a slice of a batch, which begins with row `first`."""

    @functools.cached_property
    def asked(self) -> models.AskedModel | models.ServedModel:
        """The model, loaded when it is first used."""
        return models.load(self.model)

    def __getstate__(self) -> dict[str, Any]:
        """What travels to another process: the arguments, without the model and the images that may have been opened."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def share_model_of(self, other: Stage) -> None:
        """Takes the model of another stage of the same place, so that it is not loaded again."""
        self.__dict__["asked"] = other.asked  # where a cached property keeps its value

    def job(self, parts: int) -> Job:
        """The Job of this stage in so many parts."""
        facts = {
            "model": self.asked.digest,
            "format": self.format,
            **self.options(),
            "seed": self.seed,
            "batch_size": self._batch,
            "tfcq": tfcq.__version__,
            "tensorflow": tf.__version__,
        }
        return Job(self.name, self.count, parts, facts, self.places(), self.content())

    def results(self, rows: range, progress: Callable[[int], None] | None = None) -> Iterator[Any]:
        """Yields the results of `rows`, a batch at a time.

        Args:
            rows: consecutive numbers below `count`.
            progress: called with the number of rows that are done.
        """
        for first in range(rows.start // self._batch * self._batch, rows.stop, self._batch):
            begin, end = max(first, rows.start), min(first + self._batch, rows.stop)
            yield self._results(first, slice(begin - first, end - first))
            if progress:
                progress(end - rows.start)

    @property
    def _batch(self):
        return min(self.batch_size, self.count)  # a larger one would be filled with rows that nobody wants


@dataclasses.dataclass(frozen=True)
class Sampling(Stage):
    """Images from the prior: row i is image i of `tfcq sample` with this seed, whose seed is (`seed`, i).

    Args:
        num_samples: the number of images.
        temperature: scales the prior's standard deviation.
        files: "png", "npz" or "tfrecord": the format of the parts.
        class_name: the class of all images, by its name (of a run's model) or number; "": a model with classes draws them, too.
    """

    name = "sample"
    verb = "sampling"
    extends = True

    num_samples: int = 64
    temperature: float = 1.0
    files: str = "npz"
    class_name: str = ""

    @property
    def format(self) -> str:
        return self.files

    @property
    def count(self) -> int:
        return self.num_samples

    def options(self) -> dict[str, Any]:
        row_seeds(1, self.seed, self.num_samples - 1)  # refuses a last image whose number is too large, before the first
        return {"temperature": self.temperature} | ({"class": self._class} if self.class_name else {})

    @functools.cached_property
    def _class(self):
        return class_number(self.asked.class_names, self.class_name)

    def _results(self, first, rows):
        return self._samples(*self._drawn(first, rows))[rows]

    def _samples(self, seeds, temperatures):
        if self.class_name:
            classes = np.full(len(seeds), self._class, np.int32)
            return self.asked.ask("sample_class", seed=seeds, classes=classes, temperature=temperatures)["images"]
        return self.asked.ask("sample", seed=seeds, temperature=temperatures)["images"]

    def _drawn(self, first, rows):
        """Seeds and temperatures of a batch, of which the rows of a slice are asked for."""
        seeds = np.zeros((self._batch, 2), np.int32)
        seeds[rows] = row_seeds(rows.stop - rows.start, self.seed, first + rows.start)
        return seeds, np.full(self._batch, self.temperature, np.float32)


@dataclasses.dataclass(frozen=True)
class Varying(Sampling):
    """Variations of an image: row i is a share of the way from the image to sample i of `Sampling`, along a great circle.

    The way is that of `GenerativeModel.interpolate`, between both images' noise or latents.

    Args:
        image: absolute path of the picture's file.
        strength: the share, from 0, the image's reconstruction, to 1, that of the sample.
    """

    name = "variations"
    verb = "drawing variations"

    image: str = ""
    strength: float = 0.5

    @functools.cached_property
    def like(self) -> np.ndarray:
        """The image as the model takes it, uint8 [H, W, C]."""
        shape = self.asked.image_shape(self._endpoint)
        return images_of_files([self.image], data_config(self.asked, shape, {}), shape)[0]

    def options(self) -> dict[str, Any]:
        digest = hashlib.blake2b(self.like.tobytes(), digest_size=16).hexdigest()
        return super().options() | {"strength": self.strength, "like": digest}

    @functools.cached_property
    def _endpoint(self):
        """As `evaluation.pictures.Pictures.ability_of`."""
        given = "interpolate_given_class"
        return given if self.class_name and given in self.asked.endpoints else "interpolate"

    def places(self) -> dict[str, str]:
        return super().places() | {"like": self.image}

    def _results(self, first, rows):
        seeds, temperatures = self._drawn(first, rows)
        ways = {"share": np.full(self._batch, self.strength, np.float32), "spherical": np.ones(self._batch, bool)}
        if self._endpoint != "interpolate":
            ways["classes"] = np.full(self._batch, self._class, np.int32)
        likes = np.repeat(self.like[None], self._batch, axis=0)
        others = self._samples(seeds, temperatures)
        return self.asked.ask(self._endpoint, images=likes, other_images=others, seed=seeds, **ways)["images"][rows]


def data_config(asked: models.AskedModel | models.ServedModel, image_shape: tuple[int, int, int], data: dict) -> DataConfig:
    """How images are prepared for a model: as in its run, where that is known, except for the options of `data`.

    Splits and their names are the run's own; other images have theirs.
    """
    return DataConfig(**{"image_size": image_shape[0], **asked.preparation, **data})
