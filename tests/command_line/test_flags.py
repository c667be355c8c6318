"""The flags of a command: one for each option, how they are read, and which Config comes of them."""

import dataclasses
import pathlib
import types
import typing

import pytest
from absl import flags as absl_flags
from commands import command_of, config_from, flags_of, run_here

from tfcq import config as configs
from tfcq import train
from tfcq.command_line.flags import AdvisedInteger, Flags, IntegerOrWord
from tfcq.command_line.options import advice_of
from tfcq.config import fields
from tfcq.config.evaluation import EvaluationConfig
from tfcq.errors import UserError

SECTIONS = (configs.DataConfig, configs.TrainingConfig, configs.CQFConfig)
OPTIONS = {field.name: field for section in SECTIONS for field in dataclasses.fields(section)}


def test_every_option_is_a_flag_of_its_type():
    flags = command_of("train").flags()
    kinds = {
        bool: absl_flags.BooleanParser, int: absl_flags.IntegerParser,
        float: absl_flags.FloatParser, str: absl_flags.ArgumentParser, int | str: IntegerOrWord,
    }  # fmt: skip
    sections = (configs.DataConfig, configs.TrainingConfig, *configs.SYSTEMS.values())
    for section in sections:
        for name, kind in typing.get_type_hints(section).items():
            assert type(flags.values[name].parser) is (AdvisedInteger if advice_of(name) else kinds[kind])
            assert flags.values[name].value is None
    options = {field.name for section in sections for field in dataclasses.fields(section)}
    own = {"workdir", "accept_changed_data", "preset", "flagfile", "help", "h", "helpfull", "version"}
    assert set(flags.values) == {"model", *own, *options}


@pytest.mark.parametrize("name", ["train", "evaluate", "sample", "export", "serve", "reproduce", "benchmark"])
def test_a_commands_flags_are_its_own(name):
    """Nothing of absl's, TensorFlow's or TFDS's, and nothing is left in absl's table."""
    before = set(absl_flags.FLAGS)
    first, second = command_of(name).flags(), command_of(name).flags()
    assert first.values is not second.values and set(first.values) == set(second.values)
    assert set(absl_flags.FLAGS) == before and not {"workdir", "seed", "port"} & before
    assert not {"verbosity", "alsologtostderr", "pdb", "tfds_debug_list_dir"} & set(first.values)


def test_every_option_of_an_evaluation_is_a_flag_of_evaluate():
    flags = flags_of("evaluate", "--num_images=7", "--noaccept_changed_data", "--checkpoint=last")
    assert {field.name for field in dataclasses.fields(EvaluationConfig)} <= set(flags.values)
    assert flags.section(EvaluationConfig) == EvaluationConfig(num_images=7, checkpoint="last")


def test_no_flags_are_the_defaults():
    assert config_from() == configs.Config()
    assert flags_of("train").given() == {}


def test_flags_reach_their_sections():
    given = (
        "--model=cqf", "--image_size=8", "--nohorizontal_flip", "--latent_size=2", "--flow_scales", "2",
        "--noflow_weight_normalization", "--coverage=true", "--quality_weight=3", "--learning_rate=1e-4",
        "--jit_compile", "--optimizer=adam", "--seed=5",
    )  # fmt: skip
    assert config_from(*given) == configs.Config(
        data=configs.DataConfig(image_size=8),
        system=configs.CQFConfig(latent_size=2, flow_scales=2, flow_weight_normalization=False, quality_weight=3.0),
        training=configs.TrainingConfig(learning_rate=1e-4, jit_compile=True, optimizer="adam", seed=5),
    )
    assert flags_of("train", *given).given()["horizontal_flip"] is False


