"""From flags to a run's `Config`."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from tfcq import config
from tfcq.config.fields import Section
from tfcq.errors import UserError


def config_of(given: Mapping[str, Any], base: config.Config | None = None) -> config.Config:
    """The Config that the given options describe.

    Args:
        given: {option: value}, optionally with "model", as from `Flags.given`.
        base: the Config that they change; None, or a Config of another model: the defaults.

    Raises:
        UserError: a value out of bounds, an impossible combination, or an option that the model does not have.
    """
    given = dict(given)
    model = given.pop("model", None) or (base.model if base else "cqf")
    values: dict[str, Any] = {"model": model, "data": {}, "training": {}, "system": {}}
    if base and base.model == model:
        values = base.to_dict()
    homes: dict[str, type[Section]] = {"data": config.DataConfig, "training": config.TrainingConfig}
    if model in config.SYSTEMS:
        homes["system"] = config.SYSTEMS[model]
    for name, value in given.items():
        home = [section for section, kind in homes.items() if name in _names(kind)]
        if not home and model in config.SYSTEMS:
            owners = [system for system, kind in config.SYSTEMS.items() if name in _names(kind)]
            raise UserError(f"--{name}: model={model} has no such flag; it belongs to model={' or '.join(owners)}")
        for section in home:
            values[section][name] = value
    return config.Config.from_dict(values)


def warn_of_unused(run: config.Config, given: Mapping[str, Any]) -> None:
    """Prints a line for each given option that has no effect in the run.

    Args:
        run: the Config that `config_of` made of them.
        given: {option: value}, as of `config_of`.
    """
    for name, needed in run.unused().items():
        if name in given:
            value = str(given[name]).lower() if isinstance(given[name], bool) else given[name]
            print(f"warning: --{name}={value} has no effect without {needed}", flush=True)


def _names(section: type[Section]) -> set[str]:
    return {field.name for field in dataclasses.fields(section)}
