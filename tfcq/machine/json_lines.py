"""Files of one JSON object a line, that are appended to by processes which may be killed, and by two at a time."""

import json
import os
import pathlib

from tfcq.errors import UserError
from tfcq.machine.files import Lock, replacing


def append(path, row):
    """Appends `row` (a dict of plain values); what a killed writer left of a last line goes.

    Raises:
        OSError: the file cannot be written.
    """
    with Lock(path) as lock:
        file, rest = lock.file, lock.file.read().split(b"\n")[-1]
        if rest:
            file.seek(-len(rest), os.SEEK_END)
            file.truncate()
            if _row(rest) is not None:  # it lacks its end alone
                file.write(rest + b"\n")
        file.write(json.dumps(row).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read(path):
    """The rows, a list of dicts; [] where there is no such file.

    A last line without its end is left out: it is being written, or its writer was killed.

    Raises:
        UserError: another line is no row, or the file cannot be read.
    """
    try:
        lines = pathlib.Path(path).read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}; expected a row of JSON for each evaluation") from error
    rows = [_row(line) for line in lines]
    if None in rows:
        number = rows.index(None) + 1
        raise UserError(f"{path}: expected one row of JSON for each evaluation, received something else at line {number}")
    return rows


def rewrite(path, choose):
    """Replaces the rows of a file that is there by `choose(rows)`, some of them, the same dicts; what is no row goes.

    Returns:
        The rows that are left.

    Raises:
        OSError: the file cannot be written; it is as it was then.
    """
    with Lock(path) as lock:
        before = lock.file.read()
        lines = [(line, row) for line in before.split(b"\n") if (row := _row(line)) is not None]
        chosen = {id(row) for row in choose([row for _, row in lines])}
        lines = [(line, row) for line, row in lines if id(row) in chosen]
        after = b"".join(line + b"\n" for line, _ in lines)
        if after != before:
            with replacing(path) as file:
                file.write(after)
    return [row for _, row in lines]


def last_course(points, step_of):
    """`points` without those that a resumed run has written again: in the list that is left steps rise.

    Args:
        points: a list, in the order in which they were written.
        step_of: function from a point to its step.
    """
    kept = []
    for point in reversed(points):
        if not kept or step_of(point) < step_of(kept[-1]):
            kept.append(point)
    return kept[::-1]


def _row(line):
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
