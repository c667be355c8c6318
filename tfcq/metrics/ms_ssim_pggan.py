"""MS-SSIM between generated images as Karras et al. 2018 (PGGAN) measure it, by which IntroVAE's Table 2 is (Huang et al. 2018).

It is the idea of `tfcq.metrics.diversity` with other choices, and its values are others: compare them with none of `ms_ssim`.

- Always five scales, whatever the size. A window larger than the scaled image is as large as that, and its Gaussian's
  deviation, 1.5 pixels of 11, shrinks with it. At a side of one pixel contrast and structure are 1.
- Contrast and structure are averaged over pixels and channels together, then taken to their power.
- The powers of Wang et al. 2003 are not normalised; they sum to 1.0001.
- Pairs are disjoint: images 0 and 1, 2 and 3, and so on.

Sides are halved four times by means of 2 x 2 pixels, so they must be divisible by 16.

Source: "Progressive Growing of GANs for Improved Quality, Stability, and Variation", Section 5, and its authors' program. There
10,000 pairs of images of 128 x 128 pixels. Here in float64, there in float32.
"""

import numpy as np

from tfcq.checks import check_images
from tfcq.errors import UserError
from tfcq.metrics.diversity import CONTRAST_CONSTANT, LUMINANCE_CONSTANT, POWERS, WINDOW, WINDOW_DEVIATION
from tfcq.metrics.metric import Measured, Metric

_DIVISOR = 2 ** (len(POWERS) - 1)
_VALUES_AT_A_TIME = 2**21  # of a stack of images; about ten float64 arrays of this size are in memory


def pairwise(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The similarity of the pairs of two stacks of images.

    Args:
        first, second: uint8 [N, H, W, C], H and W divisible by 16.

    Returns:
        float64 [N], from 0 to 1; 1 for equal images. Negative means over an image (inverted structure) count as 0.

    Raises:
        UserError: for other types or shapes.
    """
    first, second = _check(first, 1), _check(second, 1)
    if first.shape != second.shape:
        raise UserError(f"ms_ssim_pggan: expected stacks of one shape, received {list(first.shape)} and {list(second.shape)}")
    count = max(1, _VALUES_AT_A_TIME // first[0].size)
    starts = range(0, len(first), count)
    return np.concatenate([_similarity(first[start : start + count], second[start : start + count]) for start in starts])


def ms_ssim_pggan(images: np.ndarray, num_pairs: int = 10000) -> dict[str, float]:
    """The mean similarity of the disjoint pairs (0, 1), (2, 3), ... of images.

    Args:
        images: uint8 [N, H, W, C], N at least 2, H and W divisible by 16.
        num_pairs: how many pairs at most, 2 or more; with fewer than twice as many images, N // 2.

    Returns:
        dict: `mean`, from 0 to 1; `standard_error` of it as a mean of independent pairs, if there are two or more; `num_pairs`.

    Raises:
        UserError: for other types or shapes, or fewer than two pairs.
    """
    images = _check(images, 2)
    if num_pairs < 2:
        raise UserError(f"ms_ssim_pggan: expected num_pairs of 2 or more, received {num_pairs}")
    count = min(num_pairs, len(images) // 2)
    values = pairwise(images[: 2 * count : 2], images[1 : 2 * count : 2])
    error = {"standard_error": float(values.std(ddof=1) / np.sqrt(count))} if count > 1 else {}
    return {"mean": float(values.mean()), **error, "num_pairs": count}


def _similarity(first, second):
    first, second = first.astype(np.float64), second.astype(np.float64)
    similarity = np.ones(len(first))
    for scale, power in enumerate(POWERS):
        if scale:
            first, second = _halve(first), _halve(second)
        with_luminance, contrast = _terms(first, second)
        terms = with_luminance if scale == len(POWERS) - 1 else contrast
        similarity *= np.maximum(terms.mean(axis=(1, 2, 3)), 0.0) ** power
    return np.minimum(similarity, 1.0)  # rounding can take equal images above 1


def _terms(first, second):
    """(SSIM, contrast times structure) where all of the window lies inside, [N, h, w, C] each."""
    weights = _window(min(WINDOW, *first.shape[1:3]))
    mean_1, mean_2 = _local_mean(first, weights), _local_mean(second, weights)
    covariance = _local_mean(first * second, weights) - mean_1 * mean_2
    variances = _local_mean(first**2 + second**2, weights) - mean_1**2 - mean_2**2
    contrast = (2 * covariance + CONTRAST_CONSTANT) / (variances + CONTRAST_CONSTANT)
    luminance = (2 * mean_1 * mean_2 + LUMINANCE_CONSTANT) / (mean_1**2 + mean_2**2 + LUMINANCE_CONSTANT)
    return luminance * contrast, contrast


def _window(size):
    """The weights of a Gaussian along an axis: a window of an even size has its centre between two pixels."""
    weights = np.exp(-0.5 * ((np.arange(size) - (size - 1) / 2) / (WINDOW_DEVIATION * size / WINDOW)) ** 2)
    return weights / weights.sum()


def _local_mean(images, weights):
    height, width = (side - len(weights) + 1 for side in images.shape[1:3])
    images = sum(weight * images[:, start : start + height] for start, weight in enumerate(weights))
    return sum(weight * images[:, :, start : start + width] for start, weight in enumerate(weights))


def _halve(images):
    return (images[:, ::2, ::2] + images[:, 1::2, ::2] + images[:, ::2, 1::2] + images[:, 1::2, 1::2]) / 4


def check_size(height: int, width: int) -> None:
    """UserError unless both sides, in pixels, are divisible by 16."""
    if height % _DIVISOR or width % _DIVISOR:
        raise UserError(
            f"ms_ssim_pggan: expected images with sides divisible by {_DIVISOR}, received {height} x {width}; "
            "ms_ssim takes others"
        )


def _check(images, least):
    images = check_images(images, "images", least=least, where="ms_ssim_pggan: ")
    check_size(*images.shape[1:3])
    return images


def _measure(real, generated, seed, num_pairs):
    del real, seed  # the pairs are the images in their order
    result = ms_ssim_pggan(generated.images, num_pairs)
    return Measured({"ms_ssim_pggan": result.pop("mean")}, {"ms_ssim_pggan": result})


METRIC = Metric(
    _measure, needs="images", options=("num_pairs",), check_size=check_size, num_images=lambda num_pairs: 2 * num_pairs
)
