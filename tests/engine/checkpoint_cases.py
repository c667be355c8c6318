"""Small models with their optimizers, filled with known values, for tests of checkpoints."""

import keras
import numpy as np
import pytest
import tiny_models

from tfcq.errors import UserError

SMALL = tiny_models.ROWS["gan"]  # two players and no flow: quick to build


def build(seed=0, compiled=True, **system):
    """An 8x8 model, and its optimizers; their weights depend on `seed`."""
    model = tiny_models.build(tiny_models.config(8, training={"seed": seed}, **(system or SMALL)))
    return compile_model(model, 0.1 * (seed + 1)) if compiled else model


def compile_model(model, learning_rate):
    model.compile({player.name: keras.optimizers.Adam(learning_rate, name=player.name) for player in model.players()})
    return model


def variables(model):
    optimizers = [optimizer.variables for optimizer in model.player_optimizers.values()]
    return [*model.variables, *(variable for of_one in optimizers for variable in of_one)]


def values(model):
    return [np.asarray(variable.value.numpy()) for variable in variables(model)]


def fill(model, step, seed):
    """Gives every variable, slots and statistics too, values of its own; returns them."""
    random = np.random.default_rng(seed)
    for variable in variables(model):
        is_float = "float" in str(variable.dtype)
        new = random.normal(size=variable.shape) if is_float else random.integers(1, 10**6, variable.shape)
        variable.assign(new.astype(str(variable.dtype)))
    model.step.assign(step)
    return values(model)


def assert_holds(model, expected):
    for variable, value, wanted in zip(variables(model), values(model), expected, strict=True):
        assert value.dtype == wanted.dtype and value.tobytes() == wanted.tobytes(), variable.path


def steps_in(workdir, kind="last"):
    return sorted(int(path.stem.removeprefix("step-")) for path in (workdir / "checkpoints" / kind).glob("*.index"))


def message_of(call, *arguments):
    with pytest.raises(UserError) as raised:
        call(*arguments)
    assert "\n" not in str(raised.value)
    return str(raised.value)
