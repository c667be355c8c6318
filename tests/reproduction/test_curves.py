"""The course of a distance through trainings: which points compare, where they are drawn, and when a distance is reached."""

import json
import math

import numpy as np
import pytest
from commands import run_here
from markdown_tables import unpadded
from matplotlib.figure import Figure

from tfcq.config import Config, DataConfig, TrainingConfig
from tfcq.reproduction import report
from tfcq.reproduction.curves import curves_of, draw, lines_of, thresholds_of, write_curves
from tfcq.reproduction.measured import read_run
from tfcq.reproduction.tables import TABLES


def row(step, distance, **more):
    """A row of metrics.jsonl that a training writes."""
    protocol = {"num_generated": 50, "num_real": 30, "extractor": "lite", "seeds": [0], "split": "validation"}
    return {"step": step, "split": "validation", "seed": 3, "fd_lite": {"value": distance} | protocol | more}


@pytest.fixture
def make(tmp_path):
    """Function (name, rows, batch_size, digest of the images, options of the system) -> a folder; 100 training images."""

    def make(name, rows, batch_size=10, images="ab", **system):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
        training = TrainingConfig(batch_size=batch_size)
        config = Config(data=DataConfig(dataset="digits", image_size=8), training=training).to_dict()
        config["system"] |= system
        (folder / "config.json").write_text(json.dumps(config))
        sizes = "train 100, validation 30 (held out of train), test 20 (held out of train)"
        facts = {"description": f"digits: {sizes}; 8x8x1", "image_shape": [8, 8, 1], "fingerprints": {"validation": images}}
        (folder / "data.json").write_text(json.dumps(facts))
        return folder

    return make


def curves(*folders, **options):
    return curves_of([read_run(folder, folder.name) for folder in folders], **options)


def lines(found):
    return unpadded("\n".join(lines_of(found)))


def test_epochs_are_passes_over_the_training_images(make):
    a = make("a", [row(step, distance) for step, distance in ((5, 90.0), (15, 60.0), (40, 41.0), (60, 44.0))])
    b = make("b", [row(4, 100.0), row(10, 58.0)], batch_size=40)  # 2 whole batches of 100 images
    found = curves(a, b, thresholds=[50, 70])
    assert [axis.unit for axis in found.axes] == ["epochs", "steps"] and found.num_courses == 2
    assert [found.axes[0].of(curve.run, step) for curve in found.curves for step, _ in curve.points] == [.5, 1.5, 4, 6, 2, 5]
    text = lines(found)
    assert "| row | smallest | epochs until then | epochs in all | at most 70 | at most 50 |" in text
    assert "| a | 41 | 4 | 6 | 1.5 | 4 |" in text and "| b | 58 | 5 | 5 | 5 | never |" in text
    assert "fd_lite: 50 generated and 30 real images of the validation split" in text and "does not compare" not in text
    # As many steps in an epoch: the second axis would show the same.
    found = curves(a, make("c", [row(1, 3.0)]))
    assert [axis.unit for axis in found.axes] == ["epochs"] and found.steps_per_epoch == 10


def test_measurements_after_training_are_no_part_of_its_course(make):
    later = row(20, 30.0) | {"checkpoint": "last"}
    found = curves(make("a", [row(10, 90.0), row(20, 80.0), later, row(20, 79.0), later]))
    assert [curve.points for curve in found.curves] == [((10, 90.0), (20, 79.0))]


@pytest.mark.parametrize(
    ("images", "more", "expected"),
    [
        ("ab", {"num_generated": 500}, "generated images (500 instead of 50)"),
        ("ab", {"split": "test"}, "split (test instead of validation)"),
        ("cd", {}, "the images"),
        ("ab", {"extractor": "inception"}, "extractor (inception instead of lite)"),
    ],
)
def test_what_was_measured_otherwise_does_not_compare(make, images, more, expected):
    folders = [make(name, [row(10, 90.0), row(20, 80.0)]) for name in ("a", "b")]
    found = curves(make("other", [row(10, 9.0, **more), row(20, 8.0, **more)], images=images), *folders, thresholds=[85])
    assert [(curve.label, bool(curve.unlike)) for curve in found.curves] == [("a", False), ("b", False), ("other", True)]
    text = lines(found)
    remark = "- other, steps 10 to 20: does not compare, as it differs from the others in "
    assert remark in text and expected in text[text.index(remark) :] and "| other |" not in text and "| a | 80 |" in text


def test_a_run_that_was_measured_in_two_ways_is_not_one_line(make):
    rows = [row(10, 90.0, num_real=9), row(20, 80.0, num_real=9), row(30, 99.0), row(40, 95.0), row(50, math.nan)]
    found = curves(make("a", rows), make("b", [row(10, 70.0)]), make("c", []))
    assert {(curve.label, curve.points) for curve in found.curves} == {
        ("a", ((30, 99.0), (40, 95.0))), ("b", ((10, 70.0),)), ("a", ((10, 90.0), (20, 80.0)))}  # fmt: skip
    assert found.num_courses == 1
    assert [remark.split(":")[0] for remark in found.remarks] == ["a, step 50", "a, steps 10 to 20", "c"]
    assert "--eval_metrics=frechet_distance" in found.remarks[2] and "real images (9 instead of 30)" in found.remarks[1]


