"""One name, one unit, one estimator: what training, validation and evaluation call their numbers."""

import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny

from tfcq.evaluation import report
from tfcq.evaluation.training_curves import training_curves
from tfcq.metrics import registry

ELBO = {"bits_per_dim": 3.0, "bits_per_dim_standard_error": 0.1, "nats": -9.0, "terms": {"kl": 2.0, "kl/0": 2.0}}
WEIGHTED = {"bits_per_dim": 2.5, "bits_per_dim_standard_error": 0.1, "nats": -7.0, "num_importance_samples": 50}


@pytest.mark.parametrize(
    ("name", "entry", "expected"),
    [
        ("elbo", ELBO, {"elbo_bits_per_dim": 3.0, "elbo_nats": -9.0, "elbo/kl": 2.0, "elbo/kl/0": 2.0}),
        ("bits_per_dim", WEIGHTED, {"importance_weighted_bits_per_dim/K=50": 2.5}),
        (
            "elbo_other",
            ELBO | {"dataset": "svhn", "terms": {}},
            {"elbo_bits_per_dim of svhn": 3.0, "elbo_nats of svhn": -9.0},
        ),
        ("bits_per_dim_other", WEIGHTED | {"dataset": "svhn"}, {"importance_weighted_bits_per_dim/K=50 of svhn": 2.5}),
        ("latent_log_prob", {"value": -4.0}, {"latent_log_prob": -4.0}),
        ("fd_pixels", {"value": 1.5}, {"fd_pixels": 1.5}),
    ],
)
def test_a_tag_of_an_evaluation_has_one_unit_and_one_estimator(name, entry, expected):
    assert report.scalars(name, entry) == expected


def test_evaluation_and_training_have_one_name_for_one_bound():
    model = tiny.build(tiny.config(4, model="vae"))
    nats = {"elbo": -9.0, "kl": 2.0, "kl/0": 2.0}
    tags = model.bound_measures(nats)
    assert tags.keys() == report.scalars("elbo", ELBO).keys()
    assert tags["elbo_bits_per_dim"] == pytest.approx(9.0 / (16 * np.log(2.0))) and tags["elbo_nats"] == -9.0
    # The first of two VAEs has a bound of its own, which is not that of the whole model.
    first = tiny.build(tiny.config(4, model="two_stage_vae"))
    assert not first.bound_measures(nats, first.trained_bound).keys() & tags.keys()


@pytest.mark.parametrize(
    ("entry", "unit"),
    [
        (("elbo", ELBO), "bits/dim, bound of one draw"),
        (("bits_per_dim", WEIGHTED), "bits/dim, 50 importance-weighted draws"),
        (("latent_log_prob", {"value": -4.0}), "nats"),
        (("reconstruction_error", {"value": 4.0}), "squares of pixels in [0, 1]"),
        (("fd_pixels", {"value": 4.0}), ""),
    ],
)
def test_the_report_says_unit_and_estimator(entry, unit):
    assert report.unit_of(*entry) == unit


@pytest.mark.parametrize(
    ("name", "better"),
    [
        *(("elbo", "lower"), ("bits_per_dim", "lower"), ("elbo_other", ""), ("latent_log_prob", "higher"), ("fid", "lower")),
        *(("reconstruction_error", "lower"), ("energy_auroc", ""), ("fd_keras:vgg", "lower"), ("kd_pixels", "lower")),
        *(("inception_score", "higher"), ("classifier_score_a", "higher"), ("prd_f1_8_pixels", "higher"), ("recall_a", "higher")),
        *(("ms_ssim", "near the real one"), ("ms_ssim_pggan", "near the real one"), ("memorisation_pixels", "near 0")),
        *(("sliced_wasserstein", "lower"), ("something_else", "")),
    ],
)
def test_the_report_says_which_values_are_better(name, better):
    assert registry.direction_of(name) == better


def write(folder, split, tags):
    """Writes {tag: {step: value}} as one process would."""
    writer = tf.summary.create_file_writer(str(folder / "tensorboard" / split), filename_suffix=f".{len(tags)}.{id(tags)}")
    with writer.as_default():
        for tag, values in tags.items():
            for step, value in values.items():
                tf.summary.scalar(tag, value, step=step)
    writer.close()


def curves(folder, bound="elbo"):
    found = training_curves(folder, bound)
    return {title: {label: dict(zip(*map(list, curve))) for label, curve in series.items()} for title, series in found.items()}


def test_training_and_validation_are_one_figure_also_where_an_earlier_version_began_the_run(tmp_path):
    write(tmp_path, "train", {"generator/bits_per_dim": {50: 8.0, 100: 7.0}, "generator/elbo": {50: -9.0}})
    later = {"elbo_bits_per_dim": {100: 6.5, 150: 6.0}, "elbo_nats": {150: -5.0}, "latent_log_prob": {150: -3.0}}
    write(tmp_path, "train", later)
    write(tmp_path, "validation", {"bits_per_dim": {100: 7.5}, "elbo": {100: -8.0}})
    write(tmp_path, "validation", {"elbo_bits_per_dim": {200: 5.5}, "elbo_nats": {200: -4.0}, "latent_log_prob": {200: -2.0}})
    found = curves(tmp_path)
    assert found == {
        "elbo_bits_per_dim": {"train": {50: 8.0, 100: 6.5, 150: 6.0}, "validation": {100: 7.5, 200: 5.5}},
        "latent_log_prob": {"train": {150: -3.0}, "validation": {200: -2.0}},
    }
    assert [list(series) for series in found["elbo_bits_per_dim"].values()] == [[50, 100, 150], [100, 200]]
    # What two_stage_vae trains first is another bound than the one that is validated.
    other = curves(tmp_path, "first_stage_elbo")
    assert other["first_stage_elbo_bits_per_dim"] == {"train": {50: 8.0, 100: 7.0}}
