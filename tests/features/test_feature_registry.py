"""features.load by name, and what the base class refuses and promises."""

import hashlib
import http.server
import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from tfcq import features
from tfcq.errors import UserError
from tfcq.features.extractor import FeatureExtractor
from tfcq.features.files import checksum, require_server
from tfcq.features.preparation import resize, resize_as_tensorflow_1, to_rgb


class Means(FeatureExtractor):
    """Mean of each channel; and the same as logits."""

    def __init__(self):
        super().__init__("means", checksum="none", protocol={}, feature_size=3, num_classes=3)

    def _extract(self, images):
        means = tf.reduce_mean(tf.cast(to_rgb(images), tf.float64), (1, 2))
        return means, means


def images(count=5, height=6, width=4, channels=3):
    return np.random.RandomState(0).randint(0, 256, (count, height, width, channels)).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_the_flat_images_over_255(channels):
    extractor = features.load("pixels")
    assert (extractor.name, extractor.checksum, extractor.is_inception) == ("pixels", "none", False)
    assert (extractor.feature_size, extractor.num_classes) == (None, 0)
    given = images(channels=channels)
    found, logits = tf.function(extractor)(given)
    # A graph may multiply by a rounded 1 / 255: two roundings of half an epsilon each.
    np.testing.assert_allclose(found, given.reshape(5, -1) / 255.0, rtol=2 * np.finfo(np.float32).eps)
    assert found.dtype == tf.float32 and logits is None
    assert extractor.feature_size == 24 * channels


def test_pixels_of_two_sizes_are_not_compared():
    extractor = features.load("pixels")
    extractor(images())
    with pytest.raises(UserError, match=r"that give 72 features, as at first, received \[5, 8, 4, 3\] that give 96"):
        extractor(images(height=8))


@pytest.mark.parametrize("name, expected", [
    ("efficientnet", "one of efficientnet_lite0, .*keras:NAME, .*'efficientnet' .did you mean efficientnet_lite0"),
    ("inceptionn", "did you mean inception"),
    ("", "received ''$"),
    ("keras", "did you mean keras:NAME"),
    ("keras:", "expected keras:NAME, received 'keras:'"),
    ("saved_model:", "expected saved_model:DIR"),
    ("pixels:3", "expected one of .*received 'pixels:3'"),
    ("keras:vg16", "expected keras: and one of .*vgg16.*received 'vg16' .did you mean vgg16"),
])
def test_unknown_names_are_refused_with_the_choices(name, expected):
    with pytest.raises(UserError, match=expected) as caught:
        features.load(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["pixels", "saved_model:/no/such"])
def test_weights_are_refused_where_they_would_be_ignored(name):
    with pytest.raises(UserError, match=f"features={name}: expected no weights beside it, received 'file'"):
        features.load(name, "file")


@pytest.mark.parametrize("wrong, expected", [
    (images().astype(np.float32), r"means: expected images uint8 .*received float32 \[5, 6, 4, 3\]"),
    (images()[0], r"received uint8 \[6, 4, 3\]"),
    (images(channels=2), r"received uint8 \[5, 6, 4, 2\]"),
    (images(channels=4), r"received uint8 \[5, 6, 4, 4\]"),
])
def test_other_than_8_bit_images_are_refused(wrong, expected):
    with pytest.raises(UserError, match=expected):
        Means()(wrong)


def test_shapes_and_types_are_as_promised_when_traced_with_any_batch_size():
    traced = tf.function(Means(), input_signature=[tf.TensorSpec([None, 6, 4, 1], tf.uint8)])
    given = images(channels=1)
    for count in (5, 2):
        found, logits = traced(given[:count])
        assert found.dtype == logits.dtype == tf.float32
        np.testing.assert_allclose(found, given[:count].mean((1, 2)).repeat(3, 1), rtol=1e-6)
    assert traced.get_concrete_function().structured_outputs[0].shape.as_list() == [None, 3]
    free = tf.function(Means(), input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)], autograph=False)
    with pytest.raises(UserError, match=r"height and width of images when traced, received \[None, None, None, 3\]"):
        free(images())


def test_resizing_is_antialiased_where_it_shrinks_and_the_same_where_it_grows():
    given = images(2, 12, 10)
    grown, both = resize(given, 20, 15), resize(given, 20, 5)
    np.testing.assert_allclose(grown, tf.image.resize(given, (20, 15), antialias=True), atol=1e-3)
    np.testing.assert_allclose(both, tf.image.resize(given, (20, 5), antialias=True), atol=1e-3)
    np.testing.assert_array_equal(resize(given, 12, 10), given.astype(np.float32))
    stripes = np.tile(np.array([0, 255], np.uint8)[None, None, :, None], (1, 8, 16, 1))  # [1, 8, 32, 1]
    inside = resize(stripes, 8, 4).numpy()[:, :, 1:-1]
    np.testing.assert_allclose(inside, 127.5, atol=1)  # without antialiasing, pairs of pixels decide


def test_resizing_as_in_2015_samples_at_corners():
    given = images(1, 3, 2, 1)
    found = resize_as_tensorflow_1(given, 6, 4).numpy()[0, :, :, 0]
    rows, columns = np.arange(6) * 3 / 6, np.arange(4) * 2 / 4

    def interpolated(values, places):
        low = np.floor(places).astype(int)
        high = np.minimum(low + 1, len(values) - 1)
        weight = (places - low)[:, None]
        return values[low] * (1 - weight) + values[high] * weight

    expected = interpolated(interpolated(given[0, :, :, 0].astype(float), rows).T, columns).T
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_checksums_of_files_and_folders(tmp_path):
    path = tmp_path / "folder" / "a.bin"
    path.parent.mkdir()
    path.write_bytes(b"weights")
    assert checksum(path) == hashlib.sha256(b"weights").hexdigest()[:16]
    before = checksum(path.parent)
    (path.parent / ".hidden").write_bytes(b"x")
    assert checksum(path.parent) == before
    (path.parent / "b.bin").write_bytes(b"")
    assert checksum(path.parent) != before
    (path.parent / "b.bin").unlink()
    path.rename(path.with_name("c.bin"))
    assert checksum(path.parent) != before
    with pytest.raises(UserError, match="weights: cannot read .*a.bin .No such file"):
        checksum(path)


def test_a_server_that_answers_is_found_and_others_are_named_in_seconds(monkeypatch):
    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_error(405)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/file"
        try:
            require_server(url, "problem")  # it answers, though with an error
        finally:
            server.shutdown()
            thread.join()
    with pytest.raises(UserError, match=f"^problem .{url}: .*refused.*$"):
        require_server(url, "problem")
    monkeypatch.setattr("tfcq.features.files.PATIENCE", -0.9)  # 0.1 s for all
    monkeypatch.setattr("tfcq.features.files._failure", lambda _: time.sleep(600))
    started = time.monotonic()
    with pytest.raises(UserError, match="no answer"):
        require_server(url, "problem")
    assert time.monotonic() - started < 60
