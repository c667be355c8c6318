"""The contract between a source and the data set: raw images by index.

A source returns `Source(splits, notes)`: for each split it has ("train", perhaps "validation" and "test") a
`RawImages`. There are two kinds. `RawArray` holds an array. `RawReader` reads and decodes one image at a time. Both
give any image by its index, so order, resuming and splits are the same for all sources.
"""

import abc
import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import os

import numpy as np

from tfcq.data.survey import survey_of
from tfcq.data.unfit import MOST_NAMED, UnfitImage, UnfitImages, listed
from tfcq.data.values import refuse_scaled
from tfcq.errors import UserError
from tfcq.machine.terminal import ImageProgress

CHUNK = 2**19
"""Bytes of transformed images that are made at a time, but at least 64 images: what stays in a CPU's cache was resized
six times as fast as chunks of 32 MiB."""

LARGE = 128 * 128
"""Pixels of an image from where on decoding pays on several threads. Below, what Pillow does under Python's lock is
most of the work: two threads took twice as long as one for 32x32 JPEG files, and half as long for 512x512."""

LOOKED_AT = 100
"""Images of which one must have ordinary values (`values`)."""

MOST_THREADS = 16
"""Each thread holds a batch of its own in memory."""

PIECE = 1024
"""Images whose content is read at a time."""


class RawImages(abc.ABC):
    """Source images, len(images) of them, not yet cut to size."""

    num_threads = 1
    """How many calls of `take` at a time are worth while."""

    example = 0
    """Index of the first image that can be read."""

    @abc.abstractmethod
    def __len__(self):
        """How many images."""

    @property
    @abc.abstractmethod
    def channels(self):
        """Channels of the image `example`, 1 or 3."""

    @abc.abstractmethod
    def name(self, index):
        """What to call image `index` in a message."""

    @abc.abstractmethod
    def key(self, index):
        """What image `index` is called within this split of its source, wherever that lies and whatever was left out of it."""

    def stamps(self):
        """For each image a str that changes when its content may have; "": only reading it tells."""
        return [""] * len(self)

    @abc.abstractmethod
    def digests(self, indices):
        """For each image at `indices` the digest of its content: an iterable of `digest_of`'s str."""

    @abc.abstractmethod
    def select(self, indices):
        """RawImages of those at `indices` (int [N]) alone, under the names that they have here."""

    @abc.abstractmethod
    def take(self, indices, transform):
        """The images at `indices` (int [N]), transformed: uint8 [N, H, W, C]; UserError for one that is unfit."""

    @abc.abstractmethod
    def check(self, transform):
        """Raises UserError naming the images that are unfit for `transform`; every image is read, but none is kept."""

    @abc.abstractmethod
    def refuse_scaled(self):
        """Raises UserError where the pixels are not 0 to 255 but, by mistake, 0 and 1 (see `values`)."""

    def without_broken(self):
        """(these images without those that are broken or of a kind that is refused, [the UnfitImage left out])."""
        return self, []

    def all(self, transform):
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
        """Writes the transformed images at `indices` into `images`; a list of UnfitImage for those that cannot be."""
        images[:] = self.take(indices, transform)
        return []


class RawArray(RawImages):
    """Images of one size in memory.

    Args:
        images: uint8 [N, h, w, c], c 1 or 3.
        label: of the array, for messages.
        numbers: what the images are called; None: by their index.
    """

    def __init__(self, images, label, numbers=None):
        self.images = images
        self.label = label
        self.numbers = numbers

    def __len__(self):
        return len(self.images)

    @property
    def channels(self):
        return self.images.shape[3]

    def name(self, index):
        return f"{self.label}, {self.key(index)}"

    def key(self, index):
        return f"image {index if self.numbers is None else self.numbers[index]}"

    def digests(self, indices):
        shape = repr(self.images.shape[1:]).encode()
        return (digest_of(shape, np.ascontiguousarray(self.images[index])) for index in indices)

    def select(self, indices):
        return RawArray(self.images[indices], self.label, np.asarray(indices))

    def take(self, indices, transform):
        return transform(self.images[indices])

    def check(self, transform):
        transform.check(self.images.shape[1:], self.label)

    def refuse_scaled(self):
        refuse_scaled((self.images[start:start + 64] for start in range(0, len(self), 64)), self.label)

    def all(self, transform):
        self.check(transform)
        if transform.changes(self.images.shape[1:]):
            return super().all(transform)
        return self.images  # as it is: a set is never held twice


class RawReader(RawImages):
    """Images that are read one by one; subclasses say `__len__`, `name`, `content`, `read` and `_some`, perhaps `shape`."""

    @abc.abstractmethod
    def content(self, index):
        """The bytes that image `index` is decoded from; UserError naming it where they cannot be read."""

    @abc.abstractmethod
    def read(self, index):
        """Image `index`, uint8 [h, w, c], c 1 or 3; thread-safe; UnfitImage where it cannot be read."""

    @abc.abstractmethod
    def _some(self, indices):
        """Another of this class with the images at `indices` (int [n]) alone, under the names that they have here."""

    def select(self, indices):
        rest = self._some(np.asarray(indices, np.int64))
        if "survey" in self.__dict__:  # what is known stays known
            rest.survey = self.survey.select(indices)
        return rest

    def shape(self, index):
        """(h, w, c) of image `index`; raises as `read`, which it may undercut in time."""
        return self.read(index).shape

    @functools.cached_property
    def survey(self):
        """The `Survey` of all images: shapes, and what cannot be read."""
        return survey_of(self)

    @functools.cached_property
    def example(self):
        return self._first[0]

    @functools.cached_property
    def num_threads(self):
        height, width, _ = self._first[1]
        return min(os.cpu_count(), MOST_THREADS) if height * width >= LARGE else 1

    @functools.cached_property
    def channels(self):
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

    def digests(self, indices):
        progress = ImageProgress("reading once, to know them again", len(indices))
        with concurrent.futures.ThreadPoolExecutor(min(os.cpu_count(), MOST_THREADS)) as threads:
            # In pieces: what `map` was given waits in memory, and an unreadable image must not wait for all others.
            for first in range(0, len(indices), PIECE):
                piece = indices[first:first + PIECE]
                yield from threads.map(lambda index: digest_of(self.content(index)), piece)
                progress(first + len(piece))

    def take(self, indices, transform):
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

    def check(self, transform):
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

    def refuse_scaled(self):
        refuse_scaled(self._readable(), f"{self.name(self.example)} and the images after it")

    def _readable(self):
        for index in range(self.example, min(self.example + LOOKED_AT, len(self))):
            with contextlib.suppress(UnfitImage):  # they are named elsewhere
                yield self.read(index)

    def without_broken(self):
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

    splits: dict
    notes: str = ""

    def without_broken(self):
        """This source without what is broken or of a kind that is refused, told in a line and counted in the notes."""
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


def digest_of(*parts):
    """BLAKE2b of bytes-like `parts`, one after the other: 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def require_package(load, package):
    """`load()`, or UserError saying to install `package` where an import in it fails."""
    try:
        return load()
    except ImportError as error:
        raise UserError(f"this data set needs the package {package}, which cannot be imported ({error}); "
                        f"pip install {package}") from error
