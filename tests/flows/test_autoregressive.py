"""What the flow suite cannot ask of the inverse autoregressive flow: its order, its context, its sequential inverse."""

import flow_cases
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfcq.errors import UserError
from tfcq.flows import InverseAutoregressiveFlow
from tfcq.networks.convolutions import data_dependent_initialization

tfd = tfp.distributions

SHAPE, CONTEXT_CHANNELS = (2, 3, 2), 3
VECTOR = (1, 1, 5)


def make(shape=SHAPE, context_channels=CONTEXT_CHANNELS, dtype="float64", perturbed=True, size=3, **options):
    """A built flow, noise for it, and a context (None where it has no channels)."""
    flow = InverseAutoregressiveFlow(**{"width": 5, "layers": 2, "seed": 4, "dtype": dtype, **options})
    context_shape = None if context_channels is None else (*shape[:2], context_channels)
    flow.build((None, *shape), context_shape and (None, *context_shape))
    if perturbed:
        flow_cases.perturb(flow)
    dtype = "float64" if dtype == "float64" else "float32"
    noise = flow_cases.batch(shape, size, dtype=dtype)
    return flow, noise, context_shape and flow_cases.batch(context_shape, size, seed=8, dtype=dtype)


def repeated(context, noise):
    """The context of each row of `flow_cases.jacobian`'s repeated batch."""
    return None if context is None else tf.repeat(context, int(np.prod(noise.shape[1:])), axis=0)


