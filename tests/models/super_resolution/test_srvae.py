"""srVAE and the VAE with a bijective prior: terms by their definitions, exact answers where there are some, compression."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny
from grid_cells import cells
from scipy import special, stats

from tfcq import images as units
from tfcq.distributions.logistic_mixture import DiscretizedLogisticMixture
from tfcq.errors import UserError
from tfcq.evaluation.pictures import Pictures
from tfcq.models.super_resolution.srvae import SRVAE
from tfcq.randomness import RowNoise, StepNoise, row_seeds

SHAPE = (16, 16, 3)
IMAGES = tiny.images(SHAPE, 4)


def model_of(name, **options):
    model = tiny.compiled(tiny.config(16, model=name, **options), channels=3)
    tiny.perturb(model.trainable_variables, 0.05)
    return model


@pytest.fixture(scope="module", params=["vae_bijective_prior", "srvae"])
def model(request):
    return model_of(request.param)


def log_normal(values, distribution):
    """log N of the last three axes, in float64."""
    return stats.norm.logpdf(values, distribution.mean(), distribution.stddev()).sum((1, 2, 3))


def log_prior(model, latents):
    """log p(u), the flow's Jacobian by autodiff."""
    flat = tf.reshape(latents, [len(latents), -1])
    with tf.GradientTape() as tape:
        tape.watch(flat)
        noise = model.prior_flow.inverse_and_log_det(tf.reshape(flat, latents.shape))[0]
        flat_noise = tf.reshape(noise, flat.shape)
    jacobians = np.linalg.slogdet(tape.batch_jacobian(flat_noise, flat).numpy().astype(np.float64))[1]
    return stats.norm.logpdf(flat_noise.numpy().astype(np.float64)).sum(1) + jacobians


def test_the_terms_of_the_vae_are_their_definitions():
    model, noise = model_of("vae_bijective_prior"), StepNoise((0, 3), (), 4)
    terms = model.infer(IMAGES, noise, model.observe(IMAGES))
    posterior = model.gaussian(model.encoder(IMAGES.astype(np.float32) / 255.0))
    latents = posterior.mean() + posterior.stddev() * noise.normal(model.map_shape, 0)
    mixture = DiscretizedLogisticMixture(model.decoder(latents), 3)
    np.testing.assert_allclose(terms["reconstruction"], -mixture.log_prob(IMAGES), rtol=1e-4)
    expected = log_normal(latents.numpy(), posterior) - log_prior(model, latents)
    np.testing.assert_allclose(terms["kl"], expected, rtol=1e-3, atol=1e-2)
    bound = model.elbo_terms(IMAGES, row_seeds(4))
    np.testing.assert_allclose(bound["elbo"], -(bound["reconstruction"] + bound["kl"]), rtol=1e-6)


def test_the_terms_of_srvae_are_their_definitions():
    model, noise = model_of("srvae"), StepNoise((0, 3), (), 4)
    terms = model.infer(IMAGES, noise, model.observe(IMAGES))
    compressed = model.compress(IMAGES)
    small, full = compressed.astype(np.float32) / 255.0, IMAGES.astype(np.float32) / 255.0
    outer_posterior, inner_posterior = model.gaussian(model.outer_encoder(small)), model.gaussian(model.inner_encoder(full))
    outer = outer_posterior.mean() + outer_posterior.stddev() * noise.normal(model.map_shape, 0)
    inner = inner_posterior.mean() + inner_posterior.stddev() * noise.normal(model.map_shape, 1)
    joint = np.concatenate([tf.nn.elu(model.prior_of_compressed(small)), model.prior_of_outer(outer)], axis=-1)
    inner_prior = model.gaussian(model.inner_prior(joint))
    larger = tf.image.resize(small, (16, 16), "bilinear")
    of_image = model.image_decoder(np.concatenate([larger, model.inner_decoder(inner)], axis=-1))
    expected = {
        "reconstruction_x": -DiscretizedLogisticMixture(of_image, 3).log_prob(IMAGES),
        "reconstruction_y": -DiscretizedLogisticMixture(model.compressed_decoder(outer), 3).log_prob(compressed),
        "kl_z": log_normal(inner.numpy(), inner_posterior) - log_normal(inner.numpy(), inner_prior),
        "kl_u": log_normal(outer.numpy(), outer_posterior) - log_prior(model, outer),
    }
    assert terms.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(terms[name], values, rtol=1e-3, atol=1e-2, err_msg=name)
    bound = model.elbo_terms(IMAGES, row_seeds(4))
    np.testing.assert_allclose(bound["elbo"], -sum(bound[name] for name in expected), rtol=1e-6)


