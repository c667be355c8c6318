"""What every metric of features asks of its input."""

import numpy as np

from tfcq.checks import as_array
from tfcq.errors import UserError


def check_features(features, name):
    """The features as an array, if they are a set of at least two finite vectors.

    Args:
        features: float [N, D], N >= 2, D >= 1.
        name: what the error message calls them.

    Returns:
        The same numbers as a NumPy array, not copied where they are one.

    Raises:
        UserError: another rank or type, fewer than two rows, no columns, or a value that is not finite.
    """
    features = as_array(features, name, "float [N, D]")
    if features.ndim != 2 or features.shape[0] < 2 or features.shape[1] < 1 or features.dtype.kind != "f":
        raise UserError(
            f"{name}: expected float [N, D] with at least 2 rows and 1 column, "
            f"received {features.dtype} {list(features.shape)}; pass one row an image"
        )
    if not (np.isfinite(features.min()) and np.isfinite(features.max())):  # both carry a NaN through; no mask is made
        raise UserError(
            f"{name}: expected finite numbers, received NaN or infinity in {features.dtype} {list(features.shape)}; "
            "look for them in the images or in the network that made the features"
        )
    return features


def check_same_columns(**features):
    """The arrays of `features`, in their order, if they are sets of at least two finite vectors of one dimension.

    Args:
        **features: float [N, D] each, all with one D, under the names that a message should use.

    Raises:
        UserError: another rank or type, fewer than two rows, values that are not finite, or different D.
    """
    arrays = {name: check_features(values, name) for name, values in features.items()}
    if len({array.shape[1] for array in arrays.values()}) != 1:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        raise UserError(f"features: expected the same number of columns, received {shapes}; use one network for all")
    return list(arrays.values())
