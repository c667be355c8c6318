"""`tfcq.reproduce` with the real trainer and evaluator: rows of two systems from the command line to the table."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
from markdown_tables import unpadded

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_rows_of_two_systems_are_trained_measured_and_set_beside_the_papers(tmp_path):
    flags = {
        "table": "glf",
        "rows": "glf,vae",
        "dataset": "digits",
        "image_size": 8,
        "narrow": 0.02,
        "budget_minutes": 0.01,
        "output": tmp_path / "out",
        "metrics": "latent_likelihood,elbo",
        "num_images": 20,
        "nodeterministic": None,
    }
    command = [f"--{name}" if value is None else f"--{name}={value}" for name, value in flags.items()]
    done = subprocess.run(
        [sys.executable, "-m", "tfcq.reproduce", *command],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr
    state = json.loads((tmp_path / "out" / "state.json").read_text())
    rows, timing = state["rows"], state["timing"]
    # 0.6 s of steps, however long they take on this machine.
    assert {name: row["step"] for name, row in rows.items()} == {
        name: max(1, round(600.0 / timing[name]["ms_per_step"][0])) for name in ("glf", "vae")}  # fmt: skip
    measured = {name: row["evaluation"]["measured"] for name, row in rows.items()}
    assert measured["glf"]["latent_log_prob"]["num_images"] == measured["vae"]["elbo"]["num_images"] == 20
    table = unpadded((tmp_path / "out" / "table.md").read_text())
    glf = next(line for line in table.splitlines() if line.startswith("| glf "))
    assert f"| {timing['glf']['ms_per_step'][0]:.4g} |" in glf
    assert f"| 21.3 | n/a | {measured['glf']['latent_log_prob']['value']:.5g} +- " in glf and "| measured |" in glf
    assert "Row vae: --model=vae --learning_rate_drops=0.5:0.5." in table
