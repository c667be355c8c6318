"""What others need not know of where a run's images and other files are: the folders above them."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from typing import Any

from tfcq.config import Config

_PATH = re.compile(r"([A-Za-z_]\w*:)?(?=/(?!/|device:)|~/)")  # /device:CPU:0 is none


def without(config: Config) -> Config:
    """A copy in which the options that say where images and files are have the last names of their paths alone."""

    def shortened(section: Any) -> Any:
        changes = {}
        for field in dataclasses.fields(section):
            value = getattr(section, field.name)
            beginning = next((one for one in field.metadata["paths"] if isinstance(value, str) and value.startswith(one)), None)
            if beginning is not None and "/" in value:
                changes[field.name] = beginning + pathlib.PurePath(value.removeprefix(beginning)).name
        return dataclasses.replace(section, **changes)

    return dataclasses.replace(
        config, data=shortened(config.data), system=shortened(config.system), training=shortened(config.training)
    )


def renamed(config: Config, without: Config) -> dict[str, str]:
    """{a place's path: its last name}, longer ones first."""
    found: dict[str, str] = {}
    for section in ("data", "system", "training"):
        for field in dataclasses.fields(getattr(config, section)):
            before, after = (getattr(getattr(one, section), field.name) for one in (config, without))
            if before != after:
                beginning = next(one for one in field.metadata["paths"] if before.startswith(one))
                found[before.removeprefix(beginning)] = after.removeprefix(beginning)
    return dict(sorted(found.items(), key=lambda pair: -len(pair[0])))


def shortened(value: Any, renamed: dict[str, str]) -> Any:
    """A value of JSON whose texts have last names in place of paths: of those in `renamed` anywhere, of others where a text is
    nothing but a path, with or without a kind before it (saved_model:/home/me/net)."""
    if isinstance(value, dict):
        return {shortened(key, renamed): shortened(one, renamed) for key, one in value.items()}
    if isinstance(value, list):
        return [shortened(one, renamed) for one in value]
    if not isinstance(value, str):
        return value
    for before, after in renamed.items():
        value = value.replace(before, after)
    if beginning := _PATH.match(value):
        return beginning[0] + pathlib.PurePath(value[beginning.end() :]).name
    return value