def test_where_images_do_not_depend_on_latents_importance_weighting_finds_their_probability(model):
    """Then log P(x) is log p(x|anything), of srVAE with log p(y|anything), and E_q[p(w) / q(w)] = 1 is what is estimated."""
    decoders = [model.image_decoder, model.compressed_decoder] if model.name == "srvae" else [model.decoder]
    kept = tiny.values(model.variables)
    try:
        for network in decoders:
            network.layers[-1].magnitude.assign(tf.zeros_like(network.layers[-1].magnitude))
        seeds, images = row_seeds(4), IMAGES
        terms = model.elbo_terms(images, seeds)
        exact = -sum(value for name, value in terms.items() if name.startswith("reconstruction"))
        log_prob = tf.function(model.log_prob)
        bound, estimate = terms["elbo"], log_prob(images, seeds, tf.constant(2000)).numpy()
        assert (np.abs(estimate - exact) < 0.35).all(), (estimate - exact, bound - exact)
        assert np.abs(estimate - exact).mean() < 0.5 * np.abs(bound - exact).mean()
    finally:
        for variable, value in zip(model.variables, kept, strict=True):
            variable.assign(value)


def test_the_estimate_weights_all_terms_of_each_draw(model):
    seeds, count = row_seeds(4), 3
    noise, observed = RowNoise(seeds), model.observe(IMAGES)
    weights = [-sum(value.numpy() for value in model.infer(IMAGES, noise.fold(k), observed).values()) for k in range(count)]
    expected = special.logsumexp(np.array(weights, np.float64), axis=0) - np.log(count)
    np.testing.assert_allclose(model.log_prob(IMAGES, seeds, count), expected, rtol=1e-5)


def test_the_estimate_meets_the_density_of_a_linear_gaussian(monkeypatch):
    """w ~ N(0, 1), x|w ~ N(w, 1), q(w|x) too wide and beside the posterior: x ~ N(0, 2), which the bound misses."""
    model = model_of("vae_bijective_prior")
    values = np.array([-1.5, 0.0, 0.4, 2.0], np.float32)

    def infer(images, noise, observed):
        proposal = stats.norm(0.3 * values + 0.1, 0.9)
        latents = (0.3 * values + 0.1) + 0.9 * noise.normal((), 0)
        log_q = -0.5 * tf.square((latents - proposal.mean()) / 0.9) - np.log(0.9 * np.sqrt(2 * np.pi))
        log_p = -0.5 * tf.square(latents) - 0.5 * np.log(2 * np.pi)
        log_x = -0.5 * tf.square(values - latents) - 0.5 * np.log(2 * np.pi)
        return {"reconstruction": tf.cast(-log_x, tf.float32), "kl": tf.cast(log_q - log_p, tf.float32)}

    monkeypatch.setattr(model, "infer", infer)
    monkeypatch.setattr(model, "observe", lambda images: ())
    exact = stats.norm(0.0, np.sqrt(2.0)).logpdf(values)
    estimate = tf.function(model.log_prob)(IMAGES, row_seeds(4), tf.constant(4000)).numpy()
    np.testing.assert_allclose(estimate, exact, atol=0.06)
    bound = model.elbo_terms(IMAGES, row_seeds(4))["elbo"]
    assert np.abs(bound - exact).max() > 0.3


def test_an_images_estimate_does_not_depend_on_its_neighbours(model):
    seeds = row_seeds(4)
    together = model.log_prob(IMAGES, seeds, 3)
    for row in range(4):
        alone = model.log_prob(IMAGES[row : row + 1], seeds[row : row + 1], 3)
        np.testing.assert_allclose(alone, together[row : row + 1], rtol=1e-4)


