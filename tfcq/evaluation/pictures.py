"""Grids of images that a model makes from fixed seeds."""

import numpy as np
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.images import grid
from tfcq.randomness import row_seeds

_BATCH = 64


def _in_batches(function, *arrays):
    compiled = tf.function(function, reduce_retracing=True)
    count = len(arrays[0])
    parts = [
        compiled(*(array[start : start + _BATCH] for array in arrays)).numpy() for start in range(0, count, _BATCH)
    ]
    return np.concatenate(parts)


def samples(model, num_images, seed=0, temperature=1.0):
    """uint8 [num_images, H, W, C] from the prior; image i has the seed (seed, i)."""
    if "sample" not in model.abilities:
        raise model.cannot("sample")
    temperatures = np.full(num_images, temperature, np.float32)
    return _in_batches(model.sample, row_seeds(num_images, seed), temperatures)


def sample_grid(model, num_images, seed=0, temperature=1.0):
    """A grid of `samples`: uint8 [H, W, C]."""
    return grid(samples(model, num_images, seed, temperature))


def reconstruction_grid(model, images, seed=0):
    """Rows of pairs, each image beside its reconstruction: uint8 [H, W, C]."""
    if "reconstruct" not in model.abilities:
        raise model.cannot("reconstruct")
    rebuilt = _in_batches(model.reconstruct, images, row_seeds(len(images), seed))
    pairs = np.stack([images, rebuilt], axis=1).reshape(-1, *images.shape[1:])
    columns = 2 * max(1, round(np.sqrt(len(pairs)) / 2))
    return grid(pairs, columns)


def interpolation_grid(model, images, num_steps=8, seed=0):
    """A row for each pair of neighbouring images (0 and 1, 2 and 3, ...): linear between their latents, both ends included.

    Raises:
        UserError: fewer than two images, or a model without latents.
    """
    if not {"encode", "decode"} <= model.abilities:
        raise model.cannot("interpolate (encode and decode)")
    if len(images) < 2 or num_steps < 2:
        raise UserError(f"interpolate: expected at least 2 images and 2 steps, received {len(images)} and {num_steps}")
    images = images[: len(images) // 2 * 2]
    latents = _in_batches(model.encode, images, row_seeds(len(images), seed))
    shares = np.linspace(0.0, 1.0, num_steps, dtype=np.float32).reshape(1, -1, *[1] * (latents.ndim - 1))
    path = (1.0 - shares) * latents[0::2, None] + shares * latents[1::2, None]
    return grid(_in_batches(model.decode, path.reshape(-1, *latents.shape[1:])), num_steps)
