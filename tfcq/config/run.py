"""The configuration of a run: the system, its options, the images, the optimisation.

>>> from tfcq.config import CQFConfig
>>> config = Config(system=CQFConfig(flow_scales=0), data=DataConfig(dataset="digits", image_size=8))
>>> config.model
'cqf'
>>> config.system
CQFConfig(flow_scales=0)
>>> Config.from_json(config.to_json()) == config
True
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection
from typing import Any

from tfcq.config.data import DataConfig
from tfcq.config.fields import KnownNames, Section, check_names, suggestion
from tfcq.config.groups import PRETRAINING
from tfcq.config.systems import SYSTEMS
from tfcq.config.training import TrainingConfig
from tfcq.errors import UserError


@dataclasses.dataclass(frozen=True)
class Config(KnownNames):
    """The whole configuration of a run.

    Args:
        model: the system, a key of `SYSTEMS`; empty or None: that of the options `system`, or "cqf" if these are left out too.
        data: the images.
        system: the options of the system, an instance of `SYSTEMS[model]`; None: its defaults.
        training: the optimisation.

    Raises:
        UserError: an unknown model, the wrong dataclass for it, or a combination across sections that cannot work.
    """

    model: str = ""
    data: DataConfig = DataConfig()
    system: Any = None  # a Section, of a class that depends on `model`
    training: TrainingConfig = TrainingConfig()

    def __post_init__(self) -> None:
        if self.model in ("", None):
            names = {kind: name for name, kind in SYSTEMS.items()}
            if type(self.system) not in names and self.system is not None:
                raise UserError(f"system: expected one of {', '.join(kind.__name__ for kind in names)}, "
                                f"received {type(self.system).__name__}")
            object.__setattr__(self, "model", names.get(type(self.system), "cqf"))
        kind_of_system = _system_of(self.model)
        if self.system is None:
            object.__setattr__(self, "system", kind_of_system())
        kinds: dict[str, type] = {"data": DataConfig, "system": kind_of_system, "training": TrainingConfig}
        for name, kind in kinds.items():
            if not isinstance(getattr(self, name), kind):
                where = f" with model={self.model}" if name == "system" else ""
                raise UserError(f"{name}: expected {kind.__name__}{where}, received {type(getattr(self, name)).__name__}")
        for section in (self.system, self.training):
            section.check_run(self.data, self.training)

    @property
    def class_conditional(self) -> bool:
        """Whether the model learns images given their class."""
        return getattr(self.system, "class_conditional", False)

    def absolute(self) -> Config:
        """A copy with absolute paths, which do not depend on the current folder."""
        sections = {name: getattr(self, name).absolute() for name in ("data", "system", "training")}
        return dataclasses.replace(self, **sections)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dicts, as in `config.json`."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """Text that `from_json` reads back to an equal Config."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_dict(cls, values: Any, of_a_run: bool = False) -> Config:
        """The Config of nested dicts; an unknown option is a UserError.

        Args:
            values: the dicts. Options that are left out have their defaults.
            of_a_run: whether an earlier version may have written them to config.json: then options that there were not yet
                have the values that keep the run as it was (`Section.of_earlier`).
        """
        if not isinstance(values, dict):
            raise UserError(f"config: expected a JSON object, received {type(values).__name__}")
        check_names("config", values, [field.name for field in dataclasses.fields(cls)])
        model = values.get("model", "cqf")
        kinds: dict[str, type[Section]] = {"data": DataConfig, "system": _system_of(model), "training": TrainingConfig}
        sections = {name: _section(name, kind, values.get(name, {}), of_a_run) for name, kind in kinds.items()}
        return cls(model=model, **sections)

    @classmethod
    def from_json(cls, text: str, of_a_run: bool = False) -> Config:
        """Inverse of `to_json`; raises UserError if the text is not JSON or has unknown options. `of_a_run`: see `from_dict`."""
        if not isinstance(text, str):
            raise UserError(f"config: expected text, JSON as from to_json, received {type(text).__name__}")
        try:
            return cls.from_dict(json.loads(text), of_a_run)
        except json.JSONDecodeError as error:
            raise UserError(
                f"config: expected JSON, received something else at line {error.lineno}: {error.msg}"
            ) from error

    def differences(self, other: Config) -> list[str]:
        """A line 'section.option: mine -> theirs' for each option in which two configs differ; [] if they are equal."""
        return self._differing(other, lambda name: True)

    def differences_in_numbers(self, other: Config, held: Collection[str] = ()) -> list[str]:
        """Those of `differences` that make another run: options that decide the numbers of training (`fields.ON_RESUME`).

        An option that decides nothing in either config (`Section.without_effect`) is none of them.

        Args:
            other: the other config.
            held: names of options of places, such as "data.dataset", whose content is known, so that the place may change.
        """

        idle = {f"system.{name}" for name in self.system.without_effect().keys() & other.system.without_effect().keys()}

        def decides(name):
            rule = "free" if name in idle else self._on_resume(name)
            return rule == "fixed" or (rule == "place" and name not in held)

        return self._differing(other, decides)

    def unused(self) -> dict[str, str]:
        """{option of any section that decides nothing with the values of the others: what it needs}; `Section.unused`."""
        found = self.data.unused() | self.system.unused() | self.training.unused()
        if self.data.num_validation == "none":
            found["validation_images"] = "images that validate (num_validation)"
        if self.training.init_from:
            found[PRETRAINING] = "first weights of its own (init_from)"
        return found

    def changes(self, other: Config) -> dict[str, list]:
        """{'section.option': [mine, theirs]} of the differing options that may change when a run is resumed."""
        mine, theirs = _flat(self.to_dict()), _flat(other.to_dict())
        names = sorted(name for name in mine if name in theirs and mine[name] != theirs[name])
        return {name: [mine[name], theirs[name]] for name in names if self._on_resume(name) != "fixed"}

    def apart_from_places(self) -> dict[str, str]:
        """{'section.option': value} of all options but those that say where images and files are."""
        return {name: str(value) for name, value in _flat(self.to_dict()).items() if self._on_resume(name) != "place"}

    def hyperparameters(self) -> dict[str, bool | int | float | str]:
        """{'section.option': value} of the options that decide the numbers of training (`fields.ON_RESUME`), and of the model."""
        flat = _flat(self.to_dict())
        chosen = {name: value for name, value in flat.items() if self._on_resume(name) in ("fixed", "extends")}
        return {name: value if isinstance(value, bool | int | float | str) else str(value) for name, value in chosen.items()}

    def _on_resume(self, name):
        """Whether the option 'section.option' may change on resuming (`ON_RESUME`); "fixed" if this config lacks it."""
        section, _, field = name.partition(".")
        fields = getattr(getattr(self, section, None), "__dataclass_fields__", {})
        return fields[field].metadata["on_resume"] if field in fields else "fixed"

    def _differing(self, other, chosen):
        mine, theirs = _flat(self.to_dict()), _flat(other.to_dict())

        def shown(values, name):
            return repr(values[name]) if name in values else "absent"

        return [
            f"{name}: {shown(mine, name)} -> {shown(theirs, name)}"
            for name in sorted(mine.keys() | theirs.keys())
            if shown(mine, name) != shown(theirs, name) and chosen(name)
        ]


def _system_of(model: Any) -> type[Section]:
    """The dataclass of a system's options; UserError if there is no such system."""
    if model not in list(SYSTEMS):  # a list: a value from JSON need not be hashable
        raise UserError(f"model: expected one of {', '.join(SYSTEMS)}, received {model!r}{suggestion(model, SYSTEMS)}")
    return SYSTEMS[model]


def check_config(config: object) -> None:
    """Raises UserError if `config` is not a Config but, say, a name, a file or a section of one."""
    from tfcq.checks import check_kind  # it imports NumPy, which commands do not wait for

    advice = "make one with tfcq.Config(model=..., data=..., system=..., training=...), or read one with tfcq.Config.from_json"
    check_kind("config", config, Config, "a tfcq.Config", advice)


def _section(name, kind, values, of_a_run):
    if not isinstance(values, dict):
        raise UserError(f"config.{name}: expected a JSON object, received {type(values).__name__}")
    check_names(f"config.{name}", values, [field.name for field in dataclasses.fields(kind)])
    return kind(**(kind.of_earlier(values) if of_a_run else values))


def _flat(values, prefix=""):
    rows: dict[str, Any] = {}
    for name, value in values.items():
        rows |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return rows
