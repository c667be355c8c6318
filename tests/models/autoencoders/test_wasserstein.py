"""WAE-GAN and WAE-MMD: losses against NumPy, which networks each loss trains, the pre-training, the noise on the pixels."""

import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny

from tfcq.config import SYSTEMS

SHAPE = (4, 4, 1)
IMAGES = tiny.images(SHAPE, 8)


def model_of(name, **options):
    model = tiny.compiled(tiny.config(4, model=name, **({"pretraining_steps": 0} | options)))
    tiny.perturb(model.trainable_variables, 0.2)
    return model


def softplus(values):
    return np.logaddexp(0.0, values.astype(np.float64))


def test_the_adversary_and_the_encoder_have_opposite_cross_entropies():
    model = model_of("wae_gan", input_noise=0.0, prior_sigma=1.5, divergence_weight=4.0)
    noise = model._noise((0, 0, 0), 8)
    (autoencoder, adversary) = model.players()
    latents = model.encoder(model.unit_pixels(IMAGES), training=True)
    drawn = 1.5 * noise.normal((3,), 0).numpy()
    latent_logits, prior_logits = (model.adversary(one).numpy()[:, 0] for one in (latents, drawn))
    terms = adversary.objectives[0].loss(IMAGES, noise, ())
    np.testing.assert_allclose(terms.total, softplus(-prior_logits) + softplus(latent_logits), rtol=1e-4)
    terms = autoencoder.objectives[0].loss(IMAGES, noise, ())
    pixels = (IMAGES.astype(np.float64) + 0.5) / 256.0
    squares = ((pixels - model.decoder(latents, training=True).numpy()) ** 2).sum((1, 2, 3))
    np.testing.assert_allclose(terms.total, 0.05 * squares + 4.0 * softplus(-latent_logits), rtol=1e-4)
    np.testing.assert_allclose(terms.measures["reconstruction_error"], squares, rtol=1e-4)


@pytest.mark.parametrize("name", ["wae_gan", "wae_mmd"])
def test_the_defaults_are_the_scaling_of_tolstikhin_et_al(name):
    """Their code on MNIST, with pixels in [0, 1]: 0.05 times the summed squares, plus lambda = 10 times the penalty."""
    options = SYSTEMS[name]()
    assert (options.reconstruction_weight, options.divergence_weight) == (0.05, 10.0)
    model = model_of(name)
    model.divergence = lambda latents, noise: tf.fill([8], 2.5)
    terms = model.players()[0].objectives[0].loss(IMAGES, model._noise((0, 0, 0), 8), ())
    np.testing.assert_allclose(terms.total, 0.05 * terms.measures["reconstruction_error"] + 25.0, rtol=1e-5)


@pytest.mark.parametrize(("given", "weight"), [({}, 1.0), ({"reconstruction_weight": 9.0, "perceptual_error_weight": 3.0}, 3.0)])
def test_the_scaling_of_squares_is_not_that_of_a_perceptual_error(given, weight, monkeypatch):
    model = tiny.build(tiny.config(4, model="wae_mmd", pretraining_steps=0, reconstruction="perceptual", **given))
    model.divergence = lambda latents, noise: tf.fill([8], 2.5)
    monkeypatch.setattr(type(model.reconstruction_error), "__call__", lambda *_: tf.range(8.0))  # without VGG16
    terms = model.players()[0].objectives[0].loss(IMAGES, model._noise((0, 0, 0), 8), ())
    np.testing.assert_allclose(terms.total, weight * np.arange(8.0) + 25.0, rtol=1e-6)


def test_the_adversary_is_trained_by_its_own_turn_alone_and_leaves_the_encoders_statistics():
    model = model_of("wae_gan")
    autoencoder, adversary = model.players()
    assert [player.name for player in model.players()] == ["autoencoder", "discriminator"]
    of_adversary = {id(variable) for variable in model.adversary.trainable_variables}
    assert {id(variable) for variable in adversary.variables} == of_adversary
    assert not of_adversary & {id(variable) for variable in autoencoder.variables}
    before = tiny.values(model.encoder.non_trainable_variables)
    adversary.objectives[0].loss(IMAGES, model._noise((0, 1, 0), 8), ())
    assert not tiny.changed(before, model.encoder.non_trainable_variables)


def test_pretraining_moves_the_encoder_alone_towards_the_priors_moments():
    model = tiny.compiled(tiny.config(4, model="wae_mmd", pretraining_steps=80, prior_sigma=2.0), learning_rate=0.05)
    parts = [model.encoder, model.decoder]
    before = [tiny.values(part.trainable_variables) for part in parts]
    rows = tiny.fit(model, IMAGES, 80)
    changed = [bool(tiny.changed(old, part.trainable_variables)) for old, part in zip(before, parts, strict=True)]
    assert changed == [True, False]
    losses = [row["pretraining/loss"] for row in rows]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:3])


def test_the_density_of_latents_is_the_priors():
    model = model_of("wae_mmd", prior_sigma=1.5)
    latents = np.random.RandomState(0).standard_normal((5, 3)).astype(np.float32)
    expected = -0.5 * (latents**2).sum(1) / 1.5**2 - 3.0 * np.log(1.5) - 1.5 * np.log(2.0 * np.pi)
    np.testing.assert_allclose(model.latent_log_prob(latents), expected, rtol=1e-5)


def test_noise_on_the_pixels_is_what_the_encoder_sees_in_training_alone():
    model = model_of("wae_gan", input_noise=0.5)
    noise = model._noise((0, 0, 0), 8)
    pixels = (IMAGES + np.float32(0.5)) / 256.0
    clean, latents = model.training_latents(IMAGES, noise)
    np.testing.assert_allclose(clean, pixels, rtol=1e-6)
    noisy = pixels + 0.5 * noise.normal(SHAPE, 1).numpy()
    np.testing.assert_allclose(latents, model.encoder(noisy, training=True), rtol=1e-4, atol=1e-5)
    assert np.abs(latents - model.encoder(pixels, training=True)).max() > 0.01
    latents = model.encode(IMAGES, np.zeros((8, 2), np.int32))
    np.testing.assert_allclose(latents, model.encoder(pixels), rtol=1e-5, atol=1e-6)


def test_the_discrepancy_pulls_latents_to_the_prior():
    model = tiny.compiled(tiny.config(4, model="wae_mmd", pretraining_steps=0, divergence_weight=300.0), learning_rate=0.02)
    model.encoder.layers[-1].bias.assign([3.0, -3.0, 3.0])
    rows = tiny.fit(model, IMAGES, 120)
    first, last = ([row["autoencoder/divergence"] for row in part] for part in (rows[:10], rows[-10:]))
    assert np.mean(last) < 0.3 * np.mean(first)
    assert np.isfinite([tf.reduce_mean(model.encode(IMAGES, np.zeros((8, 2), np.int32)))]).all()
