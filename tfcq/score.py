"""Likelihoods of images, one by one: `python -m tfcq.score --workdir=DIR --images=folder:DIR --output=DIR [--shard=i/n]`.

Any number of processes, on any machines, compute a shard each; `tfcq.bulk.read_parts` reads their parts as one table.
"""

import sys

from tfcq.bulk import flags as bulk
from tfcq.command_line.command import Command
from tfcq.command_line.flags import Flags
from tfcq.config import DataConfig
from tfcq.errors import UserError


def define(flags: Flags) -> None:
    """The flags of `tfcq.score`."""
    flags.group("The model")
    flags.folder("workdir", None, "The folder of a trained run")
    bulk.define_export(flags)
    flags.choice("checkpoint", "best", ["best", "last"], "The checkpoint of the workdir that is used")
    flags.integer(
        "num_importance_samples", 50, "The number of draws per image of the likelihood (K), with --workdir", minimum=1
    )
    flags.integer("seed", 0, "The seed of the draws; an image's own follows from it and from the image's name", minimum=0)
    flags.group("The images")
    flags.string(
        "images",
        None,
        "The images, named as in --dataset of tfcq.train: folder:DIR (all below it) | npz:FILE | idx:DIR | a TFDS data set (of "
        "all splits)",
        "PLACE",
    )
    flags.string("data_dir", "", "The folder where TFDS keeps prepared data sets; empty: TFDS's default", "DIR")
    flags.integer(
        "center_crop",
        None,
        "The side of the square that is cut from the centre of each source image, in pixels; 0: the largest (default: as in the "
        "run; 0 with --export)",
        minimum=0,
    )
    flags.choice(
        "resize",
        None,
        ["area", "pad"],
        "How the cut square is brought to the model's size: area (averaged) | pad (unscaled, centred in black) (default: as in "
        "the run; area with --export)",
    )
    flags.choice(
        "color",
        None,
        ["source", "grey", "rgb"],
        "The colours of the images: grey or rgb converts all of them to the model's | source refuses those of another kind "
        "(default: as in the run; source with --export)",
    )
    flags.boolean(
        "skip_broken_images",
        False,
        "Gives an image that cannot be read or is of an unsupported kind a row with the reason; without it such an image ends "
        "the command",
    )
    flags.group("The work")
    flags.folder("output", None, "The folder for the parts: a row of JSON for each image, its name, nats and bits/dim")
    bulk.define_shards(flags)


def main(flags: Flags) -> None:
    """Scores the images of a shard."""
    if not flags.images:
        raise UserError("expected --images=folder:DIR or another data set")
    options = {name: getattr(flags, name) for name in ("data_dir", "center_crop", "resize", "color", "skip_broken_images")}
    options = {name: value for name, value in options.items() if value is not None}
    absolute = DataConfig(**{"dataset": flags.images} | options).absolute()
    data = options | {"dataset": absolute.dataset, "data_dir": absolute.data_dir}

    def stage(place):
        from tfcq.bulk.stages import Scoring

        return Scoring(place, flags.seed, flags.batch_size, data)

    bulk.run(flags, stage, flags.output)


COMMAND = Command("tfcq score", __doc__, define, main, outlives_stdout=True)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
