"""Packs a run for others: `python -m tfcq.pack --workdir=DIR --output=NAME.zip`.

The file or folder has the weights, a model card, the metrics and checksums, and no images. `tfcq unpack` and
`tfcq.Run.from_pretrained` make a run of it again, which can be sampled, evaluated, scored and exported.
"""

import sys

from tfcq import workdir as workdirs
from tfcq.command_line import starting
from tfcq.command_line.command import Command
from tfcq.command_line.flags import Flags
from tfcq.errors import UserError
from tfcq.run import Run


def define(flags: Flags) -> None:
    """The flags of `tfcq.pack`."""
    flags.group("The packed model")
    flags.folder("workdir", None, "The folder of a trained run")
    flags.folder("output", None, "A new folder, or a new file that ends in .zip; its name is the model's")
    flags.choice("checkpoint", "best", ["best", "last"], "The checkpoint that is packed")
    flags.string("license", "", "The path of a text that goes with the model as LICENSE; empty: none")


def main(flags: Flags) -> None:
    """Packs, and prints the path and the size."""
    if not flags.workdir or not flags.output:
        raise UserError("expected --workdir=DIR and --output=NAME.zip")
    starting.reach(flags.workdir)
    workdirs.read_config(flags.workdir)  # reports a folder without a run at once
    starting.start_tensorflow()
    path = Run(flags.workdir).pack(flags.output, flags.checkpoint, flags.license)
    size = sum(one.stat().st_size for one in ([path] if path.is_file() else path.rglob("*")) if one.is_file())
    print(f"packed {path}, {size / 1e6:.3g} MB", flush=True)


COMMAND = Command("tfcq pack", __doc__, define, main, outlives_stdout=True)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
