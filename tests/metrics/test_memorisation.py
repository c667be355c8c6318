"""Distances to training images against SciPy, and cases worked by hand."""

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats

from tfcq.errors import UserError
from tfcq.metrics.memorisation import memorisation_report


def points(count, seed, dimensions=8, loc=0.0, scale=1.0):
    return np.random.default_rng(seed).normal(loc, scale, (count, dimensions)).astype(np.float32)


def column(*values):
    return np.array(values, np.float64)[:, None]


def test_memorisation_worked_by_hand():
    # Nearest training points: generated 0, 1, 4; test 1, 2, 3, 10. Of the 12 pairs generated is greater in 3 (4 over 1,
    # 2, 3) and equal in 1: U = 3.5; ranks with one tie of two among 7: variance = 12/12 (8 - 6/42).
    report = memorisation_report(
        column(0, 101, 204), column(0, 100, 200), column(1, 2, 103, 210), percentile=50
    )
    assert report["median_distance_generated"] == 1.0 and report["median_distance_test"] == 2.5
    assert report["ratio"] == 0.4
    assert report["probability_closer"] == pytest.approx(1 - 3.5 / 12)
    assert report["data_copying_z"] == pytest.approx((3.5 - 6) / np.sqrt(8 - 6 / 42))
    assert report["fraction_below_test_percentile"] == pytest.approx(2 / 3)


def test_memorisation_agrees_with_scipy():
    generated, train, test = points(70, 7, scale=0.9), points(90, 8), points(60, 9)
    generated[:20], test[:5] = train[:20], train[:5]  # ties
    report = memorisation_report(generated, train, test)
    nearest = [
        scipy.spatial.distance.cdist(x.astype(float), train.astype(float)).min(axis=1) for x in (generated, test)
    ]
    expected = scipy.stats.mannwhitneyu(*nearest, use_continuity=False, method="asymptotic")
    assert report["probability_closer"] == pytest.approx(1 - expected.statistic / (70 * 60))
    assert 2 * scipy.stats.norm.sf(abs(report["data_copying_z"])) == pytest.approx(expected.pvalue)


def test_memorisation_tells_fair_draws_copies_and_underfitting_apart():
    train, test = points(400, 10), points(300, 11)
    fair = memorisation_report(points(300, 12), train, test)
    copies = memorisation_report(train[:300] + points(300, 13, scale=0.01), train, test)
    far = memorisation_report(points(300, 14, scale=2.0), train, test)
    assert abs(fair["data_copying_z"]) < 3 and fair["ratio"] == pytest.approx(1, abs=0.1)
    assert fair["fraction_below_test_percentile"] == pytest.approx(0.05, abs=0.04)
    assert copies["data_copying_z"] < -15 and copies["ratio"] < 0.1 and copies["fraction_below_test_percentile"] == 1.0
    assert far["data_copying_z"] > 10 and far["ratio"] > 1.5


def test_a_few_copies_show_in_the_fraction_not_in_the_rank_sum():
    train, test, generated = points(400, 15), points(300, 16), points(300, 17)
    before = memorisation_report(generated, train, test)
    generated[:45] = train[7]
    after = memorisation_report(generated, train, test)
    assert after["fraction_below_test_percentile"] > before["fraction_below_test_percentile"] + 0.1


def test_one_distance_everywhere_has_no_rank_sum_signal():
    report = memorisation_report(column(1, 11), column(0, 10), column(1, -1, 9))
    assert report["data_copying_z"] == 0.0 and report["probability_closer"] == 0.5 and report["ratio"] == 1.0


def test_a_test_set_inside_the_training_set_is_refused():
    train = points(20, 18)
    with pytest.raises(UserError, match="fix the split"):
        memorisation_report(points(10, 19), train, train[:10])


@pytest.mark.parametrize("percentile", [0, 100])
def test_memorisation_refuses_an_empty_percentile(percentile):
    with pytest.raises(UserError, match="percentile"):
        memorisation_report(points(9, 0), points(9, 1), points(9, 2), percentile)
