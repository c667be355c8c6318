"""Densities of the ladder of latents in float64: closed forms, changes of variables by autodiff, importance weights."""

import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny
from scipy import stats

from tfcq.flows.autoregressive import InverseAutoregressiveFlow
from tfcq.networks.encoder import Encoder
from tfcq.networks.hierarchy import Decoder
from tfcq.networks.latents import POSTERIOR_LOG_SCALES, LatentLayer
from tfcq.networks.plan import Plan
from tfcq.randomness import StepNoise, row_seeds

CHANNELS, CONTEXT, STATE = 3, 4, 5
TAG = 9
LAYERS = {  # shape of the latents, channels of the state (None: the first layer, which has none)
    "first_map": ((2, 2, CHANNELS), None),
    "first_vector": ((CHANNELS,), None),
    "later": ((2, 2, CHANNELS), STATE),
}
POSTERIORS = pytest.mark.parametrize("context", [0, CONTEXT], ids=["gaussian", "flow"])


def make_flow(seed, side, context=CONTEXT, gain=1.0):
    return InverseAutoregressiveFlow(CONTEXT, 1, 1 if side == 1 else 3, seed, gain)


def draw(*shape, seed=0, scale=1.0):
    return scale * tf.random.stateless_normal(shape, (seed, 4))


def make_layer(kind, context=0, **options):
    """A layer of latents away from its initial values, with a state and an evidence of 4 examples that suit it."""
    shape, state_channels = LAYERS[kind]
    flow = make_flow(1, shape[0] if len(shape) == 3 else 1) if context else None
    layer = LatentLayer(shape, state_channels, flow=flow, context_channels=context, **options)
    tiny.perturb(layer.trainable_variables, 0.2)
    state = None if state_channels is None else draw(4, *shape[:-1], state_channels, seed=1)
    return layer, state, draw(4, *shape[:-1], layer.num_statistics, seed=2, scale=0.5)


def statistics(layer, state, evidence):
    """loc and scale of the prior and of the posterior's normal, float64, as the module's text has them."""
    evidence = evidence.numpy().astype(np.float64)
    read = np.zeros((*evidence.shape[:-1], 2 * CHANNELS + layer.num_statistics))
    if state is not None:
        read = layer.head(state).numpy().astype(np.float64)
    sums = evidence + read[..., 2 * CHANNELS :]
    prior_loc, prior_log_scale, loc, log_scale = (
        values[..., begin : begin + CHANNELS] for values in (read, sums) for begin in (0, CHANNELS)
    )
    return (prior_loc, np.exp(prior_log_scale)), (loc, np.exp(log_scale))


def summed(values, keep_channels=False):
    return values.sum(axis=tuple(range(1, values.ndim - keep_channels)))


# One layer.


