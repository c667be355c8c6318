"""config.json: whether a folder holds a run, the run's Config, and whether the run may go on with another one."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex

from tfcq.config import Config
from tfcq.errors import UserError
from tfcq.machine.files import write_text, writing
from tfcq.machine.paths import as_path
from tfcq.machine.paths import exists as path_exists
from tfcq.workdir import environment, packed
from tfcq.workdir.history import record_changes
from tfcq.workdir.images import IMAGES, MANIFEST, read_digests
from tfcq.workdir.metrics import read_metrics


def exists(workdir: str | os.PathLike) -> bool:
    """Whether `workdir` holds a run."""
    return (as_path(workdir) / "config.json").is_file()


def read_config(workdir: str | os.PathLike) -> Config:
    """The Config of a run; UserError if there is none or it cannot be read."""
    path = as_path(workdir) / "config.json"
    if not path.is_file():
        raise UserError(
            f"workdir {workdir}: expected a trained run with config.json, found none; train one with "
            "python -m tfcq.train --preset=NAME " + shlex.quote(f"--workdir={workdir}")
        )
    try:
        return _with_kept_images(Config.from_json(path.read_text(), of_a_run=True), path.parent)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: the configuration cannot be read: {error}") from error


def _with_kept_images(config, folder):
    """`config` with the path of the images that the folder keeps, in case the folder was moved or copied."""
    kind, _, place = config.data.dataset.partition(":")
    kept = folder.absolute() / IMAGES
    if kind != "npz" or as_path(place).name != IMAGES:
        return config
    of_a_run = not path_exists(place) or exists(as_path(place).parent)
    if of_a_run and kept.exists():
        return dataclasses.replace(config, data=dataclasses.replace(config.data, dataset=f"npz:{kept}"))
    return config


def saved_step(workdir: str | os.PathLike) -> int:
    """The step of a run's newest checkpoint, from which training resumes; 0 if there is none."""
    paths = (as_path(workdir) / "checkpoints" / "last").glob("step-*.index")
    return max((int(match[1]) for path in paths if (match := re.fullmatch(r"step-(\d+)\.index", path.name))), default=0)


def has_begun(workdir: str | os.PathLike) -> bool:
    """Whether a training has saved results in `workdir`, so that another configuration may not replace its own."""
    folder = as_path(workdir)
    if any((folder / "checkpoints").glob("*/step-*.index")):
        return True
    try:
        return any(row.get("step", 0) > 0 for row in read_metrics(folder))
    except UserError:
        return True


def check_for(config: Config, workdir: str | os.PathLike, accept_changed_data: bool = False) -> None:
    """Checks that a run of `config` may begin or go on in the folder; writes nothing.

    Args:
        config: the configuration.
        workdir: the folder.
        accept_changed_data: whether a run without a list of its images (of an earlier version) may go on in another place.

    Raises:
        UserError: the folder holds a run that has begun and whose config differs in options that decide the numbers (the
            message lists them); or its config.json cannot be read.
    """
    if not exists(workdir):
        return
    packed.refuse_training(workdir)
    before, config = read_config(workdir).absolute(), config.absolute()
    # Places whose content is known are checked by content later: `data.load`, `check_files`.
    images = {"data.dataset", "data.data_dir"}
    held = set(read_digests(workdir))
    if accept_changed_data or (as_path(workdir) / MANIFEST).exists():
        held |= images
    if has_begun(workdir) and (differences := before.differences_in_numbers(config, held)):
        moved = not before.differences_in_numbers(config, held | images)
        raise UserError(
            f"workdir {workdir} holds another configuration (saved -> given): {'; '.join(differences)}; expected "
            "the same flags to resume, or another --workdir"
            + ("; --accept_changed_data goes on if the same images have moved there" if moved else "")
        )


def open_for(config: Config, workdir: str | os.PathLike, step: int = 0, accept_changed_data: bool = False) -> None:
    """Writes the folder of a run of `config` that begins or resumes at `step`; history.jsonl records changed options.

    Args:
        config, workdir, accept_changed_data: as in `check_for`.
        step: from which training begins or resumes.

    Raises:
        UserError: as in `check_for`, or the folder cannot be created or written.
    """
    check_for(config, workdir, accept_changed_data)
    folder = as_path(workdir)
    with writing("workdir", folder):
        if not exists(folder) or not has_begun(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / "environment.json", json.dumps(environment.environment(), indent=2) + "\n")
            write_text(folder / "config.json", config.to_json())  # last, as it makes the folder a run
            return
        if changes := read_config(folder).absolute().changes(config):
            record_changes(folder, step, changes)
            lines = "; ".join(f"{name}: {before!r} -> {after!r}" for name, (before, after) in changes.items())
            print(f"from step {step} on: {lines}", flush=True)
        if read_config(folder) != config:  # even if only its paths become absolute
            write_text(folder / "config.json", config.to_json())
        _update_environment(folder, step)


def _update_environment(folder, step):
    """Updates environment.json when a run resumes; history.jsonl records the differences."""
    path, after = folder / "environment.json", environment.environment()
    try:
        before = json.loads(path.read_text())
    except (OSError, ValueError):  # nothing to compare with
        return
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    if names:
        record_changes(folder, step, {f"environment.{name}": [before.get(name), after.get(name)] for name in sorted(names)})
        write_text(path, json.dumps(after, indent=2) + "\n")
