"""The same features through torch-fidelity, whose numbers papers report: the values agree to round-off.

torch-fidelity needs PyTorch and torchvision, which this package does not; the metrics compared need no TensorFlow. So
this runs in an environment that has torch-fidelity and pytest, with the repository on the path:

    PYTHONPATH=. python -m pytest --noconftest -p no:cacheprovider tests/metrics/test_against_torch_fidelity.py
"""

import numpy as np
import pytest

from tfcq.metrics.classifier_score import classifier_score
from tfcq.metrics.frechet import GaussianStatistics, frechet_distance
from tfcq.metrics.kernel import kernel_distance

torch = pytest.importorskip("torch", reason="torch-fidelity runs on PyTorch, which tfcq does not install")
pytest.importorskip("torch_fidelity", reason="torch-fidelity is not installed; tfcq needs it for this comparison alone")

from torch_fidelity import metric_fid, metric_isc, metric_kid  # noqa: E402 - after the skips


def random_features(seed, count, dimension, shift=0.0):
    """Positive, correlated features, float32."""
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(1).normal(size=(dimension, dimension)) / np.sqrt(dimension)
    return np.maximum(generator.normal(size=(count, dimension)) @ mixing + shift, 0.0).astype(np.float32)


@pytest.mark.parametrize("num_real, num_generated", [(1500, 1200), (90, 1200), (90, 70)])
def test_frechet_distance(num_real, num_generated):
    real, generated = random_features(2, num_real, 192), random_features(3, num_generated, 192, 0.1)
    reference = metric_fid.fid_statistics_to_metric(
        metric_fid.fid_features_to_statistics(torch.from_numpy(real.astype(np.float64))),
        metric_fid.fid_features_to_statistics(torch.from_numpy(generated.astype(np.float64))),
        verbose=False,
    )["frechet_inception_distance"]
    found = frechet_distance(GaussianStatistics.from_features(real), GaussianStatistics.from_features(generated))
    print(f"Frechet distance: ours {found!r}, torch-fidelity {reference!r}, relative {found / reference - 1.0:.1e}")
    # Where C_1 C_2 is singular, the roots of its eigenvalues' round-off blur torch-fidelity's value.
    np.testing.assert_allclose(found, reference, rtol=1e-10 if min(num_real, num_generated) > 192 else 1e-6)


def test_kernel_distance():
    """One block of all images is torch-fidelity's one subset of all images: the sum over pairs knows no order."""
    real, generated = random_features(4, 400, 128), random_features(5, 400, 128, 0.1)
    reference = metric_kid.kid_features_to_metric(
        torch.from_numpy(real.astype(np.float64)),
        torch.from_numpy(generated.astype(np.float64)),
        kid_subsets=1,
        kid_subset_size=400,
        verbose=False,
    )["kernel_inception_distance_mean"]
    found = kernel_distance(real, generated)["value"]
    print(f"kernel distance: ours {found!r}, torch-fidelity {reference!r}, relative {found / reference - 1.0:.1e}")
    np.testing.assert_allclose(found, reference, rtol=1e-10)


@pytest.mark.parametrize("num_splits", [1, 10])
def test_classifier_score(num_splits):
    logits = 3.0 * random_features(6, 1003, 100, 0.5)
    reference = metric_isc.isc_features_to_metric(torch.from_numpy(logits), splits=num_splits, shuffle=False)
    found = classifier_score(logits, num_splits)
    print(f"classifier score: ours {found}, torch-fidelity {reference}")
    np.testing.assert_allclose(found["mean"], reference["inception_score_mean"], rtol=1e-12)
    np.testing.assert_allclose(found["std"], reference["inception_score_std"], rtol=1e-9, atol=1e-12)
