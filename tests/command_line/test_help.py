"""What --help shows: every flag once where it belongs, in plain words, in the terminal's width, at once."""

import dataclasses
import re
import time

import pytest
from commands import command, output_of, run_here, start

from tfcq import __main__ as console
from tfcq import config as configs
from tfcq.command_line.help import MOST_USED
from tfcq.config.evaluation import EvaluationConfig

TRAINING_AND_DATA = (configs.DataConfig, configs.TrainingConfig)


@pytest.fixture(autouse=True)
def fixture_eighty_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def shown(name, *arguments):
    """{title of a group: [names of its flags]} of a command's help, and the text in one line."""
    status, output, errors = run_here(name, *arguments)
    assert (status, errors) == (0, "")
    groups, title = {}, ""
    for paragraph in output.split("\n\n"):
        names = re.findall(r"^  --(?:\[no\])?(\w+)", paragraph, re.MULTILINE)
        title = " ".join(paragraph.split("\n  --")[0].split())
        if names:
            groups[title] = names
    return groups, " ".join(output.split())


def names_of(section):
    return [field.name for field in dataclasses.fields(section)]


def test_the_short_help_shows_what_most_runs_set_and_the_systems():
    groups, text = shown("train", "--help")
    assert list(groups) == ["The run", "What most runs set", "Other flags"]
    assert groups["What most runs set"] == ["model", *MOST_USED]
    assert sum(map(len, groups.values())) <= 16
    wanted = {"flagfile", "preset", "model", "dataset", "image_size", "workdir", "train_steps", "batch_size", "learning_rate"}
    assert wanted | {"seed", "precision", "eval_metrics"} <= {name for names in groups.values() for name in names}
    assert text.startswith("usage: tfcq train") and "Trains a model" in text
    systems = run_here("train", "--help")[1].split("Systems (--model=NAME)\n")[1].split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in systems] == list(configs.SYSTEMS)  # a line each
    assert shown("train", "-h") == shown("train", "--help")


@pytest.mark.parametrize("model", configs.SYSTEMS)
def test_the_help_of_a_system_shows_its_options_first_then_data_and_training(model):
    groups, text = shown("train", f"--model={model}", "--help")
    titles, options = list(groups), [name for names in groups.values() for name in names]
    data, training = titles.index("Data (every system)"), titles.index("Training (every system)")
    own = [name for title in titles[:data] for name in groups[title]]
    assert sorted(own) == sorted(names_of(configs.SYSTEMS[model]))
    assert groups["Data (every system)"] == names_of(configs.DataConfig) and training == data + 1
    assert groups["Training (every system)"] == names_of(configs.TrainingConfig)
    assert len(options) == len(set(options))
    section = configs.SYSTEMS[model]()
    for name in own:  # a default that the system has for itself
        if not isinstance(getattr(section, name), bool | str):
            said = re.match(r".*?\(default: ([^ ;)]+)", text.split(f" --{name}=")[1])[1]
            assert said == str(getattr(section, name)), name


def test_a_preset_shows_its_system():
    assert shown("train", "--preset=mnist_glf", "--help") == shown("train", "--help", "--model=glf")


def test_the_full_help_shows_every_option_of_every_system():
    groups, _ = shown("train", "--helpfull")
    for system, section in configs.SYSTEMS.items():
        of = [title for title in groups if title.startswith(f"{system}: ") or re.search(rf"[(, ]{system}[,)]", title)]
        assert set(names_of(section)) <= {name for title in of for name in groups[title]}
    every = {name for names in groups.values() for name in names}
    assert {name for section in TRAINING_AND_DATA for name in names_of(section)} <= every
    assert [title for title in groups if "(cqf, realnvp)" in title and "flow_width" in groups[title]]


@pytest.mark.parametrize("name", ["evaluate", "sample", "export", "serve", "reproduce", "benchmark"])
def test_the_other_commands_show_all_their_flags_in_groups(name):
    groups, text = shown(name, "--help")
    assert text.startswith(f"usage: tfcq {name} ") and "version" in groups["Other flags"] and len(groups) >= 2
    assert max(len(names) for names in groups.values()) <= 26
    if name == "evaluate":
        assert set(names_of(EvaluationConfig)) <= {one for names in groups.values() for one in names}


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_it_is_as_wide_as_the_terminal(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    for name in console.COMMANDS:
        lines = run_here(name, "--helpfull")[1].splitlines()
        lines = [line for line in lines if not line.startswith("    ") or line.startswith(" " * 26)]  # examples stay as they are
        assert max(map(len, lines)) < max(columns, 66)  # a word is not broken
        assert columns < 100 or max(map(len, lines)) > 150


def every_option():
    """(section, field) of all options, each where it is defined."""
    sections = {section for one in (*TRAINING_AND_DATA, EvaluationConfig, *configs.SYSTEMS.values()) for section in one.__mro__}
    for section in sorted(sections, key=lambda section: section.__name__):
        for name in vars(section).get("__annotations__", ()):
            yield section, section.__dataclass_fields__[name]


def test_a_meaning_stands_by_itself():
    """A noun or a verb opens it, and no pronoun refers to another flag's text."""
    for section, field in every_option():
        meaning = field.metadata["meaning"]
        where = f"{section.__name__}.{field.name}: {meaning}"
        assert re.match(r"(the|another|how|how many|what|which|where|\w+s) ", meaning), where
        assert not re.match(r"(its|their|this|that|these|it|they)\b", meaning), where
        assert len(meaning.split()) > 3 and not re.search(r"[^.]\.$", meaning), where


def test_bounds_units_and_choices_are_said():
    text = shown("train", "--model=cqf", "--help")[1]
    for said in (
        "--image_size=N The side of the square images that a model sees (default: 32 pixels; from 4 to 1024).",
        "--optimizer=TEXT The rule that updates the weights, a class of keras.optimizers: adamax | adam | adamw",
        "(default: 20000 steps; at least 1; may change when a run is resumed).",
        "one of float32, mixed_bfloat16, mixed_float16).",
        "may lead to another place of the same content when a run is resumed).",
        "--[no]horizontal_flip Mirrors each training image with probability 1/2 (default: false).",
    ):
        assert said in text


def test_it_comes_at_once():
    begin = time.monotonic()
    output_of(start(command("train", "--helpfull")))
    assert time.monotonic() - begin < 20.0  # generous: it takes 0.3 s alone; with TensorFlow it would take 5 and more


def test_nothing_of_other_libraries_is_shown():
    for name in console.COMMANDS:
        assert not re.search(r"absl|tfds_|verbosity|--only_check_args|--pdb", run_here(name, "--helpfull")[1])
