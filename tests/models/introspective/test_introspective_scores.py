"""Scores of an introspective encoder: the energy, and the likelihood of Soft-IntroVAE's authors, by hand and in closed form."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
import tiny_models as tiny
from introspective_cases import IMAGES, SHAPE, SYSTEMS, model_of, numpy_kl

from tfcq.models.introspective.base import kl_of
from tfcq.randomness import row_seeds


@pytest.fixture(scope="module", params=SYSTEMS)
def model(request):
    return model_of(request.param)


def test_energy_is_the_kl_of_the_posterior(model):
    mean, log_variance = tf.split(model.encoder((IMAGES + np.float32(0.5)) / np.float32(256.0)), 2, axis=-1)
    np.testing.assert_allclose(model.energy(IMAGES, row_seeds(8)), numpy_kl(mean, log_variance), rtol=1e-4)


def test_the_unit_gaussian_likelihood_of_a_linear_model_is_its_own(model, monkeypatch):
    """A linear decoder with orthogonal columns, whose posterior is a diagonal Gaussian: every weight is p(x) itself."""
    random, size, dim = np.random.RandomState(1), int(np.prod(SHAPE)), model.latent_shape[0]
    columns = np.linalg.qr(random.standard_normal((size, dim)))[0] * random.uniform(0.5, 3.0, dim)
    offset = random.uniform(0.0, 1.0, size)
    matrix, constant = tf.constant(columns, tf.float32), tf.constant(offset, tf.float32)
    pixels = (IMAGES.reshape(8, -1).astype(np.float64) + 0.5) / 256.0
    variances = 1.0 / (1.0 + np.square(columns).sum(axis=0))
    posterior = tf.constant((pixels - offset) @ columns * variances, tf.float32), tf.constant(
        np.broadcast_to(np.log(variances), (8, dim)), tf.float32
    )
    monkeypatch.setattr(model, "posterior_of", lambda *_, **__: posterior)

    def decoder(latents, **_):
        return tf.reshape(tf.linalg.matmul(latents, matrix, transpose_b=True) + constant, (-1, *SHAPE))

    monkeypatch.setattr(model, "decoder", decoder)
    expected = scipy.stats.multivariate_normal(offset, np.eye(size) + columns @ columns.T).logpdf(pixels)
    for count in (1, 3):
        received = model.unit_gaussian_likelihood(IMAGES, row_seeds(8), count)
        np.testing.assert_allclose(received, expected, rtol=1e-5)


def test_more_draws_tighten_the_unit_gaussian_likelihood():
    model = model_of("introvae")  # the estimate is that of both
    one, many = (np.mean(model.unit_gaussian_likelihood(IMAGES, row_seeds(8), count)) for count in (1, 20))
    assert one < many


@pytest.mark.parametrize(
    ("network", "encoder", "agree"),
    [
        *(("none", "same", True), ("group", "same", True), ("batch", "same", False)),
        *(("batch", "none", True), ("none", "batch", False)),
    ],
)
def test_energy_is_what_the_players_see_without_batch_normalisation(network, encoder, agree):
    model = model_of("introvae", away=0.03, network_normalization=network, encoder_normalization=encoder)
    kinds = [any("moving_mean" in one.path for one in player.variables) for player in (model.encoder, model.decoder)]
    assert kinds == [encoder == "batch" or (encoder, network) == ("same", "batch"), network == "batch"]
    generated = {name: model.unit_pixels(tiny.images(SHAPE, 8, seed)) for seed, name in ((5, "reconstructed"), (6, "sampled"))}
    seen = kl_of(*model.posteriors_of_generated(generated)["sampled"])
    assert np.allclose(model.energy(tiny.images(SHAPE, 8, 6), row_seeds(8)), seen, rtol=1e-4) == agree
