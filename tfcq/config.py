"""Every knob of the project, once: its default, meaning, unit and bounds.

Frozen dataclasses and plain Python: this module imports no TensorFlow, so that flags, `--help` and tools that only
read a workdir answer at once. `tfcq.flags` makes the command line from these fields; a workdir keeps them as
`config.json`. A new system adds one dataclass here and its line in `SYSTEMS`.

Example::

    config = Config(model="cqf", data=DataConfig(dataset="digits"), system=CQFConfig(flow_scales=1))
    Config.from_json(config.to_json()) == config
"""

import dataclasses
import json
import math

from tfcq.errors import UserError
from tfcq.knobs import Section, knob, suggestion
from tfcq.protocol import DISTRIBUTION_ALIASES, DISTRIBUTIONS


@dataclasses.dataclass(frozen=True)
class DataConfig(Section):
    """Where images come from, and what a model sees of them: uint8 [image_size, image_size, channels]."""

    dataset: str = knob(
        "digits",
        "digits | photo_patches | idx:DIR | folder:DIR | npz:FILE | the name of a TFDS image data "
        "set (cifar10, celeb_a, ...)",
    )
    data_dir: str = knob("", "where TFDS keeps prepared data sets; empty: TFDS's own default")
    image_size: int = knob(32, "side of the square images", minimum=4, maximum=1024, unit="pixels")
    center_crop: int = knob(
        0,
        "side of the square cut from the centre of each source image before it is resized; 0: the largest square",
        minimum=0,
        maximum=16384,
        unit="source pixels",
    )
    resize: str = knob(
        "area",
        "how the cut reaches image_size: area (antialiased, up or down) | pad (unscaled, centred in black)",
        choices=("area", "pad"),
    )
    color: str = knob(
        "source",
        "grey | rgb | source (as the files are; mixed files are then an error)",
        choices=("source", "grey", "rgb"),
    )
    horizontal_flip: bool = knob(False, "mirror each training image with probability 1/2")
    train_split: str = knob(
        "train",
        "the training images are this split of the data set; another than train only where TFDS has it (stl10: "
        "unlabelled)",
    )
    test_split: str = knob(
        "test",
        "the test images are this split, or held out of the training images where the data set has no test; another "
        "than test only where TFDS has it (lsun: validation)",
    )
    num_validation: int = knob(
        0, "images held out of the training split for validation; 0: a tenth", minimum=0, unit="images"
    )

    def check(self):
        if not self.dataset:
            raise UserError("dataset: expected a name, received an empty string")
        if self.train_split == self.test_split:
            raise UserError(
                f"train_split and test_split: expected two different splits, received {self.train_split!r} for both"
            )


