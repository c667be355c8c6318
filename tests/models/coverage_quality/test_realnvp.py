"""RealNVP and Flow-GAN: densities against autodiff Jacobians, the bijection on images, which loss trains which network."""

import math

import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny
from scipy import special, stats

from tfcq.errors import UserError
from tfcq.randomness import RowNoise, row_seeds

SHAPE = (4, 4, 1)
SIZE = math.prod(SHAPE)


def perturbed(**options):
    model = tiny.compiled(tiny.config(model="realnvp", flow_couplings=1, **options))
    tiny.perturb(model.flow.trainable_variables, 0.2)
    return model


@pytest.fixture(scope="module")
def model():
    return perturbed()


def test_the_density_is_the_change_of_variables_from_pixels_to_a_standard_normal(model):
    """log p = log N(z; 0, I) + log|det dz/dv|, the Jacobian by autodiff of the whole way, SciPy's normal density."""
    images, seeds = tiny.images(SHAPE, 3), row_seeds(3)
    uniform = RowNoise(seeds).uniform(SHAPE, 0)

    class Given:
        def __init__(self, values):
            self._values = values

        def uniform(self, row_shape, tag):
            return self._values

    with tf.GradientTape() as tape:
        tape.watch(uniform)
        latents = tf.reshape(model.features(images, Given(uniform))[0], [3, SIZE])
    jacobian = tf.reshape(tape.batch_jacobian(latents, uniform), [3, SIZE, SIZE]).numpy().astype(np.float64)
    expected = stats.norm.logpdf(latents.numpy().astype(np.float64)).sum(1) + np.linalg.slogdet(jacobian)[1]
    np.testing.assert_allclose(model.elbo(images, seeds), expected, rtol=1e-5)


def test_several_draws_of_the_dequantisation_are_averaged_in_probability(model):
    images, seeds = tiny.images(SHAPE, 4), row_seeds(4, seed=3)
    single = [
        (model._prior().log_prob(latents) + log_det).numpy().astype(np.float64)
        for latents, log_det in (model.features(images, RowNoise(seeds).fold(k)) for k in range(5))
    ]
    np.testing.assert_allclose(
        model.log_prob(images, seeds, 5), special.logsumexp(single, axis=0) - math.log(5), rtol=1e-5
    )
    assert np.ptp(np.stack(single), axis=0).min() > 0.01


def test_an_identity_flow_has_the_probabilities_of_a_logit_normal():
    """All 256 values of one pixel, the others fixed: each against SciPy's normal mass of the value's bin; and their sum."""
    model = tiny.build(tiny.config(model="realnvp", flow_scales=1, flow_couplings=1, flow_normalization="none"))
    images = np.full((256, *SHAPE), 77, np.uint8)
    images[:, 0, 0, 0] = values = np.arange(256)
    others = np.log(_mass(77)) * (SIZE - 1)
    log_probs = tf.function(model.log_prob)(images, row_seeds(256), tf.constant(50)).numpy().astype(np.float64)
    np.testing.assert_allclose(log_probs, np.log(_mass(values)) + others, atol=0.02)
    inside = 2.0 * stats.norm.cdf(special.logit(0.95)) - 1.0  # what of N(0, 1) lies within [0, 256)
    assert np.exp(log_probs - others).sum() == pytest.approx(inside, abs=2e-3)


def _mass(value):
    """The standard normal mass of the logits of bin [value, value + 1)."""
    ends = [stats.norm.cdf(special.logit(0.05 + 0.9 * np.asarray(end) / 256.0)) for end in (value, value + 1.0)]
    return ends[1] - ends[0]


def test_images_come_back_from_their_latents(model):
    images, seeds = tiny.images(SHAPE, 6), row_seeds(6)
    np.testing.assert_array_equal(model.decode(model.encode(images, seeds)), images)
    np.testing.assert_array_equal(model.reconstruct(images, seeds), images)


