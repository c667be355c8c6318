"""`keras:NAME`: the pooled features of any network of keras.applications, with its ImageNet weights."""

from __future__ import annotations

import contextlib
import inspect
import os
import pathlib
import sys
import tempfile
import warnings
from collections.abc import Callable

import keras

from tfcq.config.fields import suggestion
from tfcq.errors import UserError
from tfcq.features.extractor import FeatureExtractor
from tfcq.features.files import checksum, first_line, require_file, require_server, stalled_download_fails
from tfcq.features.preparation import BILINEAR, resize, to_rgb
from tfcq.machine import settings

USUAL_SIZE = 224
SIZES = {
    "xception": 299, "inceptionv3": 299, "inceptionresnetv2": 299, "nasnetlarge": 331,
    "efficientnetb1": 240, "efficientnetb2": 260, "efficientnetb3": 300, "efficientnetb4": 380,
    "efficientnetb5": 456, "efficientnetb6": 528, "efficientnetb7": 600,
    "efficientnetv2b1": 240, "efficientnetv2b2": 260, "efficientnetv2b3": 300,
    "efficientnetv2s": 384, "efficientnetv2m": 480, "efficientnetv2l": 480,
}
"""Sides of the images that networks were trained on, where that is not USUAL_SIZE. Keras reveals a size only when it
builds the network with its classifier."""


class KerasApplication(FeatureExtractor):
    """Features: the last convolution's values, averaged over places. No logits: the classifier is not loaded.

    Args:
        key: a key of `applications()`.
        weights: a local file of the weights without the classifier ("notop"); None: Keras's own, from its cache or
            downloaded.
    """

    def __init__(self, key: str, weights: str | os.PathLike | None) -> None:
        function = applications()[key]
        self._size = size = SIZES.get(key, USUAL_SIZE)
        self.preprocess = sys.modules[function.__module__].preprocess_input
        with settings.keras_defaults():
            self.network, path = load_network(key, weights, size, pooling="avg")
        self.network.trainable = False
        protocol = {
            "input_size": size,
            "resize": BILINEAR,
            "value_range": f"keras.applications' preprocess_input of {function.__name__}",
            "channels": "RGB, grey is repeated",
            "layer": "last convolution, mean over places",
            "feature_size": self.network.output_shape[1],
        }
        super().__init__(f"keras_{key}", checksum=checksum(path), protocol=protocol,
                         feature_size=self.network.output_shape[1])

    def _extract(self, images):
        values = self.preprocess(resize(to_rgb(images), self._size, self._size), data_format="channels_last")
        return self.network(values, training=False), None


def keras_application(name: str, weights: str | os.PathLike | None = None) -> KerasApplication:
    """The extractor `keras:NAME`.

    Args:
        name: a function of keras.applications in any case, with underscores or without: VGG16, mobilenet_v2.
        weights: a local file of the weights without the classifier, as Keras has it; None: Keras's own ImageNet ones.

    Raises:
        UserError: an unknown name; weights that are missing, of another network, or cannot be downloaded (within
            seconds where there is no network).
    """
    key = name.lower().replace("_", "").replace("-", "")
    known = applications()
    if key not in known:
        raise UserError(f"features: expected keras: and one of {', '.join(known)}, received {name!r}"
                        f"{suggestion(key, known)}")
    return KerasApplication(key, weights)


def applications() -> dict[str, Callable[..., keras.Model]]:
    """{name in lower case: function that builds the network} for all of keras.applications, sorted by name."""
    return {name.lower(): function for name, function in sorted(vars(keras.applications).items())
            if inspect.isfunction(function)}


def load_network(
    key: str, weights: str | os.PathLike | None, size: int, pooling: str | None = None
) -> tuple[keras.Model, str]:
    """A network without its classifier, and the path of the file that its weights were read from.

    Args:
        key: a key of `applications()`.
        weights: a local file of the weights; None: Keras's own.
        size: the side of the images, pixels.
        pooling: of the last maps, as in keras.applications.

    Raises:
        UserError: weights that are missing, of another network, or cannot be downloaded.
    """
    function = applications()[key]
    if weights is not None:
        weights = require_file(weights, f"the Keras weights file of {function.__name__} without its top")
    with _weights_files(sys.modules[function.__module__], key, weights) as used:
        return _build(function, key, size, weights, pooling), used[0]


def _build(function, key, size, weights, pooling):
    try:
        with warnings.catch_warnings():
            # Keras leaves layers that a file lacks at their random initial values, and only warns.
            warnings.filterwarnings("error", message="Skipping nested container")
            return function(include_top=False, weights="imagenet", input_shape=(size, size, 3), pooling=pooling)
    except UserError:
        raise
    except Exception as error:  # HDF5, Keras's loaders and its downloader raise errors without a common class
        given = f"the file {weights}" if weights is not None else "Keras's own weights"
        raise UserError(f"features=keras:{key}: expected the weights of {function.__name__} without its top "
                        f"(include_top=False), but {given} cannot be loaded ({first_line(error)}); give such a file as "
                        "weights") from error


@contextlib.contextmanager
def _weights_files(module, key, weights):
    """A context in which the network's `get_file` returns `weights`; the yielded list receives the path that it returned.

    The path is not passed as Keras's `weights`, because only for weights="imagenet" some networks (EfficientNet) have an
    additional layer, without weights, and a local copy of the same file would silently give other features. Without
    `weights`, Keras's own cache and download are used, after a check that the server can be reached.
    """
    files = module.file_utils
    original = files.get_file
    used = []

    def get_file(fname, origin, cache_subdir, **checks):
        if weights is not None:
            path = os.fspath(weights)
        else:
            if not _cached(cache_subdir, fname):
                require_server(origin, f"features=keras:{key}: its ImageNet weights are not in Keras's cache and "
                                       f"cannot be downloaded; give the file {fname} as weights, or choose "
                                       "efficientnet_lite0, saved_model:DIR or pixels")
            with stalled_download_fails():
                path = original(fname, origin, cache_subdir=cache_subdir, **checks)
        used.append(path)
        return path

    files.get_file = get_file
    try:
        yield used
    finally:
        files.get_file = original


def _cached(folder, name):
    """Whether one of Keras's two cache folders has this file."""
    homes = (os.environ.get("KERAS_HOME") or "~/.keras", os.path.join(tempfile.gettempdir(), ".keras"))
    return any(pathlib.Path(home).expanduser().joinpath(folder, name).exists() for home in homes)
