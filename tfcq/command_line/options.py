"""Options of `tfcq.config` as flags: type, place holder and text in the help."""

import dataclasses
import types
import typing
from collections.abc import Sequence
from typing import TypeAlias

from tfcq import config
from tfcq.config.fields import Section

Kind: TypeAlias = type | types.UnionType
"""The type of an option: bool, int, float, str, or `int | str`, a number or one of the option's words."""

PLACE_HOLDERS: dict[Kind, str] = {int: "N", float: "X", str: "TEXT", int | str: "N"}
LONGEST_PLACE_HOLDER = 24  # of choices; longer lists of them are in the text


@dataclasses.dataclass(frozen=True)
class Entry:
    """The help of one flag.

    Args:
        name: of the flag, without dashes.
        place_holder: shown for its value; "": the flag is true or false.
        text: its meaning, with its default and bounds in brackets.
    """

    name: str
    place_holder: str
    text: str

    @property
    def usage(self) -> str:
        """The form of the flag, such as --seed=N or --[no]report."""
        return f"--{self.name}={self.place_holder}" if self.place_holder else f"--[no]{self.name}"


def kinds_of(section: type[Section]) -> dict[str, Kind]:
    """{option: its type} of a section."""
    kinds = typing.get_type_hints(section)
    return {field.name: kinds[field.name] for field in dataclasses.fields(section)}


def entry_of(section: type[Section], name: str) -> Entry:
    """The help of one option of a section."""
    field, kind = section.__dataclass_fields__[name], kinds_of(section)[name]
    place_holder = "" if kind is bool else place_holder_of(field.metadata["choices"] or (), PLACE_HOLDERS[kind])
    if kind == int | str:
        place_holder = "|".join([place_holder, *field.metadata["words"]])
    return Entry(name, place_holder, _text(field))


def run_sections() -> dict[str, type[Section]]:
    """{"data", "training" or a system's name: section} of all sections that a run's configuration may have."""
    return {"data": config.DataConfig, "training": config.TrainingConfig, **config.SYSTEMS}


def run_options() -> dict[str, Kind]:
    """{option: its type} of all sections of a run's configuration.

    Raises:
        TypeError: two systems have options of the same name but of different types, which one flag cannot represent.
    """
    options: dict[str, Kind] = {}
    for section in run_sections().values():
        for name, kind in kinds_of(section).items():
            if options.setdefault(name, kind) != kind:
                one, other = (getattr(kind, "__name__", kind) for kind in (options[name], kind))
                raise TypeError(f"option {name} is {one} in one system and {other} in another")
    return options


def advice_of(name: str) -> str:
    """What an error adds about a value of another type than the run's option `name`; "": nothing, or it is no such option."""
    fields = [section.__dataclass_fields__[name] for section in run_sections().values() if name in section.__dataclass_fields__]
    return fields[0].metadata["advice"] if fields else ""


def place_holder_of(choices: Sequence[object], otherwise: str) -> str:
    """The choices, separated by | and without an empty one; `otherwise` if there are none or they are too long."""
    words = "|".join(str(choice) for choice in choices if choice != "")
    return words if words and len(words) <= LONGEST_PLACE_HOLDER else otherwise


def facts(
    default: object,
    minimum: object = None,
    maximum: object = None,
    *more: str,
    unit: str | None = None,
    choices: Sequence[object] = (),
    meaning: str = "",
) -> str:
    """The end of an entry's text, in brackets: default, unit, bounds (inclusive), more; "" if there is none of these.

    Choices are added if neither the place holder nor the meaning names them.
    """
    parts = []
    if default is not None:
        shown = str(default).lower() if isinstance(default, bool) else default
        parts.append(f"default: {'empty' if shown == '' else shown}{f' {unit}' if unit else ''}")
    if minimum is not None and maximum is not None:
        parts.append(f"from {_shown(minimum)} to {_shown(maximum)}")
    elif minimum is not None or maximum is not None:
        parts.append(f"at most {_shown(maximum)}" if minimum is None else f"at least {_shown(minimum)}")
    parts += more
    if choices and not place_holder_of(choices, "") and not all(str(choice) in meaning for choice in choices):
        parts.append(f"one of {', '.join(str(choice) for choice in choices if choice != '')}")
    return f" ({'; '.join(parts)})" if parts else ""


def _shown(bound):
    return f"{bound:g}" if isinstance(bound, float) else bound


def _text(field):
    about, more = field.metadata, []
    if about["on_resume"] == "place":
        more.append("may change to another place with the same content when a run is resumed")
    elif about["on_resume"] != "fixed":
        more.append("may change when a run is resumed")
    named = {"unit": about["unit"], "choices": about["choices"] or (), "meaning": about["meaning"]}
    return about["meaning"] + facts(field.default, about["minimum"], about["maximum"], *more, **named) + "."
