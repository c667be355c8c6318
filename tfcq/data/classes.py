"""The classes of images.

Those that a source names (`Labels`, `Classes`) are for models of --class_conditional, the folders right below that of the
training images for --balance_classes.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfcq.errors import UserError

if TYPE_CHECKING:
    from tfcq.data.manifest import Entry, Manifest
    from tfcq.data.split_images import SplitImages

EXPECTED = (
    "images with a class each (folder:DIR with a folder for each class; npz:FILE with train_labels beside train, y_train beside "
    "x_train, or labels beside images; idx:DIR with files of labels; digits; a TFDS data set with a feature `label`)"
)
"""Images whose classes are known, for messages."""

MOST_CLASSES = 10
"""Up to this many classes are counted one by one; of more, only the smallest and the largest."""


def check_labels(values: Any, count: int, name: str) -> np.ndarray:
    """The label of each of `count` images: an array of ints or strs [count], without Python objects.

    Args:
        values: int or str [count] or [count, 1].
        count: how many images there are.
        name: of the labels, for messages.

    Raises:
        UserError: another type or shape.
    """
    array = np.asarray(values)
    if array.dtype == object and all(isinstance(one, str) for one in array.flat):  # a column of strs of a table
        array = array.astype(str)
    if array.shape not in ((count,), (count, 1)) or array.dtype.kind not in "iuSU":
        received = f"{array.dtype} {list(array.shape)}"
        if array.ndim == 2 and array.shape[1] > 1:
            received += "; of one-hot rows np.argmax(classes, axis=1)"
        raise UserError(f"{name}: expected integers or strings [{count}], one for each image, received {received}")
    return array.reshape(-1)


@dataclasses.dataclass(frozen=True)
class Labels:
    """The class of each of some images.

    Attributes:
        names: of the classes, in their order; some may be of no image.
        numbers: of each image's class, an index into `names`, int64 [N].
    """

    names: tuple[str, ...]
    numbers: np.ndarray

    @classmethod
    def of(cls, values: Any) -> Labels:
        """Those of each image's own label, ints or strs [N].

        Numbers, also if they are written as text, are in the order of their values; other strs in that of their text.
        """
        array = np.asarray(values)
        if array.dtype.kind == "S":
            array = np.char.decode(array, "utf-8", "replace")
        found, numbers = np.unique(array, return_inverse=True)
        names = [str(one) for one in found.tolist()]
        order = sorted(range(len(names)), key=_order_of(names))
        place = np.empty(len(names), np.int64)
        place[order] = np.arange(len(names))
        return cls(tuple(names[index] for index in order), place[numbers.reshape(-1)])

    @classmethod
    def read(cls, reader: Callable[[], Labels] | None, dataset: str) -> Labels:
        """Those that `reader`, a `RawImages.labels`, gives; UserError if it is None, which names the images by `dataset`."""
        if reader is None:
            raise UserError(f"{dataset}: expected {EXPECTED}, found none")
        return reader()

    def by_name(self) -> np.ndarray:
        """The name of each image's class, str [N]."""
        return np.array(self.names, str)[self.numbers]


