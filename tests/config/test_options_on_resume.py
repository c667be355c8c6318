"""Which options may change when a run is resumed: each one is looked at."""

import copy
import dataclasses
import json
import os

import pytest

from tfcq import workdir as workdirs
from tfcq.command_line.options import entry_of
from tfcq.config import SYSTEMS, Config, DataConfig
from tfcq.config.fields import ON_RESUME, option
from tfcq.errors import UserError
from tfcq.workdir import configuration, environment

FREE = {
    "training.log_every",
    "training.loggers",
    "training.evaluate_every",
    "training.checkpoint_every",
    "training.keep_checkpoints",
    "training.grid_images",
    "training.keep_grids",
    "training.eval_metrics",
    "training.eval_samples",
    "training.eval_split",
    "training.eval_features",
    "training.best_metric",
    "training.early_stopping",
    "system.image_draw",
    "data.data_cache",
}
"""What is written, shown and measured beside training: test_life_cycle.py changes them and looks at the weights' bits;
for the cache, tests/data/test_cache.py looks at the images' bits."""

EXTENDS = {"training.train_steps"}

LAYOUT = {"training.distribution", "training.logical_devices"}
"""How a run is laid out over devices: tests/integration/test_worker_processes.py goes on with other numbers of workers."""

PLACE = {"data.dataset", "data.data_dir", "system.perceptual_weights"}
"""Where the images and files are: free where they are known to be the same. tests/integration/test_data_that_changed.py moves
the images, tests/models/autoencoders/test_reconstruction.py the file."""

IDLE = {
    **{("cqf", f"system.{name}"): {"posterior": "iaf"} for name in ("iaf_width", "iaf_layers")},
    **{
        (model, f"system.latent_flow_{name}"): {"latent_flow_optimizer": "own"}
        for model in ("glf", "vae_flow_prior", "vae_flow_posterior")
        for name in ("learning_rate", "beta_1", "beta_2")
    },
    **{(model, "system.perceptual_error_weight"): {"reconstruction": "perceptual"} for model in ("wae_gan", "wae_mmd")},
}
"""Options of what a system does not have by default, and the values with which it has it."""

OPTIONS = [
    (model, f"{section}.{field.name}")
    for model, system in SYSTEMS.items()
    for section in ("data", "training", "system")
    if section == "system" or model == "cqf"  # the others are every system's
    for field in dataclasses.fields(Config(model=model).__getattribute__(section))
]


def changed(config, name):
    """A copy of a config with another value of one option, whether or not that could be trained."""
    section, _, field = name.partition(".")
    value = getattr(getattr(config, section), field)
    new = not value if isinstance(value, bool) else value + "x" if isinstance(value, str) else value + 1
    return having(config, section, {field: new})


def having(config, section, values):
    """A copy of a config with these values in a section, unchecked."""
    other, part = copy.copy(config), copy.copy(getattr(config, section))
    for field, value in values.items():
        object.__setattr__(part, field, value)
    object.__setattr__(other, section, part)
    return other


@pytest.fixture
def begun(tmp_path):
    """Function that makes the folder one of a run of a config that has saved step 4."""

    def begun(config):
        workdirs.open_for(config, tmp_path)
        (tmp_path / "checkpoints" / "last").mkdir(parents=True)
        (tmp_path / "checkpoints" / "last" / "step-4.index").write_text("")
        return tmp_path

    return begun


@pytest.mark.parametrize(("model", "name"), OPTIONS, ids=lambda value: value)
def test_every_option_is_fixed_or_may_change(model, name):
    config = Config(model=model)
    other = changed(config, name)
    (difference,) = config.differences(other)
    assert difference.startswith(f"{name}: ")
    may_change = name in FREE | EXTENDS | LAYOUT
    if (model, name) in IDLE:
        assert config.differences_in_numbers(other) == []
        config, other = (having(one, "system", IDLE[model, name]) for one in (config, other))
    assert config.differences_in_numbers(other) == ([] if may_change else [difference])
    assert config.differences_in_numbers(other, held=PLACE) == ([] if may_change or name in PLACE else [difference])
    assert config.differences_in_numbers(other, held=PLACE - {name}) == ([] if may_change else [difference])
    assert (other.apart_from_places() != config.apart_from_places()) == (name not in PLACE)  # what workers compare
    assert config.changes(other).keys() == ({name} if may_change or name in PLACE else set())


def test_the_lists_name_options():
    assert FREE | EXTENDS | LAYOUT <= {name for _, name in OPTIONS}
    facts = {name: Config(model=model)._on_resume(name) for model, name in OPTIONS}
    assert {name for name, fact in facts.items() if fact == "extends"} == EXTENDS
    assert {name for name, fact in facts.items() if fact == "place"} == PLACE
    assert {name for name, fact in facts.items() if fact == "layout"} == LAYOUT
    assert set(facts.values()) == set(ON_RESUME)
    with pytest.raises(ValueError, match="on_resume: expected one of fixed, free, extends, place, layout, received 'perhaps'"):
        option(1, "nothing", on_resume="perhaps")


