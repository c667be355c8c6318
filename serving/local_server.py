"""`python -m tfcq.serve`, from a checkout."""

import pathlib
import runpy
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
runpy.run_module("tfcq.serve", run_name="__main__")
