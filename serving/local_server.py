"""`python -m tfcq.serve`, from a checkout."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from tfcq.serve import COMMAND

if __name__ == "__main__":
    sys.exit(COMMAND.run())
