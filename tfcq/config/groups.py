"""Groups of options that several systems have in common; a system's dataclass in `tfcq.config` inherits its groups."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from tfcq.config.fields import Section, option
from tfcq.errors import UserError

if TYPE_CHECKING:
    from tfcq.config.data import DataConfig
    from tfcq.config.training import TrainingConfig


@dataclasses.dataclass(frozen=True, repr=False)
class FlowOptions(Section):
    """The flow (RealNVP) between features and pixels."""

    pixel_transform: str = option(
        "logit", "how pixels in (0, 1) enter the flow: logit of 0.05 + 0.9 x | affine, to (-1, 1)", choices=("logit", "affine")
    )
    flow_scales: int = option(
        1, "the number of scales of the flow between features and pixels; 0: no flow", minimum=0, maximum=6
    )
    flow_couplings: int = option(3, "the number of checkerboard couplings of each scale of the flow", minimum=1, maximum=64)
    flow_blocks: int = option(2, "the number of residual blocks of a coupling's conditioner", minimum=0, maximum=64)
    flow_width: int = option(
        32, "the channels of a coupling's conditioner in the first scale of the flow", minimum=1, maximum=4096
    )
    flow_width_factor: int = option(2, "the factor of flow_width from each scale of the flow to the next", choices=(1, 2))
    flow_channel_width_factor: int = option(
        2,
        "the factor of the channels in the conditioners of channel couplings, which flows of several scales have, against those "
        "of the checkerboard couplings of their scale: 2, as by RealNVP's authors | 1, as in runs of earlier versions",
        choices=(1, 2),
    )
    flow_normalization: str = option(
        "actnorm",
        "the normalisation between couplings of the flow: actnorm | batch (the paper's) | none",
        choices=("actnorm", "batch", "none"),
    )
    flow_weight_normalization: bool = option(True, "normalises the weights of the flow's conditioners")
    flow_conditioner_batch_normalization: bool = option(
        False, "uses batch normalisation inside the flow's conditioners (as in the paper)"
    )
    flow_output_kernel_size: int = option(
        1, "the side of the last kernel of the flow's conditioners", choices=(1, 3), unit="pixels"
    )
    flow_magnitude_penalty: float = option(
        0.0,
        "the weight of an L2 penalty on the flow, added to the likelihood's loss in nats per image: on the sum of the squares of "
        "its weight-normalised kernels' magnitudes and of its couplings' factors of the log-scale; 0: none",
        minimum=0.0,
    )

    @classmethod
    def of_earlier(cls, values: dict[str, Any]) -> dict[str, Any]:
        """See `Section.of_earlier`: channel couplings were as wide as the checkerboard couplings of their scale."""
        if values.get("flow_scales", cls.flow_scales) not in (0, 1):
            values = {"flow_channel_width_factor": 1} | values
        return super().of_earlier(values)

    def check_run(self, data: DataConfig, training: TrainingConfig) -> None:
        """Raises UserError if the flow cannot halve image_size evenly."""
        image_size = data.image_size
        if self.flow_scales > 1 and image_size % 2**self.flow_scales:
            raise UserError(
                f"image_size={image_size} with flow_scales={self.flow_scales}: expected a multiple of "
                f"{2**self.flow_scales}"
            )


@dataclasses.dataclass(frozen=True, repr=False)
class AdversaryOptions(Section):
    """The discriminator, and the weight of its loss."""

    coverage: bool = option(True, "trains by the likelihood (L_C, Eq. 6); false: by the discriminator alone")
    quality_weight: float = option(
        100.0,
        "the weight (lambda) of the discriminator's loss L_Q (Eq. 7), against an L_C in nats per image; 0: no discriminator",
        minimum=0.0,
    )
    quality_ramp_steps: int = option(0, "the steps in which quality_weight rises linearly from 0", minimum=0, unit="steps")
    generator_loss: str = option(
        "log_ratio",
        "the loss L_Q of a generated image: log_ratio, -log(D / (1 - D)) (the paper's) | non_saturating, -log D | "
        "saturating, log(1 - D)",
        choices=("log_ratio", "non_saturating", "saturating"),
    )
    discriminator_network: str = option(
        "plain",
        "the discriminator's network: standard, the convolutions of Table 1 | plain, 4x4 convolutions of stride 2 alone | "
        "residual blocks (Table 6)",
        choices=("standard", "plain", "residual"),
    )
    discriminator_width: int = option(
        64, "the discriminator's channels at the finest resolution, doubled at each halving", minimum=1, maximum=4096
    )
    discriminator_blocks: int = option(
        1, "the discriminator's residual blocks at each resolution, with discriminator_network=residual", minimum=1, maximum=16
    )
    discriminator_size: int = option(
        0, "the side at which the discriminator stops halving images; 0: latent_size", minimum=0, maximum=256, unit="pixels"
    )
    discriminator_weight_normalization: bool = option(False, "normalises the weights of the discriminator")
    data_dependent_initialization: bool = option(
        True,
        "initialises the weight-normalised layers of encoder, decoder and discriminator so that their outputs have mean 0 and "
        "variance 1 on the first batch",
    )
    discriminator_steps: int = option(
        1, "how many times the discriminator is updated in a step, each time on images of its own", minimum=1, maximum=100
    )
    gradient_penalty: float = option(100.0, "the weight of the discriminator's gradient penalty; 0: none", minimum=0.0)
    gradient_penalty_form: str = option(
        "two_sided",
        "the gradient penalty, with the gradient's norm g: two_sided, (g - 1)^2, or one_sided, max(0, g - 1)^2, between real "
        "and generated images | real, g^2 / 2 at real images",
        choices=("two_sided", "one_sided", "real"),
    )
    dequantize_real: bool = option(True, "adds the dequantisation noise to the real images that the discriminator sees")

    def check(self) -> None:
        """Raises UserError if there is no loss to train."""
        super().check()
        if not self.coverage and not self.quality_weight:
            raise UserError("coverage=false with quality_weight=0: nothing to train; expected one of the two losses")


@dataclasses.dataclass(frozen=True, repr=False)
class ClassOptions(Section):
    """The classes of images."""

    class_conditional: bool = option(
        False,
        "learns images given their class, of a data set with classes: images of a class can be sampled, and images classified by "
        "their likelihood",
    )


PRETRAINING = "pretraining_steps"
"""The option for the length of a pre-training, which a run of another run's weights (init_from) has none of."""

