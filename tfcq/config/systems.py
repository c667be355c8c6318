"""The options of each system: a frozen dataclass, and its line in `SYSTEMS`, which is all that a new one needs here."""

import dataclasses
import math

from tfcq.config.fields import option
from tfcq.config.groups import (
    AdversaryOptions,
    AutoencoderOptions,
    DecoderScaleOptions,
    FlowOptions,
    IntrospectiveOptions,
    LatentFlowOptions,
    LogisticVAEOptions,
    ReconstructionOptions,
    StageOptions,
    num_halvings,
)
from tfcq.errors import UserError


@dataclasses.dataclass(frozen=True, repr=False)
class CQFConfig(AdversaryOptions, FlowOptions):
    """Coverage and quality driven training (Shmelkov et al. 2018; Lucas et al. 2019, Adaptive Density Estimation).

    The rows of Table 1: gan: coverage=false, flow_scales=0; vae: quality_weight=0, flow_scales=0; cq: flow_scales=0;
    cqf: the defaults.
    """

    network: str = option(
        "plain",
        "encoder and decoder: plain convolutions (Table 1) | residual blocks (Table 6)",
        choices=("plain", "residual"),
    )
    width: int = option(
        64, "their channels at the finest resolution; doubled at each halving", minimum=1, maximum=4096
    )
    network_normalization: str = option("none", "in encoder and decoder", choices=("none", "batch", "weight"))
    latent_channels: int = option(32, "channels of a layer of latents", minimum=1, maximum=4096)
    latent_form: str = option(
        "map",
        "the coarsest layer: map, [latent_size, latent_size, latent_channels] | vector, [latent_channels]",
        choices=("map", "vector"),
    )
    latent_size: int = option(
        4, "side of the coarsest layer; image_size is halved until it is reached", minimum=1, maximum=256, unit="pixels"
    )
    latent_levels: int = option(
        0,
        "resolutions that have latents, from the coarsest; 0: all (plain networks: all but the images' own)",
        minimum=0,
        maximum=10,
    )
    latent_blocks: int = option(1, "layers of latents at each of these resolutions", minimum=1, maximum=64)
    free_bits: float = option(
        0.0,
        "the KL of each layer and channel, summed over its pixels, counts at least this much in training",
        minimum=0.0,
        unit="nats",
    )
    posterior: str = option(
        "gaussian",
        "of each layer: diagonal gaussian | iaf, one step of inverse autoregressive flow after it",
        choices=("gaussian", "iaf"),
    )
    iaf_width: int = option(32, "channels inside an autoregressive network, and of its context", minimum=1, maximum=4096)
    iaf_layers: int = option(2, "hidden layers of an autoregressive network", minimum=1, maximum=16)
    initial_sigma: float = option(
        1.0, "first value of the decoder's learned scale, in feature space", minimum=1e-4, maximum=1e4
    )

    def check(self):
        super().check()
        if not self.coverage and self.flow_scales:
            raise UserError(
                f"coverage=false with flow_scales={self.flow_scales}: the flow is trained by the likelihood only; "
                "expected flow_scales=0"
            )

    def num_halvings(self, image_size):
        """How many times `image_size` is halved to reach latent_size; UserError where it cannot be."""
        return num_halvings(image_size, self, "latent_size")

    def check_run(self, data, training):
        """Raises UserError where the networks or the flow cannot halve image_size evenly."""
        image_size = data.image_size
        most = self.num_halvings(image_size) + (self.network == "residual")
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
    """RealNVP by itself (Dinh et al. 2017): exact densities; with a discriminator, Flow-GAN (Grover et al. 2018).

    MLE: the defaults; hybrid: quality_weight above 0; adversarial alone: coverage=false.
    """

    quality_weight: float = option(
        0.0,
        "lambda, the weight of the discriminator's loss against a likelihood in nats per image (Flow-GAN); 0: no "
        "discriminator",
        minimum=0.0,
    )
    flow_scales: int = option(2, "scales of the flow", minimum=1, maximum=6)
    discriminator_size: int = option(
        4, "side at which the discriminator stops halving images", minimum=1, maximum=256, unit="pixels"
    )

    def check_run(self, data, training):
        """Raises UserError where the flow or the discriminator cannot halve image_size evenly."""
        super().check_run(data, training)
        if self.quality_weight:
            num_halvings(data.image_size, self, "discriminator_size")