@dataclasses.dataclass(frozen=True)
class TrainingConfig(Section):
    """How a model is trained; the same for every system."""

    train_steps: int = knob(20000, "steps in all; a step takes each player's turns once", minimum=1, unit="steps")
    batch_size: int = knob(64, "images of one update, over all replicas", minimum=1, maximum=65536, unit="images")
    seed: int = knob(0, "of the weights, the order of the data and all noise", minimum=0, maximum=2**31 - 1)
    optimizer: str = knob("adamax", "rule that updates the weights", choices=("adamax", "adam"))
    learning_rate: float = knob(2e-3, "of every player but the discriminator", minimum=0.0, maximum=1.0)
    discriminator_learning_rate: float = knob(2e-3, "of the discriminator", minimum=0.0, maximum=1.0)
    learning_rate_schedule: str = knob(
        "constant", "constant | linear or cosine decay to 0 over train_steps", choices=("constant", "linear", "cosine")
    )
    warmup_steps: int = knob(0, "linear rise of the learning rates from 0", minimum=0, unit="steps")
    beta_1: float = knob(0.9, "decay of the first moment", minimum=0.0, maximum=0.999999)
    beta_2: float = knob(
        0.999, "decay of the second moment (Adamax: of the infinity norm)", minimum=0.0, maximum=0.999999
    )
    ema_decay: float = knob(
        0.0,
        "a running mean of the weights with this decay is what is evaluated and exported; lower in the first steps; "
        "0: the weights themselves",
        minimum=0.0,
        maximum=0.999999,
    )
    clip_norm: float = knob(0.0, "each player's gradient is scaled down to this norm; 0: never", minimum=0.0)
    precision: str = knob(
        "float32",
        "arithmetic of the networks; densities stay float32",
        choices=("float32", "mixed_bfloat16", "mixed_float16"),
    )
    distribution: str = knob(
        "auto",
        "auto (mirrored where there are several devices) | none | mirrored",
        choices=("auto", "none", "mirrored"),
    )
    logical_devices: int = knob(
        1, "split the CPU into this many devices (to try mirrored training without GPUs)", minimum=1, maximum=64
    )
    jit_compile: bool = knob(False, "compile losses and gradients with XLA")
    deterministic: bool = knob(
        True, "only deterministic kernels: the same seed and devices give the same bits; slower on GPUs"
    )
    log_every: int = knob(50, "between rows of TensorBoard scalars", minimum=1, unit="steps")
    evaluate_every: int = knob(
        1000, "between evaluations on the validation split, with image grids", minimum=1, unit="steps"
    )
    checkpoint_every: int = knob(500, "between checkpoints", minimum=1, unit="steps")
    keep_checkpoints: int = knob(3, "how many of the last are kept, besides the best", minimum=2, maximum=1000)
    validation_images: int = knob(1000, "images of a periodic evaluation; 0: the whole split", minimum=0, unit="images")
    grid_images: int = knob(64, "images in a grid of samples", minimum=1, maximum=1024, unit="images")
    eval_metrics: str = knob(
        "",
        "metrics of tfcq.evaluate that need samples, separated by commas, in each periodic evaluation against the "
        "validation split; empty: none",
    )
    eval_samples: int = knob(1000, "images generated for eval_metrics", minimum=2, unit="images")
    eval_features: str = knob(
        "efficientnet_lite0", "what eval_metrics compare, as --features of tfcq.evaluate; its weights must be at hand"
    )

    def check(self):
        if self.warmup_steps >= self.train_steps and self.warmup_steps:
            raise UserError(
                f"warmup_steps: expected fewer than train_steps={self.train_steps}, received {self.warmup_steps}"
            )
        if self.logical_devices > 1 and self.distribution == "none":
            raise UserError(
                f"logical_devices={self.logical_devices} with distribution=none: expected distribution=mirrored "
                "or auto, or one device"
            )
        known = (*DISTRIBUTIONS, *DISTRIBUTION_ALIASES)
        for name in self.eval_metrics.split(",") if self.eval_metrics else ():
            if name not in known:
                raise UserError(
                    f"eval_metrics: expected some of {', '.join(DISTRIBUTIONS)}, received {name!r}{suggestion(name, known)}"
                )


@dataclasses.dataclass(frozen=True)
class FlowKnobs(Section):
    """A RealNVP between features and pixels, of the systems that have one."""

    pixel_transform: str = knob(
        "logit",
        "from pixels in (0, 1) to the flow: logit of 0.05 + 0.9 x | affine, to (-1, 1)",
        choices=("logit", "affine"),
    )
    flow_scales: int = knob(1, "scales of the RealNVP between features and pixels; 0: no flow", minimum=0, maximum=6)
    flow_couplings: int = knob(3, "checkerboard couplings of a scale", minimum=1, maximum=64)
    flow_blocks: int = knob(2, "residual blocks of a coupling's conditioner", minimum=0, maximum=64)
    flow_width: int = knob(32, "channels of a conditioner in the first scale", minimum=1, maximum=4096)
    flow_width_factor: int = knob(2, "flow_width is multiplied by it at each further scale", choices=(1, 2))
    flow_normalization: str = knob(
        "actnorm", "between couplings: actnorm | batch (the paper's) | none", choices=("actnorm", "batch", "none")
    )
    flow_weight_normalization: bool = knob(True, "weight normalisation in the conditioners")
    flow_conditioner_batch_normalization: bool = knob(
        False, "batch normalisation inside the conditioners (the paper's)"
    )
    flow_output_kernel_size: int = knob(1, "side of the conditioners' last kernel", choices=(1, 3), unit="pixels")

    def check_image_size(self, image_size):
        """Raises UserError where the flow cannot halve `image_size` evenly."""
        if self.flow_scales > 1 and image_size % 2**self.flow_scales:
            raise UserError(
                f"image_size={image_size} with flow_scales={self.flow_scales}: expected a multiple of "
                f"{2**self.flow_scales}"
            )


