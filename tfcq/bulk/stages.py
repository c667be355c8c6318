"""What is computed of a row: an image of a number (`Sampling`), the scores of an image (`Scoring`).

A stage holds its model and answers batches. It is made of plain values, so that it travels to another process, and loads the
model where it is first asked.

A row's result depends on the row alone: its seed is made of its number or its key. Rounding may still depend on a batch's
length and on a row's place in it. So batches have one length, and row i is at place i modulo that length, whatever the shards:
what is outside of a shard is filled with other rows, and dropped. Results are thus equal to the bit for any number of shards,
on processors of one kind.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

import tfcq
from tfcq import workdir as workdirs
from tfcq.bulk import model as models
from tfcq.bulk.complexity import COMPRESSIONS, complexity
from tfcq.bulk.images import KeyedImages, SplitImages, SpreadImages, key_seeds
from tfcq.bulk.job import Job
from tfcq.bulk.place import ModelPlace
from tfcq.config import DataConfig
from tfcq.endpoints import ENDPOINTS
from tfcq.errors import UserError
from tfcq.randomness import row_seeds

SCORES = ("likelihood", "latent_likelihood", "energy")
"""The endpoints that give an image numbers by which it is scored."""


@dataclasses.dataclass(frozen=True)
class Stage(abc.ABC):
    """A function of rows.

    Args:
        model: where the model is.
        seed: of the random draws, int32, at least 0.
        batch_size: rows of a batch.
    """

    endpoint: ClassVar[str]
    verb: ClassVar[str]

    model: ModelPlace
    seed: int = 0
    batch_size: int = 64

    @property
    @abc.abstractmethod
    def count(self) -> int:
        """The number of rows."""

    @abc.abstractmethod
    def options(self) -> dict[str, Any]:
        """What decides the results besides the model, the seed and the batches: plain values by the names of flags."""

    @abc.abstractmethod
    def places(self) -> dict[str, str]:
        """Where model and images are, for people."""

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
            **self.options(),
            "seed": self.seed,
            "batch_size": self._batch,
            "tfcq": tfcq.__version__,
            "tensorflow": tf.__version__,
        }
        return Job(self.endpoint, self.count, parts, facts, self.places(), self.content())

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
    """

    endpoint = "sample"
    verb = "sampling"

    num_samples: int = 64
    temperature: float = 1.0

    @property
    def count(self) -> int:
        return self.num_samples

    def options(self) -> dict[str, Any]:
        row_seeds(1, self.seed, self.num_samples - 1)  # refuses a last image whose number is too large, before the first
        return {"temperature": self.temperature}

    def places(self) -> dict[str, str]:
        return _places(self.model)

    def _results(self, first, rows):
        seeds = np.zeros((self._batch, 2), np.int32)
        seeds[rows] = row_seeds(rows.stop - rows.start, self.seed, first + rows.start)
        temperatures = np.full(self._batch, self.temperature, np.float32)
        return self.asked.ask("sample", seed=seeds, temperature=temperatures)["images"][rows]


