"""tfcq: generative image models that both cover the data and look right.

>>> config = tfcq.Config(data=tfcq.DataConfig(dataset="digits", image_size=8))      # doctest: +SKIP
>>> tfcq.train(config, "runs/digits"); model = tfcq.load("runs/digits")             # doctest: +SKIP
>>> images = model.sample(tfcq.row_seeds(16, seed=0))                               # doctest: +SKIP

Importing the package imports no TensorFlow; `train`, `load`, `evaluate` and `export` do, when they are first used.
"""

import importlib

from tfcq.config import SYSTEMS, Config, DataConfig, TrainingConfig
from tfcq.errors import TrainingDiverged, TrainingInterrupted, UserError
from tfcq.machine import settings

__version__ = "0.1.0"

settings.prefer_onednn()

_SYSTEM_CONFIGS = {config.__name__: config for config in SYSTEMS.values()}  # CQFConfig, GLFConfig, ...
_LAZY = {
    "train": "tfcq.training.run",
    "load": "tfcq.workdir",
    "evaluate": "tfcq.evaluation.run",
    "export": "tfcq.exporting.export",
    "row_seeds": "tfcq.seeds",
    "Client": "tfcq.serving.client",
}
_OF_CLIENTS = {"Client", "row_seeds"}  # who may have no TensorFlow

__all__ = [
    "Config",
    "DataConfig",
    "TrainingConfig",
    "TrainingDiverged",
    "TrainingInterrupted",
    "UserError",
    *_SYSTEM_CONFIGS,
    *_LAZY,
]


def __getattr__(name):
    if name in _SYSTEM_CONFIGS:
        return _SYSTEM_CONFIGS[name]
    if name not in _LAZY:
        raise AttributeError(f"module 'tfcq' has no attribute {name!r}")
    if name not in _OF_CLIENTS:
        settings.import_tensorflow()
    return getattr(importlib.import_module(_LAZY[name]), name)
