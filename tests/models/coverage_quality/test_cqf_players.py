"""Who is trained by which loss in CQF: compared to the bit, the statistics of batch normalisation included."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny

from tfcq.distributions.pixels import pixel_bijector
from tfcq.engine.players import Player
from tfcq.images import to_network_range
from tfcq.networks.normalization import BatchNormalization, frozen_statistics
from tfcq.randomness import StepNoise

IMAGES = tf.constant(tiny.images((4, 4, 1)))
IMAGES_8 = tf.constant(tiny.images((8, 8, 1)))
NORMALIZATIONS = {
    "actnorm": {},
    "batch": {
        "network_normalization": "batch",
        "flow_normalization": "batch",
        "flow_conditioner_batch_normalization": True,
    },
}


@pytest.fixture(scope="module", params=NORMALIZATIONS)
def model(request):
    model = tiny.compiled(tiny.config(**NORMALIZATIONS[request.param]), learning_rate=0.01)
    tiny.perturb([*model.flow.trainable_variables, model.log_sigma], 0.1)
    return model


def generator_variables(model):
    return [*model.encoder.variables, *model.decoder.variables, model.log_sigma, *model.flow.variables]


def take_turn(model, player, step):
    shared, tape = model._shared(model.players(), IMAGES, model._noise((step, 2, 0), 8))
    before = {name: tiny.values(variables) for name, variables in parts(model).items()}
    model._take_turn(player, IMAGES, (step, 0, 0), shared, tape)
    return {name: tiny.changed(before[name], variables) for name, variables in parts(model).items()}


def parts(model):
    return {
        "discriminator": model.discriminator.variables,
        "generator": generator_variables(model),
        "step": [model.step],
    }


def statistics(model):
    """Paths of the moving statistics of what the likelihood trains."""
    return {path for path in paths(generator_variables(model)) if "/moving_" in path}


def paths(variables):
    return {variable.path for variable in variables}


def test_the_parts_are_the_whole_model(model):
    held = {id(variable) for variables in parts(model).values() for variable in variables}
    assert held == {id(variable) for variable in model.variables}


def test_a_discriminator_turn_moves_the_discriminator_alone(model):
    discriminator, _ = model.players()
    changed = take_turn(model, discriminator, 0)
    assert changed["discriminator"] == paths(model.discriminator.variables)
    assert not changed["generator"]


def test_a_generator_turn_moves_all_but_the_discriminator(model):
    _, generator = model.players()
    changed = take_turn(model, generator, 1)
    assert not changed["discriminator"]
    moved_before = statistics(model) if model.decoder.non_trainable_variables else set()  # with the shared tensors
    assert changed["generator"] == paths(generator_variables(model)) - moved_before


def test_batch_statistics_move_once_a_step_with_the_generated_images(model):
    before = tiny.values(model.variables)
    model._shared(model.players(), IMAGES, model._noise((5, 2, 0), 8))
    assert tiny.changed(before, model.variables) == statistics(model)
    before = tiny.values(model.variables)
    model._shared([], IMAGES, model._noise((6, 2, 0), 8))  # a further turn of the discriminator
    assert not tiny.changed(before, model.variables)


@pytest.mark.parametrize("options", [{}, {"latent_blocks": 2}, {"network": "residual"}])
def test_what_the_discriminator_saw_is_what_the_model_draws(options):
    """With moving statistics of this batch alone, features of real and of generated images are those of training."""
    model = tiny.build(tiny.config(8, network_normalization="batch", flow_couplings=1, flow_blocks=0, **options))
    model.initialize(IMAGES_8)
    tiny.perturb(model.trainable_variables, 0.3)  # posteriors far from the priors
    for layer in model._flatten_layers():
        if isinstance(layer, BatchNormalization):
            layer.momentum = 0.0
    noise = StepNoise((0, 0), (3,), 8)
    shared = model.shared_tensors(IMAGES_8, noise)
    generated = model._shown(model.decoder.generate(noise.fold(1), 1))
    np.testing.assert_allclose(shared["generated"], generated, rtol=1e-3, atol=1e-3)
    terms, inferred = model._coverage_terms(IMAGES_8, noise)
    for name, values in terms.items():
        np.testing.assert_allclose(shared["terms"][name], values, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(shared["kls"][0], inferred[0].kl, rtol=1e-3, atol=1e-4)


def quality_gradients(model, noise):
    """The gradients and logs of a player with the quality loss alone."""
    quality = Player("generator", [model.players()[1].objectives[1]])
    shared, tape = model._shared([quality], IMAGES, noise)
    gradients, slopes, logs = model._gradients(quality, IMAGES, None, 1.0, shared)
    return quality, model._pass_through(quality, gradients, slopes, shared, tape), logs


def test_the_quality_loss_alone_moves_the_decoders_weights_alone(model):
    before = tiny.values(model.variables)
    quality, gradients, logs = quality_gradients(model, StepNoise((0, 0), (2,), 8))
    assert paths(quality.variables) == paths(model.decoder.trainable_variables)
    assert tiny.changed(before, model.variables) == statistics(model)  # they move with the shared tensors
    before = tiny.values(model.variables)
    assert float(logs["loss"]) == pytest.approx(100.0 * float(logs["quality"]), rel=1e-6)
    for gradient, variable in zip(gradients, quality.variables, strict=True):
        assert np.abs(gradient).max() > 0, variable.path
        variable.assign_sub(0.01 * gradient)
    assert tiny.changed(before, model.variables) == paths(model.decoder.trainable_variables)


def test_the_coverage_loss_never_reaches_the_discriminator(model):
    coverage = model.players()[1].objectives[0]
    assert not paths(coverage.variables) & paths(model.discriminator.variables)
    noise = StepNoise((0, 0), (3,), 8)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(coverage.loss(IMAGES, noise, model.shared_tensors(IMAGES, noise)).total)
    gradients = tape.gradient(loss, [variable.value for variable in model.discriminator.trainable_variables])
    assert gradients == [None] * len(gradients)


def test_gradients_of_the_quality_loss_pass_through_the_flow(model):
    """Against the loss written down anew, a difference quotient, and what an identity in the flow's place gives."""
    weights = [variable.value for variable in model.decoder.trainable_variables]
    noise = StepNoise((0, 0), (4,), 8)
    latents = noise.normal(model.latent_shape, 1)
    if model.decoder.non_trainable_variables:  # batch statistics: of real images' features too, which come first
        with keras.StatelessScope():
            evidence = model.encoder(model.features(IMAGES, noise, training=True)[0], training=True)
        posterior = model.decoder.latents[0].infer(None, evidence[0], latents).latents
        latents = tf.concat([posterior, noise.fold(1).normal(model.latent_shape, 1)], 0)

    def loss(flow):
        with keras.StatelessScope():
            means = model.decoder._descend(lambda layer, state: latents, training=True)[-8:]
        unbounded = flow.forward_and_log_det(means)[0] if flow else means
        pixels = pixel_bijector("logit").forward(unbounded)
        return -100.0 * tf.reduce_mean(model.discriminator(to_network_range(pixels)))

    def gradient(flow):
        with tf.GradientTape() as tape:
            value = loss(flow)
        return tape.gradient(value, weights)

    _, received, logs = quality_gradients(model, noise)
    np.testing.assert_allclose(logs["loss"], loss(model.flow), rtol=1e-4)
    norm = float(tf.linalg.global_norm(received))
    for ours, theirs in zip(received, gradient(model.flow), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * norm)
    differences = [ours - other for ours, other in zip(received, gradient(None), strict=True)]
    assert tf.linalg.global_norm(differences) > 0.05 * norm

    values = []
    for side in (1.0, -1.0):
        for weight, direction in zip(weights, received, strict=True):
            weight.assign_add(side * 1e-3 * direction / norm)
        values.append(float(loss(model.flow)))
        for weight, direction in zip(weights, received, strict=True):
            weight.assign_sub(side * 1e-3 * direction / norm)
    assert (values[0] - values[1]) / 2e-3 == pytest.approx(norm, rel=0.05)


