"""IntroVAE and Soft-IntroVAE: losses by hand, who moves and who does not, parts and recomputation, pre-training."""

import collections
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
import tiny_models as tiny
from introspective_cases import IMAGES, SHAPE, SYSTEMS, model_of, numpy_kl

from tfcq.engine.checkpoints import Checkpoints
from tfcq.engine.step import Origin
from tfcq.models.introspective import soft_introvae
from tfcq.models.introspective.base import kl_of, squared_error
from tfcq.networks.introvae import Block
from tfcq.randomness import StepNoise, row_seeds


@pytest.fixture(scope="module", params=SYSTEMS)
def model(request):
    return model_of(request.param)


def assert_updates_agree(model, other, before):
    """Of SGD, whose updates are gradients; those of a first step of Adam are nothing but signs."""
    for one, ours, old in zip(model.trainable_variables, other.trainable_variables, before, strict=True):
        update, size = one.numpy() - old, np.abs(one.numpy() - old).max()
        assert 0.0 < size < 1e3
        np.testing.assert_allclose(ours.numpy() - old, update, rtol=1e-3, atol=1e-3 * size, err_msg=one.path)


def shared_of(model, path=(0, 2, 0)):
    return model._shared(model.players(), IMAGES, model._noise(path, 8))


def test_the_kl_is_equation_9_and_tfps():
    mean, log_variance = np.random.RandomState(0).standard_normal((2, 5, 3)).astype(np.float32)
    expected = numpy_kl(mean, log_variance)
    np.testing.assert_allclose(kl_of(mean, log_variance), expected, rtol=1e-5)
    tfd = tfp.distributions
    posterior = tfd.Independent(tfd.Normal(mean, np.exp(0.5 * log_variance)), 1)
    prior = tfd.Independent(tfd.Normal(np.zeros(3, np.float32), 1.0), 1)
    np.testing.assert_allclose(kl_of(mean, log_variance), tfd.kl_divergence(posterior, prior), rtol=1e-5)


def parts_of(model, shared):
    """What equations 11 and 12 consist of, in float64, batch normalisation by each batch's statistics."""
    pixels = (IMAGES.astype(np.float64) + 0.5) / 256.0
    kls = {name: numpy_kl(*parameters) for name, parameters in model.posteriors_of_generated(shared).items()}
    real = numpy_kl(shared["mean"], shared["log_variance"])
    error = np.sum((pixels - shared["reconstructed"].numpy()) ** 2, axis=(1, 2, 3))
    return real, kls["reconstructed"], kls["sampled"], error


@pytest.mark.parametrize("form", ["per_sample", "batch_mean"])
def test_the_losses_are_equations_11_and_12(form):
    model = model_of("introvae", margin_form=form, adversarial_weight=0.3, reconstruction_weight=0.7)
    shared, _ = shared_of(model)
    real, reconstructed, sampled, error = parts_of(model, shared)
    margin = float(np.median(np.concatenate([reconstructed, sampled])))  # some are above it
    if form == "batch_mean":
        reconstructed, sampled = reconstructed.mean(), sampled.mean()
        margin = 0.3 * reconstructed + 0.7 * sampled  # one of the two is
    model.margin.assign(margin)
    hinges = np.maximum(0.0, margin - reconstructed) + np.maximum(0.0, margin - sampled)
    assert np.min([reconstructed, sampled]) < margin < np.max([reconstructed, sampled])
    found = model._encoder_loss(IMAGES, StepNoise((0, 0), (), 8), shared)
    np.testing.assert_allclose(found.total, real + 0.3 * hinges + 0.7 * 0.5 * error, rtol=1e-4)
    real, reconstructed, sampled, error = parts_of(model, shared)
    found = model._generator_loss(IMAGES, StepNoise((0, 0), (), 8), shared)
    np.testing.assert_allclose(found.total, 0.3 * (reconstructed + sampled) + 0.7 * 0.5 * error, rtol=1e-4)
    other = model_of("introvae", generator_adversarial_weight=0.9, reconstruction_weight=0.7)
    shared, _ = shared_of(other)
    _, reconstructed, sampled, error = parts_of(other, shared)
    found = other._generator_loss(IMAGES, StepNoise((0, 0), (), 8), shared)
    np.testing.assert_allclose(found.total, 0.9 * (reconstructed + sampled) + 0.7 * 0.5 * error, rtol=1e-4)


