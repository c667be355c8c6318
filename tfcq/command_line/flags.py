"""The flags of one command: defined by it, read from a command line, and grouped for its help."""

import pathlib
import typing
from collections.abc import Iterable, Sequence

from absl import flags as absl_flags

from tfcq.command_line import flagfiles, presets
from tfcq.command_line.options import Entry, entry_of, facts, kinds_of, place_holder_of, run_options
from tfcq.config.fields import Section
from tfcq.errors import UserError
from tfcq.machine import paths

_DEFINE = {
    bool: absl_flags.DEFINE_bool,
    int: absl_flags.DEFINE_integer,
    float: absl_flags.DEFINE_float,
    str: absl_flags.DEFINE_string,
}
COMMON = "Other flags"
"""The group of the flags that every command has."""


class Flags:
    """A table of flags, none of which any other command or library sees; a flag's value is the attribute of its name.

    The methods that define a flag take its name, its default (None: none) and its meaning, a sentence without its full stop.
    `group` says under which title of the help the next ones stand.

    Args:
        presets: of which kind the presets of --preset are; None: there is no such flag.
        takes_flagfiles: whether there is --flagfile.

    Attributes:
        values: the `absl.flags.FlagValues`.
        groups: {title: [Entry]} for the help.
        has_configuration: whether all options of a run are flags (`configuration`).
        arguments: the command line that was read, without the name of the program.
    """

    def __init__(self, presets: str | None = None, takes_flagfiles: bool = True):
        self.values = absl_flags.FlagValues()
        self.groups, self._title = {}, "Flags"
        self.has_configuration, self.arguments = False, []
        self._presets, self._takes_flagfiles, self._options = presets, takes_flagfiles, {}

    def __getattr__(self, name):
        values = self.__dict__.get("values", ())
        if name not in values:
            raise AttributeError(f"no flag --{name}")
        return values[name].value

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def group(self, title: str) -> None:
        """The flags that are defined from here on stand under this title."""
        self._title = title

    def boolean(self, name: str, default: bool | None, meaning: str) -> None:
        """--name or --noname."""
        absl_flags.DEFINE_bool(name, default, meaning, flag_values=self.values)
        self._enter(name, "", meaning + facts(default or None))

    def integer(
        self, name: str, default: int | None, meaning: str, minimum: int | None = None, maximum: int | None = None
    ) -> None:
        """An integer within bounds (inclusive)."""
        absl_flags.DEFINE_integer(name, default, meaning, minimum, maximum, flag_values=self.values)
        self._enter(name, "N", meaning + facts(default, minimum, maximum))

    def number(self, name: str, default: float | None, meaning: str, minimum: float | None = None) -> None:
        """A float, at least the minimum."""
        absl_flags.DEFINE_float(name, default, meaning, minimum, flag_values=self.values)
        self._enter(name, "X", meaning + facts(default, minimum))

    def string(self, name: str, default: str | None, meaning: str, place_holder: str = "TEXT") -> None:
        """Any text."""
        absl_flags.DEFINE_string(name, default, meaning, flag_values=self.values)
        self._enter(name, place_holder, meaning + facts(default or None))

    def choice(self, name: str, default: str | None, choices: Sequence[str], meaning: str) -> None:
        """One of several words; "" among them is no choice."""
        absl_flags.DEFINE_enum(name, default, choices, meaning, flag_values=self.values)
        self._enter(name, place_holder_of(choices, "NAME"), meaning + facts(default or None, choices=choices, meaning=meaning))

    def several(self, name: str, default: Sequence[str] | None, meaning: str) -> None:
        """A list of words that commas separate."""
        absl_flags.DEFINE_list(name, default, meaning, flag_values=self.values)
        self._enter(name, "A,B,...", meaning + facts(",".join(default or ()) or None))

    def folder(self, name: str, default: str | None, meaning: str) -> None:
        """A folder: a pathlib.Path that `paths.folder` has checked, or None."""
        self._path(name, default, meaning, _PathParser(paths.folder, name), "DIR")

    def folders(self, name: str, default: Sequence[str] | None, meaning: str) -> None:
        """Folders that commas separate: a list of pathlib.Path that `paths.folder` has checked."""
        self._path(name, default, meaning, _FoldersParser(name), "DIR,DIR,...")

    def file(self, name: str, default: str | None, meaning: str) -> None:
        """A file: a pathlib.Path that `paths.file` has checked, or None."""
        self._path(name, default, meaning, _PathParser(paths.file, name), "FILE")

    def options(self, section: type[Section], names: Iterable[str] | None = None) -> None:
        """Some options of a section, or all; where one is left out on the command line, the section's default holds."""
        kinds = kinds_of(section)
        for name in kinds if names is None else names:
            self._option(name, kinds[name], entry_of(section, name))
            self._options.setdefault(section, []).append(name)

    def section(self, section: type[Section]) -> Section:
        """An instance of the section with those of its `options` that were given; UserError where a value is out of bounds."""
        return section(**self.given_of(section))

    def configuration(self) -> None:
        """--model and every option of every section of a run's configuration; see `configuration.config_of`."""
        self.has_configuration = True
        absl_flags.DEFINE_string("model", None, "which system", flag_values=self.values)
        for name, kind in run_options().items():
            _DEFINE[kind](name, None, "an option of a run", flag_values=self.values)

    def common(self) -> None:
        """The flags that every command has."""
        self.group(COMMON)
        if self._presets is not None:
            of = "tfcq/configs" if presets.folder().parent.name == "tfcq" else "configs"
            place = f"{of}/{self._presets}".rstrip("/")
            self.string("preset", None, f"Takes the flags of {place}/NAME.cfg; a later flag overrides them", "NAME")
        if self._takes_flagfiles:
            self.string("flagfile", None, "Takes the flags of a file, one a line; a later flag overrides them", "FILE")
        absl_flags.DEFINE_bool("help", False, "help", flag_values=self.values, short_name="h")
        absl_flags.DEFINE_bool("helpfull", False, "help", flag_values=self.values)
        absl_flags.DEFINE_bool("version", False, "version", flag_values=self.values)
        entries = self.groups.setdefault(COMMON, [])
        if self.has_configuration:
            text = "Shows the flags that most runs need; with --model=NAME (or a preset or flagfile) all flags of that system."
            entries += [_Asking("help", "", text), _Asking("helpfull", "", "Shows all flags, system by system.")]
        else:
            entries.append(_Asking("help", "", "Shows this help."))
        entries.append(_Asking("version", "", "Shows the version of tfcq."))

    def parse(self, arguments: Sequence[str]) -> None:
        """Reads a command line, without the name of the program.

        Raises:
            UserError: an unknown flag, a value that does not fit, what is no flag, or a mistake in a flagfile.
        """
        self.arguments = list(arguments)
        if not self._takes_flagfiles and any(one.partition("=")[0] in ("--flagfile", "-flagfile") for one in self.arguments):
            raise UserError("there is no --flagfile for this command; expected the flags themselves")
        try:
            rest = self.values(["tfcq", *flagfiles.expand(self.arguments, self.values, self._presets)])
        except absl_flags.Error as error:
            raise UserError(flagfiles.in_plain_words(error)) from error
        if len(rest) > 1:
            raise UserError(f"expected only --flags, received {rest[1]!r}; a value with blanks needs quotes")

    def given(self) -> dict[str, object]:
        """{option: value} of the options of a run that the command line or a flagfile set, without --model."""
        return self._given(run_options())

    def given_of(self, section: type[Section]) -> dict[str, object]:
        """{option: value} of the section's `options` that the command line or a flagfile set."""
        return self._given(self._options[section])

    def run_name(self) -> str | None:
        """NAME of the last --preset=NAME or --flagfile=.../NAME.cfg on the command line, or None."""
        name = None
        for here, following in zip(self.arguments, [*self.arguments[1:], ""]):
            flag, equals, value = here.partition("=")
            if flag.startswith("-") and flag.lstrip("-") in ("flagfile", "preset"):
                name = (value if equals else following).rpartition("/")[2].removesuffix(".cfg")
        return name

    def _given(self, names):
        values = {name: self.values[name].value for name in names}
        return {name: value for name, value in values.items() if value is not None}

    def _option(self, name, kind, entry):
        _DEFINE[kind](name, None, entry.text, flag_values=self.values)
        self.groups.setdefault(self._title, []).append(entry)

    def _path(self, name, default, meaning, parser, place_holder):
        absl_flags.DEFINE(parser, name, default, meaning, self.values)
        shown = ",".join(default) if isinstance(default, list) else default
        self._enter(name, place_holder, meaning + facts(shown or None))

    def _enter(self, name, place_holder, text):
        self.groups.setdefault(self._title, []).append(Entry(name, place_holder, text + "."))


class _Asking(Entry):
    """Of a flag that is only ever given as it stands."""

    @property
    def usage(self):
        return f"--{self.name}"


class _PathParser(absl_flags.ArgumentParser):
    """Of a flag whose value is a path; check: `paths.folder` or `paths.file`."""

    def __init__(self, check: typing.Callable[[str, str], pathlib.Path], name: str):
        self._check, self._name = check, name

    def parse(self, argument):
        return self._check(argument, self._name)

    def flag_type(self):
        return "path"


class _FoldersParser(absl_flags.ListParser):
    """Of a flag whose value is folders separated by commas, as in CSV: one with a comma in its name stands in double quotes."""

    def __init__(self, name: str):
        super().__init__()
        self._name = name

    def parse(self, argument):
        return [paths.folder(path, self._name) for path in super().parse(argument)]
