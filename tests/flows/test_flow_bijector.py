"""The adapter to TensorFlow Probability: the same numbers, one run of each network, and no stale weights."""

import flow_cases
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

tfd = tfp.distributions


def standard_normal(shape, dtype=tf.float64):
    return tfd.Independent(tfd.Normal(tf.zeros(shape, dtype), tf.ones([], dtype)), 3)


def normal_log_prob(features):
    return np.sum(-0.5 * np.square(features) - 0.5 * np.log(2 * np.pi), axis=(-3, -2, -1))


def num_convolutions(function, *specs):
    operations = tf.function(function).get_concrete_function(*specs).graph.get_operations()
    return sum(operation.type == "Conv2D" for operation in operations)


@pytest.mark.parametrize("name", flow_cases.CASES)
def test_a_transformed_distribution_has_the_density_of_the_change_of_variables(name):
    flow, images = flow_cases.make(name)
    shape = flow.features_shape(images.shape[1:])
    distribution = tfd.TransformedDistribution(standard_normal(shape), flow.bijector())
    assert distribution.event_shape == images.shape[1:] and distribution.batch_shape == ()
    features, log_det = flow.inverse_and_log_det(images)
    np.testing.assert_allclose(distribution.log_prob(images), normal_log_prob(features) + log_det, rtol=1e-10)
    assert distribution.sample(3, seed=1).shape == (3, *images.shape[1:])


# 2 couplings of 1 block: a first, two inner and a last convolution each.
@pytest.mark.parametrize(
    "ask",
    [
        lambda b, x: (b.inverse(x), b.inverse_log_det_jacobian(x, event_ndims=3)),
        lambda b, x: (b.inverse_log_det_jacobian(x, event_ndims=3), b.inverse(x)),
        lambda b, x: (b.forward(x), b.forward_log_det_jacobian(x, event_ndims=3)),
        lambda b, x: b.forward_log_det_jacobian(b.inverse(x), event_ndims=3),
        lambda b, x: b.inverse_log_det_jacobian(b.forward(x), event_ndims=3),
        lambda b, x: tfd.TransformedDistribution(standard_normal((4, 4, 3), tf.float32), b).log_prob(x),
        lambda b, x: tfd.TransformedDistribution(
            standard_normal((4, 4, 3), tf.float32), b
        ).experimental_sample_and_log_prob(5, seed=[0, 1]),
    ],
)
def test_a_density_or_a_sample_runs_each_network_once(ask):
    flow, images = flow_cases.make("image_flow_one_scale", "float32")
    spec = tf.TensorSpec(images.shape)
    assert num_convolutions(lambda x: ask(flow.bijector(), x), spec) == 2 * 4
    if ask.__code__.co_names[0] != "tfd":
        # Eagerly nothing but the log-determinant of a returned tensor is remembered: the same values all the same.
        for traced, eager in zip(
            tf.nest.flatten(tf.function(lambda x: ask(flow.bijector(), x))(images)),
            tf.nest.flatten(ask(flow.bijector(), images)),
        ):
            np.testing.assert_allclose(traced, eager, rtol=1e-4, atol=1e-4)


def test_both_directions_run_each_network_twice():
    """The round trip is computed, not remembered: a cache that answered it would hide every error."""
    flow, images = flow_cases.make("image_flow_one_scale", "float32")

    def round_trip(x):
        bijector = flow.bijector()
        return bijector.forward(bijector.inverse(x))

    assert num_convolutions(round_trip, tf.TensorSpec(images.shape)) == 2 * 2 * 4


@pytest.mark.parametrize("training", [False, True])
def test_a_weight_that_changes_is_seen_by_the_same_bijector_and_the_same_tensor(training):
    flow, images = flow_cases.make("image_flow_one_scale")
    bijector = flow.bijector(training)
    distribution = tfd.TransformedDistribution(standard_normal((4, 4, 3)), bijector)
    questions = (
        bijector.inverse,
        bijector.forward,
        lambda x: bijector.inverse_log_det_jacobian(x, event_ndims=3),
        lambda x: bijector.forward_log_det_jacobian(x, event_ndims=3),
        distribution.log_prob,
    )
    before = [question(images).numpy() for question in questions]
    flow_cases.perturb(flow, seed=5)
    for question, old in zip(questions, before):
        assert not np.allclose(question(images), old)
    features, log_det = flow.inverse_and_log_det(images)
    np.testing.assert_allclose(distribution.log_prob(images), normal_log_prob(features) + log_det, rtol=1e-10)


