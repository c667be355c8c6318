"""Trains a model: `python -m tfcq.train --preset=NAME [--workdir=DIR] [--any_flag=...]`.

A preset is a flagfile of configs/ by its name; --flagfile=FILE takes any other. The same command run again resumes.
`--workdir=DIR` alone resumes the run in DIR; other flags, without a preset or flagfile, change options of that run, such as a
larger --train_steps. The help says which options may change; any other change makes another run.

Ctrl-C, SIGTERM and SIGHUP (a closed terminal) save and exit with 130, 143 and 129. If standard output is closed, as with
`| head`, training goes on without it.
"""

import sys

from tfcq import workdir as workdirs
from tfcq.command_line import starting
from tfcq.command_line.command import Command
from tfcq.command_line.configuration import config_of, warn_of_unused
from tfcq.command_line.flags import Flags
from tfcq.errors import UserError
from tfcq.run import Run


def define(flags: Flags) -> None:
    """The flags of `tfcq.train`."""
    flags.configuration()
    flags.group("The run")
    flags.folder("workdir", None, "The folder of the run, also gs://BUCKET/NAME (default: runs/NAME of the preset or flagfile)")
    flags.boolean(
        "accept_changed_data",
        False,
        "Goes on with those of a run's images that are left, if some are gone or have changed; for a run without a "
        "list of its images (earlier versions kept none): goes on in another place, or splits other images anew",
    )


def main(flags: Flags) -> None:
    """Trains the run that the flags describe."""
    name = flags.run_name()
    options = flags.given()
    given = name or options or flags.model
    if not given and not flags.workdir:
        raise UserError(
            "expected --preset=NAME or --flagfile=configs/NAME.cfg, other flags of a run (--help), or --workdir=DIR to resume one"
        )

    starting.reach(flags.workdir)
    held = None
    if flags.workdir and not name and (not given or workdirs.exists(flags.workdir)):
        held = workdirs.read_config(flags.workdir)  # reports a folder that has nothing to resume
    config = config_of({"model": flags.model} | options, held)
    warn_of_unused(config, options)
    starting.reach(config.training.init_from)
    workdir = flags.workdir or f"runs/{name or config.model}"

    starting.start_tensorflow()
    Run(workdir, config).train(accept_changed_data=flags.accept_changed_data)


COMMAND = Command("tfcq train", __doc__, define, main, outlives_stdout=True, presets="")

if __name__ == "__main__":
    sys.exit(COMMAND.run())
