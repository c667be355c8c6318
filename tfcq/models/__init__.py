"""A folder a paper, a file a system: a module is named as its key in `tfcq.config.SYSTEMS`, and its class is `MODEL`."""

import contextlib
import importlib
import importlib.util
import pkgutil
import random

from tfcq.checks import check_integer, check_kind
from tfcq.config import check_config
from tfcq.errors import UserError
from tfcq.machine import settings


def build(config, image_shape):
    """The untrained model of a Config, all weights made.

    Args:
        config: `tfcq.Config`; its `training.precision` becomes the dtype policy of the layers, its `training.seed` the
            seed of the weights.
        image_shape: (H, W, C).

    Returns:
        A `tfcq.models.base.GenerativeModel`; `fit` trains it by `config.training`, where it is not compiled otherwise.

    Raises:
        UserError: arguments of another kind.
    """
    check_config(config)
    check_kind("image_shape", image_shape, (tuple, list), "(H, W, C)")
    if len(image_shape) != 3:
        raise UserError(f"image_shape: expected (H, W, C), received {image_shape}")
    image_shape = tuple(check_integer("image_shape", size, 1) for size in image_shape)
    settings.import_tensorflow()  # not all who build a model came through an entry point
    system = _module(config.model).MODEL
    with settings.keras_defaults(config.training.precision), _seeded(config.training.seed):
        model = system(config.system, image_shape, seed=config.training.seed)
    model.training_config = config.training
    return model


def _module(system):
    """The module of a system, in whichever of the folders here it is."""
    folders = [one.name for one in pkgutil.iter_modules(__path__) if one.ispkg]
    found = [name for folder in folders if importlib.util.find_spec(name := f"{__name__}.{folder}.{system}")]
    if len(found) != 1:
        raise ModuleNotFoundError(f"expected one module {system}.py in the folders of {__name__}, found {found}")
    return importlib.import_module(found[0])


@contextlib.contextmanager
def _seeded(seed):
    """Within, Keras draws the seeds of layers that were given none from `seed`; the user's generators stay as they were.

    It draws them from Python's `random` alone; `keras.utils.set_random_seed` would move NumPy's, TensorFlow's and Keras's too.
    """
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
