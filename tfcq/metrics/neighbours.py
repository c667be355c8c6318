"""Fidelity and coverage, from the nearest neighbours of real and generated features.

Features are points in R^D, one per image, from any embedding in which similar images have a small Euclidean distance. The
estimators compare the two samples through balls that reach from each point to its k-th neighbour among its own kind:

    precision  fraction of generated points in at least one real ball             (Kynkaanniemi et al. 2019, Eq. 1 and 2)
    recall     fraction of real points in at least one generated ball             (the same)
    density    real balls that hold a generated point, its mean divided by k   (Naeem et al. 2020)
    coverage   fraction of real balls that hold a generated point                 (the same)

Distances come in square blocks, |a - b|^2 = |a|^2 + |b|^2 - 2 a.b, by matrix products in float64 of features moved to a
common centre: in float32 the rounding of the large terms would swamp the distances of close neighbours, the very ones that
matter. No N x N matrix is ever allocated. With blocks of 1024 rows the work space is 2 x 1024 x D x 8 bytes of features and
some copies of 8 MB of distances: 100 MB in all at D = 2048, whatever N is. Above D = 16384, as of pixels, blocks have fewer
rows. The time is that of three products N x D x N for the four scores and one for a search.

References:

* Kynkaanniemi, Karras, Laine, Lehtinen, Aila: Improved Precision and Recall Metric for Assessing Generative Models,
  2019.
* Naeem, Oh, Uh, Choi, Yoo: Reliable Fidelity and Diversity Metrics for Generative Models, 2020.
"""

from collections.abc import Iterable

import numpy as np

from tfcq.checks import check_images
from tfcq.errors import UserError
from tfcq.metrics.checks import check_same_columns
from tfcq.metrics.metric import Measured, Metric

_BLOCK_ROWS = 1024
_VALUES = 2**24  # of a block that are held in float64 at a time; pixels may be many a row
# Relative to |a|^2 + |b|^2: covers the product's error at D of some thousands.
_ROUNDING = 64 * np.finfo(np.float64).eps


