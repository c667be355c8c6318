"""The flags of one command: its definitions, their values from a command line, and their groups in its help."""

from __future__ import annotations

import math
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from absl import flags as absl_flags

from tfcq.command_line import flagfiles, presets
from tfcq.command_line.options import Entry, advice_of, entry_of, facts, kinds_of, place_holder_of, run_options
from tfcq.config.fields import Section
from tfcq.errors import UserError
from tfcq.machine import paths


class IntegerOrWord(absl_flags.ArgumentParser):
    """The parser of an option of type `int | str`; its section knows which words there are."""

    syntactic_help = "an integer or a word"

    def parse(self, argument: int | str) -> int | str:
        """The integer that the text is; another text as it is."""
        try:
            return int(argument)
        except ValueError:
            return argument

    def flag_type(self) -> str:
        """The name of the type in help texts."""
        return "int or word"


def _define_integer_or_word(name, default, meaning, flag_values):
    absl_flags.DEFINE(IntegerOrWord(), name, default, meaning, flag_values)


class AdvisedInteger(absl_flags.IntegerParser):
    """The parser of an integer, whose errors end with some advice."""

    def __init__(self, advice: str):
        super().__init__()
        self._advice = advice

    def convert(self, argument: int | str) -> int:
        """The integer that the text is; ValueError for another text."""
        try:
            return super().convert(argument)
        except ValueError as error:
            raise ValueError(f"{error}; {self._advice}") from error


def _define_integer(name, default, meaning, flag_values):
    if advice := advice_of(name):
        absl_flags.DEFINE(AdvisedInteger(advice), name, default, meaning, flag_values)
    else:
        absl_flags.DEFINE_integer(name, default, meaning, flag_values=flag_values)


_DEFINE: dict[Any, Callable] = {
    bool: absl_flags.DEFINE_bool,
    int: _define_integer,
    float: absl_flags.DEFINE_float,
    str: absl_flags.DEFINE_string,
    int | str: _define_integer_or_word,
}
_Section = typing.TypeVar("_Section", bound=Section)

COMMON = "Other flags"
"""The group of the flags that every command has."""


