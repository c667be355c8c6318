"""Train on synthetic, test on real, of a folder and of an npz file of generated images with classes."""

import json

import numpy as np
import pytest
import sklearn.datasets
import tiny_models as tiny
from markdown_tables import unpadded
from PIL import Image

import tfcq
from tfcq import data
from tfcq import workdir as workdirs
from tfcq.config import DataConfig
from tfcq.errors import UserError
from tfcq.evaluation.classes import allotted
from tfcq.evaluation.run import evaluate
from tfcq.metrics import tstr, tstr_cnn
from tfcq.randomness import row_seeds

FAST = {"features": "pixels", "cache_dir": "none", "split": "test"}
PER_CLASS = 15


@pytest.fixture(scope="module", name="made")
def fixture_made(tmp_path_factory):
    """A folder with a folder for each digit but 9, of training images with noise."""
    folder = tmp_path_factory.mktemp("utility") / "made"
    dataset = data.load(DataConfig(dataset="digits", image_size=8))
    numbers = [int(entry.key.split()[1]) for entry in dataset.manifest.splits["train"]]
    classes = sklearn.datasets.load_digits().target[numbers]
    random = np.random.default_rng(0)
    for digit in range(9):
        (folder / str(digit)).mkdir(parents=True)
        images = dataset.images("train", np.flatnonzero(classes == digit)[:PER_CLASS])[..., 0]
        noisy = np.clip(images.astype(int) + random.integers(-20, 20, images.shape), 0, 255).astype(np.uint8)
        for number, image in enumerate(noisy):
            Image.fromarray(image).save(folder / str(digit) / f"{number}.png")
    return folder


def test_both_classifiers_are_recorded_and_reported(made, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tstr_cnn, "_MOST", 20)
    row = tfcq.evaluate_images(made, "digits", tmp_path, ["tstr", "tstr_cnn"], **FAST)
    entry = row["tstr_accuracy_pixels"]
    assert entry["num_generated"] == entry["num_real_as_generated"] == 9 * PER_CLASS and entry["split"] == "test"
    targets = sklearn.datasets.load_digits().target
    dataset = data.load(DataConfig(dataset="digits", image_size=8))
    numbers = {split: [int(one.key.split()[1]) for one in dataset.manifest.splits[split]] for split in ("train", "test")}
    counts = {str(digit): int((targets[numbers["test"]] == digit).sum()) for digit in range(10)}
    assert entry["num_of_class"] == counts
    # As scikit-learn's classifier, trained on the files as they are and asked about the test images, has it.
    files = sorted(made.rglob("*.png"))
    pixels = np.stack([np.asarray(Image.open(path)).reshape(-1) for path in files]) / np.float32(255)
    classify = tstr.logistic_regression(pixels, np.array([path.parent.name for path in files]))
    found = classify(dataset.images("test", range(179)).reshape(179, -1) / np.float32(255))
    right = found == targets[numbers["test"]].astype(str)
    assert entry["value"] == pytest.approx(right.mean(), abs=0.006)  # one image may lie at a boundary
    assert entry["recall"]["9"] == 0.0 < entry["real_recall"]["9"] and entry["real"] > 0.8
    assert row["tstr_ratio_pixels"]["value"] == pytest.approx(entry["value"] / entry["real"])
    assert {"tstr_cnn_accuracy", "tstr_cnn_ratio"} <= set(row) and "extractor" not in row["tstr_cnn_accuracy"]
    note = "none of the 135 generated images that classifiers learn of has the class 9"
    text = unpadded((tmp_path / "report.md").read_text())
    assert note in entry["notes"] and note in text
    headings = "class, tstr_accuracy_pixels | test images | recall, trained on generated images | recall, trained on real ones"
    assert headings in text and f"| 9 | {counts['9']} | 0.000 | {entry['real_recall']['9']:.3f} |" in text
    assert "tstr_accuracy_pixels" in capsys.readouterr().out
    assert json.loads((tmp_path / "metrics.json").read_text()) == row


def test_the_accuracy_of_real_images_is_the_mean_over_the_seeds_too(made, tmp_path):
    row = tfcq.evaluate_images(made, "digits", tmp_path, "tstr", False, num_seeds=2, **FAST)
    accuracies, ratios = (np.array(row[f"tstr_{name}_pixels"]["per_seed"]) for name in ("accuracy", "ratio"))
    of_real = accuracies / ratios
    assert of_real[0] != of_real[1] and row["tstr_accuracy_pixels"]["real"] == pytest.approx(of_real.mean())