def test_the_soft_losses_are_those_of_their_definition():
    model = model_of("soft_introvae", reconstruction_weight=0.8, kl_weight=0.6, negative_weight=3.0)
    shared, _ = shared_of(model)
    noise, scale = StepNoise((0, 0), (1, 2), 8), 1.0 / np.prod(SHAPE)
    real, *_, error = parts_of(model, shared)
    exponentials, kls, errors = 0.0, 0.0, 0.0
    parameters = model.posteriors_of_generated(shared)
    draws = [noise.normal(model.latent_shape, tag) for tag in (2, 3)]
    latents = [mean + tf.exp(0.5 * log_variance) * one for (mean, log_variance), one in zip(parameters.values(), draws)]
    images = np.split(model.decoder(tf.concat(latents, 0), training=True), 2)
    for (name, (mean, log_variance)), again in zip(parameters.items(), images, strict=True):
        of_generated = np.sum((shared[name].numpy().astype(np.float64) - again) ** 2, axis=(1, 2, 3))
        kl = numpy_kl(mean, log_variance)
        exponentials += 0.25 * np.exp(-2.0 * scale * (0.8 * of_generated + 3.0 * kl))
        kls, errors = kls + kl, errors + of_generated
    expected = scale * (0.8 * error + 0.6 * real) + exponentials
    np.testing.assert_allclose(model._encoder_loss(IMAGES, noise, shared).total, expected, rtol=1e-4)
    expected = scale * (0.8 * error + 0.5 * 0.6 * kls + 0.5e-8 * 0.8 * errors)
    np.testing.assert_allclose(model._generator_loss(IMAGES, noise, shared).total, expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["introvae", pytest.param("soft_introvae", marks=pytest.mark.long)])
def test_reconstructions_and_samples_are_after_training_what_they_were_in_it(name):
    """The generator's moving statistics are those that it normalises by, however far the posterior is from the prior."""
    model = model_of(name)
    bias = model.encoder.get_layer("outputs").bias
    bias.assign(bias + np.where(np.arange(bias.shape[0]) < model.config.latent_dim, 4.0, 0.0))  # means
    rows = 4 * len(IMAGES)
    images = tf.constant(np.tile(IMAGES, (4, 1, 1, 1)))
    for step in range(40):  # of fixed weights: moving statistics come to those of such a batch
        shared, _ = model._shared(model.players(), images, model._noise((step, 2, 0), rows))
    prior = model._noise((39, 2, 0), rows).normal(model.latent_shape, 1)
    for kind, latents in (("reconstructed", shared["latents"]), ("sampled", prior)):
        ours = model.decoder(latents).numpy()
        off = np.sqrt(np.mean((ours - shared[kind]) ** 2)) / np.std(shared[kind])
        assert off < 0.1, (kind, off)


@pytest.mark.parametrize(("moving", "still"), [("encoder", "decoder"), ("decoder", "encoder")])
@pytest.mark.parametrize("name", SYSTEMS)
def test_a_players_step_leaves_every_variable_of_the_other_as_it_was(name, moving, still):
    model = model_of(name)
    shared, tape = shared_of(model)
    player = model.players()[("encoder", "decoder").index(moving)]
    networks = {"encoder": model.encoder, "decoder": model.decoder}
    before = {key: tiny.values(network.variables) for key, network in networks.items()}
    model._take_turn(player, IMAGES, (0, 0, 0), shared, tape)
    assert not tiny.changed(before[still], networks[still].variables)  # moving statistics too
    trained = {variable.path for variable in networks[moving].trainable_variables}
    assert tiny.changed(before[moving], networks[moving].variables) == trained


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_encoder_moves_first_and_the_generator_meets_it_moved_with_the_images_of_before(name):
    model, twin = (model_of(name, away=0.03) for _ in range(2))
    logs = tf.function(model.train_step)(tf.constant(IMAGES))
    shared, tape = shared_of(twin)
    for player, turn in zip(twin.players(), range(2)):
        kls = {kind: np.mean(kl_of(*one)) for kind, one in twin.posteriors_of_generated(shared).items()}
        for kind, kl in kls.items():
            np.testing.assert_allclose(logs[f"{player.name}/kl_{kind}"], kl, rtol=1e-3)
        twin._take_turn(player, IMAGES, (0, turn, 0), shared, tape)
    before, after = (np.array([logs[f"{who}/kl_{kind}"] for kind in kls]) for who in ("encoder", "generator"))
    assert np.all(np.abs(after / before - 1.0) > 5e-3)  # the step shows


def test_the_generators_reconstruction_does_not_reach_the_encoder_through_z():
    """As alpha vanishes, the generator's gradient is that of its reconstruction at given latents."""
    model = model_of("introvae", adversarial_weight=1e-20, reconstruction_weight=1.0)
    shared, tape = shared_of(model)
    player = model.players()[1]
    assert player.name == "generator" and player.variables == model.decoder.trainable_variables
    found, _ = model._turn_gradients(player, IMAGES, (0, 1, 0), shared, tape)
    pixels, values = model.unit_pixels(IMAGES), [variable.value for variable in model.decoder.trainable_variables]
    latents = tf.constant(np.concatenate([shared["latents"], model._noise((0, 2, 0), 8).normal(model.latent_shape, 1)]))
    with tf.GradientTape() as direct:
        error = squared_error(pixels, model.decoder(latents, training=True)[:8])
        loss = tf.reduce_mean(0.5 * error)
    for gradient, expected in zip(found, direct.gradient(loss, values), strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-4 * float(tf.reduce_max(tf.abs(expected))) + 1e-7)


def test_the_encoder_feels_its_reconstruction_through_z_but_generated_images_as_given():
    model = model_of("introvae", adversarial_weight=0.5)
    model.margin.assign(1e6)
    shared, tape = shared_of(model)
    found, _ = model._turn_gradients(model.players()[0], IMAGES, (0, 0, 0), shared, tape)
    values = [variable.value for variable in model.encoder.trainable_variables]
    noise, prior = (model._noise((0, 2, 0), 8).normal(model.latent_shape, tag) for tag in (0, 1))
    with tf.GradientTape() as direct:
        mean, log_variance = model.posterior_of(model.unit_pixels(IMAGES), training=True)
        latents = mean + tf.exp(0.5 * log_variance) * noise
        rebuilt = model.decoder(tf.concat([latents, prior], 0), training=True)[:8]
        held = {name: tf.constant(shared[name].numpy()) for name in ("reconstructed", "sampled")}
        hinges = [1e6 - kl_of(*parameters) for parameters in model.posteriors_of_generated(held).values()]
        error = squared_error(model.unit_pixels(IMAGES), rebuilt)
        loss = tf.reduce_mean(kl_of(mean, log_variance) + 0.5 * sum(hinges) + 0.5 * 0.5 * error)
    for gradient, expected in zip(found, direct.gradient(loss, values), strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=2e-3, atol=2e-4 * float(tf.reduce_max(tf.abs(expected))) + 1e-6)


@pytest.mark.parametrize("number", [0, 1])
def test_the_soft_players_feel_generated_images_and_their_latents_as_given_where_they_are(number, monkeypatch):
    monkeypatch.setattr(soft_introvae, "_GENERATED_ERROR", 1.0)  # so small a weight would hide what R' reaches
    model = model_of("soft_introvae", reconstruction_weight=0.8, kl_weight=0.6, negative_weight=3.0)
    shared, tape = shared_of(model)
    player = model.players()[number]
    found, _ = model._turn_gradients(player, IMAGES, (0, number, 0), shared, tape)
    pixels, scale, held = model.unit_pixels(IMAGES), 1.0 / np.prod(SHAPE), tf.stop_gradient
    noise, prior = (model._noise((0, 2, 0), 8).normal(model.latent_shape, tag) for tag in (0, 1))
    again_noise = tf.concat([model._noise((0, number, 0), 8).normal(model.latent_shape, tag) for tag in (2, 3)], 0)
    with tf.GradientTape() as direct:
        mean, log_variance = model.posterior_of(pixels, training=True)
        latents = mean + tf.exp(0.5 * log_variance) * noise
        made = model.decoder(tf.concat([latents if number == 0 else held(latents), prior], 0), training=True)
        error = squared_error(pixels, made[:8])
        seen = dict(zip(("reconstructed", "sampled"), tf.split(made if number else held(made), 2)))
        means, log_variances = (tf.concat(ones, 0) for ones in zip(*model.posteriors_of_generated(seen).values()))
        draws = means + tf.exp(0.5 * log_variances) * again_noise
        errors = squared_error(held(made), model.decoder(held(draws) if number else draws, training=True))
        kls = kl_of(means, log_variances)
        if number == 0:
            pushes = 0.25 * tf.exp(-2.0 * scale * (0.8 * errors + 3.0 * kls))
            loss = tf.reduce_mean(scale * (0.8 * error + 0.6 * kl_of(mean, log_variance))) + 2.0 * tf.reduce_mean(pushes)
        else:
            loss = scale * (0.8 * tf.reduce_mean(error) + 2.0 * tf.reduce_mean(0.5 * 0.6 * kls + 0.5 * 0.8 * errors))
    values = [variable.value for variable in player.variables]
    for gradient, expected in zip(found, direct.gradient(loss, values), strict=True):
        size = float(tf.reduce_max(tf.abs(expected)))
        np.testing.assert_allclose(gradient, expected, rtol=2e-3, atol=2e-4 * size + 1e-6)


@pytest.mark.parametrize("name", ["introvae", pytest.param("soft_introvae", marks=pytest.mark.long)])
def test_micro_batches_take_the_step_of_one_batch(name):
    options = {"optimizer": keras.optimizers.SGD, "away": 0.03, "network_normalization": "none"}
    models = [model_of(name, {"micro_batches": parts}, **options) for parts in (1, 4)]
    before = tiny.values(models[0].trainable_variables)
    assert [model.micro_batches for model in models] == [1, 4]
    logs = [tf.function(model.train_step)(tf.constant(IMAGES)) for model in models]
    assert logs[0].keys() == logs[1].keys()
    for key in logs[0]:
        np.testing.assert_allclose(logs[1][key], logs[0][key], rtol=2e-4, err_msg=key)
    assert_updates_agree(*models, before)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(("moving", "still"), [("encoder", "decoder"), ("decoder", "encoder")])
def test_parts_leave_the_other_player_alone_and_move_statistics_as_far_as_one_batch(moving, still, recompute):
    model = model_of("introvae", {"micro_batches": 4}, recompute_gradients=recompute)
    number = ("encoder", "decoder").index(moving)
    networks, images = {"encoder": model.encoder, "decoder": model.decoder}, tf.constant(np.tile(IMAGES[:2], (4, 1, 1, 1)))
    before = {key: tiny.values(network.variables) for key, network in networks.items()}
    stem = model.encoder.layers[0]
    convolution, normalization = (stem.layer if recompute else stem).layers[:2]
    old, mean = normalization.moving_mean.numpy(), np.mean(convolution(model.unit_pixels(IMAGES[:2])), axis=(0, 1, 2))
    player, kept = model.players()[number], model._kept(images, (0, 2, 0)) if number else None
    assert not tiny.changed(before["encoder"], model.encoder.variables)
    origin = Origin([player], images, (0, 2, 0), kept)
    model._update(player, *model._turn_gradients_in_parts(player, images, (0, 0, 0), origin))
    assert not tiny.changed(before[still], networks[still].variables)
    assert tiny.changed(before[moving], networks[moving].variables) == {one.path for one in networks[moving].variables}
    if moving == "encoder":  # all parts have the same images: their four moves are one
        np.testing.assert_allclose(normalization.moving_mean, 0.9 * old + 0.1 * mean, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "generated"), [("introvae", 1), ("soft_introvae", 3)])
def test_images_are_made_once_and_encoded_once_a_player(name, generated, monkeypatch):
    """Encoder: real images, and generated ones of both kinds before and after its step. Soft: two reconstructions again."""
    model, counts, call = model_of(name), collections.Counter(), Block.call
    owners = {id(model.encoder.layers[-3]): "encoder", id(model.decoder.layers[-2]): "decoder"}  # their last blocks

    def counted(self, *arguments, **options):
        counts[owners.get(id(self))] += 1
        return call(self, *arguments, **options)

    monkeypatch.setattr(Block, "call", counted)
    tf.function(model.train_step, autograph=False).get_concrete_function(tf.TensorSpec(IMAGES.shape, tf.uint8))
    assert (counts["encoder"], counts["decoder"]) == (5, generated)


def graph_of_a_step(**options):
    model = model_of("introvae", **options)
    return tf.function(model.train_step).get_concrete_function(tf.TensorSpec(IMAGES.shape, tf.uint8)).graph


def count(graph, kind):
    definition = graph.as_graph_def()
    nodes = [node for function in definition.library.function for node in function.node_def]
    return sum(node.op == kind for node in [*definition.node, *nodes])


def test_recomputation_runs_blocks_again_and_parts_run_in_a_loop():
    plain = graph_of_a_step()
    again = graph_of_a_step(recompute_gradients=True)
    assert count(again, "Conv2D") > 1.3 * count(plain, "Conv2D")
    assert count(again, "Conv2DBackpropFilter") == count(plain, "Conv2DBackpropFilter")
    parts = graph_of_a_step(training={"micro_batches": 4})
    assert count(plain, "While") == 0 and count(parts, "While") >= 2


@pytest.mark.parametrize("recompute", [False, True])
def test_parts_on_two_replicas_take_a_step(two_replicas, recompute):
    options = {"pretraining_steps": 0, "margin": "5", "recompute_gradients": recompute}
    with two_replicas.scope():
        model = tiny.compiled(tiny.config(8, model="introvae", training={"micro_batches": 2}, **options), 3)
    model.run_eagerly = True  # tracing takes longer than all of this
    before = tiny.values(model.variables)
    (row,) = tiny.fit(model, tiny.images((8, 8, 3)), 1)
    assert all(np.isfinite(value) for value in row.values())
    moved = tiny.changed(before, model.variables)
    networks = [*model.encoder.variables, *model.decoder.variables]
    assert {one.path for one in networks} <= moved


@pytest.mark.parametrize("name", ["introvae", pytest.param("soft_introvae", marks=pytest.mark.long)])
def test_recomputation_changes_no_value(name):
    options = {"optimizer": keras.optimizers.SGD, "away": 0.03}
    kept, again = (model_of(name, recompute_gradients=recompute, **options) for recompute in (False, True))
    for ours, theirs in zip(again.variables, kept.variables, strict=True):
        ours.assign(theirs)
    before = tiny.values(kept.trainable_variables)
    logs = [tf.function(model.train_step)(tf.constant(IMAGES)) for model in (kept, again)]
    for key in logs[0]:
        np.testing.assert_allclose(logs[1][key], logs[0][key], rtol=1e-4, err_msg=key)
    assert_updates_agree(kept, again, before)
    for ours, theirs in zip(again.non_trainable_variables, kept.non_trainable_variables, strict=True):  # moving statistics too
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5, err_msg=theirs.path)


