"""What a workdir stands for: its images in their splits, and its trained model."""

import dataclasses
import os

from tfcq.checks import check_kind
from tfcq.config.evaluation import ImagesPlace
from tfcq.errors import UserError
from tfcq.machine import paths
from tfcq.workdir.configuration import read_config
from tfcq.workdir.images import data_facts, read_image_shape, read_manifest


def load_data(workdir, place=None):
    """The images of a run, in the splits that it was trained with.

    Args:
        workdir: folder of a run.
        place: `tfcq.config.evaluation.ImagesPlace`, where its images are now; None: where they were.

    Returns:
        `tfcq.data.ImageDataset`.

    Raises:
        UserError: no run, or images that cannot be read or are not those of the run; of a run without a list of them: another
            place or other numbers of images, where that is not accepted.
    """
    check_kind("place", place, ImagesPlace | None, "a tfcq.config.evaluation.ImagesPlace or None")
    place = (place or ImagesPlace()).absolute()
    return images_of(workdir, place.of(read_config(workdir).data), place.accept_changed_data)


def images_of(workdir, config, accept_changed_data=False):
    """`load_data` of a DataConfig that says where the run's images are now."""
    from tfcq import data
    from tfcq.data import earlier

    _require_place(config)
    manifest, facts = read_manifest(workdir), data_facts(workdir)
    doubts = [facts.get("doubt")]  # the list may have been made when the run went on without one
    if manifest is None:
        before, now = read_config(workdir).data.absolute(), config.absolute()
        manifest = data.manifest_by_position(config, by_earlier_version="fingerprints" not in facts)
        doubts.append(earlier.doubt_of(workdir, facts, manifest, before, now, accept_changed_data))
    images = data.load(config, manifest, accept_changed_data)
    images.doubt = "; ".join(dict.fromkeys(filter(None, doubts)))
    return images


def _require_place(config):
    """Raises UserError where nothing is at the place that a begun run's DataConfig names any more, and says what helps."""
    kind, _, path = config.dataset.partition(":")
    if kind in ("folder", "idx", "npz") and not os.path.exists(os.path.expanduser(path)):
        raise UserError(
            f"dataset {config.dataset}: its images are not there any more; if they have moved, say where they are: "
            f"--dataset={kind}:NEW_PLACE"
        )


def load(workdir, checkpoint="best", image_draw=""):
    """The trained model of a workdir, in float32; its weights are the running mean where the run kept one.

    Args:
        workdir: folder of a run, a str or os.PathLike.
        checkpoint: "best" (on the validation split; the last where none is kept) or "last".
        image_draw: instead of the run's option of that name, where its system has one; empty: the run's.

    Returns:
        A `tfcq.models.base.GenerativeModel`; `model.config_of_run` is its Config, `model.checkpoint_of_run` which it was.

    Raises:
        UserError: no run, no checkpoint, or none that can be read; image_draw of a system without that option.
    """
    from tfcq import models
    from tfcq.engine.averages import WeightAverages
    from tfcq.engine.checkpoints import restore_model

    workdir = paths.folder(workdir, "workdir")
    config = read_config(workdir)
    if image_draw:
        if not hasattr(config.system, "image_draw"):
            raise UserError(f"image_draw={image_draw}: model={config.model} has one way to draw images; leave --image_draw out")
        config = dataclasses.replace(config, system=dataclasses.replace(config.system, image_draw=image_draw))
    float32 = dataclasses.replace(config.training, precision="float32")
    model = models.build(dataclasses.replace(config, training=float32), read_image_shape(workdir))
    if config.training.ema_decay:
        model.averages = WeightAverages(model.averaged_variables(), config.training.ema_decay)
    _, model.checkpoint_of_run = restore_model(model, workdir, checkpoint)
    if model.averages:
        model.averages.assign_to_variables()
    model.config_of_run = config
    return model
