"""The flagfiles of `configs/`: each parses, names its own command, and says where its result is or UNMEASURED."""

import dataclasses
import itertools
import pathlib
import re

import pytest
from commands import config_from, flags_of

from tfcq import models
from tfcq.config import Config, CQFConfig, DataConfig, RealNVPConfig, TrainingConfig
from tfcq.config.evaluation import EvaluationConfig, metric_names

FOLDER = pathlib.Path(__file__).parents[2] / "configs"
PROTOCOLS = {path.stem: path for path in sorted((FOLDER / "evaluation").glob("*.cfg"))}
FLAGFILES = {path.stem: path for path in sorted(FOLDER.glob("*.cfg"))}
README = (FOLDER / "README.md").read_text(encoding="utf-8")

# Flagfiles that tools run, and whose results are elsewhere or none: the tool that their comment names.
OF_TOOLS = {"quickstart": "tools/quickstart", "benchmark_cqf": "tfcq.benchmark", "benchmark_realnvp": "tfcq.benchmark"}


def table(heading):
    """The first table below a heading of configs/README.md: a list of {column: cell} as strings."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    below = itertools.dropwhile(lambda line: not line.startswith("|"), section.splitlines())
    lines = list(itertools.takewhile(lambda line: line.startswith("|"), below))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


ROWS = {row["flagfile"].strip("`").removesuffix(".cfg"): row for row in table("Data sets of the papers")}
BEST = [name for name in ROWS if name.endswith("_cqf")]

# What Shmelkov et al. (2018) say of the settings of their best model, and where they say it.
PAPER = {
    # Appendix A: the optimizer "for all experiments", with one learning rate for both players
    "optimizer": "adamax", "learning_rate": 0.002, "discriminator_learning_rate": 0.002, "beta_1": 0.9, "beta_2": 0.999,
    # Appendix A: the adversarial training
    "quality_weight": 100.0, "gradient_penalty": 100.0, "gradient_penalty_form": "two_sided", "discriminator_steps": 1,
    "generator_loss": "log_ratio", "coverage": True,  # Equation 7, and 6
    # Appendix A: 32 latents "per layer"; the flow; "both batch normalization and weight normalization in NVP and only weight
    # normalization in IAF"
    "latent_channels": 32, "flow_scales": 1, "flow_couplings": 3, "flow_blocks": 2, "flow_normalization": "batch",
    "flow_conditioner_batch_normalization": True, "flow_weight_normalization": True, "network_normalization": "weight",
    # The last row of Table 2, whose networks are in Table 6
    "network": "residual", "posterior": "iaf", "discriminator_network": "residual",
    # Not mentioned, so not used
    "warmup_steps": 0, "clip_norm": 0.0, "ema_decay": 0.0, "quality_ramp_steps": 0, "learning_rate_schedule": "constant",
    "learning_rate_drops": "", "precision": "float32",
}  # fmt: skip
LENGTHS = ("train_steps", "evaluate_every", "checkpoint_every")  # ours


@pytest.fixture(name="config_of")
def fixture_config_of():
    """Function from a flagfile's name to its Config."""
    return lambda name: config_from(f"--flagfile={FLAGFILES[name]}")


def comment(name):
    """A flagfile's comment in one line."""
    lines = FLAGFILES[name].read_text(encoding="utf-8").splitlines()
    return " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))


def test_there_are_flagfiles():
    assert {"quickstart", "fashion_mnist_cqf", *ROWS} <= FLAGFILES.keys()
    assert len(BEST) == 9


@pytest.mark.parametrize("name", FLAGFILES)
def test_a_flagfile_parses_to_a_config_that_survives_json_and_gives_no_option_without_effect(name, config_of):
    config = config_of(name)
    assert Config.from_json(config.to_json()) == config
    lines = FLAGFILES[name].read_text(encoding="utf-8").splitlines()
    assert not config.unused().keys() & {line.partition("=")[0].removeprefix("--") for line in lines}


@pytest.mark.parametrize("name", FLAGFILES)
def test_no_flag_is_given_twice(name):
    # absl takes the last one without a word.
    lines = FLAGFILES[name].read_text(encoding="utf-8").splitlines()
    given = [line.partition("=")[0] for line in lines if line.startswith("--")]
    assert sorted(set(given)) == sorted(given)
    assert all(line.startswith(("--", "#")) for line in lines)


@pytest.mark.parametrize("name", FLAGFILES)
def test_the_comment_names_the_command_of_this_flagfile(name):
    program = re.escape("python -m tfcq.benchmark" if name.startswith("benchmark_") else "python -m tfcq.train")
    assert re.search(rf"^# {program} --flagfile=configs/{name}\.cfg( --data_dir=DIR)?$",
                     FLAGFILES[name].read_text(encoding="utf-8"), re.MULTILINE)
    named = set(re.findall(r"--flagfile=configs/(\w+)\.cfg", comment(name)))
    assert named == {name}


