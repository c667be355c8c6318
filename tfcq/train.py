"""Trains a model: `python -m tfcq.train --flagfile=configs/NAME.cfg [--workdir=DIR] [--any_flag=...]`.

The same command run again resumes. `--workdir=DIR` alone resumes what DIR holds; flags beside it, without a flagfile, are changes
of what DIR holds, such as a larger --train_steps. What may change says so below; anything else is another run.

Ctrl-C, SIGTERM and SIGHUP (a terminal that goes away) save and exit with 130, 143 and 129. Where standard output is closed, as
behind `| head`, training goes on without it.
"""

import sys

from absl import flags

from tfcq import workdir as workdirs
from tfcq.config import flags as config_flags
from tfcq.errors import UserError

config_flags.define_config_flags()
WORKDIR = config_flags.define_folder("workdir", None, "Folder of the run (default: runs/NAME of the flagfile).")
ACCEPT_CHANGED_DATA = flags.DEFINE_bool(
    "accept_changed_data",
    False,
    "Go on with those of a run's images that are there, where some are gone or have another content; of a run without a "
    "list of its images (earlier versions kept none): go on in another place, or split other images anew.",
)


def main():
    name = config_flags.flagfile_name(sys.argv)
    given = name or config_flags.given_flags() or flags.FLAGS.model
    if not given and not WORKDIR.value:
        raise UserError("expected --flagfile=configs/NAME.cfg, other flags of a run (--help), or --workdir=DIR to resume one")

    held = None
    if WORKDIR.value and not name and (not given or workdirs.exists(WORKDIR.value)):
        held = workdirs.read_config(WORKDIR.value)  # says it where there is nothing to resume
    config = config_flags.config_from_flags(held)
    workdir = WORKDIR.value or f"runs/{name or config.model}"

    config_flags.start_tensorflow()
    from tfcq.training import run

    run.train(config, workdir, ACCEPT_CHANGED_DATA.value)


if __name__ == "__main__":
    config_flags.run(main, outlives_stdout=True)
