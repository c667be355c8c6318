"""The errors that auto-encoders train by, and that what one needs stays out of models, checkpoints and exports."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny

from tfcq.errors import UserError
from tfcq.features.vgg_levels import VGGLevels
from tfcq.models.reconstruction import ReconstructionError

SHAPE = (8, 8, 1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of VGG16's weights, at random."""
    keras.utils.set_random_seed(1)
    path = tmp_path_factory.mktemp("vgg") / "vgg16.weights.h5"
    keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3)).save_weights(path)
    return str(path)


def pair():
    random = np.random.RandomState(0)
    return [random.uniform(size=(3, *SHAPE)).astype(np.float32) for _ in range(2)]


def error_of(model, *images):
    return ReconstructionError(model.config)(*map(tf.constant, images))


def test_squares_are_summed_over_all_values():
    pixels, rebuilt = pair()
    expected = np.square(pixels.astype(np.float64) - rebuilt).reshape(3, -1).sum(1)
    np.testing.assert_allclose(error_of(tiny.build(tiny.config(8, model="glf")), pixels, rebuilt), expected, rtol=1e-5)


def test_the_perceptual_error_is_of_pixels_between_minus_one_and_one_and_of_levels(weights):
    model = tiny.build(tiny.config(8, model="glf", reconstruction="perceptual", perceptual_weights=weights))
    error = ReconstructionError(model.config)
    error.load()
    pixels, rebuilt = pair()
    expected = 2.0 * np.abs(pixels.astype(np.float64) - rebuilt).reshape(3, -1).mean(1)
    levels = VGGLevels(weights)
    for one, other in zip(levels(tf.constant(pixels)), levels(tf.constant(rebuilt)), strict=True):
        expected += np.abs(one.numpy().astype(np.float64) - other.numpy()).reshape(3, -1).mean(1)
    np.testing.assert_allclose(error(tf.constant(pixels), tf.constant(rebuilt)), expected, rtol=1e-4)


@pytest.mark.parametrize("model", ["glf", "rae_gmm", "wae_mmd", "glann"])
def test_a_model_trains_by_it_and_keeps_none_of_its_weights(model, weights):
    knobs = {"first_stage_steps": 5} if model == "glann" else {}
    knobs |= {"pretraining_steps": 0} if model == "wae_mmd" else {}
    config = tiny.config(8, model=model, reconstruction="perceptual", perceptual_weights=weights, **knobs)
    built = tiny.compiled(config)
    assert built.count_params() < 1000 + tiny.compiled(tiny.config(8, model=model, **knobs)).count_params()
    assert not [variable.path for variable in built.variables if "block" in variable.path and "conv" in variable.path]
    batch = (tiny.images(SHAPE, 8), np.arange(8)) if built.needs_indices else tiny.images(SHAPE, 8)
    before = tiny.values(built.decoder.variables)
    rows = tiny.fit(built, batch, 1)
    assert np.isfinite(list(rows[0].values())).all() and tiny.changed(before, built.decoder.variables)


def test_weights_that_are_not_there_are_told_before_training(tmp_path):
    model = tiny.build(tiny.config(8, model="glf", reconstruction="perceptual", perceptual_weights=str(tmp_path / "none.h5")))
    with pytest.raises(UserError, match="VGG16"):
        model.attach(None, 8)
