"""Exports a trained model: `python -m tfcq.export --workdir=DIR --export_dir=BASE` writes BASE/<model name>/<version>/."""

import sys

from tfcq import workdir as workdirs
from tfcq.command_line import starting
from tfcq.command_line.command import Command
from tfcq.command_line.flags import Flags
from tfcq.errors import UserError
from tfcq.run import Run


def define(flags: Flags) -> None:
    """The flags of `tfcq.export`."""
    flags.group("The export")
    flags.folder("workdir", None, "The folder of a trained run")
    flags.folder("export_dir", None, "BASE, the folder of the exported models, also gs://BUCKET/NAME")
    flags.choice("checkpoint", "best", ["best", "last"], "The checkpoint that is exported")
    flags.choice(
        "image_draw",
        "",
        ["", "sample", "mode"],
        "How images are drawn from logistic mixtures, instead of the run's --image_draw",
    )
    flags.integer(
        "num_importance_samples",
        10,
        "The draws per image (K) of the endpoints of likelihoods; they cost K times one draw",
        minimum=1,
    )
    flags.boolean(
        "allow_other_signatures",
        False,
        "Exports even if the newest version in BASE takes or returns other tensors (another image size, other channels or "
        "latents, a missing endpoint): a server that watches BASE would then answer its clients differently",
    )


def main(flags: Flags) -> None:
    """Exports, and prints the path."""
    if not flags.workdir or not flags.export_dir:
        raise UserError("expected --workdir=DIR and --export_dir=BASE")
    starting.reach(flags.workdir)
    workdirs.read_config(flags.workdir)  # reports a folder without a run at once
    starting.start_tensorflow()
    path = Run(flags.workdir).export(
        flags.export_dir,
        flags.num_importance_samples,
        flags.checkpoint,
        flags.image_draw,
        flags.allow_other_signatures,
    )
    print(f"exported {path}", flush=True)


COMMAND = Command("tfcq export", __doc__, define, main, outlives_stdout=True)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