def test_labels_in_an_npz_file_are_classes_too_and_all_measures_them(tmp_path, monkeypatch):
    monkeypatch.setattr(tstr_cnn, "_MOST", 5)
    digits = sklearn.datasets.load_digits()
    images = np.round(digits.images[:300] / 16 * 255).astype(np.uint8)
    np.savez(tmp_path / "made.npz", images=images, labels=digits.target[:300])
    row = tfcq.evaluate_images(f"npz:{tmp_path}/made.npz", "digits", tmp_path / "a", "all", False, num_samples=200, **FAST)
    assert row["tstr_accuracy_pixels"]["value"] > 0.7 and row["tstr_accuracy_pixels"]["num_generated"] == 200
    np.savez(tmp_path / "made.npz", images=images)
    row = tfcq.evaluate_images(f"npz:{tmp_path}/made.npz", "digits", tmp_path / "a", "all", False, num_samples=200, **FAST)
    assert "fd_pixels" in row and not [name for name in row if name.startswith("tstr")]


def test_images_without_classes_or_of_others_are_refused_in_a_line(made, run, tmp_path):
    def refused(generated, reference, message):
        with pytest.raises(UserError, match=message) as caught:
            tfcq.evaluate_images(generated, reference, tmp_path / "output", "tstr", **FAST)
        assert "\n" not in str(caught.value) and not (tmp_path / "output").exists()

    refused(made / "3", "digits", r"metrics: tstr: generated: /.*/3/\d+.png: expected each image in a folder of its class")
    (tmp_path / "drawn").mkdir()
    (tmp_path / "drawn" / "00000").symlink_to(made / "3")
    refused(tmp_path / "drawn", "digits", "metrics: tstr: expected generated images of the real ones' classes, 0, 1, .*, 7 and 2")
    np.savez(tmp_path / "real.npz", train=np.arange(6400).reshape(100, 8, 8).astype(np.uint8))
    refused(made, f"npz:{tmp_path}/real.npz", "metrics: tstr: reference: dataset npz:.*: expected images with a class .* train_l")
    with pytest.raises(UserError, match="tstr_cnn needs generated images of known classes, and samples of this run have none"):
        evaluate(run, ["tstr_cnn"], **FAST)


def test_a_class_has_as_many_images_as_its_share_says():
    assert np.bincount(allotted([0.5, 0.2, 0.3], 10)).tolist() == [5, 2, 3]
    assert np.bincount(allotted([0.5, 0.2, 0.3], 4)).tolist() == [2, 1, 1]  # of 2, 0.8 and 1.2
    assert np.bincount(allotted([0.45, 0.1, 0.45], 3)).tolist() == [2, 0, 1]  # of 1.35, 0.3 and 1.35
    mixed = allotted([0.5, 0.5], 100)
    assert mixed.dtype == np.int32 and 30 < mixed[:50].sum() * 2 < 70  # the first images are of all classes


def test_samples_of_a_run_with_classes_are_drawn_by_class(tmp_path, monkeypatch):
    monkeypatch.setattr(tstr_cnn, "_MOST", 5)
    tiny.make_workdir(tmp_path / "run", tiny.config(8, model="glf", class_conditional=True))
    row = evaluate(tmp_path / "run", ["tstr", "tstr_cnn", "frechet_distance"], num_samples=60, seed=3, batch_size=25, **FAST)
    model, dataset = workdirs.load(tmp_path / "run"), workdirs.load_data(tmp_path / "run")
    targets = sklearn.datasets.load_digits().target.astype(str)
    numbers = {split: [int(one.key.split()[1]) for one in dataset.manifest.splits[split]] for split in ("train", "test")}
    names, shares = np.unique(targets[numbers["train"]], return_counts=True)
    chosen = allotted(shares / shares.sum(), 60)

    def accuracy(images, classes):
        classify = tstr.logistic_regression(images.reshape(60, -1) / np.float32(255), classes)
        test = dataset.images("test", range(60))
        return np.mean(classify(test.reshape(60, -1) / np.float32(255)) == targets[numbers["test"][:60]])

    entry = row["tstr_accuracy_pixels"]
    drawn = np.asarray(model.sample_class(chosen, row_seeds(60, 3)))
    assert entry["value"] == pytest.approx(accuracy(drawn, names[chosen]), abs=0.034)  # two images may lie at a boundary
    assert entry["real"] == pytest.approx(accuracy(dataset.images("train", range(60)), targets[numbers["train"][:60]]), abs=0.034)
    assert entry["num_generated"] == 60 and entry["seeds"] == [3] and "train_content" in entry["data"]
    assert {"tstr_cnn_accuracy", "fd_pixels"} <= set(row)
    assert "recall, trained on generated images" in (tmp_path / "run" / "report.md").read_text()