def test_another_model_or_a_option_that_is_gone_is_another_run():
    assert any(line.startswith("model: ") for line in Config().differences_in_numbers(Config(model="vae")))
    assert any(line.startswith("system.") for line in Config().differences_in_numbers(Config(model="vae")))


def test_changes_are_recorded_with_their_step_and_the_config_follows(begun):
    first = Config()
    folder = begun(first)
    second = changed(changed(first, "training.train_steps"), "training.log_every")
    workdirs.open_for(second, folder, step=4)
    assert workdirs.read_config(folder) == second
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [(row["step"], row["changes"]) for row in rows] == [
        (4, {"training.log_every": [50, 51], "training.train_steps": [20000, 20001]})
    ]
    workdirs.open_for(second, folder, step=9)  # the same again changes nothing
    third = changed(second, "training.log_every")
    workdirs.open_for(third, folder, step=9)
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [(row["step"], row["changes"]) for row in rows[1:]] == [(9, {"training.log_every": [51, 52]})]


def test_a_kill_between_history_and_config_records_a_change_once(begun, monkeypatch):
    first, second = Config(), changed(Config(), "training.log_every")
    folder = begun(first)
    with monkeypatch.context() as patch:
        patch.setattr(configuration, "write_text", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(UserError, match="cannot be written: No space left"):
            workdirs.open_for(second, folder, step=4)
    assert workdirs.read_config(folder) == first
    workdirs.open_for(second, folder, step=4)
    assert workdirs.read_config(folder) == second
    assert len((folder / "history.jsonl").read_text().splitlines()) == 1


def test_a_fixed_option_is_refused_and_the_others_are_not_named(begun):
    folder = begun(Config())
    other = changed(changed(Config(), "training.seed"), "training.log_every")
    with pytest.raises(UserError, match=r"\(saved -> given\): training.seed: 0 -> 1; expected the same flags"):
        workdirs.open_for(other, folder, step=4)
    assert workdirs.read_config(folder) == Config() and not (folder / "history.jsonl").exists()


@pytest.mark.parametrize("left", ["nothing", "a row of step 0"])
def test_a_run_that_saved_nothing_gives_way(tmp_path, left):
    workdirs.open_for(Config(), tmp_path)
    if left != "nothing":
        workdirs.record_metrics(tmp_path, {"step": 0})
    other = changed(Config(), "training.seed")
    workdirs.open_for(other, tmp_path)
    assert workdirs.read_config(tmp_path) == other


@pytest.mark.parametrize("left", ["best", "row", "broken rows"])
def test_what_a_training_left_keeps_its_configuration(tmp_path, left):
    workdirs.open_for(Config(), tmp_path)
    if left == "best":
        (tmp_path / "checkpoints" / "best").mkdir(parents=True)
        (tmp_path / "checkpoints" / "best" / "step-4.index").write_text("")
    elif left == "row":
        workdirs.record_metrics(tmp_path, {"step": 4})
    else:
        (tmp_path / "metrics.jsonl").write_text("{broken\n")
    with pytest.raises(UserError, match="holds another configuration"):
        workdirs.check_for(changed(Config(), "training.seed"), tmp_path)


def test_the_help_says_which_may_change():
    for _, name in OPTIONS:
        section, _, field = name.partition(".")
        sections = [getattr(Config(model=model), section) for model in SYSTEMS]
        for part in sections:
            if field in part.__dataclass_fields__:
                text = entry_of(type(part), field).text
                assert ("may change when a run is resumed" in text) == (name in FREE | EXTENDS | LAYOUT), name
                assert ("another place with the same content" in text) == (name in PLACE), name


def test_another_environment_is_recorded_with_its_step(begun, monkeypatch):
    folder = begun(Config())
    workdirs.open_for(Config(), folder, step=4)
    assert not (folder / "history.jsonl").exists()
    before = json.loads((folder / "environment.json").read_text())
    monkeypatch.setattr(environment, "environment", lambda: before | {"python": "3.99"})
    workdirs.open_for(Config(), folder, step=4)
    (row,) = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert (row["step"], row["changes"]) == (4, {"environment.python": [before["python"], "3.99"]})
    assert json.loads((folder / "environment.json").read_text())["python"] == "3.99"


def test_a_path_through_a_link_is_the_systems(tmp_path):
    """LINK/.. is above what the link leads to: it must not become the folder above the link."""
    (tmp_path / "real" / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "sub")
    (tmp_path / "real" / "data").mkdir()
    config = Config(data=DataConfig(dataset=f"folder:{tmp_path}/link/../data")).absolute()
    place = config.data.dataset.removeprefix("folder:")
    assert os.path.samefile(place, tmp_path / "real" / "data")