def test_samples_are_decoded_draws_of_the_prior(model):
    seeds = row_seeds(4, seed=2)
    latents = RowNoise(seeds).normal(model.latent_shape, 1)
    for temperature in (1.0, 0.5):
        np.testing.assert_array_equal(model.sample(seeds, temperature), model.decode(temperature * latents))


def test_players():
    def players(**options):
        model = tiny.build(tiny.config(model="realnvp", flow_couplings=1, **options))
        flow = {id(variable) for variable in model.flow.trainable_variables}
        found = []
        for player in model.players():
            felt = [{id(variable) for variable in objective.variables} == flow for objective in player.objectives]
            found.append((player.name, player.turns, felt))
        return found

    assert players() == [("generator", 1, [True])]
    hybrid = [("discriminator", 2, [False]), ("generator", 1, [True, True])]
    assert players(quality_weight=1.0, discriminator_steps=2) == hybrid
    assert players(quality_weight=1.0, coverage=False) == [("discriminator", 1, [False]), ("generator", 1, [True])]


def test_the_adversarial_loss_trains_the_flow():
    """Its gradient, through the shared tensors, is that of the loss written down anew."""
    model = perturbed(quality_weight=3.0, coverage=False)
    images = tf.constant(tiny.images(SHAPE))
    shared, tape = model._shared(model.players(), images, model._noise((0, 2, 0), 8))
    generator = model.players()[1]
    gradients, slopes, _ = model._gradients(generator, images, None, 1.0, shared)
    received = model._pass_through(generator, gradients, slopes, shared, tape)
    values = [variable.value for variable in model.flow.trainable_variables]
    with tf.GradientTape() as other:
        pixels = model.pixels(model._noise((0, 2, 0), 8).normal(SHAPE, 1))
        loss = -3.0 * tf.reduce_mean(model.discriminator(pixels / 128.0 - 1.0))
    for ours, theirs in zip(received, other.gradient(loss, values), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
        assert np.abs(ours).max() > 0


def test_every_configuration_has_a_density_and_training_lowers_its_cost():
    model = tiny.compiled(tiny.config(model="realnvp"), learning_rate=0.01)
    rows = tiny.fit(model, tiny.images(SHAPE), 40)
    assert rows[-1]["elbo_bits_per_dim"] < rows[0]["elbo_bits_per_dim"] - 0.5
    assert "likelihood" in perturbed(quality_weight=1.0, coverage=False).abilities


@pytest.mark.parametrize("options", [{"model": "realnvp"}, {"flow_scales": 2}], ids=["realnvp", "cqf"])
def test_a_penalty_on_the_flows_magnitudes_is_added_to_the_likelihoods_loss_alone(options):
    def terms(penalty):
        model = tiny.build(tiny.config(flow_couplings=1, flow_magnitude_penalty=penalty, **options))
        tiny.perturb(model.flow.trainable_variables, 0.2)
        return model, model.coverage_loss(tf.constant(tiny.images(SHAPE)), RowNoise(row_seeds(8)), ())

    _, without = terms(0.0)
    model, penalised = terms(0.25)
    named = ("magnitude", "log_scale_factor")
    weights = [variable.numpy().astype(np.float64) for variable in model.flow.trainable_variables if variable.name in named]
    assert len(weights) == 4 + 4 * 4  # of four couplings, with two kernels and a block of two each
    expected = 0.25 * sum(np.sum(weight**2) for weight in weights)
    assert expected > 1.0
    np.testing.assert_allclose(penalised.total - without.total, np.full(8, expected), rtol=1e-4)
    np.testing.assert_allclose(penalised.logs["flow_magnitude_penalty"], expected, rtol=1e-5)
    assert "flow_magnitude_penalty" not in without.logs
    for name, value in without.measures.items():
        np.testing.assert_array_equal(penalised.measures[name], value)


def test_an_image_that_the_flow_cannot_halve_is_one_line():
    with pytest.raises(UserError, match="image_size=6 with flow_scales=2: expected a multiple of 4"):
        tiny.config(6, model="realnvp")
