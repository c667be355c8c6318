"""Mean multi-scale structural similarity between generated images: high where a generator repeats itself.

MS-SSIM of a pair (Wang, Simoncelli, Bovik: Multiscale Structural Similarity for Image Quality Assessment, 2003, Eq. 7)
multiplies contrast and structure over scales, each half as large as the one before, and luminance at the last, each to
a power. Its mean over random pairs measures diversity (Odena, Olah, Shlens: Conditional Image Synthesis with Auxiliary
Classifier GANs, 2017): above the real images' own value, the generator has lost modes. Odena et al. pair images within
a class; for that, call once per class.

The 2003 paper's 5 scales under an 11 x 11 window need 161 pixels. Smaller images get as many scales as the window fits,
halved sides rounded up, and the leading powers, renormalised to sum 1; under 11 pixels one scale under a 7 x 7 window,
which keeps 98 % of the Gaussian's width of 1.5 pixels along each axis. Values of different image sizes cannot be compared.

It is computed in float64. A local variance is E[x^2] - E[x]^2, and where an image is smooth most digits cancel: in float32,
which `tf.image.ssim_multiscale` uses, the similarity of smooth 8 x 8 images changes in its fifth decimal place with the
convolution kernel that is chosen for the processor.
"""

import numpy as np
import scipy.ndimage

from tfcq.checks import check_images
from tfcq.errors import UserError
from tfcq.metrics.metric import Measured, Metric

POWERS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al.'s calibration across scales
WINDOW = 11
_SMALL_WINDOW = 7
WINDOW_DEVIATION = 1.5  # pixels
LUMINANCE_CONSTANT, CONTRAST_CONSTANT = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # Wang et al.: K1, K2 of the range
_VALUES_AT_A_TIME = 2**21  # of a stack of images; about ten float64 arrays of this size are in memory


def scales(height: int, width: int) -> tuple[tuple[float, ...], int]:
    """(powers, window): the power of each scale, summing to 1, and the window's side in pixels, for an image's size.

    Raises:
        UserError: if a side has fewer than 7 pixels.
    """
    side = min(height, width)
    if side < _SMALL_WINDOW:
        raise UserError(
            f"MS-SSIM: expected images of {_SMALL_WINDOW} x {_SMALL_WINDOW} pixels or more, "
            f"received {height} x {width}: leave this metric out"
        )
    window = WINDOW if side >= WINDOW else _SMALL_WINDOW
    powers: tuple[float, ...] = (1.0,)
    for count in range(2, len(POWERS) + 1):
        side = (side + 1) // 2
        if side < window:
            break
        powers = tuple((np.asarray(POWERS[:count]) / sum(POWERS[:count])).tolist())
    return powers, window