@pytest.mark.parametrize(
    ("shape", "context_channels", "options"),
    [
        (SHAPE, None, {}),
        (SHAPE, CONTEXT_CHANNELS, {}),
        (SHAPE, 5, {"layers": 1}),
        (VECTOR, CONTEXT_CHANNELS, {}),
        (VECTOR, CONTEXT_CHANNELS, {"kernel_size": 1}),
        ((1, 1, 1), CONTEXT_CHANNELS, {}),
        ((1, 1, 1), None, {}),
    ],
)
def test_the_jacobian_is_triangular_and_says_the_log_determinant(shape, context_channels, options):
    flow, noise, context = make(shape, context_channels, **options)
    latents, log_scale = flow.transform(noise, context)
    jacobian = flow_cases.jacobian(lambda x: flow.transform(x, repeated(context, noise))[0], noise)
    np.testing.assert_array_equal(np.triu(jacobian, k=1), 0.0)
    dims = jacobian.shape[-1]
    assert dims == 1 or np.any(np.tril(jacobian, k=-1) != 0)
    diagonal = np.diagonal(jacobian, axis1=1, axis2=2)
    np.testing.assert_allclose(diagonal, np.exp(-np.reshape(log_scale, [3, dims])), rtol=1e-12)
    other_latents, log_det = flow.forward_and_log_det(tf.identity(noise), context=context)
    np.testing.assert_array_equal(other_latents, latents)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobian).logabsdet, rtol=1e-12)

    returned, inverse_log_scale = flow.inverse_transform(tf.identity(latents), context)
    np.testing.assert_allclose(returned, noise, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(inverse_log_scale, log_scale, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(flow.inverse_and_log_det(latents, context=context)[1], -log_det, rtol=1e-11)


def test_the_transform_is_that_of_the_paper():
    flow, noise, context = make()
    shift, log_scale = flow.network(noise, context)
    latents, returned_log_scale = flow.transform(noise, context)
    np.testing.assert_allclose(latents, (noise.numpy() - shift) / np.exp(log_scale), rtol=1e-12)
    np.testing.assert_array_equal(returned_log_scale, log_scale)


def test_the_inverse_has_the_gradients_of_the_inverse_function():
    """Through the loop, with respect to latents, context and weights: J^-1 and -J^-1 dlatents, J the transform's."""
    flow, noise, context = make((1, 1, 3), size=1)
    bias = flow.network.last.bias

    def jacobians(function, inputs):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([inputs, context])
            outputs = tf.reshape(function(inputs, context)[0], [-1])
        # pfor would vectorise the unrolled loop, which takes longer than three backward passes.
        return [
            tape.jacobian(outputs, source, experimental_use_pfor=False).numpy().reshape(3, -1)
            for source in (inputs, context, bias.value)
        ]

    by_noise, by_context, by_bias = jacobians(flow.transform, noise)
    inverse = np.linalg.inv(by_noise)
    latents = tf.identity(flow.transform(noise, context)[0])
    of_inverse = jacobians(flow.inverse_transform, latents)
    for result, expected in zip(of_inverse, (inverse, -inverse @ by_context, -inverse @ by_bias)):
        assert np.any(expected != 0)
        np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-12)


def test_wild_scales_are_undone():
    flow, noise, context = make(perturbed=False)
    flow.network.last.magnitude.assign(tf.fill([4], tf.constant(200.0, tf.float64)))
    latents, log_scale = flow.transform(noise, context)
    assert np.max(np.abs(log_scale)) == 3  # the network's limit
    np.testing.assert_allclose(flow.inverse_transform(tf.identity(latents), context)[0], noise, rtol=1e-6, atol=1e-6)


class BlowsUpAtZero:
    """A network whose second scale overflows while the first value is not known yet."""

    def check_context(self, latents, context):
        pass

    def __call__(self, noise, context):
        first = noise[..., :1]
        return tf.zeros_like(noise), tf.concat([tf.zeros_like(first), 2000.0 * (1.0 - first)], axis=-1)


def test_what_is_not_known_yet_reaches_neither_values_nor_gradients():
    flow, _, _ = make((1, 1, 2), None)
    flow.network = BlowsUpAtZero()
    latents = tf.ones([1, 1, 1, 2], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(latents)
        noise, log_scale = flow.inverse_transform(latents)
    np.testing.assert_array_equal(noise, latents)
    np.testing.assert_array_equal(log_scale, tf.zeros_like(latents))
    # noise_2 = latent_2 exp(2000 (1 - latent_1))
    np.testing.assert_allclose(tape.gradient(noise, latents)[0, 0, 0], [1.0 - 2000.0, 1.0])


def test_the_context_moves_the_latents_and_gets_a_gradient():
    flow, noise, context = make()
    for method in (flow.forward_and_log_det, flow.inverse_and_log_det):
        with tf.GradientTape() as tape:
            tape.watch(context)
            outputs, log_det = method(noise, context=context)
            loss = tf.reduce_sum(outputs**2) + tf.reduce_sum(log_det**2)
        weights = [weight.value for weight in flow.trainable_weights]
        assert len(weights) == 4 * 3 and not np.allclose(outputs, method(noise, context=context + 1.0)[0])
        assert np.all(tape.gradient(loss, context)[:, 0, 0] != 0)


def test_every_weight_learns_with_a_context():
    flow, noise, context = make(perturbed=False)
    for method in (flow.forward_and_log_det, flow.inverse_and_log_det):
        with tf.GradientTape() as tape:
            outputs, log_det = method(noise, context=context)
            loss = tf.reduce_sum((outputs - 1.0) ** 2) + tf.reduce_sum(log_det)
        gradients = tape.gradient(loss, [weight.value for weight in flow.trainable_weights])
        for weight, gradient in zip(flow.trainable_weights, gradients):
            assert np.all(np.isfinite(gradient)) and np.any(gradient != 0), weight.path


def test_a_call_decides_whether_there_is_a_context_and_makes_the_same_weights():
    expected, noise, context = make(perturbed=False)
    for first_call in (
        lambda flow: flow.transform(noise, context)[0],
        lambda flow: flow.with_context(context).forward_and_log_det(noise)[0],
        lambda flow: flow.bijector(context=context).forward(noise),
        lambda flow: (flow(noise, context=context), flow.transform(noise, context))[1][0],
    ):
        flow = InverseAutoregressiveFlow(width=5, layers=2, seed=4, dtype="float64")
        np.testing.assert_array_equal(first_call(flow), expected.transform(noise, context)[0])
        assert len(flow.weights) == len(expected.weights) == 12


def test_another_seed_is_another_flow():
    assert not np.allclose(make(seed=4)[0].weights[0].value, make(seed=5)[0].weights[0].value)


@pytest.mark.parametrize("wrap", [lambda f: f, tf.function], ids=["eager", "graph"])
def test_the_bijector_of_a_context_makes_a_distribution(wrap):
    flow, noise, context = make()
    latents, log_scale = flow.transform(noise, context)
    base = tfd.Independent(tfd.Normal(tf.zeros(SHAPE, tf.float64), tf.ones([], tf.float64)), 3)
    expected = base.log_prob(noise) + tf.reduce_sum(log_scale, axis=[1, 2, 3])

    def log_prob(value, context):
        return tfd.TransformedDistribution(base, flow.bijector(context=context)).log_prob(value)

    np.testing.assert_allclose(wrap(log_prob)(tf.identity(latents), context), expected, rtol=1e-10)


def test_samples_of_several_shapes_share_the_context():
    flow, _, context = make()
    noise = flow_cases.batch(SHAPE, 6)
    expected, log_scale = flow.transform(noise, tf.concat([context, context], axis=0))
    bijector = flow.bijector(context=context)
    nested = tf.reshape(noise, [2, 3, *SHAPE])
    np.testing.assert_allclose(bijector.forward(nested), tf.reshape(expected, [2, 3, *SHAPE]), rtol=1e-12)
    log_det = bijector.forward_log_det_jacobian(nested, event_ndims=3)
    np.testing.assert_allclose(log_det, -tf.reshape(tf.reduce_sum(log_scale, [1, 2, 3]), [2, 3]), rtol=1e-12)
    with pytest.raises(UserError, match="4 rows and a context of 3"):
        bijector.forward(noise[:4])


@pytest.mark.parametrize("shape", [SHAPE, VECTOR])
def test_a_graph_of_unknown_batch_runs_the_network_once_an_ask(shape):
    flow, noise, context = make(shape, dtype="float32")
    specs = [tf.TensorSpec((None, *value.shape[1:])) for value in (noise, context)]

    def num_convolutions(function):
        operations = list(function.graph.get_operations())
        for inner in function.graph._functions.values():
            operations += inner.graph.get_operations() if hasattr(inner, "graph") else []
        return sum(operation.type == "Conv2D" for operation in operations)

    forward = tf.function(flow.transform).get_concrete_function(*specs)
    assert [tuple(output.shape) for output in forward.outputs] == [(None, *shape)] * 2
    assert num_convolutions(forward) == 4  # first, context, one more, last
    inverse = tf.function(flow.inverse_transform).get_concrete_function(*specs)
    assert [tuple(output.shape) for output in inverse.outputs] == [(None, *shape)] * 2
    view = tf.function(lambda x, c: flow.with_context(c).inverse_and_log_det(x)).get_concrete_function(*specs)
    expected = flow.transform(noise, context)
    for size in (1, 3):
        latents, log_scale = forward(noise[:size], context[:size])
        np.testing.assert_allclose(latents, expected[0][:size], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(log_scale, expected[1][:size], rtol=1e-4, atol=1e-5)
        returned, _ = inverse(latents, context[:size])
        np.testing.assert_allclose(returned, noise[:size], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(view(latents, context[:size])[0], returned, rtol=1e-4, atol=1e-5)


def test_gradients_through_the_loop_are_the_same_in_a_graph():
    flow, noise, context = make()
    weights = [weight.value for weight in flow.trainable_weights]

    def gradients(latents, context):
        with tf.GradientTape() as tape:
            outputs, log_det = flow.inverse_and_log_det(latents, context=context)
            loss = tf.reduce_sum(outputs**2) + tf.reduce_sum(log_det)
        return tape.gradient(loss, weights)

    for eager, traced in zip(gradients(noise, context), tf.function(gradients)(noise, context)):
        np.testing.assert_allclose(traced, eager, rtol=1e-9, atol=1e-12)


def test_half_precision_stays_in_the_network():
    flow, noise, context = make(dtype="mixed_bfloat16")
    latents, log_scale = flow.transform(noise, tf.cast(context, tf.bfloat16))
    assert latents.dtype == log_scale.dtype == tf.float32
    assert all(weight.dtype == "float32" for weight in flow.weights)
    returned, _ = flow.inverse_transform(tf.identity(latents), tf.cast(context, tf.bfloat16))
    np.testing.assert_allclose(returned, noise, rtol=1e-2, atol=1e-2)
    exact, noise, context = make(dtype="float32")
    np.testing.assert_allclose(latents, exact.transform(noise, context)[0], rtol=0.1, atol=0.1)


def test_a_checkpoint_holds_the_contexts_convolution_too(tmp_path):
    flow, noise, context = make(layers=3)
    path = tf.train.Checkpoint(flow=flow).write(str(tmp_path / "flow"))
    assert len([name for name, _ in tf.train.list_variables(path) if "VARIABLE_VALUE" in name]) >= 15
    other, _, _ = make(layers=3, perturbed=False, seed=9)
    tf.train.Checkpoint(flow=other).read(path).assert_consumed()
    for value, restored in zip(flow.transform(noise, context), other.transform(noise, context)):
        np.testing.assert_array_equal(value, restored)


def test_data_dependent_initialization_goes_through_transform():
    flow, _, _ = make((4, 4, 3), perturbed=False)
    noise = 5.0 + 3.0 * flow_cases.batch((4, 4, 3), 32)
    context = 10.0 * flow_cases.batch((4, 4, 3), 32, seed=1)
    with data_dependent_initialization() as layers:
        flow.transform(noise, context)
    assert len(layers) == 4
    for output in flow.network(noise, context):
        np.testing.assert_allclose(np.mean(output, axis=(0, 1, 2)), 0, atol=1e-9)
        np.testing.assert_allclose(np.std(output, axis=(0, 1, 2)), 0.1, rtol=1e-9)


def test_contexts_that_do_not_fit_are_refused_in_one_line():
    flow, noise, context = make()
    plain, _, _ = make(context_channels=None)
    for refused, message in (
        (lambda: flow.transform(noise), "got no context"),
        (lambda: flow.inverse_transform(noise), "got no context"),
        (lambda: flow.bijector().forward(noise), "got no context"),
        (lambda: plain.transform(noise, context), "built for no context, got a context of 3"),
        (lambda: flow.transform(noise, context[..., :2]), "got a context of 2"),
        (lambda: flow.transform(noise, context[:, :1]), "batch, height and width"),
        (lambda: flow.transform(noise, context[:, 0]), r"context of shape \[N, H, W, C\]"),
    ):
        with pytest.raises(UserError, match=message) as raised:
            refused()
        assert "\n" not in str(raised.value)
