"""Philox: published words of the generator, and TensorFlow's own operations, seed by seed."""

import numpy as np
import pytest
import tensorflow as tf

from tfcq import philox

SEEDS = np.array([[0, 0], [7, 5], [-1, 2**31 - 1], [-(2**31), -5], [123456789, -987654321]], np.int32)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # known answers of its authors' library, Random123
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_blocks_are_those_of_its_authors(counter, key, words):
    first, second, third, fourth = (tf.constant([word], tf.uint64) for word in counter)
    keys = tf.constant([[word] for word in key], tf.uint64)
    even, odd = philox._blocks(tf.stack([first, third]), tf.stack([second, fourth]), keys)
    assert [int(part[0]) for part in (even[0], odd[0], even[1], odd[1])] == list(words)


@pytest.mark.parametrize("number", [0, 3, -4, 2**31 - 1])
def test_rows_are_folded_as_tensorflow_folds_one_seed(number):
    expected = [tf.random.experimental.stateless_fold_in(seed, number, alg="philox") for seed in SEEDS]
    np.testing.assert_array_equal(philox.fold_rows(SEEDS, number), expected)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_keys_and_counters_are_tensorflows(jit_compile):
    keys, counters = tf.function(philox.keys_and_counters, jit_compile=jit_compile)(tf.constant(SEEDS))
    one = tf.function(philox.key_and_counter, jit_compile=jit_compile)
    for seed, key, counter in zip(SEEDS, keys, counters):
        expected_key, expected_counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=seed)
        np.testing.assert_array_equal(key, expected_key)
        np.testing.assert_array_equal(counter, expected_counter)
        for received, expected in zip(one(tf.constant(seed)), (key, counter)):
            np.testing.assert_array_equal(received, expected)


@pytest.mark.parametrize("first", [0, 1, 2, 3, 4, 17, 4_000_000_000])
def test_words_from_the_middle_of_a_draw(first):
    place = philox.key_and_counter(SEEDS[1])
    if first < 100:
        expected = philox.words((first + 6,), *place)[first:]
    else:  # a counter may be moved on by more than fits int32
        key, counter = place
        expected = philox.words((6,), key, counter + tf.constant([first // 4, 0], tf.uint64))
    np.testing.assert_array_equal(tf.reshape(philox.words_from(first, (2, 3), *place), (-1,)), expected)
