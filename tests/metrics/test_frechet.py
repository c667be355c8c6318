"""The Frechet distance against closed forms, scipy's matrix root, and TF-GAN."""

import numpy as np
import pytest
import scipy.linalg

from tfcq.errors import UserError
from tfcq.metrics import frechet
from tfcq.metrics.frechet import GaussianStatistics, frechet_distance
from tfcq.metrics.tf_gan import import_tensorflow_gan


def correlated_features(seed, count, dimension, shift=0.0):
    """Positive, skewed, correlated features with a wide spectrum, as a network's last layer has them; float32."""
    generator = np.random.default_rng(seed)
    spectrum = np.exp(-4.0 * np.arange(dimension) / dimension)
    mixing = np.random.default_rng(1).normal(size=(dimension, dimension)) * spectrum
    mixing += 0.05 * generator.normal(size=(dimension, dimension))
    return np.maximum(generator.normal(size=(count, dimension)) @ mixing + shift, 0.0).astype(np.float32)


def distance_by_matrix_root(real, generated):
    """The definition, with scipy's root of C_1 C_2."""
    first, second = np.asarray(real, np.float64), np.asarray(generated, np.float64)
    first_covariance, second_covariance = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    root = scipy.linalg.sqrtm(first_covariance @ second_covariance)
    shift = first.mean(0) - second.mean(0)
    return shift @ shift + np.trace(first_covariance) + np.trace(second_covariance) - 2.0 * np.trace(root).real


def distance_by_singular_values(real, generated):
    """The nuclear norm of the product of the centred features: exact whatever the rank, and another route than ours."""
    first, second = np.asarray(real, np.float64), np.asarray(generated, np.float64)
    shift = first.mean(0) - second.mean(0)
    first = (first - first.mean(0)) / np.sqrt(len(first) - 1)
    second = (second - second.mean(0)) / np.sqrt(len(second) - 1)
    nuclear_norm = scipy.linalg.svdvals(first @ second.T).sum()
    return shift @ shift + np.sum(first**2) + np.sum(second**2) - 2.0 * nuclear_norm


def distance(real, generated):
    return frechet_distance(GaussianStatistics.from_features(real), GaussianStatistics.from_features(generated))


def gaussian(mean, covariance):
    """Statistics with given moments, as if fitted to many images."""
    return GaussianStatistics(np.asarray(mean, np.float64), 10**6, covariance=np.asarray(covariance, np.float64))


@pytest.mark.parametrize("shape", [(500, 8), (500, 64), (2000, 96)])
def test_agrees_with_the_matrix_root(shape):
    real, generated = correlated_features(2, *shape), correlated_features(3, *shape, shift=0.2)
    np.testing.assert_allclose(distance(real, generated), distance_by_matrix_root(real, generated), rtol=1e-8)


@pytest.mark.parametrize("num_real", [20, 64, 65, 300])
@pytest.mark.parametrize("num_generated", [10, 64, 65, 300])
def test_agrees_with_singular_values_for_any_counts(num_real, num_generated):
    real, generated = correlated_features(4, num_real, 64), correlated_features(5, num_generated, 64, shift=0.3)
    expected = distance_by_singular_values(real, generated)
    np.testing.assert_allclose(distance(real, generated), expected, rtol=1e-7)
    np.testing.assert_allclose(distance(generated, real), expected, rtol=1e-7)


def test_agrees_with_tf_gan():
    evaluation = import_tensorflow_gan().eval
    real = correlated_features(6, 400, 48).astype(np.float64)
    generated = correlated_features(7, 300, 48, shift=0.1).astype(np.float64)
    expected = evaluation.frechet_classifier_distance_from_activations(real, generated)
    np.testing.assert_allclose(distance(real, generated), expected, rtol=1e-7)


