"""The contract between a source and the data set: raw images by index.

A source returns `Source(splits, notes)`: for each split it has ("train", perhaps "validation" and "test") a
`RawImages`. There are two kinds. `RawArray` holds an array. `RawReader` reads and decodes one image at a time. Both
give any image by its index, so order, resuming and splits are the same for all sources.
"""

from __future__ import annotations

import abc
import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfcq.data.classes import Labels
from tfcq.data.decoding import format_of
from tfcq.data.survey import Survey, survey_of
from tfcq.data.unfit import MOST_NAMED, UnfitImage, UnfitImages, listed
from tfcq.data.values import refuse_scaled
from tfcq.errors import UserError
from tfcq.machine.terminal import ImageProgress

if TYPE_CHECKING:
    from tfcq.data.transforms import Transform

CHUNK = 2**19
"""Bytes of transformed images per chunk, which has at least 64 images: chunks that fit a CPU's cache were resized six times
as fast as chunks of 32 MiB."""

LARGE = 128 * 128
"""Pixels per image from which decoding gains from several threads. For smaller images, most of Pillow's work holds Python's
lock: two threads took twice as long as one for 32x32 JPEG files, and half as long for 512x512."""

LOOKED_AT = 100
"""How many images are searched for one with ordinary values (`values`)."""

MOST_THREADS = 16
"""Each thread holds a batch of its own in memory."""

PIECE = 1024
"""How many images are read at a time for their digests."""


