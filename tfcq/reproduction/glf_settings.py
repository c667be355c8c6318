"""The settings of every cell of Table 1 of Xiao, Yan, Amit, "Generative latent flow", 2019: nine methods on four data sets.

This is the one place of these settings: `tfcq.reproduction.glf_tables` makes the tables of `tfcq.reproduce` of it, and
`tools/flagfiles.py` the flagfiles of `configs/`, whose text is `Experiment.flagfile`.

Lengths, batches, drops and sizes are those of Appendix B and Section 4. `Experiment.notes` say what is not: numbers of the code
of the authors cited, or ours where none was verified against the published paper. WAE-GAN's rates and lambdas, and the FID of
all rows but GLF's, are as reported elsewhere, unverified.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

MADE_BY = "Written by tools/flagfiles.py; the settings are in tfcq/reproduction/glf_settings.py."

MEASURED = frozenset({"fashion_mnist_glf", "fashion_mnist_rae_gmm"})
"""Names of the experiments whose result is in configs/README.md."""


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A column of the table.

    Attributes:
        title: its name in texts.
        dataset: --dataset.
        options: {option: value} of the data besides.
        comment: where the images come from.
        train_images: number of images that train.
        latent_dim: number of latents (Section 4).
        flow_units: units of the flow's networks (Section 4).
        data_dir: whether the command needs --data_dir.
    """

    title: str
    dataset: str
    options: dict[str, Any]
    comment: str
    train_images: int
    latent_dim: int
    flow_units: int
    data_dir: bool = True


_VALIDATED = {"num_validation": 1000}
_TFDS = "`tfds build {} --data_dir=DIR` (offline: configs/README.md){}"

DATA_SETS = {
    "mnist": DataSet(
        "MNIST", "mnist", {"image_size": 28} | _VALIDATED,
        _TFDS.format("mnist", ", or --dataset=idx:DIR with the four idx files."), 59000, 20, 64,
    ),
    "fashion_mnist": DataSet(
        "Fashion-MNIST", "idx:/usr/share/datasets/fashion-mnist", {"image_size": 28} | _VALIDATED,
        "Debian's package dataset-fashion-mnist, or any folder with the four idx files.", 59000, 20, 64, data_dir=False,
    ),
    "cifar10": DataSet(
        "CIFAR-10", "cifar10", {"image_size": 32} | _VALIDATED, _TFDS.format("cifar10", "."), 49000, 64, 256
    ),
    "celeba": DataSet(
        "CelebA", "celeb_a", {"image_size": 64, "center_crop": 160},
        _TFDS.format("celeb_a", "; square crop of 160, then 64x64."), 162770, 64, 256,
    ),
    # A tenth of its 30,000 images test.
    "celeba_hq_256": DataSet(
        "CelebA-HQ at 256x256", "celeb_a_hq/256", {"image_size": 256} | _VALIDATED,
        "`tfds build celeb_a_hq/256 --data_dir=DIR --manual_dir=TARS` (its files must be made by hand).", 26000, 64, 256,
    ),
}  # fmt: skip
"""{name in flagfiles: data set}; the first four are the table's columns."""

NAMES = {
    "vae": "VAE",
    "wae_gan": "WAE-GAN",
    "wae_mmd": "WAE-MMD",
    "two_stage_vae": "Two-stage VAE",
    "rae_gmm": "RAE + GMM",
    "vae_flow_prior": "VAE with a flow prior",
    "vae_flow_posterior": "VAE with a flow posterior",
    "glann": "GLANN",
    "glf": "GLF",
    "glf_perceptual": "GLF with the perceptual loss",
}
"""{method: its name in texts}."""

