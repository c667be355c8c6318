"""`tfcq.preset`: a preset as a `Config`, for Python."""

from __future__ import annotations

import dataclasses
from typing import Any

from tfcq.command_line import presets
from tfcq.command_line.configuration import config_of
from tfcq.command_line.flags import Flags
from tfcq.config import SYSTEMS, Config, DataConfig, TrainingConfig
from tfcq.config.fields import suggestion
from tfcq.errors import UserError


def preset(name: str, **options: Any) -> Config:
    """The configuration of `tfcq train --preset=NAME`, with some options changed.

    Args:
        name: of a flagfile in configs/, without its ending.
        **options: values by the names that they have as flags, as `dataset="folder:photos", train_steps=500`; of data, training
            and the preset's system.

    Raises:
        UserError: no such preset or option, or a value that the configuration refuses.

    >>> import tfcq
    >>> tfcq.preset("quickstart", train_steps=500).training.train_steps
    500
    """
    presets.path_of(name)
    flags = Flags(presets="")
    flags.configuration()
    flags.common()
    flags.parse([f"--preset={name}"])
    known = {field.name for kind in (DataConfig, TrainingConfig, *SYSTEMS.values()) for field in dataclasses.fields(kind)}
    for option in options:
        if option not in known:
            raise UserError(f"preset: expected options of the configuration, received {option}{suggestion(option, known)}")
    return config_of({"model": flags.model} | flags.given() | options)
