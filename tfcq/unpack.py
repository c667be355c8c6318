"""Makes a run of a packed model: `python -m tfcq.unpack --model=PLACE --workdir=DIR`.

PLACE is a name (`--model=` lists them), a folder, a zip file, https://HOST/PATH.zip or hf://OWNER/REPOSITORY. Every file is
compared with its checksum. The run can be sampled, evaluated, scored and exported, and not trained on.
"""

import sys

from tfcq.command_line.command import Command
from tfcq.command_line.flags import Flags
from tfcq.errors import UserError
from tfcq.releasing import fetching


def define(flags: Flags) -> None:
    """The flags of `tfcq.unpack`."""
    flags.group("The packed model")
    flags.string("model", "", "A name, a folder, a zip file, https://HOST/PATH.zip[#sha256=HEX] or hf://OWNER/REPOSITORY[@REVISION]")
    flags.folder("workdir", None, "A new folder for the run")


def main(flags: Flags) -> None:
    """Unpacks, and prints the path."""
    if not flags.model or not flags.workdir:
        known = f"; models by name: {', '.join(fetching.names())}" if fetching.names() else ""
        raise UserError(f"expected --model=PLACE and --workdir=DIR{known}")
    print(f"unpacked {fetching.unpacked(flags.model, flags.workdir)}", flush=True)


COMMAND = Command("tfcq unpack", __doc__, define, main, outlives_stdout=True)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
