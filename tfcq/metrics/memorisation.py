"""Whether generated images are copies of training images, by the distance of their features to the nearest training image.

References:

* Meehan, Chaudhuri, Dasgupta: A Non-Parametric Test to Detect Data-Copying in Generative Models, 2020.
"""

import numpy as np
import scipy.stats

from tfcq.errors import UserError
from tfcq.metrics.checks import check_same_columns
from tfcq.metrics.metric import Measured, Metric
from tfcq.metrics.neighbours import nearest_neighbours


def memorisation_report(
    generated: np.ndarray, train: np.ndarray, test: np.ndarray, percentile: float = 5.0
) -> dict[str, float]:
    """Whether generated points lie closer to the training set than unseen real points do.

    The unseen points show how close a fair draw comes; d(x) is the distance to the nearest training point. The statistic
    is Meehan et al.'s Z_U, with the variance corrected for ties, over the whole space as one cell: U counts the pairs
    in which d(generated) > d(test), and Z_U = (U - its mean) / its standard deviation where both have one distribution.
    Well below 0 (under -3, say): the model copies; well above: it underfits. Copies of a few images hardly change Z_U:
    `fraction_below_test_percentile` shows those.

    Args:
        generated: float [M, D].
        train: float [T, D], what the model was trained on.
        test: float [N, D], of the same distribution as `train` and disjoint from it.
        percentile: percentile of the test distances, in (0, 100).

    Returns:
        dict of floats: `median_distance_generated`, `median_distance_test`, and `ratio`, the first over the second,
        under 1 for copies; `probability_closer`, that a random d(generated) is below a random d(test), ties counted
        half, 1/2 where nothing is copied; `data_copying_z`, Z_U; `fraction_below_test_percentile`, the fraction
        of generated points whose d is below that percentile of the test set's d; about `percentile` / 100 is expected where
        nothing is copied.

    Raises:
        UserError: for bad features, or if more than half of the test set is in the training set.
    """
    generated, train, test = check_same_columns(generated=generated, train=train, test=test)
    if not 0 < percentile < 100:
        raise UserError(f"percentile: expected a number between 0 and 100, received {percentile}: 5 is usual")
    generated_distances = nearest_neighbours(generated, train)[0][:, 0]
    test_distances = nearest_neighbours(test, train)[0][:, 0]
    median_generated, median_test = np.median(generated_distances), np.median(test_distances)
    if median_test == 0:
        raise UserError(
            "test: expected images that are not in the training set, received more than half that are: fix the split"
        )
    pairs = len(generated) * len(test)
    greater, deviation = _rank_sum(generated_distances, test_distances)
    return {
        "median_distance_generated": float(median_generated),
        "median_distance_test": float(median_test),
        "ratio": float(median_generated / median_test),
        "probability_closer": 1.0 - greater / pairs,
        "data_copying_z": (greater - pairs / 2) / deviation if deviation else 0.0,
        "fraction_below_test_percentile": float(
            np.mean(generated_distances < np.percentile(test_distances, percentile))
        ),
    }


def _rank_sum(first, second):
    """(U, its standard deviation under one distribution): U is Mann and Whitney's count of first > second, ties half."""
    count = len(first) + len(second)
    ranks = scipy.stats.rankdata(np.concatenate([first, second]))
    greater = ranks[: len(first)].sum() - len(first) * (len(first) + 1) / 2
    ties = np.unique(ranks, return_counts=True)[1].astype(np.float64)
    spread = (count + 1) - (ties**3 - ties).sum() / (count * (count - 1))
    return float(greater), float(np.sqrt(max(0.0, len(first) * len(second) / 12 * spread)))


def _measure(real, generated, seed, train):
    result = memorisation_report(generated.features, train.features, real.features)
    return Measured({"memorisation": result.pop("data_copying_z")}, {"memorisation": result})


METRIC = Metric(_measure, needs="features", floor=False, train=True)
