"""PRD curves against hand-worked distributions and the defining sums."""

import numpy as np
import pytest

from tfcq.errors import UserError
from tfcq.metrics import precision_recall


def clusters(counts, seed=0, dimensions=3):
    """float32 [sum(counts), D]: round clusters of deviation 0.1, 30 apart."""
    random = np.random.default_rng(seed)
    centres = 30.0 * np.eye(len(counts), dimensions + len(counts))
    parts = [centre + random.normal(0, 0.1, (count, len(centre))) for centre, count in zip(centres, counts)]
    return np.concatenate(parts).astype(np.float32)


def f_scores(curve, weight):
    precision, recall = curve
    return (1 + weight**2) * precision * recall / (weight**2 * precision + recall)


def test_curve_of_two_coins_is_its_closed_form():
    # P = (1/2, 1/2), Q = (3/4, 1/4): precision(l) = min(l/2, 3/4) + min(l/2, 1/4), joints at 1/2 and 3/2.
    precision, recall = precision_recall.prd_curve([0.5, 0.5], [0.75, 0.25], num_angles=201)
    slopes = np.tan(np.linspace(1e-10, np.pi / 2 - 1e-10, 201))
    expected = np.where(slopes < 0.5, slopes, np.where(slopes < 1.5, slopes / 2 + 0.25, 1.0))
    np.testing.assert_allclose(precision, expected, atol=1e-12)
    np.testing.assert_allclose(recall, expected / slopes, atol=1e-12)
    assert precision[100] == pytest.approx(0.75) and recall[100] == pytest.approx(0.75)  # 1 - total variation


def test_curve_of_partly_disjoint_supports_ends_at_the_shared_masses():
    precision, recall = precision_recall.prd_curve([0.2, 0.8, 0.0], [0.0, 0.3, 0.7])
    assert precision[-1] == pytest.approx(0.3) and recall[0] == pytest.approx(0.8)
    assert recall[-1] == pytest.approx(0.0, abs=1e-9) and precision[0] == pytest.approx(0.0, abs=1e-9)
    assert (np.diff(precision) >= -1e-12).all() and (np.diff(recall) <= 1e-12).all()


def test_curve_of_equal_distributions_is_the_square_and_of_disjoint_ones_zero():
    precision, recall = precision_recall.prd_curve([0.1, 0.6, 0.3], [0.1, 0.6, 0.3])
    assert np.maximum(precision, recall).min() == pytest.approx(1.0)
    np.testing.assert_array_equal(np.stack(precision_recall.prd_curve([1.0, 0.0], [0.0, 1.0])), 0.0)


