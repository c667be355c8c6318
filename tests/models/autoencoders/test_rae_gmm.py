"""RAE + GMM: the mixture is scikit-learn's, samples follow it, and checkpoints are whole."""

import numpy as np
import pytest
import tensorflow as tf
import threadpoolctl
import tiny_models as tiny
from sklearn.mixture import GaussianMixture

from tfcq.errors import UserError
from tfcq.randomness import RowNoise, StepNoise, row_seeds

SHAPE = (4, 4, 1)


def model_of(components=3, **options):
    model = tiny.compiled(tiny.config(4, model="rae_gmm", mixture_components=components, **options))
    tiny.perturb(model.trainable_variables, 0.3)
    return model


def clusters(count=300, seed=0):
    random = np.random.RandomState(seed)
    centres = 3.0 * random.standard_normal((3, 3))
    return centres[random.randint(3, size=count)] + random.standard_normal((count, 3)) @ random.standard_normal((3, 3))


def fitted(components=3):
    return GaussianMixture(components, random_state=1).fit(clusters())


@pytest.mark.parametrize("components", [3, 5])
def test_the_density_is_scikit_learns(components):
    model, mixture = model_of(components), fitted()
    model.set_mixture(mixture.weights_, mixture.means_, mixture.covariances_)
    places = clusters(50, seed=2)
    np.testing.assert_allclose(
        model.latent_log_prob(places.astype(np.float32)), mixture.score_samples(places), rtol=1e-4, atol=1e-4
    )


def test_samples_follow_the_mixture():
    model, mixture = model_of(4), fitted()
    model.set_mixture(mixture.weights_, mixture.means_, mixture.covariances_)
    latents = model.draw_latents(StepNoise((0, 0), (), 6000)).numpy()
    np.testing.assert_allclose(np.bincount(mixture.predict(latents), minlength=3) / 6000, mixture.weights_, atol=0.04)
    centre = mixture.weights_ @ mixture.means_
    spread = mixture.means_ - centre
    covariance = np.einsum("k,kij->ij", mixture.weights_, mixture.covariances_) + (mixture.weights_ * spread.T) @ spread
    scale = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(latents.mean(0), centre, atol=0.06 * scale.max())
    np.testing.assert_allclose(np.cov(latents.T), covariance, atol=0.08 * scale.max() ** 2)
    cold = model.draw_latents(RowNoise(row_seeds(50)), 0.0).numpy()
    distance = np.abs(cold[:, None] - mixture.means_[None]).max(-1).min(-1)
    assert distance.max() < 1e-4


def test_settling_fits_the_latents_of_the_training_images():
    model = model_of(2)
    data = tiny.dataset(SHAPE, 20)
    latents = model.encode(data.images("train", range(20)), row_seeds(20))
    model.settle()
    expected = GaussianMixture(2, random_state=model.seed).fit(latents.astype(np.float64))
    np.testing.assert_allclose(tf.nn.softmax(model.mixture_logits.value), expected.weights_, rtol=1e-3)
    np.testing.assert_allclose(
        model.latent_log_prob(latents), expected.score_samples(latents.astype(np.float64)), rtol=1e-3, atol=1e-2
    )


def test_the_fit_takes_one_thread(monkeypatch):
    """On busy cores the threads of its small matrices wait for one another."""
    fit, seen = GaussianMixture.fit, []

    def threads():
        return {pool["num_threads"] for pool in threadpoolctl.threadpool_info()}

    def watched(self, rows):
        seen.append(threads())
        return fit(self, rows)

    monkeypatch.setattr(GaussianMixture, "fit", watched)
    model = model_of(2)
    with threadpoolctl.threadpool_limits(2):
        model.settle()
        assert threads() == {2}
    assert seen == [{1}]


def test_a_model_that_is_not_attached_keeps_its_mixture():
    model = tiny.build(tiny.config(4, model="rae_gmm"))
    before = tiny.values(model.variables)
    model.settle()
    assert not tiny.changed(before, model.variables)


def test_one_training_image_is_an_error_of_one_line():
    model = tiny.build(tiny.config(4, model="rae_gmm"))
    model.attach(tiny.dataset(SHAPE, 1), 8)
    with pytest.raises(UserError, match="at least 2 training images to fit the mixture to, received 1"):
        model.settle()


def test_fewer_images_than_components_is_no_error():
    model = model_of(12, mixture_images=5)
    model.settle()
    assert np.isfinite(model.latent_log_prob(np.zeros((1, 3), np.float32))).all()


def test_the_loss_is_squares_and_a_penalty():
    model = model_of(latent_penalty=0.7)
    images = tiny.images(SHAPE, 8)
    terms = model.players()[0].objectives[0].loss(images, model._noise((0, 0, 0), 8), ())
    pixels = (images.astype(np.float64) + 0.5) / 256.0
    latents = model.encoder(pixels.astype(np.float32), training=True)
    rebuilt = model.decoder(latents, training=True).numpy()
    expected = ((pixels - rebuilt) ** 2).sum((1, 2, 3)) + 0.7 * (latents.numpy().astype(np.float64) ** 2).sum(1)
    np.testing.assert_allclose(terms.total, expected, rtol=1e-4)
