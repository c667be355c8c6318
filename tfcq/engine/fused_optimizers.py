"""Adam, AdamW and Adamax of Keras whose update of a variable is one operation instead of a chain of twenty.

They have the arguments, variables and names of Keras's classes, so that a checkpoint of one is a checkpoint of the other.
In a network of many variables the chains are most of a step's graph, and the time to the first step grows with the graph.
AMSGrad, and variables that are not float32, go by Keras's chain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf


class _Scalars(NamedTuple):
    """What the updates of all variables need, float32: computed once."""

    learning_rate: tf.Tensor
    beta_1: tf.Tensor
    beta_2: tf.Tensor
    epsilon: tf.Tensor
    beta_1_power: tf.Tensor
    beta_2_power: tf.Tensor


class _Fused:
    """Overrides how one of Keras's optimizers updates a variable, where TensorFlow has an operation for it."""

    beta_1: float
    beta_2: float
    epsilon: float
    amsgrad = False
    iterations: Any
    _get_variable_index: Callable[[tf.Variable], int]

    def _backend_update_step(
        self, grads: Sequence[tf.Tensor], trainable_variables: Sequence[Any], learning_rate: Any
    ) -> None:
        # Keras hands the learning rate on to each replica's `update_step`, and so the other scalars with it.
        dtypes = {keras.backend.standardize_dtype(variable.dtype) for variable in trainable_variables}
        if dtypes == {"float32"} and not self.amsgrad:
            step = tf.cast(self.iterations + 1, tf.float32)
            numbers = [tf.constant(value, tf.float32) for value in (self.beta_1, self.beta_2, self.epsilon)]
            powers = [tf.pow(beta, step) for beta in numbers[:2]]
            learning_rate = _Scalars(tf.cast(learning_rate, tf.float32), *numbers, *powers)
        super()._backend_update_step(grads, trainable_variables, learning_rate)  # type: ignore[misc]

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: Any) -> None:
        """Updates a variable, on its replica; by Keras's own chain if `learning_rate` is no `_Scalars`."""
        if isinstance(learning_rate, _Scalars):
            self._update(variable, tf.cast(tf.convert_to_tensor(gradient), tf.float32), learning_rate)
        else:
            super().update_step(gradient, variable, learning_rate)  # type: ignore[misc]

    def _update(self, variable: tf.Variable, gradient: tf.Tensor, scalars: _Scalars) -> None:
        raise NotImplementedError


class _FusedAdam(_Fused):
    _momentums: list[Any]
    _velocities: list[Any]

    def _update(self, variable: tf.Variable, gradient: tf.Tensor, scalars: _Scalars) -> None:
        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=scalars.beta_1_power,
            beta2_power=scalars.beta_2_power,
            lr=scalars.learning_rate,
            beta1=scalars.beta_1,
            beta2=scalars.beta_2,
            epsilon=scalars.epsilon,
            grad=gradient,
        )


class Adam(_FusedAdam, keras.optimizers.Adam):
    """Keras's Adam."""


class AdamW(_FusedAdam, keras.optimizers.AdamW):
    """Keras's AdamW."""


class Adamax(_Fused, keras.optimizers.Adamax):
    """Keras's Adamax."""

    _m: list[Any]
    _u: list[Any]

    def _update(self, variable: tf.Variable, gradient: tf.Tensor, scalars: _Scalars) -> None:
        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyAdaMax(
            var=variable.handle,
            m=self._m[index].value.handle,
            v=self._u[index].value.handle,
            beta1_power=scalars.beta_1_power,
            lr=scalars.learning_rate,
            beta1=scalars.beta_1,
            beta2=scalars.beta_2,
            epsilon=scalars.epsilon,
            grad=gradient,
        )


FUSED: dict[Any, Any] = {
    keras.optimizers.Adam: Adam,
    keras.optimizers.AdamW: AdamW,
    keras.optimizers.Adamax: Adamax,
}
"""{Keras's class: the same with fused updates}."""


def use_gradients_as_they_are(optimizer: keras.optimizers.Optimizer) -> None:
    """Makes an optimizer apply each replica's gradients without summing them over the replicas.

    Keras always sums them, in an operation for each variable. A training step sums them first, for their norm; another sum would
    send every gradient between the machines twice.
    """
    for one in (optimizer, getattr(optimizer, "inner_optimizer", None)):
        if one is not None:
            one._all_reduce_sum_gradients = lambda grads_and_vars: grads_and_vars
