"""Neighbour metrics against brute force in float64, scikit-learn, and cases worked by hand."""

import numpy as np
import pytest
import scipy.spatial.distance
import sklearn.neighbors

from tfcq.errors import UserError
from tfcq.metrics import neighbours


@pytest.fixture(params=[7, 1024], ids=["blocks of 7", "one block"])
def block_rows(request, monkeypatch):
    monkeypatch.setattr(neighbours, "_BLOCK_ROWS", request.param)


def points(count, seed, dimensions=8, loc=0.0, scale=1.0):
    return np.random.default_rng(seed).normal(loc, scale, (count, dimensions)).astype(np.float32)


def column(*values):
    return np.array(values, np.float64)[:, None]


def brute_force_scores(real, generated, k, density_k):
    """The four definitions, word by word, on whole distance matrices."""

    def radii(features, neighbour):
        distances = scipy.spatial.distance.cdist(features, features)
        np.fill_diagonal(distances, np.inf)
        return np.sort(distances, axis=1)[:, neighbour - 1]

    real, generated = real.astype(np.float64), generated.astype(np.float64)
    between = scipy.spatial.distance.cdist(real, generated)
    in_density_ball = between <= radii(real, density_k)[:, None]
    return {
        "precision": np.mean([any(between[:, j] <= radii(real, k)) for j in range(len(generated))]),
        "recall": np.mean([any(between[i] <= radii(generated, k)) for i in range(len(real))]),
        "density": in_density_ball.sum() / density_k / len(generated),
        "coverage": np.mean([any(row) for row in in_density_ball]),
    }


@pytest.mark.parametrize("k, density_k", [(3, 5), (1, 2), (6, 4)])
def test_scores_agree_with_brute_force(block_rows, k, density_k):
    real, generated = points(60, 0), points(45, 1, loc=0.6, scale=0.8)
    scores = neighbours.neighbour_scores(real, generated, k, density_k)
    expected = brute_force_scores(real, generated, k, density_k)
    assert scores == pytest.approx(expected, abs=1e-12)
    assert 0 < scores["precision"] < 1 and 0 < scores["recall"] < 1  # neither end hides a fault


def test_scores_worked_by_hand(block_rows):
    # k = 1. Real radii: 0: 1, 1: 1, 3: 2, 10: 7. Generated radii: 2: 2, 4: 2, 30: 26.
    # Generated 2 lies on the rims of 1 and 3; 4 inside 3 and 10; 30 nowhere. Real 0 lies on 2's rim, 1 and 3 inside,
    # and 10 in 30's ball.
    scores = neighbours.neighbour_scores(column(0, 1, 3, 10), column(2, 4, 30), k=1, density_k=1)
    assert scores == {
        "precision": pytest.approx(2 / 3),
        "recall": 1.0,
        "density": pytest.approx(4 / 3),
        "coverage": 3 / 4,
    }


def test_ties_on_the_rim_count_as_inside(block_rows):
    # On a rotated grid every tie is broken by rounding. The second neighbour of each grid point is at 1,
    # and a point 1 above the grid is at 1 from the point below it and at sqrt(2) or more from the others.
    plane = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    grid = np.stack(np.meshgrid(np.arange(3.0), np.arange(3.0)), axis=-1).reshape(-1, 2)
    scores = neighbours.neighbour_scores(grid @ plane[:2], grid @ plane[:2] + plane[2], k=2, density_k=2)
    assert scores["precision"] == scores["recall"] == scores["coverage"] == 1.0
    assert scores["density"] == 9 / (2 * 9)


def test_points_just_off_the_rim_are_outside(block_rows):
    real, generated = column(0, 1, 2) + 1e4, column(-1 - 1e-6, 3 + 1e-6, 500) + 1e4
    assert neighbours.neighbour_scores(real, generated, k=1, density_k=1)["precision"] == 0.0
    generated[:2] += [[1e-6], [-1e-6]]
    assert neighbours.neighbour_scores(np.round(real), np.round(generated), 1, 1)["precision"] == pytest.approx(2 / 3)


def test_equal_samples_score_one_and_distant_ones_zero():
    sample = points(50, 2)
    equal = neighbours.neighbour_scores(sample, sample)
    assert equal["precision"] == equal["recall"] == equal["coverage"] == 1.0 and equal["density"] > 1.0
    assert set(neighbours.neighbour_scores(sample, sample + 100).values()) == {0.0}


def test_a_collapsed_generator_is_precise_and_recalls_nothing(block_rows):
    real = points(40, 3, dimensions=2)
    collapsed = np.repeat(real.mean(axis=0, keepdims=True), 30, axis=0)
    scores = neighbours.neighbour_scores(real, collapsed)
    assert scores["precision"] == 1.0 and scores["recall"] == 0.0 and scores["coverage"] < 0.5


