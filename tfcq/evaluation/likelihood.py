"""Likelihoods of images, or of their latents, under a model: one value per image, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tfcq.checks import check_images
from tfcq.evaluation.streaming import Sharded
from tfcq.images import bits_per_dim
from tfcq.metrics.registry import numbers_of
from tfcq.randomness import row_seeds

if TYPE_CHECKING:
    from tfcq.models.base import GenerativeModel


class LikelihoodEvaluator:
    """Compiled ELBO and importance-weighted estimate of one model; make it once and use it for every evaluation.

    Image i of a pass gets the seed (seed, i): a repeated evaluation gives the same numbers, in batches of any size.

    Args:
        model: a `GenerativeModel` with a likelihood. strategy: the tf.distribute strategy in whose scope it was made; its
        replicas divide the work. None: one device does it.
    """

    def __init__(self, model: GenerativeModel, strategy: tf.distribute.Strategy | None = None) -> None:
        images = tf.TensorSpec((None, *model.image_shape), tf.uint8)
        seeds = tf.TensorSpec((None, 2), tf.int32)
        counts = tf.TensorSpec((None,), tf.int32)
        self._image_shape = model.image_shape
        self._elbo = Sharded(model.elbo_terms, (images, seeds), strategy)
        self._log_prob = Sharded(
            lambda images, seeds, counts: model.log_prob(images, seeds, counts[0]), (images, seeds, counts), strategy
        )

    def elbo_terms(
        self, batches: Iterable[np.ndarray], seed: int = 0, progress: Callable[[int], None] | None = None
    ) -> dict[str, np.ndarray]:
        """{name: float64 [N], nats}: "elbo" of each image of `batches` (uint8 [n, H, W, C] each), and its terms."""
        return stream(self._elbo, batches, self._image_shape, seed, progress)

    def log_prob(
        self,
        batches: Iterable[np.ndarray],
        num_importance_samples: int,
        seed: int = 0,
        progress: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """Importance-weighted log-likelihood of each image with K draws, float64 [N], nats."""

        def log_prob(images, seeds):
            return self._log_prob(images, seeds, np.full(len(images), num_importance_samples, np.int32))

        return stream(log_prob, batches, self._image_shape, seed, progress)

    def bits_per_dim(self, log_probs: np.ndarray | float) -> np.ndarray:
        """Bits/dim [N] of per-image nats [N]."""
        return bits_per_dim(log_probs, self._image_shape)

    def summary(self, log_probs: np.ndarray) -> dict:
        """{"nats", "bits_per_dim", "bits_per_dim_standard_error", "num_images"} of per-image nats [N]."""
        bits = self.bits_per_dim(log_probs)
        error = bits.std(ddof=1) / np.sqrt(len(bits)) if len(bits) > 1 else None
        return {
            "nats": float(log_probs.mean()),
            "bits_per_dim": float(bits.mean()),
            "bits_per_dim_standard_error": None if error is None else float(error),
            "num_images": len(bits),
        }

    def parts(self, terms: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
        """{"terms": {name: mean in nats}, "terms_bits_per_dim": {name: mean}} of the terms of bounds, {name: [N], nats}."""
        nats = {name: float(term.mean()) for name, term in terms.items()}
        bits = {name: -float(self.bits_per_dim(term)) for name, term in nats.items()}
        return {"terms": nats, "terms_bits_per_dim": bits}


class LatentLikelihoodEvaluator:
    """Evaluates `latent_likelihood` of a model that is a density of latents and not of images; like `LikelihoodEvaluator`."""

    meanings = {name: number.meaning for name, number in numbers_of("latent_likelihood").items()}
    """{name of a number: its meaning}."""

    def __init__(self, model: GenerativeModel, strategy: tf.distribute.Strategy | None = None) -> None:
        images, seeds = tf.TensorSpec((None, *model.image_shape), tf.uint8), tf.TensorSpec((None, 2), tf.int32)
        self._image_shape = model.image_shape
        self._terms = Sharded(model.latent_likelihood, (images, seeds), strategy)

    def entries(
        self, batches: Iterable[np.ndarray], seed: int = 0, progress: Callable[[int], None] | None = None
    ) -> dict[str, dict]:
        """{name: {"value": mean over the images, "standard_error", "num_images", "meaning"}} for the names in `meanings`."""
        found: dict[str, dict] = {}
        for name, values in stream(self._terms, batches, self._image_shape, seed, progress).items():
            error = {"standard_error": float(values.std(ddof=1) / np.sqrt(len(values)))} if len(values) > 1 else {}
            found[name] = {"value": float(values.mean())} | error
            found[name] |= {"num_images": len(values), "meaning": self.meanings[name]}
        return found


def stream(
    function: Callable[..., Any],
    batches: Iterable[np.ndarray],
    image_shape: tuple[int, int, int],
    seed: int,
    progress: Callable[[int], None] | None,
) -> Any:
    """`function(images, seeds)` of all batches, as float64 [N, ...]; image i of all has the seed (seed, i)."""
    values, start = [], 0
    for images in batches:
        images = check_images(images, "images", image_shape)
        values.append(function(images, row_seeds(len(images), seed, start)))
        start += len(images)
        if progress:
            progress(start)
    return tf.nest.map_structure(lambda *parts: np.concatenate(parts).astype(np.float64), *values)


def likelihood_auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    """Area under the ROC curve of detecting `outside` (bits/dim [M]) among `inside` ([N]) by the higher bits/dim.

    That is P(outside > inside) with ties counted half (Mann and Whitney's U / (N M)): 1/2 is chance; below
    it, the other data set is likelier than the model's own, which does happen (Nalisnick et al. 2019).
    """
    # Imported here: otherwise every training would wait for them.
    from scipy.stats import rankdata
    from sklearn.metrics import roc_auc_score

    # roc_auc_score refuses infinite scores; ranks are finite, and ties stay ties.
    ranks = rankdata(np.concatenate([inside, outside]))
    return float(roc_auc_score([False] * len(inside) + [True] * len(outside), ranks))
