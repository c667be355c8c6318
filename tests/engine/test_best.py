"""The best checkpoint by any number: which values are better, what a resumed run knows, what is said of it afterwards."""

import json
import math

import pytest
import tensorflow as tf
from checkpoint_cases import build, steps_in

from tfcq.engine.best import ELBO, Criterion
from tfcq.engine.checkpoints import Checkpoints, chosen_by

DISTANCE = Criterion("fd_pixels", "lower", {"num_generated": 24, "checksum": None})
SCORE = Criterion("classifier_score_x", "higher", {"num_generated": 24})


@pytest.fixture(scope="module", name="model")
def fixture_model():
    return build()


def record(workdir):
    path = workdir / "checkpoints" / "best" / "record.json"
    return [(entry["step"], entry["number"], entry["value"]) for entry in json.loads(path.read_text())]


def saved(checkpoints, model, values, by, first=1):
    """Which of the values, one a step from `first` on, were the best when they were measured: their steps."""
    kept = []
    for step, value in enumerate(values, first):
        model.step.assign(step)
        kept += [step] * checkpoints.save_if_best(value, by)
    return kept


def test_only_finite_values_are_the_best_in_either_direction(tmp_path, model, capsys):
    values = [math.nan, -math.inf, math.inf, 3.0, 4.0, 2.0, math.nan, 4.5, -math.inf, math.inf]
    assert saved(Checkpoints(tmp_path / "lower", model, 2), model, values, DISTANCE) == [4, 6]
    assert saved(Checkpoints(tmp_path / "higher", model, 2), model, values, SCORE) == [4, 5, 8]
    assert record(tmp_path / "higher") == [(4, SCORE.number, 3.0), (5, SCORE.number, 4.0), (8, SCORE.number, 4.5)]
    assert steps_in(tmp_path / "lower", "best") == [6] and steps_in(tmp_path / "higher", "best") == [8]
    assert not capsys.readouterr().out
    said = "classifier_score_x (24 images generated) 4.5 on the validation split (higher is better)"
    assert chosen_by(tmp_path / "higher", 8) == said and chosen_by(tmp_path / "higher", 5).startswith("classifier_score_x (24")
    assert chosen_by(tmp_path / "higher", 7) == "" == chosen_by(tmp_path / "nothing", 8)


@pytest.mark.parametrize(
    ("by", "other"),
    [(DISTANCE, SCORE), (DISTANCE, Criterion("fd_pixels", "lower", {"num_generated": 48, "checksum": None})), (DISTANCE, ELBO)],
)
def test_by_another_number_the_record_begins_anew(tmp_path, model, capsys, by, other):
    checkpoints = Checkpoints(tmp_path, model, 2)
    assert saved(checkpoints, model, [3.5, 3.25], by) == [1, 2]
    assert saved(checkpoints, model, [math.nan, 90.0, 90.0], other, first=3) == [4]
    line = f"step 3: the best checkpoint was chosen by {by} and is chosen by {other} from now on: its record begins anew\n"
    assert capsys.readouterr().out == line
    assert record(tmp_path)[-1] == (4, other.number, 90.0)


def resumed(workdir, model, step):
    checkpoints = Checkpoints(workdir, model, 2)
    assert checkpoints.restore() == step
    return checkpoints


def test_a_resumed_run_knows_the_best_until_its_checkpoint_whatever_the_number(tmp_path, model, capsys):
    checkpoints = Checkpoints(tmp_path, model, 2)
    assert saved(checkpoints, model, [3.5, 3.25], ELBO) == [1, 2]
    checkpoints.save()
    # The number is changed, what was measured is the best by it, and the run is killed before the next checkpoint.
    assert saved(resumed(tmp_path, model, 2), model, [80.0], DISTANCE, first=4) == [4]
    assert "begins anew" in capsys.readouterr().out
    checkpoints = resumed(tmp_path, model, 2)
    assert saved(checkpoints, model, [85.0, 90.0, 70.0], DISTANCE, first=3) == [3, 5]  # not above 3.25: another number
    assert capsys.readouterr().out.count("begins anew") == 1
    assert record(tmp_path) == [(1, "elbo", 3.5), (2, "elbo", 3.25), (3, "fd_pixels", 85.0), (5, "fd_pixels", 70.0)]
    checkpoints.save()
    assert saved(resumed(tmp_path, model, 5), model, [75.0, 69.0], DISTANCE, first=6) == [7]
    # Measured at the step of the checkpoint itself, after that was written.
    assert saved(resumed(tmp_path, model, 5), model, [0.5], SCORE, first=5) == [5]
    assert saved(resumed(tmp_path, model, 5), model, [0.4, 0.6], SCORE, first=6) == [7]
    assert capsys.readouterr().out.count("begins anew") == 1


@pytest.mark.parametrize("content", [None, "{", "[1]", '[{"step": 1}]'])
def test_without_a_record_the_best_is_of_bits_per_dim(tmp_path, model, content):
    """Of an earlier version, or lost."""
    checkpoints = Checkpoints(tmp_path, model, 2)
    assert saved(checkpoints, model, [3.5], ELBO) == [1]
    checkpoints.save()
    path = tmp_path / "checkpoints" / "best" / "record.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    assert chosen_by(tmp_path, 1) == ""
    assert saved(resumed(tmp_path, model, 1), model, [3.6, 3.4], ELBO, first=2) == [3]
    assert chosen_by(tmp_path, 3) == "elbo 3.4 bits/dim on the validation split (lower is better)"


def test_the_format_of_a_checkpoint_is_that_of_earlier_versions(tmp_path, model):
    checkpoints = Checkpoints(tmp_path, model, 2)
    assert saved(checkpoints, model, [3.5], SCORE) == [1]
    names = tf.train.load_checkpoint(str(tmp_path / "checkpoints" / "best" / "step-1")).get_variable_to_shape_map()
    assert [name for name in names if name.startswith("best")] == ["best_value/.ATTRIBUTES/VARIABLE_VALUE"]