@dataclasses.dataclass(frozen=True)
class AdversaryKnobs(Section):
    """A discriminator and the game with it, of the systems that have one."""

    coverage: bool = knob(True, "train by the likelihood (L_C, Eq. 6); false: by the discriminator alone")
    quality_weight: float = knob(
        100.0, "lambda, the weight of L_Q (Eq. 7), against an L_C in nats per image; 0: no discriminator", minimum=0.0
    )
    quality_ramp_steps: int = knob(0, "linear rise of lambda from 0", minimum=0, unit="steps")
    generator_loss: str = knob(
        "log_ratio",
        "L_Q of an image: log_ratio, -log(D / (1 - D)) (the paper's) | non_saturating, -log D | saturating, log(1 - D)",
        choices=("log_ratio", "non_saturating", "saturating"),
    )
    discriminator_network: str = knob(
        "plain", "plain convolutions (Table 1) | residual blocks (Table 6)", choices=("plain", "residual")
    )
    discriminator_width: int = knob(
        64, "channels at the finest resolution; doubled at each halving", minimum=1, maximum=4096
    )
    discriminator_blocks: int = knob(
        1, "residual blocks at each resolution (discriminator_network=residual)", minimum=1, maximum=16
    )
    discriminator_weight_normalization: bool = knob(False, "weight normalisation in the discriminator")
    data_dependent_initialization: bool = knob(
        True,
        "weight-normalised layers of encoder, decoder and discriminator start with outputs of mean 0 and variance 1 on "
        "the first batch",
    )
    discriminator_steps: int = knob(
        1, "discriminator updates a step, each on images of its own", minimum=1, maximum=100
    )
    gradient_penalty: float = knob(100.0, "weight of the discriminator's gradient penalty; 0: none", minimum=0.0)
    gradient_penalty_form: str = knob(
        "two_sided",
        "with the gradient's norm g: two_sided, (g - 1)^2, or one_sided, max(0, g - 1)^2, between real and generated "
        "images | real, g^2 / 2 at real images",
        choices=("two_sided", "one_sided", "real"),
    )
    dequantize_real: bool = knob(True, "add the dequantisation noise to the real images that the discriminator sees")

    def check(self):
        if not self.coverage and not self.quality_weight:
            raise UserError("coverage=false with quality_weight=0: nothing to train; expected one of the two losses")


def _num_halvings(image_size, section, name):
    """How many times `image_size` is halved to reach the knob `name` of `section`; UserError where it cannot be."""
    size = getattr(section, name)
    halvings = math.log2(image_size / size) if image_size > size else 0
    if halvings < 1 or halvings != int(halvings):
        raise UserError(f"image_size={image_size} with {name}={size}: expected image_size = {name} times 2, 4, 8, ...")
    return int(halvings)


