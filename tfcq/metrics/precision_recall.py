"""Precision and recall of distributions (PRD): a curve that separates lack of fidelity from lack of coverage.

Sajjadi, Bachem, Lucic, Bousquet, Gelly: Assessing Generative Models via Precision and Recall, 2018. For discrete
distributions P (real) and Q (generated) and a slope lambda > 0, their Algorithm 1 gives one point of the curve:

    precision = sum_w min(lambda P(w), Q(w))        recall = precision / lambda

The precision at the steepest slope is Q(support of P), the fraction of Q that lies where P does; the recall at the
flattest is P(support of Q), the fraction of P that lies where Q does. Features become discrete by k-means on the union of
both samples.
"""

import dataclasses

import numpy as np
import threadpoolctl
from numpy.typing import ArrayLike
from sklearn.cluster import MiniBatchKMeans

from tfcq.errors import UserError
from tfcq.metrics.checks import check_same_columns
from tfcq.metrics.metric import Measured, Metric

_SMALLEST_ANGLE = 1e-10  # radians; at 0 and pi / 2 themselves the slope or its inverse is infinite
_F_WEIGHT = 8.0  # the paper's choice: recall, or precision, counts 8 times the other


@dataclasses.dataclass(frozen=True)
class PrecisionRecall:
    """A PRD curve of A points, from the flattest slope to the steepest, and its summary.

    Attributes:
        precision: float64 [A] in [0, 1], rising; its last value is the largest.
        recall: float64 [A] in [0, 1], falling; its first value is the largest.
        f_8: the largest F-score on the curve that weighs recall 8 times: low where modes are missing.
        f_1_8: the largest that weighs precision 8 times: low where samples are bad.
    """

    precision: np.ndarray
    recall: np.ndarray
    f_8: float
    f_1_8: float


def prd(
    real: np.ndarray,
    generated: np.ndarray,
    num_clusters: int = 20,
    num_angles: int = 1001,
    num_runs: int = 10,
    seed: int = 0,
) -> PrecisionRecall:
    """The PRD curve of two samples of features, averaged over several clusterings.

    Args:
        real: float [N, D].
        generated: float [N, D]; as many as real, since the clusters follow the larger sample. Compare only curves of
            one N.
        num_clusters: number of clusters of k-means, at most 2 N.
        num_angles: A, the number of points of the curve; odd, so that the slope 1 is among them.
        num_runs: number of clusterings that are averaged.
        seed: non-negative integer. The same seed gives the same curve.

    Returns:
        `PrecisionRecall`.

    Raises:
        UserError: for bad features, unequal numbers of them, or a setting out of its range.
    """
    real, generated = check_same_columns(real=real, generated=generated)
    if len(real) != len(generated):
        raise UserError(
            f"PRD: expected equally many real and generated features, received {len(real)} and {len(generated)}: "
            "cut the larger sample"
        )
    if not 1 <= num_clusters <= 2 * len(real) or num_runs < 1:
        raise UserError(
            f"PRD: expected num_clusters from 1 to {2 * len(real)} (all features) and num_runs of at least 1, received "
            f"{num_clusters} and {num_runs}"
        )
    union = np.concatenate([real, generated])
    curves = []
    for run_seed in np.random.default_rng(seed).integers(2**31, size=num_runs):
        clustering = MiniBatchKMeans(num_clusters, n_init=10, random_state=int(run_seed))
        # Its batches are too small to divide: on busy cores, threads that wait for one another took 20 times as long.
        with threadpoolctl.threadpool_limits(1):
            labels = clustering.fit_predict(union)
        of_real, of_generated = (
            np.bincount(part, minlength=num_clusters) / len(part) for part in (labels[: len(real)], labels[len(real) :])
        )
        curves.append(prd_curve(of_real, of_generated, num_angles))
    precision, recall = np.mean(curves, axis=0)
    return PrecisionRecall(
        precision=precision,
        recall=recall,
        f_8=float(_f_scores(precision, recall, _F_WEIGHT).max()),
        f_1_8=float(_f_scores(precision, recall, 1.0 / _F_WEIGHT).max()),
    )


def prd_curve(
    real_probabilities: ArrayLike, generated_probabilities: ArrayLike, num_angles: int = 1001
) -> tuple[np.ndarray, np.ndarray]:
    """The curve of two discrete distributions (Algorithm 1).

    Args:
        real_probabilities: [K], at least 0, of sum 1: P.
        generated_probabilities: [K], the same: Q.
        num_angles: A, at least 3 and odd; the slopes are tan of angles evenly spread over (0, pi / 2).

    Returns:
        (precision, recall): float64 [A] each.

    Raises:
        UserError: for other shapes, for histograms that are not distributions, or for an even or too small number of angles.
    """
    real, generated = (np.asarray(p, np.float64) for p in (real_probabilities, generated_probabilities))
    if real.ndim != 1 or real.shape != generated.shape:
        raise UserError(f"PRD: expected two histograms [K], received {list(real.shape)} and {list(generated.shape)}")
    for name, histogram in (("real", real), ("generated", generated)):
        if not (histogram >= 0).all() or abs(histogram.sum() - 1) > 1e-6:
            raise UserError(
                f"PRD: expected probabilities of sum 1, received a sum of {histogram.sum()} and a minimum of "
                f"{histogram.min(initial=np.inf)} in the {name} histogram: divide the counts by their sum"
            )
    if num_angles < 3 or num_angles % 2 == 0:
        raise UserError(f"PRD: expected an odd num_angles of at least 3, received {num_angles}: 1001 is usual")
    slopes = np.tan(np.linspace(_SMALLEST_ANGLE, np.pi / 2 - _SMALLEST_ANGLE, num_angles))
    precision = np.minimum(slopes[:, None] * real, generated).sum(axis=1)
    # Rounding may take a sum of probabilities above 1.
    return np.minimum(precision, 1.0), np.minimum(precision / slopes, 1.0)


def _f_scores(precision, recall, weight):
    """(1 + w^2) p r / (w^2 p + r), and 0 where p = r = 0. [A], [A] -> [A]."""
    scale = weight**2 * precision + recall
    return (1.0 + weight**2) * precision * recall / np.where(scale > 0, scale, 1.0)


def _measure(real, generated, seed):
    count = min(len(real), len(generated))
    result = prd(real.features[:count], generated.features[:count], seed=seed)
    detail = {"num_compared": count}
    return Measured(
        {"prd_f8": result.f_8, "prd_f1_8": result.f_1_8},
        {"prd_f8": detail, "prd_f1_8": detail},
        curve={"precision": result.precision, "recall": result.recall},
    )


METRIC = Metric(_measure, needs="features")