class RawImages(abc.ABC):
    """Source images, len(images) of them, not yet cut to size."""

    @property
    def num_threads(self) -> int:
        """How many parallel calls of `take` are worthwhile."""
        return 1

    @property
    def example(self) -> int:
        """Index of the first image that can be read."""
        return 0

    @abc.abstractmethod
    def __len__(self):
        """How many images."""

    @property
    @abc.abstractmethod
    def channels(self) -> int:
        """Channels of the image `example`, 1 or 3."""

    @abc.abstractmethod
    def name(self, index: int) -> str:
        """The name of image `index` in messages."""

    @abc.abstractmethod
    def key(self, index: int) -> str:
        """The name of image `index` in this split of its source; the same if the source moves or images are left out."""

    @property
    def labels(self) -> Callable[[], Labels] | None:
        """A function that reads the class of each image, and does not hold the images; None: this source has no classes."""
        return None

    def stamps(self) -> list[str]:
        """For each image a str that changes whenever its content may have changed; "": only reading the image shows that."""
        return [""] * len(self)

    @abc.abstractmethod
    def digests(self, indices: Sequence[int]) -> Iterable[str]:
        """For each image at `indices` the digest of its content: an iterable of `digest_of`'s str."""

    @abc.abstractmethod
    def select(self, indices: np.ndarray) -> RawImages:
        """RawImages of the images at `indices` (int [N]) only, under the names that they have here."""

    @abc.abstractmethod
    def take(self, indices: np.ndarray, transform: Transform) -> np.ndarray:
        """The images at `indices` (int [N]), transformed: uint8 [N, H, W, C]; UserError for one that is unfit."""

    @abc.abstractmethod
    def check(self, transform: Transform) -> None:
        """Raises UserError naming the images that are unfit for `transform`; every image is read, but none is kept."""

    @abc.abstractmethod
    def refuse_scaled(self) -> None:
        """Raises UserError if the pixels are, by mistake, 0 and 1 instead of 0 to 255 (see `values`)."""

    def without_broken(self) -> tuple[RawImages, list[UnfitImage]]:
        """(the images that are not broken and not of a refused kind, the UnfitImages that were left out)."""
        return self, []

    def all(self, transform: Transform) -> np.ndarray:
        """All images, transformed: uint8 [len(images), H, W, C]; UserError naming those that are unfit."""
        images = np.empty((len(self), *transform.shape), np.uint8)
        step = max(64, CHUNK // int(np.prod(transform.shape)))

        def fill(start):
            stop = min(start + step, len(self))
            return stop - start, self._fill(images[start:stop], np.arange(start, stop), transform)

        done, progress, unfit = 0, ImageProgress("reading", len(self)), []
        with concurrent.futures.ThreadPoolExecutor(self.num_threads) as threads:
            for count, some in threads.map(fill, range(0, len(self), step)):
                done += count
                progress(done)
                unfit += some
        if unfit:
            raise UnfitImages(unfit)
        return images

    def _fill(self, images, indices, transform):
        """Writes the transformed images at `indices` into `images`; returns the UnfitImages among them."""
        images[:] = self.take(indices, transform)
        return []


class RawArray(RawImages):
    """Images of one size in memory.

    Args:
        images: uint8 [N, h, w, c], c 1 or 3.
        label: name of the array, for messages.
        numbers: the numbers in the images' names; None: their indices.
        classes: function that gives the class of each image, ints or strs [N], when that is asked for; None: there are none.
    """

    def __init__(
        self,
        images: np.ndarray,
        label: str,
        numbers: np.ndarray | None = None,
        classes: Callable[[], np.ndarray] | None = None,
    ) -> None:
        self.images = images
        self.label = label
        self.numbers = numbers
        self.classes = classes

    def __len__(self):
        return len(self.images)

    @property
    def channels(self) -> int:
        return self.images.shape[3]

    def name(self, index: int) -> str:
        return f"{self.label}, {self.key(index)}"

    def key(self, index: int) -> str:
        return f"image {index if self.numbers is None else self.numbers[index]}"

    def digests(self, indices: Sequence[int]) -> Iterator[str]:
        shape = repr(self.images.shape[1:]).encode()
        return (digest_of(shape, np.ascontiguousarray(self.images[index])) for index in indices)

    def select(self, indices: np.ndarray) -> RawArray:
        classes, indices = self.classes, np.asarray(indices)
        numbers = indices if self.numbers is None else self.numbers[indices]
        return RawArray(self.images[indices], self.label, numbers, classes and (lambda: classes()[indices]))

    @property
    def labels(self) -> Callable[[], Labels] | None:
        classes = self.classes
        return (lambda: Labels.of(classes())) if classes else None

    def take(self, indices: np.ndarray, transform: Transform) -> np.ndarray:
        return transform(self.images[indices])

    def check(self, transform: Transform) -> None:
        transform.check(self.images.shape[1:], self.label)

    def refuse_scaled(self) -> None:
        refuse_scaled((self.images[start:start + 64] for start in range(0, len(self), 64)), self.label)

    def all(self, transform: Transform) -> np.ndarray:
        self.check(transform)
        if transform.changes(self.images.shape[1:]):
            return super().all(transform)
        return self.images  # not a copy: no set is held twice


class RawReader(RawImages):
    """Images that are read one by one; subclasses define `__len__`, `name`, `content`, `read` and `_some`, perhaps `shape`.

    Attributes:
        known_digests: function that gives `digests` without reading the images; None: there is none.
    """

    known_digests: Callable[[Sequence[int]], Iterable[str]] | None = None

    @abc.abstractmethod
    def content(self, index: int) -> bytes:
        """The bytes that image `index` is decoded from; UserError naming it if they cannot be read."""

    @abc.abstractmethod
    def read(self, index: int) -> np.ndarray:
        """Image `index`, uint8 [h, w, c], c 1 or 3; thread-safe; UnfitImage if it cannot be read."""

    @abc.abstractmethod
    def _some(self, indices: np.ndarray) -> RawReader:
        """An object of this class with the images at `indices` (int [n]) only, under the names that they have here."""

    def look(self, index: int) -> tuple[str, np.ndarray]:
        """(digest of image `index`, the image), of the same bytes; raises what `content` and `read` raise."""
        return digest_of(self.content(index)), self.read(index)

    def portable(self, indices: np.ndarray) -> RawReader:
        """The images at `indices` (int [n]) as an object that a process without TensorFlow can unpickle and read."""
        return self._some(np.asarray(indices, np.int64))

    @property
    def reading(self) -> str:
        """How images become pixels, as far as stamps do not show it, in words; "" if they are decoded as they are."""
        return ""

    def select(self, indices: np.ndarray) -> RawReader:
        rest = self._some(np.asarray(indices, np.int64))
        if "survey" in self.__dict__:  # keeps what is known
            rest.survey = self.survey.select(indices)
        return rest

    def shape(self, index: int) -> tuple[int, int, int]:
        """(h, w, c) of image `index`; raises what `read` raises, but may be faster."""
        return self.read(index).shape

    def format_and_shape(self, index: int) -> tuple[str, tuple[int, int, int]]:
        """(format, (h, w, c)) of image `index`, as `decoding.format_of` finds them; UnfitImage if it cannot be read."""
        return format_of(io.BytesIO(self.content(index)), self.name(index))

    @functools.cached_property
    def survey(self) -> Survey:
        """The `Survey` of all images: shapes, and what cannot be read."""
        return survey_of(self)

    @functools.cached_property
    def example(self) -> int:
        return self._first[0]

    @functools.cached_property
    def num_threads(self) -> int:
        height, width, _ = self._first[1]
        return min(os.cpu_count() or 1, MOST_THREADS) if height * width >= LARGE else 1

    @functools.cached_property
    def channels(self) -> int:
        return self._first[1][2]

    @functools.cached_property
    def _first(self):
        """Index and shape of the first image that can be read."""
        unfit = []
        for index in range(len(self)):
            try:
                return index, self.shape(index)
            except UnfitImage as error:
                unfit.append(error.alone())
        raise UnfitImages(unfit)

    def digests(self, indices: Sequence[int]) -> Iterator[str]:
        if self.known_digests:
            yield from self.known_digests(indices)
            return
        progress = ImageProgress("reading once, to know them again", len(indices))
        with concurrent.futures.ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_THREADS)) as threads:
            # In pieces: `map` keeps its results in memory, and an unreadable image is reported before all others are read.
            for first in range(0, len(indices), PIECE):
                piece = indices[first:first + PIECE]
                yield from threads.map(lambda index: digest_of(self.content(index)), piece)
                progress(first + len(piece))

    def take(self, indices: np.ndarray, transform: Transform) -> np.ndarray:
        images = np.empty((len(indices), *transform.shape), np.uint8)
        unfit = self._fill(images, indices, transform)
        if unfit:
            raise UnfitImages(unfit)
        return images

    def _fill(self, images, indices, transform):
        unfit = []
        for position, index in enumerate(indices):
            try:
                image = self.read(index)
                transform.check(image.shape, self.name(index))
            except UnfitImage as error:
                unfit.append(error.alone())
                continue
            images[position] = transform(image[None])[0]
        return unfit

    def check(self, transform: Transform) -> None:
        unfit = list(self.survey.unfit)
        for shape, indices in zip(*self.survey.distinct()):
            if _misfit(transform, shape, ""):
                unfit += indices.tolist()
        if unfit:
            first = sorted(unfit)[:MOST_NAMED]
            raise UnfitImages(
                [self.survey.unfit.get(index) or _misfit(transform, self.survey.shapes[index], self.name(index))
                 for index in first],
                len(unfit),
            )

    def refuse_scaled(self) -> None:
        refuse_scaled(self._readable(), f"{self.name(self.example)} and the images after it")

    def _readable(self):
        for index in range(self.example, min(self.example + LOOKED_AT, len(self))):
            with contextlib.suppress(UnfitImage):  # reported elsewhere
                yield self.read(index)

    def without_broken(self) -> tuple[RawImages, list[UnfitImage]]:
        survey = self.survey
        kept = np.setdiff1d(np.arange(len(self)), list(survey.unfit), assume_unique=True)
        out = [survey.unfit[index] for index in sorted(survey.unfit)]
        unreachable = [image for image in out if not image.kind]
        if unreachable:
            raise UnfitImages(unreachable)
        if not out:
            return self, []
        if not len(kept):
            raise UnfitImages(out)
        return self.select(kept), out