@dataclasses.dataclass(frozen=True)
class Scoring(Stage):
    """The scores of each image of a data set: row i is image i of `KeyedImages`, whose seed is a hash of its key.

    They are the numbers of `SCORES` that the model has; "log_prob_standard_error" over the repeats; "reconstruction_error" also
    of a model that reconstructs and says none itself, by its 8-bit reconstruction; and the image's `complexity`.

    Args:
        data: the data set, and how its images are prepared where that is not as in the model's run: options of `DataConfig`.
        num_repeats: how many times a likelihood is computed, each with draws of its own: "log_prob" is the mean.
    """

    endpoint = "likelihood"
    verb = "scoring"

    data: dict[str, Any] = dataclasses.field(default_factory=dict)
    num_repeats: int = 1

    @property
    def count(self) -> int:
        return len(self.images)

    @functools.cached_property
    def scores(self) -> list[str]:
        """The endpoints of `SCORES` that the model has; UserError if it has none."""
        found = [name for name in SCORES if name in self.asked.endpoints]
        if not found:
            raise UserError(
                f"{self.model.given[1]}: expected a model with one of {', '.join(SCORES)}, received one with "
                f"{', '.join(sorted(self.asked.endpoints))}"
            )
        return found

    @functools.cached_property
    def images(self) -> KeyedImages | SpreadImages | SplitImages:
        """The images, listed when they are first used."""
        return KeyedImages(self._config, self.asked.image_shape(self.scores[0]), self._config.skip_broken_images)

    def options(self) -> dict[str, Any]:
        prepared = {name: getattr(self._config, name) for name in ("center_crop", "resize", "color", "skip_broken_images")}
        draws = {} if self.model.workdir is None else {"num_importance_samples": self.model.num_importance_samples}
        if self.num_repeats > 1 and "likelihood" not in self.scores:
            raise UserError(f"num_repeats={self.num_repeats}: repeats are of likelihoods, and this model has none; expected 1")
        scores = {"num_repeats": self.num_repeats, "scores": list(self.scores), "compressions": COMPRESSIONS}
        return {"images": self.images.digest, **prepared, **draws, **scores}

    def places(self) -> dict[str, str]:
        return _places(self.model) | {"images": self._config.dataset}

    def content(self) -> dict[str, str]:
        return self.images.some_content()

    @functools.cached_property
    def _config(self):
        run = self.asked.config
        size = self.asked.image_shape(self.scores[0])[0]
        # Splits and their names are the run's own; other images have theirs.
        kept = {} if run is None else {name: getattr(run.data, name) for name in ("center_crop", "resize", "color")}
        return DataConfig(**{"image_size": size, **kept, **self.data})

    def _results(self, first, rows):
        keys, images, unfit = self.images.take(first + rows.start, first + rows.stop)
        filled = np.zeros((self._batch, *images.shape[1:]), np.uint8)
        filled[rows] = images
        numbers = {name: values.tolist() for name, values in self._numbers(keys, filled, rows).items()}
        numbers["complexity"] = complexity(images).tolist()
        return [
            {"key": key, "unfit": unfit[position]} if position in unfit else
            {"key": key} | {name: values[position] for name, values in numbers.items()}
            for position, key in enumerate(keys)
        ]

    def _numbers(self, keys, images, rows):
        """{name: [n]} of the keys, whose images are at `rows` of a batch."""

        def ask(endpoint, repeat=0):
            seeds = np.zeros((self._batch, 2), np.int32)
            seeds[rows] = key_seeds(keys, self.seed, repeat)
            answers = self.asked.ask(endpoint, images=images, seed=seeds)
            return {name: answers[name][rows] for name in ENDPOINTS[endpoint].outputs}

        found: dict[str, np.ndarray] = {}
        for endpoint in self.scores:
            if endpoint == "likelihood" and self.num_repeats > 1:
                repeats = [ask(endpoint, repeat) for repeat in range(self.num_repeats)]
                found |= {name: np.mean([one[name] for one in repeats], axis=0, dtype=np.float64) for name in repeats[0]}
                drawn = np.array([one["log_prob"] for one in repeats], np.float64)
                found["log_prob_standard_error"] = drawn.std(axis=0, ddof=1) / np.sqrt(self.num_repeats)
            else:
                found |= ask(endpoint)
        if "reconstruct" in self.asked.endpoints and "reconstruction_error" not in found:
            difference = images[rows].astype(np.float64) - ask("reconstruct")["images"]
            found["reconstruction_error"] = np.square(difference / 256.0).sum(axis=(1, 2, 3))
        return found


@dataclasses.dataclass(frozen=True)
class ScoringHeldOut(Scoring):
    """The scores of held-out images, with which those of others are compared.

    Args:
        split: of the model's run; "": they are those of `data`, of its split "test" where it has several.
        most: the largest number of images, which are taken at equal distances.
    """

    verb = "scoring held-out images"

    split: str = ""
    most: int = 1000

    @functools.cached_property
    def images(self) -> KeyedImages | SpreadImages | SplitImages:
        if not self.split:
            shape = self.asked.image_shape(self.scores[0])
            return SpreadImages(KeyedImages(self._config, shape, self._config.skip_broken_images, "test"), self.most)
        assert self.model.workdir is not None
        try:
            dataset = workdirs.load_data(self.model.workdir)
        except UserError as error:
            raise UserError(
                f"held_out: the {self.split} images of the run cannot be read ({error}); expected --held_out=PLACE, or "
                "--held_out=none for scores that are compared with no others"
            ) from error
        return SplitImages(dataset, self.split, self.most)

    def places(self) -> dict[str, str]:
        return _places(self.model) | {"images": self.split or self._config.dataset}


def _places(model):
    name, value = model.given
    return {name: value}
