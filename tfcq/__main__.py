"""`tfcq NAME [--flag=value ...]`, or `python -m tfcq NAME ...`: the commands of tfcq by their names."""

import importlib
import shutil
import sys
import textwrap
from collections.abc import Sequence

from tfcq.command_line import starting
from tfcq.command_line.command import version
from tfcq.config.fields import suggestion
from tfcq.errors import UserError

COMMANDS = {
    "train": "Trains a model, or resumes a run.",
    "evaluate": "Measures a trained model, or compares several.",
    "sample": "Draws images from a trained model: a picture of some, or many as files.",
    "score": "Measures the likelihoods of images, one by one.",
    "encode": "Writes the latents of images.",
    "export": "Exports a trained model as a SavedModel.",
    "pack": "Packs a trained model for others: weights, card, metrics, checksums.",
    "unpack": "Makes a run of a packed model.",
    "serve": "Serves exported models over TF Serving's gRPC and REST protocol.",
    "demo": "Opens a page to try a model on, in a browser.",
    "reproduce": "Trains and measures the rows of a paper's table.",
    "benchmark": "Times a configuration on this machine.",
}
"""{name: what it does}; the command is `tfcq.NAME.COMMAND`, which is imported when it is called."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command that the first argument names, with the remaining arguments; returns its exit status.

    Args:
        arguments: the command line without the name of the program; None: that of the process.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    name, *rest = given or [""]
    if name in COMMANDS:
        return importlib.import_module(f"tfcq.{name}").COMMAND.run(rest)
    return starting.run(lambda: _without_command(name))


def _without_command(name):
    if name in ("--help", "-help", "-h", "--helpfull"):
        print(_help())
    elif name in ("--version", "-version"):
        print(version())
    else:
        received = f"received {name!r}{suggestion(name, COMMANDS)}" if name else "received none (see tfcq --help)"
        raise UserError(f"expected a command, one of {', '.join(COMMANDS)}; {received}")


def _help():
    width = max(shutil.get_terminal_size((80, 24)).columns, 50)
    commands = [
        textwrap.fill(text, width - 1, initial_indent=f"  {name:11}", subsequent_indent=" " * 13)
        for name, text in COMMANDS.items()
    ]
    end = "`tfcq NAME --help` shows the flags of a command; `python -m tfcq.NAME` is the same as `tfcq NAME`."
    end = textwrap.fill(end, width - 1)
    return "\n".join(["usage: tfcq NAME [--flag=value ...]", "       tfcq --help | --version", "", *commands, "", end])


if __name__ == "__main__":
    sys.exit(main())
