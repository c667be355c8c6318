"""Flagfiles: the arguments that a file of flags stands for, with every mistake named by file and line.

absl reads flagfiles itself, but takes a line as it stands: a trailing comment or quotes become part of the value, and a
mistake is named without its place. `expand` replaces each --flagfile of a command line before absl sees it, under absl's rules:
what comes later overrides, files may include files (a path is from the current folder, ~ is the home folder), lines that
start with # or // are comments. --preset=NAME is the flagfile of that name in `tfcq.command_line.presets`. A file is UTF-8,
with or without a byte-order mark, with the line ends of any system. A line is

    --name=value        blanks around = and at the ends do not count; --name value is the same
    --name, --noname    where the flag is true or false
    --name="a value"    quotes, of either kind, around the whole value are taken off; a value with blanks inside needs none
    --name=value  # why a comment, with a blank before and after # (or //); a # inside a value belongs to it
"""

import os
import pathlib
import re

from tfcq.command_line import presets
from tfcq.config.fields import suggestion
from tfcq.errors import UserError

_VALUES = {"flagfile": "FILE", "preset": "NAME"}
_INSTEAD = {"invalid literal for int() with base 10: ": "expected an integer, received ",
            "could not convert string to float: ": "expected a number, received ",
            "Non-boolean argument to boolean flag": "expected true or false"}  # fmt: skip


def expand(arguments, flag_values, kind_of_presets=None):
    """The command line with the flags of its flagfiles and presets in their places.

    Args:
        arguments: a list of str, the command line without the name of the program.
        flag_values: the `absl.flags.FlagValues` that will read it.
        kind_of_presets: see `presets.names`; None: the command has none, and --preset is a flag as any other.

    Returns:
        A list of str without any --flagfile or --preset.

    Raises:
        UserError: a flagfile that cannot be read, includes itself, or has a line that is no flag or whose value does not fit; a
            preset that does not exist.
    """
    expanded, rest = [], list(arguments)
    reader = _Reader(flag_values, _tolerated(rest), kind_of_presets)
    while rest:
        argument = rest.pop(0)
        flag, equals, value = argument.partition("=")
        name = flag.lstrip("-") if flag in (f"-{flag.lstrip('-')}", f"--{flag.lstrip('-')}") else ""
        if reader.includes(name):
            if not equals and not rest:
                raise UserError(f"--{name} with no argument: expected --{name}={_VALUES[name]}")
            expanded += reader.included(name, value if equals else rest.pop(0), (), "")
            continue
        expanded.append(argument)
        if argument == "--" or not argument.startswith("-") and not flag_values.is_gnu_getopt():
            break  # absl reads no flags after this
        name = argument.lstrip("-") if argument.startswith("-") else ""
        takes_a_value = name in flag_values and not flag_values[name].boolean
        if takes_a_value and rest and not rest[0].startswith("-"):
            expanded.append(rest.pop(0))
    return expanded + rest


def in_plain_words(error):
    """What absl says of a value, in one line, without the names of Python's functions."""
    text = " ".join(str(error).split())
    for phrase, instead in _INSTEAD.items():
        text = text.replace(phrase, instead)
    return text


class _Reader:
    """What stands for a flagfile or a preset.

    Args:
        tolerated: names of flags that may be unknown.
    """

    def __init__(self, flag_values, tolerated, kind_of_presets):
        self._flag_values, self._tolerated, self._kind = flag_values, tolerated, kind_of_presets

    def includes(self, name):
        """Whether the flag stands for a file of flags."""
        return name == "flagfile" or (name == "preset" and self._kind is not None)

    def included(self, name, value, opened, where):
        """The arguments that --flagfile=value or --preset=value stands for.

        `opened` are the files that include it, `where` is the line that names it.
        """
        if not value:
            what = "a file" if name == "flagfile" else "a preset"
            raise UserError(f"{where}--{name}: expected the name of {what}, received an empty one")
        if name == "flagfile":
            return self._of_file(os.path.expanduser(value), opened, where)
        try:
            path = presets.path_of(value, self._kind)
        except UserError as error:
            raise UserError(f"{where}{error}") from error
        return self._of_file(path, opened, where)

    def _of_file(self, path, opened, where):
        if path in opened:
            raise UserError(f"{where}--flagfile={path}: includes itself ({' -> '.join((*opened, path))})")
        arguments = []
        for number, line in enumerate(_lines(path, where, opened), start=1):
            line = line.strip().removeprefix("\ufeff").strip()  # a mark may stand inside where files were joined
            if line and not line.startswith(("#", "//")):
                place = f"{path}, line {number}: "
                name, value = _argument(line, place, self._flag_values, self._tolerated)
                if self.includes(name):
                    arguments += self.included(name, value, (*opened, path), place)
                else:
                    arguments.append(f"--{name}" if value is None else f"--{name}={value}")
        return arguments


