"""Grids of images that a model makes from fixed seeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from tfcq.checks import class_number
from tfcq.endpoints import ENDPOINTS
from tfcq.errors import UserError
from tfcq.grids import grid
from tfcq.randomness import RowNoise, row_seeds

if TYPE_CHECKING:
    from tfcq.data import ImageDataset
    from tfcq.models.base import GenerativeModel

_BATCH = 64


class Pictures:
    """Draws grids with one model. Its functions are compiled once, when first used; its weights may change between calls.

    Args:
        model: a `GenerativeModel`. A method that needs an ability which it lacks raises UserError.
    """

    def __init__(self, model: GenerativeModel) -> None:
        self._model = model
        self._compiled: dict[str, Callable[..., tf.Tensor]] = {}

    def ability_of(self, mode: str, class_name: str | int = "") -> str:
        """The ability that a mode of `tfcq.Run.picture` with given images needs; of a class that which is given it.

        Variations of a model whose latents do not depend on the class are on the way to samples of the class.
        """
        ability = "interpolate" if mode in ("interpolate", "interpolate_outer", "variations") else mode
        given = f"{ability}_given_class"
        return ability if class_name == "" or (mode == "variations" and given not in self._model.abilities) else given

    def samples(
        self, num_images: int, seed: int = 0, temperature: float = 1.0, class_name: str | int = ""
    ) -> np.ndarray:
        """uint8 [num_images, H, W, C] from the prior, or of a class; image i has the seed (seed, i)."""
        seeds, temperatures = row_seeds(num_images, seed), np.full(num_images, temperature, np.float32)
        if class_name == "":
            return self._run("sample", seeds, temperatures)
        self._model.require("sample_class")
        number = class_number(self._model.class_names, class_name)
        return self._run("sample_class", np.full(num_images, number, np.int32), seeds, temperatures)

    def prior_grid(
        self, num_images: int, seed: int = 0, temperature: float = 1.0, class_name: str | int = ""
    ) -> np.ndarray:
        """A grid of new images: of a class, if one is given; of a model with classes a row each, all rows of the same noise.

        `num_images`: of all classes together, rounded up to whole rows.
        """
        names = self._model.class_names
        if class_name != "" or not names:
            return grid(self.samples(num_images, seed, temperature, class_name))
        columns = -(-num_images // len(names))
        rows = [self.samples(columns, seed, temperature, name) for name in names]
        return grid(np.concatenate(rows), columns)

    def sample_grid(self, num_images: int, seed: int = 0, temperature: float = 1.0) -> np.ndarray:
        """A grid of `samples`: uint8 [height, width, C]."""
        return grid(self.samples(num_images, seed, temperature))

    def reconstruction_grid_of(self, dataset: ImageDataset, split: str, count: int, seed: int = 0) -> np.ndarray | None:
        """`reconstruction_grid` of the first images of a split, or of fewer; None: the model reconstructs none.

        Where it reconstructs images given their class, it gets the data set's; None also if the model has not all of them.
        """
        rows = range(min(count, dataset.num_images(split)))
        if "reconstruct" in self._model.abilities:
            return self.reconstruction_grid(dataset.images(split, rows), seed)
        if "reconstruct_given_class" not in self._model.abilities:
            return None
        try:
            classes = dataset.classes_of(split, self._model.class_names)[rows.start : rows.stop]
        except UserError:
            return None
        images = dataset.images(split, rows)
        return _pairs(images, self._run("reconstruct_given_class", images, classes, row_seeds(len(images), seed)))

    def reconstruction_grid(
        self, images: np.ndarray, seed: int = 0, ability: str = "reconstruct", class_name: str | int = ""
    ) -> np.ndarray:
        """Pairs of an image and its reconstruction, uint8 [height, width, C], for uint8 [N, H, W, C].

        Args:
            images: uint8 [N, H, W, C].
            seed: seed of the random draws.
            ability: "reconstruct" or "generative_reconstruct".
            class_name: the class of the images, its name or number; "": the model needs none.
        """
        rebuilt = self._of_images(ability, class_name, images=images, seeds=row_seeds(len(images), seed))
        return _pairs(images, rebuilt)

    def variation_grid(
        self,
        images: np.ndarray,
        num_variations: int,
        strength: float,
        seed: int = 0,
        temperature: float = 1.0,
        class_name: str | int = "",
    ) -> np.ndarray:
        """Images, their reconstructions and variations, uint8 [height, width, C]: a row an image, or a square of a single one.

        Variation i is at `strength` of the way from the image to sample i of `samples`, along a great circle.

        Args:
            images: uint8 [N, H, W, C].
            num_variations: of each image.
            strength: from 0, the reconstruction, to 1, that of the sample.
            seed, temperature, class_name: of the samples.
        """
        seeds = row_seeds(num_variations, seed)
        others = self.samples(num_variations, seed, temperature, class_name)
        # The first share is of the reconstruction.
        shares = np.array([0.0] + [strength] * num_variations, np.float32)
        ways = {"share": shares, "spherical": np.ones(len(shares), bool), "seeds": np.concatenate([seeds[:1], seeds])}
        ways["other_images"] = np.concatenate([others[:1], others])

        def row(image):
            repeated = np.repeat(image[None], len(shares), 0)
            return np.concatenate([image[None], self._of_images("variations", class_name, images=repeated, **ways)])

        rows = [row(image) for image in images]
        if len(rows) == 1:
            return grid(rows[0])
        labels = ("image", "recon.", "variations", *[""] * (num_variations - 1))
        return grid(np.concatenate(rows), len(rows[0]), labels)

    def super_resolution_grid(self, images: np.ndarray, num_draws: int = 4, seed: int = 0) -> np.ndarray:
        """A row for each image: the image, its compressed image enlarged, and images drawn given the compressed one.

        Args:
            images: uint8 [N, H, W, C].
            num_draws: number of images drawn for each.
            seed: seed of the draws.

        Raises:
            UserError: a model without super-resolution.
        """
        self._model.require("super_resolve")
        compressed = self._model.compress(images)
        rows, shape = len(images), images.shape[1:]
        repeated = np.repeat(compressed, num_draws, axis=0)
        drawn = self._run("super_resolve", repeated, row_seeds(len(repeated), seed)).reshape(rows, num_draws, *shape)
        cells = np.concatenate([images[:, None], _enlarged(compressed, shape)[:, None], drawn], axis=1)
        return grid(cells.reshape(-1, *shape), 2 + num_draws, ("image", "small", "drawn", *[""] * (num_draws - 1)))

    def stages_grid(self, num_images: int, seed: int = 0, temperature: float = 1.0) -> np.ndarray:
        """Pairs of a generated compressed image, enlarged, and the image that is generated of it: those of `samples`.

        Only of a model with `draw_stages` (srVAE).
        """

        def stages(seeds, temperatures):
            return self._model.draw_stages(RowNoise(seeds), temperatures)

        arrays = row_seeds(num_images, seed), np.full(num_images, temperature, np.float32)
        compressed, images = self._batches(tf.function(stages, autograph=False, reduce_retracing=True), *arrays)
        pairs = np.stack([_enlarged(compressed, images.shape[1:]), images], axis=1)
        columns = 2 * max(1, round(np.sqrt(num_images / 2)))
        return grid(pairs.reshape(-1, *images.shape[1:]), columns, ("small", "sample"))

    def interpolation_grid(
        self,
        images: np.ndarray,
        num_steps: int = 8,
        seed: int = 0,
        spherical: bool = False,
        outer: bool = False,
        class_name: str | int = "",
    ) -> np.ndarray:
        """A row for each pair of neighbours (0 and 1, 2 and 3, ...): the model's interpolation between them, both ends
        included.

        Args:
            images: uint8 [N, H, W, C]; an odd last one is left out.
            num_steps: number of images in a row.
            seed: seed of the dequantisation.
            spherical: see `GenerativeModel.interpolate`.
            outer: whether to change u alone, the latents of the first of two stages; only of a model with `interpolate_outer`
                (srVAE).
            class_name: the class of the images, its name or number; "": the model needs none.

        Raises:
            UserError: fewer than two images or steps, or a model without latents of images.
        """
        if len(images) < 2 or num_steps < 2:
            raise UserError(f"interpolate: expected at least 2 images and 2 steps, received {len(images)} and {num_steps}")
        first, second = (images[start : len(images) // 2 * 2 : 2] for start in (0, 1))
        pairs = len(first)
        fractions = np.tile(np.linspace(0.0, 1.0, num_steps, dtype=np.float32), pairs)
        first, second, seeds = (np.repeat(rows, num_steps, axis=0) for rows in (first, second, row_seeds(pairs, seed)))
        paths = np.full(len(fractions), spherical)
        if not outer:
            way = {"images": first, "other_images": second, "share": fractions, "spherical": paths, "seeds": seeds}
            between = self._of_images("interpolate", class_name, **way)
        else:
            function = tf.function(self._model.interpolate_outer, autograph=False, reduce_retracing=True)
            between = self._batches(function, first, second, fractions, paths)
        return grid(between, num_steps, _shares(num_steps))

    def noise_interpolation_grid(
        self, num_pairs: int, num_steps: int = 8, seed: int = 0, spherical: bool = False, temperature: float = 1.0
    ) -> np.ndarray:
        """A row for each pair of neighbours among `samples` (0 and 1, 2 and 3, ...): the path between their noise, both ends
        included.

        Args:
            num_pairs: number of rows.
            num_steps: number of images in a row, at least 2.
            seed: sample i has the seed (seed, i).
            spherical: see `GenerativeModel.interpolate`.
            temperature: scales the prior's standard deviation.

        Raises:
            UserError: a model without samples, or fewer than two steps.
        """
        if num_pairs < 1 or num_steps < 2:
            raise UserError(f"interpolate_noise: expected at least 1 pair and 2 steps, received {num_pairs} and {num_steps}")
        count = num_pairs * num_steps
        fractions = np.tile(np.linspace(0.0, 1.0, num_steps, dtype=np.float32), num_pairs)
        first, second = np.repeat(row_seeds(2 * num_pairs, seed).reshape(num_pairs, 2, 2), num_steps, axis=0).swapaxes(0, 1)
        temperatures = np.full(count, temperature, np.float32)
        between = self._run("interpolate_noise", first, second, fractions, np.full(count, spherical), temperatures)
        return grid(between, num_steps, _shares(num_steps))

    def _of_images(self, mode, class_name, **arrays):
        """What the ability of a mode answers to arrays by their names in `ENDPOINTS`, given a class where it needs one."""
        ability = self.ability_of(mode, class_name)
        self._model.require(ability)
        inputs = ENDPOINTS[ability].inputs
        if "classes" in inputs:
            arrays["classes"] = np.full(len(arrays["images"]), class_number(self._model.class_names, class_name), np.int32)
        return self._run(ability, *(arrays[name] for name in inputs))

    def _run(self, ability, *arrays):
        if ability not in self._model.abilities:
            raise self._model.cannot(ability)
        if ability not in self._compiled:
            self._compiled[ability] = tf.function(getattr(self._model, ability), autograph=False, reduce_retracing=True)
        return self._batches(self._compiled[ability], *arrays)

    @staticmethod
    def _batches(function, *arrays):
        """What a function answers to the rows of arrays, a batch at a time: an array, or a tuple of several."""
        starts = range(0, len(arrays[0]), _BATCH)
        answers = [function(*(array[start : start + _BATCH] for array in arrays)) for start in starts]
        joined = [np.concatenate(parts) for parts in zip(*map(tf.nest.flatten, answers))]
        return joined if isinstance(answers[0], tuple) else joined[0]


def _pairs(images, rebuilt):
    """A grid of images [N, H, W, C], each with what was made of it beside it."""
    pairs = np.stack([images, rebuilt], axis=1).reshape(-1, *images.shape[1:])
    columns = 2 * max(1, round(np.sqrt(len(pairs)) / 2))
    return grid(pairs, columns, ("image", "recon."))


def _shares(num_steps):
    """Labels of interpolations: how far each column is from the first image to the last."""
    return [f"{share:.2g}" for share in np.linspace(0.0, 1.0, num_steps)]


def _enlarged(compressed, shape):
    """Compressed images uint8 [N, h, w, c], each pixel repeated, as images [N, *shape]."""
    compressed = np.asarray(compressed)
    times = shape[0] // compressed.shape[1]
    larger = compressed.repeat(times, 1).repeat(times, 2)
    return np.broadcast_to(larger, (len(larger), *shape))  # a compressed image may have one channel
