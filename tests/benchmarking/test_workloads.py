"""A tiny configuration, measured."""

import json

import pytest
import tiny_models as tiny

from tfcq.benchmarking import flop, machine, steps
from tfcq.benchmarking.workloads import Measurement, measure_config, stages_of_training


@pytest.mark.slow
def test_the_lines_of_a_configuration(capsys, monkeypatch):
    monkeypatch.setattr(machine, "rates", lambda dtype: {"float32": 1000.0}[dtype])
    counted, gflop = [], flop.gflop
    monkeypatch.setattr(flop, "gflop", lambda graph: counted.append(gflop(graph)) or counted[-1])
    config = tiny.config(model="glf")
    lines = measure_config(config, Measurement("tiny", calls=3, parts=True, image_channels=1))
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line for line in printed if "part" not in line["workload"]] == lines
    assert [line["workload"] for line in lines] == ["first step", "train step", "sample"]
    assert {line["workload"] for line in printed} >= {f"part: autoencoder, {part}" for part in ("forward", "update")}
    first, step, sample = lines
    assert first["processor_seconds"] > 0.1 and first["seconds"] > 0.1 and first["machine"] == machine.name()
    assert step["images_per_second"] == pytest.approx(step["batch_size"] / step["median_ms"] * 1e3, rel=0.01)
    assert step["gflop_per_second"] == pytest.approx(step["gflop"] / step["median_ms"] * 1e3, rel=0.6)  # rounded gflop
    assert step["fraction_of_peak"] == pytest.approx(step["gflop_per_second"] / 1000.0, abs=1e-3)
    assert sample["min_ms"] <= sample["median_ms"] <= sample["max_ms"]
    # The line has three digits; without a step being taken the same is counted.
    measured = counted[-1]
    assert stages_of_training(config, 1) == [(config.training.train_steps, pytest.approx(measured))] and measured > 1e-5


def test_turns_take_one_call_each_and_leave_out_the_first_rounds(monkeypatch):
    clock, calls = [0.0], []

    def call(name, seconds):
        calls.append(name)
        clock[0] += seconds * (10.0 if len(calls) <= 2 else 1.0)  # a cold start

    monkeypatch.setattr(steps.time, "perf_counter", lambda: clock[0])
    found = steps.in_turns({"a": lambda: call("a", 1.0), "b": lambda: call("b", 4.0)}, rounds=3, warm_up=1)
    assert found == {"a": [1.0] * 3, "b": [4.0] * 3} and calls == ["a", "b"] * 4