def _lines(path, where, opened):
    try:
        content = pathlib.Path(path).read_bytes()
    except OSError as error:
        beside = os.path.join(os.path.dirname(opened[-1]), path) if opened else ""
        near = f" (a path is from the current folder: did you mean {beside}?)" if os.path.isfile(beside) else ""
        raise UserError(f"{where}--flagfile={path}: cannot be read: {error.strerror}{near}") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {number}: expected a text file in UTF-8 with one --flag=value a line, received the byte "
            f"0x{content[error.start]:02x}; save it as UTF-8"
        ) from error
    return re.split("\r\n|\n|\r", text)


def _argument(line, place, flag_values, tolerated):
    """(name, value) that a line means; value None for --name and --noname."""
    parts = re.fullmatch(r"--?([^\s=-][^\s=]*)(?:\s*(=)(.*)|(\s.*))?", line)
    if parts is None:
        raise UserError(f"{place}expected --name=value, or a comment that starts with #, received {line!r}")
    name, equals, text = parts[1], bool(parts[2]), parts[3] or parts[4] or ""
    flag = flag_values[name] if name in flag_values else None
    negated = flag is None and name.startswith("no") and name[2:] in flag_values and flag_values[name[2:]].boolean
    if not (flag is not None or negated or name in ("flagfile", "undefok", *tolerated)):
        raise UserError(f"{place}unknown flag --{name}{suggestion(name, flag_values)}")
    value = _value(text, flag, place)
    if negated or (flag is not None and flag.boolean and not equals):
        if equals or value is not None:
            yes = name[2:] if negated else name
            raise UserError(f"{place}expected --{yes}, --no{yes} or --{yes}=true, received {line!r}")
        return name, None
    if value is None and not equals:
        if name not in tolerated:
            raise UserError(f"{place}--{name}: expected --{name}=VALUE, received no value")
        return name, None
    value = value or ""
    if flag is not None:
        try:
            flag.parser.parse(value)
        except (TypeError, ValueError) as error:
            raise UserError(f"{place}--{name}={value}: {in_plain_words(error)}") from error
    return name, value


def _value(text, flag, place):
    """What the text after a name means, without quotes and comment; None where nothing is left."""
    quote = text.strip()[:1]
    if quote in ("'", '"'):
        inside, closing, rest = text.strip()[1:].partition(quote)
        if not closing:
            raise UserError(f"{place}the quotation in {text.strip()!r} has no end; expected quotes around the whole value")
        if rest.strip() and not rest.strip().startswith(("#", "//")):
            raise UserError(f"{place}expected quotes around the whole value, received {text.strip()!r}")
        value = inside
    else:
        value = _without_comment(text, flag, place).strip()
        if re.search(r"([\"']).*\1", value):  # a shell would take these off
            raise UserError(f"{place}expected quotes around the whole value, received {value!r}")
        if re.search(r"\s(--\w|\\$)", value):
            raise UserError(f"{place}expected one flag a line, received {value!r}; put quotes around a value that has --")
    if any(ord(character) < 32 and character != "\t" for character in value):
        raise UserError(f"{place}expected text, received a control character in {value!r}")
    return value if value or quote in ("'", '"') else None


def _without_comment(text, flag, place):
    """The text without a trailing comment; UserError where it cannot be told whether it is one."""
    certain = re.search(r"\s(#+|//+)(\s|$)", text)
    doubtful = re.search(r"\s(#|//)", text)
    if doubtful is None:
        return text
    if certain is None or doubtful.start() < certain.start():
        comment = text[doubtful.start() :].strip()
        try:
            (flag.parser.parse if flag is not None else str)(text.strip())
        except (TypeError, ValueError):
            return text[: doubtful.start()]  # a number with this behind it would be none
        raise UserError(
            f"{place}is {comment!r} a comment or part of the value? expected a blank after the {doubtful[1]} of a comment, or "
            "quotes around the value"
        )
    return text[: certain.start()]


def _tolerated(arguments):
    """The names that --undefok of the command line allows to be unknown."""
    given = [argument.partition("=")[2] for argument in arguments if argument.startswith(("--undefok=", "-undefok="))]
    names = [name.strip() for text in given for name in text.split(",")]
    return {*names, *(f"no{name}" for name in names)}
