"""Several evaluated workdirs in one table."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny
from markdown_tables import unpadded

import tfcq
from tfcq import workdir as workdirs
from tfcq.errors import UserError
from tfcq.evaluation.comparable import completed, data_facts, differences
from tfcq.evaluation.comparison import latest_numbers, write_comparison

ENTRY = {"value": 3.0, "num_real": 100, "num_generated": 100, "extractor": "pixels", "seconds": 1.0, "real": 0.5}


def make_run(folder, *rows, data=None, image_shape=None, image_size=8):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(tiny.config(image_size, data, latent_size=4).to_json())
    if image_shape:
        (folder / "data.json").write_text(json.dumps({"image_shape": image_shape, "description": "made up"}))
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
    text = unpadded(write_comparison([first, second], tmp_path / "out").read_text())
    assert "| number | a | b | real | unit | better |" in text
    assert "| fd_pixels | 3 | 2 | 0.5 | | lower |" in text  # seconds are no protocol
    assert "| elbo | 4.25 +- 0.12 | | 0.5 | | lower |" in text
    web = (tmp_path / "out" / "comparison.html").read_text()
    assert "<td>fd_pixels</td><td>3</td><td>2</td>" in web and web.count("<figure><figcaption>") == 2
    assert "real images in their place" not in web
    # With the curve of real images, which an evaluation of this version keeps.
    np.savez(first / "report" / "curves.npz", **curve, prd_real_precision=np.ones(11), prd_real_recall=np.ones(11))
    assert "The dashed curve is of other real images" in write_comparison([first, second], tmp_path / "out").read_text()
    for name in ("numbers", "prd"):
        assert f"![{name}]({name}.png)" in text
        assert tf.io.decode_png((tmp_path / "out" / f"{name}.png").read_bytes()).shape[2] == 3


def test_models_and_images_of_the_numbers_are_told(tmp_path):
    elbo = ENTRY | {"split": "validation", "checkpoint": "last"}
    folder = make_run(tmp_path / "a", evaluated(30, fd_pixels=ENTRY | {"split": "test"}), evaluated(30, elbo=elbo))
    text = write_comparison([folder], tmp_path / "out").read_text()
    assert "- a: step 30, best; step 30, last checkpoint." in text
    assert "- Of test images: fd_pixels." in text and "- Of validation images: elbo." in text


@pytest.mark.parametrize("time, shown", [("that of the numbers", True), ("2001-01-01T00:00:00Z", False), (None, True)])
def test_a_curve_of_another_evaluation_than_the_numbers_is_not_shown(tmp_path, time, shown):
    folder = make_run(tmp_path / "a", evaluated(prd_f8=ENTRY))
    own = workdirs.read_metrics(folder)[-1]["time"]
    curve = {"prd_precision": np.linspace(0, 1, 11), "prd_recall": np.linspace(1, 0, 11)}
    (folder / "report").mkdir()
    kept = {} if time is None else {"time": own if shown else time}  # None: as an earlier version wrote it
    np.savez(folder / "report" / "curves.npz", **curve, **kept)
    text = write_comparison([folder], tmp_path / "out").read_text()
    told = "- a: no curve of precision and recall, as its last report, if any, is of another evaluation."
    assert ("prd.png" in text) == shown and (told in text) != shown


def test_numbers_that_were_not_measured_alike_are_marked(tmp_path):
    first = make_run(tmp_path / "a", evaluated(fd_pixels=ENTRY))
    second = make_run(tmp_path / "b", evaluated(fd_pixels=ENTRY | {"num_generated": 50, "extractor": "other"}))
    text = unpadded(write_comparison([first, second], tmp_path / "out").read_text())
    assert "| fd_pixels (!) | 3 | 3 | 0.5 |" in text
    assert "fd_pixels: not measured alike; they differ in extractor, num_generated." in text


BITS = {"bits_per_dim": 3.0, "bits_per_dim_standard_error": 0.1, "nats": -9.0, "num_images": 20, "split": "test", "seed": 0}


def of_data(**facts):
    return BITS | {"checkpoint": "best", "data": data_facts(tfcq.DataConfig(image_size=8), 1, 90) | facts}


@pytest.mark.parametrize(
    ("changed", "differing"),
    [
        ({"data": {"dataset": "photo_patches"}}, "dataset"),
        ({"image_size": 16}, "image_size"),
        ({"image_shape": (8, 8, 3)}, "channels"),
        ({"data": {"center_crop": 4}}, "center_crop"),
        ({"data": {"resize": "pad"}}, "resize"),
        ({"data": {"held_out": "last"}}, "held_out"),
        ({"data": {"test_split": "validation"}}, "test_split"),
        ({"row": {"checkpoint": "last"}}, "checkpoint"),
        ({"entry": {"split": "validation"}}, "split"),
        ({"entry": {"num_images": 10}}, "num_images"),
        ({"row": {"step": 999}}, ""),
        ({"data": {"num_validation": 9, "horizontal_flip": True}}, ""),  # of training alone
    ],
)
def test_numbers_of_other_data_are_marked_in_rows_of_an_earlier_version(tmp_path, changed, differing):
    """Those whose entries say nothing of the data: the row and the configuration do."""
    first = make_run(tmp_path / "a", evaluated(elbo=BITS) | {"dataset": "digits"}, image_shape=(8, 8, 1))
    row = evaluated(elbo=BITS | changed.get("entry", {})) | changed.get("row", {})
    row["dataset"] = changed.get("data", {}).get("dataset", "digits")
    second = make_run(
        tmp_path / "b",
        row,
        data=changed.get("data"),
        image_shape=changed.get("image_shape", (8, 8, 1)),
        image_size=changed.get("image_size", 8),
    )
    text = unpadded(write_comparison([first, second], tmp_path / "out").read_text())
    assert ("| elbo (!) | 3 +- 0.1 | 3 +- 0.1 |" in text) == bool(differing)
    assert not differing or f"elbo: not measured alike; they differ in {differing}." in text
    assert "- elbo: bits/dim, bound of one draw." in text


@pytest.mark.parametrize(
    ("first", "second", "differing"),
    [
        ({}, {}, []),
        ({}, {"dataset": "photo_patches", "channels": 3}, ["channels", "dataset"]),
        ({}, {"split_images": 91}, ["split_images"]),
        ({}, {"split_images": None}, []),  # not known
        # One set of images in two places, and two in one.
        ({"content": "ab", "dataset": "folder:/one"}, {"content": "ab", "dataset": "folder:/two"}, []),
        ({"content": "ab"}, {"content": "cd"}, ["content"]),
        ({"content": "ab"}, {"content": "ab", "resize": "pad"}, ["resize"]),
        ({"content": "ab"}, {"dataset": "photo_patches"}, ["dataset"]),
    ],
)
def test_what_entries_say_of_their_data_is_compared(first, second, differing):
    assert differences([of_data(**first), of_data(**second)]) == differing
    assert differences([of_data(**first), completed(BITS, {"checkpoint": "best"}, of_data(**second)["data"])]) == differing


def test_other_training_images_are_seen_where_a_number_hangs_on_them():
    one, other = (of_data(content="c", train_content=train) for train in ("a", "b"))
    assert differences([one, other]) == ["train_content"]
    assert differences([one, of_data(content="c")]) == []  # an entry of before does not say


def test_an_entry_that_left_its_seed_to_the_row_is_completed():
    entry = {name: value for name, value in of_data().items() if name != "seed"}
    assert differences([of_data(), completed(entry, {"seed": BITS["seed"]}, {})]) == []
    assert differences([of_data(), completed(entry, {"seed": 7}, {})]) == ["seed"]
    assert "seed" not in completed(entry | {"seeds": [7, 8]}, {"seed": 7}, {})


def test_images_drawn_in_two_ways_are_compared_where_both_say_how():
    drawn = [of_data() | {"image_draw": draw} for draw in ("sample", "mode")]
    assert differences(drawn) == ["image_draw"]
    assert differences([drawn[0], of_data()]) == []  # a system that draws in one way


def test_a_splits_name_and_an_unknown_temperature_make_no_difference():
    """Of images that are no run's it is not known how they were drawn, and the real ones may be a folder of their own."""
    of_run = of_data(content="c") | {"temperature": 1.0}
    of_images = of_data(content="c") | {"split": "all"}
    assert differences([of_run, of_images]) == []
    assert differences([of_run, of_run | {"temperature": 0.5}]) == ["temperature"]
    assert differences([of_data(), of_data() | {"split": "all"}]) == ["split"]


