"""MS-SSIM between random pairs against scikit-image, a float64 formula, and images whose similarity is known."""

import numpy as np
import pytest
import skimage.metrics
import sklearn.datasets

from tfcq.errors import UserError
from tfcq.metrics import diversity


def noise(count, height, width, channels=1, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, channels)).astype(np.uint8)


def related(count, height, width, channels=1, seed=0):
    """Pairs that share much: smooth random images, and themselves with noise added."""
    random = np.random.default_rng(seed)
    coarse = random.uniform(60, 200, (count, -(-height // 8), -(-width // 8), channels))
    first = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
    second = first + random.normal(0, 20, first.shape)
    return np.round(first).astype(np.uint8), np.clip(np.round(second), 0, 255).astype(np.uint8)


def similarity_maps(first, second, window):
    """(SSIM, contrast and structure) maps of two grey images: scikit-image's SSIM over its luminance term."""
    settings = {"data_range": 255, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "full": True}
    assert window == 11  # of scikit-image's truncation at 3.5 deviations
    inside = (slice(5, -5), slice(5, -5))
    ssim = skimage.metrics.structural_similarity(first, second, **settings)[1][inside]
    means = [
        skimage.filters.gaussian(image, 1.5, truncate=3.5, preserve_range=True)[inside] for image in (first, second)
    ]
    constant = (0.01 * 255) ** 2
    luminance = (2 * means[0] * means[1] + constant) / (means[0] ** 2 + means[1] ** 2 + constant)
    return ssim, ssim / luminance


def test_one_scale_agrees_with_scikit_image():
    first, second = related(5, 18, 15, channels=3)
    assert len(diversity.scales(18, 15)[0]) == 1
    expected = [
        skimage.metrics.structural_similarity(
            a, b, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=-1
        )
        for a, b in zip(first, second)
    ]
    assert 0.1 < min(expected) and max(expected) < 0.95
    np.testing.assert_allclose(diversity.ms_ssim(first, second), expected, rtol=1e-10)


def test_the_small_window_agrees_with_the_formula_in_float64():
    first, second = related(4, 8, 8, seed=2)
    weights = np.exp(-(np.arange(-3, 4) ** 2) / (2 * 1.5**2))
    weights = np.outer(weights, weights) / np.outer(weights, weights).sum()

    def local(values):
        windows = np.lib.stride_tricks.sliding_window_view(values, (7, 7))
        return (windows * weights).sum(axis=(2, 3))

    for a, b, received in zip(first[..., 0] * 1.0, second[..., 0] * 1.0, diversity.ms_ssim(first, second)):
        mean_a, mean_b = local(a), local(b)
        luminance = (2 * mean_a * mean_b + 2.55**2) / (mean_a**2 + mean_b**2 + 2.55**2)
        spread = local(a * a) - mean_a**2 + local(b * b) - mean_b**2
        contrast = (2 * (local(a * b) - mean_a * mean_b) + 7.65**2) / (spread + 7.65**2)
        assert received == pytest.approx(np.mean(luminance * contrast), rel=1e-10)


@pytest.mark.parametrize("side, count", [(32, 2), (48, 3), (29, 2)])
def test_several_scales_agree_with_their_product(side, count):
    first, second = related(3, side, side, seed=3)
    powers = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333][:count])
    powers /= powers.sum()
    assert diversity.scales(side, side) == (pytest.approx(tuple(powers)), 11)
    for a, b, received in zip(first[..., 0] * 1.0, second[..., 0] * 1.0, diversity.ms_ssim(first, second)):
        value = 1.0
        for scale, power in enumerate(powers):
            ssim, contrast = similarity_maps(a, b, 11)
            value *= (ssim if scale == count - 1 else contrast).mean() ** power
            # An odd side repeats its last row and column, so that halving rounds up.
            a, b = (np.pad(x, [(0, x.shape[0] % 2), (0, x.shape[1] % 2)], mode="symmetric") for x in (a, b))
            a, b = ((x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4 for x in (a, b))
        assert received == pytest.approx(value, rel=1e-10)


@pytest.mark.parametrize(
    "height, width, count, window",
    [(7, 7, 1, 7), (8, 8, 1, 7), (10, 64, 1, 7), (11, 11, 1, 11), (20, 20, 1, 11), (21, 21, 2, 11), (28, 28, 2, 11)]
    + [(32, 40, 2, 11), (64, 64, 3, 11), (160, 160, 4, 11), (161, 161, 5, 11), (1024, 1024, 5, 11)],
)
def test_as_many_scales_as_the_window_fits(height, width, count, window):
    powers, received = diversity.scales(height, width)
    assert (len(powers), received) == (count, window) and sum(powers) == pytest.approx(1.0)
    if max(height, width) <= 161:  # the smallest sizes really work
        image = noise(2, height, width)
        assert np.isfinite(diversity.ms_ssim(image, image[::-1])).all()


@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 32, 3)])
def test_identical_images_score_one(shape):
    images = np.repeat(noise(1, *shape), 6, axis=0)
    report = diversity.ms_ssim_diversity(images, num_pairs=20)
    assert report["mean"] == pytest.approx(1.0, abs=1e-12) and report["mean"] <= 1.0
    assert report["standard_error"] < 1e-6 and report["num_pairs"] == 20