FIRST_STAGES = ("first_stage_steps", PRETRAINING)
"""Options for the length of a first stage of training."""


def num_halvings(image_size: int, section: Section, name: str) -> int:
    """How many times `image_size` is halved to reach the option `name` of `section`; UserError if that is impossible."""
    size = getattr(section, name)
    halvings = math.log2(image_size / size) if image_size > size else 0
    if halvings < 1 or halvings != int(halvings):
        raise UserError(f"image_size={image_size} with {name}={size}: expected image_size = {name} times 2, 4, 8, ...")
    return int(halvings)


DCGAN_SMALLEST = 4
"""The side of the smallest maps with autoencoder_network=dcgan, pixels."""

DCGAN_SIZES = tuple(DCGAN_SMALLEST * 2**halvings for halvings in range(1, 9))
"""Sides of images for autoencoder_network=dcgan, pixels: 8 to 1024."""


@dataclasses.dataclass(frozen=True, repr=False)
class AutoencoderOptions(Section):
    """The auto-encoder's networks.

    InfoGAN's, as in the GLF family (Xiao et al. 2019, Appendix A, Table 3), or DCGAN's for large images (Appendix B).
    """

    autoencoder_network: str = option(
        "infogan",
        "the auto-encoder's networks: infogan, two convolutions and fully connected layers | dcgan, convolutions down to 4x4, "
        "for large images",
        choices=("infogan", "dcgan"),
    )
    latent_dim: int = option(20, "the number of values of a latent vector", minimum=2, maximum=4096)
    autoencoder_width: int = option(
        64,
        "the channels of the auto-encoder's convolution next to the images; each one after it has twice as many",
        minimum=1, maximum=4096,
    )
    hidden_units: int = option(
        1024, "the units of the auto-encoder's fully connected layers, with autoencoder_network=infogan", minimum=1, maximum=65536
    )

    def without_effect(self) -> dict[str, str]:
        """The fully connected layers' size, where there are none."""
        needs = {"hidden_units": "autoencoder_network=infogan"} if self.autoencoder_network == "dcgan" else {}
        return super().without_effect() | needs

    def check_run(self, data: DataConfig, training: TrainingConfig) -> None:
        """Raises UserError if the networks cannot halve image_size twice, or down to 4."""
        super().check_run(data, training)
        if self.autoencoder_network == "dcgan" and data.image_size not in DCGAN_SIZES:
            raise UserError(
                f"image_size={data.image_size} with autoencoder_network=dcgan: expected one of "
                f"{', '.join(map(str, DCGAN_SIZES))}, as the networks halve images down to {DCGAN_SMALLEST}x{DCGAN_SMALLEST}"
            )
        if data.image_size % 4:
            raise UserError(
                f"image_size={data.image_size}: expected a multiple of 4, as the auto-encoder halves images twice"
            )


