"""The models: a folder for each paper, a module for each system, named like its key in `tfcq.config.SYSTEMS`.

The class of a system is `MODEL` of its module.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import pkgutil
import random
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from tfcq.checks import check_integer, check_kind
from tfcq.config import Config, check_config
from tfcq.errors import UserError
from tfcq.machine import settings

if TYPE_CHECKING:
    from tfcq.models.base import GenerativeModel


def build(
    config: Config, image_shape: Sequence[int], classes: Mapping[str, float] | None = None
) -> GenerativeModel:
    """Builds the untrained model of a configuration, with all its weights.

    Args:
        config: the configuration; `training.precision` becomes the dtype policy of the layers, `training.seed` the seed of
            the weights.
        image_shape: (H, W, C).
        classes: {name of a class: its probability}, in the order of their numbers, of a model with `class_conditional`; None: of
            any other.

    Returns:
        The model; its `fit` trains according to `config.training`, unless it is compiled otherwise.

    Raises:
        UserError: an argument of another kind.
    """
    check_config(config)
    check_kind("image_shape", image_shape, (tuple, list), "(H, W, C)")
    if len(image_shape) != 3:
        raise UserError(f"image_shape: expected (H, W, C), received {image_shape}")
    image_shape = tuple(check_integer("image_shape", size, 1) for size in image_shape)
    if config.class_conditional != bool(classes):
        expected = "{name of a class: its probability}" if config.class_conditional else "none without class_conditional"
        raise UserError(f"classes: expected {expected}, received {classes!r}")
    given = {"classes": dict(classes)} if classes else {}
    settings.import_tensorflow()  # a caller may not have come through an entry point
    assert config.model is not None  # Config fills it in
    system = _module(config.model).MODEL
    with settings.keras_defaults(config.training.precision), _seeded(config.training.seed):
        model = system(config.system, image_shape, seed=config.training.seed, **given)
    model.training_config = config.training
    return model


def _module(system: str) -> ModuleType:
    """The module of a system, which is in one of the folders here."""
    folders = [one.name for one in pkgutil.iter_modules(__path__) if one.ispkg]
    found = [name for folder in folders if importlib.util.find_spec(name := f"{__name__}.{folder}.{system}")]
    if len(found) != 1:
        raise ModuleNotFoundError(f"expected one module {system}.py in the folders of {__name__}, found {found}")
    return importlib.import_module(found[0])


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """A context in which the seeds that Keras draws, for layers without one, follow from `seed`.

    Keras draws them from Python's `random`, whose state is restored afterwards. `keras.utils.set_random_seed` would change the
    states of NumPy, TensorFlow and Keras, too.
    """
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
