"""Where images come from, and how they become batches.

>>> from tfcq import DataConfig
>>> from tfcq.data import load
>>> dataset = load(DataConfig(dataset="digits", image_size=8))
>>> dataset.num_images("test"), dataset.images("test", range(4)).shape
(179, (4, 8, 8, 1))
>>> batches = iter(dataset.train_batches(batch_size=64, seed=0))  # it never ends
>>> next(batches).shape
TensorShape([64, 8, 8, 1])

How an image travels: a source (`builtin`, `idx`, `folder`, `npz`, `tfds`) hands out raw images by index (`sources`),
`transforms` gives each its final shape, `splits` says which index belongs to train, validation and test, `holding` keeps them
in memory or in a `cache` on the disk, and `dataset` makes batches. A new source is one function that returns a
`sources.Source`, and its line in `opening.SOURCES`.

Unusable images are found before training: `decoding` decides which files are images, `survey` reads every image once where
images are decoded as needed, `values` recognises scaled images, and `unfit` reports many broken images in one line.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfcq.data.dataset import ImageDataset, load, manifest_by_position

__all__ = ["ImageDataset", "load", "manifest_by_position"]


def __getattr__(name: str) -> Any:  # `dataset` imports TensorFlow, which the processes that decode images do without
    if name in __all__:
        return getattr(importlib.import_module("tfcq.data.dataset"), name)
    raise AttributeError(f"module 'tfcq.data' has no attribute {name!r}")
