"""Options and groups of options: one definition gives the type, bounds, meaning and unit for checks and for help.

Plain Python without TensorFlow; `tfcq.config` has the options themselves.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import pathlib
import types
import typing
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

from tfcq.errors import UserError
from tfcq.machine.paths import is_one_line

if TYPE_CHECKING:
    from tfcq.config.data import DataConfig
    from tfcq.config.training import TrainingConfig

_Section = typing.TypeVar("_Section", bound="Section")

ON_RESUME = ("fixed", "free", "extends", "place", "layout")
"""Whether an option may change when a run is resumed.

* fixed: no; it decides the numbers of training, up to their last bit, or how they are judged: another value is another run.
* free: yes; it decides only what is written, shown and measured during training, and when.
* extends: yes; it says where the run ends.
* place: it says where the images, or a file that training reads, are. It may change if the content is known to be the same (by
  `tfcq.data.manifest` and by `workdir.read_digests`); otherwise it is fixed.
* layout: yes; it says how a step is divided among devices, which changes the order of its sums and so their rounding.
"""


def option(
    default: Any,
    meaning: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: Sequence | None = None,
    unit: str | None = None,
    on_resume: str = "fixed",
    paths: Sequence[str] = (),
    words: Sequence[str] = (),
    advice: str = "",
) -> Any:
    """A dataclass field with a meaning (a sentence for `--help`), bounds (inclusive), choices and a unit.

    Args:
        default: value of the option if none is given.
        meaning: what the option is or does.
        minimum, maximum: bounds; None: none.
        choices: the values that are accepted; None: all.
        unit: of a number; None: it has none.
        on_resume: one of `ON_RESUME`.
        paths: prefixes of a value, such as "folder:", that are followed by a path; "": the whole value is a path.
        words: values of an option with `paths` that are no paths, or of one of type `int | str` that are no numbers.
        advice: what an error adds about a value of another type.
    """
    if on_resume not in ON_RESUME:
        raise ValueError(f"on_resume: expected one of {', '.join(ON_RESUME)}, received {on_resume!r}")
    metadata = {"meaning": meaning, "minimum": minimum, "maximum": maximum, "choices": choices, "unit": unit}
    metadata |= {"on_resume": on_resume, "paths": paths, "words": words, "advice": advice}
    return dataclasses.field(default=default, metadata=metadata)


class KnownNames:
    """Base class of dataclasses whose unknown arguments are a UserError that suggests the nearest name."""

    def __new__(cls, *args: Any, **options: Any) -> Self:
        check_names(cls.__name__, options, [field.name for field in dataclasses.fields(cls)])  # type: ignore[arg-type]
        return super().__new__(cls)


@dataclasses.dataclass(frozen=True, repr=False)
class Section(KnownNames):
    """Base class of the groups of options: checks the type and bounds of every field when it is created.

    Raises:
        UserError: one line with the field, the bound and the value received.
    """

    def __post_init__(self) -> None:
        types_of = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = checked(field, types_of[field.name], getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        self.check()

    def __repr__(self) -> str:
        """The options that differ from their defaults, as they would be written in Python."""
        fields = [field for field in dataclasses.fields(self) if getattr(self, field.name) != field.default]
        return f"{type(self).__name__}({', '.join(f'{field.name}={getattr(self, field.name)!r}' for field in fields)})"

    def check(self) -> None:
        """Raises UserError for combinations of options of this section that cannot work."""

    def without_effect(self) -> dict[str, str]:
        """{option that decides nothing with the values of the others: what it needs, such as "posterior=iaf"}.

        Such an option may change when a run goes on.
        """
        return {}

    def unused(self) -> dict[str, str]:
        """`without_effect`, and the options that decide nothing either but must stay as they are when a run goes on."""
        return self.without_effect()

    @classmethod
    def of_earlier(cls, values: dict[str, Any]) -> dict[str, Any]:
        """`values`, a section of a run's config.json, completed by those of newer options that change what the run was.

        An option that the file lacks has its default, unless the run was something else before there was the option: then a
        section gives the value here that stands for it.
        """
        return values

    def absolute(self: _Section) -> _Section:
        """A copy with absolute paths, relative to the current folder (~: to the home folder); links are not followed."""
        fields = [field for field in dataclasses.fields(self) if field.metadata["paths"]]
        values = {field.name: getattr(self, field.name) for field in fields}
        absolute = {field.name: _absolute(values[field.name], field.metadata["paths"])
                    for field in fields if values[field.name] not in field.metadata["words"]}
        return dataclasses.replace(self, **absolute)

    def check_run(self, data: DataConfig, training: TrainingConfig) -> None:
        """Raises UserError for combinations with the options of the other sections that cannot work."""


def checked(field: dataclasses.Field, kind: type | types.UnionType, value: Any) -> Any:
    """`value` as `kind`, within the field's bounds; of `int | str` a text is one of the field's `words`.

    An int is accepted for a float, a NumPy scalar for a number, and a pathlib.Path for an option that is a path.

    Raises:
        UserError: another type, or a value out of bounds.
    """
    name = field.name
    if kind is not str and type(value).__module__ == "numpy" and getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    if kind is str and isinstance(value, os.PathLike) and "" in field.metadata["paths"]:
        value = os.fspath(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError as error:
            raise UserError(f"{name}: expected a finite number, received one of {value.bit_length()} bits") from error
    words = ()
    if isinstance(kind, types.UnionType):
        kind, words = int, field.metadata["words"]
        if isinstance(value, str) and value in words:
            return value
    if type(value) is not kind:
        advice = f"; {field.metadata['advice']}" if field.metadata["advice"] else ""
        raise UserError(f"{name}: expected {' or '.join([kind.__name__, *words])}, received {value!r}{advice}")
    bounds = field.metadata
    if isinstance(value, str) and not is_one_line(value):
        raise UserError(f"{name}: expected text of one line in UTF-8, received {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{name}: expected a finite number, received {value}")
    if bounds["choices"] is not None and value not in bounds["choices"]:
        raise UserError(
            f"{name}: expected one of {', '.join(map(str, bounds['choices']))}, received {value!r}"
            + suggestion(value, bounds["choices"])
        )
    if bounds["minimum"] is not None and value < bounds["minimum"]:
        raise UserError(f"{name}: expected at least {bounds['minimum']}, received {value}")
    if bounds["maximum"] is not None and value > bounds["maximum"]:
        raise UserError(f"{name}: expected at most {bounds['maximum']}, received {value}")
    return value


def _absolute(value, beginnings):
    beginning = next((one for one in beginnings if value.startswith(one)), None)
    if beginning is None:
        return value
    path = value.removeprefix(beginning)
    if not path or "://" in path:  # an address such as gs://... is not relative to a folder
        return value
    # Not os.path.abspath: LINK/.. is the parent of the link's target, not of the link.
    return beginning + str(pathlib.Path(os.path.expanduser(path)).absolute())


def check_names(where: str, given: Iterable[str], known: Collection[str]) -> None:
    """Raises UserError for the first name that is not known, with the nearest one that is."""
    for name in given:
        if name not in known:
            raise UserError(f"{where}: unknown option {name!r}{suggestion(name, known)}")


def suggestion(word: object, known: Iterable[object]) -> str:
    """The text ' (did you mean ...?)' with the known word most similar to `word`; '' if none is similar."""
    near = difflib.get_close_matches(str(word), [str(one) for one in known], n=1)
    return f" (did you mean {near[0]}?)" if near else ""
