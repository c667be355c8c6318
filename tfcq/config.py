"""Every knob of the project, once: its default, meaning, unit and bounds.

Frozen dataclasses and plain Python: this module imports no TensorFlow, so that flags, `--help` and tools that only
read a workdir answer at once. `tfcq.flags` makes the command line from these fields; a workdir keeps them as
`config.json`. A new system adds one dataclass here and its line in `SYSTEMS`.

Example::

    config = Config(model="cqf", data=DataConfig(dataset="digits"), system=CQFConfig(flow_scales=1))
    Config.from_json(config.to_json()) == config
"""

import dataclasses
import difflib
import json
import math
import typing

from tfcq.errors import UserError


def knob(default, meaning, *, minimum=None, maximum=None, choices=None, unit=None):
    """A dataclass field that knows its meaning (a sentence for `--help`), bounds (inclusive), choices and unit."""
    metadata = {"meaning": meaning, "minimum": minimum, "maximum": maximum, "choices": choices, "unit": unit}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Section:
    """Base of the groups of knobs: checks types and bounds of every field when it is made.

    Raises:
        UserError: one line naming the field, the bound and the value received.
    """

    def __post_init__(self):
        types_of = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = checked(field, types_of[field.name], getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        self.check()

    def check(self):
        """Combinations inside this section that cannot work raise UserError here."""


def checked(field, kind, value):
    """`value` as `kind` (an int is taken where a float is meant), within the field's bounds, or UserError."""
    name = field.name
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError as error:
            raise UserError(f"{name}: expected a finite number, received one of {value.bit_length()} bits") from error
    if type(value) is not kind:
        raise UserError(f"{name}: expected {kind.__name__}, received {value!r}")
    bounds = field.metadata
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{name}: expected a finite number, received {value}")
    if bounds["choices"] is not None and value not in bounds["choices"]:
        raise UserError(
            f"{name}: expected one of {', '.join(map(str, bounds['choices']))}, received {value!r}"
            + suggestion(value, bounds["choices"])
        )
    if bounds["minimum"] is not None and value < bounds["minimum"]:
        raise UserError(f"{name}: expected at least {bounds['minimum']}, received {value}")
    if bounds["maximum"] is not None and value > bounds["maximum"]:
        raise UserError(f"{name}: expected at most {bounds['maximum']}, received {value}")
    return value


def suggestion(word, known):
    """' (did you mean ...?)' for the known word nearest to `word`, or ''."""
    near = difflib.get_close_matches(str(word), [str(one) for one in known], n=1)
    return f" (did you mean {near[0]}?)" if near else ""


LIKELIHOODS = ("elbo", "bits_per_dim")
"""Metrics of real images under the model: bound by one draw, importance-weighted estimate."""

DISTRIBUTIONS = (
    "frechet_distance",
    "classifier_score",
    "kernel_distance",
    "prd",
    "neighbours",
    "memorisation",
    "ms_ssim",
    "sliced_wasserstein",
)
"""Metrics of generated beside real images; `tfcq.evaluation.distributions` says what each is."""

DISTRIBUTION_ALIASES = ("fid", "inception_score", "kid")
"""What the first three that use features are called where those are the Inception graph's, and only there."""


def metric_names(metrics):
    """The list of metrics that a name, or a sequence of names, asks for; ["all"] where that is among them.

    Raises:
        UserError: an unknown name, or none.
    """
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    known = (*LIKELIHOODS, *DISTRIBUTIONS)
    for name in names or [""]:
        if name not in (*known, *DISTRIBUTION_ALIASES, "all"):
            raise UserError(
                f"metrics: expected all or some of {', '.join(known)}, received {name or 'none'!r}"
                + suggestion(name, (*known, *DISTRIBUTION_ALIASES))
            )
    return ["all"] if "all" in names else names


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
    num_validation: int = knob(
        0, "images held out of the training split for validation; 0: a tenth", minimum=0, unit="images"
    )

    def check(self):
        if not self.dataset:
            raise UserError("dataset: expected a name, received an empty string")


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
class EvaluationConfig(Section):
    """The protocol of an evaluation: what is compared with what, and how. Recorded with every number."""

    split: str = knob("test", "the real images: of which split", choices=("train", "validation", "test"))
    num_images: int = knob(
        0, "real images of the likelihoods, the first of the split; 0: all", minimum=0, unit="images"
    )
    num_importance_samples: int = knob(50, "K of bits_per_dim, draws of the latents an image", minimum=1)
    likelihood_dataset: str = knob(
        "",
        "another data set, named as in --dataset and prepared as the run's, whose likelihoods (same split) are set "
        "beside; empty: none",
    )
    features: str = knob(
        "efficientnet_lite0",
        "what images are compared by: inception | efficientnet_lite0 | keras:NAME | saved_model:DIR | pixels",
    )
    feature_weights: str = knob("", "file or folder with the weights of --features; empty: its usual place")
    num_samples: int = knob(
        10000, "generated images, and at most so many real ones of the split", minimum=2, unit="images"
    )
    num_train_images: int = knob(
        0,
        "training images in which memorisation looks for the nearest; at least num_samples are used where there are; "
        "0: num_samples",
        minimum=0,
        unit="images",
    )
    num_seeds: int = knob(1, "times that images are generated anew, with seed, seed + 1, ...", minimum=1, maximum=100)
    seed: int = knob(0, "of all noise and of the choices of random metrics", minimum=0, maximum=2**31 - 101)
    temperature: float = knob(1.0, "scales the prior's standard deviation", minimum=0.0)
    batch_size: int = knob(250, "images at a time; changes no number but by rounding", minimum=1, unit="images")
    checkpoint: str = knob("best", "which checkpoint", choices=("best", "last"))
    distribution: str = knob(
        "auto", "auto (mirrored where there are several devices) | none | mirrored", choices=("auto", "none", "mirrored")
    )
    logical_devices: int = knob(1, "split the CPU into this many devices", minimum=1, maximum=64)
    cache_dir: str = knob(
        "", "where features of real images are kept between evaluations; empty: ~/.cache/tfcq; none: nowhere"
    )


@dataclasses.dataclass(frozen=True)
class CQFConfig(Section):
    """Coverage and quality driven training (Shmelkov et al. 2018; Lucas et al. 2019, Adaptive Density Estimation).

    The rows of Table 1: gan: coverage=false, flow_scales=0; vae: quality_weight=0, flow_scales=0; cq: flow_scales=0;
    cqf: the defaults.
    """

    coverage: bool = knob(True, "train by the likelihood bound L_C (Eq. 6); false: by the discriminator alone (a GAN)")
    quality_weight: float = knob(
        100.0, "lambda, the weight of L_Q (Eq. 7), against an L_C in nats per image; 0: no discriminator", minimum=0.0
    )
    latent_channels: int = knob(32, "channels of the latent layer", minimum=1, maximum=4096)
    latent_form: str = knob(
        "map",
        "map: latents [latent_size, latent_size, latent_channels] | vector: [latent_channels]",
        choices=("map", "vector"),
    )
    latent_size: int = knob(
        4, "side of the coarsest layer; image_size is halved until it is reached", minimum=1, maximum=256, unit="pixels"
    )
    width: int = knob(64, "channels of the widest resolution; doubled at each halving", minimum=1, maximum=4096)
    network_normalization: str = knob("none", "in encoder and decoder", choices=("none", "batch"))
    discriminator_width: int = knob(64, "as width, in the discriminator", minimum=1, maximum=4096)
    discriminator_steps: int = knob(
        1, "discriminator updates a step, each on images of its own", minimum=1, maximum=100
    )
    gradient_penalty: float = knob(
        100.0, "weight of the discriminator's gradient penalty, two-sided at norm 1; 0: none", minimum=0.0
    )
    dequantize_real: bool = knob(True, "add the dequantisation noise to the real images that the discriminator sees")
    initial_sigma: float = knob(
        1.0, "first value of the decoder's learned scale, in feature space", minimum=1e-4, maximum=1e4
    )
    pixel_transform: str = knob(
        "logit",
        "from pixels in (0, 1) to the flow: logit of 0.05 + 0.9 x | affine, to (-1, 1)",
        choices=("logit", "affine"),
    )
    flow_scales: int = knob(1, "scales of the RealNVP between features and pixels; 0: no flow", minimum=0, maximum=6)
    flow_couplings: int = knob(3, "checkerboard couplings of a scale", minimum=1, maximum=64)
    flow_blocks: int = knob(2, "residual blocks of a coupling's conditioner", minimum=0, maximum=64)
    flow_width: int = knob(32, "channels of a conditioner; doubled at each scale", minimum=1, maximum=4096)
    flow_normalization: str = knob(
        "actnorm", "between couplings: actnorm | batch (the paper's) | none", choices=("actnorm", "batch", "none")
    )
    flow_weight_normalization: bool = knob(True, "weight normalisation in the conditioners")
    flow_conditioner_batch_normalization: bool = knob(
        False, "batch normalisation inside the conditioners (the paper's)"
    )
    flow_output_kernel_size: int = knob(1, "side of the conditioners' last kernel", choices=(1, 3), unit="pixels")

    def check(self):
        if not self.coverage and not self.quality_weight:
            raise UserError("coverage=false with quality_weight=0: nothing to train; expected one of the two losses")
        if not self.coverage and self.flow_scales:
            raise UserError(
                f"coverage=false with flow_scales={self.flow_scales}: the flow is trained by the likelihood only; "
                "expected flow_scales=0"
            )

    def check_image_size(self, image_size):
        """Raises UserError where the networks or the flow cannot halve `image_size` evenly."""
        halvings = math.log2(image_size / self.latent_size) if image_size > self.latent_size else 0
        if halvings < 1 or halvings != int(halvings):
            raise UserError(
                f"image_size={image_size} with latent_size={self.latent_size}: expected image_size = latent_size "
                "times 2, 4, 8, ..."
            )
        if self.flow_scales > 1 and image_size % 2**self.flow_scales:
            raise UserError(
                f"image_size={image_size} with flow_scales={self.flow_scales}: expected a multiple of "
                f"{2**self.flow_scales}"
            )


SYSTEMS = {"cqf": CQFConfig}
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
