"""The introspective systems: their options, those that they share and those of each."""

import dataclasses
import math

from tfcq.config.fields import option
from tfcq.config.groups import StageOptions
from tfcq.errors import UserError


@dataclasses.dataclass(frozen=True, repr=False)
class IntrospectiveOptions(StageOptions):
    """The introspective networks and their pre-training.

    Of IntroVAE (Huang et al. 2018, Appendix B) and of Soft-IntroVAE.
    """

    latent_dim: int = option(256, "the number of values of a latent vector", minimum=2, maximum=4096)
    width: int = option(
        32,
        "the channels of the networks at the images' resolution, doubled at each halving, up to 512; 32 is the paper's at "
        "256x256, which has 16 at 1024x1024",
        minimum=1, maximum=512,
    )
    network_normalization: str = option(
        "batch",
        "the normalisation in encoder and generator: batch (the paper's) | none, with which energy tells generated images "
        "one by one",
        choices=("batch", "none"),
    )
    recompute_gradients: bool = option(
        False, "computes the blocks' inner values again for their gradients instead of keeping them: less memory, more time"
    )
    pretraining_steps: int = option(
        0,
        "the steps at the beginning in which encoder and generator are trained as a VAE, without introspection",
        minimum=0, unit="steps",
    )

    def check_run(self, data, training):
        """Raises UserError also where the networks do not fit image_size."""
        super().check_run(data, training)
        size = data.image_size
        if size < 8 or size & (size - 1):
            raise UserError(f"image_size={size}: expected a power of two, at least 8, as the networks halve images down to 4")


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
        "auto", "the KL (m), in nats, that the encoder pushes generated images to: a number | auto, what pre-training suggests"
    )
    margin_form: str = option(
        "per_sample",
        "what the margin's hinge looks at: per_sample, each image's KL (Eq. 11) | batch_mean, the batch's mean KL (the "
        "authors' code)",
        choices=("per_sample", "batch_mean"),
    )

    def check(self):
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

    def first_stages(self):
        """As of every system; the pre-training of a plain VAE is all of its training."""
        return super().first_stages() if self.adversarial_weight else {}

    def check_run(self, data, training):
        """Raises UserError also where a batch's mean would be a part's."""
        super().check_run(data, training)
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
