"""What a system says of who is trained: players, what each of them minimises, and which variables may feel it."""

import dataclasses
from collections.abc import Callable

import tensorflow as tf


@dataclasses.dataclass
class Terms:
    """What an objective returns.

    Attributes:
        total: float32 [N], nats; what is minimised.
        logs: {name: float32 [N] or scalar}, of the player; TensorBoard has their batch means as "player/name".
        measures: the same, of the model and no player: logged under these names alone, which are those of a validation of the
            same quantity, so that both are in one chart.
    """

    total: tf.Tensor
    logs: dict
    measures: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class BalanceWarning:
    """That players have lost their balance.

    Attributes:
        kind: what is wrong, a name: the same as long as the same is wrong, whatever the numbers are.
        text: a sentence with the numbers, which names the option that would help.
    """

    kind: str
    text: str


@dataclasses.dataclass(frozen=True)
class Objective:
    """A loss and the variables whose gradient it gives.

    Attributes:
        loss: function (images uint8 [N, H, W, C], noise, shared) -> Terms; `shared` is what the model's `share` gave. With
            `needs_indices` of the model `images` is a pair: the images, and int64 [N], their numbers in the train split.
        variables: Keras variables, each one of the player's.
    """

    loss: Callable
    variables: list


@dataclasses.dataclass(frozen=True)
class Player:
    """Who is trained.

    Attributes:
        name: for logs and optimizer.
        objectives: list of Objective; their gradients add up.
        turns: in each step.
        stage: of training, in which it plays; see `GenerativeModel.stage_starts`.
        shares: whether its losses look at what `GenerativeModel.share` gives; where no player of a stage does, nothing is made.
    """

    name: str
    objectives: list
    turns: int = 1
    stage: int = 0
    shares: bool = True

    @property
    def variables(self):
        """Each variable of the objectives once, in their order."""
        return list(
            {id(variable): variable for objective in self.objectives for variable in objective.variables}.values()
        )
