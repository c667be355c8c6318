"""The folder of a run: everything after training reads it alone.

config.json        the Config               environment.json   versions, devices, commit
data.json          shape and source of the images, what is not known of them, digests of the other files that training reads
images.npz         the images, where they were given in Python (`tfcq.Run.train`)
images.jsonl.gz    which image belongs to which split (`tfcq.data.manifest`)
history.jsonl      a row each time that options, images or the environment changed on resume: {"time", "step", "changes":
                   {name: [before, after]}}
checkpoints/       last/ and best/           tensorboard/       train/ and validation/
samples/           PNG grids                 metrics.jsonl      a row an evaluation     metrics.json   the last
progress.json      how far training is: state, step, seconds, losses; kept up to date while it runs (tfcq.training.progress)
lock               there while a training runs in the folder (tfcq.training.opening)

Each file is written whole or not at all. Rows of metrics.jsonl are of training, or (with "checkpoint") of `tfcq.evaluate`.
"""

import dataclasses
import json
import os
import pathlib
import platform
import re
import shlex
import subprocess
import sys
import time
from importlib import metadata

from tfcq.checks import check_kind
from tfcq.config import Config
from tfcq.config.evaluation import ImagesPlace
from tfcq.errors import UserError
from tfcq.machine import json_lines, paths, settings
from tfcq.machine.files import check_file, replacing, write_text, writing

MANIFEST = "images.jsonl.gz"

IMAGES = "images.npz"

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
            "python -m tfcq.train --flagfile=configs/NAME.cfg " + shlex.quote(f"--workdir={workdir}")
        )
    try:
        return _with_kept_images(Config.from_json(path.read_text()), path.parent)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: the configuration cannot be read: {error}") from error


def _with_kept_images(config, folder):
    """`config` with the images that the folder keeps, where it was moved with them."""
    kind, _, place = config.data.dataset.partition(":")
    kept = folder.absolute() / IMAGES
    if kind == "npz" and pathlib.Path(place).name == IMAGES and not os.path.exists(place) and kept.exists():
        return dataclasses.replace(config, data=dataclasses.replace(config.data, dataset=f"npz:{kept}"))
    return config


def saved_step(workdir):
    """The step of a run's newest checkpoint, from which training goes on; 0: there is none."""
    paths = (pathlib.Path(workdir) / "checkpoints" / "last").glob("step-*.index")
    return max((int(match[1]) for path in paths if (match := re.fullmatch(r"step-(\d+)\.index", path.name))), default=0)


def has_begun(workdir):
    """Whether a training has left something in `workdir` that another configuration may not take the place of."""
    folder = pathlib.Path(workdir)
    if any((folder / "checkpoints").glob("*/step-*.index")):
        return True
    try:
        return any(row.get("step", 0) > 0 for row in read_metrics(folder))
    except UserError:
        return True


def check_for(config, workdir, accept_changed_data=False):
    """Whether a run of `config` may begin or go on in the folder; writes nothing.

    `accept_changed_data`: whether a run whose version kept no list of its images may go on with those of another place.

    Raises:
        UserError: the folder holds a run that has begun, and its config differs in what decides the numbers (the differences are
            named); or its config.json cannot be read.
    """
    if not exists(workdir):
        return
    before, config = read_config(workdir).absolute(), config.absolute()
    # What is known by its content will be refused where it is another: `data.load`, `check_files`.
    images = {"data.dataset", "data.data_dir"}
    held = images if accept_changed_data or (pathlib.Path(workdir) / MANIFEST).exists() else set()
    held |= read_digests(workdir).keys()
    if has_begun(workdir) and (differences := before.differences_in_numbers(config, held)):
        moved = not before.differences_in_numbers(config, held | images)
        raise UserError(
            f"workdir {workdir} holds another configuration (saved -> given): {'; '.join(differences)}; expected "
            "the same flags to resume, or another --workdir"
            + ("; --accept_changed_data goes on where the same images have moved there" if moved else "")
        )