@dataclasses.dataclass(frozen=True)
class Source:
    """What a source returns.

    Args:
        splits: {"train": RawImages} and perhaps "validation" and "test".
        notes: a few words for the description, or "".
    """

    splits: Mapping[str, RawImages]
    notes: str = ""

    def without_broken(self) -> Source:
        """This source without images that are broken or of a refused kind; they are reported, and counted in the notes."""
        kept = {split: raw.without_broken() for split, raw in self.splits.items()}
        out = [image for _, images in kept.values() for image in images]
        if not out:
            return self
        kinds = collections.Counter(image.kind for image in out)
        counts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        note = f"left out {len(out)} that cannot be used ({counts})"
        print(f"{note}: {listed(out, len(out))}", flush=True)
        return Source({split: raw for split, (raw, _) in kept.items()}, "; ".join(filter(None, (self.notes, note))))


def _misfit(transform, shape, name):
    """The UnfitImage that `transform` makes of an image of `shape`, or None."""
    try:
        transform.check(shape, name)
    except UnfitImage as error:
        return error.alone()
    return None


def digest_of(*parts: Any) -> str:
    """BLAKE2b of bytes-like `parts`, one after the other: 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def require_package(load: Callable[[], Any], package: str) -> Any:
    """`load()`, or UserError saying to install `package` if an import in it fails."""
    try:
        return load()
    except ImportError as error:
        raise UserError(f"this data set needs the package {package}, which cannot be imported ({error}); "
                        f"pip install {package}") from error
