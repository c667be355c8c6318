"""The pixels themselves as features: a baseline without a network, and the space in which coverage of pixels is measured."""

from __future__ import annotations

import tensorflow as tf

from tfcq.features.extractor import FeatureExtractor


class Pixels(FeatureExtractor):
    """float32 [N, H W C] in [0, 1]: `images / 255`, flattened. Grey images keep their one channel."""

    def __init__(self) -> None:
        protocol = {
            "input_size": "that of the images",
            "resize": "none",
            "value_range": "[0, 1]",
            "channels": "those of the images",
            "layer": "none",
            "feature_size": "height x width x channels",
        }
        super().__init__("pixels", checksum="none", protocol=protocol, feature_size=None)

    def _extract(self, images):
        return tf.reshape(tf.cast(images, tf.float32) / 255.0, [-1, images.shape[1:].num_elements()]), None
