"""A function of rows, compiled, and divided among devices."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf


class Sharded:
    """A function of rows, compiled once; each replica computes it for a part of the rows.

    The result of a row must not depend on other rows: the rows are padded to a multiple of the replicas by repeating the
    last one, and the surplus is dropped.

    Args:
        function: tensors [N, ...] -> a tensor [N, ...] or a tuple of them.
        signature: a `tf.TensorSpec` with an open first dimension for each argument.
        strategy: the strategy in whose scope the function's variables were made; None: the current one.
    """

    def __init__(
        self, function: Callable[..., Any], signature: Sequence[tf.TensorSpec], strategy: tf.distribute.Strategy | None = None
    ) -> None:
        self._strategy = strategy or tf.distribute.get_strategy()
        self._replicas = self._strategy.num_replicas_in_sync
        if self._replicas == 1:
            self._compiled = tf.function(function, input_signature=signature, autograph=False)
            return

        def own_part(*arrays):
            # Every replica gets all rows and takes its own: per-replica values made outside would be traced for each size.
            number = tf.distribute.get_replica_context().replica_id_in_sync_group
            count = tf.shape(arrays[0])[0] // self._replicas
            return function(*(array[number * count : (number + 1) * count] for array in arrays))

        def gathered(*arrays):
            return tf.nest.map_structure(
                lambda parts: tf.concat(self._strategy.experimental_local_results(parts), axis=0),
                self._strategy.run(own_part, args=arrays),
            )

        self._compiled = tf.function(gathered, input_signature=signature, autograph=False)

    def __call__(self, *arrays: np.ndarray) -> Any:
        """NumPy results, [N, ...] each, of arrays [N, ...]."""
        count = len(arrays[0])
        surplus = -count % self._replicas
        if surplus:
            arrays = tuple(np.concatenate([array, np.repeat(array[-1:], surplus, axis=0)]) for array in arrays)
        return tf.nest.map_structure(lambda rows: rows.numpy()[:count], self._compiled(*arrays))
