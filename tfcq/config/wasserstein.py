"""The options of the Wasserstein auto-encoders (Tolstikhin et al. 2018)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from tfcq.config.fields import option
from tfcq.config.groups import AutoencoderOptions, ReconstructionOptions, StageOptions
from tfcq.errors import UserError

if TYPE_CHECKING:
    from tfcq.config.data import DataConfig
    from tfcq.config.training import TrainingConfig


@dataclasses.dataclass(frozen=True, repr=False)
class WAEOptions(StageOptions, ReconstructionOptions, AutoencoderOptions):
    """The distance between latents and prior.

    For Wasserstein auto-encoders (Tolstikhin et al. 2018): deterministic, with latents pulled towards N(0, sigma^2 I).
    """

    divergence_weight: float = option(
        10.0, "the weight (lambda) of the distance between latents and prior (Tolstikhin et al.: 10 on MNIST)", minimum=0.0
    )
    reconstruction_weight: float = option(
        0.05,
        "the weight of the reconstruction's error with reconstruction=mse, for pixels in [0, 1]. Tolstikhin et al. weigh squared "
        "errors by 0.05, for pixels in [0, 1] on MNIST and in [-1, 1] on CelebA, which is 0.2 here",
        minimum=0.0,
    )
    perceptual_error_weight: float = option(
        1.0,
        "the weight of the reconstruction's error with reconstruction=perceptual, in place of reconstruction_weight, which is "
        "for sums of squares; of a perceptual error no paper gives one",
        minimum=0.0,
    )
    prior_sigma: float = option(1.0, "the standard deviation of the latents' prior", minimum=1e-4, maximum=1e4)
    pretraining_steps: int = option(
        200,
        "the steps at the beginning in which only the encoder is trained, to match the prior's mean and covariance",
        minimum=0, unit="steps",
    )

    @classmethod
    def of_earlier(cls, values: dict[str, Any]) -> dict[str, Any]:
        """See `Section.of_earlier`: the reconstruction's error had the weight 1, then either error had reconstruction_weight."""
        values = {"reconstruction_weight": 1.0} | values
        if values.get("reconstruction") == "perceptual":
            values = {"perceptual_error_weight": values["reconstruction_weight"]} | values
        return super().of_earlier(values)

    @property
    def error_weight(self) -> float:
        """The weight of the reconstruction's error."""
        return self.reconstruction_weight if self.reconstruction == "mse" else self.perceptual_error_weight

    def without_effect(self) -> dict[str, str]:
        """The weight of the error that is not trained."""
        if self.reconstruction == "mse":
            return super().without_effect() | {"perceptual_error_weight": "reconstruction=perceptual"}
        return super().without_effect() | {"reconstruction_weight": "reconstruction=mse"}

    def check_run(self, data: DataConfig, training: TrainingConfig) -> None:
        """Raises UserError also if the batches have no covariance."""
        super().check_run(data, training)
        if training.batch_size < 2:
            raise UserError(
                f"batch_size={training.batch_size} with a Wasserstein auto-encoder: expected at least 2, as latents are "
                "compared with the prior over a batch"
            )
        if training.micro_batches > 1:
            raise UserError(
                f"micro_batches={training.micro_batches} with a Wasserstein auto-encoder: expected 1, as latents are compared "
                "with the prior over a batch"
            )


@dataclasses.dataclass(frozen=True, repr=False)
class WAEGANConfig(WAEOptions):
    """A Wasserstein auto-encoder with an adversary.

    WAE-GAN: an adversary distinguishes latents from draws of the prior.
    """

    adversary_units: int = option(
        512, "the units of each of the four hidden layers of the latents' adversary", minimum=1, maximum=65536
    )
    input_noise: float = option(
        0.01,
        "the standard deviation of the noise on the pixels, in [0, 1], that the encoder sees in training",
        minimum=0.0, maximum=1.0,
    )


@dataclasses.dataclass(frozen=True, repr=False)
class WAEMMDConfig(WAEOptions):
    """A Wasserstein auto-encoder with a kernel distance.

    WAE-MMD: latents and draws of the prior are compared by a kernel.
    """