def test_exchange_of_the_distributions_exchanges_precision_and_recall():
    random = np.random.default_rng(3)
    real, generated = random.dirichlet(np.ones(20)), random.dirichlet(np.ones(20))
    precision, recall = precision_recall.prd_curve(real, generated)
    exchanged_precision, exchanged_recall = precision_recall.prd_curve(generated, real)
    # The slopes are inverse to each other from both ends, to the rounding of tan near pi / 2.
    np.testing.assert_allclose(exchanged_precision[::-1], recall, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(exchanged_recall[::-1], precision, rtol=1e-6, atol=1e-9)


def test_equal_samples_score_one_and_distant_ones_zero():
    sample = np.random.default_rng(0).normal(size=(200, 4))
    equal = precision_recall.prd(sample, sample[::-1], num_runs=2)
    assert equal.f_8 == pytest.approx(1.0) and equal.f_1_8 == pytest.approx(1.0)
    distant = precision_recall.prd(sample, sample + 100.0, num_runs=2)
    assert distant.f_8 == 0.0 and distant.f_1_8 == 0.0


def test_dropped_modes_cost_recall_alone():
    real, generated = clusters([100] * 4), clusters([200, 200, 0, 0], seed=1)
    dropped = precision_recall.prd(real, generated, num_clusters=4, num_runs=3)
    assert dropped.precision[-1] == pytest.approx(1.0) and dropped.recall[0] == pytest.approx(0.5)
    # P = (1/4 x 4), Q = (1/2, 1/2, 0, 0): the curve is precision l/2 up to 1, recall 1/2 down from there: one corner.
    corner = {weight: float(f_scores((1.0, 0.5), weight)) for weight in (8.0, 1 / 8)}
    assert dropped.f_8 == pytest.approx(corner[8.0], rel=1e-3) and dropped.f_1_8 == pytest.approx(
        corner[1 / 8], rel=1e-3
    )
    assert dropped.f_8 < 0.51 and dropped.f_1_8 > 0.98
    swapped = precision_recall.prd(generated, real, num_clusters=4, num_runs=3)
    assert swapped.f_8 == pytest.approx(dropped.f_1_8) and swapped.f_1_8 == pytest.approx(dropped.f_8)


def test_invented_modes_cost_precision_alone():
    real, generated = clusters([200, 0, 0]), clusters([100, 50, 50], seed=1)
    invented = precision_recall.prd(real, generated, num_clusters=3, num_runs=3)
    assert invented.precision[-1] == pytest.approx(0.5) and invented.recall[0] == pytest.approx(1.0)
    assert invented.f_8 > 0.98 and invented.f_1_8 < 0.51


def test_clusters_within_modes_keep_the_ends_of_the_curve():
    real, generated = clusters([400] * 4), clusters([800, 800, 0, 0], seed=1)
    dropped = precision_recall.prd(real, generated, num_runs=3)  # 20 clusters of 4 modes
    assert dropped.precision[-1] > 0.99 and dropped.recall[0] == pytest.approx(0.5, abs=0.01)


def test_averages_the_curves_of_the_runs_and_takes_the_best_f_score_of_the_mean():
    random = np.random.default_rng(5)
    real, generated = random.normal(size=(300, 2)), random.normal(0.7, 1.3, size=(300, 2))
    both = precision_recall.prd(real, generated, num_runs=2, num_angles=101)
    first = precision_recall.prd(real, generated, num_runs=1, num_angles=101)
    second = 2 * both.precision - first.precision
    assert both.precision.shape == both.recall.shape == (101,)
    assert np.abs(second - first.precision).max() > 1e-4  # another clustering, another curve
    curve = (both.precision, both.recall)
    assert both.f_8 == pytest.approx(f_scores(curve, 8.0).max())
    assert both.f_1_8 == pytest.approx(f_scores(curve, 1 / 8).max())


def test_the_seed_repeats():
    random = np.random.default_rng(6)
    real, generated = random.normal(size=(500, 3)), random.normal(0.5, 1.0, size=(500, 3))
    curves = [precision_recall.prd(real, generated, num_runs=2, seed=seed).precision for seed in (4, 4, 5)]
    np.testing.assert_array_equal(curves[0], curves[1])
    assert (curves[0] != curves[2]).any()


@pytest.mark.parametrize(
    "real, generated, settings, message",
    [
        ((4, 2), (5, 2), {}, "received 4 and 5"),
        ((4, 2), (4, 3), {}, r"real \[4, 2\], generated \[4, 3\]"),
        ((4,), (4,), {}, r"real: expected float \[N, D\].* received float64 \[4\]"),
        ((4, 2), (4, 2), {"num_clusters": 9}, "num_clusters from 1 to 8"),
        ((4, 2), (4, 2), {"num_clusters": 2, "num_angles": 10}, "odd num_angles"),
        ((4, 2), (4, 2), {"num_clusters": 2, "num_runs": 0}, "num_runs of at least 1"),
    ],
)
def test_bad_input_is_one_clear_line(real, generated, settings, message):
    random = np.random.default_rng(0)
    with pytest.raises(UserError, match=message) as caught:
        precision_recall.prd(random.normal(size=real), random.normal(size=generated), **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "real, generated", [([0.5, 0.5], [1.0]), ([0.5, 0.4], [0.5, 0.5]), ([1.5, -0.5], [0.5, 0.5]), ([np.nan], [1.0])]
)
def test_what_is_no_distribution_is_refused(real, generated):
    with pytest.raises(UserError, match="PRD: expected"):
        precision_recall.prd_curve(real, generated)
