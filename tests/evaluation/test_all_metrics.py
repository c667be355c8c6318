"""All metrics by one call: the row, the report, and what is refused."""

import csv
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny
from grid_cells import cells
from markdown_tables import unpadded

from tfcq import workdir as workdirs
from tfcq.errors import UserError
from tfcq.evaluation import report, training_curves
from tfcq.evaluation.run import evaluate
from tfcq.models.introspective.introvae import IntroVAE
from tfcq.models.introspective.soft_introvae import SoftIntroVAE

SHAPE = (8, 8, 1)

# The command's function.


def test_all_metrics_into_one_row_and_report(run, tmp_path, capsys):
    row = evaluate(
        run, "all", num_samples=40, num_images=20, num_importance_samples=2, likelihood_dataset="photo_patches",
        features="pixels", cache_dir=str(tmp_path), batch_size=16,
    )  # fmt: skip
    numbers = {name for name, entry in row.items() if isinstance(entry, dict)}
    assert numbers == {
        *("elbo", "bits_per_dim", "elbo_other", "bits_per_dim_other", "fd_pixels", "kd_pixels", "prd_f8_pixels"),
        *("prd_f1_8_pixels", "precision_pixels", "recall_pixels", "density_pixels", "coverage_pixels"),
        *("memorisation_pixels", "near_copies_pixels", "ms_ssim", "sliced_wasserstein"),
    }
    assert json.loads((run / "metrics.json").read_text()) == row
    trained_on = {name for name in numbers if "train_content" in row[name]["data"]}
    assert trained_on == {"memorisation_pixels", "near_copies_pixels"}  # they compare with the training images too
    train_images = workdirs.load_data(run).manifest.fingerprint("train")
    assert row["memorisation_pixels"]["data"]["train_content"] == train_images
    assert 0.0 <= row["elbo_other"]["auroc"] <= 1.0 and row["elbo_other"]["dataset"] == "photo_patches"
    text = unpadded((run / "report.md").read_text())
    for name in numbers:
        assert f"| {name} | " in text and f"**{name}**" in text
    for name in ("elbo", "elbo_other"):
        for term, nats in row[name]["terms"].items():
            assert f"| {term} | {nats:.5g} | {nats / (np.prod(SHAPE) * np.log(2.0)):.5g} |" in text
    train = workdirs.load_data(run).num_images("train")
    assert f"its 3 nearest in pixel space among the first 40 of {train:,} training images" in text
    with (run / "report" / "near_copies.csv").open() as file:
        copies = list(csv.DictReader(file))
    assert [row["rank"] for row in copies] == [str(rank) for rank in range(1, 41)]
    assert {row["generated"] for row in copies} == {f"image {number} of seed 0" for number in range(40)}
    assert copies[0]["nearest_by_pixels"].startswith("train/image ") and "(report/near_copies.png)" in text
    few, searched = row["near_copies_pixels"]["notes"]
    assert few.startswith("40 held-out images are too few") and f"the first 40 of {train:,} training images" in searched
    for line in text.splitlines():
        if line.startswith("!["):
            picture = tf.io.decode_png((run / line.split("(")[1].rstrip(")")).read_bytes())
            assert picture.shape[0] > 30
    pictures = {path.stem for path in (run / "report").glob("*.png")}
    assert pictures >= {
        *("samples", "reconstructions", "interpolations", "nearest_neighbours_feature", "prd", "histogram_elbo"),
        *("nearest_neighbours_pixel", "histogram_bits_per_dim", "noise_interpolations"),
    }
    assert any((run / "tensorboard" / "evaluation").iterdir())
    assert "| fd_pixels | " in text and "| elbo | " in text and "| bits/dim, bound of one draw | lower | " in text
    web = (run / "report.html").read_text()
    assert all(name in web for name in numbers) and web.count("<figure><figcaption>") == len(pictures)
    with np.load(run / "report" / report.CURVES) as curves:
        real = curves["prd_real_precision"].max()  # of training images in the place of samples
        assert curves["prd_real_precision"].shape == curves["prd_precision"].shape
        assert real > 0.5 > curves["prd_precision"].max()


def test_the_report_says_among_which_training_images_the_nearest_are():
    assert report.nearest_caption(3, "pixel space", 1439, 1439).endswith("in pixel space among all 1,439 training images.")
    assert report.nearest_caption(3, "pixel space", 1438, 1439).endswith(
        "its 3 nearest in pixel space among the first 1,438 of 1,439 training images (--num_train_images)."
    )


def test_an_introspective_encoders_balance_is_one_figure(tmp_path):
    writer = tf.summary.create_file_writer(str(tmp_path / "tensorboard" / "train"))
    with writer.as_default():
        for step in (10, 20):
            for number, term in enumerate(("kl_real", "kl_reconstructed", "kl_sampled", "margin", "loss", "squared_error")):
                tf.summary.scalar(f"encoder/{term}", float(number + step), step=step)
                tf.summary.scalar(f"generator/{term}", -1.0, step=step)
    writer.close()
    curves = training_curves.training_curves(tmp_path)
    assert curves.keys() == {"balance", "encoder_loss", "generator_loss", "squared_error"}
    errors = {label: (list(steps), list(values)) for label, (steps, values) in curves["squared_error"].items()}
    assert errors == {"encoder": ([10, 20], [15.0, 25.0]), "generator": ([10, 20], [-1.0, -1.0])}
    found = {label: (list(steps), list(values)) for label, (steps, values) in curves["balance"].items()}
    assert found == {
        "KL of real images, nats": ([10, 20], [10.0, 20.0]),
        "KL of reconstructions": ([10, 20], [11.0, 21.0]),
        "KL of samples": ([10, 20], [12.0, 22.0]),
        "margin": ([10, 20], [13.0, 23.0]),
    }