def test_diagonal_gaussians():
    generator = np.random.default_rng(8)
    first_mean, second_mean = generator.normal(size=(2, 30))
    first_scale, second_scale = generator.uniform(0.1, 3.0, size=(2, 30))
    expected = np.sum((first_mean - second_mean) ** 2) + np.sum((first_scale - second_scale) ** 2)
    first, second = gaussian(first_mean, np.diag(first_scale**2)), gaussian(second_mean, np.diag(second_scale**2))
    np.testing.assert_allclose(frechet_distance(first, second), expected, rtol=1e-12)


def test_commuting_covariances():
    generator = np.random.default_rng(9)
    directions, _ = np.linalg.qr(generator.normal(size=(40, 40)))
    first_scale, second_scale = generator.uniform(0.1, 3.0, size=(2, 40))
    first = gaussian(np.zeros(40), directions * first_scale**2 @ directions.T)
    second = gaussian(np.zeros(40), directions * second_scale**2 @ directions.T)
    np.testing.assert_allclose(frechet_distance(first, second), np.sum((first_scale - second_scale) ** 2), rtol=1e-11)


def test_two_by_two_by_hand():
    """tr (C_1 C_2)^(1/2) = sqrt(tr C_1 C_2 + 2 sqrt(det C_1 C_2)) for two dimensions; here the two do not commute."""
    first, second = np.array([[2.0, 1.0], [1.0, 1.0]]), np.array([[1.0, 0.0], [0.0, 4.0]])
    expected = 25.0 + 3.0 + 5.0 - 2.0 * np.sqrt(6.0 + 2.0 * np.sqrt(4.0))
    found = frechet_distance(gaussian([3.0, 0.0], first), gaussian([0.0, 4.0], second))
    np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_covariances_are_unbiased():
    """Two images at +-1 have variance 2, not 1; against a variance of 0: d^2 = 2."""
    apart, together = np.array([[1.0], [-1.0]]), np.array([[0.0], [0.0], [0.0]])
    assert distance(apart, together) == pytest.approx(2.0, rel=1e-12)


def test_moving_and_scaling():
    features = correlated_features(10, 600, 32).astype(np.float64)
    moved = features + np.linspace(0.0, 1.0, 32)
    np.testing.assert_allclose(distance(features, moved), np.sum(np.linspace(0.0, 1.0, 32) ** 2), rtol=1e-10)
    other = correlated_features(11, 600, 32).astype(np.float64)
    np.testing.assert_allclose(distance(1e-6 * features, 1e-6 * other), 1e-12 * distance(features, other), rtol=1e-9)


@pytest.mark.parametrize("count", [10, 64, 600])
def test_equal_sets_are_at_no_distance(count):
    statistics = GaussianStatistics.from_features(correlated_features(12, count, 64))
    assert 0.0 <= frechet_distance(statistics, statistics) < 1e-7 * statistics.total_variance()


def test_singular_covariances():
    """A dead feature and a repeated one, with more images than features: Cholesky fails and the eigenvalues step in."""
    real, generated = correlated_features(13, 300, 20), correlated_features(14, 300, 20, shift=0.2)
    for features in (real, generated):
        features[:, 3] = 0.0
        features[:, 7] = features[:, 11]
    statistics = GaussianStatistics.from_features(real)
    assert statistics.root().shape == (18, 20)
    np.testing.assert_allclose(statistics.root().T @ statistics.root(), statistics.covariance, atol=1e-12)
    np.testing.assert_allclose(distance(real, generated), distance_by_singular_values(real, generated), rtol=1e-6)


def test_images_all_alike():
    """No variance at all on one side: the distance is the shift and the other's variance."""
    real = correlated_features(15, 50, 6)
    generated = np.full((40, 6), 0.5, np.float32)
    expected = np.sum((real.mean(0, dtype=np.float64) - 0.5) ** 2) + real.astype(np.float64).var(0, ddof=1).sum()
    np.testing.assert_allclose(distance(real, generated), expected, rtol=1e-12)
    assert distance(generated, generated) == 0.0


