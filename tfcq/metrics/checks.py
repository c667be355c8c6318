"""Checks of the features that a metric is given."""

import numpy as np
from numpy.typing import ArrayLike

from tfcq.checks import as_array
from tfcq.errors import UserError


def check_features(features: ArrayLike, name: str) -> np.ndarray:
    """The features as an array, if they are a set of at least two finite vectors.

    Args:
        features: float [N, D], N >= 2, D >= 1.
        name: their name in messages.

    Returns:
        The same numbers as a NumPy array, not copied where they are one.

    Raises:
        UserError: another rank or type, fewer than two rows, no columns, or a value that is not finite.
    """
    array = as_array(features, name, "float [N, D]")
    if array.ndim != 2 or array.shape[0] < 2 or array.shape[1] < 1 or array.dtype.kind != "f":
        raise UserError(
            f"{name}: expected float [N, D] with at least 2 rows and 1 column, "
            f"received {array.dtype} {list(array.shape)}; pass one row an image"
        )
    if not (np.isfinite(array.min()) and np.isfinite(array.max())):  # NaN passes through both; no mask is allocated
        raise UserError(
            f"{name}: expected finite numbers, received NaN or infinity in {array.dtype} {list(array.shape)}; "
            "look for them in the images or in the network that made the features"
        )
    return array


def check_same_columns(**features: ArrayLike) -> list[np.ndarray]:
    """The arrays of `features`, in their order, if they are sets of at least two finite vectors of one dimension.

    Args:
        **features: float [N, D] each, all with one D, under their names in messages.

    Raises:
        UserError: another rank or type, fewer than two rows, values that are not finite, or different D.
    """
    arrays = {name: check_features(values, name) for name, values in features.items()}
    if len({array.shape[1] for array in arrays.values()}) != 1:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        raise UserError(f"features: expected the same number of columns, received {shapes}; use one network for all")
    return list(arrays.values())