def open_for(config, workdir, step=0, accept_changed_data=False):
    """Makes the folder one of a run of `config`, which begins or goes on at `step`; options that it changes go to history.jsonl.

    `accept_changed_data`: as of `check_for`.

    Raises:
        UserError: as of `check_for`, or the folder cannot be made or written.
    """
    check_for(config, workdir, accept_changed_data)
    folder = pathlib.Path(workdir)
    with writing("workdir", folder):
        if not exists(folder) or not has_begun(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / "environment.json", json.dumps(environment(), indent=2) + "\n")
            write_text(folder / "config.json", config.to_json())  # the last: it makes the folder a run
            return
        if changes := read_config(folder).absolute().changes(config):
            _record_changes(folder, step, changes)
            told_changes = "; ".join(f"{name}: {before!r} -> {after!r}" for name, (before, after) in changes.items())
            print(f"from step {step} on: {told_changes}", flush=True)
        if read_config(folder) != config:  # also where only its paths become absolute
            write_text(folder / "config.json", config.to_json())
        _follow_environment(folder, step)


def _follow_environment(folder, step):
    """Keeps the environment in which a run goes on; history.jsonl says what is other than before."""
    path, after = folder / "environment.json", environment()
    try:
        before = json.loads(path.read_text())
    except (OSError, ValueError):  # nothing to compare with
        return
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    if names:
        _record_changes(folder, step, {f"environment.{name}": [before.get(name), after.get(name)] for name in sorted(names)})
        write_text(path, json.dumps(after, indent=2) + "\n")


def _record_changes(folder, step, changes):
    path, row = folder / "history.jsonl", {"step": step, "changes": changes}
    rows = json_lines.read(path)
    if not rows or {name: rows[-1].get(name) for name in row} != row:  # else a kill came between this file and config.json
        json_lines.append(path, {"time": _now(), **row})


def keep_data(workdir, dataset, step=None, digests=None):
    """Keeps which images an `ImageDataset` has, of which splits, and what can be told of it without opening it.

    Of a run that goes on at `step` these are known; where others were accepted in their place, or an earlier version kept no
    list of them, history.jsonl says so. `digests`, of the other files that training has read, are kept beside: `check_files`.
    """
    folder, manifest = pathlib.Path(workdir), dataset.manifest
    kept = None if step is None else read_manifest(folder)
    fingerprints = manifest and manifest.fingerprints()
    digests = digests or {}
    same = kept is not None and kept.fingerprints() == fingerprints
    if not same or read_digests(folder) != digests:
        if step is not None and not same:
            _record_changes(folder, step, {"images": [kept and kept.fingerprints(), fingerprints]})
        facts = {"image_shape": list(dataset.image_shape), "description": dataset.description, "fingerprints": fingerprints}
        facts |= {"files": digests} if digests else {}
        facts |= {"doubt": dataset.doubt} if dataset.doubt else {}
        write_text(folder / "data.json", json.dumps(facts, indent=2) + "\n")
    if manifest and kept != manifest:  # other names or times of the same images, too
        with replacing(folder / MANIFEST) as file:
            file.write(manifest.to_bytes())


