"""The command line: generated flags, one line for a mistake, help at once, and which Config and workdir come of it."""

import dataclasses
import functools
import json
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import time
import types
import typing

import numpy as np
import pytest
from absl import flags as absl_flags

import tfcq
from tfcq import config as configs
from tfcq import workdir
from tfcq.config import fields
from tfcq.config import flags as config_flags
from tfcq.errors import TrainingDiverged, TrainingInterrupted, UserError

SECTIONS = (configs.DataConfig, configs.TrainingConfig, configs.CQFConfig)
OPTIONS = {field.name: field for section in SECTIONS for field in dataclasses.fields(section)}


@pytest.fixture
def fresh_flags(monkeypatch):
    """absl's flags without those of any other module, for the time of a test."""
    values = absl_flags.FlagValues()
    monkeypatch.setattr(absl_flags, "FLAGS", values)
    names = ["bool", "integer", "float", "string", "enum", "list"]
    defines = {name: functools.partial(getattr(absl_flags, f"DEFINE_{name}"), flag_values=values) for name in names}
    for name, define in defines.items():
        monkeypatch.setattr(absl_flags, f"DEFINE_{name}", define)
    kinds = {bool: "bool", int: "integer", float: "float", str: "string"}
    monkeypatch.setattr(config_flags, "_DEFINE", {kind: defines[name] for kind, name in kinds.items()})
    return values


@pytest.fixture
def parse(fresh_flags):
    """Function from flags to the Config that they describe."""
    config_flags.define_config_flags()

    def parse(*arguments):
        config_flags.parse(["program", *arguments])
        return config_flags.config_from_flags()

    return parse


