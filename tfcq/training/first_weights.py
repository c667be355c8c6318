"""--init_from: the first weights of a run are those of another run of the same networks.

They are those that would be evaluated and exported: of the best checkpoint (of the last, where the run keeps no best), and their
running mean, if it keeps one. What belongs to training alone (optimizers, the step, a code of each training image) begins anew.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tfcq import workdir as workdirs
from tfcq.config import Config
from tfcq.engine.workers import digest_of
from tfcq.errors import UserError
from tfcq.machine import paths

if TYPE_CHECKING:
    import keras

    from tfcq.models.base import GenerativeModel

_MOST_NAMED, _MOST_CLASSES = 3, 10


@dataclasses.dataclass(frozen=True)
class FirstWeights:
    """Weights that were read of another run.

    Attributes:
        values: an array for each of the model's `inherited_variables`.
        facts: where they are from, as history.jsonl records it: init_from, checkpoint ("best" or "last"), step, running_mean,
            digest (SHA-256 of the values).
    """

    values: list[np.ndarray]
    facts: dict[str, Any]

    def assign_to(self, model: GenerativeModel) -> None:
        """Gives the model these weights; call it under the strategy's scope."""
        for variable, value in zip(model.inherited_variables(), self.values, strict=True):
            variable.assign(value)

    def __str__(self) -> str:
        mean = ", running mean" if self.facts["running_mean"] else ""
        return (
            f"first weights: those of {self.facts['init_from']}, {self.facts['checkpoint']} checkpoint, step "
            f"{self.facts['step']}{mean}, of SHA-256 {self.facts['digest'][:16]}..."
        )


def other_run(config: Config, workdir: paths.AnyPath) -> paths.AnyPath | None:
    """The folder of the run whose weights a run that begins in `workdir` starts from; None: it has its own, or goes on.

    Raises:
        UserError: it is no other run's folder, or of a run of another system.
    """
    if not config.training.init_from or workdirs.saved_step(workdir):
        return None
    folder = paths.folder(config.training.init_from, "init_from")
    if folder.absolute() == workdir.absolute():
        raise UserError(f"init_from {folder}: expected the folder of another run, received the workdir itself")
    if not workdirs.exists(folder):
        raise UserError(f"init_from {folder}: expected the folder of a trained run, found no config.json in it")
    model = workdirs.read_config(folder).model
    if model != config.model:
        raise UserError(f"init_from {folder}: expected a run of model={config.model}, received one of model={model}")
    return folder


def read(folder: paths.AnyPath, model: GenerativeModel) -> FirstWeights:
    """The weights of the run in `folder` for `model`, which `attach` has not changed yet.

    Raises:
        UserError: images of another shape, other classes (a class's weights are of its number), other networks (the line names
            weights that differ), or no checkpoint to read.
    """
    shape = workdirs.read_image_shape(folder)
    if shape != model.image_shape:
        here, there = ("x".join(map(str, one)) for one in (model.image_shape, shape))
        raise UserError(f"init_from {folder}: expected a run of images of {here}, received one of {there}")
    with tf.device("CPU"):  # the devices have room for one model
        other = workdirs.load(folder)
    if model.class_names and other.class_names and model.class_names != other.class_names:
        here, there = (", ".join(names[:_MOST_CLASSES]) + (", ..." if len(names) > _MOST_CLASSES else "")
                       for names in (model.class_names, other.class_names))
        raise UserError(f"init_from {folder}: expected a run of the same classes in their order, {here}, received one of {there}")
    ours, theirs = _by_name(model), _by_name(other)
    if differences := _differences(ours, theirs):
        raise UserError(
            f"init_from {folder}: expected a run of the same networks, received one with other weights: {differences}; give this "
            "run the options of networks of that one"
        )
    names = {id(variable): key for key, variable in ours.items()}
    values = [_value(theirs[names[id(variable)]]) for variable in model.inherited_variables()]
    facts = {
        "init_from": str(folder),
        "checkpoint": other.checkpoint_of_run,
        "step": other.steps_taken,
        "running_mean": other.averages is not None,
        "digest": digest_of(values),
    }
    return FirstWeights(values, facts)


def _by_name(model: GenerativeModel) -> dict[tuple[str, int], keras.Variable]:
    """{(name, number among those of that name): variable} of all weights but the number of steps.

    Keras numbers the layers of a kind through a process, so that two models have other numbers: names here have none.
    """
    found: dict[tuple[str, int], keras.Variable] = {}
    seen: collections.Counter[str] = collections.Counter()
    for variable in model.variables:
        if variable is model.step:
            continue
        name = re.sub(r"_\d+(?=/|$)", "", variable.path)
        found[name, seen[name]] = variable
        seen[name] += 1
    return found


def _differences(ours, theirs):
    """Which weights differ, in words; "": none."""
    lines = []
    for key in dict.fromkeys([*ours, *theirs]):
        here, there = ours.get(key), theirs.get(key)
        if here is None or there is None or here.shape != there.shape:
            shapes = ("none" if one is None else str(list(one.shape)) for one in (here, there))
            lines.append(f"{(here if there is None else there).path} {' instead of '.join(reversed(list(shapes)))}")
    rest = len(lines) - _MOST_NAMED
    return ", ".join(lines[:_MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _value(variable):
    return tf.convert_to_tensor(variable).numpy()
