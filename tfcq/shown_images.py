"""The images that a picture of a run shows (`tfcq.Run.picture`): given ones, those of another data set, or the run's own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from tfcq.checks import check_images
from tfcq.errors import UserError

if TYPE_CHECKING:
    from tfcq.config.evaluation import ImagesPlace
    from tfcq.data import ImageDataset
    from tfcq.models.base import GenerativeModel


GIVEN_A_CLASS = ("prior", "variations", "reconstruct", "interpolate")
"""The modes of `Run.picture` that may be of one class."""


def prepared(model: GenerativeModel, images: Any) -> np.ndarray:
    """Images as the model takes them, uint8 [N, H, W, C], of an array or of paths of files; UserError for anything else."""
    if hasattr(images, "dtype"):
        return check_images(images, "images", model.image_shape)
    from tfcq.bulk.images import images_of_files

    names = [images] if isinstance(images, str | os.PathLike) else list(images)
    if not names or not all(isinstance(one, str | os.PathLike) for one in names):
        raise UserError("images: expected an array uint8 [N, H, W, C], or the paths of files, at least one")
    return images_of_files([os.fspath(one) for one in names], model.config_of_run.data, model.image_shape)


def of_other_data(model: GenerativeModel, dataset: str, test_split: str, place: ImagesPlace | None) -> ImageDataset:
    """Another data set, prepared as the images of the model's run; `place` says where TFDS and the cache are."""
    from tfcq import data

    folders = {name: getattr(place, name) for name in ("data_dir", "data_cache")} if place else {}
    return data.load(model.config_of_run.data.other(model.image_shape[-1], dataset, test_split, **folders))


def first(dataset: ImageDataset, split: str, num_samples: int, mode: str, times: int) -> np.ndarray:
    """The first `times` * `num_samples` images of a split, uint8 [N, H, W, C]; UserError if it has fewer."""
    dataset.require_images(split)
    count, available = times * num_samples, dataset.num_images(split)
    if count > available:
        raise UserError(
            f"num_samples={num_samples} with mode={mode} needs {count} images of the {split} split, which has {available}; "
            f"expected num_samples={available // times or 1} or fewer"
        )
    return dataset.images(split, list(range(count)))
