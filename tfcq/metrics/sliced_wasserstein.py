"""Sliced Wasserstein distance between patches of images, scale by scale.

Karras, Aila, Laine, Lehtinen: Progressive Growing of GANs, 2018, Section 5: 7 x 7 patches of each level of a Laplacian
pyramid (Burt and Adelson 1983), each colour channel of each sample standardised over all its patches, are compared by
the mean 1-D Wasserstein distance over random directions. A small value means that the samples are alike at that
scale, fine structure in the first level and coarse in the last. As each sample is standardised by itself, a level does not
detect an affine change of a channel.

TF-GAN's function of this name is not used: it takes square images of 3 channels only, divides each patch by its own
deviation where the paper takes the sample's, hence gives NaN on any flat patch (the black rim of a digit), and draws
from NumPy's and TensorFlow's global generators, so that no single seed repeats it.
"""

import numpy as np
import scipy.ndimage
from numpy.typing import ArrayLike

from tfcq.checks import check_images
from tfcq.errors import UserError
from tfcq.metrics.metric import Measured, Metric

_PATCH = 7
_BINOMIAL = np.array([1, 4, 6, 4, 1]) / 16  # Burt and Adelson's generating kernel with a = 3/8
_DIRECTIONS_AT_A_TIME = 16  # bounds the projections' memory


def sliced_wasserstein(
    real: np.ndarray,
    generated: np.ndarray,
    seed: int = 0,
    patches_per_image: int = 64,
    num_directions: int = 128,
    smallest_level: int = 16,
) -> dict[str, float]:
    """The distance at each level of the pyramid, and their mean.

    Values depend on N: compare only equal N, and read them against two halves of the real images. (Karras et al. take
    16,384 images of 128 patches and print the distance times 1000.) Row i of both samples is cut at the same random
    places, so equal arrays have distance 0.

    Memory: 2 N x patches x 49 C x 4 bytes for the patches of a level (0.75 GB for 10,000 colour images and 64 patches)
    and a fifth to a third more for the projections.

    Args:
        real: uint8 [N, H, W, C], H and W at least 7.
        generated: uint8 [N, H, W, C], the same shape.
        seed: non-negative integer. The same seed gives the same values.
        patches_per_image: per level; fewer where a level has fewer places.
        num_directions: random directions per level, 512 in the paper's code; fewer cost precision but add no bias.
        smallest_level: the pyramid is halved while its smaller side stays at least this many pixels; at least
            7, 16 in the paper. Smaller images have one level.

    Returns:
        dict of floats: `level_HxW` for each level, the finest first, and `mean`. In units of a channel's deviation.

    Raises:
        UserError: for other types, shapes or settings.
    """
    real = check_images(real, "real", least=0, where="sliced Wasserstein: ")
    generated = check_images(generated, "generated", real.shape[1:], least=0, where="sliced Wasserstein: ")
    if len(real) != len(generated):
        raise UserError(
            f"sliced Wasserstein: expected as many generated as real images, received uint8 {list(real.shape)} and uint8 "
            f"{list(generated.shape)}; cut the larger set"
        )
    if not len(real):
        raise UserError(f"sliced Wasserstein: expected images, received {list(real.shape)}")
    check_size(*real.shape[1:3])
    if smallest_level < _PATCH or patches_per_image < 1 or num_directions < 1:
        raise UserError(
            f"sliced Wasserstein: expected smallest_level of {_PATCH} or more, patches_per_image and num_directions "
            f"of 1 or more, received {smallest_level}, {patches_per_image}, {num_directions}"
        )
    random = np.random.default_rng(seed)
    distances = {}
    pyramids = (laplacian_pyramid(images, smallest_level) for images in (real, generated))
    for real_level, generated_level in zip(*pyramids, strict=True):
        _, height, width, _ = real_level.shape
        places = (height - _PATCH + 1) * (width - _PATCH + 1)
        corners = random.integers(places, size=(len(real), min(patches_per_image, places)))
        real_patches, generated_patches = (standardised_patches(level, corners) for level in (real_level, generated_level))
        distances[f"level_{height}x{width}"] = point_distance(real_patches, generated_patches, random, num_directions)
    distances["mean"] = float(np.mean(list(distances.values())))
    return distances


