"""Presets: the flagfiles of configs/ by name."""

import pathlib

import pytest
from commands import REPOSITORY, config_from, flags_of

import tfcq
from tfcq.command_line import presets
from tfcq.errors import UserError


@pytest.mark.parametrize(("kind", "command"), [("", "train"), ("evaluation", "evaluate")])
def test_the_presets_are_the_flagfiles_of_configs(kind, command):
    files = {path.stem: path for path in (REPOSITORY / "configs" / kind).glob("*.cfg")}
    assert presets.names(kind) == sorted(files) and len(files) > 1
    for name, path in files.items():
        given = [flags_of(command, f"--{flag}").values.flag_values_dict() for flag in (f"preset={name}", f"flagfile={path}")]
        assert given[0] == given[1]


def test_flags_beside_it_override_where_they_come_later(tmp_path):
    (tmp_path / "mine.cfg").write_text("--preset=quickstart  # and:\n--seed=4\n")
    quickstart = config_from("--preset=quickstart")
    assert (quickstart.training.train_steps, quickstart.training.seed) == (2000, 0)
    assert config_from("--preset", "quickstart", "--train_steps=300").training.train_steps == 300
    assert config_from("--train_steps=300", "--preset=quickstart") == quickstart
    mine = config_from(f"--flagfile={tmp_path / 'mine.cfg'}")
    assert (mine.training.seed, mine.data) == (4, quickstart.data)


def test_in_python_it_is_the_configuration_that_the_command_has():
    assert tfcq.preset("quickstart") == config_from("--preset=quickstart")
    given = ["--preset=mnist_glf", "--train_steps=30", "--dataset=folder:a", "--latent_dim=5"]
    assert tfcq.preset("mnist_glf", train_steps=30, dataset="folder:a", latent_dim=5) == config_from(*given)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("quickstrat", {}, "no such preset (did you mean quickstart?)"),
        ("quickstart", {"train_step": 3}, "received train_step (did you mean train_steps?)"),
        ("quickstart", {"latent_dim": 3}, "model=cqf has no such flag; it belongs to model="),
        ("quickstart", {"train_steps": 0}, "train_steps"),
    ],
)
def test_a_mistake_in_python_is_told_in_a_line(name, options, expected):
    with pytest.raises(UserError) as caught:
        tfcq.preset(name, **options)
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_a_wrong_one_in_a_flagfile_is_named_by_its_line(tmp_path):
    path = tmp_path / "mine.cfg"
    path.write_text("--seed=4\n--preset=quickstrat\n")
    with pytest.raises(UserError) as caught:
        config_from(f"--flagfile={path}")
    assert str(caught.value).startswith(f"{path}, line 2: --preset=quickstrat: no such preset (did you mean quickstart?); expec")


def test_those_inside_an_installed_package_come_first(monkeypatch, tmp_path):
    (tmp_path / "tfcq" / "configs").mkdir(parents=True)
    monkeypatch.setattr(presets, "_PACKAGE", tmp_path / "tfcq")
    (tmp_path / "tfcq" / "configs" / "inside.cfg").write_text("")
    assert presets.names() == ["inside"]
    assert presets.path_of("inside") == str(pathlib.Path(tmp_path, "tfcq", "configs", "inside.cfg"))