def test_a_discriminators_balance_is_one_figure(tmp_path):
    writer = tf.summary.create_file_writer(str(tmp_path / "tensorboard" / "train"))
    with writer.as_default():
        for number, term in enumerate(("cross_entropy", "accuracy_real", "accuracy_generated")):
            tf.summary.scalar(f"discriminator/{term}", number / 2.0, step=10)
            tf.summary.scalar(f"adversary/{term}", -1.0, step=10)
    writer.close()
    balance = training_curves.training_curves(tmp_path)["balance"]
    values = {label.split(",")[0]: list(values) for label, (_, values) in balance.items()}
    assert values == {
        "the discriminator's cross-entropy": [0.0],
        "its accuracy on real images": [0.5],
        "its accuracy on generated images": [1.0],
    }
    assert {IntroVAE.level_name, SoftIntroVAE.level_name} <= training_curves._BALANCE.keys()


def test_what_cannot_be_measured_is_refused(run):
    refusals = {
        ("fid",): "fid is defined for the Inception graph only",
        ("classifier_score",): "classifier_score needs classes, which the features pixels do not have; expected other --features",
        ("frechet",): r"received 'frechet' \(did you mean frechet_distance\?\)",
        (): "received 'none'",
    }
    for names, message in refusals.items():
        with pytest.raises(UserError, match=message):
            evaluate(run, names, features="pixels", cache_dir="none")
    with pytest.raises(UserError, match=r"unknown option 'num_sample' \(did you mean num_samples\?\)"):
        evaluate(run, ["elbo"], num_sample=3)


def test_samples_are_compared_with_another_data_set(run):
    names, protocol = ["frechet_distance", "ms_ssim"], {"num_samples": 30, "features": "pixels", "cache_dir": "none"}
    entry = evaluate(run, names, reference_dataset="photo_patches", report=False, **protocol)["fd_pixels"]
    assert (entry["reference_dataset"], entry["data"]["dataset"], entry["num_real"]) == ("photo_patches", "photo_patches", 30)
    own = evaluate(run, names, report=False, **protocol)["fd_pixels"]
    assert entry["value"] != own["value"] and entry["data"]["content"] != own["data"]["content"]
    with pytest.raises(UserError, match="memorisation compares with the run's own images; expected it without"):
        evaluate(run, ["memorisation"], reference_dataset="photo_patches", **protocol)
    assert report.scalars("fd_pixels", entry).keys() == {"fd_pixels of photo_patches"}
    before = (run / "metrics.jsonl").read_text()
    with pytest.raises(UserError, match="nowhere"):  # before anything is measured
        evaluate(run, ["elbo"], reference_dataset="idx:/nowhere", **protocol)
    assert (run / "metrics.jsonl").read_text() == before


def test_a_model_without_likelihood_has_all_the_rest(tmp_path):
    tiny.make_workdir(tmp_path, tiny.config(8, latent_size=4, **tiny.ROWS["gan"]))
    row = evaluate(tmp_path, "all", num_samples=30, features="pixels", cache_dir="none")
    assert "fd_pixels" in row and "elbo" not in row
    assert not (tmp_path / "report" / "reconstructions.png").exists()  # there is no encoder

    def shown(name):
        picture = tf.io.decode_png((tmp_path / "report" / f"{name}.png").read_bytes())
        return cells(picture, 8, 8).reshape(8, 8, 8, 8)

    samples, between = shown("samples").reshape(32, 2, 8, 8), shown("noise_interpolations")
    assert np.abs(between[:, [0, -1]].astype(int) - samples[:8]).max() <= 1  # other places in a batch of another graph
    assert (between[:, 3] != samples[:8, 0]).any((1, 2)).all()


def test_numbers_and_pictures_of_one_evaluation_do_not_mix_with_another(run):
    evaluate(run, ["elbo"], num_images=10)
    assert not (run / "report" / "prd.png").exists() and not (run / "report" / "near_copies.csv").exists()
    assert "fd_pixels" not in (run / "report.md").read_text()


@pytest.mark.parametrize("name", ["metrics.jsonl", "metrics.json", "report", "report.html", "tensorboard"])
def test_a_workdir_that_cannot_be_written_is_one_line_before_the_work(run, tmp_path, monkeypatch, name):
    folder = shutil.copytree(run, tmp_path / "run")
    path = folder / name
    if path.is_dir():
        shutil.rmtree(path)
        path.write_text("")  # a file where a folder must be
    else:
        path.unlink()
        path.mkdir()  # and the other way round
    before = sorted(folder.rglob("*"))
    monkeypatch.setattr(workdirs, "load", lambda *_: pytest.fail("told after the work"))
    with pytest.raises(UserError, match=f"workdir {folder}/{name}.*: cannot be written: (Is|Not) a directory"):
        evaluate(folder, ["elbo"], num_images=4)
    assert sorted(folder.rglob("*")) == before
