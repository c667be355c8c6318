"""The contract between a source and the data set: raw images by index.

A source returns `Source(splits, notes)`: for each split it has ("train", perhaps "validation" and "test") a
`RawImages`. There are two kinds. `RawArray` holds an array. `RawReader` reads and decodes one image at a time. Both
give any image by its index, so order, resuming and splits are the same for all sources.
"""

import abc
import concurrent.futures
import dataclasses
import functools
import hashlib
import os
import time

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

QUIET_SECONDS = 5
"""What takes longer says how far it is."""


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

    def key(self, index):
        """What image `index` is called within this split of its source, wherever the source lies."""
        return f"image {index}"

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
        return f"{self.label}, image {index if self.numbers is None else self.numbers[index]}"

    def digests(self, indices):
        shape = repr(self.images.shape[1:]).encode()
        return (digest_of(shape, np.ascontiguousarray(self.images[index])) for index in indices)

    def select(self, indices):
        return RawArray(self.images[indices], self.label, np.asarray(indices))

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
    """Images that are read one by one; subclasses say `__len__`, `name`, `content`, `read` and `select`."""

    @abc.abstractmethod
    def content(self, index):
        """The bytes that image `index` is decoded from; UserError naming it where they cannot be read."""

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

    def digests(self, indices):
        start = told = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(min(os.cpu_count(), MOST_THREADS)) as threads:
            # In pieces: what `map` was given waits in memory, and a broken image must not wait for all others.
            for first in range(0, len(indices), 1024):
                yield from threads.map(lambda index: digest_of(self.content(index)), indices[first : first + 1024])
                now = time.monotonic()
                if now - start > QUIET_SECONDS and now - told > QUIET_SECONDS:
                    told = now
                    print(f"reading images once, to know them again: {first} of {len(indices)}", flush=True)

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


def digest_of(*parts):
    """BLAKE2b of bytes-like `parts`, one after the other: 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def file_stamp(path):
    """A str of a file's size, times and inode: it changes when the file is written or replaced; "" where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def require_package(load, package):
    """`load()`, or UserError saying to install `package` where an import in it fails."""
    try:
        return load()
    except ImportError as error:
        raise UserError(f"this data set needs the package {package}, which cannot be imported ({error}); "
                        f"pip install {package}") from error
