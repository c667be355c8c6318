"""The optimisation of a run: its length, optimizer and devices, and what is saved and measured during it."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from tfcq.config.evaluation import check_metrics
from tfcq.config.fields import Section, option
from tfcq.errors import UserError
from tfcq.metrics.registry import INCEPTION_NAMES, LATENT_LIKELIHOODS, OF_SAMPLES, better, metric_of, numbers_of

if TYPE_CHECKING:
    from tfcq.config.data import DataConfig

DECIDED_ELSEWHERE = {
    "learning_rate": "the options learning_rate and discriminator_learning_rate decide it",
    "beta_1": "the option beta_1 decides it",
    "beta_2": "the option beta_2 decides it",
    **dict.fromkeys(("clipnorm", "clipvalue", "global_clipnorm"), "the option clip_norm decides what is clipped"),
    **dict.fromkeys(("use_ema", "ema_momentum", "ema_overwrite_frequency"), "the option ema_decay keeps a running mean"),
    "gradient_accumulation_steps": "the option micro_batches sums gradients",
    "loss_scale_factor": "the option precision decides whether losses are scaled",
    "name": "optimizers are named after their players",
}
"""Arguments of Keras's optimizers that cannot be given, and which option decides them instead."""

LOGGERS = ("tensorboard", "csv", "wandb")
"""What `loggers` may name (`tfcq.training.loggers`)."""


BEST_METRICS = (
    "elbo",
    *(number for name in (*LATENT_LIKELIHOODS, *OF_SAMPLES) for number in numbers_of(name) if better(number)),
    *INCEPTION_NAMES,
)
"""The values of --best_metric: what evaluations during training measure, where lower or higher is better."""


