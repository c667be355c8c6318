"""Files with one JSON object per line. Writers may be killed, and two processes may append at a time."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from tfcq.errors import UserError
from tfcq.machine.files import Lock, replacing
from tfcq.machine.paths import as_path, is_remote

_Point = TypeVar("_Point")


def append(path: str | os.PathLike, row: dict) -> None:
    """Appends `row` (a dict of plain values); removes an incomplete last line of a killed writer.

    Raises:
        OSError: the file cannot be written.
    """
    if is_remote(path):
        with _remote_lock(path):
            as_path(path).write_bytes(_whole_lines(_content(path)) + json.dumps(row).encode() + b"\n")
        return
    with Lock(path) as lock:
        file, rest = lock.file, lock.file.read().split(b"\n")[-1]
        if rest:
            file.seek(-len(rest), os.SEEK_END)
            file.truncate()
            if _row(rest) is not None:  # only its line end is missing
                file.write(rest + b"\n")
        file.write(json.dumps(row).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read(path: str | os.PathLike) -> list[dict]:
    """Reads the rows; [] if the file does not exist.

    A last line without its line end is left out: it is being written, or its writer was killed.

    Raises:
        UserError: another line is not a JSON object, or the file cannot be read.
    """
    try:
        lines = as_path(path).read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}; expected a row of JSON for each evaluation") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        row = _row(line)
        if row is None:
            raise UserError(f"{path}: expected one row of JSON for each evaluation, received something else at line {number}")
        rows.append(row)
    return rows


def rewrite(path: str | os.PathLike, choose: Callable[[list[dict]], Iterable[dict]]) -> list[dict]:
    """Keeps some rows of an existing file, and removes the others and every line that is not a row.

    Args:
        path: path of the file.
        choose: function from all rows to those that are kept, which must be the same dict objects.

    Returns:
        The rows that are kept.

    Raises:
        OSError: the file cannot be written; it is unchanged then.
    """
    with _remote_lock(path) if is_remote(path) else Lock(path) as lock:
        before = _content(path) if is_remote(path) else lock.file.read()
        lines = [(line, row) for line in before.split(b"\n") if (row := _row(line)) is not None]
        kept = {id(row) for row in choose([row for _, row in lines])}
        lines = [(line, row) for line, row in lines if id(row) in kept]
        after = b"".join(line + b"\n" for line, _ in lines)
        if after != before:
            with replacing(path) as file:
                file.write(after)
    return [row for _, row in lines]


def last_course(points: Sequence[_Point], step_of: Callable[[_Point], int]) -> list[_Point]:
    """Returns `points` without those that a resumed run has written again, so that the steps increase.

    Args:
        points: in the order in which they were written.
        step_of: function from a point to its step.
    """
    kept: list[_Point] = []
    for point in reversed(points):
        if not kept or step_of(point) < step_of(kept[-1]):
            kept.append(point)
    return kept[::-1]


def _remote_lock(path):
    from tfcq.machine.remote import RemotePath
    from tfcq.machine.remote_lock import RemoteLock

    return RemoteLock(RemotePath(path), f"process {os.getpid()}")


def _whole_lines(content):
    """`content` without an incomplete last line, which a file that was copied from a disk may have."""
    rest = content.split(b"\n")[-1]
    if _row(rest) is not None:  # only its line end is missing
        return content + b"\n"
    return content.removesuffix(rest)


def _content(path):
    """What is in a file now; nothing if it is not there."""
    with contextlib.suppress(FileNotFoundError):
        return as_path(path).read_bytes()
    return b""


def _row(line):
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
