"""Commands: the flags of a command, its work, and the call of both.

    def define(flags):
        flags.folder("workdir", None, "The folder of a trained run.")

    def main(flags):
        print(flags.workdir)

    COMMAND = Command("tfcq show", __doc__, define, main)

    if __name__ == "__main__":
        sys.exit(COMMAND.run())
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence

from absl import flags as absl_flags

from tfcq.command_line import starting
from tfcq.command_line.flags import Flags
from tfcq.command_line.help import help_text
from tfcq.errors import UserError


@dataclasses.dataclass(frozen=True)
class Command:
    """One command of tfcq.

    Args:
        name: how it is called, such as "tfcq train".
        description: the text at the beginning of its help; paragraphs that start with a space are not wrapped.
        define: function that defines the command's flags in the `Flags` that it receives.
        main: function that does the work, given the `Flags` with their values; returns the exit status, None for 0.
        outlives_stdout: see `starting.run`.
        presets: the kind of its presets (`presets.names`); None: it has none.
        flagfiles: whether it accepts --flagfile.
    """

    name: str
    description: str
    define: Callable[[Flags], None]
    main: Callable[[Flags], int | None]
    outlives_stdout: bool = False
    presets: str | None = None
    flagfiles: bool = True

    def flags(self) -> Flags:
        """The command's flags, before a command line is parsed."""
        flags = Flags(self.presets, self.flagfiles)
        self.define(flags)
        flags.common()
        hidden = [name for name in flags.values if hasattr(Flags, name) or name in vars(flags)]
        if hidden:
            raise ValueError(f"flags {', '.join(hidden)}: `Flags` has an attribute of this name; expected another")
        return flags

    def run(self, arguments: Sequence[str] | None = None) -> int:
        """Parses the command line, does the work and returns the exit status; an error is one line on stderr.

        Args:
            arguments: the command line without the name of the program; None: that of the process.
        """
        given = list(sys.argv[1:] if arguments is None else arguments)
        return starting.run(lambda: self._work(given), self.outlives_stdout)

    def _work(self, arguments):
        flags = self.flags()
        try:
            flags.parse(arguments)
        except UserError:
            if not _asked(flags, arguments):  # --help is shown even if another flag is wrong
                raise
        asked = _asked(flags, arguments)
        if asked == "version":
            print(version())
        elif asked:
            print(help_text(self.name, self.description, flags, full=asked == "helpfull"))
        else:
            absl_flags.FLAGS.mark_as_parsed()  # libraries read flags of their own from it
            return self.main(flags)
        return 0


def version() -> str:
    """The line that --version prints."""
    from tfcq import __version__

    return f"tfcq {__version__}"


def _asked(flags, arguments):
    """Which of --version, --helpfull and --help is given, even if parsing failed before it; else None."""
    literal = {argument.lstrip("-") for argument in arguments if argument.startswith("-")}
    names = {"version": "version", "helpfull": "helpfull", "help": "help", "h": "help"}
    return next((name for text, name in names.items() if text in literal or getattr(flags, name)), None)
