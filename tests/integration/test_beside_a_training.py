"""Evaluations beside a training in another process, which replaces its checkpoints as they are read."""

import json
import signal
import time

import pytest
from commands import TINY, command, start

from tfcq import workdir as workdirs
from tfcq.engine.checkpoints import chosen_by, restore_model
from tfcq.evaluation.run import evaluate

FLAGS = TINY | {
    "train_steps": 10**6,  # more than it comes to
    "checkpoint_every": 1,
    "keep_checkpoints": 2,
    "evaluate_every": 1,
    "learning_rate": 1e-5,  # so that most evaluations are the best so far
    "log_every": 10,
}
SECONDS = 5.0


@pytest.mark.long
def test_what_reads_a_run_beside_its_training_finds_what_it_asks_for(tmp_path, capsys):
    workdir = tmp_path / "run"
    process = start(command("train", workdir=workdir, **FLAGS))
    try:
        while not (workdir / "checkpoints" / "best" / "record.json").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        model, steps, ends = workdirs.load(workdir), [], time.monotonic() + SECONDS
        while time.monotonic() < ends:
            for which in ("best", "last"):
                step, kind = restore_model(model, workdir, which)
                assert kind == which and step == model.steps_taken
                steps.append(step)
            assert chosen_by(workdir, steps[-2])
        row = evaluate(workdir, "elbo", report=False, num_images=8)
        assert row["checkpoint"] == "best" and "chosen_by" in row
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 143 and errors.count("\n") == 1, errors
    finally:
        process.kill()
    said = capsys.readouterr().out
    assert "cannot be read" not in said and "instead of the best" not in said and "no best checkpoint" not in said
    assert len(steps) >= 10 and steps[-1] > steps[0] > 0
    rows = workdirs.read_metrics(workdir)
    assert json.loads((workdir / "metrics.json").read_text()) == rows[-1]
    trained = [row["step"] for row in rows if "checkpoint" not in row]
    assert trained == list(range(len(trained))) and len(trained) > steps[-1]
    assert len(rows) - len(trained) == 1