@dataclasses.dataclass(frozen=True, repr=False)
class GLFConfig(StageOptions, LatentFlowOptions, ReconstructionOptions, AutoencoderOptions):
    """Generative latent flow (Xiao et al. 2019): an auto-encoder, and a flow of its latents."""

    regularized: bool = option(
        False, "let the encoder feel the flow's likelihood too (the paper's regularized GLF, which degenerates)"
    )
    reconstruction_weight: float = option(
        1.0, "beta, the weight of the reconstruction's error; matters where regularized", minimum=0.0
    )
    first_stage_steps: int = option(
        0, "train the auto-encoder alone for so many steps, then the flow alone; 0: both at once", minimum=0, unit="steps"
    )

    def check(self):
        if self.regularized and self.first_stage_steps:
            raise UserError(
                f"regularized with first_stage_steps={self.first_stage_steps}: the encoder is trained before the flow, which "
                "cannot regularize it then; expected one of the two"
            )


@dataclasses.dataclass(frozen=True, repr=False)
class VAEConfig(DecoderScaleOptions, AutoencoderOptions):
    """The variational auto-encoder that GLF is compared with."""


@dataclasses.dataclass(frozen=True, repr=False)
class VAEFlowPriorConfig(LatentFlowOptions, DecoderScaleOptions, AutoencoderOptions):
    """A VAE whose prior is a flow, learned with it (Eq. 4 of the GLF paper)."""


@dataclasses.dataclass(frozen=True, repr=False)
class VAEFlowPosteriorConfig(LatentFlowOptions, DecoderScaleOptions, AutoencoderOptions):
    """A VAE whose posterior goes through a flow (Rezende and Mohamed 2015)."""


@dataclasses.dataclass(frozen=True, repr=False)
class WAEOptions(StageOptions, ReconstructionOptions, AutoencoderOptions):
    """A Wasserstein auto-encoder (Tolstikhin et al. 2018): a deterministic one whose latents are drawn to N(0, sigma^2 I)."""

    divergence_weight: float = option(
        10.0,
        "lambda, the weight of the distance between latents and prior, beside squares summed over an image (Tolstikhin et "
        "al.'s code takes 0.05 of those: their 10 is 200 here)",
        minimum=0.0,
    )
    prior_sigma: float = option(1.0, "deviation of the prior", minimum=1e-4, maximum=1e4)
    pretraining_steps: int = option(
        200, "first, the encoder alone learns the prior's mean and covariance", minimum=0, unit="steps"
    )

    def check_run(self, data, training):
        """Raises UserError also where a batch has no covariance."""
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
    """WAE-GAN: an adversary tells latents from draws of the prior."""

    adversary_units: int = option(512, "units of each of its four hidden layers", minimum=1, maximum=65536)
    input_noise: float = option(
        0.01, "deviation of the noise on the pixels, in [0, 1], that the encoder sees in training", minimum=0.0, maximum=1.0
    )


@dataclasses.dataclass(frozen=True, repr=False)
class WAEMMDConfig(WAEOptions):
    """WAE-MMD: latents and draws of the prior are compared by a kernel."""


@dataclasses.dataclass(frozen=True, repr=False)
class TwoStageVAEConfig(StageOptions, DecoderScaleOptions, AutoencoderOptions):
    """Two-stage VAE (Dai and Wipf 2019): a VAE with a learned scale, then a VAE of its latents."""

    learn_decoder_sigma: bool = option(True, "learn the first decoder's deviation, one for all pixels")
    decoder_sigma: float = option(
        1.0,
        "its first value, for pixels in [0, 1]; its only one where it is not learned, which keeps bits/dim above "
        "log2(256 sigma sqrt(2 pi)), for 1 9.33, where uniform noise scores 8",
        minimum=1e-4,
        maximum=1e4,
    )
    first_stage_steps: int = option(
        10000, "steps of the first VAE; the second is trained after them", minimum=1, unit="steps"
    )
    second_stage_units: int = option(1024, "units of the second VAE's hidden layers", minimum=1, maximum=65536)
    second_stage_layers: int = option(3, "hidden layers of its encoder and of its decoder each", minimum=1, maximum=16)


