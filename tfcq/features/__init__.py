"""Feature extractors: from images to the features that a network computes of them.

>>> import numpy as np
>>> extractor = load("pixels")
>>> features, logits = extractor(np.zeros((2, 8, 8, 1), np.uint8))  # logits: of those that classify, as "efficientnet_lite0" does
>>> features.shape, logits
(TensorShape([2, 64]), None)

A distance between sets of features has a meaning only together with the extractor that made them: `name`, `checksum` and
`protocol` belong in every report. Only `is_inception` makes a Frechet distance the one that papers call FID.

A new extractor is one file with a function that returns a `FeatureExtractor`, and its line in `registry.EXTRACTORS`.
"""

from tfcq.features.extractor import FeatureExtractor
from tfcq.features.registry import load

__all__ = ["FeatureExtractor", "load"]
