"""The classifier score against its bounds, SciPy, and TF-GAN."""

import numpy as np
import pytest
import scipy.special
import scipy.stats

from tfcq.errors import UserError
from tfcq.metrics.classifier_score import classifier_score
from tfcq.metrics.tf_gan import import_tensorflow_gan


def random_logits(seed, count=500, num_classes=10, scale=3.0):
    return (scale * np.random.default_rng(seed).normal(size=(count, num_classes))).astype(np.float32)


def score_of_entropies(logits):
    """exp of the mutual information H(y) - H(y|x), by SciPy: another route to the same number."""
    probabilities = scipy.special.softmax(logits.astype(np.float64), axis=1)
    return np.exp(scipy.stats.entropy(probabilities.mean(0)) - scipy.stats.entropy(probabilities, axis=1).mean())


@pytest.mark.parametrize("num_classes", [2, 10, 1000])
@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_agrees_with_entropies_and_with_tf_gan(num_classes, scale):
    logits = random_logits(1, 200, num_classes, scale)
    found = classifier_score(logits, num_splits=1)
    assert found["std"] == 0.0 and found["num_splits"] == 1
    np.testing.assert_allclose(found["mean"], score_of_entropies(logits), rtol=1e-12)
    expected = import_tensorflow_gan().eval.classifier_score_from_logits(logits.astype(np.float64))
    np.testing.assert_allclose(found["mean"], expected, rtol=1e-12)


@pytest.mark.parametrize("count, num_splits", [(500, 10), (503, 10), (20, 7)])
def test_splits_are_consecutive_and_their_deviation_is_of_the_population(count, num_splits):
    logits = random_logits(2, count)
    edges = [int(np.floor(index * count / num_splits)) for index in range(num_splits + 1)]
    scores = np.array([score_of_entropies(logits[start:stop]) for start, stop in zip(edges[:-1], edges[1:])])
    found = classifier_score(logits, num_splits)
    np.testing.assert_allclose(found["mean"], scores.mean(), rtol=1e-12)
    np.testing.assert_allclose(found["std"], np.sqrt(np.mean((scores - scores.mean()) ** 2)), rtol=1e-10)


def test_sure_and_balanced_predictions_score_the_number_of_classes():
    logits = 80.0 * np.tile(np.eye(7, dtype=np.float32), (20, 1))
    found = classifier_score(logits, num_splits=10)
    np.testing.assert_allclose([found["mean"], found["std"]], [7.0, 0.0], atol=1e-12)


def test_equal_predictions_score_one():
    logits = np.tile(random_logits(3, 1), (40, 1))
    np.testing.assert_allclose(classifier_score(logits)["mean"], 1.0, rtol=1e-12)


def test_a_constant_added_to_a_row_changes_nothing():
    logits = random_logits(4).astype(np.float64)
    constants = np.random.default_rng(5).normal(scale=1e4, size=(len(logits), 1))
    moved = classifier_score(logits + constants)["mean"]
    np.testing.assert_allclose(moved, classifier_score(logits)["mean"], rtol=1e-9)


def test_probabilities_that_underflow():
    """Class 2 has probability exp(-2000), 0 in float64, for every image: the score is that of the other two."""
    logits = np.array([[1000.0, 0.0, -1000.0], [0.0, 1000.0, -1000.0]] * 4, np.float32)
    assert classifier_score(logits, num_splits=2)["mean"] == pytest.approx(2.0, rel=1e-12)


def test_no_more_than_the_images_of_a_split():
    logits = 80.0 * np.eye(50, dtype=np.float32)
    assert classifier_score(logits, num_splits=10)["mean"] == pytest.approx(5.0, rel=1e-12)


@pytest.mark.parametrize("num_splits", [0, -1, 21])
def test_refuses_splits_without_images(num_splits):
    with pytest.raises(UserError, match=f"1 to the number of images, 20, received {num_splits}"):
        classifier_score(random_logits(6, 20), num_splits)


@pytest.mark.parametrize("logits", [np.zeros(5, np.float32), np.array([[0.0, np.inf], [0.0, 0.0]])])
def test_refuses_what_are_no_logits(logits):
    with pytest.raises(UserError, match="logits: expected"):
        classifier_score(logits, 1)
