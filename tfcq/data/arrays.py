"""Images that Python holds: NumPy arrays, tensors, `tf.data.Dataset`s."""

from __future__ import annotations

import functools
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfcq.checks import as_array, shown
from tfcq.data.classes import Classes, check_labels
from tfcq.data.dataset import MEMORY_LIMIT, ImageDataset
from tfcq.data.npz import LABELS, UNFIT, shape_advice, type_advice
from tfcq.data.sources import RawArray, Source
from tfcq.data.split_images import Gather
from tfcq.data.splits import SPLITS
from tfcq.errors import UserError
from tfcq.machine import files
from tfcq.machine.paths import AnyPath


def as_images(value: Any, name: str = "images") -> np.ndarray:
    """8-bit images as one array.

    Args:
        value: uint8 [N, H, W, C] or [N, H, W], C 1 or 3: an array, a tensor, or a finite `tf.data.Dataset` of images or of
            batches of them, alone, first in a tuple, or "image" in a dict.
        name: the argument's name, for messages.

    Returns:
        uint8 [N, H, W, C].

    Raises:
        UserError: another type or shape, no images, an infinite data set, or one of more than `MEMORY_LIMIT` bytes.
    """
    return _images_and_labels(value, name, False)[0]


def _images_and_labels(value: Any, name: str, labelled: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """`as_images` of a value and, if they are wanted, the labels of a `tf.data.Dataset`; None: it has none."""
    labels = None
    if isinstance(value, tf.data.Dataset):
        array, labels = _collected(value, name, labelled)
    else:
        array = as_array(value, name, "uint8 [N, H, W, C]")
    advice = shape_advice(array.shape) or type_advice(array)
    if advice or not len(array):
        advice = "" if advice in (None, UNFIT) else f" {advice}"
        received = f"{array.dtype} {list(array.shape)}{advice}"
        raise UserError(f"{name}: expected uint8 [N, H, W] or [N, H, W, 1 or 3], received {received}")
    return array[..., None] if array.ndim == 3 else array, labels


def training_set(
    value: Any, image_shape: tuple, name: str = "images", classes: Any = None, class_names: Sequence[str] = ()
) -> ImageDataset:
    """An `ImageDataset` with the training images `value`, in any form that `as_images` takes, and no other split.

    `classes`: int [N], indices into `class_names`; None: the labels of a `tf.data.Dataset`, or without `class_names` none.

    Raises:
        UserError: as `as_images`; images of another shape than `image_shape`, (H, W, C); classes that are no such numbers.
    """
    wanted = bool(class_names) and classes is None
    images, labelled = _images_and_labels(value, name, wanted)
    if images.shape[1:] != tuple(image_shape):
        raise UserError(f"{name}: expected uint8 {['N', *image_shape]}, received {list(images.shape)}".replace("'", ""))
    splits: dict[str, tuple[Gather, np.ndarray]] = {"train": (images.__getitem__, np.arange(len(images)))}
    labels = None
    if wanted:
        classes = labelled
        if classes is None:
            raise UserError(f"{name}: expected a label beside each image of the tf.data.Dataset, or y, as the model has classes")
    if classes is not None:
        numbers = as_array(classes, "classes", f"int [{len(images)}]")
        fits = numbers.dtype.kind in "iu" and numbers.shape == (len(images),)
        if not fits or numbers.min() < 0 or numbers.max() >= len(class_names):
            raise UserError(f"classes: expected int [{len(images)}] in 0..{len(class_names) - 1}, received {shown(numbers)}")
        counts = tuple(np.bincount(numbers, minlength=len(class_names)).tolist())
        found = Classes(tuple(class_names), counts, {"train": numbers.astype(np.int64)})
        labels = functools.partial(lambda: found)
    description = f"{name}: {len(images)} in memory"
    return ImageDataset(description, images.shape[1:], splits, horizontal_flip=False, labels=labels)


def _collected(dataset: tf.data.Dataset, name: str, labelled: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """The images of a tf.data.Dataset, [N, H, W, C] or [N, H, W], and its labels, if they are wanted and all have one."""
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise UserError(f"{name}: expected a finite tf.data.Dataset, received one without an end; leave its repeat() out")
    parts, labels, num_bytes = [], [], 0
    for element in dataset:
        part = _image_of(element, name).numpy()
        parts.append(part)
        labels.append(_label_of(element) if labelled else None)
        num_bytes += part.nbytes
        if num_bytes > MEMORY_LIMIT:
            raise UserError(
                f"{name}: expected at most {MEMORY_LIMIT / 2**30:.0f} GiB, received a larger tf.data.Dataset; write its images "
                "to a folder of files, and train with DataConfig(dataset='folder:DIR')"
            )
    if not parts:
        raise UserError(f"{name}: expected images, received an empty tf.data.Dataset")
    # [H, W] and [H, W, 1 or 3] are images, anything else batches of them.
    single = parts[0].ndim == 2 or (parts[0].ndim == 3 and parts[0].shape[-1] in (1, 3))
    try:
        images = np.stack(parts) if single else np.concatenate(parts)
    except ValueError as error:
        advice = "resize them in its map"
        raise UserError(f"{name}: expected images of one size, received a tf.data.Dataset of several; {advice}") from error
    found = [one for one in labels if one is not None]
    return images, _joined(found, single, name) if len(found) == len(labels) else None


def _joined(labels, single, name):
    """The labels of elements, each of one image or of a batch, as one array; bytes become str."""
    try:
        joined = np.stack(labels) if single else np.concatenate(labels)
    except ValueError as error:
        raise UserError(f"{name}: expected a label for each image of the tf.data.Dataset, received several shapes") from error
    if joined.dtype.kind not in "OS":
        return joined
    return np.array([one.decode("utf-8", "surrogateescape") for one in joined.flat]).reshape(joined.shape)


def _label_of(element):
    """The label beside an image: second in a tuple, "label" in a dict; None: there is none."""
    if isinstance(element, dict):
        label = element.get("label")
    else:
        label = element[1] if isinstance(element, tuple) and len(element) > 1 else None
    return label.numpy() if isinstance(label, tf.Tensor) else None


def _image_of(element: Any, name: str) -> tf.Tensor:
    if isinstance(element, dict) and "image" in element:
        element = element["image"]
    elif isinstance(element, tuple) and element:
        element = element[0]
    if not isinstance(element, tf.Tensor):
        raise UserError(
            f"{name}: expected a tf.data.Dataset of images, of tuples that begin with one, or of dicts with 'image', "
            f"received elements of {type(element).__name__}"
        )
    return element


def collected(images: Mapping[str, Any], classes: Mapping[str, Any], class_conditional: bool) -> dict[str, np.ndarray]:
    """Images in memory, and their classes, as the arrays of a file that `npz:FILE` reads.

    Args:
        images: {split: what `as_images` takes, or None}.
        classes: {split: ints or strs [N], or None: the labels of a `tf.data.Dataset`, second in a tuple or "label" in a dict}.
        class_conditional: whether the model learns images given their class: every split has classes then, otherwise none.

    Returns:
        {split: uint8 [N, H, W, C], its name in `LABELS`: ints or strs [N]}; {} if nothing is given.

    Raises:
        UserError: as `as_images`; no training images beside others; images without classes, or classes without images or for a
            model without any.
    """
    read = {
        split: _images_and_labels(value, _called("images", split), class_conditional and classes.get(split) is None)
        for split, value in images.items() if value is not None
    }  # fmt: skip
    found = {split: array for split, (array, _) in read.items()}
    if found and "train" not in found:
        raise UserError(f"{_called('images', next(iter(found)))}: expected images=, the training images, too")
    labels = {}
    for split, value in classes.items():
        name, of = _called("classes", split), _called("images", split)
        if value is not None and not class_conditional:
            raise UserError(
                f"{name}: expected none, as the model learns images alone; GLFConfig and CQFConfig have class_conditional=True"
            )
        if value is not None and split not in found:
            raise UserError(f"{name}: expected {of}= beside it, the images of these classes, received none")
        if class_conditional and split in found:
            value = read[split][1] if value is None else value
            if value is None:
                count = len(found[split])
                raise UserError(f"{name}: expected integers or strings [{count}], one for each of {of}, received none")
            labels[LABELS[split]] = check_labels(value, len(found[split]), name)
    return found | labels


def _called(kind, split):
    """The argument of `Run.train` with "images" or "classes" of a split."""
    return kind if split == "train" else f"{split}_{kind}"


def source_of(given: Mapping[str, np.ndarray], path: AnyPath) -> Source:
    """The Source that `npz:PATH` would be once `keep` has written the arrays of `collected` there."""
    return Source({
        split: RawArray(given[split], f"{path}, array {split}", classes=_reader(given.get(LABELS[split])))
        for split in SPLITS if split in given
    })  # fmt: skip


def _reader(labels):
    return None if labels is None else lambda: labels


def keep(path: AnyPath, images: Mapping[str, np.ndarray]) -> None:
    """Writes the arrays of `collected` to a file that `npz:FILE` reads, whole or not at all."""
    with files.replacing(path) as file:
        np.savez(file, **images)  # type: ignore[arg-type]  # its stub takes the names for other arguments


def check_kept(path: AnyPath, images: Mapping[str, np.ndarray], advice: str) -> None:
    """Raises UserError, with advice, if a file of `keep` holds other images or classes than these of `collected`."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            names = list(kept.files)
            other = [name for name in images if name not in names or not _equal(kept[name], images[name])]
            same = not other and len(names) == len(images)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: expected the images of a run, which cannot be read: {error}") from error
    if not same:
        what = "classes" if other and not set(other) & set(SPLITS) else "images"
        raise UserError(
            f"{what}: expected those of {path} (given then: {', '.join(names)}), received others ({', '.join(images)}); {advice}"
        )


def _equal(one, other):
    """Whether arrays are equal, of which those of classes may be numbers and strs."""
    return (one.dtype.kind in "US") == (other.dtype.kind in "US") and np.array_equal(one, other)
