"""The contract between a source and the data set: raw images by index.

A source returns `Source(splits, notes)`: for each split it has ("train", perhaps "validation" and "test") a
`RawImages`. There are two kinds. `RawArray` holds an array. `RawReader` reads and decodes one image at a time. Both
give any image by its index, so order, resuming and splits are the same for all sources.
"""

import abc
import concurrent.futures
import dataclasses
import functools
import os

import numpy as np

from tfcq.errors import UserError

CHUNK = 2**19
"""Bytes of transformed images that are made at a time, but at least 64 images: what stays in a CPU's cache was resized
six times as fast as chunks of 32 MiB."""

LARGE = 128 * 128
"""Pixels of an image from where on decoding pays on several threads. Below, what Pillow does under Python's lock is
most of the work: two threads took twice as long as one for 32x32 JPEG files, and half as long for 512x512."""

MOST_THREADS = 16
"""Each thread holds a batch of its own in memory."""


class RawImages(abc.ABC):
    """Source images, len(images) of them, not yet cut to size."""

    num_threads = 1
    """How many calls of `take` at a time are worth while."""

    @abc.abstractmethod
    def __len__(self):
        """How many images."""

    @property
    @abc.abstractmethod
    def channels(self):
        """Channels of the first image, 1 or 3."""

    @abc.abstractmethod
    def name(self, index):
        """What to call image `index` in a message."""

    @abc.abstractmethod
    def take(self, indices, transform):
        """The images at `indices` (int [N]), transformed: uint8 [N, H, W, C]; UserError for one that is unfit."""

    @abc.abstractmethod
    def check(self, transform):
        """Raises UserError for images that are seen to be unfit for `transform` without decoding them all."""

    def all(self, transform):
        """All images, transformed: uint8 [len(images), H, W, C]; UserError for one that is unfit."""
        images = np.empty((len(self), *transform.shape), np.uint8)
        step = max(64, CHUNK // int(np.prod(transform.shape)))

        def fill(start):
            stop = min(start + step, len(self))
            images[start:stop] = self.take(np.arange(start, stop), transform)

        with concurrent.futures.ThreadPoolExecutor(self.num_threads) as threads:
            for _ in threads.map(fill, range(0, len(self), step)):
                pass  # the loop raises what `fill` raised
        return images


class RawArray(RawImages):
    """Images of one size in memory.

    Args:
        images: uint8 [N, h, w, c], c 1 or 3.
        label: of the array, for messages.
    """

    def __init__(self, images, label):
        self.images = images
        self.label = label

    def __len__(self):
        return len(self.images)

    @property
    def channels(self):
        return self.images.shape[3]

    def name(self, index):
        return f"{self.label}, image {index}"

    def take(self, indices, transform):
        return transform(self.images[indices])

    def check(self, transform):
        transform.check(self.images.shape[1:], self.label)

    def all(self, transform):
        self.check(transform)
        if transform.changes(self.images.shape[1:]):
            return super().all(transform)
        return self.images  # as it is: a set is never held twice


class RawReader(RawImages):
    """Images that are read one by one; subclasses say `__len__`, `name` and `read`."""

    @abc.abstractmethod
    def read(self, index):
        """Image `index`, uint8 [h, w, c], c 1 or 3; thread-safe; UserError naming it where it cannot be read."""

    @functools.cached_property
    def num_threads(self):
        height, width, _ = self.read(0).shape
        return min(os.cpu_count(), MOST_THREADS) if height * width >= LARGE else 1

    @functools.cached_property
    def channels(self):
        return self.read(0).shape[2]

    def take(self, indices, transform):
        images = np.empty((len(indices), *transform.shape), np.uint8)
        for position, index in enumerate(indices):
            image = self.read(index)
            transform.check(image.shape, self.name(index))
            images[position] = transform(image[None])[0]
        return images

    def check(self, transform):
        transform.check(self.read(0).shape, self.name(0))


@dataclasses.dataclass(frozen=True)
class Source:
    """What a source returns.

    Args:
        splits: {"train": RawImages} and perhaps "validation" and "test".
        notes: a few words for the description, or "".
    """

    splits: dict
    notes: str = ""


def require_package(load, package):
    """`load()`, or UserError saying to install `package` where an import in it fails."""
    try:
        return load()
    except ImportError as error:
        raise UserError(f"this data set needs the package {package}, which cannot be imported ({error}); "
                        f"pip install {package}") from error
