"""Philox on many seeds at once: the words of TensorFlow's own stateless generator, whose operations take one seed each.

Vectorised over seeds, in integer operations that CPUs, GPUs and XLA have. The results are those of
`tf.random.experimental.stateless_fold_in` and `tf.random.stateless_uniform` with alg="philox", bit by bit.

References:
    Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011: Philox4x32-10, its multipliers and key
    increments. That a seed is first scrambled by one such block, and by which key: TensorFlow's `StatelessRandomGetKeyCounter`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

ALGORITHM = "philox"
DEVICE = "CPU:0"
"""Where seeds of rows become keys, also of a process with GPUs: a GPU would be asked for a hundred tiny operations."""

WORDS_PER_COUNT = 4
"""The words uint32 of one block: a counter moved on by 1 is `WORDS_PER_COUNT` words further."""

_ROUNDS = 10
_MULTIPLIERS = np.array([[0xD2511F53], [0xCD9E8D57]], np.uint64)
_INCREMENTS = np.array([[0x9E3779B9], [0xBB67AE85]], np.uint64)
_SCRAMBLING_KEY = np.array([[0x3EC8F720], [0x02461E29]], np.uint64)
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


def _blocks(even: tf.Tensor, odd: tf.Tensor, key: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Philox4x32-10 of N counters; uint64 tensors that hold 32 bits each.

    Args:
        even, odd: [2, N], words 0 and 2, and words 1 and 3, of the counters.
        key: [2, N] or [2, 1].

    Returns:
        (words 0 and 2, words 1 and 3) of the blocks, [2, N] each.
    """
    for number in range(_ROUNDS):
        round_key = tf.bitwise.bitwise_and(key + np.uint64(number) * _INCREMENTS, _LOW)
        products = tf.reverse(even * _MULTIPLIERS, [0])
        even = tf.bitwise.bitwise_xor(tf.bitwise.bitwise_xor(tf.bitwise.right_shift(products, _HALF), odd), round_key)
        odd = tf.bitwise.bitwise_and(products, _LOW)
    return even, odd


def _scrambled(seeds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The keys [2, N], and words 2 and 3 of the first counters [2, N] (words 0 and 1 are 0), of seeds int32 [N, 2]; uint64."""
    wide = tf.transpose(tf.cast(tf.cast(seeds, tf.int64), tf.uint64))  # through int64: negative seeds keep their sign's bits
    even, odd = _blocks(tf.bitwise.bitwise_and(wide, _LOW), tf.bitwise.right_shift(wide, _HALF), _SCRAMBLING_KEY)
    return tf.stack([even[0], odd[0]]), tf.stack([even[1], odd[1]])


def _joined(low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
    return tf.bitwise.bitwise_or(low, tf.bitwise.left_shift(high, _HALF))


# Functions of their own, so that they are traced once in a process, not in each draw.
@tf.function(
    input_signature=[tf.TensorSpec([None, 2], tf.int32), tf.TensorSpec([], tf.int32)], autograph=False, reduce_retracing=True
)
def fold_rows(seeds: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    """`stateless_fold_in(seed, number)` of each of N seeds.

    Args:
        seeds: int32 [N, 2].
        number: int32 scalar.

    Returns:
        int32 [N, 2].
    """
    with tf.device(DEVICE):
        key, high = _scrambled(seeds)
        low = tf.zeros_like(high)
        even, _ = _blocks(tf.stack([low[0], high[0]]), tf.stack([low[1], high[1]]), key)
        words = tf.bitcast(tf.cast(even[0], tf.uint32), tf.int32)
        return tf.stack([words, tf.fill(tf.shape(words), number)], axis=1)


@tf.function(input_signature=[tf.TensorSpec([None, 2], tf.int32)], autograph=False, reduce_retracing=True)
def keys_and_counters(seeds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """What `StatelessRandomGetKeyCounter` gives for each of N seeds int32 [N, 2]: keys uint64 [N, 1], counters uint64 [N, 2]."""
    with tf.device(DEVICE):
        key, high = _scrambled(seeds)
        counter = _joined(high[0], high[1])
        return _joined(key[0], key[1])[:, tf.newaxis], tf.stack([tf.zeros_like(counter), counter], axis=1)


def key_and_counter(seed: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Key uint64 [1] and counter uint64 [2] of one seed int32 [2].

    Not by `StatelessRandomGetKeyCounter`, which under XLA gives those of another generator.
    """
    seed = tf.convert_to_tensor(seed, tf.int32)
    mixed = tf.cast(words((4,), _joined(*tf.unstack(tf.constant(_SCRAMBLING_KEY))), tf.cast(seed, tf.uint64)), tf.uint64)
    return _joined(mixed[:1], mixed[1:2]), tf.concat([tf.zeros(1, tf.uint64), _joined(mixed[2:3], mixed[3:])], axis=0)


def words(shape: tuple[int, ...], key: tf.Tensor, counter: tf.Tensor) -> tf.Tensor:
    """The words uint32 [*shape] that begin with those of a counter: key uint64 [1], counter uint64 [2]."""
    result = tf.raw_ops.StatelessRandomUniformFullIntV2(shape=shape, key=key, counter=counter, alg=1, dtype=tf.uint32)
    result.set_shape(shape)
    return result


def words_from(first: Any, shape: tuple[int, ...], key: tf.Tensor, counter: tf.Tensor) -> tf.Tensor:
    """The words uint32 [*shape] that begin with word number `first`, an int scalar (tensor allowed), of those of a counter.

    Words before `first` are not drawn, but for those of its own block.
    """
    first, size = tf.cast(first, tf.int64), math.prod(shape)
    count, skipped = first // WORDS_PER_COUNT, first % WORDS_PER_COUNT
    # The upper half of a counter of a seed has not begun to count: the lower one starts at 0 and has 64 bits.
    moved = counter + tf.stack([tf.cast(count, tf.uint64), tf.constant(0, tf.uint64)])
    drawn = words((size + WORDS_PER_COUNT - 1,), key, moved)
    return tf.reshape(tf.slice(drawn, [skipped], [size]), shape)
