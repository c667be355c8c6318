"""Rows through a function, batch by batch, shared between devices."""

import numpy as np
import tensorflow as tf


class Sharded:
    """A function of rows, compiled once, of which each replica computes a share.

    The result of a row must not depend on the rows beside it: the rows are made up to a multiple of the replicas by
    repeating the last, and the surplus is dropped.

    Args:
        function: tensors [N, ...] -> a tensor [N, ...] or a tuple of them.
        signature: a `tf.TensorSpec` with an open first dimension for each argument.
        strategy: of whose scope the function's variables are; None: the present one.
    """

    def __init__(self, function, signature, strategy=None):
        self._strategy = strategy or tf.distribute.get_strategy()
        self._replicas = self._strategy.num_replicas_in_sync
        if self._replicas == 1:
            self._compiled = tf.function(function, input_signature=signature, autograph=False)
            return

        def share(*arrays):
            # Every replica gets all rows and takes its own: values made outside would be traced anew for each size.
            number = tf.distribute.get_replica_context().replica_id_in_sync_group
            count = tf.shape(arrays[0])[0] // self._replicas
            return function(*(array[number * count : (number + 1) * count] for array in arrays))

        def gathered(*arrays):
            return tf.nest.map_structure(
                lambda shares: tf.concat(self._strategy.experimental_local_results(shares), axis=0),
                self._strategy.run(share, args=arrays),
            )

        self._compiled = tf.function(gathered, input_signature=signature, autograph=False)

    def __call__(self, *arrays):
        """NumPy results, [N, ...] each, of arrays [N, ...]."""
        count = len(arrays[0])
        surplus = -count % self._replicas
        if surplus:
            arrays = [np.concatenate([array, np.repeat(array[-1:], surplus, axis=0)]) for array in arrays]
        return tf.nest.map_structure(lambda rows: rows.numpy()[:count], self._compiled(*arrays))
