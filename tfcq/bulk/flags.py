"""The flags that `tfcq sample`, `tfcq score` and `tfcq encode` share, and their work. No TensorFlow before `run`."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tfcq.bulk.job import forget_unbegun
from tfcq.bulk.place import ModelPlace
from tfcq.bulk.ray_adapter import import_ray, run_on_ray
from tfcq.bulk.shards import Shard
from tfcq.command_line import starting
from tfcq.command_line.flags import Flags
from tfcq.config import DataConfig
from tfcq.config.data import PREPARATION
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


def define_model(flags: Flags) -> None:
    """Defines --workdir, --export, --server and --checkpoint."""
    flags.group("The model")
    flags.folder("workdir", None, "The folder of a trained run")
    define_export(flags)
    define_server(flags)
    flags.choice("checkpoint", "best", ["best", "last"], "The checkpoint of the workdir that is used")


def define_images(flags: Flags) -> None:
    """Defines --images and how they are prepared."""
    flags.group("The images")
    flags.string(
        "images",
        None,
        "The images, all of them, named as in --dataset of tfcq.train: folder:DIR or DIR (all below it) | "
        "list:FILE (a path a line) | "
        "npz:FILE | idx:DIR | a TFDS data set (of all splits)",
        "PLACE",
    )
    flags.string("data_dir", "", "The folder where TFDS keeps prepared data sets; empty: TFDS's default", "DIR")
    define_preparation(flags)
    flags.choice(
        "color",
        None,
        ["source", "grey", "rgb"],
        "The colours of the images: grey or rgb converts all of them to the model's | source refuses those of another kind "
        "(default: as in the run; source with --server)",
    )
    flags.boolean(
        "skip_broken_images",
        False,
        "Gives an image that cannot be read or is of an unsupported kind a row with the reason; without it such an image ends "
        "the command",
    )


def define_preparation(flags: Flags) -> None:
    """Defines --center_crop and --resize."""
    flags.integer(
        "center_crop",
        None,
        "The side of the square that is cut from the centre of each source image, in pixels; 0: the largest (default: as in the "
        "run; 0 with --server)",
        minimum=0,
    )
    flags.choice(
        "resize",
        None,
        ["area", "pad"],
        "How the cut square is brought to the model's size: area (averaged) | pad (unscaled, centred in black) (default: as in "
        "the run; area with --server)",
    )


def preparation(flags: Flags) -> dict[str, Any]:
    """The options of `DataConfig` that the flags of how images are prepared give."""
    given = {name: getattr(flags, name) for name in PREPARATION if name in flags}
    return {name: value for name, value in given.items() if value is not None}


def images_place(flags: Flags, place: str | None) -> dict[str, Any]:
    """The options of `DataConfig` of a data set whose place does not depend on this process's folder, by `define_images`.

    Args:
        flags: of the command.
        place: the data set, as --images; UserError if it is empty.
    """
    if not place:
        raise UserError("expected --images=folder:DIR or another data set")
    here = os.path.expanduser(place)
    if os.path.isdir(here):
        place = f"folder:{place}"
    elif os.path.isfile(here):
        raise UserError(
            f"images: expected a folder or a data set, received {place!r}, which is a file; folder:DIR has all images below DIR, "
            "list:FILE a path a line, npz:FILE arrays"
        )
    given = preparation(flags) | {name: getattr(flags, name) for name in ("data_dir", "skip_broken_images") if name in flags}
    kind, _, path = place.partition(":")
    if kind == "list":  # which is none of `DataConfig`
        there = paths.to_read(path, "images", "a text file with the path of an image a line")
        return given | {"dataset": f"list:{there.absolute()}"}
    absolute = DataConfig(**given | {"dataset": place}).absolute()
    return given | {"dataset": absolute.dataset, "data_dir": absolute.data_dir}


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
    """Computes a shard of a stage, or all shards by Ray, or all rows, in parts of a thousand.

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
    shard = Shard.parse(flags.shard) if flags.shard else None
    if output is None:
        raise UserError("expected --output=DIR, the folder for the parts")
    if (shard or flags.ray) and str(output).lower().endswith((".npz", ".tfrecord")):
        raise UserError(f"output {output}: expected the name of a folder for the parts, with --shard or --ray")
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
    elif finish is None and not shard and not flags.ray:
        say(f"wrote {folder}: {stage.count} images")
    elif finish and shard:
        say(f"the table is written when all {shard.total} parts are there")


def run_to_file(flags: Flags, make: Callable[[ModelPlace], Stage], output: str) -> None:
    """Computes all rows of a stage and writes them into one file; the parts, in FILE.parts until then, are removed.

    Args:
        flags, make: as for `run`, without --shard and --ray.
        output: the file; its name ends as those of the stage's parts do.

    Raises:
        UserError: as `run`, or a file that cannot be written.
    """
    path = paths.file(output, "output").absolute()
    starting.reach(path)
    files.check_file("output", path)

    def finish(folder, stage):
        from tfcq.bulk.reading import join

        join(folder, path)
        say(f"wrote {path}: {stage.count} images")

    folder = path.with_name(path.name + ".parts")
    with files.writing("output", folder):
        forget_unbegun(folder)
    run(flags, make, folder, finish=finish)


def _compute(stage, beside, shard, folder):
    """Computes the shard, or all rows, and with the first the stages beside; whether all parts of all are there then."""
    from tfcq.bulk.running import Work, is_complete

    work = Work(stage, shard.total if shard else None, folder)
    if shard is None or shard.index == 0:
        for name, make in beside.items():
            Work(make(stage), 1, folder / name).compute(0)
    if shard is None:
        work.compute_all()
    else:
        work.compute(shard.index)
    return all(is_complete(one) for one in (folder, *(folder / name for name in beside)))