def test_the_compressed_image_is_half_the_side_or_the_luminance():
    for compression, function in (("downscale", units.halve), ("grey", units.luminance)):
        model = tiny.build(tiny.config(16, model="srvae", compression=compression), 3)
        np.testing.assert_array_equal(model.compress(IMAGES), function(IMAGES))
        assert model.compress(IMAGES).shape == (4, *model.compressed_shape)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_four_operations_are_made_of_their_draws(temperature):
    """Each by the networks and the noise alone; u, z, y and x have the tags 0, 1, 2 and 4."""
    model, seeds = model_of("srvae"), row_seeds(4)
    noise, compressed, full = RowNoise(seeds), model.compress(IMAGES), IMAGES / np.float32(255.0)

    def normal(tag, scale=1.0):
        return scale * noise.normal(model.map_shape, tag)

    def drawn(parameters, shape, tag):
        mixture = DiscretizedLogisticMixture(parameters, 3)
        return mixture.sample_of(noise.uniform(shape, tag), noise.uniform((*shape, 3), tag + 1))

    def image_of(small, outer, scale=1.0):
        unit = small / np.float32(255.0)
        joint = np.concatenate([tf.nn.elu(model.prior_of_compressed(unit)), model.prior_of_outer(outer)], axis=-1)
        prior = model.gaussian(model.inner_prior(joint))
        return image_of_inner(small, prior.mean() + prior.stddev() * normal(1, scale))

    def image_of_inner(small, inner):
        larger = tf.image.resize(small / np.float32(255.0), (16, 16), "bilinear")
        return drawn(model.image_decoder(np.concatenate([larger, model.inner_decoder(inner)], axis=-1)), (16, 16), 4)

    outer = model.prior_flow.forward_and_log_det(normal(0, temperature))[0]
    generated = drawn(model.compressed_decoder(outer), (8, 8), 2)
    np.testing.assert_array_equal(model.sample(seeds, temperature), image_of(generated, outer, temperature))

    posterior = model.gaussian(model.outer_encoder(compressed / np.float32(255.0)))
    outer = posterior.mean() + posterior.stddev() * normal(0)
    np.testing.assert_array_equal(model.super_resolve(compressed, seeds), image_of(compressed, outer))
    generated = drawn(model.compressed_decoder(outer), (8, 8), 2)
    np.testing.assert_array_equal(model.generative_reconstruct(IMAGES, seeds), image_of(generated, outer))

    posterior = model.gaussian(model.inner_encoder(full))
    inner = posterior.mean() + posterior.stddev() * normal(1)
    np.testing.assert_array_equal(model.reconstruct(IMAGES, seeds), image_of_inner(compressed, inner))


def test_the_stages_of_a_sample_are_its_compressed_image_and_itself():
    model, seeds = model_of("srvae"), row_seeds(6, seed=2)
    compressed, images = model.draw_stages(RowNoise(seeds), 0.8)
    np.testing.assert_array_equal(images, model.sample(seeds, 0.8))
    outer = model.draw_prior(RowNoise(seeds), 0, 0.8)
    np.testing.assert_array_equal(compressed, model._compressed(outer, RowNoise(seeds)))
    shown = cells(Pictures(model).stages_grid(6, seed=2, temperature=0.8), 4, 16).reshape(6, 2, *SHAPE)
    larger = np.repeat(np.repeat(compressed, 2, axis=1), 2, axis=2)
    for place, expected in enumerate((larger, np.asarray(images))):  # a graph and eager may choose other components
        assert (shown[:, place] == expected).mean() > 0.99


def test_between_two_images_u_alone_changes():
    """The ends are what u's means generate without noise, whatever the images' z."""
    model = model_of("srvae")
    found = model.interpolate_outer(IMAGES[:2], IMAGES[2:], np.float32([0.0, 1.0]), np.array([False, True])).numpy()
    outer = model._outer_posterior(model.compress(IMAGES[[0, 3]])).mean()
    compressed = model._compressed(outer)
    expected = model._image(compressed, model._inner_prior(model._of_compressed(compressed), outer).mean()).numpy()
    assert (np.abs(found.astype(int) - expected) <= 1).mean() > 0.99
    flipped = IMAGES[:, :, ::-1]
    other = model.interpolate_outer(IMAGES[:2], flipped[2:], np.float32([0.0, 0.0]), np.array([False, False])).numpy()
    np.testing.assert_array_equal(other[0], found[0])  # at share 0 the other image plays no part


def test_grey_compression_has_a_grey_image_of_full_size_between():
    model, seeds = model_of("srvae", compression="grey"), row_seeds(4)
    compressed = model.compress(IMAGES)
    assert model.compressed_shape == (16, 16, 1) and compressed.shape == (4, 16, 16, 1)
    images = [model.sample(seeds), model.super_resolve(compressed, seeds), model.generative_reconstruct(IMAGES, seeds)]
    assert all(image.shape == (4, *SHAPE) and image.dtype == tf.uint8 for image in images)
    assert np.isfinite(model.elbo_terms(IMAGES, seeds)["reconstruction_y"]).all()