@dataclasses.dataclass(frozen=True)
class CQFConfig(AdversaryKnobs, FlowKnobs):
    """Coverage and quality driven training (Shmelkov et al. 2018; Lucas et al. 2019, Adaptive Density Estimation).

    The rows of Table 1: gan: coverage=false, flow_scales=0; vae: quality_weight=0, flow_scales=0; cq: flow_scales=0;
    cqf: the defaults.
    """

    network: str = knob(
        "plain",
        "encoder and decoder: plain convolutions (Table 1) | residual blocks (Table 6)",
        choices=("plain", "residual"),
    )
    width: int = knob(
        64, "their channels at the finest resolution; doubled at each halving", minimum=1, maximum=4096
    )
    network_normalization: str = knob("none", "in encoder and decoder", choices=("none", "batch", "weight"))
    latent_channels: int = knob(32, "channels of a layer of latents", minimum=1, maximum=4096)
    latent_form: str = knob(
        "map",
        "the coarsest layer: map, [latent_size, latent_size, latent_channels] | vector, [latent_channels]",
        choices=("map", "vector"),
    )
    latent_size: int = knob(
        4, "side of the coarsest layer; image_size is halved until it is reached", minimum=1, maximum=256, unit="pixels"
    )
    latent_levels: int = knob(
        0,
        "resolutions that have latents, from the coarsest; 0: all (plain networks: all but the images' own)",
        minimum=0,
        maximum=10,
    )
    latent_blocks: int = knob(1, "layers of latents at each of these resolutions", minimum=1, maximum=64)
    free_bits: float = knob(
        0.0,
        "the KL of each layer and channel, summed over its pixels, counts at least this much in training",
        minimum=0.0,
        unit="nats",
    )
    posterior: str = knob(
        "gaussian",
        "of each layer: diagonal gaussian | iaf, one step of inverse autoregressive flow after it",
        choices=("gaussian", "iaf"),
    )
    iaf_width: int = knob(32, "channels inside an autoregressive network, and of its context", minimum=1, maximum=4096)
    iaf_layers: int = knob(2, "hidden layers of an autoregressive network", minimum=1, maximum=16)
    initial_sigma: float = knob(
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
        return _num_halvings(image_size, self, "latent_size")

    def check_image_size(self, image_size):
        """Raises UserError where the networks or the flow cannot halve `image_size` evenly."""
        most = self.num_halvings(image_size) + (self.network == "residual")
        if self.latent_levels > most:
            raise UserError(
                f"latent_levels={self.latent_levels}: expected at most {most}, the resolutions of a {self.network} "
                f"network from latent_size={self.latent_size} for image_size={image_size}"
            )
        super().check_image_size(image_size)


@dataclasses.dataclass(frozen=True)
class RealNVPConfig(AdversaryKnobs, FlowKnobs):
    """RealNVP by itself (Dinh et al. 2017): exact densities; with a discriminator, Flow-GAN (Grover et al. 2018).

    MLE: the defaults; hybrid: quality_weight above 0; adversarial alone: coverage=false.
    """

    quality_weight: float = knob(
        0.0,
        "lambda, the weight of the discriminator's loss against a likelihood in nats per image (Flow-GAN); 0: no "
        "discriminator",
        minimum=0.0,
    )
    flow_scales: int = knob(2, "scales of the flow", minimum=1, maximum=6)
    discriminator_size: int = knob(
        4, "side at which the discriminator stops halving images", minimum=1, maximum=256, unit="pixels"
    )

    def check_image_size(self, image_size):
        """Raises UserError where the flow or the discriminator cannot halve `image_size` evenly."""
        super().check_image_size(image_size)
        if self.quality_weight:
            _num_halvings(image_size, self, "discriminator_size")


SYSTEMS = {"cqf": CQFConfig, "realnvp": RealNVPConfig}
"""--model's values: a system's name and the dataclass of its knobs."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The whole configuration of a run.

    Args:
        model: which system, a key of `SYSTEMS`.
        data: the images.
        system: the knobs of that system, an instance of `SYSTEMS[model]`; None: its defaults.
        training: the optimisation.

    Raises:
        UserError: an unknown model, the wrong dataclass for it, or a combination across sections that cannot work.
    """

    model: str = "cqf"
    data: DataConfig = DataConfig()
    system: Section = None
    training: TrainingConfig = TrainingConfig()

    def __post_init__(self):
        if self.model not in list(SYSTEMS):  # a list: what JSON holds here need not be hashable
            raise UserError(
                f"model: expected one of {', '.join(SYSTEMS)}, received {self.model!r}{suggestion(self.model, SYSTEMS)}"
            )
        if self.system is None:
            object.__setattr__(self, "system", SYSTEMS[self.model]())
        for name, kind in {"data": DataConfig, "system": SYSTEMS[self.model], "training": TrainingConfig}.items():
            if not isinstance(getattr(self, name), kind):
                raise UserError(f"{name}: expected {kind.__name__}, received {type(getattr(self, name)).__name__}")
        self.system.check_image_size(self.data.image_size)

    def to_dict(self):
        """Nested plain dicts, as in `config.json`."""
        return dataclasses.asdict(self)

    def to_json(self):
        """Text that `from_json` reads back to an equal Config."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_dict(cls, values):
        """The Config of nested dicts; a knob left out has its default, an unknown one is a UserError."""
        if not isinstance(values, dict):
            raise UserError(f"config: expected a JSON object, received {type(values).__name__}")
        _refuse_unknown("config", values, [field.name for field in dataclasses.fields(cls)])
        model = values.get("model", "cqf")
        if model not in list(SYSTEMS):
            return cls(model=model)  # raises the one message about models
        kinds = {"data": DataConfig, "system": SYSTEMS[model], "training": TrainingConfig}
        return cls(model=model, **{name: _section(name, kind, values.get(name, {})) for name, kind in kinds.items()})

    @classmethod
    def from_json(cls, text):
        """Inverse of `to_json`; raises UserError where the text is no JSON or holds unknown knobs."""
        try:
            return cls.from_dict(json.loads(text))
        except json.JSONDecodeError as error:
            raise UserError(
                f"config: expected JSON, received something else at line {error.lineno}: {error.msg}"
            ) from error

    def differences(self, other):
        """Lines 'section.knob: mine -> theirs' for each knob in which two configs differ; [] where they are equal."""
        mine, theirs = _flat(self.to_dict()), _flat(other.to_dict())
        def shown(values, name):
            return repr(values[name]) if name in values else "absent"

        return [
            f"{name}: {shown(mine, name)} -> {shown(theirs, name)}"
            for name in sorted(mine.keys() | theirs.keys())
            if shown(mine, name) != shown(theirs, name)
        ]


def _section(name, kind, values):
    if not isinstance(values, dict):
        raise UserError(f"config.{name}: expected a JSON object, received {type(values).__name__}")
    _refuse_unknown(f"config.{name}", values, [field.name for field in dataclasses.fields(kind)])
    return kind(**values)


def _refuse_unknown(where, values, known):
    for name in values:
        if name not in known:
            raise UserError(f"{where}: unknown knob {name!r}{suggestion(name, known)}")


def _flat(values, prefix=""):
    rows = {}
    for name, value in values.items():
        rows |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return rows
