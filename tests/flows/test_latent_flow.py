"""The flow of latent vectors: autodiff Jacobians, the formula in NumPy, permutations that survive a reload.

In float64, as the suite of the other flows: in float32 what rounding leaves of the determinant of an ill-conditioned Jacobian
depends on the processor's kernels. How exact float32 is has a test of its own.
"""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfcq.flows.latent_flow import LOG_SCALE_LIMIT, LatentFlow, weight_decay
from tfcq.flows.permutation import Permute


def flow_of(dim=5, blocks=2, seed=3, scale=0.2, dtype="float64"):
    flow, random = LatentFlow(dim, blocks, units=6, layers=2, seed=seed, dtype=dtype), np.random.RandomState(0)
    for variable in flow.trainable_variables:
        variable.assign(variable.numpy() + scale * random.standard_normal(variable.shape))
    return flow


def rows(count, dim, seed=0):
    return np.random.RandomState(seed).standard_normal((count, dim))


@pytest.mark.parametrize("dim", [2, 5, 8])
@pytest.mark.parametrize("blocks", [1, 3])
def test_log_determinants_are_those_of_autodiff_jacobians(dim, blocks):
    flow, noise = flow_of(dim, blocks), tf.constant(rows(4, dim))
    for function, log_det, inputs in (
        (lambda x: flow.bijector().forward(x), flow.bijector().forward_log_det_jacobian(noise, 1), noise),
        (lambda x: flow.bijector().inverse(x), flow.bijector().inverse_log_det_jacobian(noise, 1), noise),
    ):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = function(inputs)
        jacobians = tape.batch_jacobian(outputs, inputs).numpy()
        assert np.abs(jacobians - np.eye(dim)).max() > 0.1  # no identity, which would prove nothing
        np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobians)[1], rtol=1e-9, atol=1e-9)


def test_float32_is_as_exact_as_its_inputs():
    """Rounding the inputs moves a density by half an epsilon of its condition; what the layers round is a few times as much.

    Relative to the density itself it is up to 260 epsilons, where terms cancel. 16 is 4 times the most that any kernel gave.
    """
    exact, flow = flow_of(8, 3), flow_of(8, 3, dtype="float32")
    for weight, value in zip(flow.weights, exact.weights, strict=True):
        weight.assign(value.numpy())
    latents = tf.constant(rows(64, 8))
    with tf.GradientTape() as tape:
        tape.watch(latents)
        expected = exact.distribution().log_prob(latents)
    condition = np.abs(latents * tape.gradient(expected, latents)).sum(1) + np.abs(expected)
    received = flow.distribution().log_prob(tf.cast(latents, tf.float32)).numpy()
    assert received.dtype == np.float32
    assert np.all(np.abs(received - expected) <= 16 * np.finfo(np.float32).eps * condition)


def flow_order(flow):
    """The order that a flow's permutations alone would leave noise in."""
    order = np.arange(flow.dim)
    for block in reversed(range(flow.blocks)):
        order = order[getattr(flow, f"permutation_{block}").numpy()]
    return order


def test_forward_and_inverse_undo_each_other():
    flow, noise = flow_of(7, 4, scale=0.1), rows(50, 7)
    latents = flow.bijector().forward(noise)
    np.testing.assert_allclose(flow.bijector().inverse(tf.identity(latents)), noise, rtol=1e-9, atol=1e-9)
    assert np.abs(latents - noise[:, flow_order(flow)]).max() > 0.1  # more than permutations


def test_one_block_is_the_formula_in_numpy():
    """Towards noise: undo the first coupling, then the second, then the permutation."""
    flow = flow_of(5, 1)
    latents = rows(6, 5, seed=1)

    def network(index, inputs):
        weights = {name: value.numpy() for name, value in layers(flow, index).items()}
        for layer in ("hidden_0", "hidden_1"):
            inputs = np.maximum(inputs @ weights[f"{layer}/kernel"] + weights[f"{layer}/bias"], 0.0)
        return np.split(inputs @ weights["outputs/kernel"] + weights["outputs/bias"], 2, axis=1)

    value, log_det = latents.copy(), 0.0
    for index, kept, moved in ((0, slice(0, 2), slice(2, 5)), (1, slice(2, 5), slice(0, 2))):
        shift, raw = network(index, value[:, kept])
        log_scale = LOG_SCALE_LIMIT * np.tanh(raw / LOG_SCALE_LIMIT)
        value[:, moved] = (value[:, moved] - shift) * np.exp(-log_scale)
        log_det = log_det - log_scale.sum(1)
    permutation = flow.permutation_0.numpy()
    noise = np.empty_like(value)
    noise[:, permutation] = value  # forward takes noise[permutation]
    bijector = flow.bijector()
    np.testing.assert_allclose(bijector.inverse(latents), noise, rtol=1e-10)
    expected = log_det - 0.5 * (noise**2).sum(1) - 2.5 * np.log(2.0 * np.pi)
    np.testing.assert_allclose(flow.distribution().log_prob(latents), expected, rtol=1e-10)


