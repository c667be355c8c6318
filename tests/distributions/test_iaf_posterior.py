"""The IAF posterior against the change of variables in NumPy float64, by autodiff Jacobians, and by quadrature."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfcq.distributions.iaf_posterior import IAFPosterior
from tfcq.errors import UserError
from tfcq.flows import InverseAutoregressiveFlow
from tfcq.randomness import RowNoise, row_seeds

tfd = tfp.distributions

MAP, VECTOR = (2, 3, 2), (1, 1, 4)
every_shape = pytest.mark.parametrize("shape", [MAP, VECTOR])


def make(shape=MAP, dtype="float64", size=3, with_context=True, **options):
    """A flow away from its start, and loc, scale, context and noise for it."""
    generator = np.random.default_rng(5)
    flow = InverseAutoregressiveFlow(**{"width": 5, "layers": 2, "dtype": dtype, **options})
    context_shape = (*shape[:2], 3)
    flow.build((None, *shape), (None, *context_shape) if with_context else None)
    for weight in flow.weights:
        weight.assign(weight.numpy() + generator.normal(0.0, 0.4, weight.shape))
    dtype = "float64" if dtype == "float64" else "float32"
    loc, scale, noise = (tf.constant(generator.normal(size=(size, *shape)), dtype) for _ in range(3))
    context = tf.constant(generator.normal(size=(size, *context_shape)), dtype) if with_context else None
    return flow, loc, tf.exp(0.5 * scale), context, noise


def jacobians(function, inputs):
    """`[N, D, D]`: d outputs / d inputs of each row, by autodiff."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = function(inputs)
    dims = int(np.prod(inputs.shape[1:]))
    return tape.batch_jacobian(outputs, inputs).numpy().reshape(-1, dims, dims)


@every_shape
@pytest.mark.parametrize("with_context", [True, False])
def test_log_q_is_the_change_of_variables(shape, with_context):
    flow, loc, scale, context, noise = make(shape, with_context=with_context)
    posterior = IAFPosterior(loc, scale, flow, context)
    latents, log_prob = posterior.draw_with_log_prob(noise)
    assert latents.shape == log_prob.shape == noise.shape
    log_det = np.linalg.slogdet(jacobians(posterior.draw, noise)).logabsdet
    base = np.sum(-0.5 * noise.numpy() ** 2 - 0.5 * np.log(2 * np.pi), axis=(1, 2, 3))
    np.testing.assert_allclose(np.sum(log_prob, axis=(1, 2, 3)), base - log_det, rtol=1e-11)
    np.testing.assert_allclose(posterior.log_prob(tf.identity(latents)), base - log_det, rtol=1e-10)


@every_shape
def test_each_entry_is_a_conditional_density(shape):
    """Entry i is log q(latent i | latents before it), whose slope by noise i is on the Jacobian's diagonal."""
    flow, loc, scale, context, noise = make(shape)
    posterior = IAFPosterior(loc, scale, flow, context)
    slopes = np.diagonal(jacobians(posterior.draw, noise), axis1=1, axis2=2).reshape(noise.shape)
    expected = -0.5 * noise.numpy() ** 2 - 0.5 * np.log(2 * np.pi) - np.log(slopes)
    np.testing.assert_allclose(posterior.draw_with_log_prob(noise)[1], expected, rtol=1e-10, atol=1e-12)


def test_a_flow_that_is_the_identity_leaves_the_gaussian():
    flow, loc, scale, context, noise = make()
    for weight in (flow.network.last.magnitude, flow.network.last.bias):
        weight.assign(tf.zeros_like(weight.value))
    posterior = IAFPosterior(loc, scale, flow, context)
    latents, log_prob = posterior.draw_with_log_prob(noise)
    np.testing.assert_allclose(latents, loc + scale * noise, rtol=1e-12)
    np.testing.assert_allclose(log_prob, tfd.Normal(loc, scale).log_prob(latents), rtol=1e-9, atol=1e-12)
    others = loc + 1.5
    expected = tfd.Independent(tfd.Normal(loc, scale), 3).log_prob(others)
    np.testing.assert_allclose(posterior.log_prob(others), expected, rtol=1e-10)


def test_the_density_of_given_latents_integrates_to_one():
    flow, _, _, context, _ = make((1, 1, 2), size=1, kernel_size=1)
    flow.network.last.magnitude.assign(tf.fill([4], tf.constant(6.0, tf.float64)))
    loc, scale = (tf.fill([1, 1, 1, 2], tf.constant(value, tf.float64)) for value in (0.3, 0.7))
    axis = np.linspace(-15.0, 15.0, 401)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 1, 1, 1, 2)
    density = np.exp(IAFPosterior(loc, scale, flow, context).log_prob(tf.constant(grid))).reshape(401, 401)
    assert np.max(density[[0, -1]]) < 1e-8 and np.max(density[:, [0, -1]]) < 1e-8
    np.testing.assert_allclose(np.trapezoid(np.trapezoid(density, axis), axis), 1.0, rtol=1e-6)
    # It is no Gaussian: the second latent depends on the first in a bent way.
    centre = np.abs(axis) < 1.5
    conditional_mean = np.sum(density * axis, axis=1)[centre] / np.sum(density, axis=1)[centre]
    line = np.polyval(np.polyfit(axis[centre], conditional_mean, 1), axis[centre])
    assert np.max(np.abs(conditional_mean - line)) > 0.01


