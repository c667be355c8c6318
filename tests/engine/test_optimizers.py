"""Learning rates against their closed forms, and whose optimizer has which."""

import math

import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny

from tfcq.config import TrainingConfig
from tfcq.engine.optimizers import LearningRate, compile_model
from tfcq.errors import UserError


@pytest.mark.parametrize("shape", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 4])
def test_learning_rates_meet_the_closed_form(shape, warmup):
    schedule = LearningRate(0.1, 24, warmup, shape)
    for step in range(30):
        rise = min(1.0, (step + 1) / (warmup + 1))
        done = min(max(step - warmup, 0) / (24 - warmup), 1.0)
        fall = {"constant": 1.0, "linear": 1.0 - done, "cosine": math.cos(math.pi * done / 2) ** 2}[shape]
        assert float(schedule(step)) == pytest.approx(0.1 * rise * fall, abs=1e-8), step
    assert LearningRate(**schedule.get_config())(7) == schedule(7)


def test_learning_rates_drop_at_their_shares_of_the_steps():
    schedule = LearningRate(0.1, 20, 0, "constant", *TrainingConfig(learning_rate_drops="0.5:0.5,0.75:0.2").drops())
    rates = [float(schedule(step)) for step in range(22)]
    np.testing.assert_allclose(rates, [0.1] * 10 + [0.05] * 5 + [0.01] * 7, rtol=1e-6)
    assert LearningRate(**schedule.get_config())(17) == schedule(17)


def test_an_exponential_rate_falls_to_its_floor():
    schedule = LearningRate(2e-3, 10**9, 3, "exponential", decay=0.999, floor=1e-4)
    for step in (3, 4, 100, 2000, 2998, 5000, 10**6):
        assert float(schedule(step)) == pytest.approx(max(2e-3 * 0.999 ** (step - 3), 1e-4), rel=1e-4)
    assert float(schedule(0)) == pytest.approx(2e-3 / 4)
    slow = LearningRate(2e-3, 10**9, 0, "exponential", decay=0.999999)
    assert float(slow(2_000_000)) == pytest.approx(2e-3 * 0.999999**2_000_000, rel=1e-3)


@pytest.mark.parametrize("shape", ["constant", "linear", "cosine"])
def test_a_stage_that_is_over_before_the_warm_up_still_has_a_rate(shape):
    schedule = LearningRate(0.1, 5, 9, shape)
    rates = [float(schedule(step)) for step in range(5)]
    np.testing.assert_allclose(rates, [0.01 * (step + 1) for step in range(5)], rtol=1e-5)
    assert 0.0 <= float(LearningRate(0.1, 5, 5, shape)(4)) <= 0.1


def test_each_stage_may_have_drops_of_its_own():
    def rates(drops, model="two_stage_vae", **options):
        built = tiny.build(tiny.config(8, model=model, **options))
        compile_model(built, TrainingConfig(train_steps=12, optimizer="adam", learning_rate=0.1, learning_rate_drops=drops))
        found = {}
        for name, optimizer in built.player_optimizers.items():
            optimizer.iterations.assign(5)
            found[name] = round(float(tf.convert_to_tensor(optimizer.learning_rate)), 6)
        return found

    stages = {"first_stage_steps": 4}  # and 8
    assert rates("0.5:0.5", **stages) == {"autoencoder": 0.05, "second_stage": 0.05}
    assert rates("0.9:0.1", **stages) == {"autoencoder": 0.01, "second_stage": 0.1}
    assert rates("/0.5:0.5", **stages) == {"autoencoder": 0.1, "second_stage": 0.05}
    assert rates("0.5:0.5/", **stages) == {"autoencoder": 0.05, "second_stage": 0.1}
    with pytest.raises(UserError, match=r"one for each of the 1 stage\(s\) of vae .* received 2: '/0.5:0.5'"):
        rates("/0.5:0.5", model="vae")
