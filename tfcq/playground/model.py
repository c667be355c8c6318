"""What the page asks of a model, by the stages of `tfcq sample` and `tfcq score`: files and numbers in, arrays out."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from typing import Any

import numpy as np

from tfcq import workdir as workdirs
from tfcq.bulk.image_stages import SCORES, Scoring
from tfcq.bulk.images import images_of_files
from tfcq.bulk.place import ModelPlace
from tfcq.bulk.stages import Sampling, Stage, data_config
from tfcq.checks import check_integer, class_number
from tfcq.data.transforms import KINDS
from tfcq.errors import UserError
from tfcq.run import REBUILT
from tfcq.seeds import row_seeds

MOST_SAMPLES = 64

RECONSTRUCT_GIVEN, INTERPOLATE_GIVEN = "reconstruct_given_class", "interpolate_given_class"
"""Endpoints of a model whose latents do not say the class of their image."""


class Playground:
    """A model, and what can be asked of it on a page.

    Args:
        place: where the model is.
        data: options of `DataConfig` by which pictures are prepared where that is not as in the model's run; colours are always
            converted to the model's.

    Attributes:
        place: as given.
        asked: the model.

    Raises:
        UserError: no model there, or none that can be read.
    """

    def __init__(self, place: ModelPlace, data: dict[str, Any] | None = None) -> None:
        self.place, self._data = place, dict(data or {})
        self._first = Sampling(place)
        self.asked = self._first.asked

    @property
    def scores(self) -> bool:
        """Whether the model gives images a number by which they can be scored."""
        return any(name in self.asked.endpoints for name in SCORES)

    @property
    def rebuilt(self) -> list[str]:
        """The endpoints by which the model makes an image of an image."""
        return [name for name in (*REBUILT, RECONSTRUCT_GIVEN) if name in self.asked.endpoints]

    @property
    def classes(self) -> list[str]:
        """What `samples` takes as a class: the names of the model's classes; where they are unknown, their numbers."""
        return list(self.asked.class_names) or [str(number) for number in range(self.asked.num_classes)]

    def can(self, endpoint: str) -> bool:
        """Whether the model has an endpoint."""
        return endpoint in self.asked.endpoints

    def sharing(self, stage: Stage) -> Any:
        """A stage of the same place, with this model, which is not loaded again."""
        stage.share_model_of(self._first)
        return stage

    def data_for(self, shape: tuple[int, int, int]) -> dict[str, Any]:
        """The options of `DataConfig` by which pictures become images of a shape."""
        return self._data | {"color": KINDS[shape[2]]}

    def prepared(self, path: str | os.PathLike, endpoint: str, name: str = "images") -> np.ndarray:
        """A picture's file as an endpoint takes it: uint8 [H, W, C], cut, resized and converted as the run's images.

        Raises:
            UserError: a file that cannot be used.
        """
        shape = self.asked.image_shape(endpoint, name)
        try:
            return images_of_files([os.fspath(path)], data_config(self.asked, shape, self.data_for(shape)), shape)[0]
        except UserError as error:  # the folder of uploads says nothing to whoever has dragged the picture in
            raise UserError(str(error).replace(f"{os.path.dirname(os.path.abspath(path))}/", "")) from error

    def samples(self, count: int, temperature: float, seed: int, class_name: str = "") -> np.ndarray:
        """Images 0 to `count` - 1 of `tfcq sample` with this seed: uint8 [count, H, W, C].

        Args:
            count, temperature, seed: as of `tfcq sample`.
            class_name: the class of all of them; "": a model with classes draws each one's.

        Raises:
            UserError: numbers out of bounds, or a class that the model does not have.
        """
        check_integer("number of images", count, 1)
        check_integer("seed", seed, 0)
        if count > MOST_SAMPLES:
            raise UserError(f"number of images: expected at most {MOST_SAMPLES}, received {count}")
        if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0.0 <= temperature < math.inf:
            raise UserError(f"temperature: expected a number of at least 0, received {temperature!r}")
        stage = self.sharing(Sampling(self.place, seed, count, count, temperature, class_name=class_name))
        row_seeds(count, seed)  # refuses a seed that is too large
        return np.concatenate(list(stage.results(range(count))))

    @property
    def interpolation(self) -> str:
        """The endpoint of `between`; "": the model has none."""
        return next((name for name in ("interpolate", INTERPOLATE_GIVEN) if self.can(name)), "")

    def rebuild(self, endpoint: str, image: np.ndarray, class_name: str = "", seed: int = 0) -> np.ndarray:
        """What an endpoint of `rebuilt` makes of an image: uint8 [H, W, C].

        `class_name`: of an endpoint that is given a class; "": the likeliest.
        """
        classes = {"classes": self._class_of(image, class_name, 1, seed)} if endpoint == RECONSTRUCT_GIVEN else {}
        return self.asked.ask(endpoint, images=image[None], seed=row_seeds(1, seed), **classes)["images"][0]

    def class_probabilities(self, image: np.ndarray, seed: int = 0) -> dict[str, float]:
        """{class, as in `classes`: its probability given an image uint8 [H, W, C]}."""
        answer = self.asked.ask("class_probabilities", images=image[None], seed=row_seeds(1, seed))
        return dict(zip(self.classes, answer["probabilities"][0].tolist(), strict=True))

    def between(
        self, first: np.ndarray, second: np.ndarray, count: int, spherical: bool, class_name: str = "", seed: int = 0
    ) -> np.ndarray:
        """Images on the way between two, at equal distances: uint8 [count, H, W, C]; the ends are their reconstructions.

        `class_name`: of both, where the way is given a class; "": the likeliest of the first.
        """
        given = self.interpolation == INTERPOLATE_GIVEN
        classes = {"classes": self._class_of(first, class_name, count, seed)} if given else {}
        first, second, seeds = (np.repeat(row, count, axis=0) for row in (first[None], second[None], row_seeds(1, seed)))
        way = {"share": np.linspace(0.0, 1.0, count, dtype=np.float32), "spherical": np.full(count, bool(spherical))}
        return self.asked.ask(self.interpolation, images=first, other_images=second, seed=seeds, **way, **classes)["images"]

    def _class_of(self, image, class_name, count, seed):
        """The number of a class, or of the likeliest of an image, `count` times: int32 [count]."""
        if class_name:
            number = class_number(self.asked.class_names, class_name)
        else:
            names = self.class_probabilities(image, seed)
            number = self.classes.index(max(names, key=names.__getitem__))
        return np.full(count, number, np.int32)

    def super_resolve(self, compressed: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
        """So many images uint8 [count, H, W, C] drawn for a compressed one, uint8 [h, w, c]."""
        rows = np.repeat(compressed[None], count, axis=0)
        return self.asked.ask("super_resolve", compressed=rows, seed=row_seeds(count, seed))["images"]

    def numbers_of(self, image: np.ndarray) -> dict[str, Any]:
        """The numbers that `tfcq score` gives an image uint8 [H, W, C], by column, where its file is named picture.png."""
        stage = self.sharing(_ScoringOne(self.place, 0, 1, image=image))
        ((row,),) = stage.results(range(1))
        return row

    @property
    def score_endpoint(self) -> str:
        """The endpoint whose images are scored."""
        return next(name for name in SCORES if self.can(name))


class _OneImage:
    """An image as those of a stage. Its key is the same for every image, so that its draws are: as of a file picture.png."""

    def __init__(self, image: np.ndarray) -> None:
        self._images = image[None]

    def __len__(self):
        return 1

    def take(self, start, stop):
        return ["picture.png"][start:stop], self._images[start:stop], {}


@dataclasses.dataclass(frozen=True)
class _ScoringOne(Scoring):
    """The scores of one image, which is given."""

    image: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0, 1), np.uint8))

    @functools.cached_property
    def images(self) -> Any:
        return _OneImage(self.image)


