"""The Inception graph of 2015, by small graphs and modules with its inputs, outputs and sizes."""

import importlib.util
import pathlib
import time

import numpy as np
import pytest
import tensorflow as tf

from tfcq import features
from tfcq.errors import UserError
from tfcq.features import inception

RANDOM = np.random.RandomState(0)
TO_FEATURES = RANDOM.randn(3, 2048).astype(np.float32)
TO_LOGITS = RANDOM.randn(2048, 1008).astype(np.float32) / 50
BIASES = RANDOM.randn(1008).astype(np.float32)


def images(height=13, width=9, channels=3):
    return np.random.RandomState(1).randint(0, 256, (3, height, width, channels)).astype(np.uint8)


def expected(given):
    """What all of the graphs below compute, resized and scaled as the graph of 2015 does it."""
    resized = tf.compat.v1.image.resize_bilinear(given.astype(np.float32), (299, 299)).numpy()
    pooled = ((resized - 128) * 0.0078125).astype(np.float64).mean((1, 2)) @ TO_FEATURES
    return pooled, pooled @ TO_LOGITS


def pool(values):
    """[N, 1, 1, 2048] of [N, 299, 299, 3]."""
    return tf.reduce_mean(values, (1, 2), keepdims=True) @ tf.constant(TO_FEATURES)


def outputs(values):
    pooled = pool(values)
    return {"pool_3": pooled, "logits": tf.reshape(pooled, [-1, 2048]) @ tf.constant(TO_LOGITS)}