@pytest.mark.parametrize("kind", LAYERS)
def test_a_normal_posterior_against_closed_forms(kind):
    layer, state, evidence = make_layer(kind, weight_normalization=kind == "later")
    (prior_loc, prior_scale), (loc, scale) = statistics(layer, state, evidence)
    noise = draw(4, *layer.shape, seed=3)
    inferred = layer.infer(state, evidence, noise)

    latents = loc + scale * noise.numpy()
    np.testing.assert_allclose(inferred.latents, latents, rtol=1e-5, atol=1e-5)
    # KL of two normals: log(s_p / s_q) + (s_q^2 + (m_q - m_p)^2) / (2 s_p^2) - 1/2.
    kl = np.log(prior_scale / scale) + (scale**2 + (loc - prior_loc) ** 2) / (2.0 * prior_scale**2) - 0.5
    np.testing.assert_allclose(inferred.kl, summed(kl, keep_channels=True), rtol=1e-4, atol=1e-5)
    ratio = stats.norm.logpdf(latents, prior_loc, prior_scale) - stats.norm.logpdf(latents, loc, scale)
    np.testing.assert_allclose(inferred.log_ratio, summed(ratio), rtol=1e-4, atol=1e-4)
    if state is None:
        assert np.all(prior_loc == 0.0) and np.all(prior_scale == 1.0)
    prior = layer.prior(state)
    np.testing.assert_allclose(np.broadcast_to(prior.loc, latents.shape), prior_loc, rtol=1e-6)
    np.testing.assert_allclose(np.broadcast_to(prior.scale, latents.shape), prior_scale, rtol=1e-5)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_posterior_with_a_flow_against_the_change_of_variables(kind):
    layer, state, evidence = make_layer(kind, CONTEXT)
    (prior_loc, prior_scale), (loc, scale) = statistics(layer, state, evidence)
    noise = draw(4, *layer.shape, seed=3)
    size = int(np.prod(layer.shape))
    with tf.GradientTape() as tape:
        tape.watch(noise)
        inferred = layer.infer(state, evidence, noise)
        flat = tf.reshape(inferred.latents, [4, size])
    jacobian = tf.reshape(tape.batch_jacobian(flat, noise), [4, size, size]).numpy().astype(np.float64)
    log_normal = stats.norm.logpdf(noise.numpy().astype(np.float64))
    log_posterior = summed(log_normal) - np.linalg.slogdet(jacobian)[1]
    log_prior = stats.norm.logpdf(inferred.latents.numpy().astype(np.float64), prior_loc, prior_scale)
    np.testing.assert_allclose(inferred.log_ratio, summed(log_prior) - log_posterior, rtol=1e-4, atol=1e-4)
    # The Jacobian is triangular, so entry by entry its diagonal is the change of scale.
    diagonal = np.diagonal(jacobian, axis1=1, axis2=2).reshape(noise.shape)
    kl = log_normal - np.log(diagonal) - log_prior
    np.testing.assert_allclose(inferred.kl, summed(kl, keep_channels=True), rtol=1e-4, atol=1e-4)
    # The flow does something, and hears its context; its base is the normal that the statistics describe.
    assert np.mean(np.abs(inferred.latents - (loc + scale * noise))) > 1e-2
    shifted = tf.concat([evidence[..., : 2 * CHANNELS], evidence[..., 2 * CHANNELS :] + 1.0], axis=-1)
    assert np.all(layer.infer(state, shifted, noise).latents.numpy() != inferred.latents.numpy())
    for name in ("first", "last"):
        getattr(layer.flow.network, name).magnitude.assign(tf.zeros_like(getattr(layer.flow.network, name).magnitude))
    layer.flow.network.last.bias.assign(tf.zeros(2 * CHANNELS))
    identity = layer.infer(state, evidence, noise)
    np.testing.assert_allclose(identity.latents, loc + scale * noise.numpy(), rtol=1e-5, atol=1e-5)


@POSTERIORS
@pytest.mark.parametrize("kind", LAYERS)
def test_kl_is_minus_the_mean_log_ratio(kind, context):
    """Exactly, of this draw, with a flow; in the mean over draws, of 4,000 here, without."""
    layer, state, evidence = make_layer(kind, context)
    repeats = 1 if context else 1000
    state = None if state is None else tf.repeat(state, repeats, axis=0)
    evidence = tf.repeat(evidence, repeats, axis=0)
    inferred = layer.infer(state, evidence, draw(4 * repeats, *layer.shape, seed=3))
    difference = inferred.log_ratio + tf.reduce_sum(inferred.kl, axis=-1)
    if context:
        np.testing.assert_allclose(difference, np.zeros(4), atol=1e-4)
    else:
        error = np.std(difference) / np.sqrt(len(difference))
        assert abs(np.mean(difference)) < 4.0 * error
        assert np.all(inferred.kl >= 0.0)


@POSTERIORS
@pytest.mark.parametrize("kind", LAYERS)
def test_the_prior_scales_noise_by_its_temperature(kind, context):
    layer, state, _ = make_layer(kind, context)
    noise = draw(4, *layer.shape, seed=3)
    temperature = tf.reshape([0.0, 0.5, 1.0, 2.0], [4] + [1] * len(layer.shape))
    (loc, scale), _ = statistics(layer, state, tf.zeros([4, *layer.shape[:-1], layer.num_statistics]))
    expected = loc + scale * temperature.numpy() * noise.numpy()
    np.testing.assert_allclose(layer.generate(state, noise, temperature), expected, rtol=1e-5, atol=1e-6)


