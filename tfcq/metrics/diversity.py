"""Mean multi-scale structural similarity between generated images: high where a generator repeats itself.

MS-SSIM of a pair (Wang, Simoncelli, Bovik: Multiscale Structural Similarity for Image Quality Assessment, 2003, Eq. 7)
multiplies contrast and structure over scales, each half as large as the one before, and luminance at the last, each to
a power. Its mean over random pairs measures diversity (Odena, Olah, Shlens: Conditional Image Synthesis with Auxiliary
Classifier GANs, 2017): above the real images' own value, the generator has lost modes. Odena et al. pair images within
a class; for that, call once per class.

The 2003 paper's 5 scales under an 11 x 11 window need 161 pixels. Smaller images get as many scales as the window fits,
halved sides rounded up, and the leading powers, renormalised to sum 1; under 11 pixels one scale under a 7 x 7 window,
which keeps 98 % of the Gaussian's width of 1.5 pixels along each axis. Values of different image sizes do not compare.
"""

import numpy as np
import tensorflow as tf

from tfcq.checks import check_images
from tfcq.errors import UserError

_POWERS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al.'s calibration across scales
_WINDOW = 11
_SMALL_WINDOW = 7


def scales(height, width):
    """(powers, window): the power of each scale, summing to 1, and the window's side in pixels, for an image's size.

    Raises:
        UserError: where a side has fewer than 7 pixels.
    """
    side = min(height, width)
    if side < _SMALL_WINDOW:
        raise UserError(
            f"MS-SSIM: expected images of {_SMALL_WINDOW} x {_SMALL_WINDOW} pixels or more, "
            f"received {height} x {width}: leave this metric out"
        )
    window = _WINDOW if side >= _WINDOW else _SMALL_WINDOW
    powers = [1.0]
    for count in range(2, len(_POWERS) + 1):
        side = (side + 1) // 2
        if side < window:
            break
        powers = np.asarray(_POWERS[:count]) / sum(_POWERS[:count])
    return tuple(float(power) for power in powers), window


def ms_ssim(first, second):
    """MS-SSIM of the pairs of two stacks of images.

    Negative terms (inverted structure) count as 0, as they have no fractional power. Colour images: the channels' mean.

    Args:
        first, second: uint8 [N, H, W, C], H and W at least 7.

    Returns:
        float32 [N] in [0, 1]; 1 for equal images.

    Raises:
        UserError: for other types or shapes.
    """
    first, second = _check_images(first, 1), _check_images(second, 1)
    if first.shape != second.shape:
        raise UserError(f"MS-SSIM: expected stacks of one shape, received {list(first.shape)} and {list(second.shape)}")
    powers, window = scales(*first.shape[1:3])
    values = tf.image.ssim_multiscale(
        tf.constant(first), tf.constant(second), max_val=255, power_factors=powers, filter_size=window, filter_sigma=1.5
    )
    # Rounding carries the similarity of nearly equal images past 1 by some 1e-7.
    return np.minimum(values.numpy(), 1.0)


def ms_ssim_diversity(images, num_pairs=1000, seed=0, batch_size=64):
    """The mean MS-SSIM over random pairs of different rows.

    Args:
        images: uint8 [N, H, W, C], N at least 2, H and W at least 7.
        num_pairs: at least 2. Pairs are drawn with replacement.
        seed: non-negative integer. The same seed gives the same pairs.
        batch_size: pairs compared at a time.

    Returns:
        dict: `mean` in [0, 1]; `standard_error` of it from the drawing of the pairs (for the N images at hand: pairs
        that share an image are not independent draws of the generator); `num_pairs`; `num_scales`.

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
    ).astype(np.float64)
    return {
        "mean": float(values.mean()),
        "standard_error": float(values.std(ddof=1) / np.sqrt(num_pairs)),
        "num_pairs": num_pairs,
        "num_scales": len(powers),
    }


def _check_images(images, least):
    return check_images(images, "images", least=least, where="MS-SSIM: ")