def test_batch_normalisation_follows_each_relu_of_the_couplings_networks():
    """In NumPy, with the batch's statistics in training and the moving ones otherwise; the density stays one either way."""
    flow = LatentFlow(5, 1, units=6, layers=2, seed=3, dtype="float64", normalized=True)
    random, latents = np.random.RandomState(0), rows(20, 5, seed=1)
    for variable in flow.weights:
        if "permutation" not in variable.path:
            variable.assign(np.abs(variable.numpy() + 0.2 * random.standard_normal(variable.shape)))
    moving = layers(flow, 0)["normalization_0/moving_mean"].numpy()
    for training in (False, True):
        inputs = latents[:, :2]
        weights = {name: value.numpy() for name, value in layers(flow, 0).items()}
        for number in range(2):
            inputs = np.maximum(inputs @ weights[f"hidden_{number}/kernel"] + weights[f"hidden_{number}/bias"], 0.0)
            one = {name.split("/")[1]: value for name, value in weights.items() if f"normalization_{number}/" in name}
            mean, variance = (inputs.mean(0), inputs.var(0)) if training else (one["moving_mean"], one["moving_variance"])
            inputs = (inputs - mean) / np.sqrt(variance + 1e-5) * one["gamma"] + one["beta"]
        raw = np.split(inputs @ weights["outputs/kernel"] + weights["outputs/bias"], 2, axis=1)[1]
        bijector = tfp.bijectors.Chain(flow.bijector(training).bijectors[:1])
        log_det = bijector.inverse_log_det_jacobian(tf.constant(latents), 1)
        np.testing.assert_allclose(log_det, -(LOG_SCALE_LIMIT * np.tanh(raw / LOG_SCALE_LIMIT)).sum(1), rtol=1e-9)
        density = flow.distribution(training=training).log_prob(tf.constant(latents))
        other = flow.bijector(training)
        expected = other.inverse_log_det_jacobian(tf.constant(latents), 1) - 2.5 * np.log(2.0 * np.pi)
        np.testing.assert_allclose(density, expected - 0.5 * tf.reduce_sum(other.inverse(latents) ** 2, -1), rtol=1e-9)
    assert np.any(layers(flow, 0)["normalization_0/moving_mean"].numpy() != moving)


def layers(flow, index):
    network = getattr(flow, f"coupling_0_{index}")
    return {variable.path.split(f"{network.name}/")[1]: variable.value for variable in network.variables}


def test_the_density_integrates_to_one():
    flow = flow_of(2, 2, scale=0.1)
    axis = np.linspace(-12.0, 12.0, 801)
    places = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    density = np.exp(flow.distribution().log_prob(places))
    assert density.sum() * (axis[1] - axis[0]) ** 2 == pytest.approx(1.0, abs=2e-3)


def test_couplings_and_permutations_of_the_flow_are_tfps():
    block = [tfp.bijectors.RealNVP, tfp.bijectors.RealNVP, tfp.bijectors.Permute]
    for bijector, kind in zip(flow_of(4, 2).bijector().bijectors, 2 * block, strict=True):
        assert isinstance(bijector, kind)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_a_permutations_gradients_of_first_and_second_order_are_tfps(direction):
    values, found = tf.constant(np.random.default_rng(0).normal(size=(3, 5))), []
    for kind in (Permute, tfp.bijectors.Permute):
        bijector = kind(tf.constant([2, 0, 4, 1, 3]))
        with tf.GradientTape() as outer:
            outer.watch(values)
            with tf.GradientTape() as inner:
                inner.watch(values)
                permuted = getattr(bijector, direction)(tf.identity(values))
                loss = tf.reduce_sum(permuted**3 * tf.range(1.0, 6.0, dtype=tf.float64))
            slope = inner.gradient(loss, values)
            norm = tf.reduce_sum(slope**2)
        found.append([permuted, slope, outer.gradient(norm, values)])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_permutations_survive_a_reload_and_differ_between_seeds_and_blocks(tmp_path):
    flow, other = flow_of(9, 2, seed=1), flow_of(9, 2, seed=2)
    orders = [one.numpy() for one in (flow.permutation_0, flow.permutation_1, other.permutation_0)]
    assert all(sorted(order) == list(range(9)) for order in orders)
    assert not np.array_equal(orders[0], orders[1]) and not np.array_equal(orders[0], orders[2])
    latents = rows(3, 9)
    expected = flow.distribution().log_prob(latents)
    assert np.all(np.abs(other.distribution().log_prob(latents) - expected) > 1e-3)
    path = tf.train.Checkpoint(flow=flow).save(str(tmp_path / "checkpoint"))
    tf.train.Checkpoint(flow=other).restore(path).assert_consumed()
    np.testing.assert_array_equal(other.distribution().log_prob(latents), expected)


def test_temperature_scales_the_noise():
    flow, latents = flow_of(4), rows(3, 4)
    noise = flow.bijector().inverse(latents).numpy()
    log_det = flow.bijector().inverse_log_det_jacobian(tf.constant(latents), 1)
    expected = -0.5 * (noise**2).sum(1) / 0.25 - 4 * np.log(0.5) - 2.0 * np.log(2.0 * np.pi) + log_det
    np.testing.assert_allclose(flow.distribution(0.5).log_prob(latents), expected, rtol=1e-10)


def test_scales_are_limited_and_huge_latents_stay_finite():
    flow = flow_of(4, 1, scale=30.0)
    latents = 1e3 * rows(8, 4)
    assert np.isfinite(flow.distribution().log_prob(latents)).all()
    most = 4 * LOG_SCALE_LIMIT + 1e-3
    assert np.abs(flow.bijector().inverse_log_det_jacobian(tf.constant(latents), 1)).max() <= most


def test_the_gradient_of_the_weight_decay_is_rate_times_weight():
    flow = flow_of(3, 1)
    variables = flow.trainable_variables
    assert all("permutation" not in variable.path for variable in variables)
    with tf.GradientTape() as tape:
        penalty = weight_decay(flow, 0.03)
    for variable, gradient in zip(variables, tape.gradient(penalty, [one.value for one in variables]), strict=True):
        np.testing.assert_allclose(gradient, 0.03 * variable.numpy(), rtol=1e-12)