@dataclasses.dataclass(frozen=True, repr=False)
class ReconstructionOptions(Section):
    """The error of reconstructions.

    For auto-encoders that are not densities of images.
    """

    reconstruction: str = option(
        "mse",
        "the error of a reconstruction, for pixels in [0, 1]: mse, the squared error summed over all values | perceptual, "
        "distances of VGG16's features",
        choices=("mse", "perceptual"),
    )
    perceptual_weights: str = option(
        "",
        "the file of VGG16's weights without its top, in Keras's format; empty: Keras's own, from its cache or downloaded",
        on_resume="place", paths=("",),
    )


@dataclasses.dataclass(frozen=True, repr=False)
class StageOptions(Section):
    """Base of the systems that train in stages: checks that their first stage (`FIRST_STAGES`) is shorter than the run."""

    def check_run(self, data: DataConfig, training: TrainingConfig) -> None:
        """Raises UserError if the run ends before its last stage begins."""
        super().check_run(data, training)
        for name, steps in self.first_stages().items():
            if name == PRETRAINING and training.init_from:
                continue  # the weights that the run begins with are trained
            if steps >= training.train_steps:
                raise UserError(
                    f"{name}: expected fewer than train_steps={training.train_steps}, to leave steps for the stage after it, "
                    f"received {steps}"
                )

    def first_stages(self) -> dict[str, int]:
        """{option: steps} of the stages before the last one."""
        return {name: getattr(self, name) for name in FIRST_STAGES if hasattr(self, name)}


_OF_THE_FLOWS_OPTIMIZER = ("latent_flow_learning_rate", "latent_flow_beta_1", "latent_flow_beta_2")


@dataclasses.dataclass(frozen=True, repr=False)
class LatentFlowOptions(Section):
    """The flow between noise and latent vectors."""

    latent_flow_blocks: int = option(
        4,
        "the number of blocks of the latents' flow, each two alternating couplings and a fixed permutation",
        minimum=1, maximum=64,
    )
    latent_flow_units: int = option(64, "the units of a hidden layer of the latent flow's couplings", minimum=1, maximum=65536)
    latent_flow_layers: int = option(
        2, "the number of hidden layers of the latent flow's couplings, before the linear one", minimum=1, maximum=16
    )
    latent_flow_weight_decay: float = option(
        2e-5,
        "the weight decay of the latents' flow: half of this, times the sum of its squared weights, is added to its loss",
        minimum=0.0, maximum=1.0,
    )
    latent_flow_normalization: str = option(
        "none",
        "the normalisation of the hidden layers of the latent flow's couplings: none, as in the paper | batch, after each ReLU, "
        "as in the authors' code",
        choices=("none", "batch"),
    )
    latent_flow_optimizer: str = option(
        "shared",
        "what updates the latents' flow: shared, the optimizer of the auto-encoder | own, one of its own, as in the authors' "
        "code, with latent_flow_beta_1, latent_flow_beta_2 and latent_flow_learning_rate",
        choices=("shared", "own"),
    )
    latent_flow_learning_rate: float = option(
        0.0, "the learning rate of the flow's own optimizer; 0: learning_rate", minimum=0.0, maximum=1.0
    )
    latent_flow_beta_1: float = option(
        0.8, "the decay of the first moment in the flow's own optimizer", minimum=0.0, maximum=0.999999
    )
    latent_flow_beta_2: float = option(
        0.9, "the decay of the second moment in the flow's own optimizer", minimum=0.0, maximum=0.999999
    )

    def without_effect(self) -> dict[str, str]:
        """Those of the flow's own optimizer, where it has none."""
        own = dict.fromkeys(_OF_THE_FLOWS_OPTIMIZER, "latent_flow_optimizer=own")
        return super().without_effect() | ({} if self.latent_flow_optimizer == "own" else own)