def test_duplicates_are_neighbours_and_the_point_itself_is_not(block_rows):
    real = column(0, 0, 0, 5, 5.5, 7)
    # With k = 2 the zeros have radius 0: only a generated 0 is inside; 5 and 5.5 reach 2, 7 reaches 2.
    scores = neighbours.neighbour_scores(real, column(0.01, 0, 7.6), k=2, density_k=2)
    assert scores["precision"] == pytest.approx(2 / 3) and scores["density"] == pytest.approx(4 / (2 * 3))


@pytest.mark.parametrize("k", [1, 4])
def test_search_agrees_with_scikit_learn(block_rows, k):
    queries, bank = points(50, 4), points(80, 5)
    distances, indices = neighbours.nearest_neighbours(queries, bank, k)
    reference = sklearn.neighbors.NearestNeighbors(n_neighbors=k, algorithm="brute").fit(bank.astype(np.float64))
    expected_distances, expected_indices = reference.kneighbors(queries.astype(np.float64))
    assert distances.dtype == np.float64 and indices.dtype == np.int64 and distances.shape == (50, k)
    np.testing.assert_allclose(distances, expected_distances, rtol=1e-12)
    np.testing.assert_array_equal(indices, expected_indices)


def test_search_of_more_neighbours_than_a_block_has_rows(block_rows):
    queries, bank = points(3, 4), points(20, 5)
    distances, indices = neighbours.nearest_neighbours(queries, bank, 20)
    np.testing.assert_array_equal(np.sort(indices, axis=1), np.tile(np.arange(20), (3, 1)))
    expected = np.sort(scipy.spatial.distance.cdist(queries.astype(np.float64), bank.astype(np.float64)), axis=1)
    np.testing.assert_allclose(distances, expected, rtol=1e-12)


def test_close_copies_far_from_the_origin_keep_their_distances(block_rows):
    bank = points(30, 6, dimensions=64) + np.float32(1000.0)
    queries = bank.astype(np.float64)
    queries[:15, 0] += 1e-6
    distances, indices = neighbours.nearest_neighbours(queries, bank)
    np.testing.assert_array_equal(indices[:, 0], np.arange(30))
    np.testing.assert_allclose(distances[:15, 0], queries[:15, 0] - bank[:15, 0], rtol=1e-12)
    np.testing.assert_array_equal(distances[15:], 0.0)  # exactly


@pytest.mark.parametrize("sizes", [(80,), (1, 40, 2, 37)])
def test_search_in_pixels_agrees_with_scipy_however_the_bank_is_cut(sizes):
    random = np.random.default_rng(0)
    queries, bank = (random.integers(0, 256, (count, 3, 4, 3), dtype=np.uint8) for count in (5, 80))
    bank[70] = bank[7]  # of equals the first
    queries[0] = bank[7]
    batches = np.split(bank, np.cumsum(sizes)[:-1])
    distances, indices = neighbours.nearest_in_pixels(queries, iter(batches), 4)
    expected = scipy.spatial.distance.cdist(*(images.reshape(len(images), -1).astype(np.float64) for images in (queries, bank)))
    np.testing.assert_array_equal(indices, np.argsort(expected, axis=1, kind="stable")[:, :4])
    np.testing.assert_allclose(distances, np.sort(expected, axis=1)[:, :4], rtol=1e-12)
    assert list(indices[0, :2]) == [7, 70] and list(distances[0, :2]) == [0.0, 0.0]
    with pytest.raises(UserError, match="expected 1 to 80, the rows of the bank, received 81"):
        neighbours.nearest_in_pixels(queries, iter(batches), 81)


@pytest.mark.parametrize(
    "real, generated, message",
    [
        (
            np.zeros((3, 2)),
            np.zeros((9, 2)),
            "k: expected 1 to 2, the rows of real other than the one itself, received 3",
        ),
        (np.zeros((9, 2)), np.zeros((3, 2)), "the rows of generated"),
        (np.zeros((9, 2)), np.zeros((9, 3)), r"real \[9, 2\], generated \[9, 3\]"),
        (np.zeros((9, 2, 2)), np.zeros((9, 2, 2)), r"real: .*received float64 \[9, 2, 2\]"),
        (np.zeros((9, 0)), np.zeros((9, 0)), r"real: .*received float64 \[9, 0\]"),
        (np.zeros((0, 2)), np.zeros((9, 2)), "real: .*at least 2 rows"),
        (np.full((9, 2), np.nan), np.zeros((9, 2)), "real: .*NaN or infinity"),
        (np.zeros((9, 2)), np.zeros((9, 2), complex), "generated: .*complex128"),
    ],
)
def test_bad_features_are_one_clear_line(real, generated, message):
    with pytest.raises(UserError, match=message) as caught:
        neighbours.neighbour_scores(real, generated)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("k", [0, 5])
def test_search_refuses_a_k_outside_the_bank(k):
    with pytest.raises(UserError, match="expected 1 to 4, the rows of the bank"):
        neighbours.nearest_neighbours(np.zeros((2, 3)), np.zeros((4, 3)), k)