@dataclasses.dataclass(frozen=True)
class About:
    """What the page says of its model.

    Attributes:
        name: of the run, of the exported model, or of the served one.
        sentences: what it is, what it was trained on, in which state it is.
        card: the model card of an export, Markdown; "": none.
    """

    name: str
    sentences: list[str]
    card: str = ""


def about(playground: Playground) -> About:
    """What is known of a model by its place: all of a run, of an export its card, of a served model name and version."""
    place, asked = playground.place, playground.asked
    if place.server:
        address, model = place.address_and_model()
        return About(model, [f"A model that is served at {address}: {asked.state}."])
    if place.export is not None:
        folder = place.version()
        card = folder / "MODEL_CARD.md"
        text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
        return About(folder.parent.name, [f"An exported model: {asked.state}."], text)
    assert place.workdir is not None and asked.config is not None
    data, sizes = asked.config.data, workdirs.kept_sizes(place.workdir)
    count = f"{sizes['train']:,} images of " if "train" in sizes else ""
    height, width, channels = workdirs.read_image_shape(place.workdir)
    return About(
        place.workdir.name,
        [
            f"A {asked.config.model} model, trained on {count}{data.dataset}: {width}x{height} pixels, {KINDS[channels]}.",
            f"Of {asked.config.training.train_steps:,} planned steps it is shown at {asked.state}.",
        ],
    )