def test_a_gans_generator_keeps_its_own_statistics():
    """Once a step, from the images that both players look at."""
    model = tiny.compiled(tiny.config(network_normalization="batch", **tiny.ROWS["gan"]))
    before = tiny.values(model.decoder.variables)
    shared, tape = model._shared(model.players(), IMAGES, model._noise((0, 2, 0), 8))
    statistics = {variable.path for variable in model.decoder.non_trainable_variables}
    assert tiny.changed(before, model.decoder.variables) == statistics
    discriminator, generator = model.players()
    before = tiny.values(model.decoder.variables)
    model._take_turn(discriminator, IMAGES, (0, 0, 0), shared, tape)
    assert not tiny.changed(before, model.decoder.variables)
    model._take_turn(generator, IMAGES, (0, 1, 0), shared, tape)
    assert tiny.changed(before, model.decoder.variables) == paths(model.decoder.trainable_variables)


def test_rows_of_table_1_have_the_players_they_name():
    players = {}
    for name, options in tiny.ROWS.items():
        model = tiny.build(tiny.config(discriminator_steps=3, **options))
        players[name] = [(player.name, player.turns, len(player.objectives)) for player in model.players()]
        assert bool(model.flow.weights) == (name == "cqf")
    assert players == {
        "gan": [("discriminator", 3, 1), ("generator", 1, 1)],
        "vae": [("generator", 1, 1)],
        "cq": [("discriminator", 3, 1), ("generator", 1, 2)],
        "cqf": [("discriminator", 3, 1), ("generator", 1, 2)],
    }