def nearest_neighbours(queries: np.ndarray, bank: np.ndarray, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Each query's k nearest rows of a bank, by Euclidean distance.

    Args:
        queries: float [N, D], N and M at least 2.
        bank: float [M, D], M of at least k. A row equal to the query counts, at distance exactly 0.
        k: the number of neighbours.

    Returns:
        (distances, indices): float64 [N, k], ascending, and int64 [N, k], rows of `bank`. Of rows equally far (to
        rounding) around the k-th place, any may be chosen.

    Raises:
        UserError: for bad features or fewer than k rows in the bank.
    """
    queries, bank = check_same_columns(queries=queries, bank=bank)
    _check_count(k, len(bank), "the bank")
    return _search(queries, bank, k, same=False)


def nearest_images(queries: np.ndarray, bank: np.ndarray, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Each image's k nearest of a bank in memory, by the squared differences of pixels; `nearest_in_pixels` reads a bank once.

    Args:
        queries: uint8 [N, H, W, C].
        bank: uint8 [M, H, W, C], M of at least k.
        k: the number of neighbours.

    Returns:
        (distances, indices): float64 [N, k], ascending, in 8-bit values, and int64 [N, k], places in the bank.

    Raises:
        UserError: images of another type or shape, or fewer than k in the bank.
    """
    queries = check_images(queries, "queries")
    bank = check_images(bank, "bank", queries.shape[1:])
    _check_count(k, len(bank), "the bank")
    return _search(queries.reshape(len(queries), -1), bank.reshape(len(bank), -1), k, same=False)


def nearest_in_pixels(queries: np.ndarray, batches: Iterable[np.ndarray], k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Each image's k nearest of a bank that is read once, a batch at a time, by the squared differences of pixels.

    Args:
        queries: uint8 [N, H, W, C].
        batches: iterable of uint8 [M, H, W, C], at least k images in all.
        k: the number of neighbours.

    Returns:
        (distances, indices): float64 [N, k], ascending, in 8-bit values, exact to the root's rounding, and int64 [N, k],
        places in the bank; of images equally far the first ones.

    Raises:
        UserError: images of another type or shape, or fewer than k in the bank.
    """
    queries = check_images(queries, "queries")
    rows = queries.reshape(len(queries), -1).astype(np.float64)  # sums of squares of integers: exact
    best, best_index, seen = np.full((len(rows), 0), np.inf), np.zeros((len(rows), 0), np.int64), 0
    squares = np.einsum("ij,ij->i", rows, rows)[:, None]
    size = max(1, _VALUES // rows.shape[1])
    for images in (batch[start : start + size] for batch in batches for start in range(0, len(batch), size)):
        images = check_images(images, "batches", queries.shape[1:])
        bank = images.reshape(len(images), -1).astype(np.float64)
        squared = squares + np.einsum("ij,ij->i", bank, bank) - 2.0 * rows @ bank.T
        index = np.broadcast_to(np.arange(seen, seen + len(bank)), squared.shape)
        best, best_index = np.concatenate([best, squared], axis=1), np.concatenate([best_index, index], axis=1)
        order = np.argsort(best, axis=1, kind="stable")[:, :k]
        best, best_index = np.take_along_axis(best, order, axis=1), np.take_along_axis(best_index, order, axis=1)
        seen += len(bank)
    _check_count(k, seen, "the bank")
    return np.sqrt(best), best_index


def neighbour_scores(real: np.ndarray, generated: np.ndarray, k: int = 3, density_k: int = 5) -> dict[str, float]:
    """Improved precision and recall, density and coverage.

    A ball is closed: a point at exactly the radius is inside, and a point never counts as its own neighbour, while
    another that equals it does. Distances equal to rounding count as equal. All four depend on the sample sizes:
    compare values of the same N and M only.

    Args:
        real: float [N, D].
        generated: float [M, D]; M may differ from N.
        k: the neighbour whose distance is the radius for precision and recall; 3 in the paper.
        density_k: the same for density and coverage; 5 in the paper.

    Returns:
        dict of floats: `precision`, `recall`, `coverage` in [0, 1]; `density` in [0, N / density_k], about 1 where the
        distributions agree.

    Raises:
        UserError: for bad features, or not more rows than k.
    """
    real, generated = check_same_columns(real=real, generated=generated)
    for count, rows, name in ((k, real, "real"), (density_k, real, "real"), (k, generated, "generated")):
        _check_count(count, len(rows) - 1, f"{name} other than the one itself")
    distances, _ = _search(real, real, max(k, density_k), same=True)
    real_reach, density_reach = distances[:, k - 1] ** 2, distances[:, density_k - 1] ** 2
    generated_reach = _search(generated, generated, k, same=True)[0][:, k - 1] ** 2

    precise = np.zeros(len(generated), bool)
    recalled = np.zeros(len(real), bool)
    covered = np.zeros(len(real), bool)
    pairs_inside = 0
    for rows, columns, squared, rounding in _squared_distances(real, generated):
        squared -= rounding
        precise[columns] |= (squared <= real_reach[rows, None]).any(axis=0)
        recalled[rows] |= (squared <= generated_reach[None, columns]).any(axis=1)
        inside = squared <= density_reach[rows, None]
        covered[rows] |= inside.any(axis=1)
        pairs_inside += int(np.count_nonzero(inside))
    return {
        "precision": float(precise.mean()),
        "recall": float(recalled.mean()),
        "density": pairs_inside / (density_k * len(generated)),
        "coverage": float(covered.mean()),
    }


def _check_count(k, available, where):
    if not 1 <= k <= available:
        raise UserError(f"k: expected 1 to {available}, the rows of {where}, received {k}: lower k or add rows")


def _search(queries, bank, k, same):
    """`nearest_neighbours`; `same`: whether queries and bank are the same rows, of which none is its own neighbour."""
    distances = np.empty((len(queries), k))
    indices = np.empty((len(queries), k), np.int64)
    best, best_index = np.empty((0, k)), np.empty((0, k), np.int64)
    for rows, columns, squared, _ in _squared_distances(queries, bank):
        if same and rows == columns:
            np.fill_diagonal(squared, np.inf)
        if columns.start == 0:
            best = np.full((len(squared), k), np.inf)
            best_index = np.zeros((len(squared), k), np.int64)
        # k passes of argmin: for the few neighbours asked for here, some 30 times faster than argpartition.
        for _ in range(min(k, squared.shape[1])):
            nearest = squared.argmin(axis=1)[:, None]
            best = np.concatenate([best, np.take_along_axis(squared, nearest, axis=1)], axis=1)
            best_index = np.concatenate([best_index, nearest + columns.start], axis=1)
            np.put_along_axis(squared, nearest, np.inf, axis=1)
        order = np.argsort(best, axis=1, kind="stable")[:, :k]
        best = np.take_along_axis(best, order, axis=1)
        best_index = np.take_along_axis(best_index, order, axis=1)
        if columns.stop == len(bank):
            # The block's formula chose the rows; their distances are computed again, without its cancellation.
            exact = _direct_distances(queries[rows], bank, best_index)
            order = np.lexsort((best_index, exact), axis=1)
            distances[rows] = np.take_along_axis(exact, order, axis=1)
            indices[rows] = np.take_along_axis(best_index, order, axis=1)
    return distances, indices


def _direct_distances(queries, bank, indices):
    """float64 [N, k]: Euclidean distances of queries [N, D] to rows `indices` [N, k] of the bank, by differences."""
    queries = queries.astype(np.float64)
    columns = [np.linalg.norm(queries - bank[index], axis=1) for index in indices.T]
    return np.stack(columns, axis=1)


def _squared_distances(first, second):
    """Yields (rows, columns, squared, rounding): two slices, and float64 [1024, 1024] at most, twice.

    `squared` is |a - b|^2 of the slices' rows, at least 0, and may be overwritten; `rounding` bounds its error. Columns
    run fastest.
    """
    centre = second.mean(axis=0, dtype=np.float64)
    size = min(_BLOCK_ROWS, max(1, _VALUES // max(1, first.shape[1])))
    for start in range(0, len(first), size):
        rows = slice(start, min(start + size, len(first)))
        left = first[rows] - centre
        left_norms = np.einsum("nd,nd->n", left, left)
        for column_start in range(0, len(second), size):
            columns = slice(column_start, min(column_start + size, len(second)))
            right = second[columns] - centre
            norms = left_norms[:, None] + np.einsum("nd,nd->n", right, right)[None, :]
            squared = left @ right.T
            squared *= -2.0
            squared += norms
            np.maximum(squared, 0.0, out=squared)
            norms *= _ROUNDING
            yield rows, columns, squared, norms


def _measure(real, generated, seed):
    return Measured(neighbour_scores(real.features, generated.features))


METRIC = Metric(_measure, needs="features")