def test_every_option_can_be_set():
    choices = {
        "dataset": "folder:pictures", "init_from": "runs/other", "data_dir": "sets", "data_cache": "decoded",
        "resize": "pad", "color": "rgb", "image_size": "64",
        "optimizer": "adam", "optimizer_arguments": "epsilon=0.5",
        "learning_rate_schedule": "exponential", "precision": "mixed_float16",
        "distribution": "mirrored", "latent_form": "vector", "network_normalization": "batch",
        "pixel_transform": "affine", "flow_normalization": "batch", "warmup_steps": "3",
        "beta_1": "0.25", "beta_2": "0.5", "learning_rate": "0.5", "ema_decay": "0.25",
        "discriminator_learning_rate": "0.125", "flow_output_kernel_size": "3", "flow_width_factor": "1", "latent_size": "8",
        "flow_channel_width_factor": "1", "discriminator_size": "8",
        "coverage": "true", "flow_scales": "2", "train_split": "unlabelled", "test_split": "validation",
        "network": "residual", "generator_loss": "saturating", "discriminator_network": "residual",
        "gradient_penalty_form": "real", "posterior": "iaf", "eval_metrics": "prd", "eval_features": "pixels",
        "best_metric": "coverage", "eval_split": "train", "loggers": "csv",
        "held_out": "last", "micro_batches": "1",
        "learning_rate_drops": "0.5:0.5", "learning_rate_decay": "0.75", "learning_rate_floor": "0.25",
    }  # fmt: skip
    given = {}
    for name, field in OPTIONS.items():
        if isinstance(field.default, bool):
            given[name] = choices.get(name) or str(not field.default).lower()
        else:
            given[name] = choices.get(name) or str(field.default + 1)
    config = config_from(*(f"--{name}={value}" for name, value in given.items()))
    read = {name: value for section in list(config.to_dict().values())[1:] for name, value in section.items()}
    assert read.keys() == given.keys()
    for name, value in given.items():
        kind = type(OPTIONS[name].default)
        assert read[name] == (value == "true" if kind is bool else kind(value))
        # Without coverage nothing is left of CQF, and with free bits a batch has one part.
        assert name in ("coverage", "micro_batches") or read[name] != OPTIONS[name].default


def test_a_number_may_be_a_word():
    for text, value in (("none", "none"), ("12", 12)):
        assert config_from(f"--num_validation={text}").data.num_validation == value
    with pytest.raises(UserError, match="^num_validation: expected int or none, received '1.5'"):
        config_from("--num_validation=1.5")


def test_flagfiles_and_what_comes_after_them(tmp_path):
    inner, outer = tmp_path / "inner.cfg", tmp_path / "outer.cfg"
    inner.write_text("# a comment\n--image_size=8\n--train_steps=7\n\n--seed=1\n")
    outer.write_text(f"--flagfile={inner}\n--seed=2\n")
    config = config_from(f"--flagfile={outer}")
    assert (config.data.image_size, config.training.train_steps, config.training.seed) == (8, 7, 2)


def test_a_later_flag_overrides_the_flagfile_and_an_earlier_one_does_not(tmp_path):
    path = tmp_path / "one.cfg"
    path.write_text("--batch_size=16\n--nojit_compile\n")
    config = config_from("--batch_size=8", f"--flagfile={path}")
    assert config.training.batch_size == 16
    config = config_from(f"--flagfile={path}", "--batch_size=8", "--jit_compile")
    assert config.training.batch_size == 8 and config.training.jit_compile


