"""Groups of options that several systems share; a system's dataclass in `tfcq.config` inherits those that it has."""

import dataclasses
import math

from tfcq.config.fields import Section, option
from tfcq.errors import UserError


@dataclasses.dataclass(frozen=True, repr=False)
class FlowOptions(Section):
    """A RealNVP between features and pixels, of the systems that have one."""

    pixel_transform: str = option(
        "logit",
        "from pixels in (0, 1) to the flow: logit of 0.05 + 0.9 x | affine, to (-1, 1)",
        choices=("logit", "affine"),
    )
    flow_scales: int = option(1, "scales of the RealNVP between features and pixels; 0: no flow", minimum=0, maximum=6)
    flow_couplings: int = option(3, "checkerboard couplings of a scale", minimum=1, maximum=64)
    flow_blocks: int = option(2, "residual blocks of a coupling's conditioner", minimum=0, maximum=64)
    flow_width: int = option(32, "channels of a conditioner in the first scale", minimum=1, maximum=4096)
    flow_width_factor: int = option(2, "flow_width is multiplied by it at each further scale", choices=(1, 2))
    flow_normalization: str = option(
        "actnorm", "between couplings: actnorm | batch (the paper's) | none", choices=("actnorm", "batch", "none")
    )
    flow_weight_normalization: bool = option(True, "weight normalisation in the conditioners")
    flow_conditioner_batch_normalization: bool = option(
        False, "batch normalisation inside the conditioners (the paper's)"
    )
    flow_output_kernel_size: int = option(1, "side of the conditioners' last kernel", choices=(1, 3), unit="pixels")

    def check_run(self, data, training):
        """Raises UserError where the flow cannot halve image_size evenly."""
        image_size = data.image_size
        if self.flow_scales > 1 and image_size % 2**self.flow_scales:
            raise UserError(
                f"image_size={image_size} with flow_scales={self.flow_scales}: expected a multiple of "
                f"{2**self.flow_scales}"
            )


@dataclasses.dataclass(frozen=True, repr=False)
class AdversaryOptions(Section):
    """A discriminator and the game with it, of the systems that have one."""

    coverage: bool = option(True, "train by the likelihood (L_C, Eq. 6); false: by the discriminator alone")
    quality_weight: float = option(
        100.0, "lambda, the weight of L_Q (Eq. 7), against an L_C in nats per image; 0: no discriminator", minimum=0.0
    )
    quality_ramp_steps: int = option(0, "linear rise of lambda from 0", minimum=0, unit="steps")
    generator_loss: str = option(
        "log_ratio",
        "L_Q of an image: log_ratio, -log(D / (1 - D)) (the paper's) | non_saturating, -log D | saturating, log(1 - D)",
        choices=("log_ratio", "non_saturating", "saturating"),
    )
    discriminator_network: str = option(
        "plain", "plain convolutions (Table 1) | residual blocks (Table 6)", choices=("plain", "residual")
    )
    discriminator_width: int = option(
        64, "channels at the finest resolution; doubled at each halving", minimum=1, maximum=4096
    )
    discriminator_blocks: int = option(
        1, "residual blocks at each resolution (discriminator_network=residual)", minimum=1, maximum=16
    )
    discriminator_weight_normalization: bool = option(False, "weight normalisation in the discriminator")
    data_dependent_initialization: bool = option(
        True,
        "weight-normalised layers of encoder, decoder and discriminator start with outputs of mean 0 and variance 1 on "
        "the first batch",
    )
    discriminator_steps: int = option(
        1, "discriminator updates a step, each on images of its own", minimum=1, maximum=100
    )
    gradient_penalty: float = option(100.0, "weight of the discriminator's gradient penalty; 0: none", minimum=0.0)
    gradient_penalty_form: str = option(
        "two_sided",
        "with the gradient's norm g: two_sided, (g - 1)^2, or one_sided, max(0, g - 1)^2, between real and generated "
        "images | real, g^2 / 2 at real images",
        choices=("two_sided", "one_sided", "real"),
    )
    dequantize_real: bool = option(True, "add the dequantisation noise to the real images that the discriminator sees")

    def check(self):
        if not self.coverage and not self.quality_weight:
            raise UserError("coverage=false with quality_weight=0: nothing to train; expected one of the two losses")


