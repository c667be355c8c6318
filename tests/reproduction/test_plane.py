"""The coverage-quality plane: which points are drawn where, and what is said of the others."""

import json
import math

import numpy as np
import pytest
from commands import run_here
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from tfcq.config import Config, DataConfig, TrainingConfig
from tfcq.reproduction.measured import labels_of, read_run
from tfcq.reproduction.plane import draw, plane_of, write_plane

PROTOCOL = {"num_generated": 50, "num_real": 30, "extractor": "lite", "seed": 0}


def row(step, bits=None, distance=None, split="test", checkpoint="last", elbo=None):
    """A row of metrics.jsonl."""
    found = {"time": "2026-01-31T12:00:00Z", "step": step, "split": split} | ({"checkpoint": checkpoint} if checkpoint else {})
    for name, value in (("bits_per_dim", bits), ("elbo", elbo)):
        if value is not None:
            found[name] = {"bits_per_dim": value, "bits_per_dim_standard_error": 0.01, "num_images": 40}
    return found | ({} if distance is None else {"fd_lite": {"value": distance} | PROTOCOL})


@pytest.fixture
def make(tmp_path):
    """Function (name, rows, weight, training, options of the system) -> the folder of a run."""

    def make(name, rows, weight=100.0, training=None, **system):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
        config = Config(data=DataConfig(dataset="digits", image_size=8), training=TrainingConfig(**(training or {}))).to_dict()
        config["system"] |= {"quality_weight": weight} | system
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return make


def plane(*folders):
    return plane_of(read_run(folder, folder.name) for folder in folders)


def test_points_are_in_the_order_of_steps_and_the_newest_measurement_counts(make):
    rows = [row(200, 4.9, 120.0), row(100, 5.5, 160.0, checkpoint="best"), row(200, distance=118.0), row(100, 5.4)]
    found = plane(make("cqf", rows))
    assert found.curves == {("cqf", "test"): [(100, 5.4, 160.0), (200, 4.9, 118.0)]}
    assert (found.bits, found.distance, found.remarks, found.num_points) == ("bits_per_dim", "fd_lite", [], 2)


def test_a_distance_on_another_split_is_no_point_of_the_rows_split(make):
    mixed = row(10, elbo=5.0, distance=90.0, split="validation", checkpoint="")
    mixed["fd_lite"]["split"] = "test"  # --eval_split=test
    found = plane(make("cqf", [mixed, row(10, distance=80.0, elbo=4.9, split="validation", checkpoint="last")]))
    assert found.curves == {("cqf", "validation"): [(10, 4.9, 80.0)]}
    found = plane(make("other", [mixed, row(10, elbo=4.8)]))
    assert found.curves == {("other", "test"): [(10, 4.8, 90.0)]}


def test_a_training_that_measures_distances_is_a_curve_of_its_own(make):
    training = [row(step, elbo=5.0 - step / 1e3, distance=90.0 - step, split="validation", checkpoint="") for step in (0, 10, 20)]
    found = plane(make("cqf", [*training, row(20, 4.8, 60.0, elbo=4.9)]))
    assert found.bits == "elbo"  # all four points have it
    assert [step for step, *_ in found.curves["cqf", "validation"]] == [0, 10, 20]
    assert found.curves["cqf", "test"] == [(20, 4.9, 60.0)]
    assert found.remarks == ["elbo: not measured alike; the points differ in split", "fd_lite: not measured alike; the points "
                             "differ in split"]  # fmt: skip


def test_what_is_not_drawn_is_named(make):
    runs = [
        make("vae", [row(10, math.nan, 170.0), row(20, 6.1, 150.0)]),
        make("empty", []),
        make("bits", [row(5, 5.0)]),
        make("bound", [row(5, elbo=5.0, distance=3.0)]),
        make("gan", [row(5, distance=90.0), row(9, distance=80.0)]),
    ]
    found = plane(*runs)
    assert found.curves == {("vae", "test"): [(20, 6.1, 150.0)]} and found.lines == {"gan": 80.0}
    first, *others = found.remarks
    assert first == "vae, step 10: bits_per_dim not finite; not drawn"
    assert [line.split(":")[0] for line in others] == ["empty", "bits", "bound, step 5"]
    assert others[2] == "bound, step 5: elbo instead of bits_per_dim; not drawn" and "tfcq evaluate" in others[0]


def test_runs_that_differ_in_lambda_alone_are_joined(make):
    runs = [make(f"lambda_{weight}", [row(10, 5.0 + weight, 99.0 - weight)], float(weight), width=4) for weight in (10, 0, 1)]
    runs.append(make("wide", [row(10, 4.0, 50.0)], 100.0, width=8))
    assert plane(*runs).by_weight == [[(0.0, 5.0, 99.0), (1.0, 6.0, 98.0), (10.0, 15.0, 89.0)]]


def test_a_run_of_an_earlier_version_has_the_defaults_of_newer_options(make):
    runs = [make(name, [row(10, 5.0, 99.0)], weight) for name, weight in (("before", 1.0), ("now", 10.0))]
    options = json.loads((runs[0] / "config.json").read_text())
    del options["data"]["balance_classes"], options["training"]["early_stopping"]
    (runs[0] / "config.json").write_text(json.dumps(options))
    assert [[weight for weight, *_ in curve] for curve in plane(*runs).by_weight] == [[1.0, 10.0]]


