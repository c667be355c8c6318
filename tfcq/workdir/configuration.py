"""config.json: whether a folder holds a run, of which Config, and whether it may go on with another."""

import dataclasses
import json
import os
import pathlib
import re
import shlex

from tfcq.config import Config
from tfcq.errors import UserError
from tfcq.machine.files import write_text, writing
from tfcq.workdir import environment
from tfcq.workdir.history import record_changes
from tfcq.workdir.images import IMAGES, MANIFEST, read_digests
from tfcq.workdir.metrics import read_metrics


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
            write_text(folder / "environment.json", json.dumps(environment.environment(), indent=2) + "\n")
            write_text(folder / "config.json", config.to_json())  # the last: it makes the folder a run
            return
        if changes := read_config(folder).absolute().changes(config):
            record_changes(folder, step, changes)
            told_changes = "; ".join(f"{name}: {before!r} -> {after!r}" for name, (before, after) in changes.items())
            print(f"from step {step} on: {told_changes}", flush=True)
        if read_config(folder) != config:  # also where only its paths become absolute
            write_text(folder / "config.json", config.to_json())
        _follow_environment(folder, step)


def _follow_environment(folder, step):
    """Keeps the environment in which a run goes on; history.jsonl says what is other than before."""
    path, after = folder / "environment.json", environment.environment()
    try:
        before = json.loads(path.read_text())
    except (OSError, ValueError):  # nothing to compare with
        return
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    if names:
        record_changes(folder, step, {f"environment.{name}": [before.get(name), after.get(name)] for name in sorted(names)})
        write_text(path, json.dumps(after, indent=2) + "\n")
