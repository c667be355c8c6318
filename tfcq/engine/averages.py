"""A running mean of the weights, which is evaluated and exported instead of the weights.

Kingma et al. 2016 (inverse autoregressive flow) evaluate such a mean with decay 0.999. After t updates the decay is at most
(1 + t) / (10 + t), so that the untrained first weights are soon forgotten (as in tf.train.ExponentialMovingAverage).
The moving statistics of batch normalisation have a running mean too: the current ones belong to the current weights, and
normalising the features of the averaged weights by them makes samples dimmer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import keras
import tensorflow as tf


class WeightAverages(tf.Module):
    """Running means of `variables`. Create it under the strategy's scope that the variables were created under.

    Args:
        variables: Keras variables: the weights.
        decay: float in (0, 1).
        statistics: Keras variables: the moving statistics of batch normalisation.

    Attributes:
        values: the running means of `variables`.
        statistics: those of `statistics`.
    """

    def __init__(
        self, variables: Iterable[keras.Variable], decay: float = 0.999, statistics: Iterable[keras.Variable] = ()
    ):
        super().__init__(name="averages")
        self._decay = decay
        variables, statistics = list(variables), list(statistics)
        self.values = [_copy(variable) for variable in variables]
        self.statistics = [_copy(variable) for variable in statistics]
        means = [*self.values, *self.statistics]
        self._pairs = self._no_dependency(list(zip(means, [*variables, *statistics], strict=True)))

    def update(self, num_updates: tf.Tensor) -> None:
        """Moves the means one step towards the variables' values.

        Args:
            num_updates: int scalar, the number of updates so far, including this one.
        """
        done = tf.cast(num_updates, tf.float32)
        rest = 1.0 - tf.minimum(self._decay, done / (9.0 + done))
        for average, variable in self._pairs:
            average.assign(average + rest * (tf.convert_to_tensor(variable) - average))

    def restart(self) -> None:
        """Sets the means to the variables' values."""
        for average, variable in self._pairs:
            average.assign(tf.convert_to_tensor(variable))

    def assign_to_variables(self) -> None:
        """Sets the variables to the means."""
        for average, variable in self._pairs:
            variable.assign(tf.convert_to_tensor(average))

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """A context in which the variables have the means' values; afterwards they have their own again."""
        own = [tf.identity(tf.convert_to_tensor(variable)) for _, variable in self._pairs]
        self.assign_to_variables()
        try:
            yield
        finally:
            for (_, variable), value in zip(self._pairs, own, strict=True):
                variable.assign(value)

    @contextlib.contextmanager
    def in_checkpoint(self, path: str) -> Iterator[None]:
        """A context for restoring the checkpoint `path`; one of an earlier version has no means of the statistics.

        The means then start at the statistics that were restored.
        """
        statistics = list(self.statistics)
        known = any(f"{STATISTICS}/0/" in name for name, _ in tf.train.list_variables(path))
        if known or not statistics:
            yield
            return
        del self.statistics  # no object of the model that the checkpoint would have to have
        try:
            yield
        finally:
            self.statistics = statistics
        for average, variable in self._pairs[len(self.values) :]:
            average.assign(tf.convert_to_tensor(variable))


STATISTICS = "averages/statistics"
"""How the names of the means of the statistics begin in a checkpoint, after the model's."""


def _copy(variable):
    return tf.Variable(
        tf.convert_to_tensor(variable),
        trainable=False,
        name=variable.path.replace("/", "_"),
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )
