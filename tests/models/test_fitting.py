"""Models as a Keras user meets them: NumPy answers, seeds that may be left out, compile, fit, and what the other methods say."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny

from tfcq import models
from tfcq.errors import UserError
from tfcq.seeds import row_seeds

IMAGES = tiny.images((8, 8, 1), 40)


def built(model="glf", **training):
    return models.build(tiny.config(8, model=model, training=training), (8, 8, 1))


@pytest.fixture(scope="module")
def glf():
    return built()


def test_answers_are_numpy_arrays_and_tensors_where_tensors_are_given(glf):
    for answer in (glf.sample(2), glf.encode(IMAGES), glf.latent_likelihood(IMAGES)["latent_log_prob"], glf.reconstruct(IMAGES)):
        assert type(answer) is np.ndarray
    latents = tf.constant(glf.encode(IMAGES[:2]))
    with tf.GradientTape() as tape:
        tape.watch(latents)
        noise = glf.noise_of(latents)
    assert np.any(tape.gradient(noise, latents))
    assert isinstance(tf.function(glf.encode)(IMAGES), tf.Tensor)


def test_seeds_may_be_left_out(glf):
    np.testing.assert_array_equal(glf.sample(3), glf.sample(row_seeds(3)))
    np.testing.assert_array_equal(glf.sample(num_images=3, seed=5), glf.sample(seeds=row_seeds(3, 5)))
    np.testing.assert_array_equal(glf.sample(np.int64(3), 0.5), glf.sample(row_seeds(3), temperature=0.5))
    model = built("vae")
    np.testing.assert_array_equal(model.log_prob(IMAGES), model.log_prob(IMAGES, row_seeds(len(IMAGES))))
    one, other = model.log_prob(IMAGES, seed=1), model.log_prob(IMAGES)
    assert np.any(one != other)
    np.testing.assert_array_equal(one, model.log_prob(IMAGES, row_seeds(len(IMAGES), 1)))
    np.testing.assert_array_equal(
        model.interpolate(IMAGES, IMAGES[::-1], 0.5), model.interpolate(IMAGES, IMAGES[::-1], 0.5, False, row_seeds(len(IMAGES)))
    )

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 1), tf.uint8)])
    def in_a_graph(images):
        return model.log_prob(images, seed=1)

    np.testing.assert_allclose(in_a_graph(IMAGES), one, rtol=1e-5)
    assert "seed=None" in str(inspect.signature(model.log_prob))


@pytest.mark.parametrize(("call", "said"), [
    (lambda model: model.sample(), "sample(seeds): expected the number of images, or seeds of rows (tfcq.row_seeds)"),
    (lambda model: model.sample(0), "sample(num_images): expected at least 1, received 0"),
    (lambda model: model.sample(2.5), "sample(num_images): expected an int of at least 1, received float 2.5"),
    (lambda model: model.sample(2, seeds=row_seeds(2)), "sample(seeds): expected the number of images, or seeds of rows"),
    (lambda model: model.sample(2, seed="x"), "sample(seed): expected an int of at least 0, received str 'x'"),
    (lambda model: model.sample(2, temperature=[1.0, 1.0, 1.0]), "sample(seeds): expected 3 rows, as many as temperature"),
    (lambda model: model.sample(2, num_images=3), "sample(num_images): expected one number of images, received 2 and 3"),
    (lambda model: model.sample(row_seeds(2), seed=3), "sample(seed): expected seeds of rows or the seed of all, received both"),
    (lambda model: model.encode(IMAGES, row_seeds(40), seed=3), "encode(seed): expected seeds of rows or the seed of all"),
    (lambda model: model.sample(2, seed=-1), "sample(seed): expected at least 0, received -1"),
    (lambda model: model(IMAGES), "glf is a generative model, which has several answers; call one of model.sample(16), "
     "model.encode(images), model.reconstruct(images)"),
    (lambda model: model.predict(IMAGES), "predict: glf is a generative model"),
    (lambda model: model.evaluate(IMAGES), "evaluate: tfcq.Run(workdir).evaluate() measures a trained run; "
     "model.latent_likelihood(images) gives the values of single images"),
    (lambda model: model.save("x.keras"), "save: tfcq.Run(workdir).export(BASE) writes a SavedModel; model.save_weights"),
    (lambda model: model.export("x"), "export: tfcq.Run(workdir).export(BASE) writes a SavedModel"),
    (lambda model: model.to_json(), "get_config: glf is made of a tfcq.Config"),
    (lambda model: model.quantize("int8"), "quantize: densities need float32"),
    (lambda model: model.train_on_batch(IMAGES), "train_on_batch: model.fit(images, batch_size=N, steps_per_epoch=1)"),
    (lambda model: model.compile("adma"), "compile(optimizer): expected a Keras optimizer or its name, such as 'adam'"),
    (lambda model: model.compile("adam", loss="mse"), "compile(loss): expected some of jit_compile, clip_norm, "),
    (lambda model: model.compile({"foo": "adam"}), "compile(optimizer): expected one for each of autoencoder, received ['foo']"),
    (lambda model: model.fit(IMAGES, np.zeros(40)), "fit(y): a model learns from images alone here"),
    (lambda model: model.fit(IMAGES / 255.0), "fit(x): expected uint8 [N, H, W] or [N, H, W, 1 or 3], received float64"),
    (lambda model: model.fit(IMAGES[:, :4]), "fit(x): expected uint8 [N, 8, 8, 1], received [40, 4, 8, 1]"),
    (lambda model: model.fit(IMAGES, batch_size=41), "fit(batch_size): expected 1 to 40"),
    (lambda model: model.fit(IMAGES, epochs=0), "fit(epochs): expected at least 1, received 0"),
    (lambda model: model.fit(IMAGES, validation_split=0.1), "fit(validation_split): a model learns from images alone here"),
    (lambda model: model.fit(tf.data.Dataset.from_tensors(IMAGES).repeat()), "fit(x): expected a finite tf.data.Dataset"),
    (lambda model: model.fit("images"), "fit(x): expected uint8 [N, H, W, C], received str"),
])
def test_what_has_no_meaning_is_said_in_a_line(glf, call, said):
    with pytest.raises(UserError) as raised:
        call(glf)
    assert str(raised.value).startswith(said) and "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["glf", "glann", "rae_gmm", "cqf"])
def test_fit_trains_by_the_configuration_where_nothing_else_is_said(name):
    model = built(name, batch_size=16)
    before = model.sample(4)
    history = model.fit(IMAGES, epochs=2, verbose=0)
    steps = 2 * (len(IMAGES) // model.batches_per_step // min(16, len(IMAGES) // model.batches_per_step))
    assert model.steps_taken == steps and len(history.epoch) == 2
    assert np.any(model.sample(4) != before)
    rates = {float(one.learning_rate.numpy()) for one in model.player_optimizers.values()}
    assert rates == {np.float32(2e-3)}
    assert all(isinstance(one, keras.optimizers.Adamax) for one in model.player_optimizers.values())
    model.fit(tf.data.Dataset.from_tensor_slices((IMAGES, np.zeros(40))).batch(8), verbose=0, batch_size=16)
    assert model.steps_taken == 1.5 * steps
    assert np.isfinite(model.sample(2)).all()


def test_batches_of_another_size_are_a_new_graph():
    model = built("vae")
    for size in (8, 16, 40):
        model.fit(IMAGES, batch_size=size, verbose=0, steps_per_epoch=1)
    assert model.steps_taken == 3


def test_micro_batches_divide_the_batch():
    model = built("vae")
    model.compile("adam", micro_batches=3)
    with pytest.raises(UserError, match=r"fit\(batch_size\): expected a multiple of micro_batches=3, received 8"):
        model.fit(IMAGES, batch_size=8, verbose=0)
    model.fit(IMAGES, batch_size=9, verbose=0, steps_per_epoch=1)
    assert model.steps_taken == 1


def test_options_of_compile_hold_without_an_optimizer_too():
    model = built("vae", optimizer="adam", learning_rate=0.25)
    model.compile(clip_norm=0.5, run_eagerly=True)
    model.fit(IMAGES, batch_size=8, verbose=0, steps_per_epoch=1)
    (optimizer,) = model.player_optimizers.values()
    assert isinstance(optimizer, keras.optimizers.Adam) and float(optimizer.learning_rate.numpy()) == 0.25
    assert model._clip_norm == 0.5 and model.run_eagerly


def test_a_fit_that_ends_in_an_early_stage_says_so():
    model = built("two_stage_vae")
    with pytest.warns(UserWarning, match="trains in stages, and the last one begins at step 10000; these 1 steps end before it"):
        model.fit(IMAGES, batch_size=8, verbose=0, steps_per_epoch=1)


def test_a_model_in_a_message_of_a_graph(glf):
    assert "? steps" in tf.function(lambda: tf.constant(repr(glf)))().numpy().decode()


def test_compile_gives_each_player_an_optimizer_of_its_own():
    model = built("cqf")
    model.compile(keras.optimizers.SGD(0.01, momentum=0.5), clip_norm=1.0)
    model.fit(IMAGES, batch_size=8, verbose=0, steps_per_epoch=1)
    optimizers = list(model.player_optimizers.values())
    assert len(optimizers) == 2 and optimizers[0] is not optimizers[1] and model._clip_norm == 1.0
    assert all(type(one) is keras.optimizers.SGD and one.momentum == 0.5 for one in optimizers)
    again = model.player_optimizers["discriminator"]
    model.fit(IMAGES, batch_size=8, verbose=0, steps_per_epoch=1)
    assert model.player_optimizers["discriminator"] is again  # moments stay


def test_one_optimizer_for_a_flow_that_has_options_of_its_own_is_warned_of(recwarn):
    config = tiny.config(8, model="glf", latent_flow_optimizer="own", latent_flow_beta_1=0.7)
    for optimizer in (None, {"autoencoder": "adam", "flow": "sgd"}, "adam"):
        said = [str(one.message) for one in recwarn.list if "compile" in str(one.message)]
        assert said == []
        models.build(config, (8, 8, 1)).compile(optimizer)
    (said,) = (str(one.message) for one in recwarn.list if "compile" in str(one.message))
    assert said == (
        "compile(optimizer): flow gets a copy of it, so that the rate and decays of its own (latent_flow_optimizer=own) are not "
        "used; expected one for each of autoencoder, flow, or none"
    )


def test_an_eager_step_has_gradients():
    model = built("vae")
    model.compile("adam", run_eagerly=True)
    before = tiny.values(model.trainable_variables)
    model.fit(IMAGES, batch_size=8, verbose=0, steps_per_epoch=1)
    assert all(np.any(one != other) for one, other in zip(before, tiny.values(model.trainable_variables)))


def test_codes_are_of_the_images_of_the_first_fit():
    model = built("glann")
    model.fit(IMAGES, verbose=0, steps_per_epoch=1)
    with pytest.raises(UserError, match="code for each of the 40 images of the first fit, received 39 images; fit a new"):
        model.fit(IMAGES[1:], verbose=0)


def test_weights_are_saved_and_loaded(tmp_path):
    one, other = built(), built(seed=1)
    one.save_weights(tmp_path / "one.weights.h5")
    assert np.any(one.sample(3) != other.sample(3))
    other.load_weights(tmp_path / "one.weights.h5")
    np.testing.assert_array_equal(one.sample(3), other.sample(3))


def test_a_model_says_what_it_is(glf):
    assert repr(glf) == (
        f"<GLF: 8x8x1 images, {glf.count_params():,} weights, 0 steps; decode, encode, interpolate, "
        "interpolate_noise, latent_likelihood, reconstruct, sample>"
    )