COLUMNS = ("mnist", "fashion_mnist", "cifar10", "celeba")


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage of training.

    Attributes:
        epochs: its length.
        drops: (epoch, factor) each: after so many epochs the learning rates are multiplied by the factor.
    """

    epochs: int
    drops: tuple[tuple[int, float], ...] = ()

    def text(self) -> str:
        """The drops for --learning_rate_drops."""
        return ",".join(f"{epoch / self.epochs:.6g}:{factor:g}" for epoch, factor in self.drops)


def halved(epochs: int, every: int = 0) -> Stage:
    """A stage whose learning rates are halved after each `every` epochs; 0: never."""
    return Stage(epochs, tuple((epoch, 0.5) for epoch in range(every, epochs, every)) if every else ())


# {method: {data set: stages}}: Appendix B.1 to B.5, and of GLANN its authors' code (500 and 50 epochs, as in Table 2).
_GLF = {"mnist": halved(100, 50), "cifar10": halved(200, 50), "celeba": halved(40)}
_VAE = {"mnist": halved(200, 100), "cifar10": halved(400, 100), "celeba": halved(80, 40)}
_WAE = {
    "mnist": Stage(100, ((30, 0.5), (50, 0.2))),
    "cifar10": Stage(200, ((60, 0.5), (120, 0.2))),
    "celeba": Stage(55, ((30, 0.5), (50, 0.2))),
}
_TWO_STAGES = {
    "mnist": (halved(400, 150), halved(800, 300)),
    "cifar10": (halved(1000, 300), halved(2000, 600)),
    "celeba": (halved(120, 48), halved(300, 120)),
}
_GLANN = (halved(500, 50), halved(50))

ADAM = {"batch_size": 256, "optimizer": "adam", "learning_rate": 1e-3}
"""The options of training that most cells have."""

# Tolstikhin et al. 2018; the digits are as reported, unverified.
_WAE_OPTIONS = {
    "mnist": {"learning_rate": 1e-3, "discriminator_learning_rate": 5e-4, "divergence_weight": 10.0},
    "cifar10": {"learning_rate": 1e-3, "discriminator_learning_rate": 5e-4, "divergence_weight": 10.0},
    "celeba": {
        "learning_rate": 3e-4, "discriminator_learning_rate": 1e-3, "divergence_weight": 1.0, "prior_sigma": math.sqrt(2.0),
        "reconstruction_weight": 0.2,  # 0.05 of squares of pixels from -1 to 1, which are 4 times as large
    },
}  # fmt: skip

FID = {
    "vae": (28.2, 57.5, 142.5, 71.0),
    "wae_gan": (12.4, 31.5, 93.1, 66.5),
    "two_stage_vae": (10.9, 26.1, 96.1, 65.2),
    "rae_gmm": (10.8, 25.1, 91.6, 57.8),
    "vae_flow_prior": (28.3, 51.8, 110.4, 54.3),
    "vae_flow_posterior": (26.7, 55.1, 143.6, 67.9),
    "glann": (8.6, 13.0, 46.5, 46.3),
    "glf": (8.2, 21.3, 88.3, 53.2),
    "glf_perceptual": (5.8, 10.3, 44.6, 41.8),
}
"""{method: the table's numbers}, by `COLUMNS`."""

IN_THE_TEXT = ("glf", "glf_perceptual")
"""The rows whose numbers are the paper's; those of the others are as reported elsewhere, not verified against it."""

_WITH_FLOWS = ("glf", "glf_perceptual", "vae_flow_prior", "vae_flow_posterior")
_VGG = "VGG16: --perceptual_weights=FILE, or Keras's own download."


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A method on a data set.

    Attributes:
        name: of its flagfile and preset.
        method: a row of the table, or "wae_mmd".
        data: name of the data set.
        options: {option: value} of system and training, without the length.
        stages: the stages whose lengths the paper gives; the last one ends the training.
        extra_steps: steps before them (WAE's pre-training).
        notes: sentences on what is not the paper's.
        where: in the paper.
    """

    name: str
    method: str
    data: str
    options: dict[str, Any]
    stages: tuple[Stage, ...]
    extra_steps: int = 0
    notes: tuple[str, ...] = ()
    where: str = "Table 1"

    @property
    def model(self) -> str:
        """--model."""
        return "glf" if self.method == "glf_perceptual" else self.method

    @property
    def steps_per_epoch(self) -> int:
        """The steps of an epoch, in whole batches."""
        return DATA_SETS[self.data].train_images // self.options["batch_size"]

    @property
    def first_stage_fraction(self) -> float:
        """The first stage's fraction of the epochs; 0: there is one stage."""
        return self.stages[0].epochs / sum(stage.epochs for stage in self.stages) if len(self.stages) > 1 else 0.0

    def drops(self) -> dict[str, str]:
        """--learning_rate_drops, if there are any."""
        lists = [stage.text() for stage in self.stages]
        text = lists[0] if len(set(lists)) == 1 else "/".join(lists)
        return {"learning_rate_drops": f"/{text}" if self.extra_steps else text} if any(lists) else {}

    def length(self) -> dict[str, int]:
        """The options of the run's length, at which step it is evaluated, and saved."""
        steps = [self.extra_steps + self.steps_per_epoch * self.stages[0].epochs]
        steps += [self.steps_per_epoch * stage.epochs for stage in self.stages[1:]]
        first = {"first_stage_steps": steps[0]} if len(steps) > 1 else {}
        parts = 10 if self.method == "rae_gmm" else 20
        every = max(100, sum(steps) // parts // 100 * 100)
        saved = every if self.method == "rae_gmm" else 1000
        return first | {"train_steps": sum(steps), "evaluate_every": every, "checkpoint_every": saved}

    def flags(self) -> dict[str, Any]:
        """{flag of tfcq.train: value} of the whole experiment."""
        data = DATA_SETS[self.data]
        system = {"model": self.model, "dataset": data.dataset} | data.options
        return system | self.options | self.drops() | self.length()

    def flagfile(self) -> str:
        """The text of its flagfile."""
        data = DATA_SETS[self.data]
        result = "; the result is in configs/README.md." if self.name in MEASURED else ". UNMEASURED."
        images = "1000 of the training images validate; an" if "num_validation" in data.options else "An"
        epochs = ", then ".join(str(stage.epochs) for stage in self.stages)
        after = " after the pre-training" if self.extra_steps else ""
        source = ("Hoshen et al. 2019, cited by " if self.method == "glann" else "") + f"Xiao et al. 2019, {self.where}"
        comments = [
            f"{NAMES[self.method]} ({source}) on {data.title}; {self._figure()}{result}",
            f"python -m tfcq.train --flagfile=configs/{self.name}.cfg{' --data_dir=DIR' if data.data_dir else ''}",
            f"The data: {data.comment}",
            f"{images} epoch is {self.steps_per_epoch} steps. {epochs} epochs{after}.",
            *self.notes,
            MADE_BY,
        ]
        flags = [f"--{name}={value}" for name, value in self.flags().items()]
        return "\n".join([*(f"# {line}" for line in comments), *flags]) + "\n"

    def paper_fid(self) -> float | None:
        """The table's number of this cell; None if it has none."""
        if self.data not in COLUMNS or self.method not in FID:
            return None
        return FID[self.method][COLUMNS.index(self.data)]

    def _figure(self):
        if self.paper_fid() is None:
            return "the paper gives no FID"
        return f"{'the paper' if self.method in IN_THE_TEXT else 'reported, unverified'}: FID {self.paper_fid()}"


def name_of(method: str, data: str) -> str:
    """The name of a cell's flagfile; NAME_vae would be a row of Table 1 of Shmelkov et al. (2018)."""
    return f"{data}_{'glf_vae' if method == 'vae' else method}"


def experiment(method: str, data: str) -> Experiment:
    """The experiment of a method on a data set of the table."""
    settings, like = DATA_SETS[data], "mnist" if data == "fashion_mnist" else data
    options: dict[str, Any] = {"latent_dim": settings.latent_dim}
    if method in _WITH_FLOWS:
        options["latent_flow_units"] = settings.flow_units
    options |= ADAM
    notes: tuple[str, ...] = ()
    extra = 0
    stages: tuple[Stage, ...]
    if method in ("wae_gan", "wae_mmd"):
        options |= {"batch_size": 100, "beta_1": 0.5} | _WAE_OPTIONS[like]
        if method == "wae_mmd":
            options.pop("discriminator_learning_rate")
            notes = ("As WAE-GAN; the paper found WAE-GAN better and reports that alone.",)
        stages, extra = (_WAE[like],), 200
        notes += ("Rates, lambda and sigma are as reported (Tolstikhin et al. 2018), unverified.",)
        if like == "cifar10":
            notes = ("Rates, lambda and sigma are those of MNIST; lambda and sigma are ours for CIFAR-10.",)
    elif method == "two_stage_vae":
        options |= {"batch_size": 100, "learning_rate": 1e-4, "sigma_rate": 1.0}
        stages = _TWO_STAGES[like]
        notes = ("sigma_rate is that of the code of Dai and Wipf (2019); the default, 10, is ours, for shorter runs.",)
    elif method == "glann":
        options |= {"latent_dim": 64, "batch_size": 128, "beta_1": 0.5, "reconstruction": "perceptual"}
        options["imle_batch_normalization"] = True
        stages = _GLANN
        notes = (
            "GLO, then IMLE, as in the code of Hoshen et al. (2019), whose FID the paper cites, but for two things: the",
            "generator is that of Xiao et al., and the network from noise to codes has no weight decay.",
            _VGG,
        )
    elif method.startswith("vae"):
        stages = (_VAE[like],)
        notes = ("Twice the epochs of GLF, as in the paper. decoder_sigma, the default, beta = 1, is ours.",)
        if like == "celeba":
            notes += ("The rate drops once, as in the paper; epoch (40) and factor are ours.",)
        else:
            notes += ("The rate drops at twice the epochs of GLF's drops, which is ours.",)
        if method in _WITH_FLOWS:
            notes += ("The rate, and the flow's width and weight decay, are those of the code of Xiao et al.",)
    else:
        stages = (_GLF[like],)
        if method == "rae_gmm":
            notes = (
                "The paper searched for latent_penalty; the default is ours. The rate and its course are GLF's.",
                "The mixture is fitted at each evaluation and each checkpoint; hence both at the same, few steps.",
            )
        else:
            notes = ("The rate and its course, and the flow's width and weight decay, are those of the authors' code.",)
        if method == "glf_perceptual":
            options["reconstruction"], notes = "perceptual", (*notes, _VGG)
    where = "Table 1" if method in FID else "Appendix B.3"
    return Experiment(name_of(method, data), method, data, options, stages, extra, notes, where)


def _of_celeba_hq(method):
    """GLF with the DCGAN auto-encoder, of which the paper shows samples."""
    networks = {"autoencoder_network": "dcgan", "latent_dim": 64, "latent_flow_units": 256, "autoencoder_width": 32}
    # At 1e-3, without a warm-up, the layer from 16,384 values to the latents moved these by several units in the second step: the
    # flow's loss came to 1e13 nats, and Adam's second moments did not forget it.
    options = networks | ADAM | {"batch_size": 64, "learning_rate": 2e-4, "warmup_steps": 1000}
    notes: tuple[str, ...] = (
        "The batch of 64 and a DCGAN auto-encoder are the paper's; its width, the latents, the rate (DCGAN's), the warm-up, the",
        "epochs and the drop are ours. The flow is CelebA's of Table 1. A tenth of the 30,000 images test.",
    )
    if method == "glf_perceptual":
        options["reconstruction"], notes = "perceptual", (*notes, _VGG)
    where = {"glf": "Figure 2e", "glf_perceptual": "Figure 6"}[method]
    return Experiment(name_of(method, "celeba_hq_256"), method, "celeba_hq_256", options, (halved(100, 50),), 0, notes, where)


EXPERIMENTS = {
    one.name: one
    for one in (
        *(experiment(method, data) for data in COLUMNS for method in FID),
        experiment("wae_mmd", "fashion_mnist"),
        *(_of_celeba_hq(method) for method in IN_THE_TEXT),
    )
}
"""{name: experiment}: the 36 cells, WAE-MMD, and CelebA-HQ."""
