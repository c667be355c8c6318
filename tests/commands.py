"""tfcq's commands as processes, for all tests that start one."""

import os
import pathlib
import re
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).parents[1]


def command(module, *arguments, **flags):
    """The list `python -m tfcq.MODULE ARGUMENTS --NAME=VALUE ...`."""
    return [sys.executable, "-m", f"tfcq.{module}", *arguments, *(f"--{name}={value}" for name, value in flags.items())]


def start(arguments, **options):
    """A `subprocess.Popen` with this repository's tfcq, in any folder; stdout and stderr are pipes of text unless given."""
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    return subprocess.Popen(arguments, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, **settings)


def output_of(process, timeout=400):
    """What a process prints until it ends, which it must without an error."""
    output, errors = process.communicate(timeout=timeout)
    assert (process.returncode, errors) == (0, ""), errors
    return output


def last_step(workdir):
    """The step of a run's newest checkpoint; 0: it has none."""
    steps = [int(re.search(r"\d+", path.name)[0]) for path in (workdir / "checkpoints" / "last").glob("step-*.index")]
    return max(steps, default=0)
