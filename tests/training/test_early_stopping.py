"""--early_stopping: which evaluations count, where training ends, and that such a run can go on."""

import dataclasses
import json
import types

import pytest
import tiny_models as tiny

from tfcq.config import TrainingConfig
from tfcq.errors import UserError
from tfcq.training import callbacks, progress
from tfcq.training.early_stopping import EarlyStopping, StoppedEarly
from tfcq.training.run import train


def stopping(patience, metric="elbo", stage_starts=(0,), abilities=("likelihood", "sample")):
    def cannot(ability):
        return f"this model has no {ability}"

    model = types.SimpleNamespace(stage_starts=stage_starts, abilities=frozenset(abilities), cannot=cannot)
    return EarlyStopping(TrainingConfig(early_stopping=patience, best_metric=metric), model)


def hear(one, values, first=1):
    """Hears a row of bits/dim of each step; returns the reasons."""
    reasons = []
    for step, value in enumerate(values, first):
        one.hear({"step": step, "split": "validation"} | ({} if value is None else {"elbo": {"bits_per_dim": value}}))
        reasons.append(one.reason)
    return reasons


def test_it_counts_the_evaluations_since_the_best():
    one = stopping(2)
    *before, reason = hear(one, [5.0, 4.0, 4.0, 3.0, 3.5, 3.25], first=0)
    assert before == [""] * 5
    assert reason == "early stopping: elbo has not improved in 2 evaluations, since step 3 (3 bits/dim)"
    assert hear(stopping(0), [1.0, 2.0, 3.0, 4.0]) == [""] * 4


def test_values_that_are_not_finite_are_no_improvement_and_rows_without_the_number_do_not_count():
    nan, inf = float("nan"), float("inf")
    assert hear(stopping(2), [4.0, nan, None, None, -inf])[-1].endswith("in 2 evaluations, since step 1 (4 bits/dim)")
    assert hear(stopping(2), [4.0, nan, 3.0, inf])[-1] == ""
    assert hear(stopping(2), [nan, inf])[-1].endswith("in 2 evaluations, since step 1 (no finite value)")


def test_only_the_last_stage_counts():
    one = stopping(2, stage_starts=(0, 3))
    assert hear(one, [1.0, 2.0, 3.0, 9.0, 9.5]) == [""] * 5  # 9 is the first of the stage, and so the best
    assert hear(one, [9.25], first=6)[0].endswith("since step 4 (9 bits/dim)")


def test_a_number_of_samples_in_its_own_direction_and_anew_with_another_protocol():
    def row(step, value, generated):
        return {"step": step, "split": "validation", "precision": {"value": value, "num_generated": generated, "checksum": "a"}}

    one = stopping(2, "precision")
    for step, value in enumerate([0.5, 0.75, 0.7, 0.6], 1):  # higher is better
        one.hear(row(step, value, 100))
    assert one.reason == (
        "early stopping: precision (100 images generated) has not improved in 2 evaluations, since step 2 (0.75)"
    )
    one.hear(row(5, 0.1, 200))
    assert one.reason == ""


def test_a_number_that_is_not_measured_is_refused():
    with pytest.raises(UserError, match="^early_stopping=2 with best_metric=elbo: this model has no likelihood"):
        stopping(2, abilities=("sample",))
    stopping(0, abilities=("sample",))
    with pytest.raises(UserError, match="^early_stopping=2 with num_validation=none: elbo is measured on validation images"):
        tiny.config(data={"num_validation": "none"}, training={"early_stopping": 2})


VALUES = [5.0, 4.0, 3.0, 3.5, 3.25, 2.5, 3.0, float("nan"), 2.75, 2.0]
"""Bits/dim at each step."""


@pytest.fixture(name="measured", autouse=True)
def fixture_measured(monkeypatch):
    """The steps that are evaluated, with VALUES for results."""
    steps = []

    def measure(self, step):
        steps.append(step)
        return {"step": step, "split": "validation", "seed": 0, "elbo": {"bits_per_dim": VALUES[step]}}

    monkeypatch.setattr(callbacks.Evaluation, "_measure", measure)
    return steps


def config(**training):
    options = {"train_steps": 9, "evaluate_every": 1, "checkpoint_every": 100, "early_stopping": 2} | training
    return tiny.config(8, model="vae", training=options)


def steps_of(folder, kind):
    return sorted(int(path.stem.partition("-")[2]) for path in (folder / "checkpoints" / kind).glob("*.index"))


def test_training_ends_and_can_go_on(tmp_path, measured, capsys):
    model = train(config(), tmp_path)
    assert model.steps_taken == 4 and measured == [0, 1, 2, 3, 4]
    reason = "early stopping: elbo has not improved in 2 evaluations, since step 2 (3 bits/dim)"
    assert f"step 4: {reason}\n" in capsys.readouterr().out
    assert (steps_of(tmp_path, "best"), steps_of(tmp_path, "last")) == ([2], [4])
    ended = progress.read(tmp_path)
    assert (ended.state, ended.step, ended.train_steps) == ("stopped", 4, 9)

    measured.clear()
    for training in ({}, {"train_steps": 8}):
        assert train(config(**training), tmp_path).steps_taken == 4 and measured == []
        total = training.get("train_steps", 9)
        assert f"nothing to do: 4 of {total} steps are done; {reason}; expected" in capsys.readouterr().out
    assert progress.read(tmp_path).state == "stopped"

    assert train(config(early_stopping=3), tmp_path).steps_taken == 8
    assert measured == [5, 6, 7, 8] and (steps_of(tmp_path, "best"), steps_of(tmp_path, "last")) == ([5], [4, 8])
    (row,) = map(json.loads, (tmp_path / "history.jsonl").read_text().splitlines())
    assert (row["step"], row["changes"]) == (4, {"training.early_stopping": [2, 3]})


def test_a_run_that_goes_on_counts_on_and_the_last_step_is_no_early_stop(tmp_path, measured):
    assert train(config(train_steps=3), tmp_path).steps_taken == 3
    evaluate = callbacks.Evaluation._evaluate
    with pytest.MonkeyPatch.context() as patch:  # as after an evaluation that was interrupted: the row of step 4 is missing
        patch.setattr(callbacks.Evaluation, "_evaluate", lambda self, step: None if step == 4 else evaluate(self, step))
        assert train(config(train_steps=4), tmp_path).steps_taken == 4
    assert progress.read(tmp_path).state == "done"
    measured.clear()
    assert train(config(), tmp_path).steps_taken == 4 and measured == [4]  # before a step is taken
    assert progress.read(tmp_path).state == "stopped"


@pytest.mark.parametrize(("patience", "said", "ends"), [(2, "ends", True), (2, "", False), (0, "ends", False)])
def test_every_worker_ends_with_the_chief(patience, said, ends):
    class Other:
        """A worker that is not the chief, which says `said`."""

        def each(self, work):
            return work()

        def share(self, text):
            assert text == ""
            return [said, text]

        def wait(self):
            pass

    model = types.SimpleNamespace(stop_training=False, settle=lambda: None, steps_taken=3)
    meeting = callbacks.Meeting(dataclasses.replace(config().training, early_stopping=patience), Other())
    meeting.set_model(model)
    if ends:
        with pytest.raises(StoppedEarly):
            meeting.on_train_begin()
        model.stop_training = False
    else:
        meeting.on_train_begin()
    meeting.on_step(4, {})
    assert model.stop_training == ends
