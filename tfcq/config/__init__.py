"""Every option of the project, once: its default, meaning, unit and bounds.

Frozen dataclasses and plain Python: importing them imports no TensorFlow, so that flags, `--help` and tools that only read a
workdir answer at once. `tfcq.command_line` makes flags of these fields; a workdir keeps them as `config.json`.
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
