"""tensorboard/: the writers of its files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfcq.machine.paths import AnyPath, is_remote

if TYPE_CHECKING:
    import tensorflow as tf

REMOTE_SECONDS = 30.0
"""The least time between two writes of curves at an address: each uploads the whole file again."""

_EVENTS = 100_000  # that a writer keeps at an address until `flush`, or the end of `as_default`, which flushes


def event_writer(folder: AnyPath) -> tf.summary.SummaryWriter:
    """A writer of TensorBoard's files in a folder."""
    import tensorflow as tf

    return tf.summary.create_file_writer(str(folder), max_queue=_EVENTS if is_remote(folder) else None)


def seconds_between_curves(folder: AnyPath) -> float:
    """The least time between two writes of a file of curves in the folder."""
    return REMOTE_SECONDS if is_remote(folder) else 0.0