def test_pretraining_is_a_vae_and_suggests_a_margin(capsys):
    model = tiny.compiled(tiny.config(16, model="introvae", pretraining_steps=2, margin="auto"), 3)
    assert [player.name for player in model.players()] == ["vae", "encoder", "generator"]
    rows = tiny.fit(model, IMAGES, 2)
    assert all(key.startswith("vae/") for row in rows for key in row)
    assert float(model.margin) == 0.0
    images = tiny.dataset(SHAPE).images("train", range(20))  # read 8, 8 and 4 at a time
    before = model.energy(images, row_seeds(20)).mean()
    tiny.fit(model, IMAGES, 1)
    np.testing.assert_allclose(model.margin, 2.0 * before, rtol=1e-3)
    (suggested,) = re.findall(r"suggested --margin=([0-9.]+), which is used", capsys.readouterr().out)
    assert float(suggested) == pytest.approx(2.0 * before, rel=1e-3)


@pytest.mark.parametrize("stop", [2, 3, 4])
def test_a_run_resumed_around_the_end_of_pretraining_ends_as_an_uninterrupted_one(stop, tmp_path, capsys):
    config = tiny.config(8, model="introvae", pretraining_steps=3, margin="auto", training={"ema_decay": 0.5})
    images = tiny.images((8, 8, 1))
    uninterrupted, first, second = models = [tiny.compiled(config) for _ in range(3)]
    for model in models:
        model.run_eagerly = True  # tracing takes longer than all of this
    tiny.fit(uninterrupted, images, 5)
    assert capsys.readouterr().out.count("pre-training is over") == 1
    tiny.fit(first, images, stop)
    Checkpoints(tmp_path, first, 2).save()
    assert Checkpoints(tmp_path, second, 2).restore() == stop
    tiny.fit(second, images, 5 - stop)
    assert capsys.readouterr().out.count("pre-training is over") == 1
    for one, other in zip(second.variables, uninterrupted.variables, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7, err_msg=one.path)


def test_without_introspection_it_is_a_vae_whose_gradient_is_that_of_its_bound():
    model = model_of("introvae", adversarial_weight=0.0, margin="auto", reconstruction_weight=0.7, pretraining_steps=2)
    (player,) = model.players()
    assert model.stage_starts == (0,)  # pre-training has no end
    assert player.variables == [*model.encoder.trainable_variables, *model.decoder.trainable_variables]
    found, _ = model._turn_gradients(player, IMAGES, (0, 0, 0), (), None)
    noise = model._noise((0, 0, 0), 8).normal(model.latent_shape, 0)
    with tf.GradientTape() as direct:
        mean, log_variance = model.posterior_of(model.unit_pixels(IMAGES), training=True)
        rebuilt = model.decoder(mean + tf.exp(0.5 * log_variance) * noise, training=True)
        error = tf.reduce_sum((model.unit_pixels(IMAGES) - rebuilt) ** 2, [1, 2, 3])
        loss = tf.reduce_mean(kl_of(mean, log_variance) + 0.7 * 0.5 * error)
    for gradient, expected in zip(found, direct.gradient(loss, [one.value for one in player.variables]), strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=2e-3, atol=2e-4 * float(tf.reduce_max(tf.abs(expected))) + 1e-6)


def test_without_introspection_every_step_trains():
    model = model_of("introvae", adversarial_weight=0.0, margin="auto", pretraining_steps=1)
    for _ in range(3):
        before = tiny.values(model.trainable_variables)
        (row,) = tiny.fit(model, IMAGES, 1)
        assert len(tiny.changed(before, model.trainable_variables)) == len(before) and "vae/loss" in row