class Flags:
    """The flags of one command, separate from those of others and of libraries; a flag's value is the attribute of its name.

    The methods that define a flag take its name, its default (None: none) and its meaning, a sentence without a full stop.
    `group` sets the title in the help for the flags that are defined after it.

    Args:
        presets: the kind of the presets of --preset; None: there is no such flag.
        takes_flagfiles: whether there is --flagfile.

    Attributes:
        values: the `absl.flags.FlagValues`.
        groups: {title: [Entry]} for the help.
        has_configuration: whether all options of a run are flags (`configuration`).
        arguments: the command line that was parsed, without the name of the program.
    """

    def __init__(self, presets: str | None = None, takes_flagfiles: bool = True):
        self.values = absl_flags.FlagValues()
        self.groups: dict[str, list[Entry]] = {}
        self.has_configuration = False
        self.arguments: list[str] = []
        self._title, self._presets, self._takes_flagfiles = "Flags", presets, takes_flagfiles
        self._options: dict[type[Section], list[str]] = {}

    def __getattr__(self, name: str) -> Any:
        values = self.__dict__.get("values", ())
        if name not in values:
            raise AttributeError(f"no flag --{name}")
        return values[name].value

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def group(self, title: str) -> None:
        """Starts a group of the help: flags that are defined from now on are listed under this title."""
        self._title = title

    def boolean(self, name: str, default: bool | None, meaning: str) -> None:
        """Defines --name and --noname."""
        absl_flags.DEFINE_bool(name, default, meaning, flag_values=self.values)
        self._enter(name, "", meaning + facts(default or None))

    def integer(
        self, name: str, default: int | None, meaning: str, minimum: int | None = None, maximum: int | None = None
    ) -> None:
        """Defines an integer within bounds (inclusive)."""
        absl_flags.DEFINE_integer(name, default, meaning, minimum, maximum, flag_values=self.values)
        self._enter(name, "N", meaning + facts(default, minimum, maximum))

    def number(
        self, name: str, default: float | None, meaning: str, minimum: float | None = None, maximum: float | None = None
    ) -> None:
        """Defines a finite float with bounds (inclusive)."""
        absl_flags.DEFINE_float(name, default, meaning, minimum, maximum, flag_values=self.values)
        absl_flags.register_validator(
            name, lambda value: value is None or math.isfinite(value), "expected a finite number", flag_values=self.values
        )
        self._enter(name, "X", meaning + facts(default, minimum, maximum))

    def string(self, name: str, default: str | None, meaning: str, place_holder: str = "TEXT") -> None:
        """Defines a text; the help shows `place_holder` for its value."""
        absl_flags.DEFINE_string(name, default, meaning, flag_values=self.values)
        self._enter(name, place_holder, meaning + facts(default or None))

    def choice(self, name: str, default: str | None, choices: Sequence[str], meaning: str) -> None:
        """Defines a flag with one of several words as its value; the help does not list the choice ""."""
        absl_flags.DEFINE_enum(name, default, choices, meaning, flag_values=self.values)
        self._enter(name, place_holder_of(choices, "NAME"), meaning + facts(default or None, choices=choices, meaning=meaning))

    def several(self, name: str, default: Sequence[str] | None, meaning: str) -> None:
        """Defines a list of words, separated by commas."""
        absl_flags.DEFINE_list(name, default, meaning, flag_values=self.values)
        self._enter(name, "A,B,...", meaning + facts(",".join(default or ()) or None))

    def folder(self, name: str, default: str | None, meaning: str) -> None:
        """Defines a folder: a path that `paths.folder` has checked, or None."""
        self._path(name, default, meaning, _PathParser(paths.folder, name), "DIR")

    def folders(self, name: str, default: Sequence[str] | None, meaning: str) -> None:
        """Defines folders, separated by commas: a list of paths that `paths.folder` has checked."""
        self._path(name, default, meaning, _PathsParser(paths.folder, name), "DIR,DIR,...")

    def files_to_read(self, name: str, meaning: str) -> None:
        """Defines files that are read, separated by commas: a list of paths, checked by `paths.to_read`."""
        self._path(name, [], meaning, _PathsParser(paths.to_read, name), "FILE,FILE,...")

    def file(self, name: str, default: str | None, meaning: str) -> None:
        """Defines a file: a path that `paths.file` has checked, or None."""
        self._path(name, default, meaning, _PathParser(paths.file, name), "FILE")

    def options(self, section: type[Section], names: Iterable[str] | None = None) -> None:
        """Defines some options of a section, or all, as flags; the section's defaults apply to those that are not given."""
        kinds = kinds_of(section)
        for name in kinds if names is None else names:
            self._option(name, kinds[name], entry_of(section, name))
            self._options.setdefault(section, []).append(name)

    def section(self, section: type[_Section]) -> _Section:
        """The section with the values given for its `options`; UserError if a value is out of bounds."""
        return section(**self.given_of(section))

    def configuration(self) -> None:
        """Defines --model and every option of every section of a run's configuration; see `configuration.config_of`."""
        self.has_configuration = True
        absl_flags.DEFINE_string("model", None, "which system", flag_values=self.values)
        for name, kind in run_options().items():
            _DEFINE[kind](name, None, "an option of a run", flag_values=self.values)

    def common(self) -> None:
        """Defines the flags that every command has."""
        self.group(COMMON)
        if self._presets is not None:
            of = "tfcq/configs" if presets.folder().parent.name == "tfcq" else "configs"
            place = f"{of}/{self._presets}".rstrip("/")
            self.string("preset", None, f"Takes the flags of {place}/NAME.cfg; a later flag overrides them", "NAME")
        if self._takes_flagfiles:
            self.string("flagfile", None, "Takes the flags of a file, one per line; a later flag overrides them", "FILE")
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
        """Parses a command line without the name of the program.

        Raises:
            UserError: an unknown flag, a value that does not fit, an argument that is not a flag, or a mistake in a flagfile.
        """
        self.arguments = list(arguments)
        if not self._takes_flagfiles and any(one.partition("=")[0] in ("--flagfile", "-flagfile") for one in self.arguments):
            raise UserError("there is no --flagfile for this command; expected the flags themselves")
        try:
            rest = self.values(["tfcq", *flagfiles.expand(self.arguments, self.values, self._presets)])
        except absl_flags.Error as error:
            raise UserError(flagfiles.in_plain_words(error)) from error
        if len(rest) > 1:
            raise UserError(f"expected only --flags, received {rest[1]!r}; a value with spaces needs quotes")

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
    """The entry of a flag that has no value and no negation."""

    @property
    def usage(self) -> str:
        return f"--{self.name}"


class _PathParser(absl_flags.ArgumentParser):
    """The parser of a flag whose value is a path; `check` is `paths.folder` or `paths.file`."""

    def __init__(self, check: typing.Callable[[str, str], paths.AnyPath], name: str):
        self._check, self._name = check, name

    def parse(self, argument):
        return self._check(argument, self._name)

    def flag_type(self):
        return "path"


class _PathsParser(absl_flags.ListParser):
    """The parser of a flag whose value is a list of paths as in CSV: a name with a comma is put in double quotes."""

    def __init__(self, check: Callable[[str, str], paths.AnyPath], name: str):
        super().__init__()
        self._check, self._name = check, name

    def parse(self, argument):
        return [self._check(path, self._name) for path in super().parse(argument)]
