"""Several evaluated workdirs in one table."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny

from tfcq import workdir as workdirs
from tfcq.errors import UserError
from tfcq.evaluation.compare import compare, latest_numbers

ENTRY = {"value": 3.0, "num_real": 100, "num_generated": 100, "extractor": "pixels", "seconds": 1.0, "real": 0.5}


def make_run(folder, *rows):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(tiny.config(8, latent_size=4).to_json())
    for row in rows:
        workdirs.record_metrics(folder, row)
    return folder


def evaluated(step=10, **entries):
    return {"step": step, "checkpoint": "best", "split": "test"} | entries


def test_the_newest_of_each_number_is_taken(tmp_path):
    folder = make_run(
        tmp_path / "run",
        evaluated(5, fd_pixels=ENTRY | {"value": 9.0}, ms_ssim=ENTRY),  # of another step
        evaluated(10, fd_pixels=ENTRY | {"value": 7.0}),
        evaluated(10, fd_pixels=ENTRY | {"value": 6.0}, elbo=ENTRY),
        evaluated(10, kd_pixels=ENTRY),
        {"step": 20, "split": "validation", "fd_pixels": ENTRY},  # of training
    )
    numbers = latest_numbers(folder)
    assert set(numbers) == {"fd_pixels", "elbo", "kd_pixels"} and numbers["fd_pixels"]["value"] == 6.0


def test_a_table_with_every_workdir_and_a_figure(tmp_path):
    first = make_run(tmp_path / "a", evaluated(fd_pixels=ENTRY, elbo=ENTRY | {"value": 4.25, "standard_error": 0.125}))
    second = make_run(tmp_path / "b", evaluated(fd_pixels=ENTRY | {"value": 2.0, "seconds": 5.0}))
    curve = {"prd_precision": np.linspace(0, 1, 11), "prd_recall": np.linspace(1, 0, 11)}
    (first / "report").mkdir()
    np.savez(first / "report" / "curves.npz", **curve)
    text = compare([first, second], tmp_path / "out").read_text()
    assert "| number | a | b | real |" in text
    assert "| fd_pixels | 3 | 2 | 0.5 |" in text  # seconds are no protocol
    assert "| elbo | 4.25 +- 0.12 |  | 0.5 |" in text
    for name in ("numbers", "prd"):
        assert f"![{name}]({name}.png)" in text
        assert tf.io.decode_png((tmp_path / "out" / f"{name}.png").read_bytes()).shape[2] == 3


def test_numbers_that_were_not_measured_alike_are_marked(tmp_path):
    first = make_run(tmp_path / "a", evaluated(fd_pixels=ENTRY))
    second = make_run(tmp_path / "b", evaluated(fd_pixels=ENTRY | {"num_generated": 50, "extractor": "other"}))
    text = compare([first, second], tmp_path / "out").read_text()
    assert "| fd_pixels (!) | 3 | 3 | 0.5 |" in text
    assert "fd_pixels: not measured alike; they differ in extractor, num_generated." in text


def test_folders_of_one_name_keep_their_paths(tmp_path):
    runs = [make_run(tmp_path / name / "run", evaluated(fd_pixels=ENTRY)) for name in "ab"]
    assert f"| number | {runs[0]} | {runs[1]} | real |" in compare(runs, tmp_path / "out").read_text()


def test_what_was_not_evaluated_is_refused(tmp_path):
    trained = make_run(tmp_path / "run", {"step": 20, "split": "validation", "fd_pixels": ENTRY})
    with pytest.raises(UserError, match="expected an evaluation; make one with python -m tfcq.evaluate --workdir="):
        compare([trained], tmp_path / "out")
    with pytest.raises(UserError, match="expected a trained run"):
        compare([tmp_path / "nothing"], tmp_path / "out")
    (trained / "metrics.jsonl").write_text(json.dumps(evaluated()) + "\n{broken\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl: expected one row of JSON for each evaluation"):
        compare([trained], tmp_path / "out")
