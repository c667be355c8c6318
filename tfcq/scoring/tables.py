"""The table of scores, a row for each image, as CSV and as Parquet: written row by row, so that memory does not grow.

At an address (`gs://`) the files are in memory until they are uploaded.
"""

from __future__ import annotations

import contextlib
import csv
import io
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow
import pyarrow.parquet

from tfcq.machine import files

CSV, PARQUET = "scores.csv", "scores.parquet"

_ROWS = 4096  # of a row group, which is in memory until it is written


class TableWriter:
    """Writes rows; made by `writing`.

    Args:
        csv_file, parquet_file: binary files, open for writing.
        numbers: names of the columns of numbers.
        flagged: whether there is a column `flagged`.
    """

    def __init__(self, csv_file: Any, parquet_file: Any, numbers: list[str], flagged: bool) -> None:
        types = {"key": pyarrow.string(), **dict.fromkeys(numbers, pyarrow.float64())}
        types |= {"flagged": pyarrow.bool_()} if flagged else {}
        self._schema = pyarrow.schema(types | {"unfit": pyarrow.string()})
        self._csv = csv.DictWriter(text := io.TextIOWrapper(csv_file, "utf-8", "surrogateescape", newline=""), self._schema.names)
        self._text, self._parquet = text, pyarrow.parquet.ParquetWriter(parquet_file, self._schema)
        self._kept: list[dict[str, Any]] = []
        self._csv.writeheader()

    def write(self, row: Mapping[str, Any]) -> None:
        """Adds a row: values by column; those that are missing are empty, and null in Parquet."""
        given = {name: row.get(name) for name in self._schema.names}
        self._csv.writerow(given)
        # Parquet's texts are UTF-8; a file's name may hold other bytes.
        self._kept.append(given | {"key": row["key"].encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")})
        if len(self._kept) == _ROWS:
            self._flush()

    def close(self) -> None:
        """Writes what is left."""
        self._flush()
        self._parquet.close()
        self._text.flush()

    def abandon(self) -> None:
        """Lets go of the files, whatever state they are in, so that nothing is written to them any more; also after `close`."""
        with contextlib.suppress(Exception):  # the error that led here is the one to hear of
            self._parquet.close()
        with contextlib.suppress(Exception):
            self._text.detach()

    def _flush(self):
        if self._kept:
            self._parquet.write_table(pyarrow.Table.from_pylist(self._kept, self._schema))
        self._kept = []


@contextlib.contextmanager
def writing(folder: pathlib.Path, numbers: list[str], flagged: bool) -> Iterator[TableWriter]:
    """A context with the TableWriter of `folder`/scores.csv and scores.parquet, which appear whole at its end.

    Args:
        folder, numbers, flagged: as of `TableWriter`.

    Raises:
        UserError: the files cannot be written.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(files.writing("output", folder))
        text, parquet = (stack.enter_context(files.replacing(folder / name)) for name in (CSV, PARQUET))
        writer = TableWriter(text, parquet, numbers, flagged)
        try:
            yield writer
            writer.close()
        finally:
            writer.abandon()
