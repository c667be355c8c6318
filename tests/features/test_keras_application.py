"""keras:NAME without a network: local weights, Keras's cache, and what is said where there is neither."""

import os
import pathlib
import time

import h5py
import keras
import numpy as np
import pytest
import skimage.data
import tensorflow as tf
from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

from tfcq import features
from tfcq.errors import UserError
from tfcq.features import keras_application

VGG16 = pathlib.Path(__file__).parents[3] / "shared" / "data" / "vgg16_imagenet_notop.weights.h5"
NOWHERE = "http://127.0.0.1:9/weights.h5"  # the discard port, where nothing listens


def photographs(size=96):
    pictures = (skimage.data.astronaut(), skimage.data.chelsea())
    return np.stack([picture[50 : 50 + size, 150 : 150 + size] for picture in pictures])


def random_network(function):
    """A network whose weights are drawn at random and normalise its own activations, or features would vanish."""
    keras.utils.set_random_seed(0)
    network = function(include_top=False, weights=None, input_shape=(224, 224, 3), pooling="avg")
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    network(np.random.RandomState(0).uniform(-1, 1, (2, 224, 224, 3)), training=True)
    return network


@pytest.fixture(scope="module")
def mobilenet_weights(tmp_path_factory):
    """A file of MobileNetV2's weights, drawn at random."""
    network = random_network(keras.applications.MobileNetV2)
    path = tmp_path_factory.mktemp("weights") / "mobilenet.weights.h5"
    network.save_weights(path)
    return path


@pytest.fixture(scope="module")
def mobilenet(mobilenet_weights):
    return features.load("keras:mobilenet_v2", mobilenet_weights)


def test_features_are_those_of_keras(mobilenet, mobilenet_weights):
    assert (mobilenet.name, mobilenet.feature_size, mobilenet.num_classes) == ("keras_mobilenetv2", 1280, 0)
    assert not mobilenet.is_inception and not mobilenet.network.trainable_variables
    assert mobilenet.protocol["input_size"] == 224 and len(mobilenet.checksum) == 16
    function = keras.applications.MobileNetV2
    reference = function(include_top=False, weights=None, input_shape=(224, 224, 3), pooling="avg")
    reference.load_weights(mobilenet_weights)
    resized = tf.image.resize(photographs(), (224, 224), antialias=True)
    expected = reference(resized / 127.5 - 1.0, training=False)
    found, logits = tf.function(mobilenet)(photographs())
    assert logits is None
    assert np.std(expected) > 1e-3
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_grey_images_repeat_their_channel(mobilenet):
    grey = photographs()[..., :1]
    np.testing.assert_allclose(mobilenet(grey)[0], mobilenet(grey.repeat(3, 3))[0], atol=1e-6)


def test_a_name_may_be_written_in_several_ways():
    known = keras_application.applications()
    for name in ("vgg16", "VGG16", "mobilenet_v2", "MobileNetV2", "EfficientNet-B0", "resnet50_v2"):
        assert name.lower().replace("_", "").replace("-", "") in known
    assert len(known) >= 38


@pytest.mark.parametrize("key", ["mobilenet", "xception", "efficientnetb3", "efficientnetv2b2"])
def test_image_sizes_are_those_of_keras(key):
    with keras.StatelessScope():  # variables are declared, never made
        network = keras_application.applications()[key](weights=None)
    expected = keras_application.SIZES.get(key, keras_application.USUAL_SIZE)
    assert network.input_shape == (None, expected, expected, 3)


def test_local_weights_make_the_same_network_as_downloaded_ones(tmp_path, monkeypatch):
    """EfficientNet rescales its input more where the weights are Keras's own: a local copy of them needs that too."""
    network = random_network(keras.applications.EfficientNetB0)
    path = tmp_path / "cache" / "models" / "efficientnetb0_notop.h5"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        save_weights_to_hdf5_group(file, network)  # the format of Keras's own files
    local = features.load("keras:efficientnetb0", path)
    assert any(np.size(getattr(layer, "scale", 1)) == 3 for layer in local.network.layers)

    # the file is not Keras's own
    monkeypatch.setattr("keras.src.utils.file_utils.validate_file", lambda *_, **__: True)
    monkeypatch.setattr("keras.src.backend.config.keras_home", lambda: str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(keras_application, "require_server", lambda *_: pytest.fail("the cache has it"))
    cached = features.load("keras:efficientnetb0")
    assert cached.checksum == local.checksum
    found, expected = cached(photographs())[0], local(photographs())[0]
    assert np.std(expected) > 1e-3
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_without_a_network_the_choices_are_named_in_seconds(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(keras.src.applications.mobilenet_v2, "BASE_WEIGHT_PATH", NOWHERE)
    started = time.monotonic()
    with pytest.raises(UserError, match="keras:mobilenetv2: its ImageNet weights are not in Keras's cache .*give the "
                                        "file mobilenet_v2_weights.*no_top.h5 as weights, or choose .*refu") as caught:
        features.load("keras:mobilenet_v2")
    assert time.monotonic() - started < 60 and "\n" not in str(caught.value)


def test_weights_that_do_not_fit_are_named(tmp_path, mobilenet_weights):
    original = keras.src.utils.file_utils.get_file
    with pytest.raises(UserError, match="the Keras weights file of VGG16 without its top, received '/no/such'"):
        features.load("keras:vgg16", "/no/such")
    with pytest.raises(UserError, match="the weights of MobileNet without its top .*mobilenet.weights.h5 cannot"):
        features.load("keras:mobilenet", mobilenet_weights)
    path = tmp_path / "text.weights.h5"
    path.write_text("no weights")
    with pytest.raises(UserError, match="text.weights.h5 cannot be loaded") as caught:
        features.load("keras:mobilenet", path)
    assert "\n" not in str(caught.value)
    assert keras.src.utils.file_utils.get_file is original  # Keras is as it was


@pytest.mark.skipif(not os.path.isfile(VGG16), reason="VGG16's ImageNet weights are not beside the checkout")
def test_vgg16_with_its_imagenet_weights():
    extractor = features.load("keras:vgg16", VGG16)
    reference = keras.applications.VGG16(include_top=False, weights=str(VGG16), pooling="avg")
    images = photographs(224)
    expected = reference(images[..., ::-1].astype(np.float32) - np.array([103.939, 116.779, 123.68], np.float32))
    found, _ = extractor(images)
    assert (extractor.name, extractor.feature_size) == ("keras_vgg16", 512)
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())
