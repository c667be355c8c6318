"""What is computed of each image of a data set: its scores (`Scoring`), its latents (`Encoding`). See `stages`."""

from __future__ import annotations

import abc
import dataclasses
import functools
from typing import Any

import numpy as np

from tfcq import workdir as workdirs
from tfcq.bulk.complexity import COMPRESSIONS, complexity
from tfcq.bulk.images import KeyedImages, SplitImages, SpreadImages, key_seeds
from tfcq.bulk.stages import Stage, data_config
from tfcq.checks import class_number
from tfcq.config.data import PREPARATION
from tfcq.endpoints import ENDPOINTS
from tfcq.errors import UserError

SCORES = ("likelihood", "latent_likelihood", "energy")
"""The endpoints that give an image numbers by which it is scored."""

_PREPARED = (*PREPARATION, "skip_broken_images")


@dataclasses.dataclass(frozen=True)
class OfImages(Stage):
    """A function of each image of a data set: row i is image i of `KeyedImages`, whose seed is a hash of its key.

    Args:
        data: the data set, and how its images are prepared where that is not as in the model's run: options of `DataConfig`.
    """

    data: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    @abc.abstractmethod
    def endpoint(self) -> str:
        """The endpoint whose images decide their size and colours."""

    @property
    def count(self) -> int:
        return len(self.images)

    @functools.cached_property
    def images(self) -> KeyedImages | SpreadImages | SplitImages:
        """The images, listed when they are first used."""
        return KeyedImages(self._config, self.asked.image_shape(self.endpoint), self._config.skip_broken_images)

    def options(self) -> dict[str, Any]:
        return {"images": self.images.digest} | {name: getattr(self._config, name) for name in _PREPARED}

    def places(self) -> dict[str, str]:
        return super().places() | {"images": self._config.dataset}

    def content(self) -> dict[str, str]:
        return self.images.some_content()

    @functools.cached_property
    def _config(self):
        return data_config(self.asked, self.asked.image_shape(self.endpoint), self.data)

    def _seeds(self, keys, rows, repeat=0):
        """Seeds of a batch, in which the keys' are at `rows`."""
        seeds = np.zeros((self._batch, 2), np.int32)
        seeds[rows] = key_seeds(keys, self.seed, repeat)
        return seeds

    def _filled(self, images, rows):
        """A batch in which `images` are at `rows`."""
        filled = np.zeros((self._batch, *images.shape[1:]), np.uint8)
        filled[rows] = images
        return filled


@dataclasses.dataclass(frozen=True)
class Scoring(OfImages):
    """The scores of each image of a data set.

    They are the numbers of `SCORES` that the model has; "log_prob_standard_error" over the repeats; "reconstruction_error" also
    of a model that reconstructs and says none itself, by its 8-bit reconstruction; and the image's `complexity`.

    Args:
        num_repeats: how many times a likelihood is computed, each with draws of its own: "log_prob" is the mean.
    """

    name = "likelihood"
    verb = "scoring"

    num_repeats: int = 1

    @property
    def format(self) -> str:
        return "rows"

    @property
    def endpoint(self) -> str:
        return self.scores[0]

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

    def options(self) -> dict[str, Any]:
        draws = {} if self.model.workdir is None else {"num_importance_samples": self.model.num_importance_samples}
        if self.num_repeats > 1 and "likelihood" not in self.scores:
            raise UserError(f"num_repeats={self.num_repeats}: repeats are of likelihoods, and this model has none; expected 1")
        scores = {"num_repeats": self.num_repeats, "scores": list(self.scores), "compressions": COMPRESSIONS}
        return super().options() | draws | scores

    def _results(self, first, rows):
        keys, images, unfit = self.images.take(first + rows.start, first + rows.stop)
        numbers = {name: values.tolist() for name, values in self._numbers(keys, self._filled(images, rows), rows).items()}
        numbers["complexity"] = complexity(images).tolist()
        return [
            {"key": key, "unfit": unfit[position]} if position in unfit else
            {"key": key} | {name: values[position] for name, values in numbers.items()}
            for position, key in enumerate(keys)
        ]

    def _numbers(self, keys, images, rows):
        """{name: [n]} of the keys, whose images are at `rows` of a batch."""

        def ask(endpoint, repeat=0):
            answers = self.asked.ask(endpoint, images=images, seed=self._seeds(keys, rows, repeat))
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
            shape = self.asked.image_shape(self.endpoint)
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
        return super().places() | ({"images": self.split} if self.split else {})


@dataclasses.dataclass(frozen=True)
class Encoding(OfImages):
    """The latents of each image of a data set: {"keys", str [n], "latents", float32 [n, ...], "unfit", str [n]}.

    `unfit` says why an image cannot be used, with latents of NaN; "": it can.

    Args:
        class_name: the class of all images, by its name or number, where it has `encode_given_class`; "": where it has `encode`.
    """

    name = "encode"
    verb = "encoding"

    class_name: str = ""

    @property
    def format(self) -> str:
        return "latents"

    @property
    def endpoint(self) -> str:
        return "encode_given_class" if self.class_name else "encode"

    def options(self) -> dict[str, Any]:
        return super().options() | ({"class": self._class} if self.class_name else {})

    @functools.cached_property
    def _class(self):
        return class_number(self.asked.class_names, self.class_name)

    def _results(self, first, rows):
        keys, images, unfit = self.images.take(first + rows.start, first + rows.stop)
        asked = {"images": self._filled(images, rows), "seed": self._seeds(keys, rows)}
        if self.class_name:
            asked["classes"] = np.full(self._batch, self._class, np.int32)
        latents = np.array(self.asked.ask(self.endpoint, **asked)["latents"][rows])
        latents[list(unfit)] = np.nan
        notes = [unfit.get(position, "") for position in range(len(keys))]
        return {"keys": np.array(keys), "latents": latents, "unfit": np.array(notes)}
