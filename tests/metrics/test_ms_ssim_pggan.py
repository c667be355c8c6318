"""PGGAN's MS-SSIM against values worked out by hand, and a two-dimensional formula in float64."""

import functools

import numpy as np
import pytest
import scipy.signal

from tfcq.errors import UserError
from tfcq.metrics import diversity
from tfcq.metrics.ms_ssim_pggan import ms_ssim_pggan, pairwise

C1, C2 = 2.55**2, 7.65**2


def flat(*values, side=16):
    return np.full((1, side, side, len(values)), values, np.uint8)


def chessboard(low, high, side=32):
    field = np.indices((side, side)).sum(axis=0) % 2
    return np.where(field, high, low).astype(np.uint8)[None, ..., None]


def test_flat_images_differ_in_the_last_scales_luminance_alone():
    luminance = (2 * 50 * 200 + C1) / (50**2 + 200**2 + C1)
    assert pairwise(flat(50), flat(200))[0] == pytest.approx(luminance**0.1333, rel=1e-12)


def chessboards_contrast():
    """Of chessboards of 125 +- 25 and 125 +- 15 under the window of 11, worked out by hand.

    A field's local mean is 125 + a e, with e the square of the sum of the window's weights with alternating signs, and its
    local mean square about 125 is a^2: the variance is a^2 (1 - e^2), the covariance a b (1 - e^2).
    """
    weights = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    e = (np.sum(weights * (-1.0) ** np.arange(11)) / weights.sum()) ** 2
    spread = 1 - e**2
    return (2 * 25 * 15 * spread + C2) / ((25**2 + 15**2) * spread + C2)


def test_chessboards_differ_in_the_first_scale_alone():
    # Halved, both are flat at 125.
    assert pairwise(chessboard(100, 150), chessboard(110, 140))[0] == pytest.approx(chessboards_contrast() ** 0.0448, rel=1e-12)


def test_channels_are_averaged_before_the_power():
    same = chessboard(40, 90)
    first = np.concatenate([chessboard(100, 150), same, same], axis=-1)
    second = np.concatenate([chessboard(110, 140), same, same], axis=-1)
    expected = ((chessboards_contrast() + 2) / 3) ** 0.0448
    assert pairwise(first, second)[0] == pytest.approx(expected, rel=1e-12)


def test_inverted_structure_counts_as_zero():
    assert pairwise(chessboard(100, 150), chessboard(150, 100))[0] == 0.0


def expected_similarity(first, second):
    """Of two images [H, W, C], with the window as a matrix."""
    value, first, second = 1.0, first.astype(np.float64), second.astype(np.float64)
    for scale, power in enumerate([0.0448, 0.2856, 0.3001, 0.2363, 0.1333]):
        size = min(11, *first.shape[:2])
        places = np.arange(size) - (size - 1) / 2
        window = np.exp(-(places[:, None] ** 2 + places**2) / (2 * (1.5 * size / 11) ** 2))
        window = (window / window.sum())[..., None]

        local = functools.partial(scipy.signal.convolve, in2=window, mode="valid", method="direct")
        mean_1, mean_2 = local(first), local(second)
        contrast = (2 * (local(first * second) - mean_1 * mean_2) + C2) / (
            local(first**2) - mean_1**2 + local(second**2) - mean_2**2 + C2
        )
        luminance = (2 * mean_1 * mean_2 + C1) / (mean_1**2 + mean_2**2 + C1)
        value *= max((luminance * contrast if scale == 4 else contrast).mean(), 0.0) ** power
        if scale < 4:
            first, second = (x.reshape(len(x) // 2, 2, x.shape[1] // 2, 2, -1).mean(axis=(1, 3)) for x in (first, second))
    return value


@pytest.mark.parametrize("height, width", [(16, 16), (32, 32), (48, 32), (176, 176)])
def test_it_agrees_with_the_formula_in_two_dimensions(height, width):
    random = np.random.default_rng(0)
    first, other = random.integers(0, 256, (2, 3, height // 4, width // 4, 3)).repeat(4, axis=2).repeat(4, axis=3)
    second = 0.6 * first + 0.4 * other + random.normal(0, 25, first.shape)
    first, second = (np.clip(np.round(x), 0, 255).astype(np.uint8) for x in (first, second))
    expected = [expected_similarity(one, other) for one, other in zip(first, second)]
    assert 0.1 < min(expected) and max(expected) < 0.95
    np.testing.assert_allclose(pairwise(first, second), expected, rtol=1e-9)


def test_pairs_are_disjoint_and_in_order():
    one, other = flat(50), flat(200)
    apart = pairwise(one, other)[0]
    images = np.concatenate([one, one, other, other, one, other, one])  # the last one has no partner
    result = ms_ssim_pggan(images)
    values = [1.0, 1.0, apart]
    assert result["mean"] == pytest.approx(np.mean(values)) and result["num_pairs"] == 3
    assert result["standard_error"] == pytest.approx(np.std(values, ddof=1) / np.sqrt(3))
    assert ms_ssim_pggan(images[:3]) == {"mean": 1.0, "num_pairs": 1}
    assert ms_ssim_pggan(images, num_pairs=2) == {"mean": 1.0, "standard_error": 0.0, "num_pairs": 2}


def test_it_is_another_number_than_ms_ssim():
    """At 128 x 128 ms_ssim has four scales; the definitions differ by a per cent or more."""
    random = np.random.default_rng(1)
    first = random.integers(0, 256, (20, 8, 8, 3)).repeat(16, axis=1).repeat(16, axis=2)
    second = np.clip(first + random.normal(0, 40, first.shape), 0, 255).astype(np.uint8)
    first = first.astype(np.uint8)
    ours, theirs = diversity.ms_ssim(first, second).mean(), pairwise(first, second).mean()
    assert len(diversity.scales(128, 128)[0]) == 4 and abs(theirs / ours - 1) > 0.01


@pytest.mark.parametrize(
    "images, settings, message",
    [
        (np.zeros((4, 28, 28, 1), np.uint8), {}, "sides divisible by 16, received 28 x 28; ms_ssim takes others"),
        (np.zeros((4, 32, 40, 1), np.uint8), {}, "received 32 x 40"),
        (np.zeros((4, 16, 16, 1), np.float32), {}, r"received float32 \[4, 16, 16, 1\]"),
        (np.zeros((1, 16, 16, 1), np.uint8), {}, "N of 2 or more"),
        (np.zeros((4, 16, 16, 1), np.uint8), {"num_pairs": 1}, "num_pairs of 2 or more"),
    ],
)
def test_bad_input_is_one_clear_line(images, settings, message):
    with pytest.raises(UserError, match=message) as caught:
        ms_ssim_pggan(images, **settings)
    assert "\n" not in str(caught.value)


def test_stacks_of_different_shapes_are_refused():
    with pytest.raises(UserError, match=r"\[1, 16, 16, 1\] and \[1, 16, 16, 3\]"):
        pairwise(flat(1), flat(1, 2, 3))
