"""How an option of `tfcq.config` is a flag: its type, its place holder and its text in the help."""

import dataclasses
import typing

from tfcq import config
from tfcq.config.fields import Section

PLACE_HOLDERS = {int: "N", float: "X", str: "TEXT"}
LONGEST_PLACE_HOLDER = 24  # of choices; more of them stand in the text


@dataclasses.dataclass(frozen=True)
class Entry:
    """What the help says of one flag.

    Args:
        name: the flag's, without dashes.
        place_holder: what stands for its value; "": it is true or false.
        text: its meaning, and its default and bounds in brackets.
    """

    name: str
    place_holder: str
    text: str

    @property
    def usage(self) -> str:
        """Such as --seed=N or --[no]report."""
        return f"--{self.name}={self.place_holder}" if self.place_holder else f"--[no]{self.name}"


def kinds_of(section: type[Section]) -> dict[str, type]:
    """{option: its type} of a section."""
    kinds = typing.get_type_hints(section)
    return {field.name: kinds[field.name] for field in dataclasses.fields(section)}


def entry_of(section: type[Section], name: str) -> Entry:
    """The help of one option of a section."""
    field, kind = section.__dataclass_fields__[name], kinds_of(section)[name]
    return Entry(name, "" if kind is bool else _place_holder(field, kind), _text(field))


def run_sections() -> dict[str, type[Section]]:
    """{"data", "training" or a system's name: the section} of all that a run's configuration may have."""
    return {"data": config.DataConfig, "training": config.TrainingConfig, **config.SYSTEMS}


def run_options() -> dict[str, type]:
    """{option: its type} of all sections of a run's configuration.

    Raises:
        TypeError: two systems have an option of one name and of different types, which one flag cannot be.
    """
    options = {}
    for section in run_sections().values():
        for name, kind in kinds_of(section).items():
            if options.setdefault(name, kind) is not kind:
                raise TypeError(f"option {name} is {options[name].__name__} in one system and {kind.__name__} in another")
    return options


def facts(default: object, minimum: object = None, maximum: object = None, *more: str, unit: str | None = None) -> str:
    """Default, unit and bounds (inclusive) in brackets, as they end an entry's text; "" where there are none."""
    parts = []
    if default is not None:
        shown = str(default).lower() if isinstance(default, bool) else default
        parts.append(f"default: {'empty' if shown == '' else shown}{f' {unit}' if unit else ''}")
    if minimum is not None and maximum is not None:
        parts.append(f"from {minimum:g} to {maximum:g}" if isinstance(maximum, float) else f"from {minimum} to {maximum}")
    elif minimum is not None:
        parts.append(f"at least {minimum:g}" if isinstance(minimum, float) else f"at least {minimum}")
    elif maximum is not None:
        parts.append(f"at most {maximum}")
    parts += more
    return f" ({'; '.join(parts)})" if parts else ""


def _place_holder(field, kind):
    words = _words(field.metadata["choices"] or ())
    return words if words and len(words) <= LONGEST_PLACE_HOLDER else PLACE_HOLDERS[kind]


def _words(choices):
    """As a place holder has them; an empty one is none."""
    return "|".join(str(choice) for choice in choices if choice != "")


def _text(field):
    about, more = field.metadata, []
    choices = [str(choice) for choice in about["choices"] or ()]
    if about["on_resume"] == "place":
        more.append("may lead to another place of the same content when a run is resumed")
    elif about["on_resume"] != "fixed":
        more.append("may change when a run is resumed")
    if _words(choices) != _place_holder(field, str) and not all(choice in about["meaning"] for choice in choices):
        more.append(f"one of {', '.join(choices)}")
    return about["meaning"] + facts(field.default, about["minimum"], about["maximum"], *more, unit=about["unit"]) + "."
