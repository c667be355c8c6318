"""What the commands do with their flags: which Config and workdir `tfcq.train` takes, what `tfcq.sample` asks of a model."""

import json
import sys
import types

import numpy as np
import pytest
from commands import assert_one_line, run_here

from tfcq import config as configs
from tfcq import workdir
from tfcq.command_line import starting


@pytest.fixture
def trained(monkeypatch):
    """The arguments with which `train` was called, in place of training."""
    from tfcq.training import run

    calls = []

    def train(config, workdir, *_):
        calls.append((config, str(workdir)))
        return types.SimpleNamespace(averages=None)

    monkeypatch.setattr(run, "train", train)
    return calls


def test_the_workdir_is_named_after_the_flagfile(trained, tmp_path):
    path = tmp_path / "small_run.cfg"
    path.write_text("--image_size=8\n")
    small = configs.Config(data=configs.DataConfig(image_size=8))
    assert run_here("train", f"--flagfile={path}")[0] == 0
    assert trained == [(small, "runs/small_run")]


@pytest.mark.parametrize("arguments", [["--workdir=elsewhere", "--seed=3"], ["--seed=3", "--workdir", "elsewhere"]])
def test_a_workdir_that_is_given(trained, monkeypatch, tmp_path, arguments):
    monkeypatch.chdir(tmp_path)
    assert run_here("train", *arguments)[0] == 0
    assert trained == [(configs.Config(training=configs.TrainingConfig(seed=3)), "elsewhere")]


def test_a_workdir_is_named_after_the_model_where_there_is_no_flagfile(trained):
    assert run_here("train", "--seed=3")[0] == 0
    assert [workdir for _, workdir in trained] == ["runs/cqf"]


def test_a_workdir_alone_resumes_what_it_holds(trained, tmp_path):
    config = configs.Config(data=configs.DataConfig(image_size=8), training=configs.TrainingConfig(seed=9))
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    assert run_here("train", f"--workdir={tmp_path}")[0] == 0
    assert trained == [(config, str(tmp_path))]


SMALL = {
    "data": {"image_size": 8},
    "training": {"batch_size": 8, "train_steps": 50},
    "system": {"latent_size": 2, "flow_couplings": 2},
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
def test_flags_beside_a_workdir_are_changes_of_what_it_holds(trained, tmp_path, arguments, changes):
    (tmp_path / "config.json").write_text(json.dumps(SMALL))
    assert run_here("train", f"--workdir={tmp_path}", *arguments)[0] == 0
    expected = {section: values | changes.get(section, {}) for section, values in SMALL.items()}
    assert trained == [(configs.Config.from_dict(expected), str(tmp_path))]


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("--flagfile=one.cfg", configs.Config(data=configs.DataConfig(image_size=16))),
        ("--model=vae", configs.Config("vae")),
    ],
)
def test_a_flagfile_or_another_model_is_a_whole_configuration(trained, monkeypatch, tmp_path, argument, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(SMALL))
    (tmp_path / "one.cfg").write_text("--image_size=16\n")
    assert run_here("train", f"--workdir={tmp_path}", argument)[0] == 0
    assert [config for config, _ in trained] == [expected]


def test_a_workdir_that_holds_nothing_is_not_resumed(trained, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    status, stdout, stderr = run_here("train", "--workdir=runs/typo")
    assert_one_line(status, stderr, "workdir runs/typo: expected a trained run with config.json, found none; train one with")
    assert stdout == "" and trained == [] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["reconstruct", "generative_reconstruct"])
def test_sample_asks_the_model_for_what_its_mode_says(monkeypatch, tmp_path, mode):
    asked, path = [], tmp_path / "pairs.png"

    class Pictures:
        def __init__(self, model):
            pass

        def ability_of(self, mode, class_name):
            return f"what {mode} needs{class_name}"

        def reconstruction_grid(self, images, seed, ability, class_name):
            asked.append((ability, len(images), seed, class_name))
            return images[0]

    def load(*arguments):
        asked.append(arguments)
        return types.SimpleNamespace(require=asked.append)

    held = np.zeros((9, 8, 8, 3), np.uint8)
    images = types.SimpleNamespace(
        require_images=lambda _: None, num_images=lambda _: len(held), images=lambda _, indices: held[indices]
    )
    monkeypatch.setitem(sys.modules, "tfcq.evaluation.pictures", types.SimpleNamespace(Pictures=Pictures))
    monkeypatch.setattr(starting, "start_tensorflow", lambda: None)
    monkeypatch.setattr(workdir, "read_config", lambda _: None)
    monkeypatch.setattr(workdir, "load", load)
    monkeypatch.setattr(workdir, "load_data", lambda *_: images)
    given = (f"--workdir={tmp_path}", f"--mode={mode}", f"--output={path}", "--num_samples=2", "--seed=5", "--image_draw=mode")
    assert run_here("sample", *given) == (0, f"wrote {path}\n", "")
    assert asked == [(tmp_path, "best", "mode"), f"what {mode} needs", (mode, 2, 5, "")] and path.is_file()