@dataclasses.dataclass(frozen=True, repr=False)
class TrainingConfig(Section):
    """How a model is trained; the same for every system."""

    train_steps: int = option(
        20000,
        "the total number of training steps; a step takes each player's turns once. A run, even a finished one, can go on to "
        "a larger number; schedules and drops of the learning rate then follow the new length",
        minimum=1, unit="steps", on_resume="extends",
    )
    batch_size: int = option(64, "the images of one update, over all replicas", minimum=1, maximum=65536, unit="images")
    micro_batches: int = option(
        1,
        "the number of parts in which a replica's batch goes through the losses, one after the other: memory is that of a "
        "part, and batch normalisation sees one part at a time",
        minimum=1, maximum=4096,
    )
    seed: int = option(0, "the seed of the weights, of the order of the data and of all noise", minimum=0, maximum=2**31 - 1)
    init_from: str = option(
        "",
        "the folder of another run of the same networks, whose weights this run begins with: those that are evaluated and "
        "exported, of its best checkpoint (of its last, where it keeps no best). Nothing is initialised with data, and there is "
        "no pre-training (pretraining_steps); optimizers, step and history are new. A run that goes on does not read the folder "
        "again; empty: the first weights are random",
        paths=("",),
    )
    optimizer: str = option(
        "adamax",
        "the rule that updates the weights, a class of keras.optimizers: adamax | adam | adamw | sgd | rmsprop | lion | ...",
    )
    optimizer_arguments: str = option(
        "",
        "the further arguments of the optimizer, NAME=VALUE,... such as momentum=0.9,nesterov=true for sgd; not those that "
        "other options decide; empty: Keras's defaults",
    )
    learning_rate: float = option(2e-3, "the learning rate of every player but the discriminator", minimum=0.0, maximum=1.0)
    discriminator_learning_rate: float = option(2e-3, "the learning rate of the discriminator", minimum=0.0, maximum=1.0)
    learning_rate_schedule: str = option(
        "constant",
        "how the learning rates fall: constant | linear or cosine, to 0 over train_steps | exponential, times "
        "learning_rate_decay each step",
        choices=("constant", "linear", "cosine", "exponential"),
    )
    learning_rate_decay: float = option(
        0.999999,
        "the factor of the learning rates at each step, with learning_rate_schedule=exponential",
        minimum=0.5, maximum=1.0,
    )
    learning_rate_floor: float = option(
        0.0, "the lower bound of learning rates under schedules and drops", minimum=0.0, maximum=1.0
    )
    learning_rate_drops: str = option(
        "",
        "where the learning rates drop, FRACTION:FACTOR,...: 0.5:0.5,0.9:0.1 halves them after half of the steps (of the "
        "stage of training, if there are several) and divides them by 10 after nine tenths; slashes separate the lists of "
        "the stages (/0.5:0.5: in the second stage only); empty: nowhere",
    )
    warmup_steps: int = option(0, "the steps in which the learning rates rise linearly from 0", minimum=0, unit="steps")
    beta_1: float = option(
        0.9, "the decay of the first moment, for optimizers that have one", minimum=0.0, maximum=0.999999
    )
    beta_2: float = option(
        0.999,
        "the decay of the second moment (Adamax: of the infinity norm), for optimizers that have one",
        minimum=0.0, maximum=0.999999,
    )
    ema_decay: float = option(
        0.0,
        "the decay of a running mean of the weights, lower in the first steps; the mean is evaluated and exported instead of "
        "the weights; 0: no mean",
        minimum=0.0, maximum=0.999999,
    )
    clip_norm: float = option(
        0.0, "the largest norm of each player's gradient, to which a larger one is scaled down; 0: no limit", minimum=0.0
    )
    precision: str = option(
        "float32",
        "the arithmetic of the networks; densities stay float32",
        choices=("float32", "mixed_bfloat16", "mixed_float16"),
    )
    distribution: str = option(
        "auto",
        "how devices are used: auto (all of the workers that the environment names, else mirrored if there are several) | none | "
        "mirrored (this machine's alone)",
        choices=("auto", "none", "mirrored"), on_resume="layout",
    )
    logical_devices: int = option(
        1,
        "the number of devices that the CPU is split into (to try mirrored training without GPUs)",
        minimum=1, maximum=64, on_resume="layout",
    )
    jit_compile: bool = option(False, "compiles losses and gradients with XLA")
    deterministic: bool = option(
        True, "uses deterministic kernels only: the same seed and devices give the same bits; slower on GPUs"
    )
    log_every: int = option(50, "the steps between two rows of scalars", minimum=1, unit="steps", on_resume="free")
    loggers: str = option(
        "tensorboard",
        "where scalars of training and validation are written, separated by commas: tensorboard (with the image grids; curves of "
        "reports are of it), csv (tables in WORKDIR/csv), wandb (Weights & Biases); empty: nowhere",
        on_resume="free",
    )
    evaluate_every: int = option(
        1000,
        "the steps between two evaluations on the validation split, with image grids",
        minimum=1, unit="steps", on_resume="free",
    )
    checkpoint_every: int = option(500, "the steps between two checkpoints", minimum=1, unit="steps", on_resume="free")
    keep_checkpoints: int = option(
        3, "how many of the latest checkpoints are kept, besides the best", minimum=2, maximum=1000, on_resume="free"
    )
    # Fixed: the best checkpoint is chosen by them, unless best_metric is another.
    validation_images: int = option(
        1000, "how many validation images a periodic evaluation uses; 0: all", minimum=0, unit="images"
    )
    grid_images: int = option(
        64, "how many images a grid of samples shows", minimum=1, maximum=1024, unit="images", on_resume="free"
    )
    keep_grids: int = option(
        50,
        "how many evaluations of a run write grids of images, evenly spread over it, the first and the last among them",
        minimum=2, maximum=100000, on_resume="free",
    )
    eval_metrics: str = option(
        "",
        "the metrics of tfcq.evaluate that each periodic evaluation measures on samples, against the images of eval_split, "
        "separated by commas (frechet_distance,prd); empty: none",
        on_resume="free",
    )
    eval_split: str = option(
        "validation",
        "the split that eval_metrics compare samples with: validation | test | train; likelihoods are always those of the "
        "validation split",
        choices=("validation", "test", "train"), on_resume="free",
    )
    eval_samples: int = option(
        1000,
        "how many images are generated for eval_metrics, and with how many real ones they are compared at most",
        minimum=2, unit="images", on_resume="free",
    )
    eval_features: str = option(
        "efficientnet_lite0",
        "the features by which eval_metrics compare images, as --features of tfcq.evaluate; their weights must be available",
        on_resume="free", paths=("saved_model:",),
    )

    best_metric: str = option(
        "elbo",
        "the number of the periodic evaluations by which checkpoints/best is chosen: elbo, the validation bits/dim (a model "
        "without a likelihood of images then keeps no best) | a number of latents or of samples, which is measured each time as "
        "eval_metrics are; for adversarial models frechet_distance",
        choices=BEST_METRICS, on_resume="free",
    )
    early_stopping: int = option(
        0,
        "how many evaluations in a row without an improvement of best_metric's number end the training early; the run goes on "
        "with a larger number, or with 0; 0: it ends at train_steps",
        minimum=0, unit="evaluations", on_resume="free",
    )

    def check(self) -> None:
        """Raises UserError for combinations of options that cannot work, and for unknown metrics or loggers."""
        self.names_of_loggers()
        if self.batch_size % self.micro_batches:
            raise UserError(
                f"micro_batches={self.micro_batches}: expected a divisor of batch_size={self.batch_size} (with several "
                "replicas, of each replica's part)"
            )
        if not self.optimizer.isidentifier():
            raise UserError(
                f"optimizer: expected the name of a class of keras.optimizers, such as adam, received {self.optimizer!r}"
            )
        self.arguments_of_optimizer()
        drops = self.drops()
        if self.learning_rate_floor > self.learning_rate:
            raise UserError(
                f"learning_rate_floor={self.learning_rate_floor}: expected at most learning_rate={self.learning_rate}"
            )
        if self.learning_rate_floor and self.learning_rate_schedule == "constant" and not any(drops):
            raise UserError(
                "learning_rate_floor with learning_rate_schedule=constant: the rate never falls; expected a schedule or drops"
            )
        default = type(self).__dataclass_fields__["learning_rate_decay"].default
        if self.learning_rate_decay != default and self.learning_rate_schedule != "exponential":
            raise UserError(
                f"learning_rate_decay with learning_rate_schedule={self.learning_rate_schedule}: expected exponential"
            )
        if self.warmup_steps >= self.train_steps and self.warmup_steps:
            raise UserError(
                f"warmup_steps: expected fewer than train_steps={self.train_steps}, received {self.warmup_steps}"
            )
        if self.logical_devices > 1 and self.distribution == "none":
            raise UserError(
                f"logical_devices={self.logical_devices} with distribution=none: expected distribution=mirrored "
                "or auto, or one device"
            )
        check_metrics("eval_metrics", self.eval_metrics.split(",") if self.eval_metrics else (), OF_SAMPLES)
        if self.eval_split == "test" and self._best_is_of_samples():
            raise UserError(
                f"best_metric={self.best_metric} with eval_split=test: the best checkpoint would be chosen by the test images; "
                "expected eval_split=validation or train, or best_metric=elbo"
            )

    def check_run(self, data: DataConfig, training: TrainingConfig) -> None:
        """Raises UserError for numbers of the validation split if the run has none."""
        if data.num_validation != "none":
            return
        if self.early_stopping and self.best_metric == "elbo":
            raise UserError(
                f"early_stopping={self.early_stopping} with num_validation=none: elbo is measured on validation images; expected "
                "a best_metric of samples with eval_split=train, or early_stopping=0"
            )
        if self.best_metric != "elbo" and not self._best_is_of_samples():
            raise UserError(
                f"best_metric={self.best_metric} with num_validation=none: it is measured on validation images; expected a "
                "metric of samples with eval_split=train, or best_metric=elbo, by which no checkpoint is the best then"
            )
        if self.eval_split == "validation" and (self.eval_metrics or self._best_is_of_samples()):
            asked = f"eval_metrics={self.eval_metrics}" if self.eval_metrics else f"best_metric={self.best_metric}"
            raise UserError(
                f"{asked} with num_validation=none: there are no validation images; expected eval_split=train"
                + ("" if self._best_is_of_samples() else " or test")
            )

    def _best_is_of_samples(self):
        return metric_of(self.best_metric) in OF_SAMPLES

    def names_of_loggers(self) -> list[str]:
        """loggers as a list of `LOGGERS`; UserError for a name that is not there, or is there twice."""
        names = [name.strip() for name in self.loggers.split(",")] if self.loggers else []
        for name in names:
            if name not in LOGGERS or names.count(name) > 1:
                raise UserError(f"loggers: expected some of {', '.join(LOGGERS)}, each once, received {self.loggers!r}")
        return names

    def arguments_of_optimizer(self) -> dict[str, bool | int | float | str]:
        """optimizer_arguments as {name: value}; whether the optimizer accepts them is checked by `tfcq.engine.optimizers`.

        Raises:
            UserError: a part that is not NAME=VALUE, a repeated name, a name that another option decides, or a number that is
                not finite.
        """
        found: dict[str, bool | int | float | str] = {}
        for part in self.optimizer_arguments.split(",") if self.optimizer_arguments else ():
            name, equals, text = (piece.strip() for piece in part.partition("="))
            if not (name.isidentifier() and equals and text):
                raise UserError(
                    f"optimizer_arguments: expected NAME=VALUE,... such as momentum=0.9,nesterov=true, received {part!r}"
                )
            if name in DECIDED_ELSEWHERE:
                raise UserError(f"optimizer_arguments: {name} cannot be given here; {DECIDED_ELSEWHERE[name]}")
            if name in found:
                raise UserError(f"optimizer_arguments: expected each name once, received {name} twice")
            value = found[name] = _value(text)
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"optimizer_arguments: {name}: expected a finite number, received {text}")
        return found

    def drops(self) -> list[list[tuple[float, float]]]:
        """learning_rate_drops as lists of (fraction, factor): one list for all stages, or one per stage.

        Raises:
            UserError: the option does not have this form.
        """
        try:
            stages = [
                [_drop(part) for part in stage.split(",") if part] for stage in self.learning_rate_drops.split("/")
            ]
            if all(0.0 < fraction < 1.0 and 0.0 < factor <= 1.0 for pairs in stages for fraction, factor in pairs):
                return stages
        except ValueError:
            pass
        raise UserError(
            "learning_rate_drops: expected FRACTION:FACTOR,... with fractions between 0 and 1 and factors above 0 up to 1, "
            f"received {self.learning_rate_drops!r}"
        )


def _drop(text):
    """(fraction, factor) of FRACTION:FACTOR; ValueError for another text."""
    fraction, factor = map(float, text.split(":"))
    return fraction, factor


def _value(text):
    """A bool, int or float if the text is one, else the text itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