def test_without_inference_the_state_gives_a_prior_alone():
    layer = LatentLayer((2, 2, CHANNELS), STATE, inference=False)
    assert layer.head.filters == 2 * CHANNELS
    assert layer.prior(draw(4, 2, 2, STATE)).batch_shape == (4, 2, 2, CHANNELS)


@POSTERIORS
@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("kind", LAYERS)
def test_huge_statistics_stay_finite_with_finite_gradients(kind, sign, context):
    layer, state, evidence = make_layer(kind, context)
    noise = draw(4, *layer.shape, seed=3)
    evidence = sign * 1e4 * tf.ones_like(evidence)
    inputs = [evidence] if state is None else [evidence, 1e4 * state]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        inferred = layer.infer(None if state is None else inputs[1], evidence, noise)
        loss = tf.reduce_sum(inferred.kl) - tf.reduce_sum(inferred.log_ratio) + tf.reduce_sum(inferred.latents)
    for value in (inferred.latents, inferred.kl, inferred.log_ratio, *tape.gradient(loss, inputs)):
        assert np.all(np.isfinite(value))
    if state is None and not context:
        prior_scale, kl = 1.0, inferred.kl
        limit = POSTERIOR_LOG_SCALES[sign > 0]
        expected = -limit + (np.exp(2.0 * limit) + 1e8) / (2.0 * prior_scale) - 0.5
        np.testing.assert_allclose(kl, np.full(kl.shape, expected * np.prod(layer.shape[:-1])), rtol=1e-5)


@pytest.mark.parametrize("log_scale", [-30.0, 30.0])
def test_a_gradient_goes_through_the_limits_of_the_deviations(log_scale):
    """Beyond a limit nothing changes any more, but what left it hears that it should come back."""
    layer, _, _ = make_layer("first_map")
    evidence = tf.concat([tf.zeros([1, 2, 2, CHANNELS]), tf.fill([1, 2, 2, CHANNELS], log_scale)], axis=-1)
    with tf.GradientTape() as tape:
        tape.watch(evidence)
        kl = tf.reduce_sum(layer.infer(None, evidence, tf.zeros([1, *layer.shape])).kl)
    gradient = tape.gradient(kl, evidence)[..., CHANNELS:]
    # Of log s in -log s + s^2 / 2, at the limit.
    expected = np.exp(2.0 * POSTERIOR_LOG_SCALES[log_scale > 0]) - 1.0
    np.testing.assert_allclose(gradient, np.full(gradient.shape, expected), rtol=1e-4)


# The whole ladder.


class Given:
    """Noise float32 [N, D] as a decoder asks for it: layer by layer, in the order of the tags."""

    def __init__(self, noise):
        self._noise, self._begin, self._tag = noise, 0, TAG

    def normal(self, row_shape, tag):
        assert tag == self._tag
        begin, size = self._begin, int(np.prod(row_shape))
        self._begin, self._tag = begin + size, tag + 1
        return tf.reshape(self._noise[:, begin : begin + size], [-1, *row_shape])


LADDERS = {
    "two_layers": {"image_shape": (8, 8, 1), "halvings": 2, "latent_form": "vector"},
    "three_layers": {"image_shape": (4, 4, 1), "halvings": 2, "network": "residual"},
    "two_blocks": {"image_shape": (4, 4, 1), "halvings": 1, "blocks": 3, "normalization": "weight"},
}
LADDER = pytest.mark.parametrize("name", LADDERS)


def make_ladder(name, context=0, perturbation=0.05, head_factor=3.0):
    """A decoder away from its initial values, an evidence, noise [3, D] of all layers, and D."""
    plan = Plan(**LADDERS[name], width=4, latent_channels=2, context_channels=context)
    encoder, decoder = Encoder(plan, 1), Decoder(plan, make_flow, 2)
    tiny.perturb([*encoder.trainable_variables, *decoder.trainable_variables], perturbation)
    # A state that matters: heads start small.
    for layer in decoder.latents[1:]:
        weight = layer.head.magnitude if plan.normalization == "weight" else layer.head.kernel
        weight.assign(head_factor * weight.value)
    size = sum(int(np.prod(layer.shape)) for layer in decoder.latents)
    return decoder, encoder(draw(3, *plan.image_shape, seed=5)), draw(3, size, seed=6), size


