"""Stages of training, numbered images, and the hooks around a step, on a model whose course is known by hand."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny

from tfcq.engine.players import Objective, Player, Terms
from tfcq.models.base import GenerativeModel

IMAGES = tiny.images((2, 2, 1), 4)


class Staged(GenerativeModel):
    """In stage k weight k falls by the learning rate each step; the mean of the images' numbers is logged."""

    needs_indices = True

    def __init__(self, starts):
        super().__init__((2, 2, 1), name="staged")
        self._starts, self.begun, self.fits, self.logs_at = starts, [], 0, {}
        weight = {"shape": (), "initializer": "zeros", "dtype": "float32"}
        self.weights_of = [self.add_weight(name=f"weight_{stage}", **weight) for stage in range(len(starts))]
        self.built = True

    @property
    def abilities(self):
        return frozenset({"sample"})

    @property
    def stage_starts(self):
        return self._starts

    def players(self):
        def loss(weight):
            def value(batch, noise, shared):
                images, numbers = batch
                return Terms(
                    tf.fill([images.shape[0]], weight.value), {"number": tf.cast(numbers, tf.float32)}
                )

            return value

        return [
            Player(f"player_{stage}", [Objective(loss(weight), [weight])], stage=stage)
            for stage, weight in enumerate(self.weights_of)
        ]

    def begin_step(self, step):
        self.begun.append((step, [float(weight.numpy()) for weight in self.weights_of]))
        return self.logs_at.get(step, {})

    def fit_to_data(self):
        self.fits += 1


def model_of(starts, strategy=None, **options):
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = Staged(starts)
        model.compile({player.name: keras.optimizers.SGD(1.0) for player in model.players()}, **options)
    return model


def values(model):
    return [float(weight.numpy()) for weight in model.weights_of]


def fit(model, steps):
    return tiny.fit(model, (IMAGES, np.array([3, 5, 5, 7])), steps)


@pytest.mark.parametrize("replicas", [1, 2])
def test_each_stage_moves_its_own_players(replicas, request):
    model = model_of((0, 2, 5), request.getfixturevalue("two_replicas") if replicas == 2 else None)
    rows = fit(model, 6)
    assert values(model) == [-2.0, -3.0, -1.0]
    assert [sorted({name.split("/")[0] for name in row}) for row in rows] == [
        [f"player_{stage}"] for stage in (0, 0, 1, 1, 1, 2)
    ]
    assert all(row[f"player_{stage}/number"] == 5.0 for row, stage in zip(rows, (0, 0, 1, 1, 1, 2)))


def test_a_later_fit_goes_on_in_the_stage_that_the_steps_tell():
    model = model_of((0, 2))
    for steps, expected in ((1, [-1.0, 0.0]), (2, [-2.0, -1.0]), (1, [-2.0, -2.0])):
        fit(model, steps)
        assert values(model) == expected
    model.step.assign(0)
    fit(model, 1)
    assert values(model) == [-3.0, -2.0]


def test_begin_step_comes_before_each_step_with_its_number():
    model = model_of((0, 1))
    model.logs_at[1] = {"player_0/begun": 1.0}
    rows = fit(model, 3)
    assert model.begun == [(0, [0.0, 0.0]), (1, [-1.0, 0.0]), (2, [-1.0, -1.0])]
    assert [row.get("player_0/begun") for row in rows] == [None, 1.0, None]  # it is logged with that step alone


def test_settling_is_once_a_step_and_with_the_weights_that_are_served():
    model = model_of((0,), ema_decay=0.5)
    seen = []
    model.fit_to_data = lambda: seen.append(values(model)[0])
    fit(model, 1)
    model.settle()
    assert len(seen) == 1 and seen[0] == float(model.averages.values[0].numpy()) != values(model)[0]
    fit(model, 1)
    assert len(seen) == 2


@pytest.mark.parametrize(("starts", "expected"), [((0,), [0, 0, 0, 0]), ((0, 2), [0, 0, 1, 1]), ((0, 1, 3), [0, 1, 1, 2])])
def test_stage_at(starts, expected):
    assert [model_of(starts).stage_at(step) for step in range(4)] == expected
