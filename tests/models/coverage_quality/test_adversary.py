"""The discriminator's accuracy, and the warnings of a balance with the generator that is lost."""

import math

import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny

from tfcq.config import CQFConfig
from tfcq.images import dequantize, to_network_range
from tfcq.models.coverage_quality import adversary
from tfcq.randomness import StepNoise


@pytest.mark.parametrize(("replicas", "micro_batches"), [(1, 1), (1, 2), (2, 2)])
def test_the_accuracy_is_that_of_all_images_of_the_last_turn(replicas, micro_batches, request):
    """However a step is split: counted here on whole batches, with a discriminator whose rate is 0."""
    options = {"dequantize_real": False, "discriminator_steps": 2, "gradient_penalty": 0.0} | tiny.ROWS["gan"]
    strategy = request.getfixturevalue("two_replicas") if replicas > 1 else tf.distribute.get_strategy()
    with strategy.scope():
        model = tiny.compiled(tiny.config(training={"micro_batches": micro_batches}, **options), learning_rate=0.0)
    tiny.perturb(model.discriminator.trainable_variables, 0.5)
    images = tf.constant(tiny.images((4, 4, 1), 16).reshape(8, 2, 4, 4, 1))
    noise = StepNoise((model.seed, 0), (0, 2, 0), 8)  # of the step's generated images
    real = np.ravel(model.discriminator(to_network_range(dequantize(images[:, 1], 0.5))))
    generated = np.ravel(model.discriminator(model.shared_tensors(images[:, 0], noise)["generated"]))
    middle = -np.median(np.concatenate([real, generated]))  # so that it recognises some images and others not
    model.discriminator = Shifted(model.discriminator, middle)

    def of_replica():
        number = tf.distribute.get_replica_context().replica_id_in_sync_group * (8 // replicas)
        return model.train_step(images[number : number + 8 // replicas])

    logs = {name: float(strategy.reduce("MEAN", value, axis=None)) for name, value in strategy.run(of_replica).items()}
    expected = {"accuracy_real": np.mean(real + middle > 0.0), "accuracy_generated": np.mean(generated + middle < 0.0)}
    assert {name: logs[f"discriminator/{name}"] for name in expected} == expected and 0.0 < sum(expected.values()) < 2.0
    cross_entropy = np.mean(np.logaddexp(0.0, -real - middle) + np.logaddexp(0.0, generated + middle))
    np.testing.assert_allclose(logs["discriminator/cross_entropy"], cross_entropy, rtol=1e-5)


class Shifted:
    """A discriminator whose logits are another one's and a number."""

    def __init__(self, network, shift):
        self.trainable_variables, self._network, self._shift = network.trainable_variables, network, shift

    def __call__(self, images):
        return self._network(images) + self._shift


def logs_of(real, generated, weight=100.0):
    """The mean logs of a discriminator with these logits of real and of generated images, float64 arrays."""
    return {
        "discriminator/cross_entropy": np.mean(np.logaddexp(0.0, -real)) + np.mean(np.logaddexp(0.0, generated)),
        "discriminator/real_logits": np.mean(real),
        "discriminator/generated_logits": np.mean(generated),
        "discriminator/accuracy_real": np.mean(real > 0.0),
        "discriminator/accuracy_generated": np.mean(generated < 0.0),
        "generator/quality_weight": weight,
    }


ZERO, ONE, MIXED = np.zeros(4), np.array([1.0, 1.0, 1.0, -1.0]), np.array([1.0, -1.0, 1.0, -1.0])


@pytest.mark.parametrize(
    ("logs", "options", "expected"),
    [
        (logs_of(0.1 * MIXED + 0.001, 0.1 * MIXED - 0.001), {}, None),  # chance level, and alive
        (
            logs_of(0.0251 + ZERO, 0.0251 + ZERO),
            {"gradient_penalty": 10.0},
            "the discriminator answers the same to real and to generated images, and learns no more: its units have died; in a "
            "new run a lower --discriminator_learning_rate beside --learning_rate, a lower --gradient_penalty than 10 or a "
            "longer --warmup_steps would help",
        ),
        (logs_of(0.0251 + ZERO, 0.0251 + ZERO), {"gradient_penalty": 0.0}, "beside --learning_rate or a longer --warmup_steps"),
        (logs_of(ONE, -ONE), {}, None),  # 0.82 of it
        (logs_of(1.0 + ZERO, -1.0 - ZERO), {}, None),  # all are recognised, without certainty: 0.45 of it
        (logs_of(2.0 * ONE, -2.0 * ONE), {}, None),
        (
            logs_of(3.0 + ZERO, -3.0 - ZERO),  # 2 log(1 + exp(-3))
            {},
            "the discriminator has won: its cross-entropy is 0.0972 nats (chance level: 1.39), and it recognises 100% of real "
            "and 100% of generated images; in a new run a higher --quality_weight than 100, a lower "
            "--discriminator_learning_rate beside --learning_rate or a higher --gradient_penalty than 100 would help",
        ),
        (logs_of(3.0 + ZERO, -3.0 - ZERO, 50.0), {"quality_ramp_steps": 9}, None),  # lambda still rises
        (
            logs_of(3.0 * ONE, 3.0 * ONE),  # log(1 + exp(3)) + log(1 + exp(-3))
            {"gradient_penalty": 0.0},
            "the generator outruns the discriminator: its cross-entropy is 3.1 nats (chance level: 1.39), and it recognises 75% "
            "of real and 25% of generated images; in a new run a lower --quality_weight than 100, a higher "
            "--discriminator_learning_rate beside --learning_rate or more stable training (--clip_norm, --warmup_steps, "
            "--ema_decay) would help",
        ),
        (logs_of(3.0 * ONE, 3.0 * ONE, 50.0), {"quality_ramp_steps": 9}, "a lower --gradient_penalty than 100 or more stable"),
        (logs_of(3.0 * ONE, 3.0 * ONE), tiny.ROWS["gan"], "in a new run a higher --discriminator_learning_rate"),
        (logs_of(ZERO, ZERO) | {"discriminator/cross_entropy": np.nan}, {}, None),
        ({"generator/loss": 1.0}, {"quality_weight": 0.0}, None),
    ],
)
def test_a_lost_balance_is_reported_with_what_would_help(logs, options, expected):
    found = adversary.balance_warning(CQFConfig(**options), logs)
    assert (found is None) if expected is None else expected in found.text


def test_the_limits_of_the_balance():
    assert adversary.CHANCE_LEVEL == pytest.approx(2.0 * math.log(2.0), rel=1e-15)
    logs = logs_of(ZERO, ZERO)
    for multiple, kind in ((0.29, "discriminator ahead"), (0.31, None), (1.99, None), (2.01, "discriminator behind")):
        found = adversary.balance_warning(CQFConfig(), logs | {"discriminator/cross_entropy": multiple * adversary.CHANCE_LEVEL})
        assert (found and found.kind) == kind


@pytest.mark.parametrize(
    ("system", "options"), [("cqf", {}), ("cqf", tiny.ROWS["gan"]), ("realnvp", {"quality_weight": 1.0})]
)
def test_every_system_with_a_discriminator_is_judged(system, options):
    model = tiny.build(tiny.config(model=system, **options))
    assert model.balance_warning(logs_of(9.0 + ZERO, -9.0 - ZERO)).kind == "discriminator ahead"
