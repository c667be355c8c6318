"""What others need not know of where a run's images and other files are: the folders above them."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from tfcq.config import Config


def without(config: Config) -> Config:
    """A copy in which the options that say where images and files are have the last names of their paths alone."""

    def shortened(section: Any) -> Any:
        changes = {}
        for field in dataclasses.fields(section):
            value = getattr(section, field.name)
            if field.metadata.get("on_resume") == "place" and isinstance(value, str) and "/" in value:
                kind, colon, path = value.rpartition(":")
                name = pathlib.PurePath(path).name
                changes[field.name] = f"{kind}{colon}{name}" if kind in ("folder", "idx", "npz", "list") or not kind else value
        return dataclasses.replace(section, **changes)

    return dataclasses.replace(
        config, data=shortened(config.data), system=shortened(config.system), training=shortened(config.training)
    )


def renamed(config: Config, without: Config) -> dict[str, str]:
    """{a place's path: its last name}, longer ones first."""
    found: dict[str, str] = {}
    for section in ("data", "system", "training"):
        before, after = dataclasses.asdict(getattr(config, section)), dataclasses.asdict(getattr(without, section))
        for name in before:
            if before[name] != after[name]:
                found[before[name].rpartition(":")[2]] = after[name].rpartition(":")[2]
    return dict(sorted(found.items(), key=lambda pair: -len(pair[0])))
