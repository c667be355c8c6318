"""saved_model:DIR: models written here, of every kind the convention names, and of the kinds it refuses."""

import numpy as np
import pytest
import tensorflow as tf

from tfcq import features
from tfcq.errors import UserError


class Model(tf.Module):
    """Exports `function` with a variable of its own."""

    def __init__(self, function, shape, dtype):
        super().__init__()
        self.scale = tf.Variable(2.0)
        specs = [tf.TensorSpec(shape, dtype, "x")]
        self.apply = tf.function(lambda images: function(self, images), input_signature=specs)


class Called(tf.Module):
    """A module that is called, and has no signature."""

    def __init__(self):
        super().__init__()
        self.scale = tf.Variable(2.0)

    @tf.function(input_signature=[tf.TensorSpec([None, 4, 4, 3], tf.float32)])
    def __call__(self, images):
        return means(self, images)


def means(model, images):
    return model.scale * tf.reduce_mean(tf.cast(images, tf.float32), (1, 2))


def export(tmp_path, function=means, shape=(None, 4, 4, 3), dtype=tf.float32, name="model"):
    model = Model(function, shape, dtype)
    tf.saved_model.save(model, str(tmp_path / name), signatures=model.apply)
    return tmp_path / name


def images(channels=3, height=4, width=4):
    return np.random.RandomState(0).randint(0, 256, (3, height, width, channels)).astype(np.uint8)


@pytest.mark.parametrize("dtype, factor", [(tf.float32, 2 / 255), (tf.uint8, 2)])
def test_images_come_in_the_range_of_the_signature(tmp_path, dtype, factor):
    extractor = features.load(f"saved_model:{export(tmp_path, dtype=dtype)}")
    assert (extractor.name, extractor.feature_size, extractor.num_classes) == ("saved_model_model", 3, 0)
    assert not extractor.is_inception and len(extractor.checksum) == 16
    for given in (images(), images(1)):
        found, logits = tf.function(extractor)(given)
        assert logits is None
        np.testing.assert_allclose(found, np.broadcast_to(given.mean((1, 2)) * factor, (3, 3)), rtol=1e-5)


@pytest.mark.parametrize("name, called", [("[a]", "a"), ("back\\slash *?", "back_slash"), ("\u4e2d", None)])
def test_a_folder_of_any_name(tmp_path, monkeypatch, name, called):
    (tmp_path / "a").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = export(tmp_path, name=name)
    for given in (folder, f"~/{name}"):
        extractor = features.load(f"saved_model:{given}")
        assert extractor.name == f"saved_model_{called or extractor.checksum}"
        np.testing.assert_allclose(extractor(images())[0], images().mean((1, 2)) * 2 / 255, rtol=1e-5)


def test_uint8_images_are_rounded_after_resizing(tmp_path):
    extractor = features.load(f"saved_model:{export(tmp_path, dtype=tf.uint8)}/")
    given = images(height=2, width=3)
    expected = 2 * np.round(tf.image.resize(given, (4, 4), antialias=True)).mean((1, 2))
    np.testing.assert_allclose(extractor(given)[0], expected, rtol=1e-5)
    assert extractor.protocol["input_size"] == "4x4" and "rounded" in extractor.protocol["resize"]


@pytest.mark.parametrize("function, classes", [
    (lambda model, x: {"features": means(model, x), "logits": means(model, x)[:, :2]}, 2),
    (lambda model, x: {"features": means(model, x)}, 0),
    (lambda model, x: {"features": means(model, x), "other": x}, 0),
    (lambda model, x: {"anything": tf.reshape(means(model, x), [-1, 1, 1, 3])}, 0),
    (lambda model, x: means(model, x)[:, None], 0),
])
def test_outputs_by_name_and_pooled(tmp_path, function, classes):
    extractor = features.load(f"saved_model:{export(tmp_path, function)}")
    found, logits = extractor(images())
    np.testing.assert_allclose(found, images().mean((1, 2)) * 2 / 255, rtol=1e-5)
    assert extractor.num_classes == classes
    if classes:
        np.testing.assert_allclose(logits, found[:, :2], rtol=1e-6)


def test_a_callable_model_without_signatures(tmp_path):
    tf.saved_model.save(Called(), str(tmp_path / "called"))
    extractor = features.load(f"saved_model:{tmp_path / 'called'}")
    np.testing.assert_allclose(extractor(images())[0], images().mean((1, 2)) * 2 / 255, rtol=1e-5)


def test_free_sizes_keep_the_size_of_the_images(tmp_path):
    pooled = features.load(f"saved_model:{export(tmp_path, shape=(None, None, None, 3))}")
    assert pooled.feature_size == 3
    np.testing.assert_allclose(pooled(images(height=9))[0], images(height=9).mean((1, 2)) * 2 / 255, rtol=1e-5)
    flat = export(tmp_path, lambda _, x: tf.reshape(x, [tf.shape(x)[0], -1]), (None, None, None, None), name="flat")
    extractor = features.load(f"saved_model:{flat}")
    assert extractor.feature_size is None
    np.testing.assert_allclose(extractor(images())[0], images().reshape(3, -1) / 255, rtol=1e-6)
    assert extractor.feature_size == 48


