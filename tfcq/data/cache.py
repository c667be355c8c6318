"""Decoded images, kept in a file: decoded once, on all CPUs, and read by every later command.

A set of images has one file in the folder of `--data_cache`. Its name is a hash of what decides the pixels: the transform,
the versions of the code and of the decoders, and for each image its key and its stamp (size, times and inode of its file), in
any order. So a file that was changed, added or removed gives another cache, and adding images that do not belong to a run
gives the same one. What another set of the folder has already is copied and not decoded again.

While it is being made, the file has the ending of partial files and is locked. A second command waits for the first; a command
that was stopped goes on from the rows that are written, as each has a checksum (`cache_file`). When all are on the disk, the
file gets its name. A cache whose file turns out to be damaged becomes a partial file again: the next command decodes what is
missing, and the present one decodes those images as needed.

A cache only saves time. Where it cannot be written (a full disk, a read-only folder, a file system without locks), one line
says so, and images are decoded as without it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import PIL
from PIL import features

from tfcq.data.cache_file import CacheFile, DamagedFile, num_bytes
from tfcq.data.decoding_processes import Unfit, decode_all
from tfcq.data.sources import RawReader
from tfcq.data.survey import Survey
from tfcq.data.transforms import Transform
from tfcq.data.unfit import UnfitImages
from tfcq.errors import UserError
from tfcq.machine.files import PARTIAL, Lock, check_folder, check_room, writing
from tfcq.machine.terminal import ImageProgress, say

VERSION = 1
"""Raise it when `decoding` or `transforms` make other pixels of an image: it is decoded anew then."""

ENDING = ".images"

ROOM_LEFT = 2**30
"""Bytes of free space that a cache leaves on its disk, for checkpoints and whatever else is written there."""


class Cache:
    """Images that have been decoded: those of a RawReader after a transform.

    Args:
        file: their CacheFile, which is whole.
        raw, transform: what they were decoded from.
        rows: the row of each image of `raw`, int64 [N].
    """

    def __init__(self, file: CacheFile, raw: RawReader, transform: Transform, rows: np.ndarray) -> None:
        self._file, self._raw, self._transform, self._rows = file, raw, transform, rows
        self._lock, self._said = threading.Lock(), False

    def take(self, indices: np.ndarray) -> np.ndarray:
        """The images at `indices`, int [n]: uint8 [n, H, W, C]. Thread-safe."""
        images = np.empty((len(indices), *self._file.shape), np.uint8)
        missing = [place for place, row in enumerate(self._rows[indices].tolist()) if not self._file.read(row, images[place])]
        if missing:
            self._give_up()
            images[missing] = self._raw.take(np.asarray(indices)[missing], self._transform)
        return images

    def digests(self, indices: Sequence[int]) -> Iterator[str]:
        """For each image at `indices` the digest of its content, as `RawImages.digests` has it."""
        return (digest.tobytes().hex() for digest in self._file.records["digest"][self._rows[list(indices)]])

    def survey(self) -> Survey:
        """The Survey of the images, none of which is unfit."""
        return Survey(self._file.records["shape"][self._rows], {})

    def _give_up(self):
        with self._lock:
            if self._said:
                return
            self._said = True
        path = self._file.path
        say(f"data_cache {path}: is damaged; what is missing is decoded as needed, and the next command mends it")
        _make_partial(path)


def cached(raw: RawReader, transform: Transform, folder: str) -> Cache | None:
    """The `Cache` of all images of `raw` after `transform`, which is made if `folder` has none.

    Returns:
        None if there cannot be one, which has been said in a line; or if images without a stamp cannot be known again.

    Raises:
        UserError: naming the images that are unfit (`raw.survey` then has all of them), or an image that cannot be read.
    """
    if not all(raw.stamps()):
        return None
    wanted = identities(raw)
    path = _path(raw, transform, folder, wanted)
    file = _opened(path)
    if file is None:
        file = _made(path, raw, transform, wanted)
    return None if file is None else Cache(file, raw, transform, _places(wanted, file.records["identity"]))


def identities(raw: RawReader) -> np.ndarray:
    """What each image is known by without being read: a hash of its key and stamp, S16 [N]."""
    rows = (f"{raw.key(index)}\n{stamp}".encode("utf-8", "surrogateescape") for index, stamp in enumerate(raw.stamps()))
    return np.array([hashlib.blake2b(row, digest_size=16).digest() for row in rows], "S16")


def path_of(raw: RawReader, transform: Transform, folder: str) -> str:
    """The path of the cache of `raw` after `transform` in `folder`."""
    return _path(raw, transform, folder, identities(raw))


def _path(raw, transform, folder, wanted):
    own = hashlib.blake2b(np.sort(wanted).tobytes(), digest_size=12).hexdigest()
    return os.path.join(folder, f"{_kind(raw, transform)}-{own}{ENDING}")


def _places(some, others):
    """Where each of `some` identities is in `others`, which have the same in another order: int64 [N]."""
    order = np.argsort(others)
    return order[np.searchsorted(others, some, sorter=order)]


def _kind(raw, transform):
    """A hash of all that decides the pixels besides the images."""
    facts = {
        "version": VERSION,
        "decoders": _decoders(),
        "reading": raw.reading,
        "transform": [transform.image_size, transform.center_crop, transform.resize, transform.channels],
        "one_kind": bool(transform.same_channels_as),  # grey images are then refused among rgb ones
    }
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=8).hexdigest()


@functools.cache
def _decoders():
    # Without zlib, whose results are the same in every version: Pillow names TensorFlow's where that was imported first.
    return [PIL.__version__, *(features.version(name) for name in ("jpg", "libjpeg_turbo", "webp", "libtiff"))]


def _opened(path):
    """The whole CacheFile at `path`, or None; a damaged one becomes a partial file."""
    try:
        file = CacheFile(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        say(f"data_cache {path}: cannot be read: {error.strerror}")
        return None
    except DamagedFile as error:
        return _damaged(path, error)
    try:
        file.require_whole()
    except DamagedFile as error:
        file.close()
        return _damaged(path, error)
    return file


def _damaged(path, error):
    say(f"data_cache {path}: cannot be used, as {error}; it is mended")
    _make_partial(path)


def _make_partial(path):
    """Lets the next command make a damaged cache whole, unless another process is doing so."""
    with contextlib.suppress(OSError), Lock(path + PARTIAL, wait=False):
        os.replace(path, path + PARTIAL)


def _made(path, raw, transform, wanted):
    """The CacheFile at `path`, made now; None where it cannot be written, which is said."""
    partial = path + PARTIAL
    try:
        _prepare(partial, len(raw), transform.shape)
    except UserError as error:
        return _without(error)
    with contextlib.ExitStack() as stack:
        try:
            lock = _locked(partial, stack)
        except OSError as error:
            return _without(f"data_cache {partial}: cannot be locked: {error.strerror}")
        if not lock.held:
            return _without(f"data_cache {partial}: the file system has no locks; give a folder on a local disk")
        file = _opened(path)
        if file is not None:  # another process has made it meanwhile
            os.unlink(partial)
            return file
        try:
            _fill(partial, raw, transform, wanted)
            os.replace(partial, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(partial)  # on a full disk others need the space
            return _without(f"data_cache {partial}: cannot be written: {error.strerror or error}")
    return _opened(path)


def _without(reason):
    say(f"{reason}; going on without a cache")


def _prepare(partial, count, shape):
    """Makes the folder; UserError if it cannot be written, or has no room for what the file lacks."""
    folder = os.path.dirname(partial)
    with writing("data_cache", folder):
        os.makedirs(folder, exist_ok=True)
    check_folder("data_cache", folder)
    begun = 512 * os.stat(partial).st_blocks if os.path.exists(partial) else 0
    check_room("data_cache", folder, num_bytes(count, shape) - begun + ROOM_LEFT)


def _locked(partial, stack):
    """A Lock of `partial`, entered in the ExitStack; waits for another process."""
    try:
        return stack.enter_context(Lock(partial, wait=False))
    except BlockingIOError:
        say(f"waiting for another process, which decodes the same images into {partial}")
        return stack.enter_context(Lock(partial))


def _fill(partial, raw, transform, wanted):
    """Writes all images into the file `partial`, which is locked.

    Raises:
        OSError: the file cannot be written.
        UserError: as `cached`; what has been decoded stays in the file.
    """
    folder = os.path.dirname(partial)
    with contextlib.closing(_begun(partial, wanted, transform.shape)) as file:
        image_of_row = _places(file.records["identity"], wanted)
        missing = ~file.written()
        copied_from = []
        for other in _alike(partial, f"{_kind(raw, transform)}-"):
            if _copy(other, file, missing):
                copied_from.append(other)
        rows, done = np.flatnonzero(missing), 0
        unfit: list[Unfit] = []
        height, width, channels = transform.shape
        there, size = len(file) - len(rows), num_bytes(len(file), file.shape) / 2**30
        say(f"decoding {len(rows)} images to {height}x{width}x{channels} into {folder}, once: {size:.2f} GiB"
            + (f" with {there} that are decoded already" if there else ""))
        progress = ImageProgress("decoding", len(rows))
        with contextlib.closing(decode_all(file, raw, rows, image_of_row[rows], transform)) as decoding:
            for count, some in decoding:
                done, unfit = done + count, unfit + some
                progress(done)
        if unfit:
            unfit.sort(key=lambda one: one[0])
            raw.survey = _survey(file, image_of_row, unfit)
            raise UnfitImages([error for _, _, error in unfit])
        file.finish()
    for other in copied_from:
        if other.endswith(PARTIAL):  # left by a command that was stopped, or that found images unfit
            with contextlib.suppress(OSError), Lock(other, wait=False):
                os.unlink(other)


def _survey(file, image_of_row, unfit):
    """What is known of all images after they have been decoded."""
    shapes = np.zeros((len(file), 3), np.int32)
    shapes[image_of_row] = file.current_records()["shape"]
    shapes[[index for index, shape, _ in unfit if shape]] = [shape for _, shape, _ in unfit if shape] or 0
    return Survey(shapes, {index: error for index, shape, error in unfit if not shape})


def _begun(partial, wanted, shape):
    """The CacheFile that an earlier command began, or a new one."""
    with contextlib.suppress(DamagedFile):
        file = CacheFile(partial, writable=True)
        if file.shape == shape and np.array_equal(np.sort(file.records["identity"]), np.sort(wanted)):
            file.extend()
            return file
        file.close()
    return CacheFile.create(partial, wanted, shape)


def _alike(partial, beginning):
    """The paths of the other caches and partial files of the folder whose names begin so."""
    folder, name = os.path.split(partial)
    others = sorted(other for other in os.listdir(folder) if other.startswith(beginning) and ENDING in other)
    return [os.path.join(folder, other) for other in others if other != name]


def _copy(other, file, missing):
    """Copies rows that are `missing` (bool [N], which is updated) from the file `other`; whether there were any."""
    try:
        source = CacheFile(other)
    except (OSError, DamagedFile):
        return False
    with contextlib.closing(source):
        rows = np.flatnonzero(missing)
        _, places, theirs = np.intersect1d(file.records["identity"][rows], source.records["identity"], return_indices=True)
        image, any_right = np.empty(file.shape, np.uint8), False
        for row, other_row in zip(rows[places].tolist(), theirs.tolist()):
            if source.shape == file.shape and source.read(other_row, image):
                record = source.records[other_row]
                file.write(row, record["digest"].tobytes(), record["shape"], image)
                missing[row], any_right = False, True
    return any_right