FIRST_STAGES = ("first_stage_steps", "pretraining_steps")
"""Options that say how long a first stage of training is."""


def num_halvings(image_size, section, name):
    """How many times `image_size` is halved to reach the option `name` of `section`; UserError where it cannot be."""
    size = getattr(section, name)
    halvings = math.log2(image_size / size) if image_size > size else 0
    if halvings < 1 or halvings != int(halvings):
        raise UserError(f"image_size={image_size} with {name}={size}: expected image_size = {name} times 2, 4, 8, ...")
    return int(halvings)


@dataclasses.dataclass(frozen=True, repr=False)
class AutoencoderOptions(Section):
    """The InfoGAN auto-encoder of the GLF family (Xiao et al. 2019, Appendix A, Table 3)."""

    latent_dim: int = option(20, "values of a latent vector", minimum=2, maximum=4096)
    autoencoder_width: int = option(
        64, "channels of the convolution next to the images; the other has twice as many", minimum=1, maximum=4096
    )
    hidden_units: int = option(1024, "units of the fully connected layers", minimum=1, maximum=65536)

    def check_run(self, data, training):
        """Raises UserError where the networks cannot halve image_size twice."""
        super().check_run(data, training)
        if data.image_size % 4:
            raise UserError(
                f"image_size={data.image_size}: expected a multiple of 4, as the auto-encoder halves images twice"
            )


@dataclasses.dataclass(frozen=True, repr=False)
class ReconstructionOptions(Section):
    """What the auto-encoders that are no densities of images are trained by."""

    reconstruction: str = option(
        "mse",
        "error of a reconstruction, pixels in [0, 1]: mse, squares summed over all values | perceptual, distances of VGG16's "
        "features",
        choices=("mse", "perceptual"),
    )
    perceptual_weights: str = option(
        "",
        "file of VGG16's weights without its top, as Keras has them; empty: Keras's own, from its cache or downloaded",
        on_resume="place",
        paths=("",),
    )


@dataclasses.dataclass(frozen=True, repr=False)
class StageOptions(Section):
    """What holds for every system that trains in stages: the option of `FIRST_STAGES` that it has is shorter than the run."""

    def check_run(self, data, training):
        """Raises UserError where the steps are over before the last stage begins."""
        super().check_run(data, training)
        for name, steps in self.first_stages().items():
            if steps >= training.train_steps:
                raise UserError(
                    f"{name}: expected fewer than train_steps={training.train_steps}, or nothing is left to what is trained "
                    f"after it, received {steps}"
                )

    def first_stages(self):
        """{option: steps} of what comes before the last stage."""
        return {name: getattr(self, name) for name in FIRST_STAGES if hasattr(self, name)}


@dataclasses.dataclass(frozen=True, repr=False)
class IntrospectiveOptions(StageOptions):
    """Networks and pre-training of IntroVAE (Huang et al. 2018, Appendix B) and of Soft-IntroVAE."""

    latent_dim: int = option(256, "values of a latent vector", minimum=2, maximum=4096)
    width: int = option(
        32,
        "channels at the images' resolution, doubled at each halving, up to 512; the paper's at 256x256; it has 16 at 1024x1024",
        minimum=1,
        maximum=512,
    )
    network_normalization: str = option(
        "batch",
        "in encoder and generator: batch (the paper) | none, with which the energy tells generated images one by one",
        choices=("batch", "none"),
    )
    recompute_gradients: bool = option(
        False, "compute the blocks' inner values again for their gradients instead of keeping them: less memory, more time"
    )
    pretraining_steps: int = option(
        0, "first, encoder and generator are trained as a VAE, without introspection", minimum=0, unit="steps"
    )

    def check_run(self, data, training):
        """Raises UserError also where the networks do not fit image_size."""
        super().check_run(data, training)
        size = data.image_size
        if size < 8 or size & (size - 1):
            raise UserError(f"image_size={size}: expected a power of two, at least 8, as the networks halve images down to 4")


