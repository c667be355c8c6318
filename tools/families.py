"""The picture of README: rows of test images and of samples of four small models, all trained here on scikit-learn's digits.

    .venv/bin/python tools/families.py --output=docs/images/families.png [--models=runs/families]

Took 22 minutes on two cores beside other work; run again it goes on where it stopped.
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import tfcq
from tfcq import picture_files
from tfcq.command_line import starting
from tfcq.command_line.command import Command
from tfcq.command_line.flags import Flags

COLUMNS = 16
SCALE = 6  # of a pixel in the picture
GAP = 2  # pixels between two images, before they are scaled


MODELS = {"glf": "digits_glf", "cqf": "quickstart", "soft_introvae": "digits_soft_introvae", "srvae": "digits_srvae"}
"""{name of the row: the preset by which it is trained}."""


def define(flags: Flags) -> None:
    """The flags of this tool."""
    flags.group("The picture")
    flags.file("output", "docs/images/families.png", "The file of the picture")
    flags.folder("models", "runs/families", "The folder of the trained models")


def main(flags: Flags) -> None:
    """Trains what is not trained yet, and draws the picture."""
    picture_files.check_name(flags.output)
    starting.start_tensorflow()
    rows = []
    for name, preset in MODELS.items():
        run = tfcq.Run(flags.models / name, tfcq.preset(preset))
        run.train()
        if not rows:
            rows.append(run.data().images("test", range(COLUMNS)))
        rows.append(run.model("last").sample(COLUMNS))
    flags.output.parent.mkdir(parents=True, exist_ok=True)
    picture_files.write(flags.output, grid_of(rows))
    print(f"wrote {flags.output}: test images, {', '.join(MODELS)}", flush=True)


def grid_of(rows: list[np.ndarray]) -> np.ndarray:
    """Images in rows, uint8 [N, H, W, C] each, on white, as one picture uint8 [height, width, C]."""
    framed = [np.pad(row, ((0, 0), (GAP, 0), (GAP, 0), (0, 0)), constant_values=255) for row in rows]
    lines = [np.concatenate(list(row), axis=1) for row in framed]
    return np.concatenate(lines, axis=0).repeat(SCALE, axis=0).repeat(SCALE, axis=1)


COMMAND = Command("tools/families.py", __doc__, define, main)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