def test_independent_noise_scores_near_zero():
    report = diversity.ms_ssim_diversity(noise(50, 32, 32, 3), num_pairs=100)
    assert 0.0 <= report["mean"] < 0.1 and report["num_scales"] == 2


def test_inverted_structure_counts_as_zero():
    image = noise(1, 16, 16)
    assert diversity.ms_ssim(image, 255 - image)[0] == 0.0


def test_one_class_and_two_repeated_digits_score_above_all_digits():
    digits = sklearn.datasets.load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    every, threes, repeated = (
        diversity.ms_ssim_diversity(kept, num_pairs=300)["mean"]
        for kept in (images, images[digits.target == 3], images[np.arange(500) % 2])
    )
    assert threes > every + 0.2 and repeated > every + 0.2


def test_pairs_are_of_different_rows_and_the_mean_is_theirs():
    images = np.concatenate([noise(1, 16, 16)] * 2 + [255 - noise(1, 16, 16)])
    # Of the pairs of different rows, a third has similarity 1 and the rest 0; a row with itself would add to the first.
    report = diversity.ms_ssim_diversity(images, num_pairs=900, batch_size=400)
    assert report["mean"] == pytest.approx(1 / 3, abs=0.06)
    assert report["standard_error"] == pytest.approx(np.sqrt(2 / 9 / 900), rel=0.1)


def test_the_seed_repeats_and_the_batch_size_does_not_matter():
    images = noise(30, 12, 12)
    reports = [
        diversity.ms_ssim_diversity(images, 50, seed, size) for seed, size in ((1, 64), (1, 64), (1, 7), (2, 64))
    ]
    assert reports[0] == reports[1]
    assert reports[2] == pytest.approx(reports[0], rel=1e-12)
    assert reports[3]["mean"] != reports[0]["mean"]


@pytest.mark.parametrize(
    "images, settings, message",
    [
        (noise(4, 6, 32), {}, "7 x 7 pixels or more, received 6 x 32"),
        (noise(4, 8, 8).astype(np.float32), {}, r"received float32 \[4, 8, 8, 1\]"),
        (noise(4, 8, 8)[..., 0], {}, r"received uint8 \[4, 8, 8\]"),
        (noise(1, 8, 8), {}, "N of 2 or more"),
        (noise(4, 8, 8), {"num_pairs": 1}, "num_pairs of 2 or more"),
        (noise(4, 8, 8), {"batch_size": 0}, "positive batch_size"),
    ],
)
def test_bad_input_is_one_clear_line(images, settings, message):
    with pytest.raises(UserError, match=message) as caught:
        diversity.ms_ssim_diversity(images, **settings)
    assert "\n" not in str(caught.value)


def test_large_stacks_are_taken_in_parts(monkeypatch):
    first, second = related(7, 16, 16)
    whole = diversity.ms_ssim(first, second)
    for images in (1, 2, 6):
        monkeypatch.setattr(diversity, "_VALUES_AT_A_TIME", images * 256 + 100)
        np.testing.assert_allclose(diversity.ms_ssim(first, second), whole, rtol=1e-12)


def test_stacks_of_different_shapes_are_refused():
    with pytest.raises(UserError, match=r"\[4, 8, 8, 1\] and \[3, 8, 8, 1\]"):
        diversity.ms_ssim(noise(4, 8, 8), noise(3, 8, 8))
