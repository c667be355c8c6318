"""A running mean of weights, which is evaluated and exported in place of the weights themselves.

Kingma et al. 2016 (inverse autoregressive flow) evaluate such a mean with decay 0.999. With t updates done the decay is at most
(1 + t) / (10 + t), so that the first weights, which mean nothing, are soon forgotten (as in tf.train.ExponentialMovingAverage).
Moving statistics of batch normalisations are not weights: they stay those of the weights themselves.
"""

import contextlib

import tensorflow as tf


class WeightAverages(tf.Module):
    """Running means of `variables`; make it where these were made, under the same strategy's scope.

    Args:
        variables: Keras variables.
        decay: float in (0, 1).
    """

    def __init__(self, variables, decay=0.999):
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

    def update(self, num_updates):
        """One step towards the variables' values; `num_updates` (int scalar): how many were done, this one included."""
        done = tf.cast(num_updates, tf.float32)
        rest = 1.0 - tf.minimum(self._decay, done / (9.0 + done))
        for average, variable in zip(self.values, self._variables, strict=True):
            average.assign(average + rest * (tf.convert_to_tensor(variable) - average))

    def restart(self):
        """The means take the variables' values."""
        for average, variable in zip(self.values, self._variables, strict=True):
            average.assign(tf.convert_to_tensor(variable))

    def assign_to_variables(self):
        """The variables take the means' values."""
        for average, variable in zip(self.values, self._variables, strict=True):
            variable.assign(tf.convert_to_tensor(average))

    @contextlib.contextmanager
    def in_place(self):
        """Within, the variables have the means' values; after it, their own again."""
        own = [tf.identity(tf.convert_to_tensor(variable)) for variable in self._variables]
        self.assign_to_variables()
        try:
            yield
        finally:
            for variable, value in zip(self._variables, own, strict=True):
                variable.assign(value)
