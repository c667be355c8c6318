"""`inception`: the Inception network of 2015 whose features the published Inception Score and FID are measured on.

Salimans et al. 2016, Improved Techniques for Training GANs; Heusel et al. 2017, GANs Trained by a Two Time-Scale Update
Rule. Not keras.applications' InceptionV3: that has other weights, and a Frechet distance of its features is not FID.

It comes in three forms: TF-GAN's module on TensorFlow Hub (a download), a folder with that module, and the frozen graph
(.pb). The graph is either the Inception Score's, for any batch size (`Mul:0` -> `pool_3:0`, `logits:0`), or the original
classifier's (`softmax/logits` in place of `logits`), whose reshapes are fixed to one image, which is changed here.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import tempfile
from collections.abc import Callable

import tensorflow as tf
from google.protobuf.message import DecodeError

from tfcq.errors import UserError
from tfcq.features.extractor import FeatureExtractor
from tfcq.features.files import checksum, first_line, require_server, stalled_download_fails
from tfcq.features.preparation import BILINEAR_OF_TENSORFLOW_1, resize_as_tensorflow_1, to_rgb
from tfcq.features.saved_model import load_saved_model, on_one_replica

TF_HUB = "https://tfhub.dev/tensorflow/tfgan/eval/inception/1"
"""The module that tensorflow_gan.eval.INCEPTION_TFHUB names."""

WHERE = "features=inception"
IMAGE_SIZE = 299
FEATURES, FEATURE_SIZE = "pool_3", 2048
LOGITS, NUM_CLASSES = "logits", 1008


class Inception(FeatureExtractor):
    """Features: the last mean over places, float32 [N, 2048]. Logits: 1008 classes, of which ImageNet fills 1000.

    Images are resized and scaled as the frozen graph itself does it, so small images give the published numbers.

    Args:
        path: pathlib.Path of a TF-Hub module's folder, or of a frozen graph.
    """

    is_inception = True

    def __init__(self, path: pathlib.Path) -> None:
        protocol = {
            "input_size": IMAGE_SIZE,
            "resize": BILINEAR_OF_TENSORFLOW_1,
            "value_range": "(x - 128) / 128",
            "channels": "RGB, grey is repeated",
            "layer": FEATURES,
            "feature_size": FEATURE_SIZE,
        }
        super().__init__("inception", checksum=checksum(path), protocol=protocol, feature_size=FEATURE_SIZE,
                         num_classes=NUM_CLASSES)
        self.function = _module(path) if path.is_dir() else frozen_graph(path)
        try:
            features, logits = on_one_replica(self._extract, tf.zeros([2, 4, 4, 3], tf.uint8))
        except (tf.errors.OpError, TypeError, ValueError, KeyError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{WHERE}: expected the Inception graph of 2015 in {path}, received one that fails on two "
                            f"images of 299x299 ({first_line(error)})") from error
        received = [features.shape.as_list(), logits.shape.as_list()]
        if received != [[2, FEATURE_SIZE], [2, NUM_CLASSES]]:
            raise UserError(f"{WHERE}: expected {FEATURES} [2, {FEATURE_SIZE}] and {LOGITS} [2, {NUM_CLASSES}] from "
                            f"two images, received {received[0]} and {received[1]} from {path}; another network's "
                            "Frechet distance is no FID: use it as saved_model:DIR")

    def _extract(self, images):
        values = (resize_as_tensorflow_1(to_rgb(images), IMAGE_SIZE, IMAGE_SIZE) - 128.0) / 128.0
        outputs = self.function(values)
        if not isinstance(outputs, dict) or not {FEATURES, LOGITS} <= set(outputs):
            received = ", ".join(sorted(outputs)) if isinstance(outputs, dict) else type(outputs).__name__
            raise UserError(f"{WHERE}: expected outputs {FEATURES} and {LOGITS}, received {received}")
        return _flat(outputs[FEATURES]), _flat(outputs[LOGITS])


def inception(weights: str | os.PathLike | None = None) -> Inception:
    """The extractor `inception`.

    Args:
        weights: the folder of a TF-Hub module, or a frozen graph's .pb file; None: TF-GAN's module, from TF-Hub's cache
            (TFHUB_CACHE_DIR) or downloaded.

    Raises:
        UserError: nothing there; another network's graph; it cannot be downloaded (within seconds if there is no internet).
    """
    if weights is None:
        return Inception(pathlib.Path(_from_tf_hub()))
    path = pathlib.Path(weights).expanduser()
    if not path.exists():
        raise UserError(f"{WHERE}: expected the folder of a TF-Hub module or a frozen graph (.pb) as weights, received "
                        f"{str(path)!r}, where there is nothing")
    return Inception(path)


def frozen_graph(path: pathlib.Path) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """A function of images float32 [N, 299, 299, 3] in [-1, 1] to {"pool_3", "logits"}, from a GraphDef file.

    The logits of the original classifier are taken before its bias is added, as the Inception Score's own code does.

    Raises:
        UserError: the file is not a GraphDef, or lacks an input or output of the Inception graph.
    """
    graph = tf.compat.v1.GraphDef()
    try:
        graph.ParseFromString(path.read_bytes())
    except (DecodeError, OSError) as error:
        raise UserError(f"{WHERE}: expected a frozen graph in {path}, received another file "
                        f"({first_line(error)})") from error
    nodes = {node.name: node for node in graph.node}
    logits = next((name for name in (LOGITS, "softmax/logits/MatMul", "softmax/logits") if name in nodes), None)
    source = next((name for name in ("Mul", "ExpandDims") if name in nodes), None)
    if source is None or FEATURES not in nodes or logits is None:
        raise UserError(f"{WHERE}: expected a graph with Mul or ExpandDims, {FEATURES}, and {LOGITS} or softmax/logits "
                        f"in {path}, received one of {len(nodes)} other nodes")
    _free_batch_size(nodes)

    def imported(values):
        # Mul comes after the graph's own resizing and scaling; ExpandDims before them, where values are in [0, 255].
        inputs = values if source == "Mul" else values * 128.0 + 128.0
        return tf.graph_util.import_graph_def(graph, {f"{source}:0": inputs}, [f"{FEATURES}:0", f"{logits}:0"], name="")

    try:
        function = tf.compat.v1.wrap_function(imported, [tf.TensorSpec([None, IMAGE_SIZE, IMAGE_SIZE, 3], tf.float32)])
    except (ValueError, tf.errors.OpError) as error:
        raise UserError(f"{WHERE}: expected the Inception graph of 2015 in {path}, received one that cannot be "
                        f"imported ({first_line(error)})") from error
    return lambda values: dict(zip((FEATURES, LOGITS), function(values)))


def _free_batch_size(nodes):
    """Changes constant shapes [1, n] of Reshape nodes to [any, n]: [1, n] refuses more than one image."""
    for node in nodes.values():
        shape = nodes.get(node.input[1].removesuffix(":0")) if node.op == "Reshape" else None
        if shape is not None and shape.op == "Const":
            value = tf.make_ndarray(shape.attr["value"].tensor)
            if value.size == 2 and value[0] == 1:
                value = value.copy()
                value[0] = -1
                shape.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))


def _module(directory):
    """The function of a TF-Hub module: the loaded object, or the signature of a module of TensorFlow 1."""
    loaded = load_saved_model(directory, WHERE)
    if callable(loaded):
        return loaded
    for name in ("default", "serving_default"):
        if name in loaded.signatures:
            signature = loaded.signatures[name]
            return lambda values: _call(signature, values)
    raise UserError(f"{WHERE}: expected a module that can be called, or a signature default, in {directory}, received "
                    f"the signatures {', '.join(sorted(loaded.signatures)) or 'none'}")


def _call(signature, values):
    (name,) = signature.structured_input_signature[1]
    return signature(**{name: values})


def _from_tf_hub():
    """The folder of TF-GAN's module: TF-Hub's cache, or a download into it."""
    folder = os.environ.get("TFHUB_CACHE_DIR") or os.path.join(tempfile.gettempdir(), "tfhub_modules")
    cached = os.path.join(folder, hashlib.sha1(TF_HUB.encode()).hexdigest())  # TF-Hub's documented naming
    problem = (f"{WHERE}: its weights are not in TF-Hub's cache and cannot be downloaded; give the folder of the "
               "TF-Hub module or the frozen graph (.pb) as weights, or choose efficientnet_lite0, keras:NAME, "
               "saved_model:DIR or pixels, whose Frechet distance is not called FID")
    if not os.path.isdir(cached):
        require_server(TF_HUB, problem)
    import tensorflow_hub  # here, as the import takes seconds

    try:
        with stalled_download_fails():
            return tensorflow_hub.resolve(TF_HUB)
    except Exception as error:  # from urllib, tarfile or TF-Hub itself
        raise UserError(f"{problem} ({first_line(error)})") from error


def _flat(values):
    """[N, D] of [N, D] or [N, 1, 1, D], as TF-GAN flattens."""
    return tf.reshape(values, [tf.shape(values)[0], tf.TensorShape(values.shape[1:]).num_elements() or -1])
