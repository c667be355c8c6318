"""The list of near copies of a folder of generated images: a copy, a mirrored copy, and images that are none."""

import csv

import numpy as np
import pytest
from grid_cells import cells
from PIL import Image

import tfcq
from tfcq import picture_files
from tfcq.errors import UserError

FAST = {"features": "pixels", "cache_dir": "none", "num_train_images": 1000}


@pytest.fixture(scope="module", name="measured")
def fixture_measured(tmp_path_factory):
    """(row, folder of the output, training images, generated images by name)."""
    folder = tmp_path_factory.mktemp("copies")
    random = np.random.default_rng(3)
    real, test = (random.integers(0, 256, (count, 8, 8), dtype=np.uint8) for count in (120, 110))
    np.savez(folder / "real.npz", train=real, validation=real[:1] // 2, test=test)
    made = dict(zip(("fresh/0", "fresh/1", "fresh/2"), random.integers(0, 256, (3, 8, 8), dtype=np.uint8)))
    made |= {"a copy": real[17], "mirrored": real[5][:, ::-1]}
    for name, image in made.items():
        (folder / "made" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / "made" / f"{name}.png")
    row = tfcq.evaluate_images(folder / "made", f"npz:{folder}/real.npz", folder / "output", "near_copies", **FAST)
    return row, folder / "output", real, made


def test_copies_lead_the_list_and_are_flagged(measured):
    row, folder, _, _ = measured
    with (folder / "report" / "near_copies.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [one["rank"] for one in rows] == list("12345")
    expected = {"generated": "a copy.png", "nearest_by_features": "train/image 17", "nearest_by_pixels": "train/image 17"}
    expected |= {"pixel_distance": "0", "flagged": "features and pixels"}
    assert {name: rows[0][name] for name in expected} == expected
    assert (rows[0]["feature_percentile"], rows[0]["mirrored"], rows[1]["mirrored"]) == ("0", "no", "yes")
    assert (rows[1]["generated"], rows[1]["nearest_by_pixels"], rows[1]["flagged"]) == ("mirrored.png", "train/image 5", "pixels")
    others = {one["generated"]: one["flagged"] for one in rows[2:]}
    assert others == {f"fresh/{number}.png": "no" for number in range(3)}
    entry = row["near_copies_pixels"]
    assert (entry["value"], entry["flagged"], entry["num_train"], entry["near_copy_quantile"]) == (0.4, 2, 120, 0.01)
    # By each space two of 110 are flagged: those with fewer than 1.1 before them.
    assert 2 / 110 <= entry["real"] <= 4 / 110


def test_the_report_names_the_list_and_shows_pairs(measured):
    _, folder, real, made = measured
    text = (folder / "report.md").read_text()
    assert "either flags about 1.8 %" in text  # 2 of 111
    assert "2 of 5 generated images are flagged" in text and "first: report/near_copies.csv." in text
    assert "near_copies.csv" in (folder / "report.html").read_text()
    picture = picture_files.decoded((folder / "report" / "near_copies.png").read_bytes())
    shown = cells(picture, 12, 8, rows=2)
    np.testing.assert_array_equal(np.squeeze(shown[0]), made["a copy"])
    np.testing.assert_array_equal(np.squeeze(shown[1]), real[17])
    np.testing.assert_array_equal(np.squeeze(shown[2]), real[17])
    np.testing.assert_array_equal(np.squeeze(shown[3]), made["mirrored"])
    np.testing.assert_array_equal(np.squeeze(shown[5]), real[5])


def test_two_training_images_are_enough_and_few_held_out_ones_are_told(tmp_path):
    random = np.random.default_rng(0)
    splits = {name: random.integers(0, 256, (count, 8, 8), dtype=np.uint8) for name, count in (("train", 2), ("test", 9))}
    np.savez(tmp_path / "real.npz", validation=splits["test"][:2] // 2, **splits)
    np.savez(tmp_path / "made.npz", images=random.integers(0, 256, (5, 8, 8), dtype=np.uint8))
    row = tfcq.evaluate_images(f"npz:{tmp_path}/made.npz", f"npz:{tmp_path}/real.npz", tmp_path / "out", "near_copies", **FAST)
    note = "9 held-out images are too few for --near_copy_quantile=0.01: by features and by pixels each about 10 % of images"
    assert any(one.startswith(note) for one in row["near_copies_pixels"]["notes"])
    text = (tmp_path / "out" / "report.md").read_text()
    assert "Where nothing is copied, either flags about 10 %." in text and "each followed by its 2 nearest" in text


def test_a_reference_without_training_images_has_no_copies(measured, tmp_path):
    _, folder, _, _ = measured
    made = folder.parent / "made"
    with pytest.raises(UserError, match="near_copies compares with training images, and folder:.* has no train split"):
        tfcq.evaluate_images(made, made, tmp_path, "near_copies", **FAST)
