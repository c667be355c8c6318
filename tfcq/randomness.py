"""Noise that depends on seeds alone: stateless, and for each image independent of the other images of its batch.

There are two sources with one interface, so that the same model code serves training and endpoints:

* `RowNoise`: a seed for each row (`sample`, `likelihood`, evaluation). A row's noise does not depend on the batch.
* `StepNoise`: one draw for the whole batch of a training step, from which each replica takes its own rows. So the noise of a
  row is the same with one replica or with eight; seeds per replica would not achieve this.

Every draw has a `tag`: draws with different tags are independent. The algorithm (Philox) is always named, because otherwise XLA
and plain kernels choose different generators for the same seed. Only its integers are equal in both, so floats are made from
them here: TensorFlow's kernels fill a mantissa from the lowest bits, XLA from the highest. Neither source draws what it does not
use: seeds of rows are derived for all rows at once, and a replica begins at its own rows' place of the draw (`tfcq.philox`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfcq import philox
from tfcq.seeds import row_seeds

__all__ = ["RowNoise", "StepNoise", "fold", "row_seeds"]


def fold(seed: Any, *numbers: Any) -> tf.Tensor:
    """A stateless seed int32 [2] that depends on `seed` (int32 [2]) and on all `numbers` (int scalars, tensors allowed)."""
    for number in numbers:
        seed = tf.random.experimental.stateless_fold_in(seed, number, alg=philox.ALGORITHM)
    return seed


def _uniform(words: tf.Tensor) -> tf.Tensor:
    """Noise uniform in [0, 1), float32, of random words uint32. It is exact, so it is the same on every device."""
    return tf.cast(tf.bitwise.right_shift(words, tf.constant(8, tf.uint32)), tf.float32) * 2.0**-24


def _normal(words: tf.Tensor) -> tf.Tensor:
    """Standard normal noise float32 [...] of random words uint32 [..., 2], by the Box-Muller transform."""
    uniform = _uniform(words)
    return tf.sqrt(-2.0 * tf.math.log(1.0 - uniform[..., 0])) * tf.cos(2.0 * math.pi * uniform[..., 1])


_WHOLE_VECTORS = 64
"""A multiple of the number of float32 values that any CPU has in a vector.

TensorFlow's logarithm and cosine round the values in full vectors otherwise than those that remain at a tensor's end. So rows
are transformed together, or a replica's rows without the others, only where their sizes are multiples of this: a row's bits
are then the same.
"""


class RowNoise:
    """Noise of N rows, each from its own seed.

    Args:
        seeds: int32 [N, 2].
        path: int scalars (tensors allowed) folded into every seed.
    """

    def __init__(self, seeds: Any, path: Sequence[Any] = ()):
        self._seeds = _folded(tf.convert_to_tensor(seeds, tf.int32), *path)

    def fold(self, *numbers: Any) -> RowNoise:
        """The same rows with `numbers` folded into their seeds: independent of this object's draws."""
        return RowNoise(self._seeds, numbers)

    def normal(self, row_shape: Sequence[int], tag: int) -> tf.Tensor:
        """Standard normal noise, float32 [N, *row_shape]."""
        row_shape = tuple(row_shape)
        if math.prod(row_shape) % _WHOLE_VECTORS:
            return self._map(lambda words: _normal(words((*row_shape, 2))), row_shape, tf.float32, tag)
        return _normal(self._words((*row_shape, 2), tag))

    def uniform(self, row_shape: Sequence[int], tag: int) -> tf.Tensor:
        """Noise uniform in [0, 1), float32 [N, *row_shape]."""
        return _uniform(self._words(tuple(row_shape), tag))

    def _words(self, row_shape, tag):
        return self._map(lambda words: words(row_shape), row_shape, tf.uint32, tag)

    def _map(self, function, row_shape, dtype, tag):
        """`function(words)` of each row, dtype [N, *row_shape]; `words(shape)` are random words uint32 of the row.

        Row by row on the CPU, also in a process with GPUs: on an H200 each row of this loop took 1 to 5 ms.
        """
        with tf.device(philox.DEVICE):
            return tf.map_fn(
                lambda place: function(functools.partial(philox.words, key=place[0], counter=place[1])),
                philox.keys_and_counters(_folded(self._seeds, tag)),
                fn_output_signature=tf.TensorSpec(row_shape, dtype),
            )


def _folded(seeds: tf.Tensor, *numbers: Any) -> tf.Tensor:
    """`fold` of each seed int32 [N, 2]; ValueError for a number that int32 cannot hold."""
    for number in numbers:
        if isinstance(number, int | np.integer) and not -(2**31) <= number < 2**31:  # TensorFlow would wrap it
            raise ValueError(f"fold: expected a number of int32, received {number}")
        folded = philox.fold_rows(seeds, tf.convert_to_tensor(number, tf.int32))
        folded.set_shape(seeds.shape)
        seeds = folded
    return seeds


class StepNoise:
    """Noise of one training step: rows [first_row, first_row + num_rows) of a draw of `total_rows`.

    Args:
        seed: int32 [2], the seed of the run.
        path: int scalars (tensors allowed) folded in: the step, the player, its turn.
        num_rows: rows of this replica, static int.
        first_row: number of this replica's first row in the whole batch, an int scalar (tensor allowed).
        total_rows: rows of the whole batch, static int; None: `num_rows`.
    """

    def __init__(self, seed: Any, path: Sequence[Any], num_rows: int, first_row: Any = 0, total_rows: int | None = None):
        self._seed = fold(seed, *path)
        self._num_rows, self._first_row, self._total_rows = num_rows, first_row, total_rows or num_rows

    def fold(self, *numbers: Any) -> StepNoise:
        """The same rows with `numbers` folded into the seed: independent of this object's draws."""
        return StepNoise(self._seed, numbers, self._num_rows, self._first_row, self._total_rows)

    def normal(self, row_shape: Sequence[int], tag: int) -> tf.Tensor:
        """Standard normal noise, float32 [num_rows, *row_shape]."""
        row_shape = tuple(row_shape)
        sizes = [rows * math.prod(row_shape) for rows in (self._num_rows, self._total_rows)]
        if self._num_rows == self._total_rows or not any(size % _WHOLE_VECTORS for size in sizes):
            return _normal(self._words((*row_shape, 2), tag))
        rows = StepNoise(self._seed, (), self._total_rows).normal(row_shape, tag)
        return tf.slice(rows, [self._first_row] + [0] * len(row_shape), (self._num_rows, *row_shape))

    def uniform(self, row_shape: Sequence[int], tag: int) -> tf.Tensor:
        """Noise uniform in [0, 1), float32 [num_rows, *row_shape]."""
        return _uniform(self._words(tuple(row_shape), tag))

    def _words(self, row_shape, tag):
        key, counter = philox.key_and_counter(fold(self._seed, tag))
        shape = (self._num_rows, *row_shape)
        if self._num_rows == self._total_rows:
            return philox.words(shape, key, counter)
        return philox.words_from(tf.cast(self._first_row, tf.int64) * math.prod(row_shape), shape, key, counter)
