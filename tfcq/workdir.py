"""The folder of a run: everything after training reads it alone.

config.json        the Config               environment.json   versions, devices, commit
data.json          shape and source of the images
checkpoints/       last/ and best/           tensorboard/       train/ and validation/
samples/           PNG grids                 metrics.jsonl      a row an evaluation     metrics.json   the last
"""

import json
import pathlib
import platform
import subprocess
import sys
import time
from importlib import metadata

from tfcq.checks import check_folder
from tfcq.config import Config
from tfcq.errors import UserError

_PACKAGES = ("tfcq", "tensorflow", "keras", "tensorflow-probability", "tensorflow-datasets", "numpy")


def exists(workdir):
    """Whether `workdir` holds a run."""
    return (pathlib.Path(workdir) / "config.json").is_file()


def read_config(workdir):
    """The Config of a run; UserError where there is none or it cannot be read."""
    path = pathlib.Path(workdir) / "config.json"
    if not path.is_file():
        raise UserError(
            f"workdir {workdir}: expected a trained run with config.json, found none; train one with "
            "python -m tfcq.train --workdir=" + str(workdir)
        )
    try:
        return Config.from_json(path.read_text())
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected a configuration, cannot be read: {error}") from error


def open_for(config, workdir):
    """Makes the folder for a run of `config`, or checks that it is one.

    Raises:
        UserError: the folder holds a run of another config (the differences are named), or cannot be made.
    """
    folder = pathlib.Path(workdir)
    if exists(folder):
        differences = read_config(folder).differences(config)
        if differences:
            raise UserError(
                f"workdir {folder} holds another configuration (there -> here): {'; '.join(differences)}; expected "
                "the same flags to resume, or another --workdir"
            )
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "environment.json", json.dumps(environment(), indent=2) + "\n")
        write_text(folder / "config.json", config.to_json())  # the last: it makes the folder a run
    except OSError as error:
        raise UserError(f"workdir {folder}: cannot be written: {error.strerror}") from error


def write_data_facts(workdir, dataset):
    """Keeps what later commands must know of an `ImageDataset` without opening it."""
    facts = {"image_shape": list(dataset.image_shape), "description": dataset.description}
    write_text(pathlib.Path(workdir) / "data.json", json.dumps(facts, indent=2) + "\n")


def read_image_shape(workdir):
    """(H, W, C) of a run's images; UserError where the run has not started."""
    try:
        return tuple(json.loads((pathlib.Path(workdir) / "data.json").read_text())["image_shape"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"workdir {workdir}: expected data.json of a run that has started: {error}") from error


def environment():
    """Versions, devices and commit, as plain JSON values."""
    import tensorflow as tf

    def version(package):
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    try:
        commit = (
            subprocess.run(
                ["git", "-C", str(pathlib.Path(__file__).parent), "rev-parse", "HEAD"],
                capture_output=True,
                text=True,
                timeout=10,
            ).stdout.strip()
            or None
        )
    except (OSError, subprocess.TimeoutExpired):
        commit = None
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "commit": commit,
        "packages": {package: version(package) for package in _PACKAGES},
        "devices": [device.name for device in tf.config.list_logical_devices()],
    }


def write_text(path, text):
    """Writes a file whole or not at all."""
    path = pathlib.Path(path)
    staged = path.with_name(path.name + ".partial")
    try:
        staged.write_text(text)
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)


def record_metrics(workdir, row):
    """Appends `row` (a dict of plain values, with its time) to metrics.jsonl and makes it metrics.json."""
    folder = pathlib.Path(workdir)
    row = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **row}
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(json.dumps(row) + "\n")
    write_text(folder / "metrics.json", json.dumps(row, indent=2) + "\n")
    return row


def load(workdir, checkpoint="best", image_draw=""):
    """The trained model of a workdir, in float32; its weights are the running mean where the run kept one.

    Args:
        workdir: folder of a run, a str or os.PathLike.
        checkpoint: "best" (on the validation split; the last where none is kept) or "last".
        image_draw: instead of the run's knob of that name, where its system has one; empty: the run's.

    Returns:
        A `tfcq.models.base.GenerativeModel`; `model.config_of_run` is its Config.

    Raises:
        UserError: no run, no checkpoint, or none that can be read; image_draw of a system without that knob.
    """
    import dataclasses

    from tfcq import models
    from tfcq.checkpoints import restore_model
    from tfcq.models.averages import WeightAverages

    config = read_config(check_folder("workdir", workdir))
    if image_draw:
        if not hasattr(config.system, "image_draw"):
            raise UserError(f"image_draw={image_draw}: model={config.model} has no such knob; its images are drawn in one way")
        config = dataclasses.replace(config, system=dataclasses.replace(config.system, image_draw=image_draw))
    float32 = dataclasses.replace(config.training, precision="float32")
    model = models.build(dataclasses.replace(config, training=float32), read_image_shape(workdir))
    if config.training.ema_decay:
        model.averages = WeightAverages(model.averaged_variables(), config.training.ema_decay)
    restore_model(model, workdir, checkpoint)
    if model.averages:
        model.averages.assign_to_variables()
    model.config_of_run = config
    return model
