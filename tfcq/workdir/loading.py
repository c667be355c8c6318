"""Loads the images and the trained model of a workdir."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

from tfcq.checks import check_kind
from tfcq.config.evaluation import ImagesPlace
from tfcq.errors import UserError
from tfcq.machine import paths
from tfcq.workdir import packed
from tfcq.workdir.configuration import read_config
from tfcq.workdir.images import data_facts, read_classes, read_image_shape, read_manifest

if TYPE_CHECKING:
    from tfcq.config import DataConfig
    from tfcq.data import ImageDataset
    from tfcq.models.base import GenerativeModel


def load_data(workdir: str | os.PathLike, place: ImagesPlace | None = None) -> ImageDataset:
    """The images of a run, in the splits that it was trained with.

    Args:
        workdir: folder of a run.
        place: where its images are now; None: where they were.

    Raises:
        UserError: no run; images that cannot be read or are not those of the run; for a run without a list of them, another
            place or other numbers of images that are not accepted.
    """
    check_kind("place", place, ImagesPlace | None, "a tfcq.config.evaluation.ImagesPlace or None")
    place = (place or ImagesPlace()).absolute()
    return images_of(workdir, place.of(read_config(workdir).data), place.accept_changed_data)


def images_of(workdir: str | os.PathLike, config: DataConfig, accept_changed_data: bool = False) -> ImageDataset:
    """`load_data` with a DataConfig that says where the run's images are now."""
    from tfcq import data
    from tfcq.data import earlier

    _require_place(config)
    manifest, facts = read_manifest(workdir), data_facts(workdir)
    doubts = [facts.get("doubt")]  # the list may have been written when the run resumed without one
    if manifest is None:
        before, now = read_config(workdir).data.absolute(), config.absolute()
        manifest = data.manifest_by_position(config, by_earlier_version="fingerprints" not in facts)
        doubts.append(earlier.doubt_of(workdir, facts, manifest, before, now, accept_changed_data))
    images = data.load(config, manifest, accept_changed_data)
    images.doubt = "; ".join(dict.fromkeys(filter(None, doubts)))
    return images


def _require_place(config):
    """Raises UserError, with advice, if the files or folder that the DataConfig names are gone."""
    kind, _, path = config.dataset.partition(":")
    if kind in ("folder", "idx", "npz") and not paths.exists(os.path.expanduser(path)):
        raise UserError(
            f"dataset {config.dataset}: its images are not there any more; if they have moved, say where they are: "
            f"--dataset={kind}:NEW_PLACE"
        )


def load(workdir: str | os.PathLike, checkpoint: str = "best", image_draw: str = "") -> GenerativeModel:
    """The trained model of a workdir, in float32, with the running mean of the weights if the run kept one.

    Args:
        workdir: folder of a run.
        checkpoint: "best" (by the run's best_metric on the validation split; the last if no best one was saved) or "last". A
            packed model has one checkpoint, which either names.
        image_draw: replaces the run's option of that name, if its system has one; empty: the run's.

    Returns:
        The model; `model.config_of_run` is its Config, `model.checkpoint_of_run` names the checkpoint that was loaded,
        `model.chosen_by` says by which number, of what value, it is the best ("": it is not, or this is unknown).

    Raises:
        UserError: no run, no checkpoint, or none that can be read; image_draw for a system without that option.
    """
    from tfcq import models
    from tfcq.engine.checkpoints import chosen_by, restore_model

    workdir = paths.folder(workdir, "workdir")
    config = read_config(workdir)
    if image_draw:
        if not hasattr(config.system, "image_draw"):
            raise UserError(f"image_draw={image_draw}: model={config.model} has one way to draw images; leave --image_draw out")
        config = dataclasses.replace(config, system=dataclasses.replace(config.system, image_draw=image_draw))
    float32 = dataclasses.replace(config.training, precision="float32")
    shape, classes = read_image_shape(workdir), read_classes(workdir, config)
    model = models.build(dataclasses.replace(config, training=float32), shape, classes)
    model.config_of_run = config
    if kept := packed.read(workdir):
        packed.restore(model, workdir, kept)
        model.checkpoint_of_run, model.chosen_by = kept.checkpoint, kept.chosen_by
        return model
    model.averages = model.running_means(config.training.ema_decay)
    step, model.checkpoint_of_run = restore_model(model, workdir, checkpoint)
    model.chosen_by = chosen_by(workdir, step) if model.checkpoint_of_run == "best" else ""
    if model.averages:
        model.averages.assign_to_variables()
    return model