@pytest.mark.long
def test_after_training_images_given_a_compressed_one_compress_to_it():
    images = tiny.images(SHAPE, 512, seed=3)
    model = tiny.build(tiny.config(16, model="srvae", growth_scale=0.06, mixture_components=3), 3)
    model.attach(tiny.dataset(SHAPE), 32)
    model.compile({"autoencoder": keras.optimizers.Adamax(5e-3)})
    train, held_out = tf.data.Dataset.from_tensor_slices(images[:480]), images[480:]
    model.fit_batches(train.repeat().batch(32, drop_remainder=True), steps_per_epoch=100, verbose=0)
    compressed = model.compress(held_out)
    again = model.compress(model.super_resolve(compressed, row_seeds(32))).astype(float)
    # In units of 8 bits: 8 on average when this was written, 64 beside the compressed image of another.
    assert np.abs(again - compressed).mean() < 12
    assert np.abs(again - compressed[::-1]).mean() > 40


def test_modes_are_drawn_without_noise():
    model = model_of("vae_bijective_prior", image_draw="mode")
    latents = model.encode(IMAGES, row_seeds(4))
    np.testing.assert_array_equal(model.decode(latents), DiscretizedLogisticMixture(model.decoder(latents), 3).mode())
    assert not np.array_equal(model.sample(row_seeds(4)), model.sample(row_seeds(4, seed=1)))


def test_latents_and_their_noise_are_each_others_in_both_models(model):
    latents = model.encode(IMAGES, row_seeds(4))
    noise = model.noise_of(latents)
    np.testing.assert_allclose(model.latents_of(noise), latents, rtol=1e-3, atol=1e-3)
    assert np.abs(noise - latents).max() > 0.01
    if model.name == "srvae":
        outer, inner = np.split(latents, 2, axis=-1)
        small = DiscretizedLogisticMixture(model.compressed_decoder(outer), 3).mode().numpy() / np.float32(255.0)
        joint = np.concatenate([tf.nn.elu(model.prior_of_compressed(small)), model.prior_of_outer(outer)], axis=-1)
        prior = model.gaussian(model.inner_prior(joint))
        np.testing.assert_allclose(noise[..., 2:], (inner - prior.mean()) / prior.stddev(), rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(noise[..., :2], model.prior_flow.inverse_and_log_det(outer)[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("name", "precision"), [("vae_bijective_prior", "mixed_float16"), ("srvae", "mixed_bfloat16")])
def test_they_train_in_half_precision(name, precision):
    model = tiny.compiled(tiny.config(16, model=name, training={"precision": precision}), channels=3)
    model.run_eagerly = name == "srvae"  # its graph takes long to trace
    rows = tiny.fit(model, tiny.images(SHAPE, 8), 2)
    # float16's first gradients overflow, until their scale has fallen; such a step is skipped.
    assert all(np.isfinite(row["autoencoder/loss"]) and row["autoencoder/finite"] for row in rows)
    assert model.elbo_terms(IMAGES, row_seeds(4))["elbo"].dtype == tf.float32


def test_their_bound_compiles(model):
    noise = StepNoise((0, 3), (), 4)
    compiled = tf.function(lambda images: model.infer(images, noise, model.observe(images)), jit_compile=True)
    for name, values in model.infer(IMAGES, noise, model.observe(IMAGES)).items():
        np.testing.assert_allclose(compiled(IMAGES)[name], values, rtol=1e-3, atol=1e-2, err_msg=name)


def test_what_cannot_be_built_is_refused():
    config = tiny.config(16, model="srvae").system
    for shape in ((36, 16, 3), (16, 16, 2)):
        with pytest.raises(UserError, match=f"sides are multiples of 8, received {shape[0]}x16x{shape[2]}"):
            SRVAE(config, shape)
    with pytest.raises(UserError, match="compression=grey with grey images: the compressed image would be the image"):
        tiny.build(tiny.config(16, model="srvae", compression="grey"), 1)


def test_interpolation_is_straight_in_the_noise_of_the_prior():
    model, seeds = model_of("vae_bijective_prior"), row_seeds(2)
    latents = model.encode(IMAGES, row_seeds(4))
    noise = model.prior_flow.inverse_and_log_det(latents)[0]
    halfway = model.prior_flow.forward_and_log_det(0.5 * (noise[:2] + noise[2:]))[0]
    between = model.interpolate(IMAGES[:2], IMAGES[2:], np.full(2, 0.5, np.float32), np.zeros(2, bool), seeds)
    assert np.abs(between.astype(int) - model.decode(halfway)).max() <= 1
