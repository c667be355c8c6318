"""The curves of a run as a table, read from its TensorBoard files."""

from __future__ import annotations

import os

import numpy as np
import tensorflow as tf
from tabulate import tabulate
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tfcq.errors import UserError
from tfcq.machine.paths import as_path

_ROWS_SHOWN = 10
_COLUMNS_SHOWN = 5
_WIDTH = 80


class History(dict):
    """{"step": int64 [rows], a scalar's name: float64 [rows], NaN in rows without a value}; prints as a table."""

    def __repr__(self) -> str:
        if not len(self["step"]):
            return "<History: no rows yet>"
        columns = list(self)[: 1 + _COLUMNS_SHOWN]
        table = self._table(columns, "simple")
        while len(columns) > 2 and len(table.split("\n", 1)[0]) > _WIDTH:
            columns.pop()
            table = self._table(columns, "simple")
        hidden = [name for name in self if name not in columns]
        lines = [table, "1 row" if len(self["step"]) == 1 else f"{len(self['step'])} rows"]
        lines += [f"and columns {', '.join(hidden)}"] if hidden else []
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return self._table(list(self), "html")

    def _table(self, columns, style):
        rows = np.arange(len(self["step"]))
        if len(rows) > _ROWS_SHOWN:  # the first and the last
            rows = np.concatenate([rows[: _ROWS_SHOWN // 2], rows[-_ROWS_SHOWN // 2 :]])
        values = {name: [self[name][row] for row in rows] for name in columns}
        return tabulate(values, headers="keys", tablefmt=style, floatfmt=".4g", disable_numparse=[0])


def read(workdir: str | os.PathLike, name: str = "train") -> History:
    """Reads the scalars of WORKDIR/tensorboard/NAME, one row per step that has any.

    Raises:
        UserError: there is no such folder.
    """
    folder = as_path(workdir) / "tensorboard"
    known = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if name not in known:
        raise UserError(f"history: expected one of {', '.join(known) or 'none yet'}, received {name!r}")
    scalars: dict[str, dict[int, float]] = {}
    for path in sorted((folder / name).glob("*tfevents*")):  # names begin with the time: a later file overrides
        accumulator = EventAccumulator(os.fspath(path), size_guidance={"tensors": 0, "images": 1, "scalars": 0})
        accumulator.Reload()
        tags = accumulator.Tags()
        for tag in tags["scalars"]:
            scalars.setdefault(tag, {}).update({event.step: event.value for event in accumulator.Scalars(tag)})
        for tag in tags["tensors"]:
            values = {event.step: tf.make_ndarray(event.tensor_proto) for event in accumulator.Tensors(tag)}
            numbers = {step: float(value) for step, value in values.items() if value.ndim == 0 and value.dtype.kind in "fiu"}
            if numbers:
                scalars.setdefault(tag, {}).update(numbers)
    steps = sorted({step for values in scalars.values() for step in values})
    history = History(step=np.array(steps, np.int64))
    for tag in sorted(scalars, key=_importance):
        history[tag] = np.array([scalars[tag].get(step, np.nan) for step in steps], np.float64)
    return history


def _importance(tag):
    """The key that sorts columns: losses, then bounds and errors, then what belongs to a player."""
    if tag.endswith("/loss"):
        return (0, tag)
    return (1 if "/" not in tag and tag != "images_per_second" else 2, tag)
