"""Which generated images are near copies of training images: nearer to one than held-out images usually are.

Memorisation as one number (`tfcq.metrics.memorisation`) says whether a model copies; this says which images. The distance of a
generated image to its nearest training image means little by itself: plain images are near to many others, crowded ones to none.
Held-out images, which the model has never seen, show how near a fair draw comes. So the distances of generated images are
read as percentiles of theirs, as in the test of Meehan et al.; Alaa et al. compare with the distance between training images
themselves instead, sample by sample, which needs another search and is not done here.

Distances are Euclidean, in two spaces: of features, and of pixels, where a training image is also compared as its mirror image.
Features are not mirrored: those of a network hardly change with it. Both searches go by blocks (`neighbours`): no N x N matrix
is ever allocated.

References:

* Meehan, Chaudhuri, Dasgupta: A Non-Parametric Test to Detect Data-Copying in Generative Models, 2020.
* Alaa, van Breugel, Saveliev, van der Schaar: How Faithful is your Synthetic Data? Sample-level Metrics for Evaluating and
  Auditing Generative Models, 2022 (authenticity).
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from tfcq.metrics.metric import Measured, Metric
from tfcq.metrics.neighbours import nearest_images, nearest_neighbours

_ROUNDING = 1e-9  # 100 * 0.07 is a little more than 7


@dataclasses.dataclass(frozen=True)
class Nearest:
    """The nearest training image of each of N images, in one space.

    Attributes:
        indices: int64 [N], places among the training images.
        distances: float64 [N], Euclidean; of pixels in 8-bit values.
        percentiles: float64 [N], which percentage of the held-out images has a smaller distance; 0 for a copy.
        mirrored: bool [N], whether the mirror image was nearer than the image.
    """

    indices: np.ndarray
    distances: np.ndarray
    percentiles: np.ndarray
    mirrored: np.ndarray

    def flagged(self, quantile: float) -> np.ndarray:
        """bool [N]: whether fewer than that fraction of the held-out images has a smaller distance."""
        return self.percentiles < 100.0 * quantile - _ROUNDING


def percentiles(distances: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """For each distance the percentage of held-out distances that are smaller: float64 [N] in [0, 100].

    >>> percentiles(np.array([0.0, 2.0, 9.0]), np.array([1.0, 2.0, 3.0, 4.0]))
    array([  0.,  25., 100.])

    Args:
        distances: float [N].
        held_out: float [M], M of at least 1.
    """
    return 100.0 * np.searchsorted(np.sort(held_out), distances, side="left") / len(held_out)


def expected_share(num_held_out: int, quantile: float) -> float:
    """The fraction of images that one space flags where nothing is copied: about `quantile`, and more where few are held out.

    The rank of an image's distance among those of M held-out ones is then any of M + 1 with equal probability.

    >>> round(expected_share(1000, 0.01), 4), round(expected_share(9, 0.01), 4)
    (0.01, 0.1)
    """
    return math.ceil(num_held_out * quantile - _ROUNDING) / (num_held_out + 1)


def nearest_in_features(images: np.ndarray, train: np.ndarray, held_out: np.ndarray) -> tuple[Nearest, Nearest]:
    """(`Nearest` of the images, of the held-out images) by features.

    Args:
        images, train, held_out: float [N, D], [T, D] and [M, D], the features of the images that are looked up, of those that
            the model was trained on, and of others of the same distribution.

    Raises:
        UserError: bad features.
    """
    found = [nearest_neighbours(queries, train) for queries in (images, held_out)]
    return _compared([(distances[:, 0], indices[:, 0], np.zeros(len(indices), bool)) for distances, indices in found])


def nearest_in_pixels_or_mirrored(images: np.ndarray, train: np.ndarray, held_out: np.ndarray) -> tuple[Nearest, Nearest]:
    """(`Nearest` of the images, of the held-out images) by pixels, each beside every training image and its mirror image.

    Args:
        images, train, held_out: uint8 [N, H, W, C], [T, H, W, C] and [M, H, W, C].

    Raises:
        UserError: images of another type, or of different shapes.
    """
    return _compared([_in_pixels(queries, train) for queries in (images, held_out)])


def _in_pixels(queries, train):
    # Mirroring the one or the other gives the same distance.
    found = [nearest_images(one, train) for one in (queries, queries[:, :, ::-1])]
    (as_it_is, mirrored), (places, mirrored_places) = ([one[part][:, 0] for one in found] for part in (0, 1))
    nearer = mirrored < as_it_is
    return np.where(nearer, mirrored, as_it_is), np.where(nearer, mirrored_places, places), nearer


def _compared(found):
    held_out = found[1][0]
    images, others = (
        Nearest(indices, distances, percentiles(distances, held_out), mirrored) for distances, indices, mirrored in found
    )
    return images, others


def ranked(spaces: Sequence[Nearest]) -> np.ndarray:
    """The numbers of the images, int64 [N], the nearest copies first: by the smallest percentile in any space.

    Of equal ones those come first that are nearer beside the mean distance of their space, then the first.
    """
    smallest = np.min([space.percentiles for space in spaces], axis=0)
    nearness = np.min([space.distances / (space.distances.mean() or 1.0) for space in spaces], axis=0)
    return np.lexsort((nearness, smallest))


def _measure(real, generated, seed, train, near_copy_quantile, num_samples, num_train_images):
    by_features, features_of_real = nearest_in_features(generated.features, train.features, real.features)
    by_pixels, pixels_of_real = nearest_in_pixels_or_mirrored(generated.images, train.images, real.images)
    flags = [space.flagged(near_copy_quantile) for space in (by_features, by_pixels)]
    real_flags = [space.flagged(near_copy_quantile) for space in (features_of_real, pixels_of_real)]
    details = {
        "real": float(np.mean(real_flags[0] | real_flags[1])),
        "flagged": int(np.sum(flags[0] | flags[1])),
        "flagged_by_features": int(np.sum(flags[0])),
        "flagged_by_pixels": int(np.sum(flags[1])),
        "near_copy_quantile": near_copy_quantile,
        # The largest distance that is flagged: that of a held-out image.
        "feature_distance_at_quantile": float(features_of_real.distances[real_flags[0]].max()),
        "pixel_distance_at_quantile": float(pixels_of_real.distances[real_flags[1]].max()),
        "mirrored": "training images are compared by pixels as they are and mirrored, by features as they are",
    }
    found, notes = {"features": by_features, "pixels": by_pixels}, []
    if len(real) * near_copy_quantile < 1:
        expected = 100 * expected_share(len(real), near_copy_quantile)
        notes.append(
            f"{len(real)} held-out images are too few for --near_copy_quantile={near_copy_quantile:g}: by features and by pixels "
            f"each about {expected:.2g} % of images are flagged where nothing is copied"
        )
    return Measured({"near_copies": float(np.mean(flags[0] | flags[1]))}, {"near_copies": details}, notes, found)


METRIC = Metric(
    _measure,
    needs="features and images",
    floor=False,
    train=True,
    options=("near_copy_quantile", "num_samples", "num_train_images"),
    num_images=lambda num_samples, num_train_images, **_: max(num_samples, num_train_images),
)
