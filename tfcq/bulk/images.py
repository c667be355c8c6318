"""The images of a scoring or an encoding, each with a key: its name in its data set, by which its row and its seed are known;
and images of single files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tfcq.config import DataConfig
from tfcq.data.all_images import all_splits
from tfcq.data.folder import ImageFiles
from tfcq.data.sources import RawArray, RawImages, RawReader
from tfcq.data.transforms import KINDS, Transform
from tfcq.data.unfit import UnfitImage, UnfitImages
from tfcq.errors import UserError
from tfcq.machine import paths

if TYPE_CHECKING:
    from tfcq.data import ImageDataset


def key_seeds(keys: Iterable[str], seed: int, repeat: int = 0) -> np.ndarray:
    """Seeds int32 [N, 2] of images by their keys: a hash (BLAKE2b) of the key, of `seed`, any int, and of `repeat`.

    An image has the same seed whatever other images there are, and in whatever order; another one for each `repeat`, from 0.

    >>> key_seeds(["cats/1.png"], seed=0).tolist()
    [[-487422191, 943177378]]
    """
    start = f"{seed}+{repeat}" if repeat else f"{seed}"
    # A key may hold bytes that are not UTF-8, as a file's name may.
    texts = (f"{start}/{key}".encode("utf-8", "surrogateescape") for key in keys)
    content = b"".join(hashlib.blake2b(text, digest_size=8).digest() for text in texts)
    return np.frombuffer(content, "<i4").reshape(-1, 2).astype(np.int32)


_AT_A_TIME = 256  # images

_SOME = 16
"""So many files or records, at equal distances, are read to notice another data set with the same names."""


class KeyedImages:
    """All images of a data set, of all its splits, in an order that does not depend on the disk; read when they are asked for.

    A folder is searched at any depth, whatever its layout, and keys are paths below it. `list:FILE` is a text file with the path
    of an image a line, which is its key. In other data sets a key is "image N",
    after the name of the split where there are several: "test/image 0".

    Args:
        config: `dataset` and how its images are prepared.
        image_shape: (H, W, C) of the images that are handed out.
        skip_broken: whether images that cannot be used are handed out as black ones, with the reason.
        only: the split that is taken of a data set with several; "": all.

    Raises:
        UserError: no images, or none that can be prepared like this; several splits, and `only` is none of them.
    """

    def __init__(
        self, config: DataConfig, image_shape: tuple[int, int, int], skip_broken: bool, only: str = ""
    ) -> None:
        splits = all_splits(config)
        if only and len(splits) > 1:
            if only not in splits:
                raise UserError(f"{config.dataset}: expected one split or one of the name {only}, found {', '.join(splits)}")
            splits = {only: splits[only]}
        self._raws: list[tuple[str, RawImages]] = [
            (f"{split}/" if len(splits) > 1 else "", raw) for split, raw in splits.items()
        ]
        self._starts = np.cumsum([0, *(len(raw) for _, raw in self._raws)])
        self._skip_broken = skip_broken
        self._transform = _transform(config, image_shape)
        for _, raw in self._raws:
            raw.refuse_scaled()
            if isinstance(raw, RawArray):  # whose images are all alike; others are checked one by one, as they are read
                raw.check(self._transform)

    def __len__(self):
        return int(self._starts[-1])

    @property
    def digest(self) -> str:
        """BLAKE2b of all keys in their order, and of the pixels of arrays, whose keys are the same for all."""
        digest = hashlib.blake2b(digest_size=16)
        for prefix, raw in self._raws:
            for index in range(len(raw)):
                digest.update(f"{prefix}{raw.key(index)}\0".encode("utf-8", "surrogateescape"))
            if isinstance(raw, RawArray):
                for one in raw.digests(range(len(raw))):
                    digest.update(bytes.fromhex(one))
        return digest.hexdigest()

    def some_content(self) -> dict[str, str]:
        """{key: digest of the content} of `_SOME` images of each split that is not an array; UserError if one is unreadable."""
        found: dict[str, str] = {}
        for prefix, raw in self._raws:
            if isinstance(raw, RawReader):
                indices = np.unique(np.linspace(0, len(raw) - 1, _SOME).astype(int)).tolist()
                found |= zip([prefix + raw.key(index) for index in indices], raw.digests(indices))
        return found

    def take(self, start: int, stop: int) -> tuple[list[str], np.ndarray, dict[int, str]]:
        """Images `start` .. `stop` - 1: (keys, uint8 [n, H, W, C], {position among them: why it cannot be used}).

        Raises:
            UserError: naming images that cannot be used, if those are not skipped, or if the machine is at fault.
        """
        keys: list[str] = []
        images, unfit = np.zeros((stop - start, *self._transform.shape), np.uint8), {}
        for (prefix, raw), first in zip(self._raws, self._starts):
            indices = np.arange(max(start - first, 0), min(stop - first, len(raw)))
            if not len(indices):
                continue
            keys += [prefix + raw.key(index) for index in indices]
            positions = indices + first - start
            try:
                images[positions] = raw.take(indices, self._transform)
            except (UnfitImage, UnfitImages):
                if not self._skip_broken:
                    raise
                for position, index in zip(positions, indices):
                    unfit.update(self._take_one(raw, index, images, int(position)))
        return keys, images, unfit

    def _take_one(self, raw, index, images, position):
        """Fills in an image; {position: why not} if it is one that may be skipped."""
        try:
            images[position] = raw.take(np.array([index]), self._transform)[0]
            return {}
        except UnfitImages as error:
            (one,) = error.unfit
        except UnfitImage as error:
            one = error
        if not one.kind:
            raise one
        return {position: one.note}


class SpreadImages:
    """So many of other images, at equal distances, under the keys that they have there.

    Args:
        images: the others.
        count: how many, if there are so many.
    """

    def __init__(self, images: KeyedImages, count: int) -> None:
        self._images, total = images, len(images)
        self._indices = np.linspace(0, total - 1, min(count, total)).astype(int)

    def __len__(self):
        return len(self._indices)

    @property
    def digest(self) -> str:
        """Of the others."""
        return self._images.digest

    def some_content(self) -> dict[str, str]:
        """Of the others."""
        return self._images.some_content()

    def take(self, start: int, stop: int) -> tuple[list[str], np.ndarray, dict[int, str]]:
        """As `KeyedImages.take`."""
        taken = [self._images.take(index, index + 1) for index in self._indices[start:stop]]
        unfit = {position: one[0] for position, (_, _, one) in enumerate(taken) if one}
        return [keys[0] for keys, _, _ in taken], np.concatenate([images for _, images, _ in taken]), unfit


class SplitImages:
    """So many images of a split of a run at equal distances, as the run's own commands see them; keys are "test/image 0".

    Args:
        dataset: the run's images.
        split: of them.
        count: how many, if there are so many.
    """

    def __init__(self, dataset: ImageDataset, split: str, count: int) -> None:
        dataset.require_images(split)
        total = dataset.num_images(split)
        self._dataset, self._split = dataset, split
        self._indices = np.linspace(0, total - 1, min(count, total)).astype(int)

    def __len__(self):
        return len(self._indices)

    @property
    def digest(self) -> str:
        """BLAKE2b of the pixels."""
        digest = hashlib.blake2b(digest_size=16)
        for start in range(0, len(self), _AT_A_TIME):
            digest.update(self.take(start, start + _AT_A_TIME)[1].tobytes())
        return digest.hexdigest()

    def some_content(self) -> dict[str, str]:
        """Nothing: the digest is of all pixels."""
        return {}

    def take(self, start: int, stop: int) -> tuple[list[str], np.ndarray, dict[int, str]]:
        """As `KeyedImages.take`."""
        indices = self._indices[start:stop]
        return [f"{self._split}/image {index}" for index in indices], self._dataset.images(self._split, indices), {}


def images_of_files(names: Sequence[str], config: DataConfig, image_shape: tuple[int, int, int]) -> np.ndarray:
    """The images of some files, prepared as `config` says: uint8 [N, H, W, C].

    Raises:
        UserError: a file that is not there or cannot be used.
    """
    raw = ImageFiles([os.path.abspath(paths.to_read(name, "images", "the file of an image")) for name in names])
    for path in raw.paths:
        if not os.path.isfile(path):
            raise UserError(f"expected the file of an image, found none at {path}")
    transform = _transform(config, image_shape)
    try:
        raw.refuse_scaled()
        return raw.take(np.arange(len(names)), transform)
    except (UnfitImage, UnfitImages) as error:
        one = error.unfit[0] if isinstance(error, UnfitImages) else error
        size = f"{transform.image_size}x{transform.image_size} in {KINDS[transform.channels]}"
        how = f"center_crop={config.center_crop}, resize={config.resize}, color={config.color}"
        raise UserError(
            f"{one.name}: expected an image that can be prepared as the run's, {size} ({how}), received {one.note}"
        ) from error


def _transform(config, image_shape):
    """How images become those of a model; UserError for another kind of colours than the model's."""
    kind = KINDS[image_shape[2]]
    if config.color not in ("source", kind):
        raise UserError(f"color: expected source or {kind}, the model's, received {config.color}")
    of_one_kind = "what the model was trained on" if config.color == "source" else ""
    return Transform(config.image_size, config.center_crop, config.resize, image_shape[2], of_one_kind)