def record_priors(monkeypatch, method):
    """A list that fills with (layer, state) at each call of `LatentLayer`'s `method`."""
    calls, original = [], getattr(LatentLayer, method)

    def recording(self, state, *arguments):
        calls.append((self, state))
        return original(self, state, *arguments)

    monkeypatch.setattr(LatentLayer, method, recording)
    return calls


def log_prior(calls, latents):
    """float64 [N]: log p of all latents, [N, D], walked from the top with the priors of the recorded states."""
    total, begin = 0.0, 0
    for layer, state in calls:
        prior, size = layer.prior(state), int(np.prod(layer.shape))
        values = latents[:, begin : begin + size].astype(np.float64).reshape(-1, *layer.shape)
        loc, scale = (np.asarray(value, np.float64) for value in (prior.loc, prior.scale))
        total, begin = total + summed(stats.norm.logpdf(values, loc, scale)), begin + size
    assert begin == latents.shape[1]
    return total


def log_density(tape, latents, noise):
    """float64 [N]: log N(noise) - log|det d latents / d noise|, the Jacobian of all layers at once by autodiff."""
    jacobian = tape.batch_jacobian(latents, noise).numpy().astype(np.float64)
    sign, log_det = np.linalg.slogdet(jacobian)
    assert np.all(sign != 0)
    # Layers hear those above them: the Jacobian is no diagonal, or the ladder would be none.
    assert np.any(np.abs(np.tril(jacobian, -1)) > 1e-3)
    return summed(stats.norm.logpdf(noise.numpy().astype(np.float64))) - log_det


@LADDER
@POSTERIORS
def test_the_ladders_posterior_is_the_density_of_what_it_draws(name, context, monkeypatch):
    decoder, evidence, noise, _ = make_ladder(name, context)
    calls = record_priors(monkeypatch, "infer")
    with tf.GradientTape() as tape:
        tape.watch(noise)
        inferred = decoder.infer(evidence, Given(noise), TAG)[1]
        latents = decoder.join([layer.latents for layer in inferred])
    log_posterior = log_density(tape, latents, noise)
    log_ratio = sum(layer.log_ratio.numpy().astype(np.float64) for layer in inferred)
    np.testing.assert_allclose(log_prior(calls, latents.numpy()) - log_ratio, log_posterior, rtol=1e-4, atol=2e-4)
    assert np.all(np.abs(log_ratio) > 1e-2) and np.all(np.abs(log_ratio) < 1e3)


@LADDER
def test_the_ladders_prior_is_the_density_of_what_it_generates(name, monkeypatch):
    decoder, _, noise, size = make_ladder(name)
    calls = record_priors(monkeypatch, "generate")
    drawn = []
    original = LatentLayer.generate
    monkeypatch.setattr(LatentLayer, "generate", lambda *arguments: drawn.append(original(*arguments)) or drawn[-1])
    with tf.GradientTape() as tape:
        tape.watch(noise)
        decoder.generate(Given(noise), TAG)
        latents = decoder.join(drawn)
    assert latents.shape == (3, size)
    expected = log_density(tape, latents, noise)
    np.testing.assert_allclose(log_prior(calls, latents.numpy()), expected, rtol=1e-4, atol=2e-4)


@LADDER
@POSTERIORS
def test_where_the_posterior_is_the_prior_all_importance_weights_are_one(name, context):
    decoder, evidence, noise, _ = make_ladder(name, context)
    for layer in decoder.latents:
        if layer.flow is not None:
            for weight in (layer.flow.network.last.magnitude, layer.flow.network.last.bias):
                weight.assign(tf.zeros_like(weight.value))
        if layer.head is not None:  # what the state says of the prior it says of the posterior
            for weight in layer.head.weights:
                values = weight.numpy()
                values[..., 4:8] = values[..., :4]
                weight.assign(values)
    inferred = decoder.infer([tf.zeros_like(values) for values in evidence], Given(noise), TAG)[1]
    for layer in inferred:
        np.testing.assert_allclose(layer.log_ratio, np.zeros(3), atol=2e-5)
        np.testing.assert_allclose(layer.kl, np.zeros((3, 2)), atol=2e-5)
    # Not because nothing was read: the last prior is no standard normal, which would hand out its noise.
    last = inferred[-1].latents.numpy().reshape(3, -1)
    assert np.max(np.abs(last - noise[:, -last.shape[1] :])) > 0.05


