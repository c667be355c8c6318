"""Writes the flagfiles of `configs/` whose settings are in `tfcq.reproduction.glf_settings`, and names those that changed.

    python tools/flagfiles.py
"""

import sys

from tfcq.command_line import presets
from tfcq.command_line.command import Command
from tfcq.command_line.flags import Flags
from tfcq.machine import files, paths
from tfcq.reproduction.glf_settings import EXPERIMENTS


def define(flags: Flags) -> None:
    """The flags of this tool."""
    flags.folder("output", str(presets.folder()), "The folder of the flagfiles")


def main(flags: Flags) -> int:
    """Writes the files that are not as they should be."""
    folder = paths.as_path(flags.output)
    for name, experiment in EXPERIMENTS.items():
        path = folder / f"{name}.cfg"
        if not path.exists() or path.read_text(encoding="utf-8") != experiment.flagfile():
            files.write_text(path, experiment.flagfile())
            print(f"wrote {path}")
    return 0


COMMAND = Command("tools/flagfiles.py", __doc__, define, main)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
