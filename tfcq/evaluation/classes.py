"""What a model with classes knows of real images' classes, its numbers by class, and how many images of each are drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from tfcq.data.splits import fixed_permutation
from tfcq.evaluation.likelihood import stream
from tfcq.evaluation.streaming import Sharded
from tfcq.images import bits_per_dim
from tfcq.metrics.registry import numbers_of

if TYPE_CHECKING:
    from tfcq.models.base import GenerativeModel


class ClassEvaluator:
    """Evaluates `class_probabilities` of a model, and compares them with the images' classes.

    Args:
        model: a `GenerativeModel` with classes.
        strategy: as of `LikelihoodEvaluator`.
    """

    meanings = {name: number.meaning for name, number in numbers_of("classes").items()}
    """{name of a number: its meaning}."""

    def __init__(self, model: GenerativeModel, strategy: tf.distribute.Strategy | None = None) -> None:
        specs = (
            tf.TensorSpec((None, *model.image_shape), tf.uint8),
            tf.TensorSpec((None, 2), tf.int32),
            tf.TensorSpec((None,), tf.int32),
        )
        self._model = model
        self._asked = Sharded(
            lambda images, seeds, counts: model.class_probabilities(images, seeds, counts[0]), specs, strategy
        )

    def entries(
        self,
        batches: Iterable[np.ndarray],
        classes: np.ndarray,
        num_importance_samples: int = 1,
        seed: int = 0,
        progress: Callable[[int], None] | None = None,
    ) -> dict[str, dict[str, Any]]:
        """{name: {"value": mean over the images, "standard_error", "num_images", "meaning", "by_class"}} for `meanings`.

        "bits_per_dim_given_class" is of a density of images alone.

        Args:
            batches: uint8 [n, H, W, C] each.
            classes: of the images, numbers [N].
            num_importance_samples: K of a likelihood of images.
            seed: of the draws; image i has (seed, i).
            progress: called with the number of images that are done.
        """

        def asked(images, seeds):
            return self._asked(images, seeds, np.full(len(images), num_importance_samples, np.int32))

        answers = stream(asked, batches, self._model.image_shape, seed, progress)
        right = (answers["probabilities"].argmax(axis=-1) == classes).astype(np.float64)
        given = answers["log_prob_given_class"][np.arange(len(classes)), classes]
        measured = {"class_accuracy": right, "log_prob_given_class": given}
        of_images = "likelihood" in self._model.abilities
        if of_images:
            measured["bits_per_dim_given_class"] = bits_per_dim(given, self._model.image_shape)
        found: dict[str, dict[str, Any]] = {}
        for name, values in measured.items():
            error = {"standard_error": float(values.std(ddof=1) / np.sqrt(len(values)))} if len(values) > 1 else {}
            found[name] = {"value": float(values.mean())} | error
            found[name] |= {"num_images": len(values), "meaning": self.meanings[name]}
            found[name] |= {"num_importance_samples": num_importance_samples} if of_images else {}
            found[name]["by_class"] = by_class(values, classes, self._model.class_names)
        return found


def allotted(shares: ArrayLike, count: int) -> np.ndarray:
    """Classes for `count` images, numbers int32 [count]: of each as many as its share says, in a fixed random order.

    What is left after rounding down goes to the largest remainders. `shares`: [classes], >= 0, sum 1.
    """
    exact = np.asarray(shares, np.float64) * count
    counts = np.floor(exact).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: count - counts.sum()]] += 1
    return np.repeat(np.arange(len(counts), dtype=np.int32), counts)[fixed_permutation(count)]


def by_class(values: np.ndarray, classes: np.ndarray, names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """{name of a class that images have: {"value": mean of theirs, "num_images"}}.

    Args:
        values: one for each image, [N].
        classes: the images' classes, numbers [N].
        names: of the classes.
    """
    means = {}
    for number, name in enumerate(names):
        if (here := classes == number).any():
            means[name] = {"value": float(values[here].mean()), "num_images": int(here.sum())}
    return means
