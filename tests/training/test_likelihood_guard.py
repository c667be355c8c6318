"""A likelihood that explodes, or stays worse than noise: told once, by its step, and nothing else is."""

import re

import numpy as np
import pytest

from tfcq.config import TrainingConfig
from tfcq.training.likelihood_guard import LikelihoodGuard


def guard_of(steps_taken=100, train_steps=1000, **options):
    guard = LikelihoodGuard(TrainingConfig(learning_rate=0.25, clip_norm=3.0, train_steps=train_steps, **options))
    guard.set_model(type("Model", (), {"steps_taken": steps_taken, "trained_bound": "elbo"}))
    guard.on_train_begin()
    return guard


def guarded(values, name="elbo_bits_per_dim", **options):
    guard = guard_of(**options)
    for batch, value in enumerate(values):
        guard.on_train_batch_end(batch, {name: value, "generator/loss": 1e12})
    return guard


@pytest.mark.parametrize(
    ("values", "step"),
    [
        ([5.0] * 110 + [1e12] * 200, 250),  # from step 211 on
        ([5.0] * 130 + [1e12] * 200, 300),  # from step 231 on: of those before 250 fewer than half
        ([5.0] * 50 + [5.0, 1e12] * 100, 200),  # one step of two
        ([11.6, *(1e9 * 0.99**step for step in range(300))], 150),  # at the second step, and falling ever since
        ([27.0, 20.0, 1e12, 1e12], None),  # the first steps of many runs, cut short
        ([1e12] * 100, 150),  # a resumed run that had exploded
        ([1e9 * 0.99**step for step in range(100)], 150),  # no beginning, though it falls
        ([1e5 * 0.999**step for step in range(200)], 200),  # too slowly for 1000 steps
        ([20.0 + step / 1000 for step in range(100)], 200),
    ],
)
def test_a_finite_explosion_is_told_once_with_its_step_and_its_options(capsys, values, step):
    guarded(values)
    lines = capsys.readouterr().out.splitlines()
    if step is None:
        assert lines == []
        return
    assert len(lines) == 1
    median = np.median(values[step - 150 : step - 100])
    assert lines[0].startswith(f"step {step}: warning: elbo_bits_per_dim was at {median:.4g} in the last 50 steps (lowest ")
    assert "uniform noise: 8); here --learning_rate=0.25, --clip_norm=3, --warmup_steps=0; a new run may need a lower" in lines[0]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([27.0, 20.0, 1e12, 1e12], "was at 1e+12 (lowest before: 20;"),
        ([1e12], "was at 1e+12 (lowest before: 1e+12;"),
        ([5.0] * 30 + [1e12] * 10, "was at 1e+12 in the last 10 steps (lowest before: 5;"),
        ([300.0 - step / 1000 for step in range(40)], "was at 300 in the last 10 steps (lowest before: 300;"),
        ([5.0] * 52 + [1e12] * 8, "was at 1e+12 in the last 10 steps (lowest before: 5;"),
        ([5.0] * 52 + [1e12] * 2, None),  # a spike, as far as is known
        ([300.0 * 0.9**step for step in range(20)], None),  # a small scale, which falls fast
        ([300.0 * 0.99**step for step in range(19)], None),  # too few steps to tell
        ([27.0, 20.0], None),
        ([300.0], None),
        ([8.0] * 60, None),
    ],
)
def test_the_end_of_a_short_run_is_judged(capsys, values, said):
    guarded(values, steps_taken=0, train_steps=len(values))
    lines = capsys.readouterr().out.splitlines()
    if said is None:
        assert lines == []
    else:
        assert len(lines) == 1 and lines[0].startswith(f"step {len(values)}: warning: elbo_bits_per_dim {said}")


def test_the_end_of_a_stage_is_judged(capsys):
    guard = guarded([5.0] * 10 + [1e12] * 10, steps_taken=0)
    guard.on_train_batch_end(20, {"generator/loss": 1.0})
    guard.on_train_batch_end(21, {"generator/loss": 1.0})
    assert [line.split(" (")[0] for line in capsys.readouterr().out.splitlines()] == [
        "step 20: warning: elbo_bits_per_dim was at 1e+12 in the last 5 steps"
    ]