@dataclasses.dataclass(frozen=True)
class Classes:
    """The classes of a data set: those of its training images.

    Attributes:
        names: of the classes, in their order; their numbers are indices into it.
        counts: how many training images each has, at least 1.
        numbers: {split: number of each image's class, int64 [N]}; from len(names) on it is that of no training image.
        others: names of the classes that no training image has; their numbers go on from those of `names`.
    """

    names: tuple[str, ...]
    counts: tuple[int, ...]
    numbers: dict[str, np.ndarray]
    others: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, readers: Mapping[str, Callable[[], Labels] | None], images: Mapping[str, SplitImages], dataset: str
    ) -> Classes:
        """The classes of splits, {split: SplitImages}.

        Args:
            readers: {the source's split: `RawImages.labels` of its images}.
            images: where each split's images are there.
            dataset: name of the data set, for messages.

        Raises:
            UserError: the source has no classes, or all training images are of one.
        """
        labels = {origin: Labels.read(reader, f"dataset {dataset}") for origin, reader in readers.items()}
        named = {split: _names(one, labels) for split, one in images.items()}
        there = set(named["train"].tolist())
        known = dict.fromkeys(name for one in labels.values() for name in one.names)
        names, others = (tuple(name for name in known if (name in there) == trained) for trained in (True, False))
        if len(names) < 2:
            raise UserError(f"dataset {dataset}: expected training images of several classes, received all of {names[0]}")
        number = {name: index for index, name in enumerate(names + others)}
        numbers = {split: np.array([number[name] for name in one], np.int64) for split, one in named.items()}
        counts = np.bincount(numbers["train"], minlength=len(names))
        return cls(names, tuple(counts.tolist()), numbers, others)

    def by_name(self, split: str) -> np.ndarray:
        """The name of each image's class, str [N], of "train", "validation" or "test"."""
        return np.array(self.names + self.others, str)[self.numbers[split]]

    def numbered(self, split: str, names: Sequence[str], dataset: str = "") -> np.ndarray:
        """The number of each image's class, an index into `names`, int32 [N].

        Args:
            split: "train", "validation" or "test".
            names: of the classes of a model.
            dataset: name of the data set, for messages.

        Raises:
            UserError: an image of a class that is not among them.
        """
        place = {name: index for index, name in enumerate(names)}
        own = np.array([place.get(name, -1) for name in self.names + self.others], np.int32)
        numbers = own[self.numbers[split]]
        if (numbers < 0).any():
            first = int(np.flatnonzero(numbers < 0)[0])
            received = repr(str(self.by_name(split)[first]))
            received += ", which no training image has," if self.numbers[split][first] >= len(self.names) else ""
            raise UserError(
                f"dataset {dataset}: expected images of the classes {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}, "
                f"received {received} for {split} image {first} (of {int((numbers < 0).sum())} such images)"
            )
        return numbers

    def facts(self) -> dict[str, Any]:
        """Names, counts and a digest of the training images' classes as plain values, as data.json keeps them."""
        named = "\0".join(np.array(self.names, object)[self.numbers["train"]].tolist())
        digest = hashlib.blake2b(named.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
        return {"names": list(self.names), "counts": list(self.counts), "digest": digest}


def notes(classes: Mapping[str, Mapping[str, int]]) -> list[str]:
    """For each split with several classes, {split: {class: number of images}}, a phrase with these numbers."""
    found = []
    for split, counts in classes.items():
        if len(counts) < 2:
            continue
        least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
        if counts[least] == counts[most]:
            note = f"{len(counts)} classes of {counts[most]}"
        elif len(counts) <= MOST_CLASSES:
            note = f"{len(counts)} classes: " + ", ".join(f"{name or 'no folder'} {count}" for name, count in counts.items())
        else:
            note = f"{len(counts)} classes of {counts[least]} ({least or 'no folder'}) to {counts[most]}"
        missing = sorted(set(classes["train"]) - set(counts))
        if missing:
            note += f", none of {', '.join(missing[:3])}" + (" and others" if len(missing) > 3 else "")
        found.append(f"{split} {note}" if len(classes) > 1 else note)
    return found


def _order_of(names):
    """The key by which indices of `names` are sorted."""
    decimal = all(name.isdecimal() for name in names)
    return lambda index: int(names[index]) if decimal else names[index]


def _names(images, labels):
    """The name of each image's class, an array of str, of a SplitImages and {the source's split: Labels}."""
    found = np.empty(len(images.indices), object)
    for origin in images.origins:
        if (here := images.of(origin)).any():
            own = labels[origin]
            found[here] = np.array(own.names, object)[own.numbers[images.indices[here]]]
    return found


def shares(facts: Mapping[str, Any], balanced: bool) -> dict[str, float]:
    """{name of a class: how often it is drawn in training}, of `Classes.facts`; with balanced classes all equally often."""
    counts = [1] * len(facts["names"]) if balanced else facts["counts"]
    return {name: count / sum(counts) for name, count in zip(facts["names"], counts, strict=True)}


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
