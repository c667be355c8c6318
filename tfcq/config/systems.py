"""The options of each system. A new system needs a frozen dataclass here, and its line in `SYSTEMS`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from tfcq.config.fields import Section, option
from tfcq.config.groups import (
    AdversaryOptions,
    AutoencoderOptions,
    ClassOptions,
    DecoderScaleOptions,
    FlowOptions,
    LatentFlowOptions,
    LogisticVAEOptions,
    ReconstructionOptions,
    StageOptions,
    num_halvings,
)
from tfcq.config.introspective import IntroVAEConfig, SoftIntroVAEConfig
from tfcq.config.wasserstein import WAEGANConfig, WAEMMDConfig
from tfcq.errors import UserError

if TYPE_CHECKING:
    from tfcq.config.data import DataConfig
    from tfcq.config.training import TrainingConfig


@dataclasses.dataclass(frozen=True, repr=False)
class CQFConfig(AdversaryOptions, FlowOptions, ClassOptions):
    """A VAE, a flow and a discriminator (Shmelkov et al. 2018).

    Coverage and quality driven training; also Lucas et al. 2019, Adaptive Density Estimation. The rows of Table 1, with the
    networks of that table (network=standard, network_normalization=batch, discriminator_network=standard): gan: coverage=false,
    flow_scales=0; vae: quality_weight=0, flow_scales=0, pixel_transform=affine; cq: flow_scales=0, pixel_transform=affine; cqf.
    """

    network: str = option(
        "plain",
        "the networks of encoder and decoder: standard, the convolutions of Table 1 | plain, 4x4 convolutions of stride 2 "
        "alone | residual blocks (Table 6)",
        choices=("standard", "plain", "residual"),
    )
    width: int = option(
        64, "the channels of encoder and decoder at the finest resolution, doubled at each halving", minimum=1, maximum=4096
    )
    width_scale: float = option(
        1.0,
        "the factor of the channels of encoder and decoder at each resolution, rounded, for a network as large as another; not "
        "of the encoder's first convolution",
        minimum=0.5, maximum=2.0,
    )
    network_normalization: str = option(
        "none", "the normalisation in encoder and decoder", choices=("none", "batch", "weight")
    )
    latent_channels: int = option(32, "the channels of a layer of latents", minimum=1, maximum=4096)
    latent_form: str = option(
        "map",
        "the form of the coarsest layer of latents: map, [latent_size, latent_size, latent_channels] | vector, "
        "[latent_channels]",
        choices=("map", "vector"),
    )
    latent_size: int = option(
        4,
        "the side of the coarsest layer of latents; image_size is halved until it is reached",
        minimum=1, maximum=256, unit="pixels",
    )
    latent_levels: int = option(
        0,
        "the number of resolutions with latents, from the coarsest on; 0: all (residual networks), or all except the images' own",
        minimum=0, maximum=10,
    )
    latent_blocks: int = option(1, "the number of layers of latents at each resolution with latents", minimum=1, maximum=64)
    free_bits: float = option(
        0.0,
        "the least value that the KL of each layer and channel of latents, summed over its pixels, has in training",
        minimum=0.0, unit="nats",
    )
    posterior: str = option(
        "gaussian",
        "the posterior of each layer of latents: gaussian, diagonal | iaf, one step of inverse autoregressive flow after it",
        choices=("gaussian", "iaf"),
    )
    iaf_width: int = option(
        0,
        "the channels inside an autoregressive network of posterior=iaf, and of its context; 0: those of the level, as in the "
        "program of Kingma et al. 2016",
        minimum=0, maximum=4096,
    )
    iaf_layers: int = option(
        2, "the number of hidden layers of an autoregressive network of posterior=iaf", minimum=1, maximum=16
    )
    initial_sigma: float = option(
        1.0, "the first value of the decoder's learned scale, in feature space", minimum=1e-4, maximum=1e4
    )

    def check(self) -> None:
        """Raises UserError if a flow would have no loss to train it."""
        super().check()
        if not self.coverage and self.flow_scales:
            raise UserError(
                f"coverage=false with flow_scales={self.flow_scales}: the flow is trained by the likelihood only; "
                "expected flow_scales=0"
            )

    def without_effect(self) -> dict[str, str]:
        """Those of the flows that a diagonal posterior does not have."""
        needs = {} if self.posterior == "iaf" else dict.fromkeys(("iaf_width", "iaf_layers"), "posterior=iaf")
        return super().without_effect() | needs

    def num_halvings(self, image_size: int) -> int:
        """How many times `image_size` is halved to reach latent_size; UserError if that is impossible."""
        return num_halvings(image_size, self, "latent_size")

    def check_run(self, data: DataConfig, training: TrainingConfig) -> None:
        """Raises UserError if the networks, the discriminator or the flow cannot halve image_size evenly."""
        image_size = data.image_size
        most = self.num_halvings(image_size)
        if self.quality_weight and self.discriminator_size:
            num_halvings(image_size, self, "discriminator_size")
        if self.network == "residual":
            most += 1  # residual networks have latents at the resolution of the images, too
        if self.latent_levels > most:
            raise UserError(
                f"latent_levels={self.latent_levels}: expected at most {most}, the resolutions of a {self.network} "
                f"network from latent_size={self.latent_size} for image_size={image_size}"
            )
        if self.free_bits and training.micro_batches > 1:
            given = f"micro_batches={training.micro_batches} with free_bits={self.free_bits:g}"
            raise UserError(f"{given}: expected 1, as free bits look at the mean KL of the whole batch")
        super().check_run(data, training)


@dataclasses.dataclass(frozen=True, repr=False)
class RealNVPConfig(AdversaryOptions, FlowOptions):
    """A flow of images (Dinh et al. 2017), also as a Flow-GAN.

    Exact densities; with a discriminator, Flow-GAN (Grover et al. 2018). MLE: the defaults; hybrid: quality_weight above 0;
    adversarial alone: coverage=false.
    """

    quality_weight: float = option(
        0.0,
        "the weight (lambda) of the discriminator's loss against a likelihood in nats per image (Flow-GAN); 0: no "
        "discriminator",
        minimum=0.0,
    )
    flow_scales: int = option(2, "the number of scales of the flow", minimum=1, maximum=6)
    discriminator_size: int = option(
        4, "the side at which the discriminator stops halving images", minimum=1, maximum=256, unit="pixels"
    )

    def check(self) -> None:
        """Raises UserError for a penalty beside a likelihood that is not trained."""
        super().check()
        if self.flow_magnitude_penalty and not self.coverage:
            raise UserError(
                f"flow_magnitude_penalty={self.flow_magnitude_penalty:g} with coverage=false: the penalty is part of the "
                "likelihood's loss; expected 0"
            )

    def check_run(self, data: DataConfig, training: TrainingConfig) -> None:
        """Raises UserError if the flow or the discriminator cannot halve image_size evenly."""
        super().check_run(data, training)
        if self.quality_weight:
            num_halvings(data.image_size, self, "discriminator_size")


@dataclasses.dataclass(frozen=True, repr=False)
class GLFConfig(StageOptions, LatentFlowOptions, ReconstructionOptions, AutoencoderOptions, ClassOptions):
    """An auto-encoder and a latent flow (Xiao et al. 2019).

    Generative latent flow.
    """

    regularized: bool = option(
        False, "trains the encoder also by the flow's likelihood (the paper's regularized GLF, which degenerates)"
    )
    reconstruction_weight: float = option(
        1.0, "the weight (beta) of the reconstruction's error; it matters with --regularized only", minimum=0.0
    )
    first_stage_steps: int = option(
        0,
        "the steps in which the auto-encoder is trained alone, before the flow alone; 0: both at once",
        minimum=0, unit="steps",
    )

    def check(self) -> None:
        """Raises UserError for a regularized system with two stages."""
        super().check()
        if self.regularized and self.first_stage_steps:
            raise UserError(
                f"regularized with first_stage_steps={self.first_stage_steps}: the encoder is trained before the flow, which "
                "cannot regularize it then; expected one of the two"
            )


@dataclasses.dataclass(frozen=True, repr=False)
class VAEConfig(DecoderScaleOptions, AutoencoderOptions):
    """The VAE that GLF is compared with."""


@dataclasses.dataclass(frozen=True, repr=False)
class VAEFlowPriorConfig(LatentFlowOptions, DecoderScaleOptions, AutoencoderOptions):
    """A VAE whose prior is a flow, learned with it.

    Eq. 4 of Xiao et al. 2019.
    """


@dataclasses.dataclass(frozen=True, repr=False)
class VAEFlowPosteriorConfig(LatentFlowOptions, DecoderScaleOptions, AutoencoderOptions):
    """A VAE whose posterior is a flow (Rezende, Mohamed 2015)."""


@dataclasses.dataclass(frozen=True, repr=False)
class TwoStageVAEConfig(StageOptions, DecoderScaleOptions, AutoencoderOptions):
    """A VAE, then a VAE of its latents (Dai and Wipf 2019).

    The first one has a learned scale.
    """

    learn_decoder_sigma: bool = option(True, "learns the first decoder's decoder_sigma, one for all pixels")
    decoder_sigma: float = option(
        1.0,
        "the standard deviation of a pixel in [0, 1] given its latents (the first value, if it is learned). A fixed one "
        "keeps bits/dim above log2(256 sigma sqrt(2 pi)): 9.33 for 1, while uniform noise scores 8",
        minimum=1e-4, maximum=1e4,
    )
    sigma_rate: float = option(
        10.0,
        "the learning rate of the logarithms of the two learned deviations, the first decoder's sigma and the second's gamma, "
        "as a multiple of the networks' (the code of Dai and Wipf: 1, for some 400,000 steps)",
        minimum=1e-3, maximum=1e3,
    )
    first_stage_steps: int = option(
        10000, "the steps of the first VAE; the second is trained after them", minimum=1, unit="steps"
    )
    second_stage_units: int = option(1024, "the units of the second VAE's hidden layers", minimum=1, maximum=65536)
    second_stage_layers: int = option(
        3, "the number of hidden layers of the second VAE's encoder, and of its decoder", minimum=1, maximum=16
    )

    @classmethod
    def of_earlier(cls, values: dict[str, Any]) -> dict[str, Any]:
        """See `Section.of_earlier`: sigma and gamma were learned at the rate of the networks."""
        return super().of_earlier({"sigma_rate": 1.0} | values)

    def unused(self) -> dict[str, str]:
        """Without sigma_rate, which is also the rate of gamma, which is always learned."""
        return {name: needed for name, needed in super().unused().items() if name != "sigma_rate"}


@dataclasses.dataclass(frozen=True, repr=False)
class RAEGMMConfig(ReconstructionOptions, AutoencoderOptions):
    """A regularised auto-encoder and a mixture of Gaussians.

    RAE + GMM (Ghosh et al. 2019): the mixture is fitted to the latents.
    """

    latent_penalty: float = option(
        1e-3, "the weight of the latents' squared norm against the reconstruction's error", minimum=0.0
    )
    mixture_components: int = option(10, "the number of Gaussians of the latents' mixture", minimum=1, maximum=1000)
    mixture_images: int = option(
        0,
        "the number of training images, the first ones, to whose latents the mixture is fitted; 0: all",
        minimum=0, unit="images",
    )

    def check(self) -> None:
        """Raises UserError for a mixture of a single image."""
        super().check()
        if self.mixture_images == 1:
            raise UserError("mixture_images: expected 0 (all of them) or at least 2, received 1")


@dataclasses.dataclass(frozen=True, repr=False)
class GLANNConfig(StageOptions, ReconstructionOptions, AutoencoderOptions):
    """A code for each image, then a network that draws codes.

    GLANN (Hoshen, Li and Malik 2019): codes by GLO, the network by IMLE.
    """

    first_stage_steps: int = option(
        10000,
        "the steps of GLO, which learns the codes; the network from noise to codes is trained after them",
        minimum=1, unit="steps",
    )
    codes_rate: float = option(
        10.0, "the learning rate of the training images' codes, as a multiple of the network's", minimum=1e-3, maximum=1e3
    )
    noise_dim: int = option(32, "the number of values of the noise that codes are drawn from", minimum=1, maximum=4096)
    imle_units: int = option(128, "the units of a hidden layer of the network from noise to codes", minimum=1, maximum=65536)
    imle_layers: int = option(2, "the number of hidden layers of the network from noise to codes", minimum=1, maximum=16)
    imle_batch_normalization: bool = option(
        False, "normalises the hidden layers of the network from noise to codes by batch statistics, as its authors' code does"
    )
    pool_factor: int = option(
        2,
        "the number of draws per training image among which each epoch searches the one nearest to each code",
        minimum=1, maximum=100,
    )

    def check_run(self, data: DataConfig, training: TrainingConfig) -> None:
        """Raises UserError also if images change from one epoch to the next."""
        super().check_run(data, training)
        for name in ("horizontal_flip", "random_translation"):
            if getattr(data, name):
                raise UserError(
                    f"{name} with model=glann: expected none, as each training image has one code, which cannot also be the "
                    "code of its changed copies"
                )


@dataclasses.dataclass(frozen=True, repr=False)
class VAEBijectivePriorConfig(LogisticVAEOptions):
    """A VAE with a bijective prior (Gatopoulos et al. 2020).

    Gatopoulos, Stol and Tomczak 2020.
    """


@dataclasses.dataclass(frozen=True, repr=False)
class SRVAEConfig(LogisticVAEOptions):
    """A compressed image, then the image (Gatopoulos et al.).

    srVAE (Gatopoulos, Stol and Tomczak 2020).
    """

    compression: str = option(
        "downscale",
        "the compressed image, 8 bits: downscale, half the side, antialiased | grey, its luminance",
        choices=("downscale", "grey"),
    )


SYSTEMS: dict[str, type[Section]] = {
    "cqf": CQFConfig,
    "realnvp": RealNVPConfig,
    "glf": GLFConfig,
    "vae": VAEConfig,
    "vae_flow_prior": VAEFlowPriorConfig,
    "vae_flow_posterior": VAEFlowPosteriorConfig,
    "wae_gan": WAEGANConfig,
    "wae_mmd": WAEMMDConfig,
    "two_stage_vae": TwoStageVAEConfig,
    "rae_gmm": RAEGMMConfig,
    "glann": GLANNConfig,
    "vae_bijective_prior": VAEBijectivePriorConfig,
    "srvae": SRVAEConfig,
    "introvae": IntroVAEConfig,
    "soft_introvae": SoftIntroVAEConfig,
}
"""--model's values: a system's name and the dataclass of its options."""
