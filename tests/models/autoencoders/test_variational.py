"""The VAEs of the GLF family: densities against closed forms and numerical integrals, bounds in their order."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny
from scipy import stats

from tfcq import images as units
from tfcq.config import SYSTEMS, TwoStageVAEConfig, VAEConfig
from tfcq.randomness import RowNoise, StepNoise, row_seeds

SHAPE = (4, 4, 1)
IMAGES = tiny.images(SHAPE, 6)
VAES = ["vae", "vae_flow_prior", "vae_flow_posterior", "two_stage_vae"]


def model_of(name, scale=0.15, **options):
    model = tiny.build(tiny.config(4, model=name, latent_dim=2, decoder_sigma=0.3, **options))
    logarithms = [(one, one.numpy()) for one in ((model.log_sigma, model.log_gamma) if name == "two_stage_vae" else ())]
    tiny.perturb(model.trainable_variables, scale if name != "vae_flow_posterior" else scale / 2.0)
    for variable, first in logarithms:  # they are in units of the rate
        variable.assign(first + (variable - first) / model.config.sigma_rate)
    # Posteriors near the priors: importance weights are then even, and few draws suffice for the integral.
    for layer in (model.encoder.layers[-1], *([model.second_encoder.last] if name == "two_stage_vae" else [])):
        layer.kernel.assign(0.2 * layer.kernel)
        layer.bias.assign(np.float32([0.1, -0.1, 0.2, 0.2]))
    return model


def deviation_of(variable, model):
    """exp(rate w) of log_sigma or log_gamma, as a float."""
    return float(np.exp(model.config.sigma_rate * variable.numpy().astype(np.float64)))


@pytest.fixture(scope="module", params=VAES)
def model(request):
    return model_of(request.param)


def log_prob_of(model):
    """Compiled, as its loop over draws is slow otherwise."""
    compiled = tf.function(model.log_prob, reduce_retracing=True)
    return lambda images, seeds, count: compiled(images, seeds, tf.constant(count))


class Fixed:
    """Noise that is given: uniform for the pixels, normals by tag."""

    def __init__(self, uniform, normals):
        self._uniform, self._normals = uniform, normals

    def uniform(self, shape, tag):
        return tf.constant(self._uniform, tf.float32)

    def normal(self, shape, tag):
        return tf.constant(self._normals[tag - 1], tf.float32)

    def fold(self, *numbers):
        return self


def test_the_importance_weighted_estimate_meets_a_numerical_integral(model):
    """log p(v) = log of the integral of p(v|z) p(z), on a grid, for the prior that samples are drawn from."""
    seeds = row_seeds(2, seed=5)
    estimate = log_prob_of(model)(IMAGES[:2], seeds, 4000).numpy()
    pixels = (IMAGES[:2] + RowNoise(seeds).uniform(SHAPE, 0).numpy()) / 256.0
    axis = np.linspace(-8.0, 8.0, 129)
    places = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2).astype(np.float32)
    if model.name == "two_stage_vae":
        inner = np.stack(np.meshgrid(np.linspace(-5, 5, 41), np.linspace(-5, 5, 41)), -1).reshape(-1, 2)
        means = model.second_decoder(inner.astype(np.float32)).numpy().astype(np.float64)
        weights = np.exp(-0.5 * (inner**2).sum(1)) / (2.0 * np.pi) * 0.25**2
        gamma = deviation_of(model.log_gamma, model)
        squares = ((places[:, None].astype(np.float64) - means) ** 2).sum(-1)
        log_prior = np.log((np.exp(-0.5 * squares / gamma**2) / (2.0 * np.pi * gamma**2)) @ weights)
    elif model.name == "vae_flow_prior":
        log_prior = model.flow.distribution().log_prob(places).numpy().astype(np.float64)
    else:
        log_prior = -0.5 * (places.astype(np.float64) ** 2).sum(1) - np.log(2.0 * np.pi)
    decoded = model.decoder(places).numpy().astype(np.float64)
    for row in range(2):
        densities = stats.norm.logpdf(pixels[row], decoded, deviation_of(model.log_sigma, model))
        likelihood = densities.sum((1, 2, 3)) - 16.0 * np.log(256.0)
        expected = np.log(np.sum(np.exp(likelihood + log_prior)) * (axis[1] - axis[0]) ** 2)
        assert estimate[row] == pytest.approx(expected, abs=0.05)


def test_bounds_tighten_with_more_draws(model):
    images = np.repeat(IMAGES, 20, axis=0)
    seeds = row_seeds(len(images))
    log_prob = log_prob_of(model)
    bounds = [float(tf.reduce_mean(log_prob(images, seeds, count))) for count in (1, 8, 64)]
    elbo, one = model.elbo(images, seeds), log_prob(images, seeds, 1)
    assert bounds[0] < bounds[1] < bounds[2]
    # With one draw the estimate is the bound, but for the exact KL in it: the same mean.
    error = float(np.std(elbo) + np.std(one)) / np.sqrt(len(images))
    assert float(tf.reduce_mean(elbo)) == pytest.approx(bounds[0], abs=4.0 * error)
    assert float(tf.reduce_mean(elbo)) < bounds[2]


def test_the_elbos_terms_add_up_and_the_kl_is_the_expected_log_ratio(model):
    terms = model.elbo_terms(IMAGES, row_seeds(len(IMAGES)))
    np.testing.assert_allclose(terms["elbo"], -terms["reconstruction"] - terms["kl"], rtol=1e-5)
    images = np.repeat(IMAGES[:1], 4000, axis=0)
    _, kl, log_ratio, _ = model.infer(model.unit_pixels(images), StepNoise((0, 2), (), len(images)))
    error = np.std(log_ratio) / np.sqrt(len(images)) + np.std(kl) / np.sqrt(len(images))
    assert float(tf.reduce_mean(kl)) == pytest.approx(-float(tf.reduce_mean(log_ratio)), abs=5.0 * error + 1e-4)
    assert float(tf.reduce_mean(kl)) > 0.0


def test_a_posterior_through_a_flow_has_the_density_of_the_change_of_variables():
    model = model_of("vae_flow_posterior")
    normal = np.random.RandomState(0).standard_normal((6, 2))
    pixels = model.unit_pixels(IMAGES)
    latents, _, log_ratio, _ = model.infer(pixels, Fixed(0.5, [normal]))
    mean, log_scale = np.split(model.encoder(pixels).numpy().astype(np.float64), 2, axis=1)
    drawn = tf.constant(mean + np.exp(log_scale) * normal, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(drawn)
        moved = model.flow.bijector().forward(drawn)
    jacobian = np.linalg.slogdet(tape.batch_jacobian(moved, drawn).numpy().astype(np.float64))[1]
    log_posterior = stats.norm.logpdf(normal).sum(1) - log_scale.sum(1) - jacobian
    log_prior = stats.norm.logpdf(moved.numpy().astype(np.float64)).sum(1)
    np.testing.assert_allclose(latents, moved, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(log_ratio, log_prior - log_posterior, rtol=1e-3, atol=1e-3)


def test_a_fixed_scale_stays_and_a_learned_one_finds_the_mean_squared_error():
    fixed, learned = (
        tiny.compiled(tiny.config(4, model="vae", learn_decoder_sigma=learn, decoder_sigma=0.5), learning_rate=0.02)
        for learn in (False, True)
    )
    for model in (fixed, learned):
        tiny.fit(model, IMAGES, 200)
    assert float(np.exp(fixed.log_sigma.numpy())) == pytest.approx(0.5)
    # The maximum of the likelihood over sigma is where sigma^2 is the mean squared error.
    noise = learned._noise((200, 0, 0), 6)
    pixels = learned.unit_pixels(IMAGES, noise.uniform(SHAPE, 0))
    latents, *_ = learned.infer(pixels, noise, training=True)
    error = float(tf.sqrt(tf.reduce_mean(tf.square(pixels - learned.decoder(latents, training=True)))))
    assert float(np.exp(learned.log_sigma.numpy())) == pytest.approx(error, rel=0.15)


@pytest.mark.parametrize("sigma", [2.0**-0.5, 0.1, 1.0])
@pytest.mark.parametrize("name", VAES)
def test_a_fixed_scale_has_the_floor_of_a_perfect_reconstruction(name, sigma):
    """-log2 of the highest density of N(x; x, sigma^2), a bin being 1 / 256 wide, for every pixel."""
    options = {"learn_decoder_sigma": False, "decoder_sigma": sigma}
    model = tiny.build(tiny.config(4, model=name, latent_dim=2, **options))
    floor = model.config.bits_per_dim_floor()
    assert floor == pytest.approx(-np.log2(stats.norm.pdf(0.0, scale=sigma) / 256.0), rel=1e-12)
    pixels = model.unit_pixels(IMAGES, RowNoise(row_seeds(6)).uniform(SHAPE, 0))
    perfect = units.bits_per_dim(model.log_density(pixels, pixels), SHAPE)
    np.testing.assert_allclose(perfect, floor, rtol=1e-5)  # 16 logarithms of float32, of some 5 nats each
    assert np.all(units.bits_per_dim(model.log_density(pixels, pixels + 0.1 * sigma), SHAPE) > perfect)
    if name == "vae":  # its KL is exact and so at least 0; the others' are by one draw, and at least 0 in the mean
        assert np.all(units.bits_per_dim(model.elbo(IMAGES, row_seeds(6)), SHAPE) > floor)
    assert f"= {floor:.3f}" in model.likelihood_note and ("worse than uniform" in model.likelihood_note) == (floor > 8.0)


def test_the_floor_of_the_defaults_is_what_the_help_says():
    for kind, floor in ((VAEConfig, 8.83), (TwoStageVAEConfig, 9.33)):
        options = kind(learn_decoder_sigma=False)
        assert round(options.bits_per_dim_floor(), 2) == floor
        help_text = kind.__dataclass_fields__["decoder_sigma"].metadata["meaning"]
        assert f"{floor}" in help_text and "log2(256 sigma sqrt(2 pi))" in help_text


@pytest.mark.parametrize("model", SYSTEMS)
def test_systems_whose_scale_is_learned_or_no_gaussians_have_no_floor(model):
    """Of the likelihoods: every system but those with a `decoder_sigma` that is fixed."""
    config = tiny.config(16, model=model, **({"learn_decoder_sigma": True} if model in VAES else {}))
    fixed = hasattr(config.system, "bits_per_dim_floor") and config.system.bits_per_dim_floor() is not None
    assert not fixed and (model in VAES) == hasattr(config.system, "bits_per_dim_floor")


@pytest.mark.parametrize("rate", [1.0, 10.0])
def test_the_logarithms_of_both_deviations_learn_so_many_times_as_fast_as_the_networks(rate):
    """A step of gradient descent: the logarithm moves by rate x learning rate x the loss's derivative with respect to it."""
    model = tiny.build(tiny.config(4, model="two_stage_vae", sigma_rate=rate, decoder_sigma=0.3))
    assert (float(model.sigma), float(model.gamma)) == (pytest.approx(0.3), 1.0)
    noise, scales = model._noise((0, 0, 0), 6), (model.log_sigma, model.log_gamma)
    losses = [player.objectives[0].loss for player in model.players()]

    def logarithm_and_loss(index):
        return rate * scales[index].numpy().astype(np.float64), float(tf.reduce_mean(losses[index](IMAGES, noise, ()).total))

    for index, scale in enumerate(scales):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(losses[index](IMAGES, noise, ()).total)
        descent = -1e-3 * tape.gradient(loss, scale.value).numpy()
        start, difference = scale.numpy(), []
        for step in (-5e-3, 5e-3):  # of the logarithm
            scale.assign(start + step / rate)
            difference.append(logarithm_and_loss(index))
        scale.assign(start)
        (low, below), (high, above) = difference
        scale.assign_add(descent)
        moved = rate * (scale.numpy() - start)
        assert moved == pytest.approx(-rate * 1e-3 * (above - below) / (high - low), rel=0.01)


