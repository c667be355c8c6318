"""GLF: which networks the latents' likelihood trains, the terms of the loss, and that regularisation shrinks latents."""

import unittest.mock

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny

from tfcq.config import TrainingConfig
from tfcq.engine.optimizers import compile_model
from tfcq.errors import UserError
from tfcq.randomness import RowNoise, row_seeds

SHAPE = (8, 8, 1)
IMAGES = tiny.images(SHAPE, 8)


def model_of(**options):
    model = tiny.compiled(tiny.config(8, model="glf", **options))
    tiny.perturb(model.trainable_variables, 0.1)
    return model


def gradients(model, loss, variables):
    values = [variable.value for variable in variables]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(values)
        total = tf.reduce_mean(loss())
    return tape.gradient(total, values)


@pytest.mark.parametrize("regularized", [False, True])
def test_the_encoder_feels_the_likelihood_only_where_regularized(regularized):
    """The loss with and without its reconstruction: the encoder's gradient of the rest is exactly zero, or not."""
    model = model_of(regularized=regularized, reconstruction_weight=0.0)
    noise = model._noise((0, 0, 0), 8)
    loss = model.players()[0].objectives[0].loss
    of_encoder = gradients(model, lambda: loss(IMAGES, noise, ()).total, model.encoder.trainable_variables)
    of_flow = gradients(model, lambda: loss(IMAGES, noise, ()).total, model.flow.trainable_variables)
    assert all(np.any(gradient != 0.0) for gradient in of_flow)
    moved = [np.any(np.asarray(gradient) != 0.0) for gradient in of_encoder if gradient is not None]
    # A weight times zero still has a gradient: exact zeros.
    assert any(moved) if regularized else not any(moved)


def test_the_loss_is_made_of_squares_and_the_latents_likelihood():
    model = model_of(reconstruction_weight=3.0, latent_flow_weight_decay=0.5)
    terms = model.players()[0].objectives[0].loss(IMAGES, model._noise((0, 0, 0), 8), ())
    pixels = (IMAGES.astype(np.float64) + 0.5) / 256.0
    latents = model.encoder(pixels.astype(np.float32), training=True)
    rebuilt = model.decoder(latents, training=True).numpy().astype(np.float64)
    squares = ((pixels - rebuilt) ** 2).sum((1, 2, 3))
    bijector = model.flow.bijector()
    noise = bijector.inverse(latents).numpy().astype(np.float64)
    nll = 0.5 * (noise**2).sum(1) + 1.5 * np.log(2.0 * np.pi) - bijector.inverse_log_det_jacobian(latents, 1)
    decay = 0.25 * sum((variable.numpy().astype(np.float64) ** 2).sum() for variable in model.flow.trainable_variables)
    np.testing.assert_allclose(terms.measures["reconstruction_error"], squares, rtol=1e-4)
    np.testing.assert_allclose(terms.total, 3.0 * squares + nll + decay, rtol=1e-4)


def test_the_flows_own_optimizer_is_adam_with_its_own_decays_and_leaves_the_others_alone():
    """The flow against Adam in NumPy; the auto-encoder against a model whose flow shares its optimizer, to the bit."""
    own = {"latent_flow_optimizer": "own", "latent_flow_beta_1": 0.7, "latent_flow_beta_2": 0.9}
    drops = {"learning_rate_drops": "0.5:0.1"}
    training = TrainingConfig(train_steps=4, optimizer="adam", learning_rate=1e-2, **drops)
    models = []
    for options in ({}, own | {"latent_flow_learning_rate": 4e-2}):
        model = tiny.build(tiny.config(8, model="glf", **options))
        compile_model(model, training)
        tiny.perturb(model.trainable_variables, 0.1)
        models.append(model)
    shared, model = models
    assert list(shared.player_optimizers) == ["autoencoder"] and list(model.player_optimizers) == ["autoencoder", "flow"]
    variables, loss = model.flow.trainable_variables, model.players()[0].objectives[0].loss
    weights = [value.astype(np.float64) for value in tiny.values(variables)]
    first, second = ([np.zeros_like(value) for value in weights] for _ in range(2))
    for step in range(1, 5):
        slopes = gradients(model, lambda: loss(IMAGES, model._noise((0, 0, 0), 8), ()).total, variables)
        rate = 4e-2 * (1.0 if step <= 2 else 0.1)  # the drops are the run's
        for index, slope in enumerate(np.asarray(slope, np.float64) for slope in slopes):
            first[index] = 0.7 * first[index] + 0.3 * slope
            second[index] = 0.9 * second[index] + 0.1 * slope**2
            deviation = np.sqrt(second[index] / (1.0 - 0.9**step)) + 1e-7 / np.sqrt(1.0 - 0.9**step)
            weights[index] -= rate * first[index] / (1.0 - 0.7**step) / deviation
        for one in models:
            tiny.fit(one, IMAGES, 1)
    for variable, expected in zip(variables, weights, strict=True):
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-3, atol=1e-4)
    before = tiny.values([*shared.encoder.trainable_variables, *shared.decoder.trainable_variables])
    for value, variable in zip(before, [*model.encoder.trainable_variables, *model.decoder.trainable_variables], strict=True):
        np.testing.assert_allclose(variable.numpy(), value, rtol=1e-5, atol=1e-6)  # the flow's rate would move them by 0.1


