"""Likelihoods over a split, and grids of pictures."""

import json
import math

import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny
from grid_cells import cells
from markdown_tables import unpadded

from tfcq import data
from tfcq import workdir as workdirs
from tfcq.engine.best import Criterion
from tfcq.engine.checkpoints import Checkpoints
from tfcq.errors import UserError
from tfcq.evaluation.likelihood import LikelihoodEvaluator, likelihood_auroc
from tfcq.evaluation.pictures import Pictures
from tfcq.evaluation.run import evaluate
from tfcq.grids import grid
from tfcq.randomness import row_seeds

SHAPE = (8, 8, 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(workdir, model) of a VAE with a flow, on digits; the weights are random."""
    folder = tmp_path_factory.mktemp("workdir") / "run"
    tiny.make_workdir(folder, tiny.config(8, latent_size=4, flow_couplings=1, quality_weight=0.0))
    return folder, workdirs.load(folder)


@pytest.fixture(scope="module")
def evaluator(run):
    return LikelihoodEvaluator(run[1])


def in_batches(images, size):
    return [images[start : start + size] for start in range(0, len(images), size)]


# Likelihoods.


def test_the_area_under_the_roc_curve_counts_pairs_with_ties_half_and_takes_infinities():
    inside, outside = np.array([1.0, 2.0, 2.0, np.inf]), np.array([2.0, np.inf, -np.inf])
    pairs = [(high > low) + 0.5 * (high == low) for high in outside for low in inside]
    assert likelihood_auroc(inside, outside) == pytest.approx(sum(pairs) / 12)


def test_numbers_do_not_depend_on_the_batch_size(evaluator):
    images = tiny.images(SHAPE, 12)
    for measure in (lambda batches: evaluator.elbo_terms(batches)["elbo"], lambda batches: evaluator.log_prob(batches, 3)):
        whole = measure([images])
        assert whole.dtype == np.float64 and whole.shape == (12,) and len(set(whole)) == 12
        for size in (1, 5):
            np.testing.assert_allclose(measure(in_batches(images, size)), whole, atol=1e-3)


def test_each_image_has_the_seed_of_its_place(evaluator, run):
    images = tiny.images(SHAPE, 4)
    expected = run[1].elbo(images, row_seeds(4, seed=5))
    terms = evaluator.elbo_terms(in_batches(images, 3), seed=5)
    np.testing.assert_allclose(terms["elbo"], expected, rtol=1e-5)
    np.testing.assert_allclose(terms["log_det"] - terms["reconstruction"] - terms["kl"], expected, rtol=1e-5)
    expected = run[1].log_prob(images, row_seeds(4, seed=5), 2)
    np.testing.assert_allclose(evaluator.log_prob(in_batches(images, 3), 2, seed=5), expected, rtol=1e-5)
    assert (np.abs(evaluator.elbo_terms([images], seed=6)["elbo"] - terms["elbo"]) > 1e-3).all()


def test_progress_is_told_how_many_images_are_done(evaluator):
    done = []
    evaluator.elbo_terms(in_batches(tiny.images(SHAPE, 7), 3), progress=done.append)
    assert done == [3, 6, 7]


def test_one_graph_serves_every_batch_and_every_number_of_samples(run):
    traces = []

    class Counted:
        image_shape = SHAPE

        def elbo_terms(self, images, seeds):
            return {"elbo": tf.cast(seeds[:, 0], tf.float32)}

        def log_prob(self, images, seeds, count):
            traces.append(count)
            return tf.fill(tf.shape(images)[:1], tf.cast(count, tf.float32))

    evaluator = LikelihoodEvaluator(Counted())
    for count, size in ((1, 2), (1000, 5)):
        np.testing.assert_array_equal(evaluator.log_prob(in_batches(tiny.images(SHAPE, 7), size), count), [count] * 7)
    assert len(traces) == 1


def test_the_summary_is_mean_and_standard_error(evaluator):
    values = np.array([-100.0, -150.0, -80.0, -120.0, -170.0])
    summary = evaluator.summary(values)
    bits = -values / (64 * math.log(2.0))
    error = math.sqrt(sum((bit - bits.mean()) ** 2 for bit in bits) / 4) / math.sqrt(5)
    expected = {
        "nats": -124.0,
        "bits_per_dim": bits.mean(),
        "bits_per_dim_standard_error": error,
        "num_images": 5,
    }
    assert summary == pytest.approx(expected)
    assert evaluator.summary(values[:1])["bits_per_dim_standard_error"] is None


def test_evaluate_records_numbers_with_their_protocol(run, capsys):
    folder, model = run
    row = evaluate(folder, split="test", num_images=30, num_importance_samples=4, seed=3, batch_size=7)
    dataset = data.load(workdirs.read_config(folder).data)
    images, seeds = dataset.images("test", range(30)), row_seeds(30, seed=3)
    for name, expected in (("elbo", model.elbo(images, seeds)), ("bits_per_dim", model.log_prob(images, seeds, 4))):
        assert row[name]["nats"] == pytest.approx(float(tf.reduce_mean(expected)), rel=1e-5)
        assert row[name]["num_images"] == 30
    terms = row["elbo"]["terms"]
    assert terms["log_det"] - terms["reconstruction"] - terms["kl"] == pytest.approx(row["elbo"]["nats"], rel=1e-5)
    for name, nats in terms.items():
        assert row["elbo"]["terms_bits_per_dim"][name] == pytest.approx(nats / (np.prod(SHAPE) * np.log(2.0)), rel=1e-5)
    assert row["bits_per_dim"]["num_importance_samples"] == 4 and "num_importance_samples" not in row["elbo"]
    protocol = {"step": 1, "checkpoint": "last", "split": "test", "seed": 3}
    assert {key: row[key] for key in protocol} == protocol  # "last": the run has kept no best
    assert json.loads((folder / "metrics.json").read_text()) == row
    assert json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1]) == row
    told, *lines = capsys.readouterr().out.splitlines()
    assert told == f"workdir {folder}: no best checkpoint is kept, so the last is taken, of step 1"
    assert lines[0].startswith(f"elbo: {row['elbo']['bits_per_dim']:.4f} +- ") and lines[0].endswith(
        "(test, 30 images, ELBO)"
    )
    assert lines[1].startswith(f"  of {-row['elbo']['nats']:.5g} nats: ") and f"kl {terms['kl']:.5g}" in lines[1]
    assert lines[2].endswith("(test, 30 images, K=4)")


def test_evaluate_takes_no_more_images_than_there_are(run):
    row = evaluate(run[0], ["elbo"], split="validation", num_images=10**6)
    assert row["elbo"]["num_images"] == 179 and "bits_per_dim" not in row


def test_evaluate_refuses_what_it_cannot(run, tmp_path):
    with pytest.raises(
        UserError, match=r"expected all or some of elbo, bits_per_dim, .*, received 'elbow' \(did you mean elbo\?\)"
    ):
        evaluate(run[0], ["elbow"])
    with pytest.raises(UserError, match="split: expected one of train, validation, test, train_and_validation, received 'tset'"):
        evaluate(run[0], ["elbo"], split="tset")
    with pytest.raises(UserError, match="expected a trained run"):
        evaluate(tmp_path)
    tiny.make_workdir(tmp_path, tiny.config(8, latent_size=4, **tiny.ROWS["gan"]))
    with pytest.raises(UserError, match="does not support likelihood; it supports: decode, interpolate_noise, sample"):
        evaluate(tmp_path, ["elbo"])
    with pytest.raises(UserError, match="has no likelihood; expected --metrics=frechet_distance,"):
        evaluate(tmp_path)
    assert not (tmp_path / "metrics.json").exists()


def test_a_density_of_latents_is_measured_as_such(tmp_path, capsys):
    model = tiny.make_workdir(tmp_path, tiny.config(8, model="glf"))
    Checkpoints(tmp_path, model, 2).save_if_best(2.5, Criterion("reconstruction_error"))
    row = evaluate(tmp_path, num_images=30, seed=3, batch_size=7)
    images = data.load(workdirs.read_config(tmp_path).data).images("test", range(30))
    expected = model.latent_likelihood(images, row_seeds(30, seed=3))
    told, *lines = capsys.readouterr().out.splitlines()
    chosen = "reconstruction_error 2.5 on the validation split (lower is better)"
    assert told == f"the best checkpoint, of step 1, was chosen by {chosen}"
    assert (row["checkpoint"], row["chosen_by"]) == ("best", chosen)
    assert f"Checkpoint: best, chosen by {chosen}. " in (tmp_path / "report.md").read_text()
    for name, line in zip(("latent_log_prob", "reconstruction_error"), lines):
        values = expected[name].astype(np.float64)
        assert row[name]["value"] == pytest.approx(values.mean(), rel=1e-5)
        assert row[name]["standard_error"] == pytest.approx(values.std(ddof=1) / np.sqrt(30), rel=1e-4)
        assert (row[name]["num_images"], row[name]["split"], row[name]["seed"]) == (30, "test", 3)
        assert line.startswith(f"{name}: {row[name]['value']:.5g} +- ") and line.endswith("(test, 30 images)")
        assert f"| {name} | {row[name]['value']:.5g} |" in unpadded((tmp_path / "report.md").read_text())
    assert "elbo" not in row and "bits_per_dim" not in row
    with pytest.raises(UserError, match="does not support likelihood; it supports: .*latent_likelihood"):
        evaluate(tmp_path, ["elbo"])


def test_a_density_of_images_is_none_of_latents(run):
    with pytest.raises(UserError, match="does not support latent_likelihood"):
        evaluate(run[0], ["latent_likelihood"])


# Pictures.


@pytest.fixture(scope="module")
def pictures(run):
    return Pictures(run[1])


def near(received, expected):
    """Images that another batch size may round otherwise in a few values."""
    assert np.abs(received.astype(int) - np.asarray(expected).astype(int)).max() <= 1


def test_samples_are_those_of_their_seeds_in_any_number(pictures, run):
    seven = pictures.samples(7, seed=2, temperature=0.8)
    near(seven, run[1].sample(row_seeds(7, seed=2), 0.8))
    near(pictures.samples(3, seed=2, temperature=0.8), seven[:3])
    assert pictures.samples(70).shape == (70, *SHAPE)  # more than a batch
    picture = pictures.sample_grid(7, seed=2, temperature=0.8)
    assert picture.shape == (3 * 48 + 2 * 2, 3 * 48 + 2 * 2, 1)  # 8 pixels are shown as 48, and gutters of 2
    found = cells(picture, 3, 8)
    np.testing.assert_array_equal(found[:7], seven)
    assert (found[7:] == 224).all()


def test_reconstructions_stand_beside_their_images(pictures, run):
    images = tiny.images(SHAPE, 6)
    picture = pictures.reconstruction_grid(images, seed=1)
    found = cells(picture, 4, 8)
    assert len(found) == 12
    np.testing.assert_array_equal(found[0::2], images)
    near(found[1::2], run[1].reconstruct(images, row_seeds(6, seed=1)))


def test_interpolations_begin_and_end_with_reconstructions(pictures, run):
    images = tiny.images(SHAPE, 5)
    picture = pictures.interpolation_grid(images, num_steps=6, seed=1)
    found = cells(picture, 6, 8)  # two pairs; the odd one is left out
    found = found.reshape(2, 6, *SHAPE)
    seeds = row_seeds(2, seed=1)  # a pair's
    first, second = images[0:4:2], images[1:4:2]
    near(found[:, 0], run[1].reconstruct(first, seeds))
    near(found[:, -1], run[1].reconstruct(second, seeds))
    near(found[:, 2], run[1].decode(0.6 * run[1].encode(first, seeds) + 0.4 * run[1].encode(second, seeds)))


def test_a_spherical_interpolation_takes_another_way_between_the_same_ends(pictures):
    images = tiny.images(SHAPE, 2)
    ways = [cells(pictures.interpolation_grid(images, num_steps=5, spherical=way), 5, 8) for way in (False, True)]
    for place in (0, -1):
        near(ways[0][place], ways[1][place])
    assert np.abs(ways[0][2].astype(int) - ways[1][2]).max() > 2


def test_between_new_images_each_row_goes_from_one_to_the_next(pictures):
    found = cells(pictures.noise_interpolation_grid(2, num_steps=6, seed=1, temperature=0.8), 6, 8).reshape(2, 6, *SHAPE)
    samples = pictures.samples(4, seed=1, temperature=0.8)
    near(found[:, 0], samples[0::2])
    near(found[:, -1], samples[1::2])
    ways = [cells(pictures.noise_interpolation_grid(2, num_steps=5, spherical=way), 5, 8) for way in (False, True)]
    assert np.abs(ways[0][2].astype(int) - ways[1][2]).max() > 0
    for pairs, steps in ((0, 8), (4, 1)):
        with pytest.raises(UserError, match=f"at least 1 pair and 2 steps, received {pairs} and {steps}"):
            pictures.noise_interpolation_grid(pairs, steps)


def test_interpolation_refuses_too_little(pictures):
    for count, steps in ((1, 8), (4, 1)):
        with pytest.raises(UserError, match=f"at least 2 images and 2 steps, received {count} and {steps}"):
            pictures.interpolation_grid(tiny.images(SHAPE, count), steps)


def test_a_super_resolution_stands_beside_its_image_and_its_compressed_image():
    model = tiny.build(tiny.config(16, model="srvae"), 3)
    tiny.perturb(model.trainable_variables, 0.05)
    images, artist = tiny.images((16, 16, 3), 2), Pictures(model)
    found = cells(artist.super_resolution_grid(images, num_draws=3, seed=1), 5, 16).reshape(2, 5, 16, 16, 3)
    np.testing.assert_array_equal(found[:, 0], images)
    compressed = model.compress(images)
    np.testing.assert_array_equal(found[:, 1, ::2, ::2], compressed)
    np.testing.assert_array_equal(found[:, 1, 1::2, 1::2], compressed)
    drawn = model.super_resolve(compressed.repeat(3, 0), row_seeds(6, seed=1))
    # Another graph rounds otherwise, and a draw of a mixture may then take another component.
    assert (np.abs(found[:, 2:].reshape(drawn.shape).astype(int) - drawn) <= 1).mean() > 0.99
    assert np.any(found[:, 2] != found[:, 3])
    pairs = cells(artist.reconstruction_grid(images, 1, "generative_reconstruct"), 2, 16)
    np.testing.assert_array_equal(pairs[0::2], images)
    rebuilt = model.generative_reconstruct(images, row_seeds(2, seed=1))
    assert (np.abs(pairs[1::2].astype(int) - rebuilt) <= 1).mean() > 0.99


def test_a_model_without_an_encoder_draws_what_it_can():
    pictures = Pictures(tiny.build(tiny.config(8, **tiny.ROWS["gan"])))
    np.testing.assert_array_equal(pictures.sample_grid(2), grid(pictures.samples(2)))
    for call in (pictures.reconstruction_grid, pictures.interpolation_grid, pictures.super_resolution_grid):
        with pytest.raises(UserError, match="it supports: decode, interpolate_noise, sample"):
            call(tiny.images(SHAPE, 2))
