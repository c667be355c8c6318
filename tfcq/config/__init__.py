"""All options of the project: defaults, meanings, units and bounds, each defined once.

Frozen dataclasses in plain Python, without TensorFlow, so that flags, `--help` and tools that only read a workdir start
quickly. `tfcq.command_line` turns these fields into flags; a workdir stores them as `config.json`.
"""

from tfcq.config.data import DataConfig
from tfcq.config.run import Config, check_config
from tfcq.config.systems import (
    SYSTEMS,
    CQFConfig,
    GLANNConfig,
    GLFConfig,
    IntroVAEConfig,
    RAEGMMConfig,
    RealNVPConfig,
    SoftIntroVAEConfig,
    SRVAEConfig,
    TwoStageVAEConfig,
    VAEBijectivePriorConfig,
    VAEConfig,
    VAEFlowPosteriorConfig,
    VAEFlowPriorConfig,
    WAEGANConfig,
    WAEMMDConfig,
)
from tfcq.config.training import TrainingConfig

__all__ = [
    "SYSTEMS",
    "Config",
    "DataConfig",
    "TrainingConfig",
    "check_config",
    "CQFConfig",
    "GLANNConfig",
    "GLFConfig",
    "IntroVAEConfig",
    "RAEGMMConfig",
    "RealNVPConfig",
    "SRVAEConfig",
    "SoftIntroVAEConfig",
    "TwoStageVAEConfig",
    "VAEBijectivePriorConfig",
    "VAEConfig",
    "VAEFlowPosteriorConfig",
    "VAEFlowPriorConfig",
    "WAEGANConfig",
    "WAEMMDConfig",
]
