"""On real images every metric must point the right way: real digits against what generators do wrong to them."""

import numpy as np
import pytest
import sklearn.datasets
import sklearn.decomposition

from tfcq.metrics import diversity, frechet, memorisation, neighbours, precision_recall, sliced_wasserstein

_HALF = 850
_NOISE_LEVELS = (0, 16, 48, 120)  # deviations, in grey levels


@pytest.fixture(scope="module")
def digits():
    """(images uint8 [1700, 8, 8, 1], classes [1700]) in random order: two halves of one law."""
    bunch = sklearn.datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.images))[: 2 * _HALF]
    return np.round(bunch.images[order] * (255 / 16)).astype(np.uint8)[..., None], bunch.target[order]


@pytest.fixture(scope="module")
def features(digits):
    """A function from images to float32 [N, 20], their principal components."""
    projection = sklearn.decomposition.PCA(20, whiten=False, random_state=0).fit(digits[0].reshape(-1, 64) / 255.0)
    return lambda images: projection.transform(images.reshape(len(images), -1) / 255.0).astype(np.float32)


def noisy(images, deviation, seed=1):
    noise = np.random.default_rng(seed).normal(0, deviation, images.shape)
    return np.clip(np.round(images + noise), 0, 255).astype(np.uint8)


def collapsed(images, classes, kept):
    """As many images, those of the kept classes repeated in turn."""
    chosen = images[np.isin(classes, kept)]
    return chosen[np.arange(len(images)) % len(chosen)]


def frechet_distance(real, generated):
    return frechet.frechet_distance(*(frechet.GaussianStatistics.from_features(sample) for sample in (real, generated)))


def test_real_against_real_is_near_each_ideal(digits, features):
    images, _ = digits
    real, other = features(images[:_HALF]), features(images[_HALF:])
    curve = precision_recall.prd(real, other)
    assert curve.f_8 > 0.97 and curve.f_1_8 > 0.97
    scores = neighbours.neighbour_scores(real, other)
    assert min(scores["precision"], scores["recall"], scores["coverage"]) > 0.85
    assert scores["density"] == pytest.approx(1.0, abs=0.1)
    assert frechet_distance(real, other) < 0.2 * frechet_distance(real, features(noisy(images[_HALF:], 120)))
    assert sliced_wasserstein.sliced_wasserstein(images[:_HALF], images[_HALF:])["mean"] < 0.05


def test_collapse_keeps_precision_and_loses_recall(digits, features):
    images, classes = digits
    real = features(images[:_HALF])
    few = features(collapsed(images[_HALF:], classes[_HALF:], kept=[0, 1]))
    curve = precision_recall.prd(real, few)
    assert curve.f_1_8 > 0.85 and curve.f_8 < 0.45  # two of ten classes
    scores = neighbours.neighbour_scores(real, few)
    assert scores["precision"] > 0.85 and scores["recall"] < 0.4 and scores["coverage"] < 0.4


def test_invented_images_lose_precision_and_keep_recall(digits, features):
    images, _ = digits
    real, generated = features(images[:_HALF]), images[_HALF:].copy()
    generated[::2] = 255 - generated[::2]
    curve = precision_recall.prd(real, features(generated))
    assert curve.f_8 > 0.9 and curve.f_1_8 < 0.6
    scores = neighbours.neighbour_scores(real, features(generated))
    assert scores["precision"] < 0.6 and scores["recall"] > 0.75


def test_fewer_classes_worsen_what_tells_of_coverage(digits, features):
    images, classes = digits
    real = features(images[:_HALF])
    rows = []
    for kept in (range(10), range(6), range(3), [7]):
        few = collapsed(images[_HALF:], classes[_HALF:], list(kept))
        scores = neighbours.neighbour_scores(real, features(few))
        rows.append(
            [
                -precision_recall.prd(real, features(few), num_runs=3).f_8,
                -scores["recall"],
                -scores["coverage"],
                frechet_distance(real, features(few)),
                diversity.ms_ssim_diversity(few, num_pairs=1000)["mean"],
            ]
        )
    rows = np.array(rows)
    worse = np.diff(rows[:, :4], axis=0) > 0
    # Few images repeated often enough leave balls of radius 0: recall cannot fall further.
    worse[:, 1] |= rows[1:, 1] == 0
    assert worse.all(), rows
    # MS-SSIM sees how alike the kept classes are as well as how few: 0 to 5 differ more than 6 to 9 do.
    assert (np.diff(rows[[0, 2, 3], 4]) > 0).all(), rows


def test_more_noise_worsens_what_tells_of_fidelity(digits, features):
    images, _ = digits
    real = features(images[:_HALF])
    rows = []
    for deviation in _NOISE_LEVELS:
        generated = noisy(images[_HALF:], deviation)
        scores = neighbours.neighbour_scores(real, features(generated))
        rows.append(
            [
                -precision_recall.prd(real, features(generated), num_runs=3).f_1_8,
                -scores["precision"],
                -scores["density"],
                frechet_distance(real, features(generated)),
                sliced_wasserstein.sliced_wasserstein(images[:_HALF], generated)["mean"],
            ]
        )
    rows = np.array(rows)
    # The faintest noise may help a nearest-neighbour score by chance; what is visible must hurt, and hurt more.
    assert (np.diff(rows[[0, 2, 3]], axis=0) > 0).all(), rows
    assert (np.diff(rows[:, 3:], axis=0) > 0).all(), rows


def test_copies_show_as_memorisation_and_score_well_otherwise(digits, features):
    images, _ = digits
    train, test = features(images[:_HALF]), features(images[_HALF:])
    copies = features(noisy(images[:_HALF], 4))
    report = memorisation.memorisation_report(copies, train, test)
    assert report["ratio"] < 0.2 and report["data_copying_z"] < -20 and report["fraction_below_test_percentile"] > 0.95
    assert neighbours.neighbour_scores(test, copies)["precision"] > 0.85  # which is why the report is needed
    fair = memorisation.memorisation_report(test[::2], train, test[1::2])
    assert 0.9 < fair["ratio"] < 1.1 and abs(fair["data_copying_z"]) < 3