def test_runs_of_another_training_are_not_joined_by_lambda(make):
    def run(name, weight, **training):
        return make(name, [row(10, 5.0 + weight, 99.0 - weight)], weight, training)

    # When it is measured, shown and ended, and on which devices, makes no other run.
    same = {"train_steps": 700, "evaluate_every": 50, "keep_checkpoints": 9, "logical_devices": 2}
    found = plane(run("a", 0.0), run("b", 1.0, **same), run("c", 10.0, batch_size=7), run("d", 20.0, clip_norm=3.0),
                  run("e", 30.0, seed=5))  # fmt: skip
    assert found.by_weight == [[(0.0, 5.0, 99.0), (1.0, 6.0, 98.0)]] and not found.remarks


def test_runs_of_one_lambda_are_both_in_the_curve_and_named(make):
    runs = [make("a", [row(10, 5.0, 99.0)], 1.0), make("b", [row(10, 5.1, 97.0)], 1.0)]
    assert plane(*runs).by_weight == [] and not plane(*runs).remarks  # no curve
    found = plane(*runs, make("c", [row(10, 4.0, 120.0)], 0.0))
    assert found.by_weight == [[(0.0, 4.0, 120.0), (1.0, 5.0, 99.0), (1.0, 5.1, 97.0)]]
    assert found.remarks == ["a, b: the same options, with quality_weight=1; the curve by lambda passes through all of them"]


def test_points_and_labels_are_where_the_numbers_are(make):
    found = plane(
        make("zero", [row(10, 4.5, 150.0), row(12000, 4.0, 100.0)], 0.0),
        make("ten", [row(7, 4.2, 80.0)], 10.0),
        make("gan", [row(7, distance=60.0)], model=1),
    )
    figure = Figure((6.0, 4.0), dpi=100)
    canvas, axes = FigureCanvasAgg(figure), figure.add_subplot()
    draw(axes, found)
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert set(lines) == {"zero", "ten", "gan (no bits/dim)", "by lambda"}
    np.testing.assert_array_equal(lines["zero"].get_xydata(), [[4.5, 150.0], [4.0, 100.0]])
    np.testing.assert_array_equal(lines["by lambda"].get_xydata(), [[4.0, 100.0], [4.2, 80.0]])
    assert set(lines["gan (no bits/dim)"].get_ydata()) == {60.0}
    written = {(text.get_text(), *text.xy) for text in axes.texts}
    assert written == {
        ("10", 4.5, 150.0), ("12,000", 4.0, 100.0), ("7", 4.2, 80.0), ("λ = 0", 4.0, 100.0), ("λ = 10", 4.2, 80.0)}  # fmt: skip
    assert axes.get_xlabel() == "bits/dim (importance-weighted)" and axes.get_ylabel() == "Frechet distance (fd_lite)"
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())
    for x, y, color in ((4.5, 150.0, (31, 119, 180)), (4.2, 80.0, (255, 127, 14))):  # C0, C1
        column, height = axes.transData.transform((x, y))
        assert tuple(pixels[round(400 - height), round(column), :3]) == color


def test_numbers_of_one_step_on_two_splits_stand_once(make):
    """Points on validation and test images are near to each other, and so would the texts beside them be."""
    rows = [row(step, 9.0 - step / 10, 99.0, "validation", None) for step in (5, 10)] + [row(10, 8.1, 95.0)]
    runs = [make(f"{weight:g}", rows, weight) for weight in (1.0, 10.0)]
    axes = Figure().add_subplot()
    draw(axes, plane(*runs))
    written = sorted((text.get_text(), *text.xy) for text in axes.texts)
    of_test = [("λ = 1", 8.1, 95.0), ("λ = 10", 8.1, 95.0)]
    assert written == [*2 * [("10", 8.0, 99.0)], *2 * [("5", 8.5, 99.0)], *of_test]


def test_metrics_json_alone_is_enough_and_folders_of_one_name_are_distinguished(tmp_path):
    folders = [tmp_path / "a" / "cqf", tmp_path / "b" / "cqf"]
    for number, folder in enumerate(folders):
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps(row(10, 4.0 + number, 50.0)))
    labels = labels_of(folders)
    assert labels == {str(folder): folder for folder in folders}
    assert write_plane(tmp_path / "one.png", labels).num_points == 2
    assert Image.open(tmp_path / "one.png").size == (990, 616)
    write_plane(tmp_path / "none.png", labels, fewest=3)
    assert not (tmp_path / "none.png").exists()


def test_the_command_draws_runs(make, tmp_path):
    runs, picture = [make("a", [row(10, 4.0, 50.0)]), make("b", [row(10, 4.0)])], tmp_path / "plane.png"
    status, output, errors = run_here("reproduce", f"--plane={picture}", f"--runs={runs[0]},{runs[1]}")
    assert (status, errors) == (0, "") and output.endswith(f"wrote {picture}: 1 points\n") and output.startswith("b: expected ")
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("content", ["{", "[]", '{"system": [1]}', '{"data": "digits"}'])
def test_a_configuration_that_is_none_is_one_line(make, tmp_path, content):
    run = make("a", [row(10, 4.0, 50.0)])
    (run / "config.json").write_text(content)
    status, _, errors = run_here("reproduce", f"--plane={tmp_path / 'plane.png'}", f"--runs={run}")
    assert status == 2 and "config.json: cannot be read: " in errors and errors.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--plane=p.png"], "or --curves=FILE.png with --runs=DIR,DIR,... and no --table, received --plane"),
        (["--runs=a", "--table=1"], "received --table --runs"),
        (["--curves=c.png", "--table=1"], "received --table --curves"),
        (["--curves=c.txt", "--runs=a"], "ends in .png"),
        (["--plane=p.txt", "--runs=a"], "ends in .png"),
        (["--plane=p.png", "--runs=nowhere"], "expected folders with metrics.json, as tfcq evaluate writes it, received"),
    ],
)
def test_mistakes_are_one_line(arguments, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, errors = run_here("reproduce", *arguments)
    assert status == 2 and expected in errors and errors.count("\n") == 1
