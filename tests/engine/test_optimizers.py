"""Optimizers by name against Keras's own, learning rates against their closed forms, and whose optimizer has which."""

import contextlib
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny

from tfcq.config import Config, DataConfig, TrainingConfig
from tfcq.engine.fused_optimizers import FUSED
from tfcq.engine.optimizers import LearningRate, check_optimizer, compile_model
from tfcq.engine.players import Objective, Player, Terms
from tfcq.errors import UserError
from tfcq.models.base import GenerativeModel
from tfcq.training.run import train


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


def test_learning_rates_drop_at_their_fractions_of_the_steps():
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


# Optimizers of Keras by name.

START = np.linspace(-1.0, 2.0, 6, dtype=np.float32).reshape(2, 3)
IMAGES = np.arange(24, dtype=np.uint8).reshape(4, 2, 3, 1)


class Bowl(GenerativeModel):
    """Its loss of an image is half the squared distance of a weight [2, 3] from the image: the gradient is known by hand."""

    def __init__(self):
        super().__init__((2, 3, 1))
        self.weight = self.add_weight(name="weight", shape=(2, 3), initializer="zeros", dtype="float32")
        self.weight.assign(START)
        self.built = True

    @property
    def abilities(self):
        return frozenset({"sample"})

    def players(self):
        def loss(images, noise, shared):
            distance = self.weight.value - tf.cast(images[..., 0], tf.float32)
            return Terms(0.5 * tf.reduce_sum(distance**2, axis=(1, 2)), {})

        return [Player("generator", [Objective(loss, [self.weight])])]


def trained(strategy=None, **options):
    """The weight of a Bowl after two steps of a rate of 0.05 and of 0.1."""
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = Bowl()
        compile_model(model, TrainingConfig(train_steps=2, learning_rate=0.1, warmup_steps=1, **options))
    if strategy:
        tiny.fit(model, IMAGES, 2)
    else:
        for _ in range(2):
            model.train_step(IMAGES)
    return tiny.values([model.weight])[0]


def trained_by_keras(kind, clip_norm=None, **arguments):
    optimizer = kind(0.1, **arguments)
    variable = keras.Variable(START)
    for rate in (0.05, 0.1):
        optimizer.learning_rate = rate
        gradient = variable.numpy() - IMAGES[..., 0].astype(np.float32).mean(axis=0)
        if clip_norm:
            gradient *= min(1.0, clip_norm / np.linalg.norm(gradient))
        optimizer.apply([tf.constant(gradient)], [variable])
    return variable.numpy()


BETAS = {"beta_1": 0.9, "beta_2": 0.999}
OPTIMIZERS = {
    "adam": ("", keras.optimizers.Adam, BETAS),
    "adamax": ("epsilon=1e-3", keras.optimizers.Adamax, BETAS | {"epsilon": 1e-3}),
    "AdamW": ("weight_decay=0.2", keras.optimizers.AdamW, BETAS | {"weight_decay": 0.2}),
    "sgd": ("momentum=0.9,nesterov=true", keras.optimizers.SGD, {"momentum": 0.9, "nesterov": True}),
    "rmsprop": ("rho=0.5, centered=True", keras.optimizers.RMSprop, {"rho": 0.5, "centered": True}),
    "lion": ("", keras.optimizers.Lion, BETAS),
    "adafactor": ("clip_threshold=2", keras.optimizers.Adafactor, {"clip_threshold": 2.0}),
    "lamb": ("", keras.optimizers.Lamb, BETAS),
    "muon": ("ns_steps=3", keras.optimizers.Muon, {"ns_steps": 3}),
}


@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_of_keras_by_name_moves_weights_as_keras_does(name, clip_norm):
    given, kind, arguments = OPTIMIZERS[name]
    found = trained(optimizer=name, optimizer_arguments=given, clip_norm=clip_norm)
    expected = trained_by_keras(kind, clip_norm, **arguments)
    assert np.abs(expected - START).min() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["adam", "adamax", "AdamW", "sgd"])
def test_loss_scaling_leaves_an_optimizers_updates_as_they_are(name, monkeypatch):
    given, kind, arguments = OPTIMIZERS[name]
    monkeypatch.setattr(Bowl, "dtype_policy", keras.DTypePolicy("mixed_float16"))
    found = trained(optimizer=name, optimizer_arguments=given)
    np.testing.assert_allclose(found, trained_by_keras(kind, **arguments), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["adam", "adamax", "AdamW", "sgd", "muon"])
def test_two_replicas_move_weights_as_one(name, two_replicas):
    given, kind, arguments = OPTIMIZERS[name]
    found = trained(two_replicas, optimizer=name, optimizer_arguments=given)
    np.testing.assert_allclose(found, trained_by_keras(kind, **arguments), rtol=1e-5, atol=1e-6)


def test_gradients_are_sent_between_replicas_once(two_replicas, monkeypatch):
    sums, all_reduce = [], tf.distribute.ReplicaContext.all_reduce

    def counted(self, *arguments, **options):
        sums.append(len(arguments[1]))
        return all_reduce(self, *arguments, **options)

    monkeypatch.setattr(tf.distribute.ReplicaContext, "all_reduce", counted)
    trained(two_replicas, optimizer="sgd")
    assert sums == [1, 1]  # all gradients, by each replica, while the step is traced


# Adam, AdamW and Adamax, whose updates are single operations.


