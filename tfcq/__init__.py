"""tfcq: generative image models that cover the data and produce realistic images.

>>> import tfcq
>>> config = tfcq.Config(
...     data=tfcq.DataConfig(dataset="digits", image_size=8),
...     system=tfcq.GLFConfig(latent_dim=16, autoencoder_width=8, hidden_units=32, latent_flow_units=32),
...     training=tfcq.TrainingConfig(train_steps=4, batch_size=32),
... )
>>> run = tfcq.Run(workdir, config)
>>> model = run.train()
glf: ... weights; digits: ...
>>> model.sample(16).shape
(16, 8, 8, 1)

`Run` is the interface. The modules with the names of its methods (`tfcq.train`, ...) are the commands (`python -m tfcq.train`).
Importing the package does not import TensorFlow; a `Run` imports it when it first needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tfcq.config import SYSTEMS, Config, DataConfig, TrainingConfig
from tfcq.errors import TrainingDiverged, TrainingInterrupted, UserError
from tfcq.machine import settings

if TYPE_CHECKING:
    from tfcq.command_line.preset_config import preset
    from tfcq.image_sets import evaluate_images
    from tfcq.run import Run
    from tfcq.seeds import row_seeds
    from tfcq.serving.client.answers import ServerError
    from tfcq.serving.client.async_client import AsyncClient
    from tfcq.serving.client.client import Client

__version__ = "0.1.0"

settings.prefer_onednn()

_SYSTEM_CONFIGS = {config.__name__: config for config in SYSTEMS.values()}  # CQFConfig, GLFConfig, ...
_LAZY = {
    "Run": "tfcq.run",
    "evaluate_images": "tfcq.image_sets",
    "preset": "tfcq.command_line.preset_config",
    "AsyncClient": "tfcq.serving.client.async_client",
    "Client": "tfcq.serving.client.client",
    "ServerError": "tfcq.serving.client.answers",
    "row_seeds": "tfcq.seeds",
}
_METHODS = {"train": "train", "evaluate": "evaluate", "export": "export", "load": "model"}
"""{former function of the package: the method of `Run` that replaces it}."""

__all__ = [
    "AsyncClient",
    "Client",
    "Config",
    "DataConfig",
    "Run",
    "ServerError",
    "TrainingConfig",
    "TrainingDiverged",
    "TrainingInterrupted",
    "UserError",
    "evaluate_images",
    "preset",
    "row_seeds",
    *_SYSTEM_CONFIGS,
]


def __getattr__(name: str) -> Any:
    if name in _SYSTEM_CONFIGS:
        return _SYSTEM_CONFIGS[name]
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    advice = f"; in Python it is tfcq.Run(workdir, config).{_METHODS[name]}(...)" if name in _METHODS else ""
    raise AttributeError(f"module 'tfcq' has no attribute {name!r}{advice}")


def __dir__() -> list[str]:
    return sorted({*__all__, "__version__", "__doc__", "__file__", "__name__"})
