"""Rows shared between replicas."""

import numpy as np
import pytest
import tensorflow as tf

from tfcq.evaluation.streaming import Sharded

SIGNATURE = (tf.TensorSpec((None, 2), tf.float32), tf.TensorSpec((None,), tf.float32))


def rows(count):
    random = np.random.RandomState(count)
    return random.randn(count, 2).astype(np.float32), random.randn(count).astype(np.float32)


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_replicas_share_the_rows_and_keep_their_order(two_replicas, count):
    seen = []

    def function(matrix, vector):
        seen.append(tf.distribute.get_replica_context().replica_id_in_sync_group)
        return matrix * 2.0, tf.reduce_sum(matrix, axis=1) + vector

    matrix, vector = rows(count)
    doubled, sums = Sharded(function, SIGNATURE, two_replicas)(matrix, vector)
    np.testing.assert_array_equal(doubled, matrix * 2.0)
    np.testing.assert_allclose(sums, matrix.sum(axis=1) + vector, rtol=1e-6)
    assert len(seen) == 2  # each replica traced its share


def test_each_replica_has_its_part_of_the_rows(two_replicas):
    sizes = Sharded(lambda matrix, vector: tf.fill(tf.shape(vector), tf.shape(vector)[0]), SIGNATURE, two_replicas)
    np.testing.assert_array_equal(sizes(*rows(7)), [4] * 7)
    alone = Sharded(lambda matrix, vector: tf.fill(tf.shape(vector), tf.shape(vector)[0]), SIGNATURE)
    np.testing.assert_array_equal(alone(*rows(7)), [7] * 7)


def test_one_trace_serves_every_number_of_rows():
    traces = []

    def function(matrix, vector):
        traces.append(1)
        return vector

    sharded = Sharded(function, SIGNATURE)
    for count in (3, 1, 9):
        matrix, vector = rows(count)
        np.testing.assert_array_equal(sharded(matrix, vector), vector)
    assert len(traces) == 1