def test_the_context_and_the_parameters_get_gradients():
    flow, loc, scale, context, noise = make()
    sources = {"loc": loc, "scale": scale, "context": context}

    def loss_of_draw(posterior):
        latents, log_prob = posterior.draw_with_log_prob(noise)
        return tf.reduce_sum(latents**2) + tf.reduce_sum(log_prob)

    for loss_of in (loss_of_draw, lambda posterior: tf.reduce_sum(posterior.log_prob(noise))):
        with tf.GradientTape() as tape:
            tape.watch(sources)
            loss = loss_of(IAFPosterior(loc, scale, flow, context))
        of_sources, of_weights = tape.gradient(loss, (sources, [weight.value for weight in flow.trainable_weights]))
        for gradient in (*of_sources.values(), *of_weights):
            assert np.all(np.isfinite(gradient)) and np.any(gradient != 0)
    before = IAFPosterior(loc, scale, flow, context).draw(noise)
    assert not np.allclose(before, IAFPosterior(loc, scale, flow, context + 1.0).draw(noise))


def test_weights_that_change_are_seen():
    flow, loc, scale, context, noise = make()
    posterior = IAFPosterior(loc, scale, flow, context)
    before = posterior.draw(noise).numpy(), posterior.log_prob(noise).numpy()
    flow.network.last.bias.assign_add(tf.ones(4, tf.float64))
    after = posterior.draw(noise).numpy(), posterior.log_prob(noise).numpy()
    assert not np.allclose(before[0], after[0]) and not np.allclose(before[1], after[1])


@every_shape
def test_a_graph_of_unknown_batch_gives_the_same(shape):
    flow, *inputs = make(shape, "float32")

    def draw(loc, scale, context, noise):
        posterior = IAFPosterior(loc, scale, flow, context)
        latents, log_prob = posterior.draw_with_log_prob(noise)
        return latents, log_prob, posterior.log_prob(tf.identity(latents))

    specs = [tf.TensorSpec((None, *value.shape[1:])) for value in inputs]
    function = tf.function(draw).get_concrete_function(*specs)
    assert [tuple(output.shape) for output in function.outputs] == [(None, *shape), (None, *shape), (None,)]
    eager = draw(*inputs)
    for size in (1, 3):
        for value, expected in zip(function(*(value[:size] for value in inputs)), eager):
            np.testing.assert_allclose(value, expected[:size], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(np.sum(eager[1], axis=(1, 2, 3)), eager[2], rtol=1e-4, atol=1e-4)


def test_several_latents_a_row_are_scored_with_their_rows_context():
    flow, loc, scale, context, noise = make()
    posterior = IAFPosterior(loc, scale, flow, context)
    latents = tf.stack([noise, noise[::-1]])
    expected = [posterior.log_prob(tf.identity(values)) for values in (noise, noise[::-1])]
    np.testing.assert_allclose(posterior.log_prob(latents), expected, rtol=1e-10)
    # One row's latents are not another's.
    assert not np.allclose(expected[0], expected[1][::-1])


def test_tfp_knows_its_shapes_and_dtype():
    flow, loc, scale, context, _ = make(dtype="float32")
    posterior = IAFPosterior(loc, scale, flow, context)
    assert posterior.batch_shape == (3,) and posterior.event_shape == MAP
    np.testing.assert_array_equal(posterior.batch_shape_tensor(), [3])
    np.testing.assert_array_equal(posterior.event_shape_tensor(), MAP)
    assert posterior.dtype == tf.float32 and posterior.name == "iaf_posterior"
    assert posterior.loc is not None and np.array_equal(posterior.scale, scale)


def test_half_precision_parameters_are_cast_up():
    flow, *inputs = make(dtype="mixed_bfloat16")
    half = [tf.cast(value, tf.bfloat16) for value in inputs]
    latents, log_prob = IAFPosterior(half[0], half[1], flow, half[2]).draw_with_log_prob(inputs[3])
    assert latents.dtype == log_prob.dtype == tf.float32


def test_a_row_of_our_noise_gives_one_draw_alone_or_in_a_batch():
    flow, loc, scale, context, _ = make(dtype="float32")
    seeds = row_seeds(3)
    together = IAFPosterior(loc, scale, flow, context).draw(RowNoise(seeds).normal(MAP, 0))
    alone = IAFPosterior(loc[1:2], scale[1:2], flow, context[1:2]).draw(RowNoise(seeds[1:2]).normal(MAP, 0))
    np.testing.assert_allclose(alone, together[1:2], rtol=1e-5, atol=1e-6)


def test_tfps_own_noise_is_refused():
    flow, loc, scale, context, _ = make()
    with pytest.raises(UserError, match=r"draw\(noise\)"):
        IAFPosterior(loc, scale, flow, context).sample(seed=1)


@pytest.mark.parametrize(
    ("loc_shape", "scale_shape"), [((3, 4), (3, 4)), ((3, 2, 3, 2), (3, 2, 3, 1)), ((3, 2, 3, 2), ())]
)
def test_shapes_that_are_not_of_maps_are_refused(loc_shape, scale_shape):
    flow, *_ = make()
    with pytest.raises(UserError, match=r"\[N, H, W, C\]"):
        IAFPosterior(tf.zeros(loc_shape), tf.ones(scale_shape), flow)