def test_likelihoods_of_other_data_are_compared_as_those(tmp_path):
    runs = [
        make_run(tmp_path / name, evaluated(elbo_other=BITS | {"dataset": other}) | {"dataset": own})
        for name, own, other in (("a", "digits", "photo_patches"), ("b", "cifar10", "photo_patches"), ("c", "digits", "svhn"))
    ]
    assert "(!)" not in write_comparison(runs[:2], tmp_path / "out").read_text()
    assert "elbo_other: not measured alike; they differ in dataset." in write_comparison(runs[1:], tmp_path / "out").read_text()


def test_folders_of_one_name_keep_their_paths(tmp_path):
    runs = [make_run(tmp_path / name / "run", evaluated(fd_pixels=ENTRY)) for name in "ab"]
    assert f"| number | {runs[0]} | {runs[1]} | real |" in unpadded(write_comparison(runs, tmp_path / "out").read_text())


@pytest.mark.parametrize("name", ["comparison.md", "numbers.png", "prd.png"])
def test_what_cannot_be_written_is_told_before_anything_is(tmp_path, name):
    folder, output = make_run(tmp_path / "a", evaluated(elbo=ENTRY)), tmp_path / "out"
    (output / name).mkdir(parents=True)
    with pytest.raises(UserError, match=rf"output .*{name}: cannot be written: Is a directory$"):
        write_comparison([folder], output)
    assert [path.name for path in output.iterdir()] == [name]


def test_what_was_not_evaluated_is_refused(tmp_path):
    trained = make_run(tmp_path / "run", {"step": 20, "split": "validation", "fd_pixels": ENTRY})
    with pytest.raises(UserError, match="expected an evaluation; make one with python -m tfcq.evaluate --workdir="):
        write_comparison([trained], tmp_path / "out")
    with pytest.raises(UserError, match="expected a trained run"):
        write_comparison([tmp_path / "nothing"], tmp_path / "out")
    (trained / "metrics.jsonl").write_text(json.dumps(evaluated()) + "\n{broken\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl: expected one row of JSON for each evaluation"):
        write_comparison([trained], tmp_path / "out")