def test_micro_batches_take_the_step_of_one_batch_with_several_optimizers():
    """SGD, whose steps are the gradients themselves, at another rate for the flow; batches alike have equal statistics."""
    batch, moved = np.concatenate([IMAGES[:4], IMAGES[:4]]), []
    for parts in (1, 2):
        model = tiny.build(tiny.config(8, model="glf", latent_flow_optimizer="own"))
        rates = {"autoencoder": 1e-3, "flow": 4e-3}
        model.compile({name: keras.optimizers.SGD(rate) for name, rate in rates.items()}, micro_batches=parts)
        before = tiny.values(model.trainable_variables)
        slopes = gradients(model, lambda model=model: model.players()[0].objectives[0].loss(
            batch, model._noise((0, 0, 0), 8), ()).total, model.flow.trainable_variables)  # fmt: skip
        flow = tiny.values(model.flow.trainable_variables)
        model.train_step(tf.constant(batch))
        for old, slope, variable in zip(flow, slopes, model.flow.trainable_variables, strict=True):
            np.testing.assert_allclose(variable.numpy() - old, -4e-3 * np.asarray(slope), rtol=1e-3, atol=1e-7)
        moved.append([new - old for new, old in zip(tiny.values(model.trainable_variables), before, strict=True)])
    for one, two in zip(*moved, strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-3, atol=1e-7)


def test_an_optimizer_without_such_moments_is_refused_with_the_option_that_asks():
    model = tiny.build(tiny.config(8, model="vae_flow_prior", latent_flow_optimizer="own"))
    with pytest.raises(UserError, match="^latent_flow_optimizer=own: beta_1=0.8 with optimizer=sgd, which has no beta_1"):
        compile_model(model, TrainingConfig(optimizer="sgd"))


@pytest.mark.parametrize("name", ["glf", "glf_two_stages", "vae_flow_prior", "vae_flow_posterior"])
def test_a_flow_with_batch_normalisation_is_trained_by_the_batchs_statistics_which_move_once_a_step(name):
    stages = {"first_stage_steps": 1} if name == "glf_two_stages" else {}
    kind = "glf" if stages else name
    model = tiny.compiled(tiny.config(8, model=kind, latent_flow_normalization="batch", **stages))
    if stages:
        tiny.fit(model, IMAGES, 1)
    layer = model.flow.coupling_0_0.normalization_0
    seen = []
    call = type(layer).call

    def watched(self, inputs, training=False):
        if self is layer:
            seen.append((tf.reduce_mean(inputs, 0), training))
        return call(self, inputs, training=training)

    model.run_eagerly = True
    model.train_function = None
    with unittest.mock.patch.object(type(layer), "call", watched):
        tiny.fit(model, IMAGES, 1)
    assert seen and all(training for _, training in seen)
    np.testing.assert_allclose(layer.moving_mean, 0.1 * seen[0][0], rtol=1e-4, atol=1e-7)
    model.sample(row_seeds(2))
    moved = tiny.values(model.flow.non_trainable_variables)
    model.latent_likelihood(IMAGES, row_seeds(8)) if kind == "glf" else model.elbo_terms(IMAGES, row_seeds(8))
    assert not tiny.changed(moved, model.flow.non_trainable_variables)


