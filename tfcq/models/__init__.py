"""One file a system. A module here is named as its key in `tfcq.config.SYSTEMS` and its class is `MODEL`."""

import importlib

import keras

from tfcq import settings


def build(config, image_shape):
    """The untrained model of a Config, all weights made.

    Args:
        config: `tfcq.Config`; its `training.precision` becomes the dtype policy of the layers, its `training.seed` the
            seed of the weights.
        image_shape: (H, W, C).

    Returns:
        A `tfcq.models.base.GenerativeModel`.
    """
    settings.import_tensorflow()  # not all who build a model came through an entry point
    system = importlib.import_module(f"tfcq.models.{config.model}").MODEL
    with settings.keras_defaults(config.training.precision):
        keras.utils.set_random_seed(config.training.seed)
        return system(config.system, tuple(image_shape), seed=config.training.seed)

