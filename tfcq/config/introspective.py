"""Options of the introspective systems: those that they have in common, and those of each."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from tfcq.config.fields import option
from tfcq.config.groups import StageOptions
from tfcq.errors import UserError

if TYPE_CHECKING:
    from tfcq.config.data import DataConfig
    from tfcq.config.training import TrainingConfig


@dataclasses.dataclass(frozen=True, repr=False)
class IntrospectiveOptions(StageOptions):
    """The introspective networks and their pre-training.

    For IntroVAE (Huang et al. 2018, Appendix B) and Soft-IntroVAE.
    """

    latent_dim: int = option(256, "the number of values of a latent vector", minimum=2, maximum=4096)
    width: int = option(
        32,
        "the channels of the networks at the images' resolution, doubled at each halving, up to 512; the paper has 32 at "
        "256x256 and 16 at 1024x1024",
        minimum=1, maximum=512,
    )
    network_normalization: str = option(
        "batch",
        "the normalisation in encoder and generator: batch (the paper's) | group (by an image's own statistics) | none",
        choices=("batch", "group", "none"),
    )
    encoder_normalization: str = option(
        "same",
        "the normalisation in the encoder: same (as network_normalization) | batch | group | none; without batch the energy of "
        "an image is the KL that training sees",
        choices=("same", "batch", "group", "none"),
    )
    recompute_gradients: bool = option(
        False, "recomputes activations inside the blocks for their gradients instead of keeping them: less memory, more time"
    )
    pretraining_steps: int = option(
        0,
        "the steps at the beginning in which encoder and generator are trained as a VAE, without introspection",
        minimum=0, unit="steps",
    )
    final_encoder_steps: int = option(
        0,
        "the steps at the end in which the encoder alone is trained, its batch normalisation by its moving statistics, which no "
        "longer move: the energy of an image is then the KL that training sees, and samples stay as they were",
        minimum=0, unit="steps",
    )

    @property
    def normalization_of_encoder(self) -> str:
        """batch, group or none, as the two options have it."""
        return self.network_normalization if self.encoder_normalization == "same" else self.encoder_normalization

    def check_run(self, data: DataConfig, training: TrainingConfig) -> None:
        """Raises UserError also if the networks do not fit image_size."""
        super().check_run(data, training)
        self._check_final_encoder_steps(training)
        size = data.image_size
        if size < 8 or size & (size - 1):
            raise UserError(f"image_size={size}: expected a power of two, at least 8, as the networks halve images down to 4")

    def _check_final_encoder_steps(self, training: TrainingConfig) -> None:
        given = f"final_encoder_steps={self.final_encoder_steps}"
        if not self.final_encoder_steps:
            return
        if self.normalization_of_encoder != "batch":
            raise UserError(f"{given}: expected batch normalisation in the encoder, received {self.normalization_of_encoder}")
        if self.recompute_gradients:
            raise UserError(f"{given} with recompute_gradients: expected one of them, as fixed statistics recompute nothing")
        first = 0 if training.init_from else max(self.first_stages().values(), default=0)
        if self.final_encoder_steps >= training.train_steps - first:
            raise UserError(
                f"{given}: expected fewer than the {training.train_steps - first} steps that train_steps={training.train_steps} "
                "leaves after pre-training"
            )


@dataclasses.dataclass(frozen=True, repr=False)
class IntroVAEConfig(IntrospectiveOptions):
    """A VAE that is its own adversary (Huang et al. 2018).

    IntroVAE (Huang, Li, He, Sun and Tan 2018).
    """

    adversarial_weight: float = option(
        0.25, "the weight (alpha) of the KLs of generated images (Eq. 11 and 12); 0: a plain VAE, trained as one", minimum=0.0
    )
    generator_adversarial_weight: float = option(
        0.0, "the generator's own adversarial_weight (Eq. 12; the authors' code: 0.5); 0: adversarial_weight", minimum=0.0
    )
    reconstruction_weight: float = option(
        0.5,
        "the weight (beta) of half the squared error, summed over pixels in [0, 1]: it depends on the number of pixels",
        minimum=0.0,
    )
    pretraining_steps: int = option(
        1000,
        "the steps at the beginning in which encoder and generator are trained as a VAE, without introspection",
        minimum=0, unit="steps",
    )
    margin: str = option(
        "auto", "the KL (m), in nats, to which the encoder pushes generated images: a number | auto, derived from pre-training"
    )
    margin_form: str = option(
        "per_sample",
        "what the margin's hinge is applied to: per_sample, each image's KL (Eq. 11) | batch_mean, the batch's mean KL (the "
        "authors' code)",
        choices=("per_sample", "batch_mean"),
    )

    def check(self) -> None:
        """Raises UserError for a margin that is neither auto nor above 0, and for weights that exclude each other."""
        super().check()
        if self.generator_adversarial_weight and not self.adversarial_weight:
            given = f"generator_adversarial_weight={self.generator_adversarial_weight:g}"
            raise UserError(f"{given} with adversarial_weight=0, a plain VAE: expected 0")
        if self.margin == "auto":
            if self.adversarial_weight and not self.pretraining_steps:
                raise UserError(
                    "margin=auto with pretraining_steps=0: the margin follows from pre-training; expected --margin=NUMBER or "
                    "pretraining_steps of at least 1"
                )
            return
        try:
            margin = float(self.margin)
        except ValueError:
            margin = math.nan
        if not 0.0 < margin < math.inf:
            raise UserError(f"margin: expected auto or a number above 0, received {self.margin!r}")

    def first_stages(self) -> dict[str, int]:
        """{option: steps}; none for a plain VAE, whose pre-training is all of its training."""
        return super().first_stages() if self.adversarial_weight else {}

    def check_run(self, data: DataConfig, training: TrainingConfig) -> None:
        """Raises UserError also for a batch mean over micro-batches, and for final encoder steps of a plain VAE."""
        super().check_run(data, training)
        if self.final_encoder_steps and not self.adversarial_weight:
            raise UserError(f"final_encoder_steps={self.final_encoder_steps} with adversarial_weight=0, a plain VAE: expected 0")
        if self.margin_form == "batch_mean" and training.micro_batches > 1:
            raise UserError(
                f"micro_batches={training.micro_batches} with margin_form=batch_mean: expected micro_batches=1 or "
                "margin_form=per_sample"
            )


@dataclasses.dataclass(frozen=True, repr=False)
class SoftIntroVAEConfig(IntrospectiveOptions):
    """IntroVAE by exponentials (Daniel and Tamar 2021).

    Soft-IntroVAE.
    """

    reconstruction_weight: float = option(
        1.0, "the weight (beta_rec) of squared errors summed over pixels in [0, 1]", minimum=0.0
    )
    kl_weight: float = option(
        1.0, "the weight (beta_kl) of the KLs in the bound and of those that the generator lowers", minimum=1e-6
    )
    negative_weight: float = option(
        256.0,
        "the weight (beta_neg) of generated images' KLs inside the exponential; 256 is for 32x32 in colour, as it depends on "
        "the size",
        minimum=0.0,
    )
