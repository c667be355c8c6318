"""From flags to a run's `Config`."""

import dataclasses

from tfcq import config
from tfcq.config.fields import Section
from tfcq.errors import UserError


def config_of(given: dict[str, object], base: config.Config | None = None) -> config.Config:
    """The Config that options describe.

    Args:
        given: {option: value}, and perhaps "model", as `Flags.given` has them.
        base: what they change; None, or one of another model: the defaults.

    Raises:
        UserError: a value out of bounds, an impossible combination, or an option that the model does not have.
    """
    given = dict(given)
    model = given.pop("model", None) or (base.model if base else "cqf")
    values = {"model": model, "data": {}, "training": {}, "system": {}}
    if base and base.model == model:
        values = base.to_dict()
    homes = {"data": config.DataConfig, "training": config.TrainingConfig}
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


def _names(section: type[Section]) -> set[str]:
    return {field.name for field in dataclasses.fields(section)}
