"""TensorBoard's files of a run that is resumed: what lies beyond the step that it goes on from is cut off.

An event file grows at its end, and its steps rise, since one process writes it. So cutting is truncation, which leaves whole
events, and all that reads the files (TensorBoard, EventAccumulator, notebooks) sees one course without doubles or points that no
checkpoint stands for.
"""

import os
import pathlib
import struct

from google.protobuf.message import DecodeError
from tensorflow.core.util import event_pb2

_HEADER, _FOOTER = 12, 4  # of a TFRecord: length and its checksum; the data's checksum


def drop_after(folder, step):
    """Cuts the event files of a folder before the first event beyond `step`; what a killed writer left unfinished goes too.

    Of files that overlap, as runs resumed by earlier versions left them, the later one holds. A file without events goes.

    Args:
        folder: of one writer, such as tensorboard/train; it need not be there.
        step: the last that stays; -1: none.
    """
    for path in sorted(pathlib.Path(folder).glob("*tfevents*"), reverse=True):  # their names begin with the time
        first, end = _first_step_and_end(path, step)
        if first is None:
            path.unlink()
            continue
        if end < path.stat().st_size:
            os.truncate(path, end)
        step = min(step, first - 1)


def _first_step_and_end(path, step):
    """The step of a file's first event (None: there is none up to `step`), and the bytes of those up to `step`."""
    first, end = None, 0
    with open(path, "rb") as file:
        while len(header := file.read(_HEADER)) == _HEADER:
            (length,) = struct.unpack("<Q", header[:8])
            record = file.read(length + _FOOTER)
            if len(record) < length + _FOOTER:
                break
            try:
                event = event_pb2.Event.FromString(record[:length])
            except DecodeError:
                break
            if event.WhichOneof("what") != "file_version":
                if event.step > step:
                    break
                first = event.step if first is None else first
            end += _HEADER + length + _FOOTER
    return first, end
