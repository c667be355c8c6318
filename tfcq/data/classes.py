"""The classes of training images: the folders right below the folder of their split, for --balance_classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tfcq.errors import UserError

if TYPE_CHECKING:
    from tfcq.data.manifest import Entry, Manifest


def numbered(entries: Sequence[Entry]) -> np.ndarray:
    """The number of each image's class, int64 [N]: 0 is that of the first image, then in the order of appearance.

    The names of the folders do not matter, so that they may change. Images that lie in no folder are a class, too.
    """
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(_folder(one), len(numbers)) for one in entries], np.int64)


def of_training(now: Manifest, before: Manifest | None, dataset: str, accept_changed_data: bool) -> np.ndarray:
    """The class of each training image of a run, int64 [N].

    Args:
        now: the images, under the names that they have now.
        before: the same when the run was last trained; None: it begins.
        dataset: name of the data set.
        accept_changed_data: whether the classes may be others than when the run began.

    Raises:
        UserError: all images are of one class, or another class than when the run began.
    """
    entries = now.splits["train"]
    classes = numbered(entries)
    if len(classes) and classes.max() < 1:
        raise UserError(
            f"balance_classes with dataset={dataset}: expected a folder for each of several classes, received all training "
            f"images in {_folder(entries[0]) or 'no folder'}"
        )
    if before and not accept_changed_data and not np.array_equal(classes, numbered(before.splits["train"])):
        raise UserError(
            f"dataset {dataset}: training images lie in folders of other classes than when the run began, and balance_classes "
            "draws by them; put them back, or go on with --accept_changed_data"
        )
    return classes


def _folder(entry):
    first, slash, _ = entry.key.partition("/")
    return first if slash else ""