def by_formula(name, rates, gradients, beta_1, beta_2, epsilon, weight_decay=0.0, clipnorm=math.inf):
    """The weight after the updates in float64, and its two moments (Kingma and Ba 2015, algorithms 1 and 2)."""
    weight, first, second = START.astype(np.float64), np.zeros(START.shape), np.zeros(START.shape)
    for step, (rate, gradient) in enumerate(zip(rates, gradients, strict=True), start=1):
        gradient = gradient * min(1.0, clipnorm / np.linalg.norm(gradient))
        weight -= rate * weight_decay * weight
        first = beta_1 * first + (1 - beta_1) * gradient
        if name == "adamax":
            second = np.maximum(beta_2 * second, np.abs(gradient))
            weight -= rate / (1 - beta_1**step) * first / (second + epsilon)
        else:
            second = beta_2 * second + (1 - beta_2) * gradient**2
            rate *= math.sqrt(1 - beta_2**step) / (1 - beta_1**step)
            weight -= rate * first / (np.sqrt(second) + epsilon)
    return weight, first, second


GIVEN = [
    ("adam", {"epsilon": 1e-3}),
    ("adam", {"clipnorm": 0.5}),
    ("adamax", {}),
    ("adamax", {"weight_decay": 0.2, "clipnorm": 0.5}),
    ("adamw", {"weight_decay": 0.2}),
]


@pytest.mark.parametrize(("name", "arguments"), GIVEN, ids=lambda given: given if isinstance(given, str) else "-".join(given))
def test_single_operations_are_the_formula_and_the_state_is_that_of_keras(name, arguments):
    kinds = {"adam": keras.optimizers.Adam, "adamax": keras.optimizers.Adamax, "adamw": keras.optimizers.AdamW}
    schedule = LearningRate(0.1, 6, 2, "cosine")
    gradients = np.random.default_rng(0).normal(size=(6, *START.shape))
    states = []
    for kind in (FUSED[kinds[name]], kinds[name]):
        optimizer = kind(schedule, beta_1=0.8, beta_2=0.9, name="optimizer", **arguments)
        variable = keras.Variable(START, name="weight")
        optimizer.build([variable])
        update = tf.function(lambda one: optimizer.apply([one], [variable]), autograph=False)  # noqa: B023
        graph = update.get_concrete_function(tf.TensorSpec(START.shape, tf.float32)).graph
        is_single = any(operation.type.startswith("ResourceApply") for operation in graph.get_operations())
        assert is_single == (kind is not kinds[name])
        for gradient in gradients:
            update(tf.constant(gradient, tf.float32))
        moments = [one.numpy() for one in optimizer.variables[1:]]  # after the count of updates
        states.append(([one.path for one in optimizer.variables], [variable.numpy(), *moments]))
        assert int(optimizer.iterations) == 6
    assert states[0][0] == states[1][0]
    rates = [float(schedule(step)) for step in range(6)]
    expected = by_formula(name, rates, gradients, 0.8, 0.9, **({"epsilon": 1e-7} | arguments))
    for one, other, exact in zip(states[0][1], states[1][1], expected, strict=True):
        np.testing.assert_allclose(one, exact, rtol=2e-6, atol=1e-6)  # float32 over six steps
        np.testing.assert_allclose(other, exact, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize(("dtype", "arguments"), [("float32", {"amsgrad": True}), ("float64", {})])
def test_what_has_no_single_operation_goes_by_the_chain_of_keras(dtype, arguments):
    weights = []
    for kind in (FUSED[keras.optimizers.Adam], keras.optimizers.Adam):
        optimizer, variable = kind(0.1, **arguments), keras.Variable(START, dtype=dtype)
        for scale in (1.0, 0.1, -0.3):
            optimizer.apply([tf.constant(scale * START, dtype)], [variable])
        weights.append(variable.numpy())
    np.testing.assert_array_equal(*weights)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "adan"}, r"optimizer: expected one of .*adamax.*sgd, received 'adan' \(did you mean adam\?\)"),
        ({"optimizer": "loss_scale_optimizer"}, "optimizer: expected one of"),
        ({"optimizer": "sgd", "optimizer_arguments": "momentom=0.9"}, r"sgd has no momentom; .*\(did you mean momentum\?\)"),
        ({"optimizer": "sgd", "optimizer_arguments": "momentum=true"}, "momentum: expected a number, received True"),
        ({"optimizer": "sgd", "optimizer_arguments": "momentum=high"}, "momentum: expected a number, received 'high'"),
        ({"optimizer": "sgd", "optimizer_arguments": "nesterov=1"}, "nesterov: expected true or false, received 1"),
        ({"optimizer": "sgd", "optimizer_arguments": "momentum=3"}, "'momentum=3': Keras refuses it: `momentum` must be"),
        ({"optimizer": "muon", "optimizer_arguments": "ns_steps=2.5"}, "'ns_steps=2.5': Keras refuses it: "),
        ({"optimizer": "sgd", "beta_1": 0.5}, "beta_1=0.5 with optimizer=sgd, which has no beta_1: leave it out"),
        ({"optimizer": "lion", "optimizer_arguments": "epsilon=1"}, "lion has no epsilon; expected some of weight_decay"),
    ],
)
def test_what_keras_would_not_take_is_one_line_before_the_work(options, message):
    with pytest.raises(UserError, match=message) as caught:
        check_optimizer(TrainingConfig(**options))
    assert "\n" not in str(caught.value)


def test_an_optimizer_that_keras_has_not_is_found_before_the_data_is_read(tmp_path):
    images = DataConfig(dataset=f"npz:{tmp_path}/missing.npz")
    with pytest.raises(UserError, match="^optimizer: expected one of"):
        train(Config(data=images, training=TrainingConfig(optimizer="adan")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_zero_of_an_optimizer_may_be_an_integer():
    check_optimizer(TrainingConfig(optimizer="sgd", optimizer_arguments="momentum=0"))
