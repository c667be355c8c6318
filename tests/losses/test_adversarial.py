"""Losses of the adversarial game against closed forms in NumPy float64, autodiff and finite differences."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcq.config import groups
from tfcq.errors import UserError
from tfcq.losses import adversarial

REAL = np.array([-1e4, -88.0, -3.0, -0.1, 0.0, 0.1, 2.0, 40.0, 1e4])
GENERATED = REAL[::-1] + 0.25
SHAPE = (3, 2, 2)


def images(seed=0, count=4, dtype="float32"):
    return tf.constant(np.random.default_rng(seed).uniform(-1.0, 1.0, (count, *SHAPE)), dtype)


def mix(seed=9, count=4, dtype="float32"):
    return tf.constant(np.random.default_rng(seed).uniform(0.0, 1.0, (count, 1, 1, 1)), dtype)


def sigmoid(logits):
    return np.exp(-np.logaddexp(0.0, -logits))


def test_discriminator_cross_entropy_is_the_closed_form_and_does_not_overflow():
    loss = adversarial.discriminator_cross_entropy(tf.constant(REAL, tf.float32), tf.constant(GENERATED, tf.float32))
    assert loss.shape == (9,) and loss.dtype == tf.float32
    np.testing.assert_allclose(loss, np.logaddexp(0.0, -REAL) + np.logaddexp(0.0, GENERATED), rtol=1e-6)
    moderate = adversarial.discriminator_cross_entropy(tf.constant([1.5]), tf.constant([-0.5]))
    np.testing.assert_allclose(moderate, -np.log(sigmoid(1.5)) - np.log(1.0 - sigmoid(-0.5)), rtol=1e-6)


def test_discriminator_cross_entropy_has_the_closed_form_gradient():
    real, generated = tf.constant(REAL, tf.float32), tf.constant(GENERATED, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch([real, generated])
        loss = adversarial.discriminator_cross_entropy(real, generated)
    slopes = tape.gradient(loss, [real, generated])
    np.testing.assert_allclose(slopes[0], sigmoid(REAL) - 1.0, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(slopes[1], sigmoid(GENERATED), rtol=1e-5, atol=1e-7)


def test_generator_log_ratio_is_minus_the_log_odds():
    loss = adversarial.generator_log_ratio(tf.constant(GENERATED, tf.float32))
    assert loss.shape == (9,) and loss.dtype == tf.float32
    np.testing.assert_allclose(loss, -GENERATED, rtol=1e-6)
    probability = sigmoid(np.array([-2.0, 0.3]))
    np.testing.assert_allclose(
        adversarial.generator_log_ratio(tf.constant([-2.0, 0.3])), -np.log(probability / (1.0 - probability)), rtol=1e-6
    )


# Each loss and its slope in NumPy, float64.
GENERATOR_FORMULAS = {
    "log_ratio": (lambda logits: -logits, lambda logits: -np.ones_like(logits)),
    "non_saturating": (lambda logits: np.logaddexp(0.0, -logits), lambda logits: -sigmoid(-logits)),
    "saturating": (lambda logits: -np.logaddexp(0.0, logits), lambda logits: -sigmoid(logits)),
}


@pytest.mark.parametrize("name", GENERATOR_FORMULAS)
def test_generator_losses_and_their_slopes_do_not_overflow(name):
    logits = tf.constant(GENERATED, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = adversarial.GENERATOR_LOSSES[name](logits)
    value, slope = (formula(GENERATED) for formula in GENERATOR_FORMULAS[name])
    assert loss.shape == (9,) and loss.dtype == tf.float32
    np.testing.assert_allclose(loss, value, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(tape.gradient(loss, logits), slope, rtol=1e-5, atol=1e-7)


def test_generator_losses_are_their_probabilities_and_add_up():
    logits = np.array([-3.0, -0.2, 0.0, 1.7])
    probability = sigmoid(logits)
    log_ratio, non_saturating, saturating = (
        adversarial.GENERATOR_LOSSES[name](tf.constant(logits, tf.float32)).numpy() for name in GENERATOR_FORMULAS
    )
    np.testing.assert_allclose(non_saturating, -np.log(probability), rtol=1e-5)
    np.testing.assert_allclose(saturating, np.log(1.0 - probability), rtol=1e-5)
    np.testing.assert_allclose(log_ratio, non_saturating + saturating, rtol=1e-5, atol=1e-6)


def test_the_options_offer_what_the_losses_have():
    choices = {field.name: field.metadata["choices"] for field in dataclasses.fields(groups.AdversaryOptions)}
    assert set(choices["generator_loss"]) == set(adversarial.GENERATOR_LOSSES)
    for form in choices["gradient_penalty_form"]:
        penalty = adversarial.gradient_penalty(
            lambda x: tf.reduce_sum(x, [1, 2, 3]), images(), images(seed=1), mix(), form
        )
        assert penalty.shape == (4,) and penalty.dtype == tf.float32
    with pytest.raises(UserError, match="expected one of two_sided, one_sided, real, received 'zero'"):
        adversarial.gradient_penalty(None, images(), None, None, form="zero")


PENALTY_FORMULAS = {
    "two_sided": lambda norm: (norm - 1.0) ** 2,
    "one_sided": lambda norm: max(0.0, norm - 1.0) ** 2,
    "real": lambda norm: norm**2 / 2.0,
}


@pytest.mark.parametrize("form", PENALTY_FORMULAS)
@pytest.mark.parametrize("norm", [0.25, 1.0, 3.0, 1e4])
def test_penalty_forms_of_a_linear_discriminator(norm, form):
    weights = np.random.default_rng(1).normal(size=SHAPE)
    weights = tf.Variable((weights * norm / np.linalg.norm(weights)).astype(np.float32))
    with tf.GradientTape() as tape:
        penalty = adversarial.gradient_penalty(
            lambda x: tf.reduce_sum(x * weights, [1, 2, 3]) + 1e4, images(), images(seed=1), mix(), form
        )
    np.testing.assert_allclose(penalty, np.full(4, PENALTY_FORMULAS[form](norm)), rtol=1e-5, atol=1e-10)
    slope = {"two_sided": 2 * (norm - 1), "one_sided": 2 * max(0.0, norm - 1), "real": norm}[form]
    direction = weights.numpy() / norm
    np.testing.assert_allclose(tape.gradient(penalty, weights), 4 * slope * direction, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["one_sided", "real"])
def test_penalty_forms_are_taken_at_their_points(form):
    scale = np.random.default_rng(2).uniform(0.5, 2.0, SHAPE).astype(np.float32)
    real, generated, mixes = images(), images(seed=1), mix()
    absent = form == "real"
    penalty = adversarial.gradient_penalty(
        lambda x: tf.reduce_sum(scale * x**2, [1, 2, 3]),
        real,
        None if absent else generated,
        None if absent else mixes,
        form,
    )
    point = 1.0 if absent else mixes.numpy().astype(np.float64)
    points = point * real.numpy() + (1.0 - point) * generated.numpy()
    norms = np.sqrt(np.sum((2.0 * scale * points) ** 2, axis=(1, 2, 3)))
    np.testing.assert_allclose(penalty, [PENALTY_FORMULAS[form](norm) for norm in norms], rtol=1e-5)


@pytest.mark.parametrize("form", ["one_sided", "real"])
def test_other_penalties_of_a_flat_discriminator_are_zero_with_a_finite_gradient(form):
    weights = tf.Variable(tf.zeros(SHAPE))
    with tf.GradientTape() as tape:
        penalty = adversarial.gradient_penalty(
            lambda x: tf.reduce_sum(x * weights, [1, 2, 3]), images(), images(seed=1), mix(), form
        )
    np.testing.assert_array_equal(penalty, 0.0)
    np.testing.assert_array_equal(tape.gradient(penalty, weights), 0.0)


def test_only_the_penalty_at_real_images_needs_no_generated_ones():
    with pytest.raises(UserError, match="gradient penalty two_sided: expected generated images and mix, received None"):
        adversarial.gradient_penalty(lambda x: tf.reduce_sum(x, [1, 2, 3]), images(), None, mix())


@pytest.mark.parametrize("norm", [0.25, 1.0, 3.0])
def test_penalty_of_a_linear_discriminator(norm):
    weights = np.random.default_rng(1).normal(size=SHAPE)
    weights = (weights * norm / np.linalg.norm(weights)).astype(np.float32)
    penalty = adversarial.gradient_penalty(
        lambda x: tf.reduce_sum(x * weights, [1, 2, 3]) + 5.0, images(), images(seed=1), mix()
    )
    assert penalty.shape == (4,) and penalty.dtype == tf.float32
    np.testing.assert_allclose(penalty, (norm - 1.0) ** 2, rtol=1e-5, atol=1e-10)


@pytest.mark.parametrize("point", ["real", "generated", "mixed"])
def test_penalty_of_a_quadratic_discriminator_is_taken_at_the_mixed_points(point):
    scale = np.random.default_rng(2).uniform(0.5, 2.0, SHAPE).astype(np.float32)
    real, generated = images(), images(seed=1)
    mixes = {"real": np.ones_like(mix()), "generated": np.zeros_like(mix()), "mixed": mix().numpy()}[point]
    penalty = adversarial.gradient_penalty(
        lambda x: tf.reduce_sum(scale * x**2, [1, 2, 3]), real, generated, tf.constant(mixes)
    )
    mixes = mixes.astype(np.float64)
    points = mixes * real.numpy() + (1.0 - mixes) * generated.numpy()
    norms = np.sqrt(np.sum((2.0 * scale * points) ** 2, axis=(1, 2, 3)))
    np.testing.assert_allclose(penalty, (norms - 1.0) ** 2, rtol=1e-5)


def test_penalty_of_a_row_does_not_depend_on_the_other_rows():
    network = discriminator()
    real, generated, mixes = images(dtype="float64"), images(seed=1, dtype="float64"), mix(dtype="float64")
    together = adversarial.gradient_penalty(network, real, generated, mixes)
    alone = adversarial.gradient_penalty(network, real[2:3], generated[2:3], mixes[2:3])
    np.testing.assert_allclose(alone[0], together[2], rtol=1e-10)
    assert len(np.unique(together)) == 4


def discriminator():
    """Smooth, so that finite differences of its penalty exist; float64, so that they are exact enough."""
    keras.utils.set_random_seed(3)
    layers = [
        keras.layers.Conv2D(3, 2, activation="tanh", dtype="float64"),
        keras.layers.Flatten(dtype="float64"),
        keras.layers.Dense(1, dtype="float64"),
        keras.layers.Reshape((), dtype="float64"),
    ]
    network = keras.Sequential([keras.Input(SHAPE, dtype="float64"), *layers])
    assert network(images(dtype="float64")).dtype == tf.float64
    return network


@pytest.mark.parametrize(("form", "compiled"), [("two_sided", False), ("two_sided", True), ("real", True)])
def test_penalty_trains_the_discriminator_with_the_gradient_of_finite_differences(form, compiled):
    network = discriminator()
    real, generated = images(dtype="float64"), images(seed=1, dtype="float64")
    mixes = mix(dtype="float64")

    def mean_penalty():
        return tf.reduce_mean(adversarial.gradient_penalty(network, real, generated, mixes, form))

    def slopes():
        with tf.GradientTape() as tape:
            loss = mean_penalty()
        return tape.gradient(loss, [weight.value for weight in network.trainable_variables])

    gradients = (tf.function(slopes) if compiled else slopes)()
    step, checked = 1e-5, 0
    for weight, gradient in zip(network.trainable_variables, gradients, strict=True):
        if gradient is None:  # the last bias moves no gradient of the logits
            assert weight.shape == (1,)
            continue
        values = weight.numpy()
        for index in list(np.ndindex(values.shape))[::3]:
            sides = []
            for sign in (1.0, -1.0):
                moved = values.copy()
                moved[index] += sign * step
                weight.assign(moved)
                sides.append(float(mean_penalty()))
            weight.assign(values)
            assert float(gradient[index]) == pytest.approx((sides[0] - sides[1]) / (2 * step), rel=1e-5, abs=1e-8)
            checked += 1
    assert checked > 8
    assert float(tf.norm(gradients[0])) > 1e-3


def test_penalty_of_a_flat_discriminator_is_one_with_a_finite_gradient():
    weights = tf.Variable(tf.zeros(SHAPE))
    with tf.GradientTape() as tape:
        penalty = adversarial.gradient_penalty(
            lambda x: tf.reduce_sum(x * weights, [1, 2, 3]), images(), images(seed=1), mix()
        )
    np.testing.assert_allclose(penalty, 1.0, rtol=1e-5)
    assert np.all(np.isfinite(tape.gradient(penalty, weights)))