@pytest.mark.parametrize("name", FLAGFILES)
def test_the_comment_says_where_the_result_is_or_that_there_is_none(name):
    said = comment(name)
    unmeasured = "UNMEASURED" in said
    measured = "the result is in configs/README.md" in said
    assert unmeasured + measured + (name in OF_TOOLS and OF_TOOLS[name] in said) == 1
    if measured:
        assert re.search(rf"^\|.*--flagfile=configs/{name}\.cfg.*\|$", README, re.MULTILINE)
    else:
        assert f"`{name}.cfg`" in README
    if unmeasured:  # and then the README's line on it says so too
        assert all("UNMEASURED" in line for line in README.splitlines() if f"`{name}.cfg`" in line)


@pytest.mark.parametrize("name", ROWS)
def test_data_sets_of_the_papers_are_those_of_the_table(name, config_of):
    row, config = ROWS[name], config_of(name)
    dataset, *splits = re.findall(r"`([^`]+)`", row["data (TFDS)"])
    assert config.data.dataset == dataset
    assert config.data.image_size == int(row["resolution"])
    assert config.data.center_crop == (0 if row["crop"] == "-" else int(row["crop"]))
    assert config.training.batch_size == int(row["batch"])
    defaults = DataConfig()
    named = [split for split, default in ((config.data.train_split, defaults.train_split),
                                          (config.data.test_split, defaults.test_split)) if split != default]
    assert named == splits
    assert row["status"] == "UNMEASURED"
    assert f"`tfds build {dataset} --data_dir=DIR" in comment(name)


@pytest.mark.parametrize("name", ROWS)
def test_the_papers_figures_are_the_same_in_table_and_flagfile(name):
    figures = re.findall(r"\d+\.\d+", re.sub(r"\([^)]*\)", "", ROWS[name]["the paper's BPD / IS / FID"]))
    said = comment(name)
    assert bool(figures) == (name != "imagenet32_cqf")
    assert all(figure in said for figure in figures if figure != "3.5")  # Lucas et al. (2019) round 3.49


def last_block(name):
    """The flags below the last comment of a flagfile, sorted by their names."""
    return sorted(FLAGFILES[name].read_text(encoding="utf-8").rpartition("\n#")[2].splitlines()[1:])


LETTER = last_block("cifar10_cqf_paper")


@pytest.mark.parametrize("name", BEST)
def test_with_the_papers_letter_the_best_model_is_the_papers(name):
    config = config_from(f"--flagfile={FLAGFILES[name]}", *LETTER)
    options = vars(config.system) | vars(config.training)
    assert {option: options[option] for option in PAPER} == PAPER
    assert config.training.batch_size == (64 if name == "cifar10_cqf" else 32)  # Appendix A
    # Nothing else of the training is ours but its length.
    ours = {option: options[option] for option in ("batch_size", *LENGTHS)}
    assert config.training == TrainingConfig(**{key: PAPER[key] for key in PAPER.keys() & vars(config.training)}, **ours)


@pytest.mark.parametrize("name", BEST)
def test_the_best_model_of_the_paper_is_the_same_on_every_data_set(name, config_of):
    config = config_of(name)
    # Table 6 halves 32x32 to 4x4. Larger images are halved as far; that is the only option in which the systems differ.
    expected = CQFConfig(
        network="residual", network_normalization="weight", width=32, latent_channels=32,
        latent_size={32: 4, 48: 3, 64: 4, 96: 3}[config.data.image_size], posterior="iaf", discriminator_network="residual",
        free_bits=0.25,  # the default of the program of Kingma et al. 2016, which the paper uses
        discriminator_width=64, quality_weight=100.0, gradient_penalty=10.0, generator_loss="log_ratio", flow_scales=1,
        flow_couplings=3, flow_blocks=2, flow_normalization="batch", flow_conditioner_batch_normalization=True,
    )  # fmt: skip
    assert config.system == expected
    assert last_block(name) == last_block("cifar10_cqf")
    assert config.data.horizontal_flip == name.startswith(("celeba", "lsun"))


# Those that the paper has: LSUN's churches are of the slides, whose model is a later one, and ImageNet at 32x32 is ours.
OF_THE_PAPER = sorted({*BEST, "stl10_48_cqf_two_scales"} - {"lsun_church_64_cqf", "imagenet32_cqf"})


