"""Which source the name of a data set means."""

from __future__ import annotations

import os

from tfcq.config import DataConfig
from tfcq.data import places
from tfcq.data.builtin import digits, photo_patches
from tfcq.data.folder import folder
from tfcq.data.idx import idx
from tfcq.data.npz import npz
from tfcq.data.sources import Source
from tfcq.data.tfds import tfds
from tfcq.errors import UserError
from tfcq.machine import paths

SOURCES = {"digits": digits, "photo_patches": photo_patches}
"""Sources that need no path: functions DataConfig -> Source."""

PLACED_SOURCES = {"idx": idx, "folder": folder, "npz": npz}
"""Sources "name:PLACE": functions of the path PLACE -> Source. Any other name is a TFDS data set."""

CHOICES = (*SOURCES, "idx:DIR", "folder:DIR", "npz:FILE")


def open_source(config: DataConfig, begun: bool = False) -> Source:
    """The Source that a DataConfig names; `begun`: whether a run already knows its images by their content.

    Raises:
        UserError: an unknown or broken source.
    """
    name, _, place = config.dataset.partition(":")
    if name in PLACED_SOURCES or config.dataset in SOURCES:
        _refuse_named_splits(config)
    try:
        if name in PLACED_SOURCES:
            if not place:
                raise UserError(f"dataset: expected {name}:PLACE, received {config.dataset!r}")
            of_file = name == "npz"  # which may lie at an address: that of the images in a workdir does, if the workdir does
            what = "a file" if of_file else "a folder"
            place = os.fspath(paths.to_read(place, "dataset", what, local=not of_file))
            return folder(place, begun) if name == "folder" else PLACED_SOURCES[name](place)
        if config.dataset in SOURCES:
            return SOURCES[config.dataset](config)
        if places.is_path(config.dataset):
            raise UserError(f"dataset: expected {', '.join(CHOICES)} or the name of a TFDS data set, received {config.dataset!r}")
        return tfds(config, CHOICES, suggests=not places.meant(config.dataset))  # a path is the better guess
    except UserError as error:
        near = places.meant(config.dataset)
        if not near:
            raise
        raise UserError(f"{error}{near}") from error


def _refuse_named_splits(config):
    for option, expected in (("train_split", "train"), ("test_split", "test")):
        received = getattr(config, option)
        if received != expected:
            raise UserError(f"{option}: expected {expected} with dataset={config.dataset}, as only the splits of a TFDS "
                            f"data set have other names; received {received!r}")