def read_digests(workdir):
    """{"section.option": digest} of the files, beside the images, that a run has read; {} where none is known."""
    try:
        return dict(json.loads((pathlib.Path(workdir) / "data.json").read_text())["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def check_files(workdir, config, digests):
    """Raises UserError where a file that a begun run has read is another now (`digests`: `GenerativeModel.files_read`)."""
    for name, before in read_digests(workdir).items():
        option, now = name.partition(".")[2], digests.get(name, before)
        if now != before:
            path = getattr(config.system, option) or "(empty: Keras's own file)"
            raise UserError(
                f"{option} {path}: expected the file that the run began with, of SHA-256 {before}..., "
                f"received one of {now}...; say where that is: --{option}=FILE"
            )


def read_manifest(workdir):
    """The `Manifest` of a run; None where an earlier version, or nobody yet, began it."""
    from tfcq.data.manifest import Manifest

    path = pathlib.Path(workdir) / MANIFEST
    try:
        return Manifest.from_bytes(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: the list of the run's images cannot be read: {error}; restore it from a copy, or remove it to go "
            "by the images' positions"
        ) from error


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
    manifest, facts = read_manifest(workdir), _data_facts(workdir)
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


def kept_sizes(workdir):
    """{split: how many images a run had when its data was last described}; {} where that cannot be told."""
    from tfcq.data import earlier

    return earlier.sizes_of(_data_facts(workdir))


def _data_facts(workdir):
    """data.json as a dict; {} where it cannot be read."""
    try:
        facts = json.loads((pathlib.Path(workdir) / "data.json").read_text())
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def read_image_shape(workdir):
    """(H, W, C) of a run's images; UserError where the run has not started."""
    try:
        return tuple(json.loads((pathlib.Path(workdir) / "data.json").read_text())["image_shape"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"workdir {workdir}: expected data.json of a run that has started: {error}") from error


def environment():
    """Versions, devices, commit and what else may change rounding, as plain JSON values."""
    import tensorflow as tf

    def version(package):
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "commit": _commit(),
        "packages": {package: version(package) for package in _PACKAGES},
        "devices": [device.name for device in tf.config.list_logical_devices()],
        **settings.record(),
    }


def _commit():
    """The commit of the checkout that this package runs from; None where it is no checkout of tfcq's.

    A package that is installed inside of another project's folder must not name that project's commit.
    """
    package = pathlib.Path(__file__).resolve().parent
    others = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # they name a repository wherever git runs
    here = {name: value for name, value in os.environ.items() if name not in others}

    def git(*arguments):
        command = ["git", "-C", str(package.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, env=here, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "setup.py", f"{package.name}/{pathlib.Path(__file__).name}")
        if pathlib.Path(git("rev-parse", "--show-toplevel")).resolve() == package.parent:
            return git("rev-parse", "HEAD")
    except (OSError, subprocess.SubprocessError):
        pass
    return None


def record_metrics(workdir, row):
    """Appends `row` (a dict of plain values, with its time) to metrics.jsonl and makes it metrics.json."""
    folder = pathlib.Path(workdir)
    row = {"time": _now(), **row}
    json_lines.append(folder / "metrics.jsonl", row)
    _write_last_metrics(folder, row)
    return row


def check_metrics_writable(workdir):
    """Raises UserError where `record_metrics` could not write: metrics.jsonl is appended to, metrics.json replaced."""
    check_file("workdir", pathlib.Path(workdir) / "metrics.jsonl", appends=True)
    check_file("workdir", pathlib.Path(workdir) / "metrics.json")


def read_metrics(workdir):
    """The rows of metrics.jsonl, a list of dicts; [] where there are none; UserError where it cannot be read."""
    return json_lines.read(pathlib.Path(workdir) / "metrics.jsonl")


def drop_metrics_after(workdir, step):
    """Takes rows of training beyond `step` out of metrics.jsonl; metrics.json is the last row that remains.

    A run that goes on from `step` writes them again. Rows of `tfcq.evaluate` stay: they are of checkpoints that were there, and
    nothing writes them again.
    """

    def step_of(row):
        return row.get("step", 0)

    def up_to_step(rows):
        of_training = json_lines.last_course([row for row in rows if "checkpoint" not in row], step_of)
        kept = {id(row) for row in of_training if step_of(row) <= step}
        return [row for row in rows if "checkpoint" in row or id(row) in kept]

    folder = pathlib.Path(workdir)
    if not (folder / "metrics.jsonl").exists():
        return
    rows = json_lines.rewrite(folder / "metrics.jsonl", up_to_step)
    if rows:
        _write_last_metrics(folder, rows[-1])
    else:
        (folder / "metrics.json").unlink(missing_ok=True)


def _write_last_metrics(folder, row):
    write_text(folder / "metrics.json", json.dumps(row, indent=2) + "\n")


def _now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


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