def laplacian_pyramid(images: ArrayLike, smallest_level: int = 16) -> list[np.ndarray]:
    """The Laplacian pyramid: the detail that each halving loses, and finally the remainder.

    Args:
        images: numbers [N, H, W, C].
        smallest_level: levels whose smaller side would be under this are not made.

    Returns:
        list of float32 [N, H_l, W_l, C], the finest first; H_l and W_l halve, rounded up. Without rounding errors, the
        levels, each enlarged to the next finer one's size and added to it, give the images back.

    Raises:
        UserError: for other shapes.
    """
    levels = [np.asarray(images, np.float32)]
    if levels[0].ndim != 4 or not levels[0].size:
        raise UserError(f"Laplacian pyramid: expected images [N, H, W, C], received {list(levels[0].shape)}")
    while (min(levels[-1].shape[1:3]) + 1) // 2 >= smallest_level:
        fine = levels[-1]
        coarse = _blur(fine)[:, ::2, ::2]
        levels[-1] = fine - _enlarged(coarse, fine.shape)
        levels.append(coarse)
    return levels


def standardised_patches(level: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Flattened 7 x 7 patches with each channel moved to mean 0 and scaled to deviation 1 over all patches.

    Args:
        level: float32 [N, H, W, C].
        corners: int [N, P], in [0, (H - 6)(W - 6)): the top left corners, counted row by row.

    Returns:
        float32 [N P, 49 C]. A constant channel stays 0.
    """
    windows = np.lib.stride_tricks.sliding_window_view(level, (_PATCH, _PATCH), axis=(1, 2))
    top, left = np.unravel_index(corners, windows.shape[1:3])
    patches = windows[np.arange(len(level))[:, None], top, left]  # [N, P, C, 7, 7]
    patches = patches.reshape(-1, level.shape[-1], _PATCH * _PATCH)
    patches -= patches.mean(axis=(0, 2), keepdims=True, dtype=np.float64).astype(np.float32)
    deviation = np.sqrt(np.mean(np.square(patches), axis=(0, 2), keepdims=True, dtype=np.float64)).astype(np.float32)
    # A channel with nothing but rounding errors, some 1e-5 on the scale of 8 bits, would be amplified to noise.
    patches /= np.where(deviation > 1e-3, deviation, np.inf)
    return patches.reshape(len(patches), -1)


def point_distance(first: np.ndarray, second: np.ndarray, random: np.random.Generator, num_directions: int) -> float:
    """The mean over random directions of the 1-D Wasserstein-1 distance between projections of two sets of points.

    Args:
        first, second: float32 [N, D] each.
        random: `numpy.random.Generator` that draws the directions, uniform on the sphere.
        num_directions: the number of directions.

    Returns:
        float, at least 0, in the points' units.
    """
    directions = random.normal(size=(first.shape[1], num_directions))
    directions /= np.linalg.norm(directions, axis=0)
    directions = directions.astype(np.float32)
    total = 0.0
    for start in range(0, num_directions, _DIRECTIONS_AT_A_TIME):
        chunk = directions[:, start : start + _DIRECTIONS_AT_A_TIME].T
        # One direction a row: the sort then runs along contiguous memory.
        sorted_first, sorted_second = (np.sort(chunk @ points.T, axis=1) for points in (first, second))
        total += np.abs(sorted_first - sorted_second).mean(axis=1, dtype=np.float64).sum()
    return float(total / num_directions)


def check_size(height: int, width: int) -> None:
    """UserError unless both sides have 7 pixels or more."""
    if min(height, width) < _PATCH:
        raise UserError(
            f"sliced Wasserstein: expected images of {_PATCH} x {_PATCH} pixels or more, received {height} x {width}: "
            "leave this metric out"
        )


def _blur(images):
    """Burt and Adelson's 5 x 5 kernel; the rim mirrors without repeating the edge."""
    for axis in (1, 2):
        images = scipy.ndimage.convolve1d(images, _BINOMIAL, axis=axis, mode="mirror")
    return images


def _enlarged(images, shape):
    """Twice as large, of `shape`: zeros between the pixels, spread by a blur with 4 times the gain."""
    spread = np.zeros(shape, np.float32)
    spread[:, ::2, ::2] = images
    return 4 * _blur(spread)


def _measure(real, generated, seed):
    count = min(len(real.images), len(generated.images))
    result = dict(sliced_wasserstein(real.images[:count], generated.images[:count], seed))
    detail = {"num_compared": count, "levels": {name: value for name, value in result.items() if name != "mean"}}
    return Measured({"sliced_wasserstein": result["mean"]}, {"sliced_wasserstein": detail})


METRIC = Metric(_measure, needs="images", check_size=check_size)
