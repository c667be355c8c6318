"""The contract between an extractor and the metrics."""

from __future__ import annotations

import abc
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from tfcq.checks import as_array
from tfcq.errors import UserError


class FeatureExtractor(abc.ABC):
    """A fixed map from 8-bit images to feature vectors, and to class logits where the network is a classifier.

    A call changes no state but `feature_size`, draws no random numbers, and treats each image by itself.
    A call may be traced: in `tf.function(..., autograph=False)`, as AutoGraph turns a UserError into an error of its
    own. Weights are variables (or constants of a graph) made by `load`: call it under the scope of the strategy that is
    to use them. Keras layers are made in `tfcq.machine.settings.keras_defaults()`: in half precision the features would
    differ, and two systems are comparable only in one precision.

    A subclass passes its attributes to `super().__init__` and implements `_extract`.

    Attributes:
        name: an identifier, part of the names of metrics: `fd_efficientnet_lite0`.
        is_inception: True only for the Inception graph of 2015, whose Frechet distance is the published FID.
        checksum: the first 16 hexadecimal digits of the SHA-256 of the weights' bytes; "none" without weights.
        protocol: {word: str or int}, all that determines the features besides the weights: sizes, resizing, range, layer.
        feature_size: int; None until the first call where it depends on the size of the images.
        num_classes: int; 0 without logits.
    """

    is_inception = False

    def __init__(
        self,
        name: str,
        *,
        checksum: str,
        protocol: Mapping[str, object],
        feature_size: int | None,
        num_classes: int = 0,
    ) -> None:
        self.name = name
        self.checksum = checksum
        self.protocol = dict(protocol)
        self.feature_size = feature_size
        self.num_classes = num_classes

    def __call__(self, images: tf.Tensor | np.ndarray) -> tuple[tf.Tensor, tf.Tensor | None]:
        """The features and logits of images.

        Args:
            images: uint8 [N, H, W, C], C 1 (grey) or 3 (RGB); H, W and C known when traced.

        Returns:
            (features float32 [N, feature_size], logits float32 [N, num_classes] or None).

        Raises:
            UserError: other images; images of another size than before where `feature_size` depends on it.
        """
        if not tf.is_tensor(images):
            images = as_array(images, f"{self.name}: images", "uint8 [N, H, W, 1 or 3]")
        images = tf.convert_to_tensor(images)
        if images.dtype != tf.uint8 or images.shape.rank != 4 or images.shape[3] not in (1, 3):
            raise UserError(f"{self.name}: expected images uint8 [N, H, W, 1 or 3], received {images.dtype.name} "
                            f"{_shown(images.shape)}; convert them to 8 bits and to grey or RGB")
        if None in images.shape[1:]:
            raise UserError(f"{self.name}: expected the height and width of images when traced, received "
                            f"{_shown(images.shape)}; give the tf.function an input_signature that has them")
        features, logits = self._extract(images)
        if self.feature_size is None:
            self.feature_size = features.shape[1]
        if features.shape[1] not in (self.feature_size, None):
            raise UserError(f"{self.name}: expected images that give {self.feature_size} features, as at first, "
                            f"received {_shown(images.shape)} that give {features.shape[1]}; features of different "
                            "sizes cannot be compared")
        features = tf.ensure_shape(tf.cast(features, tf.float32), [None, self.feature_size])
        if logits is not None:
            logits = tf.ensure_shape(tf.cast(logits, tf.float32), [None, self.num_classes])
        return features, logits

    @abc.abstractmethod
    def _extract(self, images):
        """(features [N, feature_size], logits [N, num_classes] or None) of checked images uint8 [N, H, W, 1 or 3]."""


def _shown(shape):
    return "of unknown shape" if shape.rank is None else str(shape.as_list())
