"""Feature extractors: from images to the features that a network computes of them.

Example::

    extractor = tfcq.features.load("efficientnet_lite0")
    features, logits = extractor(images)      # uint8 [N, H, W, C] -> float32 [N, 1280], float32 [N, 1000]

A distance between sets of features has a meaning only together with the extractor that made them: `name`, `checksum` and
`protocol` belong in every report. Only `is_inception` makes a Frechet distance the one that papers call FID.

A new extractor is one file with a function that returns a `FeatureExtractor`, and its line in `registry.EXTRACTORS`.
"""

from tfcq.features.extractor import FeatureExtractor
from tfcq.features.registry import load

__all__ = ["FeatureExtractor", "load"]
