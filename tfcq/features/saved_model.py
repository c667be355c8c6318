"""`saved_model:DIR`: any network that was exported as a SavedModel.

The convention. The model is its signature `serving_default`, or, without one, the loaded object itself if it can be
called. It takes one image tensor [N, H, W, C]: uint8 images as they are, or float32 in [0, 1]. H and W say to what size
images are resized; where they are free, images keep theirs. C is 3 (grey is repeated), 1 (grey only) or free (3). It
gives a tensor [N, D] or [N, 1, 1, D], or a dict: `features` and optionally `logits`, or one tensor of any name.
"""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfcq.errors import UserError
from tfcq.features.extractor import FeatureExtractor
from tfcq.features.files import checksum, first_line
from tfcq.features.preparation import BILINEAR, resize, to_rgb
from tfcq.machine.paths import plain

TRIAL_SIZES = (224, 192)
"""A model that takes images of any size is tried on images of these sides when it is loaded; its number of features is
fixed only if it is the same for both."""


class SavedModelFeatures(FeatureExtractor):
    """Features and logits of a SavedModel; see the module's convention.

    Args:
        directory: pathlib.Path of the SavedModel.
    """

    def __init__(self, directory: pathlib.Path) -> None:
        self.where = f"features=saved_model:{directory}"
        self.loaded = load_saved_model(directory, self.where)
        self.function, self.spec = _entry(self.loaded, self.where)
        self.size, self.channels = self._read(self.spec)
        feature_size, num_classes = self._try()
        uint8 = self.spec.dtype == tf.uint8
        protocol = {
            "input_size": "that of the images" if self.size is None else f"{self.size[0]}x{self.size[1]}",
            "resize": "none" if self.size is None else BILINEAR + (", rounded to 8 bits" if uint8 else ""),
            "value_range": "uint8" if uint8 else "[0, 1]",
            "channels": "grey" if self.channels == 1 else "RGB, grey is repeated",
            "layer": "the SavedModel's output",
            "feature_size": "that of the output" if feature_size is None else feature_size,
        }
        digest = checksum(directory)
        super().__init__(f"saved_model_{_identifier(directory) or digest}", checksum=digest, protocol=protocol,
                         feature_size=feature_size, num_classes=num_classes)

    def _extract(self, images):
        if self.channels == 1 and images.shape[3] != 1:
            raise UserError(f"{self.where}: expected grey images, as its input is {_spec(self.spec)}, received "
                            f"{images.shape[3]} channels")
        values = images if self.channels == 1 else to_rgb(images)
        if self.size is not None:
            values = resize(values, *self.size)
        if self.spec.dtype == tf.uint8:
            values = tf.cast(tf.round(tf.cast(values, tf.float32)), tf.uint8)
        else:
            values = tf.cast(values, tf.float32) / 255.0
        features, logits = _outputs(self.function(values), self.where)
        return _pooled(features), None if logits is None else _pooled(logits)

    def _read(self, spec):
        """((height, width) or None, channels) of the model's input; UserError for one that takes no images."""
        shape = spec.shape
        if spec.dtype not in (tf.uint8, tf.float32) or shape.rank != 4 or shape[3] not in (1, 3, None):
            raise UserError(f"{self.where}: expected an input uint8 or float32 [N, H, W, 1 or 3], received "
                            f"{_spec(spec)}; export the model with such a signature")
        if shape[0] is not None:
            raise UserError(f"{self.where}: expected an input with a free batch size, received {_spec(spec)}; export "
                            "the model with batch size None")
        if (shape[1] is None) != (shape[2] is None):
            raise UserError(f"{self.where}: expected the height and the width of the input both fixed or both free, "
                            f"received {_spec(spec)}")
        return None if shape[1] is None else (shape[1], shape[2]), shape[3] or 3

    def _try(self):
        """(feature size or None, number of classes) of the model on two black images, or UserError."""
        found = set()
        sizes = [(side, side) for side in TRIAL_SIZES] if self.size is None else [self.size]
        for height, width in sizes:
            try:
                outputs = on_one_replica(self.function, tf.zeros([2, height, width, self.channels], self.spec.dtype))
            except Exception as error:  # a user's model can fail in any way
                raise UserError(f"{self.where}: expected a model that takes {_spec(self.spec)}, but it fails on two "
                                f"black images of {height}x{width} ({first_line(error)})") from error
            features, logits = _outputs(outputs, self.where)
            found.add((_size(features, "features", self.where), 0 if logits is None else
                       _size(logits, "logits", self.where)))
        feature_sizes, class_counts = map(set, zip(*found))
        if len(class_counts) != 1:
            raise UserError(f"{self.where}: expected logits of one size, received {sorted(class_counts)}")
        return feature_sizes.pop() if len(feature_sizes) == 1 else None, class_counts.pop()


