"""Extractors by name."""

from __future__ import annotations

import os

from tfcq.config.fields import suggestion
from tfcq.errors import UserError
from tfcq.features.efficientnet_lite import efficientnet_lite0
from tfcq.features.extractor import FeatureExtractor
from tfcq.features.inception import inception
from tfcq.features.keras_application import keras_application
from tfcq.features.pixels import Pixels
from tfcq.features.saved_model import saved_model
from tfcq.machine import paths, settings


def _pixels(weights):
    _refuse_weights("pixels", weights)
    return Pixels()


def _saved_model(directory, weights):
    _refuse_weights(f"saved_model:{directory}", weights)
    return saved_model(paths.to_read(directory, "features", "a folder"))


EXTRACTORS = {"efficientnet_lite0": efficientnet_lite0, "inception": inception, "pixels": _pixels}
"""{name: function of the weights' path or None}."""

FAMILIES = {"keras": (keras_application, "NAME"), "saved_model": (_saved_model, "DIR")}
"""{name: (function of the text after the colon and of the weights' path or None, placeholder for that text)}."""

CHOICES = (*EXTRACTORS, *(f"{family}:{argument}" for family, (_, argument) in FAMILIES.items()))


def load(name: str, weights: str | os.PathLike | None = None) -> FeatureExtractor:
    """The extractor of that name, with its weights in memory.

    Args:
        name: one of
            inception: the Inception graph of 2015; the one whose Frechet distance is the published FID;
            efficientnet_lite0: an ImageNet classifier whose weights a Python package brings, so no network is needed;
            keras:NAME: a network of keras.applications (vgg16, resnet50, mobilenet_v2, ...), its pooled features;
            saved_model:DIR: any SavedModel from one image tensor to [N, D];
            pixels: the pixels.
        weights: a local file or folder with the weights; None or "": the extractor's own place, perhaps a download.

    Raises:
        UserError: an unknown name; weights that are missing, unfit, or cannot be downloaded.
    """
    settings.import_tensorflow()  # not every caller comes through an entry point
    if not isinstance(name, str):
        raise UserError(f"features: expected one of {', '.join(CHOICES)}, received {name!r}")
    weights = None if weights in (None, "") else paths.to_read(weights, "weights")
    family, colon, argument = name.partition(":")
    if colon and family in FAMILIES:
        function, placeholder = FAMILIES[family]
        if not argument:
            raise UserError(f"features: expected {family}:{placeholder}, received {name!r}")
        return function(argument, weights)
    if name in EXTRACTORS:
        return EXTRACTORS[name](weights)
    raise UserError(f"features: expected one of {', '.join(CHOICES)}, received {name!r}{suggestion(name, CHOICES)}")


def _refuse_weights(name, weights):
    if weights is not None:
        raise UserError(f"features={name}: expected no weights beside it, received {str(weights)!r}; leave them out")
