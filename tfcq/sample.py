"""Images of a trained model: `python -m tfcq.sample --workdir=DIR [--num_samples=64] [--output=FILE|DIR]`.

A picture, FILE.png, shows a grid of images. A folder gets each image as a file, FILE.npz and FILE.tfrecord hold all of them. The
same command again goes on where it was interrupted. With `--shard=i/n` any number of processes share the work.
"""

import os
import pathlib
import sys

from tfcq import picture_files
from tfcq import workdir as workdirs
from tfcq.bulk import flags as bulk
from tfcq.bulk.formats import IMAGE_FORMATS
from tfcq.bulk.job import check_new_or_begun
from tfcq.command_line import starting
from tfcq.command_line.command import Command
from tfcq.command_line.flags import Flags
from tfcq.config.evaluation import ImagesPlace
from tfcq.endpoints import ENDPOINTS
from tfcq.errors import UserError
from tfcq.machine import files, paths
from tfcq.run import MODES, REBUILT, Run

_OF_PICTURES = ("other_dataset", "other_test_split", "split", "interpolation", *ImagesPlace.__dataclass_fields__)
_WHOLE_FILES = {".npz": "npz", ".tfrecord": "tfrecord"}


def define(flags: Flags) -> None:
    """The flags of `tfcq.sample`."""
    flags.group("The images")
    flags.folder("workdir", None, "The folder of a trained run")
    bulk.define_export(flags)
    bulk.define_server(flags)
    flags.choice(
        "mode",
        "prior",
        MODES,
        "What is shown. prior: new images | stages: new images, and before each what the first of two stages makes | "
        "variations: images like those of --like | "
        "super_resolve: test images, their compressed images, and images drawn from "
        "those | interpolate: rows between pairs of test images | interpolate_outer: the same of the latents of the first of two "
        "stages alone | interpolate_noise: rows between pairs of new images, 0 and 1, "
        "2 and 3, ... of mode prior | others: test images, and beside them "
        + "; ".join(f"{name}: {ENDPOINTS[name].meaning}" for name in REBUILT),
    )
    flags.integer(
        "num_samples", 64, "How many new images, reconstructed images, variations of an image, or rows a picture has", minimum=1
    )
    flags.string(
        "output",
        None,
        "What is written by its ending: a picture, .png | .jpg | .webp (default: samples/MODE.png in the workdir); or the images "
        "of mode prior or variations: in one file, .npz (an array `images`) | .tfrecord (tf.train.Example, as PNG); each in a "
        "file: DIR; with --shard or --ray the folder for the parts",
        "FILE|DIR",
    )
    flags.integer("seed", 0, "The seed of the images; image i of a seed is always the same", minimum=0)
    flags.number(
        "temperature",
        1.0,
        "The factor of the prior's standard deviation (modes prior, stages, variations, interpolate_noise)",
        minimum=0.0,
    )
    flags.string(
        "class_name",
        "",
        "The class of all images, by its name or number, of a model of --class_conditional (modes prior, variations, "
        "reconstruct, interpolate; a CQF needs it for given images); empty: a picture of mode prior has a row for each class, "
        "and the class of other images is drawn, too",
        "NAME",
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
    flags.group("Images of one's own")
    flags.files_to_read(
        "like",
        "Files of images, prepared as the run's, in place of test images; without --mode their variations are shown; a "
        "name with a comma stands in double quotes",
    )
    flags.number(
        "strength",
        0.5,
        "How far mode variations goes from an image to new ones: 0: its reconstruction | 1: the reconstructions of new images",
        minimum=0.0,
        maximum=1.0,
    )
    flags.files_to_read("interpolate", "As --like with --mode=interpolate: rows between files 1 and 2, 3 and 4, ...")
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
    flags.group("Many images of mode prior or variations")
    flags.choice(
        "format",
        "",
        ["", *IMAGE_FORMATS],
        "The files in a folder: png: 00012/seed-0-00012345.png | npz, tfrecord: parts of many images (default: png; npz with "
        "--shard or --ray)",
    )
    bulk.define_shards(flags)


def main(flags: Flags) -> None:
    """Draws the images and writes them."""
    given, mode = _given_images(flags)
    form = _form(flags)
    if mode != "variations" and flags.values["strength"].present:
        raise UserError("strength: expected it with --like=FILE alone, of whose variations it is")
    if form == "picture" and flags.values["format"].present:
        raise UserError("format: expected it with --output=DIR, a folder of images")
    if form != "picture":
        _draw_many(flags, mode, given, form)
        return
    for name in ("export", "server"):
        if getattr(flags, name):
            raise UserError(
                f"{name}: a picture is drawn of a run, --workdir=DIR; expected --output=DIR, or a file .npz or .tfrecord"
            )
    if not flags.workdir:
        raise UserError("expected --workdir=DIR of a trained run")
    path = f"{flags.workdir}/samples/{mode}.png" if flags.output is None else paths.file(flags.output, "output")
    starting.reach(flags.workdir, path)
    picture_files.check_name(path)
    workdirs.read_config(flags.workdir)  # reports a folder without a run at once
    files.check_file("output", path)
    starting.start_tensorflow()
    picture = Run(flags.workdir).picture(
        mode,
        flags.num_samples,
        seed=flags.seed,
        temperature=flags.temperature,
        spherical=flags.interpolation == "spherical",
        strength=flags.strength,
        split=flags.split,
        checkpoint=flags.checkpoint,
        image_draw=flags.image_draw,
        place=flags.section(ImagesPlace),
        other_dataset=flags.other_dataset,
        other_test_split=flags.other_test_split,
        images=given,
        class_name=flags.class_name,
    )
    with files.writing("output", path):
        picture_files.write(path, picture)
    print(f"wrote {path}", flush=True)


def _given_images(flags):
    """(the files of images that are given, or None; the mode)."""
    chosen = flags.mode if flags.values["mode"].present else ""
    for name in ("like", "interpolate"):
        if flags.values[name].present and not getattr(flags, name):
            raise UserError(f"{name}: expected the file of an image, received none")
    if flags.like and flags.interpolate:
        raise UserError("expected either --like or --interpolate, received both")
    if flags.interpolate:
        if chosen not in ("", "interpolate", "interpolate_outer"):
            raise UserError(f"interpolate: expected --mode=interpolate, interpolate_outer or none, received {chosen}")
        if len(flags.interpolate) % 2:
            raise UserError(f"interpolate: expected files in pairs, FILE,FILE, received {len(flags.interpolate)}")
        return flags.interpolate, chosen or "interpolate"
    if flags.like:
        if chosen in ("prior", "stages", "interpolate_noise"):
            raise UserError(f"like: mode={chosen} shows no given images; expected another --mode, or none")
        if chosen in ("interpolate", "interpolate_outer") and len(flags.like) % 2:
            raise UserError(f"like: expected files in pairs with --mode={chosen}, received {len(flags.like)}")
        return flags.like, chosen or "variations"
    if chosen == "variations":
        raise UserError("mode=variations: expected --like=FILE, the image whose variations are drawn")
    return None, flags.mode


def _form(flags):
    """What is written: "picture", "npz", "tfrecord" (one file) or "folder"."""
    if flags.shard or flags.ray:
        return "folder"
    if flags.output is None:
        return "picture"
    ending = os.path.splitext(flags.output)[1]
    if not ending or flags.output.endswith("/") or os.path.isdir(flags.output):
        return "folder"
    if ending.lower() in _WHOLE_FILES and ending not in _WHOLE_FILES:
        raise UserError(f"output {flags.output}: expected a name that ends in {ending.lower()}, in small letters")
    if ending not in _WHOLE_FILES and ending.lower() not in picture_files.ENDINGS:
        raise UserError(
            f"output {flags.output}: expected a picture ({', '.join(picture_files.ENDINGS)}), a file of all images "
            f"({', '.join(_WHOLE_FILES)}) or a folder, DIR/; received the ending {ending!r}"
        )
    return _WHOLE_FILES.get(ending, "picture")


def _draw_many(flags, mode, given, form):
    if mode not in ("prior", "variations"):
        raise UserError(f"mode: expected prior or variations, or --output=FILE.png, a picture; received {mode}")
    for name in _OF_PICTURES:
        if flags.values[name].present:
            raise UserError(f"{name}: a picture alone shows such images; expected --output=FILE.png")
    if form != "folder" and flags.values["format"].present:
        raise UserError(f"format: expected it with --output=DIR, received it with {flags.output}")
    if given and len(given) > 1:
        raise UserError(f"like: expected one file for files of images, received {len(given)}")
    kept = form if form != "folder" else flags.format or ("npz" if flags.shard or flags.ray else "png")
    if form == "folder" and flags.output and not paths.is_remote(flags.output):
        check_new_or_begun(pathlib.Path(flags.output).expanduser(), kept)  # before the model is loaded

    def stage(place):
        from tfcq.bulk.stages import Sampling, Varying

        options = (place, flags.seed, flags.batch_size, flags.num_samples, flags.temperature, kept, flags.class_name)
        if mode == "prior":
            return Sampling(*options)
        return Varying(*options, image=os.path.abspath(given[0]), strength=flags.strength)

    if form == "folder":
        bulk.run(flags, stage, flags.output)
    else:
        bulk.run_to_file(flags, stage, flags.output)


COMMAND = Command("tfcq sample", __doc__, define, main, outlives_stdout=True)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