def test_an_option_of_another_system_names_its_owner(monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class OtherConfig(fields.Section):
        width: int = fields.option(8, "how wide", minimum=1)

    monkeypatch.setitem(configs.SYSTEMS, "other", OtherConfig)
    assert config_from("--model=other", "--width=3").system == OtherConfig(width=3)
    with pytest.raises(UserError, match="--flow_scales: model=other has no such flag; it belongs to model=cqf"):
        config_from("--model=other", "--flow_scales=2")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--model=glf --latent_flow_beta_1=0.5", "latent_flow_beta_1=0.5 has no effect without latent_flow_optimizer=own"),
        ("--model=glf --latent_flow_beta_1=0.5 --latent_flow_optimizer=own", None),
        ("--model=vae --sigma_rate=3", "sigma_rate=3.0 has no effect without learn_decoder_sigma=true"),
        ("--model=vae --sigma_rate=3 --learn_decoder_sigma", None),
        ("--model=two_stage_vae --sigma_rate=3 --nolearn_decoder_sigma", None),  # it is the rate of gamma, too
        ("--model=vae --hidden_units=9 --autoencoder_network=dcgan", "hidden_units=9 has no effect without "
         "autoencoder_network=infogan"),
        ("--num_validation=none --validation_images=5", "validation_images=5 has no effect without images that validate "
         "(num_validation)"),
        ("--validation_images=5 --iaf_layers=2", "iaf_layers=2 has no effect without posterior=iaf"),
        ("--model=wae_mmd --reconstruction=perceptual --reconstruction_weight=0.1",
         "reconstruction_weight=0.1 has no effect without reconstruction=mse"),
        ("--model=wae_mmd --perceptual_error_weight=2", "perceptual_error_weight=2.0 has no effect without "
         "reconstruction=perceptual"),
        ("--model=wae_mmd --reconstruction=perceptual --perceptual_error_weight=2", None),
    ],
)  # fmt: skip
def test_a_given_option_without_effect_is_named_in_a_line(arguments, said, monkeypatch, tmp_path):
    monkeypatch.setattr(train, "Run", lambda workdir, config: types.SimpleNamespace(train=lambda **_: None))
    monkeypatch.setattr(train.starting, "start_tensorflow", lambda: None)
    flagfile = tmp_path / "a.cfg"
    flagfile.write_text("--image_size=32\n" + arguments.replace(" ", "\n"))
    for given in ([f"--flagfile={flagfile}"], arguments.split()):
        status, output, errors = run_here("train", *given)
        assert (status, output, errors) == (0, f"warning: --{said}\n" if said else "", "")


def test_options_that_systems_share_must_be_of_one_type(monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class WrongConfig(fields.Section):
        width: str = fields.option("8", "another type")

    monkeypatch.setitem(configs.SYSTEMS, "wrong", WrongConfig)
    with pytest.raises(TypeError, match="option width is int in one system and str in another"):
        command_of("train").flags()


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["--flagfile=configs/digits_cqf.cfg"], "digits_cqf"),
        (["-flagfile=digits.cfg"], "digits"),
        (["--flagfile", "a/b/c.cfg"], "c"),
        (["--flagfile=one.cfg", "--flagfile=two.cfg"], "two"),
        (["--flagfile=dots.v2.cfg"], "dots.v2"),
        (["--flagfile=plain"], "plain"),
        (["--preset=mnist_glf"], "mnist_glf"),
        (["-preset", "mnist_glf"], "mnist_glf"),
        (["--flagfile=one.cfg", "--preset=mnist_glf"], "mnist_glf"),
        (["--image_size=8"], None),
        (["--noflagfile=x"], None),
    ],
)
def test_the_name_of_a_run(argv, name):
    flags = Flags()
    flags.arguments = argv
    assert flags.run_name() == name


def test_paths_are_checked_and_several_folders_are_separated_by_commas(tmp_path, monkeypatch):
    """A name with a comma in it stands in quotes."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for given, expected in (
        ("runs/[a] *,~/b", ["runs/[a] *", f"{tmp_path}/b"]),
        ('"runs/a,b",it\'s', ["runs/a,b", "it's"]),
        ("\u4e2d,-x", ["\u4e2d", "-x"]),
    ):
        flags = Flags()
        flags.folders("compare", [], "Folders")
        flags.file("output", None, "A file")
        flags.parse([f"--compare={given}", "--output", "~/-x.png"])
        assert flags.compare == [pathlib.Path(path) for path in expected]
        assert flags.output == tmp_path / "-x.png"


def test_an_unknown_flag_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no flag --workdir"):
        Flags().workdir  # noqa: B018