@pytest.mark.parametrize("name", OF_THE_PAPER)
def test_the_papers_flagfile_differs_in_the_tuned_options_alone(name, config_of):
    tuned, letter = config_of(name), config_of(f"{name}_paper")
    assert (letter.model, letter.data) == (tuned.model, tuned.data)
    assert last_block(f"{name}_paper") == LETTER
    names = [[flag.partition("=")[0] for flag in flags] for flags in (last_block(name), LETTER)]
    assert names[0] == names[1]
    assert config_from(f"--flagfile={FLAGFILES[f'{name}_paper']}", *last_block(name)) == tuned
    figures = re.findall(r"\d+\.\d+", ROWS[name]["the paper's BPD / IS / FID"])
    assert figures and all(figure in comment(f"{name}_paper") for figure in figures)


def test_each_experiment_of_the_paper_has_two_flagfiles():
    papers = [f"{name}_paper" for name in OF_THE_PAPER] + ["celeba_hq_1024_introvae_paper", "celeba_hq_256_introvae_paper"]
    assert [name for name in FLAGFILES if name.endswith("_paper")] == sorted(papers)


@pytest.mark.parametrize("name", ["cifar10_cqf", "cifar10_cqf_paper", "stl10_48_cqf_two_scales"])  # a second each
def test_the_papers_networks_can_be_built(name, config_of):
    config = config_of(name)
    size = config.data.image_size
    model = models.build(config, (size, size, 3))
    assert set(model.abilities) >= {"sample", "likelihood"} and model.image_shape == (size, size, 3)


def test_two_scales_on_stl10_differ_from_the_best_model_in_the_flow_and_the_discriminator(config_of):
    best, two = config_of("stl10_48_cqf"), config_of("stl10_48_cqf_two_scales")
    system = dataclasses.replace(best.system, flow_scales=2, discriminator_width=32)
    assert two == dataclasses.replace(best, system=system)


def test_realnvp_and_flow_gan_differ_in_the_discriminator(config_of):
    likelihood, hybrid = config_of("realnvp_cifar10"), config_of("flow_gan_cifar10")
    assert isinstance(likelihood.system, RealNVPConfig) and isinstance(hybrid.system, RealNVPConfig)
    assert likelihood.system.quality_weight == 0.0
    # Section 4.1 of Dinh et al. 2017; batch normalisation and three couplings are those of their program.
    network = {"flow_scales": 2, "flow_blocks": 8, "flow_width": 64, "flow_couplings": 3}
    assert likelihood.system == RealNVPConfig(
        flow_width_factor=2, flow_channel_width_factor=2, flow_normalization="batch", flow_magnitude_penalty=5e-5,
        flow_conditioner_batch_normalization=True, **network,
    )  # fmt: skip
    training = likelihood.training
    assert (training.optimizer, training.learning_rate, training.batch_size, training.clip_norm) == ("adam", 1e-3, 64, 100.0)
    assert likelihood.data.horizontal_flip and hybrid.data.horizontal_flip
    # Flow-GAN's program has 64 channels everywhere.
    assert {name: getattr(hybrid.system, name) for name in network} == network
    assert hybrid.system.flow_width_factor == hybrid.system.flow_channel_width_factor == 1
    assert hybrid.system.quality_weight == 1 / 20 and hybrid.system.discriminator_steps == 5 and hybrid.system.coverage


@pytest.mark.parametrize("name", ROWS)
def test_later_flags_override(name):
    # As the comment of the LSUN flagfiles proposes.
    data = config_from(f"--flagfile={FLAGFILES[name]}", "--dataset=folder:images", "--test_split=test").data
    assert (data.dataset, data.test_split) == ("folder:images", "test")


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_of_an_evaluation_parses_and_names_its_command(name):
    text = PROTOCOLS[name].read_text(encoding="utf-8")
    command = rf"^# python -m tfcq.evaluate --flagfile=configs/evaluation/{name}\.cfg --workdir=DIR( --feature_weights=FILE)?$"
    assert re.search(command, text, re.MULTILINE)
    assert f"`evaluation/{name}.cfg`" in README
    flags = flags_of("evaluate", f"--flagfile={PROTOCOLS[name]}")
    assert metric_names(flags.metrics) == flags.metrics
    given = {line.partition("=")[0].lstrip("-") for line in text.splitlines() if line.startswith("--")} - {"metrics"}
    options, defaults = flags.section(EvaluationConfig), EvaluationConfig()
    # What is given is what differs from the defaults: a preset that says nothing new would be read for nothing.
    assert given == {key for key, value in vars(options).items() if value != getattr(defaults, key)} | given & {"num_samples"}