def test_the_second_stage_sees_what_dai_and_wipf_describe():
    """Images of two factors and noise, after 600 steps of the first VAE with five latents.

    Dai and Wipf (2019, Section 3): sigma is the error of the reconstructions, and the posterior has next to no variance in as
    many dimensions as the data have, while the others are the prior. Learned at the networks' rate of 2e-3, sigma could have
    come to exp(-600 x 2e-3) = 0.30; all latents were the prior (measured), and the error 0.11.
    """
    random, wave = np.random.RandomState(0), np.cos(np.arange(8) * np.pi / 7.0)
    factors = random.uniform(-42.0, 42.0, (2, 7400, 1, 1))
    clean = 128.0 + factors[0] * wave[:, None] + factors[1] * wave
    images = np.clip(clean + 10.0 * random.standard_normal(clean.shape), 0, 255).astype(np.uint8)[..., None]
    model = tiny.build(tiny.config(8, model="two_stage_vae", latent_dim=5, autoencoder_width=4, hidden_units=32))
    model.compile({player.name: keras.optimizers.Adam(2e-3) for player in model.players()})
    batches = tf.data.Dataset.from_tensor_slices(images[:6400]).batch(128, drop_remainder=True).repeat()
    model.fit_batches(batches, steps_per_epoch=600, verbose=0)

    pixels = model.unit_pixels(images[6400:])
    posterior = model._gaussian(pixels)
    means, variances = posterior.mean().numpy(), posterior.variance().numpy().mean(0)
    latents = means + posterior.stddev().numpy() * random.standard_normal(means.shape).astype(np.float32)
    error = float(tf.sqrt(tf.reduce_mean(tf.square(pixels - model.decoder(latents)))))
    assert error == pytest.approx(10.0 / 256.0, rel=0.15)
    assert float(model.sigma) == pytest.approx(error, rel=0.1)
    active, collapsed = variances < 0.05, variances > 0.5
    assert active.sum() == 2 and collapsed.sum() == 3
    assert means[:, collapsed].var(0).max() < 0.2
    np.testing.assert_allclose(latents.var(0), 1.0, atol=0.5)


def test_the_first_of_two_stages_trains_the_first_vae_alone_and_the_second_the_other():
    model = tiny.compiled(tiny.config(4, model="two_stage_vae", first_stage_steps=2))
    first, second = [model.encoder, model.decoder], [model.second_encoder, model.second_decoder]
    for steps, moving, resting in ((2, first, second), (2, second, first)):
        before = [tiny.values(part.variables) for part in (*moving, *resting)]
        tiny.fit(model, IMAGES, steps)
        changed = [bool(tiny.changed(old, part.variables)) for old, part in zip(before, (*moving, *resting), strict=True)]
        assert changed == [True, True, False, False]


def test_samples_of_two_stages_have_the_moments_of_both():
    model = model_of("two_stage_vae")
    latents = model.draw_latents(StepNoise((0, 1), (), 4000)).numpy()
    noise = np.random.RandomState(0).standard_normal((4000, 2)).astype(np.float32)
    means = model.second_decoder(noise).numpy()
    expected = means.var(0) + deviation_of(model.log_gamma, model) ** 2
    np.testing.assert_allclose(latents.var(0), expected, rtol=0.1)
    np.testing.assert_allclose(latents.mean(0), means.mean(0), atol=0.1)