def ms_ssim(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """MS-SSIM of the pairs of two stacks of images.

    Negative terms (inverted structure) count as 0, since they have no fractional power. Colour images: the channels' mean.

    Args:
        first, second: uint8 [N, H, W, C], H and W at least 7.

    Returns:
        float64 [N] in [0, 1]; 1 for equal images.

    Raises:
        UserError: for other types or shapes.
    """
    first, second = _check_images(first, 1), _check_images(second, 1)
    if first.shape != second.shape:
        raise UserError(f"MS-SSIM: expected stacks of one shape, received {list(first.shape)} and {list(second.shape)}")
    powers, window = scales(*first.shape[1:3])
    weights = np.exp(-0.5 * (np.arange(-(window // 2), window // 2 + 1) / WINDOW_DEVIATION) ** 2)
    weights /= weights.sum()
    count = max(1, _VALUES_AT_A_TIME // first[0].size)
    return np.concatenate(
        [
            _ms_ssim(first[start : start + count], second[start : start + count], powers, weights)
            for start in range(0, len(first), count)
        ]
    )


def _ms_ssim(first, second, powers, weights):
    first, second = first.astype(np.float64), second.astype(np.float64)
    similarity = np.ones((len(first), first.shape[-1]))
    for scale, power in enumerate(powers):
        if scale:
            first, second = _halve(first), _halve(second)
        luminance, contrast = _luminance_and_contrast(first, second, weights)
        terms = luminance * contrast if scale == len(powers) - 1 else contrast
        similarity = similarity * np.maximum(terms.mean(axis=(1, 2)), 0.0) ** power
    return np.minimum(similarity.mean(axis=-1), 1.0)  # rounding can take equal images above 1


def _luminance_and_contrast(first, second, weights):
    """The luminance term and the product of contrast and structure, [N, H - window + 1, W - window + 1, C] each."""
    # By their sum s and difference d, 2xy = (s^2 - d^2) / 2 and x^2 + y^2 = (s^2 + d^2) / 2: four local means instead of five.
    total, difference = first + second, first - second
    mean_s, mean_d = _local_mean(total, weights) ** 2, _local_mean(difference, weights) ** 2
    spread_s, spread_d = _local_mean(total**2, weights) - mean_s, _local_mean(difference**2, weights) - mean_d
    luminance = ((mean_s - mean_d) / 2 + LUMINANCE_CONSTANT) / ((mean_s + mean_d) / 2 + LUMINANCE_CONSTANT)
    return luminance, ((spread_s - spread_d) / 2 + CONTRAST_CONSTANT) / ((spread_s + spread_d) / 2 + CONTRAST_CONSTANT)


def _local_mean(images, weights):
    """Means of [N, H, W, C] under the window wherever all of it lies inside."""
    margin = len(weights) // 2
    rows = scipy.ndimage.correlate1d(images, weights, axis=1)[:, margin:-margin]
    return scipy.ndimage.correlate1d(rows, weights, axis=2)[:, :, margin:-margin]


def _halve(images):
    """Means of 2 x 2 pixels; an odd side repeats its last row or column."""
    height, width = images.shape[1:3]
    images = np.pad(images, [(0, 0), (0, height % 2), (0, width % 2), (0, 0)], mode="edge")
    return (images[:, ::2, ::2] + images[:, 1::2, ::2] + images[:, ::2, 1::2] + images[:, 1::2, 1::2]) / 4.0


def ms_ssim_diversity(
    images: np.ndarray, num_pairs: int = 1000, seed: int = 0, batch_size: int = 64
) -> dict[str, float]:
    """The mean MS-SSIM over random pairs of different rows.

    Args:
        images: uint8 [N, H, W, C], N at least 2, H and W at least 7.
        num_pairs: at least 2. Pairs are drawn with replacement.
        seed: non-negative integer. The same seed gives the same pairs.
        batch_size: pairs compared at a time.

    Returns:
        dict: `mean` in [0, 1]; `standard_error` of it from the drawing of the pairs (for the given N images: pairs
        with an image in common are not independent draws of the generator); `num_pairs`; `num_scales`.

    Raises:
        UserError: for other types or shapes, or fewer than two pairs.
    """
    images = _check_images(images, 2)
    if num_pairs < 2 or batch_size < 1:
        raise UserError(
            f"MS-SSIM: expected num_pairs of 2 or more and a positive batch_size, received {num_pairs} and {batch_size}"
        )
    powers, _ = scales(*images.shape[1:3])
    random = np.random.default_rng(seed)
    first = random.integers(len(images), size=num_pairs)
    second = (first + random.integers(1, len(images), size=num_pairs)) % len(images)
    values = np.concatenate(
        [
            ms_ssim(images[first[start : start + batch_size]], images[second[start : start + batch_size]])
            for start in range(0, num_pairs, batch_size)
        ]
    )
    return {
        "mean": float(values.mean()),
        "standard_error": float(values.std(ddof=1) / np.sqrt(num_pairs)),
        "num_pairs": num_pairs,
        "num_scales": len(powers),
    }


def _check_images(images, least):
    return check_images(images, "images", least=least, where="MS-SSIM: ")


def _measure(real, generated, seed, num_pairs=2000):
    pairs = min(num_pairs, len(generated.images) * (len(generated.images) - 1) // 2)
    result = dict(ms_ssim_diversity(generated.images, pairs, seed)) | {"num_compared": len(generated.images)}
    return Measured({"ms_ssim": result.pop("mean")}, {"ms_ssim": result})


METRIC = Metric(_measure, needs="images", options=("num_pairs",), check_size=scales)