@pytest.fixture
def command(fresh_flags, monkeypatch, capsys):
    """Function that runs an entry point in this process; returns its exit status, stdout and stderr.

    `runpy` keeps it out of `sys.modules`: the module tfcq.train would hide the function of that name.
    """

    def command(name, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        with pytest.raises(SystemExit) as exited:
            runpy.run_module(f"tfcq.{name}", run_name="__main__")
        return exited.value.code, *capsys.readouterr()

    return command


def process(name, *arguments, cwd=None):
    """An entry point as a process of its own."""
    root = str(pathlib.Path(tfcq.__file__).parent.parent)
    return subprocess.run(
        [sys.executable, "-m", f"tfcq.{name}", *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": root},
    )


def assert_one_line(status, stderr, expected):
    assert status == 2
    assert stderr.startswith("error: ") and stderr.count("\n") == 1 and stderr.endswith("\n")
    assert expected in stderr


# In a process of its own.


@pytest.mark.parametrize("flag", ["--help", "--helpfull"])
def test_help_lists_every_option_at_once(flag, tmp_path):
    start = time.monotonic()
    done = process("train", flag, cwd=tmp_path)
    seconds = time.monotonic() - start
    assert done.returncode == 0 and done.stderr == ""
    assert "--workdir" in done.stdout and "--model" in done.stdout
    text = " ".join(done.stdout.split())
    assert "--dataset: digits | photo_patches | idx:DIR" in text  # values in the case in which they are taken
    for name, field in OPTIONS.items():
        assert f"--{name}:" in text or f"--[no]{name}:" in text
        assert field.metadata["meaning"][1:].split(":")[0][:25] in text
        assert f"default: {field.default}" in text
    assert "Trains a model" in text
    assert seconds < 20.0  # generous: it takes 0.3 s alone; with TensorFlow it would take 5 and more


def test_a_mistake_in_the_flags_is_found_without_tensorflow(tmp_path):
    program = """
import runpy, sys
sys.argv = ["train.py", "--image_sise=3"]
try:
    runpy.run_module("tfcq.train", run_name="__main__")
except SystemExit as exited:
    print(exited.code, "tensorflow" in sys.modules, "keras" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600)
    assert done.stdout == "2 False False\n"
    assert_one_line(2, done.stderr, "'image_sise'. Did you mean: image_size ?")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--batch_size=many"], "--batch_size=many"),
        (["--flagfile=nowhere.cfg"], "nowhere.cfg"),
        (["--learning_rate=nan", "--batch_size=4"], "learning_rate: expected a finite number, received nan"),
    ],
)
def test_mistakes_end_a_process_with_one_line(tmp_path, arguments, expected):
    done = process("train", *arguments, cwd=tmp_path)
    assert done.stdout == ""
    assert_one_line(done.returncode, done.stderr, expected)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_workdir_ends_a_process_with_one_line(tmp_path):
    done = process("sample", f"--workdir={tmp_path / 'nowhere'}")
    assert_one_line(done.returncode, done.stderr, "expected a trained run with config.json, found none")


# What is refused.


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--image_sise=32"], "Unknown command line flag 'image_sise'. Did you mean: image_size ?"),
        (["--qqqq"], "Unknown command line flag 'qqqq'"),
        (["--image_size=big"], "--image_size=big"),
        (["--image_size=8.5"], "--image_size=8.5: expected an integer, received '8.5'"),
        (["--learning_rate=fast"], "--learning_rate=fast: expected a number, received 'fast'"),
        (["--jit_compile=perhaps"], "--jit_compile=perhaps"),
        (["--image_size"], "Missing value for flag --image_size"),
        (["--image_size=2"], "image_size: expected at least 4, received 2"),
        (["--batch_size=0"], "batch_size: expected at least 1, received 0"),
        (["--beta_1=1.5"], "beta_1: expected at most 0.999999, received 1.5"),
        (["--clip_norm=inf"], "clip_norm: expected a finite number, received inf"),
        (["--precision=mixed_float"], "(did you mean mixed_float16?)"),
        (["--optimizer_arguments=rho"], "optimizer_arguments: expected NAME=VALUE,... such as momentum=0.9,nesterov=true"),
        (["--model=cqff"], f"model: expected one of {', '.join(configs.SYSTEMS)}, received 'cqff' (did you mean cqf?)"),
        (["--coverage=false"], "coverage=false with flow_scales=1"),
        (["--nocoverage", "--flow_scales=0", "--quality_weight=0"], "nothing to train"),
        (["--image_size=24"], "image_size=24 with latent_size=4"),
        (["stray"], "expected only --flags, received 'stray'"),
        (["--batch_size=4", "16"], "expected only --flags, received '16'"),
        (["--dataset="], "dataset: expected a name, received an empty string"),
        (["--flagfile=nowhere.cfg"], "nowhere.cfg"),
        (["--flagfile="], "--flagfile: expected the name of a file, received an empty one"),
        (["--flagfile=", "--workdir=here"], "--flagfile: expected the name of a file, received an empty one"),
        (["--flagfile"], "--flagfile with no argument"),
        (["--flagfile=."], "Is a directory"),
        ([], "expected --flagfile=configs/NAME.cfg"),
    ],
    ids=" ".join,
)
def test_mistakes_of_train(command, monkeypatch, tmp_path, arguments, expected):
    monkeypatch.chdir(tmp_path)
    status, stdout, stderr = command("train", *arguments)
    assert_one_line(status, stderr, expected)
    assert stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_flagfile_that_is_no_text(command, tmp_path):
    (tmp_path / "binary.cfg").write_bytes(b"\xff\xfe\x00--image_size=8")
    status, _, stderr = command("train", f"--flagfile={tmp_path / 'binary.cfg'}")
    assert_one_line(status, stderr, "binary.cfg, line 1: expected a text file in UTF-8")


@pytest.mark.parametrize(("name", "wrong"), [("train", "--batch_size=many"), ("evaluate", "--num_samples=many")])
def test_mistakes_in_flagfiles_are_told_with_file_and_line(command, tmp_path, name, wrong):
    path = tmp_path / "mine.cfg"
    path.write_text(f"--seed=3  # the third\n{wrong}\n")
    status, stdout, stderr = command(name, f"--flagfile={path}", "--workdir=nowhere")
    assert_one_line(status, stderr, f"{path}, line 2: {wrong}: expected an integer, received 'many'")
    assert stdout == ""


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("sample", [], "expected --workdir=DIR of a trained run"),
        ("evaluate", [], "expected --workdir=DIR of a trained run"),
        ("export", ["--workdir=here"], "expected --workdir=DIR and --export_dir=BASE"),
        ("export", ["--export_dir=there"], "expected --workdir=DIR and --export_dir=BASE"),
        ("sample", ["--workdir=nowhere"], "workdir nowhere: expected a trained run with config.json, found none"),
        ("evaluate", ["--workdir=nowhere"], "workdir nowhere: expected a trained run with config.json, found none"),
        ("export", ["--workdir=nowhere", "--export_dir=there"], "workdir nowhere: expected a trained run"),
        ("sample", ["--workdir=here", "--mode=dream"], "--mode=dream"),
        ("sample", ["--workdir=here", "--num_samples=0"], "--num_samples=0"),
        ("sample", ["--workdir=here", "--image_draw=median"], "--image_draw=median: value should be one of <|sample|mode>"),
        ("sample", ["--workdir=here", "--output=grid.tif"], "output grid.tif: expected a name that ends in .png"),
        ("sample", ["--workdir=here", "--output=grid"], "expected grid.png"),
        ("sample", ["--workdir=here", "--temperature=-1"], "--temperature=-1"),
        ("evaluate", ["--workdir=nowhere", "--metrics=elbow"], "received 'elbow' (did you mean elbo?)"),
        ("evaluate", ["--wordir=here"], "Did you mean: workdir ?"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_mistakes_of_the_other_commands(command, monkeypatch, tmp_path, name, arguments, expected):
    monkeypatch.chdir(tmp_path)
    status, stdout, stderr = command(name, *arguments)
    assert_one_line(status, stderr, expected)
    assert stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["reconstruct", "generative_reconstruct"])
def test_sample_asks_the_model_for_what_its_mode_says(command, monkeypatch, tmp_path, mode):
    asked, path = [], tmp_path / "pairs.png"

    class Pictures:
        def __init__(self, model):
            pass

        def reconstruction_grid(self, images, seed, ability):
            asked.append((ability, len(images), seed))
            return images[0]

    def load(*arguments):
        asked.append(arguments)
        return types.SimpleNamespace(require=asked.append)

    held = np.zeros((9, 8, 8, 3), np.uint8)
    images = types.SimpleNamespace(num_images=lambda _: len(held), images=lambda _, indices: held[indices])
    monkeypatch.setitem(sys.modules, "tfcq.evaluation.pictures", types.SimpleNamespace(Pictures=Pictures))
    monkeypatch.setattr(config_flags, "start_tensorflow", lambda: None)
    monkeypatch.setattr(workdir, "read_config", lambda _: None)
    monkeypatch.setattr(workdir, "load", load)
    monkeypatch.setattr(workdir, "load_data", lambda *_: images)
    given = (f"--workdir={tmp_path}", f"--mode={mode}", f"--output={path}", "--num_samples=2", "--seed=5", "--image_draw=mode")
    assert command("sample", *given) == (0, f"wrote {path}\n", "")
    assert asked == [(tmp_path, "best", "mode"), mode, (mode, 2, 5)] and path.is_file()


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("one thing"), 2, "error: one thing\n"),
        (TrainingDiverged("it grew"), 1, "error: it grew\n"),
        (TrainingInterrupted(15, 7), 143, f"error: {TrainingInterrupted(15, 7)}\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (None, 0, ""),
    ],
    ids=repr,
)
def test_exit_statuses(fresh_flags, monkeypatch, capsys, error, status, line):
    def main():
        if error:
            raise error

    monkeypatch.setattr(sys, "argv", ["program"])
    with pytest.raises(SystemExit) as exited:
        config_flags.run(main)
    assert (exited.value.code, capsys.readouterr().err) == (status, line)


def test_a_mistake_of_ours_keeps_its_traceback(fresh_flags, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["program"])
    with pytest.raises(ZeroDivisionError):
        config_flags.run(lambda: 1 // 0)


# What is understood.


def test_every_option_is_a_flag_of_its_type_that_tells_bounds_and_unit(fresh_flags):
    config_flags.define_config_flags()
    kinds = {
        bool: absl_flags.BooleanParser, int: absl_flags.IntegerParser,
        float: absl_flags.FloatParser, str: absl_flags.ArgumentParser,
    }  # fmt: skip
    for section in SECTIONS:
        for name, kind in typing.get_type_hints(section).items():
            flag, facts = fresh_flags[name], OPTIONS[name].metadata
            assert type(flag.parser) is kinds[kind] and flag.value is None
            assert f"default: {OPTIONS[name].default}" in flag.help
            assert facts["minimum"] is None or f"at least {facts['minimum']}" in flag.help
            assert facts["maximum"] is None or f"at most {facts['maximum']}" in flag.help
            assert facts["unit"] is None or f"in {facts['unit']}" in flag.help
            assert all(str(choice) in flag.help for choice in facts["choices"] or ())
    of_systems = {field.name for section in configs.SYSTEMS.values() for field in dataclasses.fields(section)}
    assert set(fresh_flags) == {"model", *OPTIONS, *of_systems}
    config_flags.define_config_flags()  # again is harmless


def test_no_flags_are_the_defaults(parse):
    assert parse() == configs.Config()
    assert config_flags.given_flags() == {}


def test_flags_reach_their_sections(parse):
    config = parse(
        "--model=cqf", "--image_size=8", "--nohorizontal_flip", "--latent_size=2", "--flow_scales", "2",
        "--noflow_weight_normalization", "--coverage=true", "--quality_weight=3", "--learning_rate=1e-4",
        "--jit_compile", "--optimizer=adam", "--seed=5",
    )  # fmt: skip
    assert config == configs.Config(
        data=configs.DataConfig(image_size=8),
        system=configs.CQFConfig(latent_size=2, flow_scales=2, flow_weight_normalization=False, quality_weight=3.0),
        training=configs.TrainingConfig(learning_rate=1e-4, jit_compile=True, optimizer="adam", seed=5),
    )
    assert config_flags.given_flags()["horizontal_flip"] is False


def test_every_option_can_be_set(parse):
    choices = {
        "dataset": "npz:a.npz", "data_dir": "sets", "resize": "pad", "color": "rgb", "image_size": "64",
        "optimizer": "adam", "optimizer_arguments": "epsilon=0.5",
        "learning_rate_schedule": "exponential", "precision": "mixed_float16",
        "distribution": "mirrored", "latent_form": "vector", "network_normalization": "batch",
        "pixel_transform": "affine", "flow_normalization": "batch", "warmup_steps": "3",
        "beta_1": "0.25", "beta_2": "0.5", "learning_rate": "0.5", "ema_decay": "0.25",
        "discriminator_learning_rate": "0.125", "flow_output_kernel_size": "3", "flow_width_factor": "1", "latent_size": "8",
        "coverage": "true", "flow_scales": "2", "train_split": "unlabelled", "test_split": "validation",
        "network": "residual", "generator_loss": "saturating", "discriminator_network": "residual",
        "gradient_penalty_form": "real", "posterior": "iaf", "eval_metrics": "prd", "eval_features": "pixels",
        "held_out": "last", "micro_batches": "1",
        "learning_rate_drops": "0.5:0.5", "learning_rate_decay": "0.75", "learning_rate_floor": "0.25",
    }  # fmt: skip
    given = {}
    for name, field in OPTIONS.items():
        if isinstance(field.default, bool):
            given[name] = choices.get(name) or str(not field.default).lower()
        else:
            given[name] = choices.get(name) or str(field.default + 1)
    config = parse(*(f"--{name}={value}" for name, value in given.items()))
    read = {name: value for section in list(config.to_dict().values())[1:] for name, value in section.items()}
    assert read.keys() == given.keys()
    for name, value in given.items():
        kind = type(OPTIONS[name].default)
        assert read[name] == (value == "true" if kind is bool else kind(value))
        # Without coverage nothing is left of CQF, and with free bits a batch has one part.
        assert name in ("coverage", "micro_batches") or read[name] != OPTIONS[name].default


def test_flagfiles_and_what_comes_after_them(parse, tmp_path):
    inner, outer = tmp_path / "inner.cfg", tmp_path / "outer.cfg"
    inner.write_text("# a comment\n--image_size=8\n--train_steps=7\n\n--seed=1\n")
    outer.write_text(f"--flagfile={inner}\n--seed=2\n")
    config = parse(f"--flagfile={outer}")
    assert (config.data.image_size, config.training.train_steps, config.training.seed) == (8, 7, 2)


def test_a_later_flag_overrides_the_flagfile_and_an_earlier_one_does_not(parse, tmp_path):
    path = tmp_path / "one.cfg"
    path.write_text("--batch_size=16\n--nojit_compile\n")
    config = parse("--batch_size=8", f"--flagfile={path}")
    assert config.training.batch_size == 16
    config = parse(f"--flagfile={path}", "--batch_size=8", "--jit_compile")
    assert config.training.batch_size == 8 and config.training.jit_compile


def test_a_option_of_another_system_names_its_owner(parse, monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class OtherConfig(fields.Section):
        width: int = fields.option(8, "how wide", minimum=1)

    monkeypatch.setitem(configs.SYSTEMS, "other", OtherConfig)
    assert parse("--model=other", "--width=3").system == OtherConfig(width=3)
    with pytest.raises(UserError, match="--flow_scales: model=other has no such flag; it belongs to model=cqf"):
        parse("--model=other", "--flow_scales=2")


def test_a_option_that_systems_share_alike_is_told_once(fresh_flags):
    config_flags.define_config_flags()
    assert fresh_flags["flow_width"].help.startswith("[cqf, realnvp] Channels of a conditioner")
    assert fresh_flags["flow_width"].help.count("Channels of a conditioner") == 1
    assert fresh_flags["width"].help.startswith("[cqf] ")
    assert not fresh_flags["batch_size"].help.startswith("[")


def test_options_that_systems_share_must_agree_and_tell_both_meanings(fresh_flags, monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class OtherConfig(fields.Section):
        width: int = fields.option(8, "how wide the other is", minimum=1)

    monkeypatch.setitem(configs.SYSTEMS, "other", OtherConfig)
    config_flags.define_config_flags()
    assert "[cqf] Their channels at the finest" in fresh_flags["width"].help
    assert "[other] How wide the other is (default: 8" in fresh_flags["width"].help

    @dataclasses.dataclass(frozen=True)
    class WrongConfig(fields.Section):
        width: str = fields.option("8", "another type")

    monkeypatch.setitem(configs.SYSTEMS, "wrong", WrongConfig)
    delattr(fresh_flags, "model")
    with pytest.raises(TypeError, match="option width is int in one system and str in another"):
        config_flags.define_config_flags()


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["--flagfile=configs/digits_cqf.cfg"], "digits_cqf"),
        (["-flagfile=digits.cfg"], "digits"),
        (["--flagfile", "a/b/c.cfg"], "c"),
        (["--flagfile=one.cfg", "--flagfile=two.cfg"], "two"),
        (["--flagfile=dots.v2.cfg"], "dots.v2"),
        (["--flagfile=plain"], "plain"),
        (["--image_size=8"], None),
        (["--noflagfile=x"], None),
    ],
)
def test_flagfile_name(argv, name):
    assert config_flags.flagfile_name(["program", *argv]) == name


# From flags to `tfcq.train`.


@pytest.fixture
def trained(monkeypatch):
    """The arguments with which `train` was called, in place of training."""
    from tfcq.training import run

    calls = []
    monkeypatch.setattr(run, "train", lambda config, workdir, accept_changed_data: calls.append((config, str(workdir))))
    return calls


def test_the_workdir_is_named_after_the_flagfile(command, trained, tmp_path):
    path = tmp_path / "small_run.cfg"
    path.write_text("--image_size=8\n")
    small = configs.Config(data=configs.DataConfig(image_size=8))
    assert command("train", f"--flagfile={path}")[0] == 0
    assert trained == [(small, "runs/small_run")]


@pytest.mark.parametrize("arguments", [["--workdir=elsewhere", "--seed=3"], ["--seed=3", "--workdir", "elsewhere"]])
def test_a_workdir_that_is_given(command, trained, monkeypatch, tmp_path, arguments):
    monkeypatch.chdir(tmp_path)
    assert command("train", *arguments)[0] == 0
    assert trained == [(configs.Config(training=configs.TrainingConfig(seed=3)), "elsewhere")]


def test_a_workdir_is_named_after_the_model_where_there_is_no_flagfile(command, trained):
    assert command("train", "--seed=3")[0] == 0
    assert [workdir for _, workdir in trained] == ["runs/cqf"]


def test_a_workdir_alone_resumes_what_it_holds(command, trained, tmp_path):
    config = configs.Config(data=configs.DataConfig(image_size=8), training=configs.TrainingConfig(seed=9))
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    assert command("train", f"--workdir={tmp_path}")[0] == 0
    assert trained == [(config, str(tmp_path))]


SMALL = {
    "data": {"image_size": 8},
    "training": {"batch_size": 8, "train_steps": 50},
    "system": {"latent_size": 2, "flow_scales": 2},
}


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        (["--train_steps=2000"], {"training": {"train_steps": 2000}}),
        (["--log_every=7", "--latent_size=4"], {"training": {"log_every": 7}, "system": {"latent_size": 4}}),
        (["--model=cqf", "--color=grey"], {"data": {"color": "grey"}}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_flags_beside_a_workdir_are_changes_of_what_it_holds(command, trained, tmp_path, arguments, changes):
    (tmp_path / "config.json").write_text(json.dumps(SMALL))
    assert command("train", f"--workdir={tmp_path}", *arguments)[0] == 0
    expected = {section: values | changes.get(section, {}) for section, values in SMALL.items()}
    assert trained == [(configs.Config.from_dict(expected), str(tmp_path))]


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("--flagfile=one.cfg", configs.Config(data=configs.DataConfig(image_size=16))),
        ("--model=vae", configs.Config("vae")),
    ],
)
def test_a_flagfile_or_another_model_is_a_whole_configuration(command, trained, monkeypatch, tmp_path, argument, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(SMALL))
    (tmp_path / "one.cfg").write_text("--image_size=16\n")
    assert command("train", f"--workdir={tmp_path}", argument)[0] == 0
    assert [config for config, _ in trained] == [expected]


def test_a_workdir_that_holds_nothing_is_not_resumed(command, trained, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    status, stdout, stderr = command("train", "--workdir=runs/typo")
    assert_one_line(status, stderr, "workdir runs/typo: expected a trained run with config.json, found none; train one with")
    assert stdout == "" and trained == [] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("sample", ["--output=file/picture.png"], "output: expected a folder, received 'file', which is a file"),
        ("sample", ["--output=folder"], "output: expected a file, received the folder 'folder'"),
        ("sample", ["--output=pipe.png"], "output pipe.png: cannot be written: expected a file, it is a device or a pipe"),
        ("export", ["--export_dir=file/base"], "export_dir: expected a folder, received 'file', which is a file"),
        ("export", ["--export_dir=base"], "export_dir base/cqf: cannot be written: Not a directory"),
        ("evaluate", [], "report/curves.npz: cannot be written: Not a directory"),
        ("compare", ["--output=file"], "output: expected a folder, received 'file', which is a file"),
    ],
)
def test_a_place_that_cannot_be_written_is_told_before_the_work(command, monkeypatch, tmp_path, name, arguments, message):
    """The run has no checkpoint, which would be told where a model is loaded."""
    monkeypatch.chdir(tmp_path)
    for path in ("run", "base"):
        (tmp_path / path).mkdir()
    for path in ("file", "run/report", "base/cqf"):
        (tmp_path / path).write_text("")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "run" / "config.json").write_text("{}")
    if name == "compare":
        name, arguments = "evaluate", ["--compare=run,run", *arguments]
    else:
        arguments = ["--workdir=run", *arguments]
    status, stdout, stderr = command(name, *arguments)
    assert_one_line(status, stderr, message)
    assert stdout == "" and not list((tmp_path / "folder").iterdir())


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_is_one_line_and_its_status(fresh_flags, monkeypatch, capsys, number, status):
    before, cleaned = signal.getsignal(number), []

    def main():
        try:
            os.kill(os.getpid(), number)
            time.sleep(10.0)
        finally:
            cleaned.append(True)

    monkeypatch.setattr(sys, "argv", ["program"])
    with pytest.raises(SystemExit) as exited:
        config_flags.run(main)
    assert (exited.value.code, capsys.readouterr().err) == (status, f"error: signal {int(number)}: interrupted\n")
    assert cleaned and signal.getsignal(number) is before
