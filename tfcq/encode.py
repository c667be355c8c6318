"""The latents of images: `python -m tfcq.encode --workdir=DIR --images=folder:DIR --output=FILE.npz`.

The file has the arrays `keys` (the images' names), `latents`, and `unfit` (why an image has none, or ""); `decode` of the model,
or of an exported one, makes images of latents. The same command again goes on where it was interrupted. With `--shard=i/n` any
number of processes share the work.
"""

import sys

from tfcq.bulk import flags as bulk
from tfcq.command_line.command import Command
from tfcq.command_line.flags import Flags
from tfcq.errors import UserError


def define(flags: Flags) -> None:
    """The flags of `tfcq.encode`."""
    bulk.define_model(flags)
    flags.integer("seed", 0, "The seed of what an encoder draws; an image's own follows from it and from its name", minimum=0)
    flags.string(
        "class_name",
        "",
        "The class of all images, by its name or number, of a model whose latents do not say it (a CQF of --class_conditional)",
        "NAME",
    )
    bulk.define_images(flags)
    flags.group("The work")
    flags.string(
        "output", None, "The file of all latents, FILE.npz; with --shard or --ray the folder for the parts", "FILE|DIR"
    )
    bulk.define_shards(flags)


def main(flags: Flags) -> None:
    """Encodes the images, or those of a shard."""
    data = bulk.images_place(flags, flags.images)
    if flags.output is None:
        raise UserError("expected --output=FILE.npz, or with --shard or --ray the folder for the parts")

    def stage(place):
        from tfcq.bulk.image_stages import Encoding

        return Encoding(place, flags.seed, flags.batch_size, data, flags.class_name)

    if flags.shard or flags.ray:
        bulk.run(flags, stage, flags.output)
    elif flags.output.endswith(".npz"):
        bulk.run_to_file(flags, stage, flags.output)
    else:
        raise UserError(f"output {flags.output}: expected a file that ends in .npz")


COMMAND = Command("tfcq encode", __doc__, define, main, outlives_stdout=True)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
