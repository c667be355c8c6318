"""The perceptual loss's levels of VGG16, with weights of our own: which layers, before or after ReLU, on which pixels."""

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.features.vgg_levels import LAYERS, UNIT, VGGLevels, num_levels
from tfcq.losses.perceptual import perceptual_distance

IMAGENET = pathlib.Path(__file__).parents[3] / "shared" / "data" / "vgg16_imagenet_notop.weights.h5"


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(3)
    network = keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3))
    for layer in network.layers[1:]:
        if layer.weights:  # biases too, or ReLU would let half through everywhere
            layer.bias.assign(0.1 * np.random.RandomState(0).standard_normal(layer.bias.shape))
    return network


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("vgg") / "vgg16.weights.h5"
    network.save_weights(path)
    return str(path)


def keras_levels(network, pixels, names):
    return keras.Model(network.input, [network.get_layer(name).output for name in names])(pixels)


def images(size=32, channels=3, count=2):
    return np.random.RandomState(1).uniform(size=(count, size, size, channels)).astype(np.float32)


def test_levels_are_kerass_layers_of_blue_first_pixels_and_the_last_has_no_relu(network, weights):
    given = images()
    levels = VGGLevels(weights)(given)
    pixels = (UNIT * (2.0 * given - 1.0))[..., ::-1]
    expected = keras_levels(network, pixels, LAYERS[:3])
    assert len(levels) == 3
    for level, wanted in zip(levels[:2], expected[:2], strict=True):
        np.testing.assert_allclose(UNIT * level, wanted, rtol=1e-3, atol=1e-2)
    assert np.min(levels[2]) < 0.0
    np.testing.assert_allclose(UNIT * np.maximum(levels[2], 0.0), expected[2], rtol=1e-3, atol=1e-2)


def test_larger_images_have_more_levels(weights):
    assert [num_levels(size) for size in (28, 32, 64, 128)] == [3, 3, 4, 5]
    levels = VGGLevels(weights)(images(64, count=1))
    assert [level.shape[1:] for level in levels] == [(64, 64, 64), (32, 32, 128), (16, 16, 256), (8, 8, 512)]


def test_grey_images_are_repeated_and_28_pixels_padded_to_32_with_black(weights):
    extract, grey = VGGLevels(weights), images(28, 1)
    padded = np.pad(grey, [(0, 0), (2, 2), (2, 2), (0, 0)]).repeat(3, axis=-1)
    for level, wanted in zip(extract(grey), extract(padded), strict=True):
        np.testing.assert_allclose(level, wanted, rtol=1e-5, atol=1e-4)


def test_gradients_reach_the_images_and_no_weight_is_trainable(weights):
    extract, given = VGGLevels(weights), tf.constant(images(count=1))
    with tf.GradientTape() as tape:
        tape.watch(given)
        loss = sum(tf.reduce_sum(tf.square(level)) for level in extract(given))
    assert np.any(tape.gradient(loss, given) != 0.0)
    assert not any(layer.trainable_weights for layer in extract._layers)


def test_missing_or_wrong_weights_are_one_line(tmp_path):
    with pytest.raises(UserError, match="VGG16"):
        VGGLevels(str(tmp_path / "nowhere.h5"))
    wrong = tmp_path / "wrong.weights.h5"
    wrong.write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match="VGG16"):
        VGGLevels(str(wrong))


def test_the_distance_is_a_sum_of_mean_absolute_differences():
    random = np.random.RandomState(0)
    pairs = [tuple(random.standard_normal((2, *shape)).astype(np.float32) for _ in range(2)) for shape in ((4, 4, 1), (2, 2, 3))]
    expected = sum(np.abs(one.astype(np.float64) - other).reshape(2, -1).mean(1) for one, other in pairs)
    np.testing.assert_allclose(perceptual_distance([tuple(map(tf.constant, pair)) for pair in pairs]), expected, rtol=1e-5)


@pytest.mark.skipif(not IMAGENET.is_file(), reason="ImageNet's weights are not beside this checkout")
def test_imagenet_features_tell_a_blurred_image_from_a_shifted_brightness():
    """What the loss is for: sharpness counts more than pixels say."""
    from sklearn.datasets import load_sample_image

    image = load_sample_image("china.jpg")[100:132, 250:282][None].astype(np.float32) / 255.0
    blurred = tf.nn.avg_pool2d(image, 3, 1, "SAME").numpy()
    brighter = image + np.abs(image - blurred).mean()
    extract = VGGLevels(str(IMAGENET))
    far, near = (
        perceptual_distance(list(zip(extract(image), extract(other), strict=True))) for other in (blurred, brighter)
    )
    assert float(far[0]) > 2.0 * float(near[0])
