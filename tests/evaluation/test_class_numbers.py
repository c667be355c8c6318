"""What `evaluate` says of a model with classes: numbers of images given their class, and by class."""

import json

import numpy as np
import pytest
import tiny_models as tiny

import tfcq
from tfcq.evaluation.run import evaluate
from tfcq.randomness import row_seeds

COUNT = 12


@pytest.mark.parametrize("system", ["glf", pytest.param("cqf", marks=pytest.mark.long)])
def test_an_evaluation_measures_given_the_class_and_by_class(system, tmp_path):
    small = {"flow_couplings": 1, "flow_blocks": 0, "quality_weight": 0.0} if system == "cqf" else {}
    model = tiny.make_workdir(tmp_path / "run", tiny.config(8, model=system, class_conditional=True, **small))
    long = system == "cqf"
    row = evaluate(tmp_path / "run", report=long, num_images=COUNT, batch_size=8, num_importance_samples=2, seed=3)
    data = tfcq.Run(tmp_path / "run").data()
    images, classes = data.images("test", range(COUNT)), data.classes_of("test", model.class_names)[:COUNT]
    # The probability of an image's own class, by the number of each.
    given = model.log_prob_given_class(images, classes, row_seeds(COUNT, 3), 2)
    np.testing.assert_allclose(row["log_prob_given_class"]["value"], given.mean(), rtol=1e-5)
    answer = model.class_probabilities(images, row_seeds(COUNT, 3), 2)["probabilities"]
    right = answer.argmax(-1) == classes
    assert row["class_accuracy"]["value"] == right.mean() and row["class_accuracy"]["num_images"] == COUNT
    expected = {str(one): {"value": right[classes == one].mean(), "num_images": (classes == one).sum()} for one in set(classes)}
    assert row["class_accuracy"]["by_class"] == expected
    assert ("bits_per_dim_given_class" in row) == long
    if long:
        nats = given / (64 * np.log(2))
        np.testing.assert_allclose(row["bits_per_dim_given_class"]["value"], -nats.mean(), rtol=1e-5)
        assert sum(one["num_images"] for one in row["elbo"]["by_class"].values()) == COUNT
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["class_accuracy"]["by_class"] == expected
    assert not long or "class_accuracy" in (tmp_path / "run" / "report.md").read_text()