@dataclasses.dataclass(frozen=True, repr=False)
class DecoderScaleOptions(Section):
    """The decoder's standard deviation.

    For auto-encoders that are densities: p(x|z) = N(G(z), sigma^2 I) for pixels in [0, 1].
    """

    decoder_sigma: float = option(
        0.7071067811865476,
        "the standard deviation of a pixel in [0, 1] given its latents (the first value, if it is learned); 1 / sqrt(2) "
        "gives the squared error the weight 1 (beta = 1). A fixed one keeps bits/dim above log2(256 sigma sqrt(2 pi)): 8.83 "
        "for that value, while uniform noise scores 8",
        minimum=1e-4, maximum=1e4,
    )
    learn_decoder_sigma: bool = option(False, "learns decoder_sigma, one for all pixels (Dai and Wipf 2019)")
    sigma_rate: float = option(
        1.0,
        "the learning rate of decoder_sigma's logarithm, if it is learned, as a multiple of the networks'",
        minimum=1e-3, maximum=1e3,
    )

    def unused(self) -> dict[str, str]:
        """Also the rate of a fixed scale, which must stay: the weight that is the scale is in units of it."""
        return super().unused() | ({} if self.learn_decoder_sigma else {"sigma_rate": "learn_decoder_sigma=true"})

    def bits_per_dim_floor(self) -> float | None:
        """The lowest possible bits/dim of an image, log2(256 sigma sqrt(2 pi)); None if the standard deviation is learned.

        log N(x; G(z), sigma^2 I) - D log 256 is highest at x = G(z), including the dequantisation noise, and the KL only
        lowers the bound.
        """
        return None if self.learn_decoder_sigma else math.log2(256.0 * self.decoder_sigma * math.sqrt(2.0 * math.pi))


@dataclasses.dataclass(frozen=True, repr=False)
class LogisticVAEOptions(Section):
    """Networks, mixtures and prior of the VAEs of Gatopoulos et al. (2020).

    The sizes of the networks are the paper's, times the scale options.
    """

    latent_channels: int = option(
        16, "the channels of a map of latents, which has a quarter of the images' side", minimum=2, maximum=1024
    )
    mixture_components: int = option(10, "the number of logistic distributions of a pixel's mixture", minimum=1, maximum=1000)
    growth_scale: float = option(
        1.0, "the factor of the channels that each step of a dense block adds", minimum=1e-3, maximum=16.0
    )
    steps_scale: float = option(1.0, "the factor of the number of steps of the dense blocks", minimum=1e-3, maximum=16.0)
    prior_scales: int = option(2, "the number of scales of the flow that is the prior of the latents", minimum=1, maximum=6)
    prior_couplings: int = option(
        3,
        "the couplings of the prior's flow: so many checkerboard and as many channel-wise ones per scale; the last scale has "
        "only checkerboards, one more of them if there are several scales",
        minimum=1, maximum=32,
    )
    image_draw: str = option(
        "sample",
        "how images are drawn from their mixtures: sample, exactly | mode, the means of the likeliest component (the "
        "authors')",
        choices=("sample", "mode"), on_resume="free",
    )

    @property
    def image_divisor(self) -> int:
        """The number that must divide the side of the images."""
        return 4 * 2 ** (self.prior_scales - 1)

    def check_run(self, data: DataConfig, training: TrainingConfig) -> None:
        """Raises UserError if images cannot be halved twice to the latents, and then for each further scale of their prior."""
        super().check_run(data, training)
        if data.image_size % self.image_divisor:
            raise UserError(
                f"image_size={data.image_size} with prior_scales={self.prior_scales}: expected a multiple of "
                f"{self.image_divisor}, as latents have a quarter of the side and each further scale of their prior halves it"
            )
