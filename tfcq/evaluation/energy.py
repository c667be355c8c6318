"""How well a model's energy tells generated images from real ones, image by image."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from tfcq.evaluation.likelihood import likelihood_auroc
from tfcq.evaluation.streaming import Sharded
from tfcq.metrics.registry import TABLE
from tfcq.randomness import row_seeds

if TYPE_CHECKING:
    from tfcq.models.base import GenerativeModel

NUMBER = "energy_auroc"
"""The name of the number in metrics.json."""


class EnergyEvaluator:
    """Measures the energies of real and of generated images; make it once and use it for every evaluation.

    Args:
        model: a `GenerativeModel` with the ability energy.
        strategy: the tf.distribute strategy in whose scope it was made; None: one device does the work.
    """

    def __init__(self, model: GenerativeModel, strategy: tf.distribute.Strategy | None = None) -> None:
        images, seeds = tf.TensorSpec((None, *model.image_shape), tf.uint8), tf.TensorSpec((None, 2), tf.int32)

        temperatures = tf.TensorSpec((None,), tf.float32)

        def of_generated(rows, temperatures):
            return model.energy(model.sample(rows, temperatures), rows)

        self._of_real = Sharded(model.energy, (images, seeds), strategy)
        self._of_generated = Sharded(of_generated, (seeds, temperatures), strategy)

    def entry(
        self,
        batches: Iterable[np.ndarray],
        seed: int = 0,
        temperature: float = 1.0,
        progress: Callable[[int], None] = lambda count: None,
    ) -> dict:
        """{"value": the AUROC, mean energies and counts} of real images and as many samples; sample i has the seed (seed, i).

        The AUROC is NaN if an energy is not finite.

        Args:
            batches: of real images, uint8 [n, H, W, C].
            seed: of the samples.
            temperature: scales the prior's standard deviation.
            progress: called with the number of real images that are done.
        """
        real: list[np.ndarray] = []
        generated: list[np.ndarray] = []
        count = 0
        for images in batches:
            seeds = row_seeds(len(images), seed, count)
            real.append(np.asarray(self._of_real(images, seeds), np.float64))
            generated.append(np.asarray(self._of_generated(seeds, np.full(len(seeds), temperature, np.float32)), np.float64))
            count += len(images)
            progress(count)
        of_real, of_generated = np.concatenate(real), np.concatenate(generated)
        finite = np.isfinite(of_real).all() and np.isfinite(of_generated).all()
        return {
            "value": likelihood_auroc(of_real, of_generated) if finite else float("nan"),
            "energy_real": float(of_real.mean()),
            "energy_generated": float(of_generated.mean()),
            "num_images": count,
            "num_generated": count,
            "temperature": temperature,
            "meaning": TABLE["energy"].meaning,
        }