@dataclasses.dataclass(frozen=True, repr=False)
class LatentFlowOptions(Section):
    """A flow between noise and latent vectors."""

    latent_flow_blocks: int = option(
        4, "blocks of the latents' flow: two alternating couplings and a fixed permutation", minimum=1, maximum=64
    )
    latent_flow_units: int = option(64, "units of a hidden layer of its couplings", minimum=1, maximum=65536)
    latent_flow_layers: int = option(2, "hidden layers of its couplings, before the linear one", minimum=1, maximum=16)
    latent_flow_weight_decay: float = option(
        2e-5, "half of this, times the sum of the squares of its weights, is added to its loss", minimum=0.0, maximum=1.0
    )


@dataclasses.dataclass(frozen=True, repr=False)
class DecoderScaleOptions(Section):
    """p(x|z) = N(G(z), sigma^2 I) for pixels in [0, 1], of the auto-encoders that are densities."""

    decoder_sigma: float = option(
        0.7071067811865476,
        "deviation of a pixel in [0, 1] given its latents (the first value, where it is learned); 1 / sqrt(2) makes the "
        "squared error count once (beta = 1). Fixed, it keeps bits/dim above log2(256 sigma sqrt(2 pi)), 8.83 for that value, "
        "where uniform noise scores 8",
        minimum=1e-4,
        maximum=1e4,
    )
    learn_decoder_sigma: bool = option(False, "learn that deviation, one for all pixels (Dai and Wipf 2019)")

    def bits_per_dim_floor(self):
        """What no image scores less than, bits/dim: log2(256 sigma sqrt(2 pi)); None where the deviation is learned.

        log N(x; G(z), sigma^2 I) - D log 256 is highest where x = G(z), pixels and their dequantisation noise alike, and the KL
        only lowers the bound.
        """
        return None if self.learn_decoder_sigma else math.log2(256.0 * self.decoder_sigma * math.sqrt(2.0 * math.pi))


@dataclasses.dataclass(frozen=True, repr=False)
class LogisticVAEOptions(Section):
    """What the VAEs of Gatopoulos, Stol and Tomczak (2020) share; the networks' sizes are the paper's, times the scales."""

    latent_channels: int = option(16, "channels of a map of latents, of a quarter of the images' side", minimum=2, maximum=1024)
    mixture_components: int = option(10, "logistics of a pixel's mixture", minimum=1, maximum=1000)
    growth_scale: float = option(1.0, "multiplies the channels that each step of a dense block adds", minimum=1e-3, maximum=16.0)
    steps_scale: float = option(1.0, "multiplies the steps of the dense blocks", minimum=1e-3, maximum=16.0)
    prior_scales: int = option(2, "scales of the flow that is the latents' prior", minimum=1, maximum=6)
    prior_couplings: int = option(
        3,
        "its couplings: so many checkerboards and as many channel-wise ones a scale; the last scale has checkerboards alone, one "
        "more where there are several",
        minimum=1,
        maximum=32,
    )
    image_draw: str = option(
        "sample",
        "how images are drawn of their mixtures: sample, exactly | mode, the means of the likeliest component (the authors')",
        choices=("sample", "mode"),
        on_resume="free",
    )

    @property
    def image_divisor(self):
        """What the sides of images are multiples of."""
        return 4 * 2 ** (self.prior_scales - 1)

    def check_run(self, data, training):
        """Raises UserError where images cannot be halved twice to the latents and then inside their prior."""
        super().check_run(data, training)
        if data.image_size % self.image_divisor:
            raise UserError(
                f"image_size={data.image_size} with prior_scales={self.prior_scales}: expected a multiple of "
                f"{self.image_divisor}, as latents have a quarter of the side and each further scale of their prior halves it"
            )
