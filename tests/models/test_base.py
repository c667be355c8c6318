"""The one train_step, on a model whose losses and gradients are known by hand."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny

from tfcq.endpoints import ENDPOINTS
from tfcq.engine.players import Objective, OptimizerGroup, Player, Terms
from tfcq.errors import UserError
from tfcq.models.base import GenerativeModel
from tfcq.randomness import StepNoise

IMAGES = tiny.images((2, 2, 1), 8)
SECOND = tiny.images((2, 2, 1), 8, seed=1)


class Toy(GenerativeModel):
    """A critic c with loss c m, and a maker with the losses 2 w m, which trains w, and v + w n m, which trains v and w.

    m is the mean of an image / 100, n noise where `noisy`, else 1. `factor` multiplies the maker's losses.
    """

    def __init__(self, turns=1, noisy=False):
        super().__init__((2, 2, 1), seed=3, name="toy")
        self.turns, self.noisy, self.initialized_with = turns, noisy, None
        weight = {"shape": (), "initializer": "ones", "dtype": "float32"}
        self.critic = self.add_weight(name="critic", **weight)
        self.v = self.add_weight(name="v", **weight)
        self.w = self.add_weight(name="w", **weight)
        self.unused = self.add_weight(name="unused", **weight)
        self.factor = self.add_weight(name="factor", trainable=False, **weight)
        self.built = True

    @property
    def abilities(self):
        return frozenset({"sample"})

    def players(self):
        first, second = Objective(self._first, [self.w]), Objective(self._second, [self.v, self.w])
        return [
            Player("critic", [Objective(self._critic, [self.critic])], turns=self.turns),
            Player("maker", [first, second]),
        ]

    def initialize(self, images):
        self.initialized_with = images

    @staticmethod
    def _level(images):
        return tf.reduce_mean(tf.cast(images, tf.float32), axis=[1, 2, 3]) / 100.0

    def _critic(self, images, noise, shared):
        draw = noise.normal((), 0)
        return Terms(self.critic.value * self._level(images), {"draw": draw, "level": self._level(images)})

    def _first(self, images, noise, shared):
        total = 2.0 * self.factor.value * self.w.value * self._level(images)
        return Terms(total, {"first": total})

    def _second(self, images, noise, shared):
        factor = noise.normal((), 1) if self.noisy else 1.0
        total = self.factor.value * (self.v.value + factor * self.w.value * self._level(images))
        return Terms(total, {"second": total, "scalar": self.v.value})


def compiled(
    optimizer=keras.optimizers.SGD, rate=1.0, policy="float32", turns=1, noisy=False, kind=Toy, rates=None, **options
):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = kind(turns, noisy)
        rates = {"critic": rate, "maker": rate} | (rates or {})
        model.compile({name: optimizer(value) for name, value in rates.items()}, **options)
    finally:
        keras.config.set_dtype_policy(before)
    return model


def level(images):
    return images.mean(axis=(1, 2, 3), dtype=np.float64) / 100.0


def test_objectives_gradients_add_and_each_variable_feels_only_its_own():
    model = compiled()
    assert [variable.name for variable in model.players()[1].variables] == ["w", "v"]
    logs = model.train_step(tf.constant(IMAGES))
    mean = level(IMAGES).mean()
    # dL/dc = m; dL/dw = 2 m + m; dL/dv = 1.
    np.testing.assert_allclose(model.critic, 1.0 - mean, rtol=1e-6)
    np.testing.assert_allclose(model.w, 1.0 - 3.0 * mean, rtol=1e-6)
    np.testing.assert_allclose(model.v, 0.0, atol=1e-7)
    assert float(model.unused) == 1.0 and int(model.step) == 1
    expected = {
        "critic/loss": mean,
        "critic/level": mean,
        "critic/gradient_norm": mean,
        "maker/loss": 2.0 * mean + 1.0 + mean,
        "maker/first": 2.0 * mean,
        "maker/second": 1.0 + mean,
        "maker/scalar": 1.0,
        "maker/gradient_norm": np.hypot(3.0 * mean, 1.0),
        "critic/finite": 1.0,
        "maker/finite": 1.0,
    }
    assert logs.keys() == expected.keys() | {"critic/draw"}
    for name, value in expected.items():
        np.testing.assert_allclose(logs[name], value, rtol=1e-6, err_msg=name)


def test_each_turn_has_images_and_noise_of_its_own():
    model = compiled(turns=2)
    assert model.batches_per_step == 2
    draws = []
    for step in range(2):
        logs = model.train_step(tf.stack([IMAGES, SECOND], axis=1))
        expected = StepNoise((3, 0), (step, 0, 1), 8).normal((), 0)
        np.testing.assert_allclose(logs["critic/draw"], tf.reduce_mean(expected), rtol=1e-6)
        np.testing.assert_allclose(logs["critic/level"], level(SECOND).mean(), rtol=1e-6)  # of the last turn
        draws.append(float(logs["critic/draw"]))
    np.testing.assert_allclose(model.critic, 1.0 - 2.0 * (level(IMAGES).mean() + level(SECOND).mean()), rtol=1e-5)
    np.testing.assert_allclose(model.w, 1.0 - 6.0 * level(IMAGES).mean(), rtol=1e-5)  # one turn: the first images
    assert draws[0] != draws[1]


def test_a_variable_that_no_loss_reaches_is_named():
    class Broken(Toy):
        def players(self):
            critic, maker = super().players()
            return [critic, Player("maker", [*maker.objectives, Objective(self._first, [self.unused])])]

    model = Broken()
    model.compile({"critic": keras.optimizers.SGD(), "maker": keras.optimizers.SGD()})
    with pytest.raises(ValueError, match=r"player maker: no gradient reaches .*unused"):
        model.train_step(tf.constant(IMAGES))


def test_optimizers_must_be_the_players():
    with pytest.raises(UserError, match=r"compile\(optimizer\): expected one for each of critic, maker, received \['maker'\]"):
        Toy().compile({"maker": keras.optimizers.SGD()})


def test_every_optimizer_is_built_by_compile():
    model = compiled(keras.optimizers.Adamax)
    for player in model.players():
        optimizer = model.player_optimizers[player.name]
        assert optimizer.built and len(optimizer.variables) == 2 + 2 * len(player.variables)


class Game(GenerativeModel):
    """Shared: g = w (2 + n), n noise. The critic c has the loss c g with g held fixed; the maker w the losses g and 3 c g."""

    def __init__(self, turns=1):
        super().__init__((2, 2, 1), seed=3, name="game")
        weight = {"shape": (), "initializer": "ones", "dtype": "float32"}
        self.critic, self.w = self.add_weight(name="critic", **weight), self.add_weight(name="w", **weight)
        self.turns, self.calls, self.seen = turns, 0, []
        self.built = True

    def players(self):
        return [
            Player("critic", [Objective(self._critic, [self.critic])], turns=self.turns),
            Player("maker", [Objective(self._alone, [self.w]), Objective(self._against, [self.w])]),
        ]

    def shared_tensors(self, images, noise, kept=None):
        self.calls += 1
        return {"generated": self.w.value * (2.0 + noise.normal((), 0))}

    def _critic(self, images, noise, shared):
        self.seen.append(tf.reduce_mean(shared["generated"]))
        return Terms(self.critic.value * tf.stop_gradient(shared["generated"]), {})

    def _alone(self, images, noise, shared):
        return Terms(shared["generated"], {})

    def _against(self, images, noise, shared):
        self.seen.append(tf.reduce_mean(shared["generated"]))
        return Terms(3.0 * self.critic.value * shared["generated"], {})


def play(turns=1, **options):
    model = Game(turns)
    model.compile({name: keras.optimizers.SGD(0.125) for name in ("critic", "maker")}, **options)
    return model


def test_shared_tensors_are_computed_once_and_gradients_pass_through_them():
    model = play()
    logs = model.train_step(tf.constant(IMAGES))
    level = 2.0 + float(tf.reduce_mean(StepNoise((3, 0), (0, 2, 0), 8).normal((), 0)))  # 2: after the last player
    assert model.calls == 1
    np.testing.assert_allclose(logs["critic/loss"], level, rtol=1e-6)
    critic = 1.0 - 0.125 * level
    np.testing.assert_allclose(model.critic, critic, rtol=1e-6)
    # The maker meets the critic that has just learned: d/dw (g + 3 c g) = (1 + 3 c) (2 + n).
    np.testing.assert_allclose(logs["maker/loss"], (1.0 + 3.0 * critic) * level, rtol=1e-6)
    np.testing.assert_allclose(model.w, 1.0 - 0.125 * (1.0 + 3.0 * critic) * level, rtol=1e-5)


@pytest.mark.parametrize("turns", [1, 2])
def test_micro_batches_take_the_step_of_one_batch(turns):
    batch = tf.constant(IMAGES) if turns == 1 else tf.stack([IMAGES, SECOND], axis=1)
    whole, parts = play(turns), play(turns, micro_batches=4)
    whole_logs, parts_logs = whole.train_step(batch), tf.function(parts.train_step)(batch)
    assert whole_logs.keys() == parts_logs.keys()
    for name, value in whole_logs.items():
        np.testing.assert_allclose(parts_logs[name], value, rtol=1e-5, err_msg=name)
    for ours, theirs in zip(parts.variables, whole.variables, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, err_msg=ours.path)
    # The same with noise in the losses and two objectives.
    whole, parts = compiled(turns=turns, noisy=True), compiled(turns=turns, noisy=True, micro_batches=2)
    whole_logs, parts_logs = whole.train_step(batch), tf.function(parts.train_step)(batch)
    for name, value in whole_logs.items():
        np.testing.assert_allclose(parts_logs[name], value, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(parts.w, whole.w, rtol=1e-5)


def test_micro_batches_divide_the_batch():
    model = play(micro_batches=3)
    with pytest.raises(ValueError, match="micro_batches=3: expected a divisor of 8, a replica's images"):
        model.train_step(tf.constant(IMAGES))


def test_each_turn_but_the_last_has_shared_tensors_of_its_own():
    model = play(turns=3)
    model.train_step(tf.stack([IMAGES] * 3, axis=1))
    first, second, third, against = (float(value) for value in model.seen)
    assert model.calls == 3 and third == against and len({first, second, third}) == 3


def test_xla_has_the_same_shared_tensors():
    plain, xla = play(), play(jit_compile=True)
    for model in (plain, xla):
        tiny.fit(model, IMAGES, 2)
    np.testing.assert_allclose(tiny.values(xla.weights), tiny.values(plain.weights), rtol=1e-5)


def test_two_replicas_have_the_draws_of_one(two_replicas):
    alone = play()
    with two_replicas.scope():
        both = play()
    expected, received = tiny.fit(alone, IMAGES, 2), tiny.fit(both, IMAGES, 2)
    for row, other in zip(expected, received, strict=True):
        for name in row:
            np.testing.assert_allclose(row[name], other[name], rtol=1e-5, err_msg=name)


def test_clip_norm_scales_a_players_gradient_down_and_never_up():
    free, clipped, loose = compiled(), compiled(clip_norm=0.5), compiled(clip_norm=1e6)
    logs = [model.train_step(tf.constant(IMAGES)) for model in (free, clipped, loose)]
    norm = float(logs[0]["maker/gradient_norm"])
    assert norm > 1.0
    for row in logs:  # what is logged is the norm before
        np.testing.assert_allclose(row["maker/gradient_norm"], norm, rtol=1e-6)
    step = {
        name: np.array([getattr(model, key) for key in "vw"]) - 1.0
        for name, model in (("free", free), ("clipped", clipped), ("loose", loose))
    }
    np.testing.assert_allclose(np.linalg.norm(step["clipped"]), 0.5, rtol=1e-5)
    np.testing.assert_allclose(step["clipped"], step["free"] * 0.5 / norm, rtol=1e-5)
    np.testing.assert_array_equal(step["loose"], step["free"])


class Grouped(Toy):
    """The toy whose v has an optimizer of its own."""

    def players(self):
        critic, maker = super().players()
        return [critic, dataclasses.replace(maker, groups=(OptimizerGroup("own", [self.v], "v_optimizer=own"),))]


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_a_group_of_variables_has_an_optimizer_of_its_own_and_the_players_gradients(policy):
    with pytest.raises(UserError, match="expected one for each of critic, maker, own, received"):
        Grouped().compile({name: keras.optimizers.SGD(1.0) for name in ("critic", "maker")})
    model = compiled(policy=policy, kind=Grouped, rates={"own": 0.25}, clip_norm=0.5)
    if policy == "mixed_float16":
        model.player_optimizers["own"].dynamic_scale.assign(2.0)  # not the maker's
    model.train_step(tf.constant(IMAGES))
    slope = 3.0 * level(IMAGES).mean()
    factor = 0.5 / np.hypot(slope, 1.0)  # one norm, of all of the player's gradients
    np.testing.assert_allclose(model.w, 1.0 - factor * slope, rtol=1e-5)
    np.testing.assert_allclose(model.v, 1.0 - 0.25 * factor, rtol=1e-5)
    assert [variable.path for variable in model.optimized_variables()["maker"]] == ["toy/w"]


@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
def test_where_the_gradients_of_one_group_overflow_no_optimizer_of_the_player_updates(clip_norm):
    model = compiled(policy="mixed_float16", kind=Grouped, rates={"own": 0.25}, clip_norm=clip_norm)
    scales = [model.player_optimizers[name].dynamic_scale for name in ("maker", "own")]
    model.factor.assign(1e35)  # of the loss by w; that by v, in a group of its own, stays what it is
    before = tiny.values([model.v, model.w])
    logs = model.train_step(tf.constant(IMAGES))
    assert not tiny.changed(before, [model.v, model.w])
    assert [float(scale) for scale in scales] == [2.0**14, 2.0**14] and float(logs["maker/finite"]) == 1.0
    scales[1].assign(0.5)  # exhausted, and not that of the player's first optimizer
    assert float(model.train_step(tf.constant(IMAGES))["maker/finite"]) == 0.0


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_what_is_not_finite_is_logged_for_its_player(poison):
    model = compiled()
    model.factor.assign(poison)
    logs = model.train_step(tf.constant(IMAGES))
    assert float(logs["maker/finite"]) == 0.0 and float(logs["critic/finite"]) == 1.0


def test_half_precision_skips_a_step_that_overflows_and_goes_on():
    model = compiled(policy="mixed_float16")
    optimizer = model.player_optimizers["maker"]
    assert float(optimizer.dynamic_scale) == 2.0**15
    logs = model.train_step(tf.constant(IMAGES))
    # The scale changes nothing where nothing overflows.
    np.testing.assert_allclose(logs["maker/gradient_norm"], np.hypot(3.0 * level(IMAGES).mean(), 1.0), rtol=1e-5)
    np.testing.assert_allclose(model.w, 1.0 - 3.0 * level(IMAGES).mean(), rtol=1e-5)

    model.factor.assign(1e35)  # finite itself, but not 2**15 times
    before = tiny.values([model.v, model.w])
    logs = model.train_step(tf.constant(IMAGES))
    assert not tiny.changed(before, [model.v, model.w])
    assert float(optimizer.dynamic_scale) == 2.0**14 and float(logs["maker/finite"]) == 1.0
    model.factor.assign(1.0)
    model.train_step(tf.constant(IMAGES))
    assert tiny.changed(before, [model.v, model.w]) == {"toy/v", "toy/w"}

    model.factor.assign(np.nan)  # no overflow: a loss that is NaN at any scale
    assert float(model.train_step(tf.constant(IMAGES))["maker/finite"]) == 0.0


def test_a_loss_scale_that_is_exhausted_is_not_finite():
    model = compiled(policy="mixed_float16")
    model.player_optimizers["maker"].dynamic_scale.assign(0.5)
    assert float(model.train_step(tf.constant(IMAGES))["maker/finite"]) == 0.0


@pytest.mark.parametrize(
    ("policy", "optimizer"), [("float32", keras.optimizers.SGD), ("mixed_float16", keras.optimizers.Adamax)]
)
def test_two_replicas_are_one(two_replicas, policy, optimizer):
    alone = compiled(optimizer, 0.1, policy, turns=2, noisy=True, clip_norm=2.0)
    with two_replicas.scope():
        both = compiled(optimizer, 0.1, policy, turns=2, noisy=True, clip_norm=2.0)
    batch = np.stack([IMAGES, SECOND], axis=1)
    expected, received = tiny.fit(alone, batch, 3), tiny.fit(both, batch, 3)
    for weight, value in zip(both.weights, alone.weights, strict=True):
        for replica in two_replicas.experimental_local_results(weight.value):
            np.testing.assert_allclose(replica, value, rtol=1e-6, err_msg=weight.path)
    for row, other in zip(expected, received, strict=True):
        assert row.keys() == other.keys()
        for name in row:
            np.testing.assert_allclose(row[name], other[name], rtol=1e-5, err_msg=name)


def test_xla_gives_the_same_step():
    plain, xla = compiled(noisy=True), compiled(noisy=True, jit_compile=True)
    for row, other in zip(tiny.fit(plain, IMAGES, 2), tiny.fit(xla, IMAGES, 2), strict=True):
        assert row.keys() == other.keys()
        for name in row:
            np.testing.assert_allclose(row[name], other[name], rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(tiny.values(xla.weights), tiny.values(plain.weights), rtol=1e-5)


@pytest.mark.parametrize("turns", [1, 2])
def test_fit_initialises_a_new_model_and_no_other(turns):
    model = compiled(turns=turns)
    batch = IMAGES if turns == 1 else np.stack([IMAGES, SECOND], axis=1)
    tiny.fit(model, batch, 1)
    np.testing.assert_array_equal(model.initialized_with, IMAGES)
    model.initialized_with = None
    tiny.fit(model, batch, 1)
    assert model.initialized_with is None and int(model.step) == 2


def test_eager_fit_is_the_compiled_one():
    eager, graph = compiled(noisy=True, run_eagerly=True), compiled(noisy=True)
    for row, other in zip(tiny.fit(eager, IMAGES, 2), tiny.fit(graph, IMAGES, 2), strict=True):
        for name in row:
            np.testing.assert_allclose(row[name], other[name], rtol=1e-6, err_msg=name)


def test_what_a_model_cannot_is_one_clear_line():
    model, seeds = Toy(), np.zeros((1, 2), np.int32)
    for call in (
        lambda: model.elbo(IMAGES, seeds),
        lambda: model.log_prob(IMAGES, seeds),
        lambda: model.encode(IMAGES, seeds),
        lambda: model.decode(np.zeros((1, 2))),
        lambda: model.reconstruct(IMAGES, seeds),
        *(getattr(model, ability) for ability in ENDPOINTS if ability != "sample"),
    ):
        with pytest.raises(UserError, match=r"toy \(as configured\) does not support \w+; it supports: sample") as raised:
            call()
        assert "\n" not in str(raised.value)