def test_minutes_follow_the_timed_steps_of_each_stage(make):
    one = make("one", [row(10, 90.0), row(30, 80.0)])
    two = make("two", [row(10, 90.0), row(30, 80.0)], first_stage_steps=20)
    found = curves(one, two, thresholds=[85], ms_per_step={"one": [6000.0], "two": [600.0, 3000.0], "not run": [1.0]})
    assert [axis.unit for axis in found.axes] == ["epochs", "minutes of steps"]
    assert [found.axes[1].of(curve.run, step) for curve in found.curves for step, _ in curve.points] == [1.0, 3.0, 0.1, 0.7]
    assert "| two | 80 | 0.7 | 0.7 | 0.7 |" in lines(found) and "| two | 80 | 3 | 3 | 3 |" in lines(found)
    assert [axis.unit for axis in curves(one, two, ms_per_step={"one": [6000.0]}).axes] == ["epochs"]


def test_without_the_number_of_training_images_steps_are_counted(make):
    folders = [make("a", [row(10, 90.0)]), make("b", [row(10, 80.0), row(1000, 50.0)])]
    (folders[0] / "data.json").unlink()
    found = curves(*folders, thresholds=[60])
    assert [axis.unit for axis in found.axes] == ["steps"] and found.remarks[-1].startswith("a: the number of training images")
    assert "| b | 50 | 1,000 | 1,000 | 1,000 |" in lines(found)


@pytest.mark.parametrize(
    ("bests", "expected"),
    [
        ([43.6, 57.9], [60, 55, 50, 45]),
        ([57.9, 188.9, 43.6], [200, 150, 100, 50]),
        ([0.31, 0.34], [0.36, 0.34, 0.32]),
        ([100.0], [110, 105, 100]),
        ([3.0, 5000.0], [5000, 4000, 3000, 2000, 1000]),
        ([-1e-9, 5.0], []),
        ([], []),
    ],
)
def test_thresholds_are_round_and_from_the_best_run_to_all(bests, expected):
    assert thresholds_of(bests) == expected


def test_points_are_drawn_where_the_numbers_are(make):
    found = curves(
        make("a", [row(10, 90.0), row(20, 10.0)]),
        make("b", [row(10, 80.0), row(20, 70.0)]),
        make("c", [row(10, 8.0, num_real=7), row(30, 7.0, num_real=7)]),
        ms_per_step=dict.fromkeys("abc", [60e3]),
    )
    figure = Figure()
    draw(figure, found)
    for axes, scale in zip(figure.axes, (10, 1)):
        drawn = {line.get_label(): line for line in axes.get_lines() if not line.get_label().startswith("_")}
        assert list(drawn) == ["a", "b", "c (does not compare)"]
        np.testing.assert_allclose(drawn["a"].get_xydata(), [[10 / scale, 90.0], [20 / scale, 10.0]])
        np.testing.assert_allclose(drawn["c (does not compare)"].get_xydata(), [[10 / scale, 8.0], [30 / scale, 7.0]])
        assert [line.get_linestyle() for line in drawn.values()] == ["-", "-", "--"] and axes.get_yscale() == "log"
    assert [axes.get_xlabel() for axes in figure.axes] == ["epochs", "minutes of steps"]
    (above,) = figure.axes[0].child_axes
    assert above.get_xlabel() == "steps" and figure.axes[0].get_ylabel() == "Frechet distance (fd_lite), lower is better"
    figure.draw_without_rendering()
    assert above.get_xlim() == pytest.approx([10 * limit for limit in figure.axes[0].get_xlim()])


def test_a_table_shows_them_from_two_rows_on(make, tmp_path):
    folders = {name: make(name, [row(10, 90.0), row(20, 80.0)]) for name in ("glf", "vae")}
    short = make("one", [row(20, 80.0)])
    assert write_curves(tmp_path / "curves.png", {"glf": folders["glf"], "one": short}, fewest=2).num_courses == 1
    assert not (tmp_path / "curves.png").exists()
    found = write_curves(tmp_path / "curves.png", folders, [85.0], fewest=2)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    text = unpadded(report.write_report(TABLES["glf"], {}, tmp_path, [], curves=found).read_text())
    assert "(curves.png)" in text and "| vae | 80 | 2 | 2 | 2 |" in text
    written = json.loads((tmp_path / "report.json").read_text())["curves"]
    assert written["thresholds"] == [85.0] and written["rows"]["vae"]["points"] == [[10, 90.0], [20, 80.0]]
    assert written["rows"]["vae"]["step_at_most"] == [20] and written["rows"]["vae"]["steps_per_epoch"] == 10
    assert "curves" not in report.write_report(TABLES["glf"], {}, tmp_path, []).read_text()


def test_the_command_draws_runs_and_prints_the_table(make, tmp_path):
    runs, picture = [make("a", [row(10, 90.0)]), make("b", [row(10, 80.0), row(20, 70.0)])], tmp_path / "curves.png"
    arguments = f"--curves={picture}", f"--runs={runs[0]},{runs[1]}"
    status, output, errors = run_here("reproduce", *arguments, "--thresholds=75,85")
    assert (status, errors) == (0, "") and output.endswith(f"\nwrote {picture}\n")
    assert "| b | 70 | 2 | 2 | 1 | 2 |" in unpadded(output) and picture.read_bytes().startswith(b"\x89PNG")
    for wrong in ("abc", "0", "nan"):
        status, _, errors = run_here("reproduce", *arguments, f"--thresholds=80,{wrong}")
        assert status == 2 and f"expected distances above 0, such as 100,80,60, received '{wrong}'" in errors
    status, _, errors = run_here("reproduce", f"--curves={picture}", f"--runs={make('c', [{'step': 1}])}")
    assert status == 2 and "no run has Frechet distances of its training" in errors and errors.count("\n") == 1