@pytest.mark.parametrize("name", [name for name in FLAGFILES if re.search("cifar10|stl10", name) and "vae" not in name])
def test_a_thousand_images_of_sets_without_a_validation_split_validate(name, config_of):
    """The same ones in every row that is compared, and none of the test images; srVAE's paper has 10,000."""
    data = config_of(name).data
    assert (data.num_validation, data.held_out, data.test_split) == (1000, "random", "test")


def test_the_protocols_of_paper_000_are_those_of_its_section_5():
    assert {name for name in PROTOCOLS if name.startswith("cqf_")} == {"cqf_bits_per_dim", "cqf_fid", "cqf_inception_score"}
    for name, metrics, features, count in (
        ("cqf_bits_per_dim", ["elbo", "bits_per_dim"], "efficientnet_lite0", 10000),
        ("cqf_fid", ["fid"], "inception", 10000),
        ("cqf_inception_score", ["inception_score"], "inception", 50000),
    ):
        flags = flags_of("evaluate", f"--flagfile={PROTOCOLS[name]}")
        options = flags.section(EvaluationConfig)
        assert flags.metrics == metrics and (options.features, options.num_samples) == (features, count)
        # "All measures using held-out data": the whole test split.
        assert (options.split, options.num_images) == ("test", 0)


def test_the_protocols_of_paper_002_are_those_of_its_table_2():
    assert {name for name in PROTOCOLS if name.startswith("introvae_")} == {"introvae_ms_ssim", "introvae_fid"}
    pairs, fid = (PROTOCOLS[name].read_text(encoding="utf-8").splitlines() for name in ("introvae_ms_ssim", "introvae_fid"))
    assert {"--metrics=ms_ssim_pggan", "--num_pairs=10000", "--num_samples=20000"} <= set(pairs)
    assert {"--metrics=fid", "--features=inception", "--num_samples=50000", "--split=train_and_validation"} <= set(fid)


def test_the_protocols_of_paper_003_are_those_of_its_table_1():
    expected = {
        "srvae_nll": (["elbo", "bits_per_dim"], {"num_importance_samples": 500, "split": "test", "num_images": 0}),
        "srvae_fid_test": (["fid"], {"features": "inception", "num_samples": 10000, "split": "test", "image_draw": "mode"}),
        "srvae_fid_train": (
            ["fid"], {"features": "inception", "num_samples": 50000, "split": "train_and_validation", "image_draw": "mode"}
        ),
    }
    assert {name for name in PROTOCOLS if name.startswith("srvae_")} == expected.keys()
    for name, (metrics, options) in expected.items():
        flags = flags_of("evaluate", f"--flagfile={PROTOCOLS[name]}")
        protocol = flags.section(EvaluationConfig)
        assert flags.metrics == metrics and {option: getattr(protocol, option) for option in options} == options


_ROWS = table("IntroVAE and Soft-IntroVAE (Huang et al. 2018)")
INTROSPECTIVE = {row["flagfile"].strip("`").removesuffix(".cfg"): row for row in _ROWS}


@pytest.mark.parametrize("name", INTROSPECTIVE)
def test_introvae_at_its_sizes_is_that_of_the_table(name, config_of):
    row, config = INTROSPECTIVE[name], config_of(name)
    dataset, *splits = re.findall(r"`([^`]+)`", row["data (TFDS)"])
    assert config.model == "introvae" and config.data.dataset == dataset
    assert splits == ([config.data.test_split] if config.data.test_split != "test" else [])
    assert config.data.image_size == int(row["resolution"]) and config.training.batch_size == int(row["batch"])
    system = config.system
    assert (system.latent_dim, system.reconstruction_weight) == (int(row["z"]), float(row["beta"]))
    assert system.margin == row["margin"]
    weights = system.adversarial_weight, system.generator_adversarial_weight or system.adversarial_weight
    assert weights == tuple(map(float, row["alpha of encoder, generator"].split(", ")))
    assert system.margin_form == ("batch_mean" if name.endswith("_authors") else "per_sample")
    # As the authors' program and the paper's Section 4.1: mirrored; of CelebA-HQ 29,000 images, the last 1000 test.
    data = config.data
    assert data.horizontal_flip
    held_out = {"num_validation": "none", "num_test": 1000, "held_out": "last"} if "celeb_a_hq" in dataset else {"num_test": 0}
    assert {option: getattr(data, option) for option in held_out} == held_out
    # Channels double at each halving up to 512; with these the largest maps are those of the paper's Appendix B.
    assert system.width == (16 if config.data.image_size > 256 else 32)
    # From 512 pixels on a batch does not fit into the memory of one device at once.
    large = config.data.image_size > 256
    assert system.recompute_gradients == large and (config.training.micro_batches > 1) == (large and "_authors" not in name)
    assert all(figure in comment(name) for figure in re.findall(r"\d+\.\d+", row["the paper's MS-SSIM / FID"]))