def log_mean(log_weights):
    """log of the mean of exp over axis 1, its standard error, and the effective number of draws, each float64 [N]."""
    weights = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
    mean, count = weights.mean(axis=1), weights.shape[1]
    error = weights.std(axis=1) / np.sqrt(count) / mean
    return np.log(mean) + log_weights.max(axis=1), error, weights.sum(axis=1) ** 2 / (weights**2).sum(axis=1)


@LADDER
@POSTERIORS
def test_importance_weights_give_the_marginal_that_draws_of_the_prior_give(name, context):
    """E_q[p(y|z) p(z) / q(z|y)] = E_p[p(y|z)] = p(y), whatever q is: no term of a weight is lost or turned around."""
    decoder, evidence, _, _ = make_ladder(name, context, perturbation=0.01, head_factor=0.5)
    repeats, sigma = 3000, 4.0
    features = draw(3, *decoder.plan.image_shape, seed=7)

    def log_likelihood(means):
        values = np.repeat(features.numpy().astype(np.float64), repeats, axis=0)
        return summed(stats.norm.logpdf(values, means.numpy(), sigma)).reshape(3, repeats)

    noise = StepNoise(tf.constant([1, 2]), (), 3 * repeats)
    # A third of the evidence: a posterior of its own, yet one that weighs all of the prior in so few draws.
    evidence = [tf.repeat(0.3 * values, repeats, axis=0) for values in evidence]
    means, inferred = decoder.infer(evidence, noise, TAG)
    log_ratio = sum(layer.log_ratio.numpy().astype(np.float64) for layer in inferred).reshape(3, repeats)
    estimate, error, effective = log_mean(log_likelihood(means) + log_ratio)
    expected, expected_error, _ = log_mean(log_likelihood(decoder.generate(noise.fold(1), TAG)))
    assert np.all(effective > 300) and np.all(np.abs(np.mean(log_ratio, axis=1)) > 0.05)
    assert np.all(np.abs(estimate - expected) < 4.0 * np.hypot(error, expected_error)), (estimate, expected, error)


# The bounds of a whole model.


@pytest.mark.parametrize("posterior", ["gaussian", "iaf"])
def test_bounds_tighten_with_importance_samples(posterior):
    """E elbo = E log_prob(K=1) <= E log_prob(K=8) <= E log_prob(K=64), within standard errors of paired differences."""
    model = tiny.build(
        tiny.config(
            network="residual", latent_levels=2, posterior=posterior, iaf_width=4, iaf_layers=1, **tiny.ROWS["vae"]
        )
    )
    assert len(model.decoder.latents) == 2
    tiny.perturb(model.trainable_variables, 0.05)
    images = np.repeat(tiny.images(model.image_shape, 8), 16, axis=0)
    seeds = row_seeds(len(images), seed=3)
    log_prob = tf.function(lambda count: model.log_prob(images, seeds, count))
    bounds = [model.elbo(images, seeds), *(log_prob(tf.constant(count)) for count in (1, 8, 64))]
    elbo, one, eight, many = (np.asarray(bound, np.float64) for bound in bounds)

    def gain(lower, higher):
        """Of the mean, in standard errors."""
        difference = higher - lower
        return np.mean(difference) / (np.std(difference) / np.sqrt(len(difference)))

    assert np.all(np.isfinite(bounds))
    assert abs(gain(elbo, one)) < 4.0
    # Strictly here, since the posterior is not the exact one.
    assert gain(one, eight) > 4.0
    assert gain(eight, many) > 4.0
    assert np.mean(one) < np.mean(eight) < np.mean(many)
