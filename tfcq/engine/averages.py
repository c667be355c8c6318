"""A running mean of the weights, which is evaluated and exported instead of the weights.

Kingma et al. 2016 (inverse autoregressive flow) evaluate such a mean with decay 0.999. After t updates the decay is at most
(1 + t) / (10 + t), so that the untrained first weights are soon forgotten (as in tf.train.ExponentialMovingAverage).
The moving statistics of batch normalisation are not averaged: they remain those of the current weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import keras
import tensorflow as tf


class WeightAverages(tf.Module):
    """Running means of `variables`. Create it under the strategy's scope that the variables were created under.

    Args:
        variables: Keras variables.
        decay: float in (0, 1).
    """

    def __init__(self, variables: Iterable[keras.Variable], decay: float = 0.999):
        super().__init__(name="averages")
        self._variables = self._no_dependency(list(variables))
        self._decay = decay
        self.values = [
            tf.Variable(
                tf.convert_to_tensor(variable),
                trainable=False,
                name=variable.path.replace("/", "_"),
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )
            for variable in self._variables
        ]

    def update(self, num_updates: tf.Tensor) -> None:
        """Moves the means one step towards the variables' values.

        Args:
            num_updates: int scalar, the number of updates so far, including this one.
        """
        done = tf.cast(num_updates, tf.float32)
        rest = 1.0 - tf.minimum(self._decay, done / (9.0 + done))
        for average, variable in zip(self.values, self._variables, strict=True):
            average.assign(average + rest * (tf.convert_to_tensor(variable) - average))

    def restart(self) -> None:
        """Sets the means to the variables' values."""
        for average, variable in zip(self.values, self._variables, strict=True):
            average.assign(tf.convert_to_tensor(variable))

    def assign_to_variables(self) -> None:
        """Sets the variables to the means."""
        for average, variable in zip(self.values, self._variables, strict=True):
            variable.assign(tf.convert_to_tensor(average))

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """A context in which the variables have the means' values; afterwards they have their own again."""
        own = [tf.identity(tf.convert_to_tensor(variable)) for variable in self._variables]
        self.assign_to_variables()
        try:
            yield
        finally:
            for variable, value in zip(self._variables, own, strict=True):
                variable.assign(value)
