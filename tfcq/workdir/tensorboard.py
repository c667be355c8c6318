"""tensorboard/: the writers of its files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfcq.machine.paths import AnyPath, is_remote

if TYPE_CHECKING:
    import tensorflow as tf

REMOTE_FLUSH_SECONDS = 30
"""The least time between two writes of a file at an address by its writer alone: each uploads the whole file again."""

_EVENTS = 100_000  # that a writer keeps until then


def event_writer(folder: AnyPath) -> tf.summary.SummaryWriter:
    """A writer of TensorBoard's files in a folder."""
    import tensorflow as tf

    if is_remote(folder):
        return tf.summary.create_file_writer(str(folder), max_queue=_EVENTS, flush_millis=1000 * REMOTE_FLUSH_SECONDS)
    return tf.summary.create_file_writer(str(folder))
