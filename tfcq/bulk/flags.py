"""The flags that `tfcq sample` and `tfcq score` share, and the work of both. No TensorFlow before `run`."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from tfcq.bulk.place import ModelPlace
from tfcq.bulk.ray_adapter import import_ray, run_on_ray
from tfcq.bulk.shards import Shard
from tfcq.command_line import starting
from tfcq.command_line.flags import Flags
from tfcq.errors import UserError
from tfcq.machine import files, paths

if TYPE_CHECKING:
    from tfcq.bulk.stages import Stage

_OF_WORKDIRS = ("checkpoint", "image_draw", "num_importance_samples")  # an export has them fixed


def define_export(flags: Flags) -> None:
    """Defines --export."""
    flags.folder("export", None, "The folder of an exported model or of one of its versions, instead of --workdir")


def define_server(flags: Flags) -> None:
    """Defines --server."""
    flags.string(
        "server",
        None,
        "The address of a server (tfcq serve, TF Serving) and the model's name there, host:port/MODEL (gRPC) or "
        "http://host:port/MODEL (REST), instead of --workdir",
        "ADDRESS",
    )


def define_shards(flags: Flags) -> None:
    """Defines --shard, --ray and --batch_size."""
    flags.string(
        "shard",
        None,
        "The shard that this process computes of n, i from 0 to n - 1: for each i a process, of an array job for instance, on "
        "any machine; the same command again goes on after a failure",
        "i/n",
    )
    flags.integer(
        "ray",
        None,
        "The number of shards, all of which are computed by actors of the Ray cluster at hand, or of this machine (pip install "
        "'tfcq[ray]')",
        minimum=1,
    )
    flags.integer(
        "batch_size", 64, "The number of images that are computed at a time; it can change the last digits of results", minimum=1
    )


def model_place(flags: Flags) -> ModelPlace:
    """Where the model is, by the command's flags.

    Raises:
        UserError: no model, or flags that do not fit it.
    """
    given = {name: getattr(flags, name) for name in _OF_WORKDIRS if name in flags}
    given |= {"server": flags.server or ""} if "server" in flags else {}
    place = ModelPlace(flags.workdir, flags.export, **given)
    place.check()
    for name in given.keys() & set(_OF_WORKDIRS):
        if not flags.workdir and flags.values[name].present:
            raise UserError(f"{name}: expected it with --workdir alone, as an exported model has it fixed; leave it out")
    return place.absolute()


def run(
    flags: Flags,
    make: Callable[[ModelPlace], dict[str, Stage]],
    output: str | pathlib.Path | None,
    finish: Callable[[pathlib.Path, dict[str, Stage]], None] = lambda folder, stages: None,
) -> None:
    """Computes the shard, or all shards by Ray, of stages of one model.

    Args:
        flags: with --shard, --ray and those of the model.
        make: function that makes {folder below `output`, "" for itself: stage}, once TensorFlow has been started.
        output: the folder of the parts.
        finish: function of that folder and the stages, called by a process that ends with all parts of all stages there.

    Raises:
        UserError: flags that do not fit each other, and all that `Work` and `finish` raise.
    """
    if flags.shard and flags.ray:
        raise UserError("expected either --shard=i/n, one shard, or --ray=n, all of them, received both")
    shard = Shard.parse(flags.shard or "0/1")
    if output is None:
        raise UserError("expected --output=DIR, the folder for the parts")
    folder = paths.folder(output, "output").absolute()
    starting.reach(folder, flags.workdir, flags.export)
    place = model_place(flags)
    files.check_folder("output", folder)
    if flags.ray:
        import_ray()
    starting.start_tensorflow()
    stages = make(place)
    if flags.ray:
        for name, stage in stages.items():
            run_on_ray(stage, min(flags.ray, stage.count) if name else flags.ray, folder / name if name else folder)
        finish(folder, stages)
    elif _compute(stages, shard, folder):
        finish(folder, stages)


def _compute(stages, shard, folder):
    """Computes the shard of each stage; whether all shards of all of them are there then."""
    from tfcq.bulk.running import Work

    works, first = [], next(iter(stages.values()))
    for name, stage in stages.items():
        if stage is not first:
            stage.share_model_of(first)
        parts = min(shard.total, stage.count) if name else shard.total
        works.append(work := Work(stage, parts, folder / name if name else folder))
        if shard.index < parts:
            work.compute(shard.index)
    return all(work.is_complete() for work in works)
