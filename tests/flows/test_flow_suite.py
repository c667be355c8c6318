"""What every flow layer promises, checked on every flow layer, with weights away from their start.

Inputs of a second call are copies (`tf.identity`) and nothing goes through TFP here: no cache can answer for the flow.
"""

import importlib
import inspect
import pkgutil

import flow_cases
import keras
import numpy as np
import pytest
import tensorflow as tf

import tfcq.flows
from tfcq.errors import UserError

every_flow = pytest.mark.parametrize("name", flow_cases.CASES)


def test_every_public_flow_is_in_the_suite():
    public = set()
    for module in pkgutil.iter_modules(tfcq.flows.__path__, "tfcq.flows."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if inspect.isclass(value) and issubclass(value, tfcq.flows.Flow) and not name.startswith("_"):
                public.add(value)
    registered = {type(factory("float64", 0)) for factory, _ in flow_cases.CASES.values()}
    assert public - {tfcq.flows.Flow} == registered


@every_flow
def test_round_trips(name):
    flow, images = flow_cases.make(name)
    features, _ = flow.inverse_and_log_det(images)
    assert features.shape == (5, *flow.features_shape(images.shape[1:]))
    assert flow.images_shape(features.shape[1:]) == tuple(images.shape[1:])
    np.testing.assert_allclose(flow.forward_and_log_det(tf.identity(features))[0], images, rtol=1e-9, atol=1e-9)
    others = flow_cases.batch(tuple(features.shape[1:]), seed=11)
    np.testing.assert_allclose(
        flow.inverse_and_log_det(tf.identity(flow.forward_and_log_det(others)[0]))[0], others, rtol=1e-9, atol=1e-9
    )


@every_flow
def test_log_det_is_that_of_the_jacobian(name):
    flow, images = flow_cases.make(name)
    features, log_det = flow.inverse_and_log_det(images[:2])
    assert log_det.shape == (2,)
    expected = np.linalg.slogdet(flow_cases.jacobian(lambda x: flow.inverse_and_log_det(x)[0], images[:2]))
    np.testing.assert_allclose(log_det, expected.logabsdet, rtol=1e-9, atol=1e-9)

    forward_log_det = flow.forward_and_log_det(tf.identity(features))[1]
    assert forward_log_det.shape == (2,)
    np.testing.assert_allclose(forward_log_det, -log_det, rtol=1e-9, atol=1e-9)
    expected = np.linalg.slogdet(flow_cases.jacobian(lambda x: flow.forward_and_log_det(x)[0], features))
    np.testing.assert_allclose(forward_log_det, expected.logabsdet, rtol=1e-9, atol=1e-9)


@every_flow
def test_shapes_are_known_in_graphs_and_values_do_not_depend_on_the_batch(name):
    flow, images = flow_cases.make(name, "float32")
    shape = tuple(images.shape[1:])
    inverse = tf.function(flow.inverse_and_log_det)
    known = inverse.get_concrete_function(tf.TensorSpec((5, *shape))).structured_outputs
    assert [tuple(value.shape) for value in known] == [(5, *flow.features_shape(shape)), (5,)]
    unknown = inverse.get_concrete_function(tf.TensorSpec((None, *shape)))
    features, log_det = unknown.structured_outputs
    assert tuple(features.shape) == (None, *flow.features_shape(shape)) and log_det.shape.rank == 1
    assert features.dtype == log_det.dtype == tf.float32

    eager_features, eager_log_det = flow.inverse_and_log_det(images)
    for size in (1, 5):
        features, log_det = unknown(images[:size])
        np.testing.assert_allclose(features, eager_features[:size], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(log_det, eager_log_det[:size], rtol=1e-4, atol=1e-4)


@every_flow
def test_a_gradient_reaches_every_weight(name):
    flow, images = flow_cases.make(name)
    assert_gradients(flow, flow.inverse_and_log_det, images)
    assert_gradients(flow, flow.forward_and_log_det, flow_cases.batch(flow.features_shape(images.shape[1:])))


def assert_gradients(flow, method, inputs):
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs, log_det = method(inputs)
        loss = tf.reduce_sum(outputs**2 + tf.sin(outputs)) + tf.reduce_sum(log_det**2)
    weights = flow.trainable_weights
    *of_weights, of_inputs = tape.gradient(loss, [*(weight.value for weight in weights), inputs])
    assert np.all(np.isfinite(of_inputs)) and np.any(of_inputs != 0)
    for weight, gradient in zip(weights, of_weights):
        assert gradient is not None, f"no gradient of {weight.path}"
        assert np.all(np.isfinite(gradient)) and np.any(gradient != 0), f"zero gradient of {weight.path}"


@pytest.mark.parametrize("normalization", ["actnorm", "batch", "none"])
def test_one_step_from_the_start_every_weight_learns(normalization):
    flow = tfcq.flows.ImageFlow(2, 2, 1, 4, normalization, dtype="float64")
    images = flow_cases.batch((4, 4, 1), size=8)
    flow.initialize(images)
    weights = [weight.value for weight in flow.trainable_weights]

    def gradients():
        with tf.GradientTape() as tape:
            features, log_det = flow.inverse_and_log_det(images)
            # A target away from zero: after the initialisation, features of mean zero would already be a minimum.
            loss = tf.reduce_mean(tf.reduce_sum((features - 1.0) ** 2, axis=[1, 2, 3]) - log_det)
        return tape.gradient(loss, weights)

    for weight, gradient in zip(weights, gradients()):
        weight.assign_sub(0.01 * gradient)
    for weight, gradient in zip(flow.trainable_weights, gradients()):
        assert np.any(gradient != 0), f"zero gradient of {weight.path}"


@every_flow
def test_weights_are_read_at_every_call(name):
    flow, images = flow_cases.make(name)
    if not flow.trainable_weights:
        assert name in ("permutation", "batch_normalization", "chain_empty", "image_flow_no_scale") or "squeeze" in name
        return
    before = flow.inverse_and_log_det(images)[0].numpy(), flow.forward_and_log_det(images_like(flow, images))[0].numpy()
    flow_cases.perturb(flow, seed=5)
    after = flow.inverse_and_log_det(images)[0].numpy(), flow.forward_and_log_det(images_like(flow, images))[0].numpy()
    assert not np.allclose(before[0], after[0]) and not np.allclose(before[1], after[1])


def images_like(flow, images):
    return tf.reshape(images, [-1, *flow.features_shape(images.shape[1:])])


@every_flow
def test_sampling_changes_nothing_and_ignores_training(name):
    flow, images = flow_cases.make(name)
    features = images_like(flow, images)
    before = [weight.numpy() for weight in flow.weights]
    outputs = flow.forward_and_log_det(features, training=True)
    for weight, value in zip(flow.weights, before):
        np.testing.assert_array_equal(weight.value, value)
    for training, inference in zip(outputs, flow.forward_and_log_det(features, training=False)):
        np.testing.assert_array_equal(training, inference)


@every_flow
def test_a_checkpoint_brings_everything_back(name, tmp_path):
    flow, images = flow_cases.make(name)
    expected = flow.inverse_and_log_det(images)
    path = tf.train.Checkpoint(flow=flow).write(str(tmp_path / "flow"))
    # Another seed: whatever is drawn at the start, a permutation too, must come from the checkpoint.
    other, _ = flow_cases.make(name, seed=1, perturbed=False)
    if flow.weights:
        assert any(np.any(np.not_equal(a.value, b.value)) for a, b in zip(flow.weights, other.weights))
    tf.train.Checkpoint(flow=other).read(path).assert_consumed()
    for value, restored in zip(expected, other.inverse_and_log_det(images)):
        np.testing.assert_array_equal(value, restored)


@every_flow
def test_one_seed_gives_one_flow_and_names_are_unique(name):
    flow, _ = flow_cases.make(name, perturbed=False)
    again, _ = flow_cases.make(name, perturbed=False)
    for first, second in zip(flow.weights, again.weights):
        np.testing.assert_array_equal(first.value, second.value)
    paths = [weight.path for weight in flow.weights]
    assert len(set(paths)) == len(paths)


@every_flow
def test_initialize_returns_the_features_of_the_initialized_flow(name):
    flow, images = flow_cases.make(name, perturbed=False)
    features = flow.initialize(images)
    np.testing.assert_allclose(features, flow.inverse_and_log_det(images)[0], rtol=1e-9, atol=1e-9)
    with pytest.raises(UserError, match="eagerly"):
        tf.function(flow.initialize, autograph=False)(images)


@every_flow
def test_half_precision_stays_in_the_networks(name):
    flow, images = flow_cases.make(name, "mixed_bfloat16")
    features, log_det = flow.inverse_and_log_det(images)
    assert features.dtype == log_det.dtype == tf.float32
    assert all(weight.dtype in ("float32", "int32") for weight in flow.weights)
    returned, _ = flow.forward_and_log_det(tf.identity(features))
    # Both directions run a network on the same half, so that its rounding is undone.
    np.testing.assert_allclose(returned, images, rtol=1e-4, atol=1e-4)


class CallsAFlow(keras.layers.Layer):
    """A half-precision network around a flow: what surrounds it must not reach into the transform."""

    def __init__(self, flow, **kwargs):
        super().__init__(**kwargs)
        self.flow = flow

    def call(self, seed):
        return self.flow.inverse_and_log_det(tf.random.stateless_normal([5, 4, 4, 3], seed))


def test_no_autocast_reaches_the_transform():
    flow, _ = flow_cases.make("image_flow_one_scale", "mixed_bfloat16")
    images = tf.random.stateless_normal([5, 4, 4, 3], [0, 1])
    expected = flow.inverse_and_log_det(images)
    for results in (flow(images), CallsAFlow(flow, dtype="mixed_bfloat16")(tf.constant([0, 1]))):
        for value, result in zip(expected, results):
            assert result.dtype == tf.float32
            np.testing.assert_array_equal(result, value)


def test_the_networks_of_a_half_precision_flow_are_in_half_precision():
    flow, images = flow_cases.make("checkerboard_even", "mixed_bfloat16")
    graph = tf.function(flow.inverse_and_log_det).get_concrete_function(images).graph
    dtypes = {operation.outputs[0].dtype for operation in graph.get_operations() if operation.type == "Conv2D"}
    assert dtypes == {tf.bfloat16}


@pytest.mark.parametrize("shape", [(4, 4, 1), (None, 4, 4, None)])
def test_a_shape_that_is_not_of_images_is_refused(shape):
    flow = tfcq.flows.ActNorm()
    with pytest.raises(UserError, match=r"\[N, H, W, C\]"):
        tf.function(flow.inverse_and_log_det).get_concrete_function(tf.TensorSpec(shape))