def test_a_grey_model_takes_grey_images(tmp_path):
    extractor = features.load(f"saved_model:{export(tmp_path, shape=(None, 4, 4, 1))}")
    np.testing.assert_allclose(extractor(images(1))[0], images(1).mean((1, 2)) * 2 / 255, rtol=1e-5)
    with pytest.raises(UserError, match=r"expected grey images, as its input is float32 \[None, 4, 4, 1\], received 3"):
        extractor(images(3))


def test_names_are_identifiers_and_checksums_follow_the_weights(tmp_path):
    first = features.load(f"saved_model:{export(tmp_path, name='my-net.v1/3')}")
    assert first.name == "saved_model_my_net_v1_3" and first.name.isidentifier()
    again = features.load(f"saved_model:{tmp_path / 'my-net.v1' / '3'}")
    assert again.checksum == first.checksum
    other = export(tmp_path, lambda model, x: means(model, x) + 1, name="other")
    assert features.load(f"saved_model:{other}").checksum != first.checksum


def test_under_a_strategy(tmp_path, two_replicas):
    path = export(tmp_path)
    with two_replicas.scope():
        extractor = features.load(f"saved_model:{path}")
    batches = [tf.constant(images()[:1]), tf.constant(images()[1:2])]
    values = two_replicas.experimental_distribute_values_from_function(
        lambda context: batches[context.replica_id_in_sync_group])
    found = two_replicas.experimental_local_results(tf.function(lambda: two_replicas.run(extractor, (values,)))()[0])
    np.testing.assert_allclose(np.concatenate(found), images()[:2].mean((1, 2)) * 2 / 255, rtol=1e-5)


@pytest.mark.parametrize("function, shape, dtype, expected", [
    (means, (None, 4, 4, 3), tf.float16, r"an input uint8 or float32 .*received float16 \[None, 4, 4, 3\]"),
    (means, (None, 4, 4, 2), tf.float32, r"received float32 \[None, 4, 4, 2\]"),
    (lambda model, x: model.scale * x, (None, 48), tf.float32, r"received float32 \[None, 48\]"),
    (lambda model, x: model.scale * x, None, tf.float32, "received float32 of unknown rank"),
    (means, (2, 4, 4, 3), tf.float32, "with a free batch size"),
    (means, (None, 4, None, 3), tf.float32, "both fixed or both free"),
    (lambda model, x: model.scale * x, (None, 4, 4, 3), tf.float32, r"features \[N, D\] .*\[2, 4, 4, 3\] for 2"),
    (lambda model, x: means(model, x)[:1], (None, 4, 4, 3), tf.float32, r"received float32 \[1, 3\]"),
    (lambda model, x: tf.reduce_mean(means(model, x), 1), (None, 4, 4, 3), tf.float32, r"received float32 \[2\] for 2"),
    (lambda model, x: tf.cast(means(model, x), tf.int32), (None, 4, 4, 3), tf.float32, r"received int32 \[2, 3\]"),
    (lambda model, x: {"a": x, "b": means(model, x)}, (None, 4, 4, 3), tf.float32, "one output, received a, b"),
    (lambda model, x: {"features": means(model, x), "logits": x}, (None, 4, 4, 3), tf.float32, r"logits \[N, D\]"),
    (lambda model, x: tf.ensure_shape(means(model, x), [5, None]), (None, 4, 4, 3), tf.float32, "fails on two black"),
])
def test_models_outside_the_convention_are_refused(tmp_path, function, shape, dtype, expected):
    path = export(tmp_path, function, shape, dtype)
    with pytest.raises(UserError, match=f"features=saved_model:{path}: expected .*{expected}") as caught:
        features.load(f"saved_model:{path}")
    assert "\n" not in str(caught.value)


def test_folders_that_hold_no_model_are_named(tmp_path):
    with pytest.raises(UserError, match="expected the folder of a SavedModel, .*received no folder"):
        features.load("saved_model:/no/such")
    export(tmp_path, name="served/2")
    with pytest.raises(UserError, match=f"received another folder; perhaps {tmp_path}/served/2"):
        features.load(f"saved_model:{tmp_path}/served")
    (tmp_path / "served" / "2" / "saved_model.pb").write_bytes(b"no protocol buffer")
    with pytest.raises(UserError, match="expected a whole SavedModel"):
        features.load(f"saved_model:{tmp_path}/served/2")


def test_signatures_of_several_inputs_or_none_are_refused(tmp_path):
    model = tf.Module()
    model.two = tf.function(lambda x, y: x + y, input_signature=[tf.TensorSpec([None, 4, 4, 3], name="x"),
                                                                 tf.TensorSpec([None, 4, 4, 3], name="y")])
    tf.saved_model.save(model, str(tmp_path / "two"), signatures=model.two)
    with pytest.raises(UserError, match="serving_default of one image tensor, received one of x, y"):
        features.load(f"saved_model:{tmp_path}/two")
    tf.saved_model.save(model, str(tmp_path / "none"), signatures={"other": model.two})
    with pytest.raises(UserError, match="expected a signature serving_default, .*received the signatures other"):
        features.load(f"saved_model:{tmp_path}/none")
