"""What an option and a group of options are: type, bounds, meaning and unit are checked and told from one place.

Plain Python without TensorFlow; `tfcq.config` has the options themselves.
"""

import dataclasses
import difflib
import math
import os
import pathlib
import typing

from tfcq.errors import UserError
from tfcq.machine.paths import is_one_line

ON_RESUME = ("fixed", "free", "extends", "place")
"""What may become of an option when a run that has begun is resumed.

* fixed: it decides the numbers of training, up to their last bit, or what they are judged by: another value is another run.
* free: it decides what is written, shown and measured beside training, and when.
* extends: it says where the run ends.
* place: it says where the images, or a file that training reads, are: free where these are known to be those of the run (by
  `tfcq.data.manifest` and by `workdir.read_digests`), else fixed.
"""


def option(default, meaning, *, minimum=None, maximum=None, choices=None, unit=None, on_resume="fixed", paths=()):
    """A dataclass field that knows its meaning (a sentence for `--help`), bounds (inclusive), choices and unit.

    Args:
        on_resume: one of `ON_RESUME`.
        paths: beginnings of a value, such as "folder:", behind which a path stands; "": the value is one.
    """
    if on_resume not in ON_RESUME:
        raise ValueError(f"on_resume: expected one of {', '.join(ON_RESUME)}, received {on_resume!r}")
    metadata = {"meaning": meaning, "minimum": minimum, "maximum": maximum, "choices": choices, "unit": unit}
    metadata |= {"on_resume": on_resume, "paths": paths}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, repr=False)
class Section:
    """Base of the groups of options: checks types and bounds of every field when it is made.

    Raises:
        UserError: one line naming the field, the bound and the value received.
    """

    def __post_init__(self):
        types_of = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = checked(field, types_of[field.name], getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        self.check()

    def __repr__(self):
        """The options that are not their defaults, as they would be written."""
        fields = [field for field in dataclasses.fields(self) if getattr(self, field.name) != field.default]
        return f"{type(self).__name__}({', '.join(f'{field.name}={getattr(self, field.name)!r}' for field in fields)})"

    def check(self):
        """Combinations inside this section that cannot work raise UserError here."""

    def absolute(self):
        """The same with absolute paths, from the current folder or, with ~, from the user's; links are not followed."""
        fields = [field for field in dataclasses.fields(self) if field.metadata["paths"]]
        values = {field.name: _absolute(getattr(self, field.name), field.metadata["paths"]) for field in fields}
        return dataclasses.replace(self, **values)

    def check_run(self, data, training):
        """Those of a system's section with `DataConfig` and `TrainingConfig` raise UserError here."""


def checked(field, kind, value):
    """`value` as `kind`, within the field's bounds, or UserError.

    An int is taken where a float is meant, a NumPy scalar for the number that it is, a pathlib.Path for an option that is a path.
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
    if type(value) is not kind:
        raise UserError(f"{name}: expected {kind.__name__}, received {value!r}")
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
    path = "" if beginning is None else value.removeprefix(beginning)
    if not path or "://" in path:  # a bucket's address has no current folder
        return value
    # Not os.path.abspath: LINK/.. is above what the link leads to, not above the link.
    return beginning + str(pathlib.Path(os.path.expanduser(path)).absolute())


def suggestion(word, known):
    """' (did you mean ...?)' for the known word nearest to `word`, or ''."""
    near = difflib.get_close_matches(str(word), [str(one) for one in known], n=1)
    return f" (did you mean {near[0]}?)" if near else ""
