"""The flags that `tfcq sample` and `tfcq score` share, and the work of both. No TensorFlow before `run`."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tfcq.bulk.place import ModelPlace
from tfcq.bulk.ray_adapter import import_ray, run_on_ray
from tfcq.bulk.shards import Shard
from tfcq.command_line import starting
from tfcq.command_line.flags import Flags
from tfcq.errors import UserError
from tfcq.machine import files, paths
from tfcq.machine.terminal import say

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
    make: Callable[[ModelPlace], Stage],
    output: str | pathlib.Path | None,
    beside: Mapping[str, Callable[[Stage], Stage]] | None = None,
    finish: Callable[[pathlib.Path, Stage], None] | None = None,
) -> None:
    """Computes the shard, or all shards by Ray, of a stage.

    Args:
        flags: with --shard, --ray and those of the model.
        make: function that makes the stage, once TensorFlow has been started.
        output: the folder of the parts.
        beside: {folder below `output`: function from the stage to another, smaller one}; whoever computes shard 0 computes
            them, before it.
        finish: function of the folder and the stage, called by a process that ends with all parts of all stages there.

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
    stage, others = make(place), dict(beside or {})
    if flags.ray:
        for name, other in others.items():
            run_on_ray(other(stage), 1, folder / name)
        run_on_ray(stage, flags.ray, folder)
        complete = True
    else:
        complete = _compute(stage, others, shard, folder)
    if finish and complete:
        finish(folder, stage)
    elif finish:
        say(f"the table is written when all {shard.total} parts are there")


def _compute(stage, beside, shard, folder):
    """Computes the shard, and with the first one the stages beside; whether all parts of all stages are there then."""
    from tfcq.bulk.running import Work, is_complete

    work = Work(stage, shard.total, folder)
    if shard.index == 0:
        for name, make in beside.items():
            Work(make(stage), 1, folder / name).compute(0)
    work.compute(shard.index)
    return all(is_complete(one) for one in (folder, *(folder / name for name in beside)))
