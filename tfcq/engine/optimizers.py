"""The optimizers of a model's players and their learning-rate schedules, according to a TrainingConfig."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from tfcq.config.fields import suggestion
from tfcq.config.training import DECIDED_ELSEWHERE, TrainingConfig
from tfcq.engine.fused_optimizers import FUSED
from tfcq.errors import UserError

if TYPE_CHECKING:
    from tfcq.engine.players import Player
    from tfcq.engine.trainer import Trainer

_UNFIT = ("Optimizer", "LossScaleOptimizer", "MultiOptimizer", "ScheduleFreeAdamW")
"""The base class; two that wrap other optimizers; one whose weights in training must be swapped for an evaluation."""


def check_optimizer(training: TrainingConfig) -> None:
    """Tries the optimizer of a TrainingConfig on a variable of its own, outside of any strategy's scope.

    Call it once TensorFlow's devices are set up, and before long work.

    Raises:
        UserError: an optimizer that Keras does not have, an argument that the optimizer does not take, or a value that fails.
    """
    make = _maker(training)
    variable = keras.Variable(tf.ones((2, 2)))
    try:
        optimizer = make(training.learning_rate, name="tried")
        optimizer.build([variable])
        optimizer.apply([tf.ones((2, 2))], [variable])
    except (ValueError, TypeError, ArithmeticError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())[:200]
        given = f"optimizer={training.optimizer} with optimizer_arguments={training.optimizer_arguments!r}"
        raise UserError(f"{given}: Keras refuses it: {reason}") from error


def _maker(training: TrainingConfig) -> Callable[..., keras.optimizers.Optimizer]:
    """A function of the learning rate (and `name`) that makes the optimizer; UserError: see `check_optimizer`."""
    kinds = {
        name: kind
        for name, kind in vars(keras.optimizers).items()
        if inspect.isclass(kind) and issubclass(kind, keras.optimizers.Optimizer) and name not in _UNFIT
    }
    names = {name.lower(): kind for name, kind in kinds.items()}
    asked = training.optimizer.replace("_", "").lower()
    if asked not in names:
        raise UserError(
            f"optimizer: expected one of {', '.join(sorted(names))}, received {training.optimizer!r}{suggestion(asked, names)}"
        )
    parameters = inspect.signature(names[asked]).parameters
    taken = {name: one.default for name, one in parameters.items() if one.kind is not one.VAR_KEYWORD}
    given = training.arguments_of_optimizer()
    own = {name: _checked_argument(training.optimizer, name, value, taken) for name, value in given.items()}
    betas = {}
    for name in ("beta_1", "beta_2"):
        value = getattr(training, name)
        if name in taken:
            betas[name] = value
        elif value != type(training).__dataclass_fields__[name].default:
            raise UserError(f"{name}={value} with optimizer={training.optimizer}, which has no {name}: leave it out")
    return functools.partial(FUSED.get(names[asked], names[asked]), **betas, **own)


def _checked_argument(optimizer: str, name: str, value: Any, taken: Mapping[str, Any]) -> Any:
    """`value` for a constructor whose arguments are `taken`, {name: default}; UserError if it does not take such a value."""
    if name not in taken:
        free = [one for one in taken if one not in DECIDED_ELSEWHERE]
        raise UserError(
            f"optimizer_arguments: {optimizer} has no {name}; expected some of {', '.join(free)}{suggestion(name, free)}"
        )
    switch = isinstance(taken[name], bool)
    if isinstance(value, str) or isinstance(value, bool) != switch:
        expected = "true or false" if switch else "a number"
        raise UserError(f"optimizer_arguments: {name}: expected {expected}, received {value!r}")
    return float(value) if isinstance(taken[name], float) else value  # SGD refuses momentum=0, an int


def compile_model(model: Trainer, training: TrainingConfig) -> None:
    """Gives `model` the optimizers that a TrainingConfig describes. Call it under the strategy's scope.

    Raises:
        UserError: learning_rate_drops has neither one list nor one per stage of the model; or an error of `check_optimizer`.
    """
    drops = _drops(model, training)
    ends = [*model.stage_starts[1:], training.train_steps]
    lengths = [max(1, end - start) for start, end in zip(model.stage_starts, ends, strict=True)]
    optimizers = {
        name: _optimizer(training, player, name, lengths[player.stage], drops[player.stage])
        for player in model.players() for name in player.optimized()
    }
    model.compile(
        optimizers,
        jit_compile=training.jit_compile,
        clip_norm=training.clip_norm,
        ema_decay=training.ema_decay,
        micro_batches=training.micro_batches,
    )


def _drops(model: Trainer, training: TrainingConfig) -> list[list[tuple[float, float]]]:
    """`TrainingConfig.drops`, one list for each stage."""
    count, drops = len(model.stage_starts), training.drops()
    if len(drops) not in (1, count):
        raise UserError(
            f"learning_rate_drops: expected one list, or one for each of the {count} stage(s) of {model.name} as configured, "
            f"received {len(drops)}: {training.learning_rate_drops!r}"
        )
    return drops * count if len(drops) == 1 else drops


def _optimizer(
    training: TrainingConfig, player: Player, name: str, num_steps: int, drops: Iterable[tuple[float, ...]]
) -> keras.optimizers.Optimizer:
    """The optimizer `name` of a player whose stage has `num_steps` steps and these `drops` of the learning rate."""
    rate: Any = training.discriminator_learning_rate if player.name == "discriminator" else training.learning_rate
    group = next((group for group in player.groups if group.name == name), None)
    if group and group.learning_rate is not None:
        rate = group.learning_rate
    if training.learning_rate_schedule != "constant" or training.warmup_steps or drops:
        rate = LearningRate(*_course(training, rate, num_steps, drops, player.turns))
    if group and group.betas is not None:
        training = dataclasses.replace(training, beta_1=group.betas[0], beta_2=group.betas[1])
    try:
        return _maker(training)(rate, name=f"{name}_optimizer")
    except UserError as error:
        if group is None:
            raise
        raise UserError(f"{group.asked_by}: {error}") from error


def _course(
    training: TrainingConfig, rate: float, num_steps: int, drops: Iterable[tuple[float, ...]], turns: int = 1
) -> tuple[Any, ...]:
    """The arguments of `LearningRate`, in updates of the optimizer: it counts one for each turn of a step."""
    return (
        rate,
        num_steps * turns,
        training.warmup_steps * turns,
        training.learning_rate_schedule,
        drops,
        training.learning_rate_decay ** (1.0 / turns),
        training.learning_rate_floor,
    )


@keras.saving.register_keras_serializable("tfcq")
class LearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """A learning-rate schedule: linear warm-up from 0 over `warmup_steps` updates, then a course of the given shape.

    Args:
        rate: the learning rate after the warm-up.
        total_steps: updates in all.
        warmup_steps: updates of the warm-up.
        shape: "constant"; "linear" or "cosine", which fall to 0 at `total_steps`; "exponential", times `decay` each update.
        drops: (fraction, factor) each: from this fraction of `total_steps` on the rate is multiplied by the factor as well.
        decay: the factor of an exponential course.
        floor: neither a fall nor a drop takes the rate below this; the warm-up starts at 0 all the same.
    """

    def __init__(
        self,
        rate: float,
        total_steps: int,
        warmup_steps: int,
        shape: str,
        drops: Iterable[Iterable[float]] = (),
        decay: float = 1.0,
        floor: float = 0.0,
    ):
        self._arguments: dict[str, Any] = {
            "rate": rate,
            "total_steps": total_steps,
            "warmup_steps": warmup_steps,
            "shape": shape,
            "drops": [tuple(drop) for drop in drops],
            "decay": decay,
            "floor": floor,
        }

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        rate, total, warmup, shape, drops, decay, floor = self._arguments.values()
        step = tf.cast(step, tf.float32)
        rise = tf.minimum(1.0, (step + 1.0) / (warmup + 1.0))
        # A stage may end before its warm-up does.
        done = tf.clip_by_value((step - warmup) / max(total - warmup, 1), 0.0, 1.0)
        fall: Any = {
            "constant": 1.0,
            "linear": 1.0 - done,
            "cosine": 0.5 * (1.0 + tf.cos(math.pi * done)),
            "exponential": tf.exp(math.log(decay) * tf.maximum(step - warmup, 0.0)),
        }[shape]
        for fraction, factor in drops:
            fall *= tf.where(step >= fraction * total, factor, 1.0)
        return rise * tf.maximum(rate * fall, min(floor, rate))

    def get_config(self) -> dict[str, Any]:
        return dict(self._arguments)


def new_course(model: Trainer, before: TrainingConfig, training: TrainingConfig, step: int) -> str:
    """A line that reports how a changed train_steps changes the learning rate at `step`; '' if the rate is the same."""
    stage = len(model.stage_starts) - 1
    done = step - model.stage_starts[stage]
    if before.train_steps == training.train_steps or done <= 0:
        return ""
    rates = []
    for one in (before, training):
        length = max(1, one.train_steps - model.stage_starts[stage])
        rate = LearningRate(*_course(one, one.learning_rate, length, _drops(model, one)[stage]))
        rates.append(float(rate(done)))
    if rates[0] == rates[1]:
        return ""
    return (
        f"train_steps {before.train_steps} -> {training.train_steps}: the learning rates' course is now that of "
        f"{training.train_steps} steps; learning_rate at step {step}: {rates[0]:.4g} -> {rates[1]:.4g}"
    )
