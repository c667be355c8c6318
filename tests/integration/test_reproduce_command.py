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
@pytest.mark.timeout(1800)
def test_rows_of_two_systems_are_trained_measured_and_set_beside_the_papers(tmp_path):
    flags = {
        "table": "glf",
        "rows": "glf,two_stage_vae",
        "dataset": "digits",
        "image_size": 8,
        "narrow": 0.02,
        "budget_minutes": 0.02,
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
        timeout=1700,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr
    state = json.loads((tmp_path / "out" / "state.json").read_text())
    rows, timing = state["rows"], state["timing"]
    times = {name: timing[name]["ms_per_step"] for name in ("glf", "two_stage_vae")}
    assert [len(times[name]) for name in times] == [1, 2]  # of each stage
    # 1.2 s of steps, however long they take on this machine; a third of them in the first of two stages.
    first, second = times["two_stage_vae"]
    expected = {"glf": round(1200 / times["glf"][0]), "two_stage_vae": round(1200 / (first / 3 + second * 2 / 3))}
    assert {name: row["step"] for name, row in rows.items()} == expected
    measured = {name: row["evaluation"]["measured"] for name, row in rows.items()}
    assert measured["glf"]["latent_log_prob"]["num_images"] == measured["two_stage_vae"]["elbo"]["num_images"] == 20
    table = unpadded((tmp_path / "out" / "table.md").read_text())
    glf = next(line for line in table.splitlines() if line.startswith("| glf "))
    assert f"| {times['glf'][0]:.4g} |" in glf
    assert f"| 21.3 | n/a | {measured['glf']['latent_log_prob']['value']:.5g} +- " in glf and "| measured |" in glf
    assert "Row two_stage_vae: --model=two_stage_vae --latent_dim=20 --batch_size=100 " in table