def test_a_traced_function_sees_changed_weights_without_a_new_trace():
    flow, images = flow_cases.make("checkerboard_even")
    log_prob = tf.function(
        lambda x: tfd.TransformedDistribution(standard_normal((4, 4, 1)), flow.bijector()).log_prob(x)
    )
    before = log_prob(images).numpy()
    flow_cases.perturb(flow, seed=5)
    features, log_det = flow.inverse_and_log_det(images)
    assert not np.allclose(before, log_prob(images))
    np.testing.assert_allclose(log_prob(images), normal_log_prob(features) + log_det, rtol=1e-10)
    assert log_prob.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("wrap", [lambda f: f, tf.function], ids=["eager", "graph"])
def test_a_density_in_training_is_that_of_the_batchs_statistics(wrap):
    """The forward direction, with its moving statistics, could not say the log-determinant of this inverse."""
    flow, images = flow_cases.make("batch_normalization")
    mean, variance = np.mean(images, axis=(0, 1, 2)), np.var(images, axis=(0, 1, 2))
    expected = normal_log_prob((images - mean) / np.sqrt(variance + 1e-4)) - 6 * np.sum(np.log(variance + 1e-4))
    old_mean = flow.moving_mean.numpy()

    def log_prob(x):
        return tfd.TransformedDistribution(standard_normal((4, 3, 3)), flow.bijector(training=True)).log_prob(x)

    np.testing.assert_allclose(wrap(log_prob)(images), expected, rtol=1e-10)
    # One density, one update.
    np.testing.assert_allclose(flow.moving_mean.value, 0.9 * old_mean + 0.1 * mean, rtol=1e-10)


def test_a_result_of_one_branch_is_not_given_to_another():
    """A tensor made within one branch of a condition does not exist outside of it."""
    flow, images = flow_cases.make("checkerboard_even")

    @tf.function
    def in_branches(x, negative):
        bijector = flow.bijector()
        y = tf.cond(negative, lambda: -bijector.inverse(x), lambda: bijector.inverse(x))
        return y, bijector.inverse_log_det_jacobian(x, event_ndims=3)

    features, log_det = flow.inverse_and_log_det(images)
    for negative, sign in ((tf.constant(True), -1), (tf.constant(False), 1)):
        y, ildj = in_branches(images, negative)
        np.testing.assert_allclose(y, sign * features, rtol=1e-10)
        np.testing.assert_allclose(ildj, log_det, rtol=1e-10)


@pytest.mark.parametrize("name", ["checkerboard_even", "squeeze"])
def test_several_batch_dimensions_or_none(name):
    flow, _ = flow_cases.make(name)
    shape = flow_cases.CASES[name][1]
    images = flow_cases.batch(shape, size=6)
    features, log_det = flow.inverse_and_log_det(images)
    bijector = flow.bijector()
    nested = tf.reshape(images, [2, 3, *shape])
    np.testing.assert_allclose(bijector.inverse(nested), tf.reshape(features, [2, 3, *features.shape[1:]]))
    np.testing.assert_allclose(bijector.inverse_log_det_jacobian(nested), tf.reshape(log_det, [2, 3]))
    summed = np.sum(np.reshape(log_det, [2, 3]), axis=1)
    np.testing.assert_allclose(bijector.inverse_log_det_jacobian(nested, event_ndims=4), summed)
    np.testing.assert_allclose(bijector.inverse(images[0]), features[0])
    np.testing.assert_allclose(bijector.inverse_log_det_jacobian(images[0]), log_det[0])
    np.testing.assert_allclose(bijector.forward(tf.identity(bijector.inverse(nested))), nested, atol=1e-10)


def test_gradients_reach_the_weights_through_the_density():
    flow, images = flow_cases.make("image_flow_one_scale")
    with tf.GradientTape() as tape:
        distribution = tfd.TransformedDistribution(standard_normal((4, 4, 3)), flow.bijector())
        loss = -tf.reduce_sum(distribution.log_prob(images))
    for weight, gradient in zip(flow.trainable_weights, tape.gradient(loss, [w.value for w in flow.trainable_weights])):
        assert gradient is not None and np.any(gradient != 0), weight.path


def test_a_bijector_is_fresh_and_the_flow_keeps_none():
    flow, _ = flow_cases.make("image_flow_one_scale")
    num_weights = len(flow.weights)
    assert flow.bijector() is not flow.bijector()
    assert len(flow.weights) == num_weights
    assert not any(isinstance(value, tfp.bijectors.Bijector) for value in vars(flow).values())
