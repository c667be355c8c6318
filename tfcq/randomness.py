"""Noise that depends on seeds alone: stateless, and for each image independent of the other images of its batch.

There are two sources with one interface, so that the same model code serves training and endpoints:

* `RowNoise`: a seed for each row (`sample`, `likelihood`, evaluation). A row's noise does not depend on the batch.
* `StepNoise`: one draw for the whole batch of a training step, from which each replica takes its own rows. So the noise of a
  row is the same with one replica or with eight; seeds per replica would not achieve this.

Every draw has a `tag`: draws with different tags are independent. The algorithm (Philox) is always named, because otherwise XLA
and plain kernels choose different generators for the same seed. Only its integers are equal in both, so floats are made from
them here: TensorFlow's kernels fill a mantissa from the lowest bits, XLA from the highest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfcq.seeds import row_seeds

__all__ = ["RowNoise", "StepNoise", "fold", "row_seeds"]

_ALGORITHM = "philox"


def fold(seed: Any, *numbers: Any) -> tf.Tensor:
    """A stateless seed int32 [2] that depends on `seed` (int32 [2]) and on all `numbers` (int scalars, tensors allowed)."""
    for number in numbers:
        seed = tf.random.experimental.stateless_fold_in(seed, number, alg=_ALGORITHM)
    return seed


def _uniform(row_shape, seed):
    bits = tf.random.stateless_uniform(row_shape, seed, minval=None, maxval=None, dtype=tf.uint32, alg=_ALGORITHM)
    return tf.cast(tf.bitwise.right_shift(bits, tf.constant(8, tf.uint32)), tf.float32) * 2.0**-24


def _normal(row_shape, seed):
    """Standard normal noise by the Box-Muller transform."""
    uniform = _uniform((*row_shape, 2), seed)
    return tf.sqrt(-2.0 * tf.math.log(1.0 - uniform[..., 0])) * tf.cos(2.0 * math.pi * uniform[..., 1])


class RowNoise:
    """Noise of N rows, each from its own seed.

    Args:
        seeds: int32 [N, 2].
        path: int scalars (tensors allowed) folded into every seed.
    """

    def __init__(self, seeds: Any, path: Sequence[Any] = ()):
        self._seeds = tf.convert_to_tensor(seeds, tf.int32)
        self._path = tuple(path)

    def fold(self, *numbers: Any) -> RowNoise:
        """The same rows with `numbers` folded into their seeds: independent of this object's draws."""
        return RowNoise(self._seeds, (*self._path, *numbers))

    def normal(self, row_shape: Sequence[int], tag: int) -> tf.Tensor:
        """Standard normal noise, float32 [N, *row_shape]."""
        return self._draw(_normal, row_shape, tag)

    def uniform(self, row_shape: Sequence[int], tag: int) -> tf.Tensor:
        """Noise uniform in [0, 1), float32 [N, *row_shape]."""
        return self._draw(_uniform, row_shape, tag)

    def _draw(self, draw, row_shape, tag):
        row_shape = tuple(row_shape)
        return tf.map_fn(
            lambda seed: draw(row_shape, fold(seed, *self._path, tag)),
            self._seeds,
            fn_output_signature=tf.TensorSpec(row_shape, tf.float32),
        )


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
        self._seed, self._path = seed, tuple(path)
        self._num_rows, self._first_row, self._total_rows = num_rows, first_row, total_rows or num_rows

    def fold(self, *numbers: Any) -> StepNoise:
        """The same rows with `numbers` folded into the seed: independent of this object's draws."""
        return StepNoise(self._seed, (*self._path, *numbers), self._num_rows, self._first_row, self._total_rows)

    def normal(self, row_shape: Sequence[int], tag: int) -> tf.Tensor:
        """Standard normal noise, float32 [num_rows, *row_shape]."""
        return self._draw(_normal, row_shape, tag)

    def uniform(self, row_shape: Sequence[int], tag: int) -> tf.Tensor:
        """Noise uniform in [0, 1), float32 [num_rows, *row_shape]."""
        return self._draw(_uniform, row_shape, tag)

    def _draw(self, draw, row_shape, tag):
        rows = draw((self._total_rows, *row_shape), fold(self._seed, *self._path, tag))
        if self._total_rows == self._num_rows:
            return rows
        begin = [self._first_row] + [0] * len(row_shape)
        return tf.slice(rows, begin, (self._num_rows, *row_shape))
