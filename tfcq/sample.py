"""Pictures of a trained model: `python -m tfcq.sample --workdir=DIR --mode=prior --num_samples=64 --output=FILE.png`.

With `--shard=i/n --output=DIR` a process draws its part of many images, as arrays; `tfcq.bulk.read_parts` reads all parts.
"""

import sys

from tfcq import picture_files
from tfcq import workdir as workdirs
from tfcq.bulk import flags as bulk
from tfcq.command_line import starting
from tfcq.command_line.command import Command
from tfcq.command_line.flags import Flags
from tfcq.config.evaluation import ImagesPlace
from tfcq.endpoints import ENDPOINTS
from tfcq.errors import UserError
from tfcq.machine import files, paths
from tfcq.run import MODES, REBUILT, Run


def define(flags: Flags) -> None:
    """The flags of `tfcq.sample`."""
    flags.group("The picture")
    flags.folder("workdir", None, "The folder of a trained run")
    flags.choice(
        "mode",
        "prior",
        MODES,
        "What the picture shows. prior: new images | stages: new images, and before each what the first of two stages makes | "
        "super_resolve: test images, their compressed images, and images drawn from "
        "those | interpolate: rows between pairs of test images | interpolate_outer: the same of the latents of the first of two "
        "stages alone | interpolate_noise: rows between pairs of new images, 0 and 1, "
        "2 and 3, ... of mode prior | others: test images, and beside them "
        + "; ".join(f"{name}: {ENDPOINTS[name].meaning}" for name in REBUILT),
    )
    flags.integer("num_samples", 64, "How many new images, reconstructed images, or rows the picture has", minimum=1)
    flags.string(
        "output",
        None,
        "The file of the picture; its ending decides the format: .png | .jpg | .webp (default: samples/MODE.png in the workdir); "
        "with --shard or --ray the folder for the parts",
        "FILE|DIR",
    )
    flags.integer("seed", 0, "The seed of the images; image i of a seed is always the same", minimum=0)
    flags.number(
        "temperature", 1.0, "The factor of the prior's standard deviation (modes prior, stages, interpolate_noise)", minimum=0.0
    )
    flags.choice(
        "interpolation",
        "linear",
        ["linear", "spherical"],
        "The path of mode interpolate, in the space of the noise that latents are made from (of the latents, if they are not), "
        "and of mode interpolate_noise",
    )
    flags.choice(
        "image_draw",
        "",
        ["", "sample", "mode"],
        "How images are drawn from logistic mixtures, instead of the run's --image_draw",
    )
    flags.choice("checkpoint", "best", ["best", "last"], "The checkpoint that is shown")
    flags.group("The run's images")
    flags.choice("split", "test", ["train", "validation", "test"], "The split of the images that are reconstructed or shown")
    flags.options(ImagesPlace)
    flags.string(
        "other_dataset",
        "",
        "Another data set, named as --dataset and prepared as the run's, whose images are shown in place of the run's",
        "NAME",
    )
    flags.string("other_test_split", "test", "The test split of --other_dataset, as --test_split", "NAME")
    flags.group("Many images of mode prior, as arrays")
    bulk.define_export(flags)
    bulk.define_shards(flags)


def main(flags: Flags) -> None:
    """Draws the picture and writes it, or a part of many images."""
    if flags.shard or flags.ray:
        _draw_many(flags)
        return
    if flags.export:
        raise UserError("export: expected it with --shard=i/n or --ray=n; a picture is drawn of a run, --workdir=DIR")
    if not flags.workdir:
        raise UserError("expected --workdir=DIR of a trained run")
    path = f"{flags.workdir}/samples/{flags.mode}.png" if flags.output is None else paths.file(flags.output, "output")
    starting.reach(flags.workdir, path)
    picture_files.check_name(path)
    workdirs.read_config(flags.workdir)  # reports a folder without a run at once
    files.check_file("output", path)
    starting.start_tensorflow()
    picture = Run(flags.workdir).picture(
        flags.mode,
        flags.num_samples,
        seed=flags.seed,
        temperature=flags.temperature,
        spherical=flags.interpolation == "spherical",
        split=flags.split,
        checkpoint=flags.checkpoint,
        image_draw=flags.image_draw,
        place=flags.section(ImagesPlace),
        other_dataset=flags.other_dataset,
        other_test_split=flags.other_test_split,
    )
    with files.writing("output", path):
        picture_files.write(path, picture)
    print(f"wrote {path}", flush=True)


def _draw_many(flags):
    if flags.mode != "prior":
        raise UserError(f"mode: expected prior with --shard and --ray, received {flags.mode}")
    if flags.other_dataset:
        raise UserError("other_dataset: --shard and --ray draw new images and show no given ones; expected it without them")

    def stage(place):
        from tfcq.bulk.stages import Sampling

        return Sampling(place, flags.seed, flags.batch_size, flags.num_samples, flags.temperature)

    bulk.run(flags, stage, flags.output)


COMMAND = Command("tfcq sample", __doc__, define, main, outlives_stdout=True)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
