"""The batches of a training step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import tensorflow as tf

if TYPE_CHECKING:
    from tfcq.data import ImageDataset
    from tfcq.engine.trainer import Trainer


def step_batches(
    dataset: ImageDataset, model: Trainer, batch_size: int, seed: int, start: int = 0, rows: Sequence[int] | None = None
) -> tf.data.Dataset:
    """Endless shuffled batches from step `start` on, in the form that the model's `batches_per_step` and `needs_indices` say.

    With `rows` a batch has only these of its rows, as for one of several workers, and no other image is read. The size of a
    batch is then their number.

    Returns:
        uint8 [batch_size, H, W, C], or [batch_size, k, H, W, C] for a model that takes k batches per step; with
        `needs_indices` pairs of such images and their numbers in the train split, int64 [batch_size] or [batch_size, k]; with
        `class_names` pairs of images and their classes, int32.
    """
    turns = model.batches_per_step
    own = range(batch_size) if rows is None else rows
    positions = [turn * batch_size + row for turn in range(turns) for row in own]
    batches = dataset.train_batches(
        batch_size * turns, seed, start, model.needs_indices, None if rows is None else positions, model.class_names
    )
    if turns > 1:

        def by_turns(part):
            part = tf.reshape(part, (turns, len(own), *part.shape[1:]))
            return tf.transpose(part, (1, 0, *range(2, part.shape.rank)))

        batches = batches.map(lambda *parts: tf.nest.map_structure(by_turns, parts if len(parts) > 1 else parts[0]))
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return batches.with_options(options)
