"""TensorBoard's files of a resumed run: events beyond the step from which it resumes are cut off.

An event file is written by one process, grows at its end, and its steps increase. So it can be cut by truncating it after a
whole event. All readers of the files (TensorBoard, EventAccumulator, notebooks) then see a single curve, without duplicates
and without points that belong to no checkpoint.
"""

from __future__ import annotations

import os
import struct

from google.protobuf.message import DecodeError
from tensorflow.core.util import event_pb2

from tfcq.machine.files import truncate
from tfcq.machine.paths import AnyPath, as_path
from tfcq.workdir.tensorboard import FOOTER, HEADER


def drop_after(folder: str | os.PathLike, step: int) -> None:
    """Cuts the event files of a folder before the first event beyond `step`, and removes incomplete events of killed writers.

    If files overlap, as after resuming with earlier versions, the later one is kept whole. A file without events is removed.

    Args:
        folder: of one writer, such as tensorboard/train; it need not exist.
        step: the last step that is kept; -1: none.
    """
    found: list[AnyPath] = [*as_path(folder).glob("*tfevents*")]
    for path in sorted(found, key=str, reverse=True):  # names begin with the time
        first, end = _first_step_and_end(path, step)
        if first is None:
            path.unlink()
            continue
        if end < path.stat().st_size:
            truncate(path, end)
        step = min(step, first - 1)


def _first_step_and_end(path, step):
    """The step of a file's first event (None: there is none up to `step`), and the number of bytes up to `step`."""
    first, end = None, 0
    with path.open("rb") as file:
        while len(header := file.read(HEADER)) == HEADER:
            (length,) = struct.unpack("<Q", header[:8])
            record = file.read(length + FOOTER)
            if len(record) < length + FOOTER:
                break
            try:
                event = event_pb2.Event.FromString(record[:length])
            except DecodeError:
                break
            if event.WhichOneof("what") != "file_version":
                if event.step > step:
                    break
                first = event.step if first is None else first
            end += HEADER + length + FOOTER
    return first, end