def test_in_two_stages_each_part_is_trained_alone():
    model = model_of(first_stage_steps=2)
    parts = [model.encoder, model.decoder, model.flow]
    for steps, moving in ((2, [True, True, False]), (1, [False, False, True])):
        before = [tiny.values(part.variables) for part in parts]
        tiny.fit(model, IMAGES, steps)
        changed = [bool(tiny.changed(values, part.variables)) for values, part in zip(before, parts, strict=True)]
        assert changed == moving


def test_samples_are_decoded_noise_through_the_flow():
    model, seeds = model_of(), row_seeds(5)
    noise = 0.5 * RowNoise(seeds).normal(model.latent_shape, 0)
    latents = model.flow.bijector().forward(noise)
    pixels = 256.0 * model.decoder(latents).numpy()
    np.testing.assert_array_equal(model.sample(seeds, 0.5), np.clip(np.floor(pixels), 0, 255).astype(np.uint8))


def test_latent_likelihood_is_the_flows_density_and_the_squared_error():
    model, seeds = model_of(), row_seeds(8)
    answer = model.latent_likelihood(IMAGES, seeds)
    latents = tf.constant(model.encode(IMAGES, seeds))
    with tf.GradientTape() as tape:
        tape.watch(latents)
        noise = model.flow.bijector().inverse(latents)
    jacobians = np.linalg.slogdet(tape.batch_jacobian(noise, latents).numpy().astype(np.float64))[1]
    density = -0.5 * (noise.numpy().astype(np.float64) ** 2).sum(1) - 1.5 * np.log(2.0 * np.pi) + jacobians
    np.testing.assert_allclose(answer["latent_log_prob"], density, rtol=1e-4)
    pixels = (IMAGES.astype(np.float64) + 0.5) / 256.0
    rebuilt = model.decoder(latents).numpy().astype(np.float64)
    np.testing.assert_allclose(answer["reconstruction_error"], ((pixels - rebuilt) ** 2).sum((1, 2, 3)), rtol=1e-4)


def test_interpolation_is_straight_in_the_space_of_noise():
    model, seeds = model_of(), row_seeds(4)
    first, second = IMAGES[:4], IMAGES[4:]
    ends = [model.flow.bijector().inverse(model.encode(images, seeds)) for images in (first, second)]
    halfway = model.decode(model.flow.bijector().forward(0.5 * (ends[0] + ends[1])))
    share, straight = np.full(4, 0.5, np.float32), np.zeros(4, bool)
    between = model.interpolate(first, second, share, straight, seeds).astype(int)
    assert np.abs(between - halfway.numpy().astype(int)).max() <= 1
    at_the_end = model.interpolate(first, second, 2.0 * share, straight, seeds).astype(int)
    assert np.abs(at_the_end - model.reconstruct(second, seeds).astype(int)).max() <= 1


def test_between_two_samples_the_way_is_that_of_the_noise_that_the_flow_takes():
    model, (first, second) = model_of(), (row_seeds(4, seed=seed) for seed in (1, 2))
    noise = [RowNoise(seeds).normal((3,), 0) for seeds in (first, second)]
    halfway = model.decode(model.flow.bijector().forward(0.4 * (0.75 * noise[0] + 0.25 * noise[1])))
    between = model.interpolate_noise(first, second, 0.25, temperature=0.4).astype(int)
    assert np.abs(between - halfway.numpy().astype(int)).max() <= 1


def test_regularized_latents_shrink_and_glfs_do_not():
    """The paper's Figure 4 in small: without the stop-gradient the likelihood is raised by making latents small."""
    scales, images = {}, tiny.images(SHAPE, 32)
    for regularized in (False, True):
        model = tiny.compiled(
            tiny.config(8, model="glf", regularized=regularized, reconstruction_weight=0.1), learning_rate=1e-2
        )
        rows = tiny.fit(model, images, 120)
        scales[regularized] = [row["autoencoder/latents_mean_square"] for row in (rows[0], rows[-1])]
    assert scales[True][1] < 0.25 * scales[True][0]
    assert scales[False][1] > 0.5 * scales[False][0]
