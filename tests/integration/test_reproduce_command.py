"""`tfcq.reproduce` with the real trainer and evaluator: a row of two stages from the command line to the table."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
from markdown_tables import unpadded

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_row_of_two_stages_is_timed_trained_measured_and_set_beside_the_papers(tmp_path):
    flags = {
        "table": "glf",
        "rows": "two_stage_vae",
        "dataset": "digits",
        "image_size": 8,
        "narrow": 0.02,
        "budget_minutes": 0.02,
        "output": tmp_path / "out",
        "metrics": "latent_likelihood,elbo",  # of which the row has the second alone
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
    # 1.2 s of steps, however long they take on this machine; a third of them in the first of two stages.
    first, second = timing["two_stage_vae"]["ms_per_step"]
    assert rows["two_stage_vae"]["step"] == round(1200 / (first / 3 + second * 2 / 3))
    measured = rows["two_stage_vae"]["evaluation"]["measured"]
    assert measured["elbo"]["num_images"] == 20 and "latent_log_prob" not in measured
    table = unpadded((tmp_path / "out" / "table.md").read_text())
    row = next(line for line in table.splitlines() if line.startswith("| two_stage_vae "))
    assert row.startswith(f"| two_stage_vae | 26.1 | {measured['elbo']['bits_per_dim']:.5g} +- "), row
    assert f"| {first:.4g}, then {second:.4g} |" in row and row.endswith("| measured |"), row
    assert "Row two_stage_vae: --model=two_stage_vae --latent_dim=20 --batch_size=100 " in table
