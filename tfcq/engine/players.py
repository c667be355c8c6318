"""Players: the networks that are trained together, the losses they minimise, and the variables that get the gradients."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf


@dataclasses.dataclass
class Terms:
    """The values that the loss of an objective returns.

    Attributes:
        total: float32 [N], nats: the loss to be minimised.
        logs: {name: float32 [N] or scalar} of the player; TensorBoard shows their batch means as "player/name".
        measures: the same, but of the model rather than of a player. They are logged without the player's name: validation
            logs the same quantity under the same name, so both are in one chart.
    """

    total: tf.Tensor
    logs: dict[str, Any]
    measures: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class BalanceWarning:
    """A warning that the players have lost their balance.

    Attributes:
        kind: the name of the problem, the same as long as the problem lasts, whatever the numbers are.
        text: a sentence with the numbers, which names the option that would help.
    """

    kind: str
    text: str


@dataclasses.dataclass(frozen=True)
class Objective:
    """A loss and the variables that its gradient trains.

    Attributes:
        loss: function (images uint8 [N, H, W, C], noise, shared) -> Terms; `shared` is the result of the model's
            `shared_tensors`. If the model `needs_indices`, `images` is a pair: the images, and their numbers in the train
            split, int64 [N]; if it has `class_names`, the images and their classes, int32 [N].
        variables: Keras variables of the player. A loss may pass through other networks without training them.
    """

    loss: Callable[..., Terms]
    variables: list[keras.Variable]


@dataclasses.dataclass(frozen=True)
class OptimizerGroup:
    """Variables of a player that an optimizer of their own updates, by the same gradients.

    Attributes:
        name: the name of the optimizer, also in logs.
        variables: Keras variables of the player.
        asked_by: the option with its value that asks for it, for errors.
        learning_rate: the learning rate, which follows the run's schedule and drops; None: the player's.
        betas: the decays of the first and the second moment; None: the run's.
    """

    name: str
    variables: list[keras.Variable]
    asked_by: str
    learning_rate: float | None = None
    betas: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True)
class Player:
    """One or several networks that are trained together, by one optimizer or by one for each group of variables.

    Attributes:
        name: the name in logs, and of the optimizer of all variables that are in no group.
        objectives: the losses; their gradients are added.
        turns: updates in each step.
        stage: the stage of training in which it takes part; see `Trainer.stage_starts`.
        uses_shared_tensors: whether its losses use `Trainer.shared_tensors`, which are computed only in stages with such a
            player.
        groups: the variables that have optimizers of their own.
    """

    name: str
    objectives: list[Objective]
    turns: int = 1
    stage: int = 0
    uses_shared_tensors: bool = True
    groups: tuple[OptimizerGroup, ...] = ()

    @property
    def variables(self) -> list[keras.Variable]:
        """The variables of all objectives, each once, in the objectives' order."""
        return list(
            {id(variable): variable for objective in self.objectives for variable in objective.variables}.values()
        )

    def optimized(self) -> dict[str, list[keras.Variable]]:
        """{name of an optimizer: the variables that it updates}; together they are `variables`."""
        own = {id(variable) for group in self.groups for variable in group.variables}
        others = [variable for variable in self.variables if id(variable) not in own]
        return ({self.name: others} if others else {}) | {group.name: group.variables for group in self.groups}
