"""`python -m tfcq.serve`, from a checkout."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from tfcq import serve

__doc__ = serve.__doc__  # what --help shows

if __name__ == "__main__":
    sys.exit(serve.main(sys.argv))