@pytest.mark.parametrize("dequantize", [True, False])
def test_the_discriminators_images_are_dequantised_only_where_asked(dequantize):
    model = tiny.build(tiny.config(dequantize_real=dequantize, gradient_penalty=0.0, **tiny.ROWS["gan"]))
    seen = []
    model.discriminator = lambda images: seen.append(images) or tf.reduce_mean(images, axis=[1, 2, 3])
    noise = StepNoise((0, 0), (5,), 8)
    terms = model._discriminator_loss(IMAGES, noise, model.shared_tensors(IMAGES, noise))
    assert "gradient_penalty" not in terms.logs
    real = seen[0][:8].numpy() * 128.0 + 128.0 - IMAGES.numpy()
    expected = noise.uniform((4, 4, 1), 0) if dequantize else 0.5
    np.testing.assert_allclose(real, np.broadcast_to(expected, real.shape), atol=1e-4)
    assert np.abs(seen[0][8:]).max() <= 1.2  # what is generated, about [-1, 1]

def test_the_generators_gradients_are_those_of_each_loss_alone(model):
    """By automatic differentiation of a loss from the weights on, the shared tensors included."""
    noise, generator = StepNoise((0, 0), (6,), 8), model.players()[1]
    passes = []
    with frozen_statistics():  # which the flow uses to generate
        shared, tape = model._shared([generator], IMAGES, noise)
        gradients, slopes, _ = model._gradients(generator, IMAGES, noise, 1.0, shared)

        class Recorded:
            def gradient(self, target, sources, output_gradients):
                received = tape.gradient(target, sources, output_gradients)
                passes.extend(id(source) for source, gradient in zip(sources, received) if gradient is not None)
                return received

        found = model._pass_through(generator, gradients, slopes, shared, Recorded())
        expected = {variable.path: 0.0 for variable in generator.variables}
        for objective in generator.objectives:
            with tf.GradientTape() as whole:
                loss = tf.reduce_mean(objective.loss(IMAGES, noise, model.shared_tensors(IMAGES, noise)).total)
            for variable, gradient in zip(objective.variables, whole.gradient(loss, list(objective.variables)), strict=True):
                expected[variable.path] += gradient
    norm = float(tf.linalg.global_norm(found))
    for variable, gradient in zip(generator.variables, found, strict=True):
        np.testing.assert_allclose(gradient, expected[variable.path], rtol=1e-3, atol=1e-6 * norm, err_msg=variable.path)
    assert passes and len(set(passes)) == len(passes)  # one pass back a variable, for all losses that train it


def test_statistics_move_as_far_with_any_number_of_micro_batches():
    """Of the decoder and of the flow, in a step with both players' turns."""
    images = np.tile(tiny.images((8, 8, 1), 2), (4, 1, 1, 1))  # so that the parts' statistics are about the whole batch's
    moved = {}
    for parts in (1, 2, 4):
        options = {"network_normalization": "batch", "flow_normalization": "batch"}
        model = tiny.compiled(tiny.config(8, training={"micro_batches": parts}, **options))
        networks = {"decoder": model.decoder, "flow": model.flow}
        kept = {name: [one for one in network.variables if "/moving_" in one.path] for name, network in networks.items()}
        for variable in (one for variables in kept.values() for one in variables):
            variable.assign(tf.zeros_like(variable.value) + 5.0)  # far from every batch's
        model.train_step(tf.constant(images))
        moved[parts] = {name: np.concatenate([one.numpy().ravel() - 5.0 for one in kept[name]]) for name in kept}
    for parts in (2, 4):
        for name, whole in moved[1].items():
            # The fraction of the whole batch's movement, by least squares.
            assert np.vdot(moved[parts][name], whole) / np.vdot(whole, whole) == pytest.approx(1.0, abs=0.15), (parts, name)
