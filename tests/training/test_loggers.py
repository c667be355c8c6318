"""Where numbers are written: tables that a spreadsheet opens, a service by its package, and both after a run was killed."""

import csv
import json
import sys
import types

import numpy as np
import pytest
import tiny_models as tiny

from tfcq.config import Config, TrainingConfig
from tfcq.errors import UserError
from tfcq.training import loggers
from tfcq.training.run import train

PICTURE = {"samples": np.zeros((4, 4, 1), np.uint8)}


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def config(names, **training):
    settings = {"train_steps": 2, "evaluate_every": 2, "checkpoint_every": 2, "loggers": names} | training
    return tiny.config(8, training=settings, latent_size=4, **tiny.ROWS["vae"])


def test_a_table_has_a_row_a_step_and_a_column_a_scalar(tmp_path):
    made = loggers.Csv(tmp_path)
    made.add("train", 10, {"loss": 0.1, "a,b": float("nan")}, {})
    made.add("validation", 10, {"elbo": 3.0}, PICTURE)
    made.flush("train")
    made.add("train", 20, {"loss": 1e-7, "second/loss": 2.0}, {})  # another stage, with terms of its own
    made.close()
    assert table(tmp_path / "csv" / "train.csv") == [
        {"step": "10", "loss": "0.1", "a,b": "nan", "second/loss": ""},
        {"step": "20", "loss": "1e-07", "a,b": "", "second/loss": "2.0"},
    ]
    assert table(tmp_path / "csv" / "validation.csv") == [{"step": "10", "elbo": "3.0"}]
    again = loggers.Csv(tmp_path)
    again.add("train", 30, {"second/loss": 5.0}, {})
    again.close()
    assert [row["second/loss"] for row in table(tmp_path / "csv" / "train.csv")] == ["", "2.0", "5.0"]


def test_rows_beyond_the_checkpoint_and_half_rows_are_cut_off(tmp_path):
    made, path = loggers.Csv(tmp_path), tmp_path / "csv" / "train.csv"
    for step in (9, 10, 11):
        made.add("train", step, {"loss": step}, {})
    made.close()
    path.write_text(path.read_text() + "12,1")  # killed while it wrote 12.0
    loggers.drop_after(tmp_path, "train", 10)
    assert [row["step"] for row in table(path)] == ["9", "10"]
    loggers.drop_after(tmp_path, "train", -1)
    loggers.drop_after(tmp_path, "validation", 10)
    assert not path.exists()


def test_a_run_that_goes_on_goes_on_in_its_table(tmp_path):
    train(config("csv"), tmp_path)
    train(config("csv", train_steps=4), tmp_path)
    assert [row["step"] for row in table(tmp_path / "csv" / "train.csv")] == ["1", "2", "3", "4"]
    rows = table(tmp_path / "csv" / "validation.csv")
    assert [row["step"] for row in rows] == ["0", "2", "4"]
    measured = [json.loads(line)["elbo"]["bits_per_dim"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [float(row["elbo_bits_per_dim"]) for row in rows] == pytest.approx(measured, rel=1e-6)
    assert not (tmp_path / "tensorboard").exists()


class Run:
    """Stands for a run at Weights & Biases, which refuses steps that fall."""

    def __init__(self, service, given):
        self.id, self.resumed = given["id"], given["id"] in service.runs
        self.rows = service.runs.setdefault(self.id, [])
        self.starting_step = self.rows[-1][0] + 1 if self.rows else 0
        self.finished, self.given = False, given

    def log(self, values, step):
        assert not self.rows or step >= self.rows[-1][0]
        self.rows.append((step, values))

    def finish(self):
        self.finished = True


@pytest.fixture
def wandb(monkeypatch):
    module = types.ModuleType("wandb")
    module.runs, module.begun = {}, []
    module.Settings, module.Image = dict, lambda picture: ("image", picture.shape)

    def init(**given):
        module.begun.append(Run(module, given))
        return module.begun[-1]

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_a_run_that_goes_on_is_one_run_of_the_service_without_a_step_twice(tmp_path, wandb):
    first = config("wandb", checkpoint_every=3, evaluate_every=3, train_steps=3)
    train(first, tmp_path)
    assert json.loads((tmp_path / "wandb.json").read_text()) == {"id": wandb.begun[0].id}
    assert wandb.begun[0].given["config"] == first.to_dict() and wandb.begun[0].given["name"] == tmp_path.name
    for kind in ("last", "best"):  # as if it had been killed before it saved
        for path in (tmp_path / "checkpoints" / kind).glob("*"):
            path.unlink()
    train(config("wandb", checkpoint_every=3, evaluate_every=3, train_steps=4), tmp_path)
    assert [run.id for run in wandb.begun] == [wandb.begun[0].id] * 2 and all(run.finished for run in wandb.begun)
    (rows,) = wandb.runs.values()
    steps = {split: [step for step, row in rows if any(name.startswith(split) for name in row)] for split in loggers.SPLITS}
    assert steps == {"train": [1, 2, 3, 4], "validation": [0, 3, 4]}
    assert rows[0][1]["validation/samples"][0] == "image" and "train/generator/loss" in rows[1][1]


def test_without_the_package_a_line_says_what_to_install_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"^loggers: wandb cannot be imported .*pip install 'tfcq\[wandb\]'"):
        train(config("csv,wandb"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_service_that_refuses_ends_in_a_line_before_the_run_begins(tmp_path, wandb):
    def init(**given):
        raise RuntimeError("api_key not configured\n(no-tty)")

    wandb.init = init
    with pytest.raises(UserError, match=r"^loggers: wandb cannot begin a run: api_key not configured \(no-tty\); .*WANDB_MODE"):
        train(config("wandb"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_package_is_imported_only_where_it_is_named(monkeypatch):
    imported = []
    monkeypatch.setattr(loggers, "_imported", lambda: imported.append(1))
    loggers.check(Config())
    assert not imported
    loggers.check(Config(training=TrainingConfig(loggers="wandb")))
    assert imported == [1]


@pytest.mark.parametrize("names", ["csv,csv", "mlflow", "csv,", " "])
def test_unknown_names_are_refused(names):
    with pytest.raises(UserError, match="^loggers: expected some of tensorboard, csv, wandb, each once, received "):
        TrainingConfig(loggers=names)
    assert TrainingConfig(loggers="csv, wandb").names_of_loggers() == ["csv", "wandb"]
    assert TrainingConfig(loggers="").names_of_loggers() == []
