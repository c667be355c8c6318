"""Likelihoods of a model over batches of images, per image, streamed."""

import numpy as np
import tensorflow as tf

from tfcq.images import bits_per_dim
from tfcq.randomness import row_seeds


class LikelihoodEvaluator:
    """Compiled ELBO and importance-weighted estimate of one model; make it once and use it for every evaluation.

    Image i of a pass gets the seed (seed, i): a repeated evaluation gives the same numbers, in batches of any size.
    """

    def __init__(self, model):
        images = tf.TensorSpec((None, *model.image_shape), tf.uint8)
        seeds = tf.TensorSpec((None, 2), tf.int32)
        count = tf.TensorSpec((), tf.int32)
        self._image_shape = model.image_shape
        self._elbo = tf.function(model.elbo, input_signature=(images, seeds))
        self._log_prob = tf.function(model.log_prob, input_signature=(images, seeds, count))

    def elbo(self, batches, seed=0, progress=None):
        """ELBO of each image of `batches` (uint8 [n, H, W, C] each), float64 [N], nats."""
        return self._stream(self._elbo, batches, seed, progress)

    def log_prob(self, batches, num_importance_samples, seed=0, progress=None):
        """Importance-weighted log-likelihood of each image with K draws, float64 [N], nats."""
        count = tf.constant(num_importance_samples, tf.int32)
        return self._stream(lambda images, seeds: self._log_prob(images, seeds, count), batches, seed, progress)

    @staticmethod
    def _stream(function, batches, seed, progress):
        values, start = [], 0
        for images in batches:
            values.append(function(images, row_seeds(len(images), seed, start)).numpy().astype(np.float64))
            start += len(images)
            if progress:
                progress(start)
        return np.concatenate(values)

    def summary(self, log_probs):
        """{"nats", "bits_per_dim", "bits_per_dim_standard_error", "num_images"} of per-image nats [N]."""
        bits = bits_per_dim(log_probs, self._image_shape)
        error = bits.std(ddof=1) / np.sqrt(len(bits)) if len(bits) > 1 else None
        return {
            "nats": float(log_probs.mean()),
            "bits_per_dim": float(bits.mean()),
            "bits_per_dim_standard_error": None if error is None else float(error),
            "num_images": len(bits),
        }