def test_the_end_of_an_explosion_is_told(capsys):
    guarded([1e12] * 100 + [5.0] * 100 + [1e12] * 100)
    told = [re.match(r"step \d+: .*? at [\d.e+]+", line)[0] for line in capsys.readouterr().out.splitlines()]
    assert told == [
        "step 150: warning: elbo_bits_per_dim was at 1e+12",
        "step 250: elbo_bits_per_dim is at 5",
        "step 350: warning: elbo_bits_per_dim was at 1e+12",
    ]


@pytest.mark.parametrize(
    "values",
    [
        [1e6] * 49 + [8.0] * 100,
        [8.0] * 180,
        [27.0 * 0.998**step for step in range(400)],
        [8.0, 8.0, 1e9] * 100,
        [-3.0] * 200,
        [1.0] * 50 + [-0.5] * 57,  # sharp enough a density falls through 0
        [-2.0] * 50 + [-5.0] * 50,
    ],
    ids=["first", "low", "falling", "spikes", "negative", "through 0", "further"],
)
def test_first_steps_and_spikes_are_no_explosion(capsys, values):
    guarded(values)
    guarded(values, steps_taken=0, train_steps=len(values))
    guarded(values, steps_taken=0, train_steps=100_007)
    guarded([1e9] * 200, "generator/kl")
    guarded([300.0] * 200, warmup_steps=300)  # a rate that is still next to nothing
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([(0, 300.0), (50, 20.0), (100, 8.0)], []),
        ([(0, 300.0), (10, 900.0), (20, 20.0)], []),  # statistics that do not follow the weights yet
        ([(0, 5e7)], []),
        ([(0, 1e12), (50, 1e11)], ["0: warning: NAME is at 1e+12 (uniform noise: 8); here "]),
        ([(0, 9.0), (50, 8.0), (100, 17.0)], ["100: warning: NAME is at 17 (lowest before: 8; "]),
        ([(0, 40.0), (500, 30.0), (1000, 20.0)], ["500: warning: NAME is at 30 (lowest before: 40; "]),
        ([(0, 400.0), (500, 30.0), (1000, 29.0)], ["1000: warning: NAME is at 29 (lowest before: 30; "]),
        ([(50, 8.0), (100, float("nan"))], ["100: warning: NAME is at nan (lowest before: 8; "]),
        ([(50, 8.0), (100, 40.0), (150, 30.0), (200, 9.0)], ["100: warning: NAME is at 40 ", "200: NAME is at 9 again"]),
    ],
    ids=["falling", "first", "small scale", "no beginning", "exploding", "slow", "at the end", "nan", "over"],
)
def test_what_validation_measures_is_judged(capsys, values, said):
    guard = guard_of()
    for step, value in values:
        guard.judge_validation(step, value)
    lines = capsys.readouterr().out.replace("validation elbo_bits_per_dim", "NAME").splitlines()
    assert len(lines) == len(said) and all(map(str.startswith, lines, [f"step {line}" for line in said]))


@pytest.mark.parametrize(
    ("steps_taken", "values", "said"),
    [
        (110, [28.0] * 10 + [30.0] * 30 + [30.0 * 0.98**step for step in range(150)], None),
        (149, [20.0] + [29.0 * 0.99**step for step in range(150)], None),
        (110, [1e12] * 190, "200: warning: NAME was at 1e+12 in the last 50 steps"),
        (110, [30.0] * 890, "250: warning: NAME was at 30 in the last 50 steps"),
        (960, [300.0 - step / 1000 for step in range(40)], "1000: warning: NAME was at 300 in the last 10 steps"),
        (910, [300.0 - step / 1000 for step in range(90)], "1000: warning: NAME was at 299.9 in the last 22 steps"),
    ],
)
def test_the_first_steps_of_a_run_that_goes_on_are_judged_when_they_are_enough(capsys, steps_taken, values, said):
    guarded(values, steps_taken=steps_taken)
    lines = capsys.readouterr().out.replace("elbo_bits_per_dim", "NAME").splitlines()
    told = [line.split(" (")[0] for line in lines]
    assert told == ([f"step {said}"] if said else [])


def test_validation_adds_nothing_to_what_was_told_of_training(capsys):
    guard = guarded([5.0] * 50 + [1e12] * 50)
    guard.judge_validation(150, 5.0)
    guard.judge_validation(200, 1e12)
    assert [line.split(" (")[0] for line in capsys.readouterr().out.splitlines()] == [
        "step 200: warning: elbo_bits_per_dim was at 1e+12 in the last 50 steps"
    ]