@dataclasses.dataclass(frozen=True, repr=False)
class RAEGMMConfig(ReconstructionOptions, AutoencoderOptions):
    """RAE + GMM (Ghosh et al. 2019): a regularised auto-encoder, and a mixture of Gaussians fitted to its latents."""

    latent_penalty: float = option(
        1e-3, "weight of the latents' squared norm beside the reconstruction's error", minimum=0.0
    )
    mixture_components: int = option(10, "Gaussians of the mixture", minimum=1, maximum=1000)
    mixture_images: int = option(
        0, "training images whose latents the mixture is fitted to, the first ones; 0: all", minimum=0, unit="images"
    )

    def check(self):
        super().check()
        if self.mixture_images == 1:
            raise UserError("mixture_images: expected 0 (all of them) or at least 2, received 1")


@dataclasses.dataclass(frozen=True, repr=False)
class GLANNConfig(StageOptions, ReconstructionOptions, AutoencoderOptions):
    """GLANN (Hoshen, Li and Malik 2019): a code for each training image (GLO), then a network that draws codes (IMLE)."""

    first_stage_steps: int = option(
        10000, "steps of GLO; the network from noise to codes is trained after them", minimum=1, unit="steps"
    )
    codes_rate: float = option(
        10.0, "codes of the training images learn so many times as fast as the network", minimum=1e-3, maximum=1e3
    )
    noise_dim: int = option(32, "values of the noise that codes are drawn from", minimum=1, maximum=4096)
    imle_units: int = option(128, "units of its hidden layers", minimum=1, maximum=65536)
    imle_layers: int = option(2, "hidden layers of the network from noise to codes", minimum=1, maximum=16)
    pool_factor: int = option(
        2, "draws among which each epoch finds the nearest of every code, in numbers of training images", minimum=1, maximum=100
    )

    def check_run(self, data, training):
        """Raises UserError also where images change from one epoch to the next."""
        super().check_run(data, training)
        for name in ("horizontal_flip", "random_translation"):
            if getattr(data, name):
                raise UserError(
                    f"{name} with model=glann: expected none, as each training image has one code, which cannot be that of its "
                    "changed copies too"
                )


@dataclasses.dataclass(frozen=True, repr=False)
class VAEBijectivePriorConfig(LogisticVAEOptions):
    """The VAE with a bijective prior (Gatopoulos, Stol and Tomczak 2020)."""


@dataclasses.dataclass(frozen=True, repr=False)
class SRVAEConfig(LogisticVAEOptions):
    """srVAE (Gatopoulos, Stol and Tomczak 2020): first a compressed image, then the image given that."""

    compression: str = option(
        "downscale",
        "the compressed image: downscale, half the side, antialiased | grey, its luminance; 8 bits both",
        choices=("downscale", "grey"),
    )


@dataclasses.dataclass(frozen=True, repr=False)
class IntroVAEConfig(IntrospectiveOptions):
    """IntroVAE (Huang, Li, He, Sun and Tan 2018)."""

    adversarial_weight: float = option(
        0.25, "alpha, of the KLs of generated images (Eq. 11 and 12); 0: a plain VAE, trained as one", minimum=0.0
    )
    generator_adversarial_weight: float = option(
        0.0, "another alpha for the generator (Eq. 12; the authors' code: 0.5); 0: adversarial_weight", minimum=0.0
    )
    reconstruction_weight: float = option(
        0.5, "beta, of half the squared error summed over pixels in [0, 1]: it depends on the number of pixels", minimum=0.0
    )
    pretraining_steps: int = option(
        1000, "first, encoder and generator are trained as a VAE, without introspection", minimum=0, unit="steps"
    )
    margin: str = option(
        "auto", "m, nats, that the encoder pushes the KL of generated images to: a number | auto, what pre-training suggests"
    )
    margin_form: str = option(
        "per_sample",
        "the hinge is of each image's KL: per_sample (Eq. 11) | of the batch's mean: batch_mean (the authors' code)",
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
    """Soft-IntroVAE (Daniel and Tamar 2021)."""

    reconstruction_weight: float = option(1.0, "beta_rec, of squared errors summed over pixels in [0, 1]", minimum=0.0)
    kl_weight: float = option(1.0, "beta_kl, of KLs in the bound and of those that the generator lowers", minimum=1e-6)
    negative_weight: float = option(
        256.0,
        "beta_neg, of generated images' KLs inside the exponential; 256 is for 32x32 in colour, as it hangs on the size",
        minimum=0.0,
    )


SYSTEMS = {
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