class Module(tf.Module):
    """As TF-GAN's module on TensorFlow Hub."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32)])
    def __call__(self, images):
        return self.function(images)


def write_graph(path, kind="score"):
    """A frozen graph with the names of the Inception Score's, or of the classifier's, which takes one image."""
    with tf.Graph().as_default() as graph:
        if kind == "score":
            values = tf.compat.v1.placeholder(tf.float32, [None, None, None, 3], name="Mul")
        else:
            raw = tf.compat.v1.placeholder(tf.float32, [1, None, None, 3], name="ExpandDims")
            resized = tf.compat.v1.image.resize_bilinear(raw, (299, 299))
            values = tf.multiply(resized - 128.0, 0.0078125, name="Mul" if kind == "classifier" else "Scale")
        pooled = tf.identity(pool(values), name="pool_3")
        flat = tf.reshape(pooled, [-1, 2048] if kind == "score" else [1, 2048], name="pool_3/_reshape")
        if kind == "score":
            tf.matmul(flat, tf.constant(TO_LOGITS), name="logits")
        else:
            product = tf.matmul(flat, tf.constant(TO_LOGITS), name="softmax/logits/MatMul")
            tf.nn.softmax(tf.add(product, BIASES, name="softmax/logits"), name="softmax")
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


def check(extractor):
    assert (extractor.name, extractor.feature_size, extractor.num_classes) == ("inception", 2048, 1008)
    assert extractor.is_inception and len(extractor.checksum) == 16
    for given in (images(), images(channels=1), images(310, 320)):
        found = tf.function(extractor)(given)
        for ours, reference in zip(found, expected(given.repeat(3 // given.shape[3], 3))):
            np.testing.assert_allclose(ours, reference, atol=2e-4 * np.abs(reference).max())


@pytest.mark.parametrize("kind", ["score", "classifier", "classifier from ExpandDims"])
def test_frozen_graphs(tmp_path, kind):
    check(features.load("inception", write_graph(tmp_path / "inception.pb", kind)))


def test_a_hub_module_that_is_called(tmp_path):
    tf.saved_model.save(Module(outputs), str(tmp_path / "module"))
    check(features.load("inception", str(tmp_path / "module")))


def test_a_hub_module_with_a_signature_only(tmp_path):
    module = tf.Module()
    module.apply = tf.function(outputs, input_signature=[tf.TensorSpec([None, 299, 299, 3], tf.float32)])
    tf.saved_model.save(module, str(tmp_path / "module"), signatures={"default": module.apply})
    check(features.load("inception", tmp_path / "module"))


def test_a_module_with_variables_under_a_strategy(tmp_path, two_replicas):
    class WithVariables(Module):
        def __init__(self):
            super().__init__(lambda values: {name: value * self.one for name, value in outputs(values).items()})
            self.one = tf.Variable(1.0)

    tf.saved_model.save(WithVariables(), str(tmp_path / "module"))
    with two_replicas.scope():
        extractor = features.load("inception", tmp_path / "module")
    batches = [tf.constant(images()[:1]), tf.constant(images()[1:2])]
    values = two_replicas.experimental_distribute_values_from_function(
        lambda context: batches[context.replica_id_in_sync_group])
    found = two_replicas.experimental_local_results(tf.function(lambda: two_replicas.run(extractor, (values,)))()[0])
    np.testing.assert_allclose(np.concatenate(found), expected(images())[0][:2], atol=1e-3)


def test_the_cache_of_tf_hub_needs_no_network(tmp_path, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(inception, "require_server", lambda *_: pytest.fail("the cache has it"))
    import tensorflow_hub.compressed_module_resolver as resolver  # so that a change of its naming is seen here
    tf.saved_model.save(Module(outputs), resolver._module_dir(inception.TF_HUB))
    pathlib.Path(f"{resolver._module_dir(inception.TF_HUB)}.descriptor.txt").touch()
    check(features.load("inception"))


def test_without_a_network_the_choices_are_named_in_seconds(tmp_path, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(inception, "TF_HUB", "http://127.0.0.1:9/module")  # the discard port, where nothing listens
    started = time.monotonic()
    with pytest.raises(UserError, match="not in TF-Hub's cache and cannot be downloaded; give .*or choose "
                                        "efficientnet_lite0, .*refused") as caught:
        features.load("inception")
    assert time.monotonic() - started < 60 and "\n" not in str(caught.value)


def test_a_failing_download_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(inception, "TF_HUB", "http://127.0.0.1:9/module")
    monkeypatch.setattr(inception, "require_server", lambda *_: None)  # the server vanished after it answered
    with pytest.raises(UserError, match="cannot be downloaded; give .*refused") as caught:
        features.load("inception")
    assert "\n" not in str(caught.value)


def test_the_module_is_the_one_of_tf_gan():
    folder = importlib.util.find_spec("tensorflow_gan").submodule_search_locations[0]  # importing it needs TF 2.15
    source = pathlib.Path(folder) / "python" / "eval" / "inception_metrics.py"
    text = source.read_text()
    assert f"INCEPTION_TFHUB = '{inception.TF_HUB}'" in text
    assert f"INCEPTION_DEFAULT_IMAGE_SIZE = {inception.IMAGE_SIZE}" in text
    assert f"INCEPTION_FINAL_POOL = '{inception.FEATURES}'" in text


@pytest.mark.parametrize("function, message", [
    (lambda x: {"pool_3": pool(x)}, "expected outputs pool_3 and logits, received pool_3"),
    (lambda x: pool(x), "expected outputs pool_3 and logits, received "),
    (lambda x: outputs(x) | {"logits": pool(x)}, r"received \[2, 2048\] and \[2, 2048\] .*use it as saved_model:DIR"),
    (lambda x: outputs(x) | {"pool_3": pool(x)[..., :9]}, r"received \[2, 9\] and"),
    (lambda x: outputs(tf.ensure_shape(x, [5, None, None, 3])), "one that fails on two images"),
])
def test_other_modules_are_refused(tmp_path, function, message):
    tf.saved_model.save(Module(function), str(tmp_path / "module"))
    with pytest.raises(UserError, match=message) as caught:
        features.load("inception", tmp_path / "module")
    assert "\n" not in str(caught.value)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="received '/no/such.pb', where there is nothing"):
        features.load("inception", "/no/such.pb")
    with pytest.raises(UserError, match="expected the folder of a SavedModel"):
        features.load("inception", tmp_path)
    path = tmp_path / "graph.pb"
    path.write_bytes(b"no graph")
    with pytest.raises(UserError, match="expected a frozen graph in .*graph.pb, received another file"):
        features.load("inception", path)
    path.write_bytes(tf.Graph().as_graph_def().SerializeToString())
    with pytest.raises(UserError, match="expected a graph with Mul or ExpandDims, pool_3, .*received one of 0 other"):
        features.load("inception", path)
    graph = tf.compat.v1.GraphDef.FromString(write_graph(path).read_bytes())
    next(node for node in graph.node if node.name == "logits").op = "NoSuchOperation"
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(UserError, match="one that cannot be imported .*NoSuchOperation") as caught:
        features.load("inception", path)
    assert "\n" not in str(caught.value)
