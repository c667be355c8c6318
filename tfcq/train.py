"""Trains a model: `python -m tfcq.train --flagfile=configs/NAME.cfg [--workdir=DIR] [--any_flag=...]`.

The same command run again resumes. `--workdir=DIR` alone resumes what DIR holds.
"""

import sys

from absl import flags

from tfcq import flags as config_flags
from tfcq.errors import UserError

config_flags.define_config_flags()
WORKDIR = config_flags.define_folder("workdir", None, "Folder of the run (default: runs/NAME of the flagfile).")


def main():
    config = config_flags.config_from_flags()
    name = config_flags.flagfile_name(sys.argv)
    workdir = WORKDIR.value or f"runs/{name or config.model}"
    given = name or config_flags.given_flags() or flags.FLAGS.model
    if not given and not WORKDIR.value:
        raise UserError("expected --flagfile=configs/NAME.cfg, other flags of a run (--help), or --workdir=DIR to resume one")

    config_flags.start_tensorflow()
    from tfcq import workdir as workdirs
    from tfcq.training import run

    if not given and workdirs.exists(workdir):
        config = workdirs.read_config(workdir)
    run.train(config, workdir)


if __name__ == "__main__":
    config_flags.run(main)