def test_few_images_of_many_features():
    """2048 features and 40 images make 40 x 40 matrices: nothing of the size of a covariance is kept."""
    real, generated = correlated_features(16, 40, 2048), correlated_features(17, 30, 2048)
    statistics = GaussianStatistics.from_features(real)
    assert statistics.rank_deficient and statistics.covariance is None and statistics.factor.shape == (40, 2048)
    np.testing.assert_allclose(distance(real, generated), distance_by_singular_values(real, generated), rtol=1e-7)


def test_statistics_of_float32_are_those_of_float64():
    """Large means beside small variances, over more rows than a block: float32 sums would lose the third digit."""
    features = (100.0 + np.random.default_rng(18).normal(size=(frechet._ROWS_AT_ONCE + 900, 5))).astype(np.float32)
    statistics = GaussianStatistics.from_features(features)
    exact = features.astype(np.float64)
    np.testing.assert_allclose(statistics.mean, exact.mean(0), rtol=1e-14)
    np.testing.assert_allclose(statistics.covariance, np.cov(exact, rowvar=False), rtol=1e-11, atol=1e-13)
    assert not statistics.rank_deficient and statistics.mean.dtype == statistics.covariance.dtype == np.float64


@pytest.mark.parametrize("count, deficient", [(11, True), (12, True), (13, False)])
def test_rank_and_round_trip_through_a_file(tmp_path, count, deficient):
    statistics = GaussianStatistics.from_features(correlated_features(19, count, 12))
    assert statistics.rank_deficient is deficient
    np.savez(tmp_path / "real.npz", **statistics.as_arrays())
    with np.load(tmp_path / "real.npz") as arrays:
        loaded = GaussianStatistics.from_arrays(arrays)
    assert loaded.count == count and loaded.rank_deficient is deficient
    other = GaussianStatistics.from_features(correlated_features(20, 30, 12))
    assert frechet_distance(loaded, other) == frechet_distance(statistics, other)


@pytest.mark.parametrize(
    "features, received",
    [
        (np.ones((5, 4, 3), np.float32), "float32 [5, 4, 3]"),
        (np.ones((1, 4), np.float32), "float32 [1, 4]"),
        (np.ones((5, 0), np.float32), "float32 [5, 0]"),
        (np.ones((5, 4), np.uint8), "uint8 [5, 4]"),
        (np.array([[0.0, 1.0], [np.nan, 1.0]]), "NaN or infinity in float64 [2, 2]"),
        (np.array([[0.0, 1.0], [np.inf, 1.0]]), "NaN or infinity in float64 [2, 2]"),
        (np.array([[0.0, 1.0], [-np.inf, 1.0]]), "NaN or infinity in float64 [2, 2]"),
    ],
)
def test_refuses_what_is_no_set_of_features(features, received):
    with pytest.raises(UserError) as caught:
        GaussianStatistics.from_features(features)
    assert received in str(caught.value) and "\n" not in str(caught.value)


def test_refuses_features_of_two_networks():
    with pytest.raises(ValueError, match=r"\[4\] and \[5\]"):
        distance(correlated_features(21, 30, 4), correlated_features(21, 30, 5))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"mean": None}, r"received \['count', 'covariance'\]"),
        ({"covariance": None}, "both or neither"),
        ({"covariance": np.eye(3)}, r"covariance \[3, 3\]"),
        ({"covariance": np.array([[1.0, 0.5], [0.0, 1.0]])}, "symmetric"),
        ({"covariance": np.array([[np.nan, 0.0], [0.0, 1.0]])}, "finite"),
        ({"count": np.int64(1)}, "count 1"),
    ],
)
def test_refuses_a_file_that_holds_no_statistics(changes, message):
    arrays = {"mean": np.zeros(2), "count": np.int64(9), "covariance": np.eye(2)} | changes
    with pytest.raises(UserError, match=message):
        GaussianStatistics.from_arrays({name: array for name, array in arrays.items() if array is not None})