def saved_model(directory: str | os.PathLike) -> SavedModelFeatures:
    """The extractor `saved_model:DIR`; UserError for a folder or a model that does not follow the convention."""
    return SavedModelFeatures(pathlib.Path(directory).expanduser())


def load_saved_model(directory: pathlib.Path, where: str) -> Any:
    """The loaded object of a SavedModel folder; UserError, which begins with `where`, if it cannot be loaded."""
    if not any((directory / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt")):
        versions = sorted(path.parent.name for path in directory.glob("*/saved_model.pb"))
        hint = f"; perhaps {directory / versions[-1]}" if versions else ""
        raise UserError(f"{where}: expected the folder of a SavedModel, with saved_model.pb, received "
                        f"{'another folder' if directory.is_dir() else 'no folder'}{hint}")
    try:
        return tf.saved_model.load(plain(directory))
    except Exception as error:  # damaged files raise many classes
        raise UserError(f"{where}: expected a whole SavedModel, received one that cannot be loaded "
                        f"({first_line(error)})") from error


def on_one_replica(function: Callable[[tf.Tensor], Any], images: tf.Tensor) -> Any:
    """`function(images)`, also in a strategy's scope, where a loaded SavedModel runs only inside a replica."""
    if not tf.distribute.has_strategy():
        return function(images)
    strategy = tf.distribute.get_strategy()
    return tf.nest.map_structure(lambda values: strategy.experimental_local_results(values)[0],
                                 strategy.run(tf.function(function, autograph=False), (images,)))


def _entry(loaded, where):
    """(function of one tensor, its tf.TensorSpec) of a loaded SavedModel."""
    if "serving_default" in loaded.signatures:
        signature = loaded.signatures["serving_default"]
        inputs = signature.structured_input_signature[1]
        if len(inputs) != 1:
            raise UserError(f"{where}: expected a serving_default of one image tensor, received one of "
                            f"{', '.join(sorted(inputs)) or 'nothing'}")
        (name, spec), = inputs.items()
        return lambda values: signature(**{name: values}), spec
    if callable(loaded):
        for concrete in loaded.__call__.concrete_functions:
            specs = tf.nest.flatten(concrete.structured_input_signature)
            if len(specs) == 1 and isinstance(specs[0], tf.TensorSpec):
                return loaded, specs[0]
    raise UserError(f"{where}: expected a signature serving_default, or a model that can be called with one image "
                    f"tensor, received the signatures {', '.join(sorted(loaded.signatures)) or 'none'}")


def _outputs(outputs, where):
    """(features, logits or None) of what a model returned."""
    if isinstance(outputs, dict):
        if "features" in outputs:
            return outputs["features"], outputs.get("logits")
        if len(outputs) == 1:
            return next(iter(outputs.values())), None
        raise UserError(f"{where}: expected an output `features`, or one output, received {', '.join(sorted(outputs))}")
    if not tf.is_tensor(outputs):
        raise UserError(f"{where}: expected one tensor or a dict of tensors, received {type(outputs).__name__}")
    return outputs, None


def _size(values, what, where):
    """D of values [2, D] or [2, 1, 1, D], or UserError."""
    shape = values.shape.as_list()
    if len(shape) < 2 or shape[0] != 2 or any(size != 1 for size in shape[1:-1]) or not values.dtype.is_floating:
        raise UserError(f"{where}: expected {what} [N, D] of floats, one row an image, received {values.dtype.name} "
                        f"{shape} for 2 images; pool and flatten inside the model")
    return shape[-1]


def _pooled(values):
    """[N, D] of [N, D] or [N, 1, 1, D]."""
    return values if values.shape.rank == 2 else tf.reshape(values, [tf.shape(values)[0], values.shape[-1]])


def _identifier(directory):
    """The folder's name as an identifier; with its parent's if it is a version number; "" without ASCII letters or digits."""
    path = directory.resolve()
    name = f"{path.parent.name}_{path.name}" if path.name.isdigit() else path.name
    return re.sub(r"[^0-9A-Za-z]+", "_", name).strip("_")


def _spec(spec):
    return f"{spec.dtype.name} {'of unknown rank' if spec.shape.rank is None else spec.shape.as_list()}"
