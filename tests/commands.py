"""tfcq's commands, as processes or in this one, for all tests that run one."""

import contextlib
import importlib
import io
import os
import pathlib
import re
import subprocess
import sys

from tfcq.command_line.configuration import config_of

REPOSITORY = pathlib.Path(__file__).parents[1]
TINY = {
    "image_size": 8,
    "quality_weight": 0,
    "flow_scales": 0,
    "latent_size": 4,
    "latent_channels": 2,
    "width": 4,
    "batch_size": 8,
    "validation_images": 16,
    "grid_images": 4,
}
"""Flags of a training of which a step takes milliseconds: a small VAE."""


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


def command_of(name):
    """The `Command` of tfcq.NAME."""
    return importlib.import_module(f"tfcq.{name}").COMMAND


def run_here(name, *arguments):
    """Runs tfcq.NAME in this process: (exit status, stdout, stderr)."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)]
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        status = command_of(name).run(arguments)
    return status, *(stream.buffer.getvalue().decode() for stream in streams)


def flags_of(name, *arguments):
    """The `Flags` of tfcq.NAME with the values of a command line."""
    flags = command_of(name).flags()
    flags.parse(arguments)
    return flags


def config_from(*arguments):
    """The Config that flags of tfcq.train describe."""
    flags = flags_of("train", *arguments)
    return config_of({"model": flags.model} | flags.given())


def assert_one_line(status, stderr, expected):
    """That a mistake was one line, which says `expected`, and status 2."""
    assert status == 2
    assert stderr.startswith("error: ") and stderr.count("\n") == 1 and stderr.endswith("\n")
    assert expected in stderr
