"""The curves of a run as a table, read from its TensorBoard files."""

from __future__ import annotations

import os

import numpy as np
from tabulate import tabulate

from tfcq.errors import UserError
from tfcq.machine.paths import as_path
from tfcq.workdir import read_scalars

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
    # A later point of a step, of a run that was resumed, takes the place of an earlier one.
    scalars = {
        scalar: {point.step: point.value for point in points} for scalar, points in read_scalars(folder / name).items()
    }
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
