"""Reads every image once before a training that decodes images as needed: the shape of each, and which are broken.

A broken image in the middle of a run costs the run, so all are decoded before its first step, in threads. Measured on one
core: 19,000 images/s of CIFAR-10's PNG files (32x32), 5,700 of JPEG files of 178x218, 4,800 of 256x256, 1,600 of 512x512,
600 of 1024x1024; 40 PNG files/s of 1024x1024. So two hundred thousand faces of CelebA take half a minute, three million
bedrooms of 256x256 eleven minutes. A survey that took more than `WORTH_KEEPING` seconds is kept in `FOLDER`, under a hash of
the files' names and stamps: another start, an evaluation or a resumed run reads it from there, as long as no file has
changed.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import os
import time
from typing import TYPE_CHECKING

import numpy as np
import PIL

from tfcq.data.unfit import UnfitImage
from tfcq.errors import UserError
from tfcq.machine.files import check_folder, replacing, writing
from tfcq.machine.terminal import ImageProgress, say

if TYPE_CHECKING:
    from tfcq.data.sources import RawReader

FOLDER = "~/.cache/tfcq/images"

WORTH_KEEPING = 10.0
"""Seconds."""

VERSION = 1
"""Raise it when `decoding` or `transforms` judge images differently: kept surveys are then made anew."""

CHUNK = 64
"""How many images a thread reads at a time."""


@dataclasses.dataclass(frozen=True)
class Survey:
    """What is known of each of N images.

    Args:
        shapes: int32 [N, 3], (h, w, c); zeros for an image that cannot be used.
        unfit: {index: UnfitImage} of those that cannot be used.
    """

    shapes: np.ndarray
    unfit: dict[int, UnfitImage]

    def select(self, indices: np.ndarray) -> Survey:
        """The Survey of the images at `indices` (int [n]) only."""
        unfit = {place: self.unfit[index] for place, index in enumerate(map(int, indices)) if index in self.unfit}
        return Survey(self.shapes[indices], unfit)

    def distinct(self) -> tuple[list[tuple[int, ...]], list[np.ndarray]]:
        """The distinct shapes, a list of (h, w, c), and the indices of the images of each, a list of int64 [n]."""
        usable = np.flatnonzero(self.shapes[:, 0])
        shapes, which = np.unique(self.shapes[usable], axis=0, return_inverse=True)
        order = np.argsort(which.ravel(), kind="stable")
        groups = np.split(usable[order], np.cumsum(np.bincount(which.ravel(), minlength=len(shapes)))[:-1])
        return [tuple(map(int, shape)) for shape in shapes], groups


def file_stamp(path: str) -> str:
    """A str of a file's size, times and inode: it changes when the file is written or replaced; "" if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def survey_of(raw: RawReader) -> Survey:
    """The Survey of a `sources.RawReader`: one kept earlier, or made now."""
    path = _path(raw)
    kept = path and _read(path, raw)
    if kept:
        return kept
    start, keeps = time.monotonic(), None

    def try_place():
        # As soon as the survey is worth keeping, not after the last image, which may be an hour later.
        nonlocal keeps
        if path and keeps is None and time.monotonic() - start > WORTH_KEEPING:
            keeps = _can_be_kept(path)

    survey = _make(raw, try_place)
    if keeps and all(image.kind for image in survey.unfit.values()):
        _write(path, survey)
    return survey


def kept_survey(raw: RawReader) -> Survey | None:
    """The Survey of a `sources.RawReader` that was kept earlier."""
    path = _path(raw)
    return _read(path, raw) if path else None


def keep_survey(raw: RawReader, survey: Survey) -> None:
    """Keeps a Survey, unless something in it is the machine's fault."""
    path = _path(raw)
    if path and all(image.kind for image in survey.unfit.values()):
        _write(path, survey)


def _path(raw):
    """Where the survey of images is kept; None if they have no stamps, by which they would be known again."""
    stamps = raw.stamps()
    return os.path.join(os.path.expanduser(FOLDER), f"{_key(raw, stamps)}.npz") if all(stamps) else None


def _make(raw, after_each):
    shapes, unfit = np.zeros((len(raw), 3), np.int32), {}

    def look(start):
        indices = range(start, min(start + CHUNK, len(raw)))
        for index in indices:
            try:
                shapes[index] = raw.shape(index)
            except UnfitImage as error:
                unfit[index] = error.alone()
        return len(indices)

    done, progress = 0, ImageProgress("checking", len(raw))
    with concurrent.futures.ThreadPoolExecutor(raw.num_threads) as threads:
        for count in threads.map(look, range(0, len(raw), CHUNK)):
            done += count
            progress(done)
            after_each()
    return Survey(shapes, unfit)


def _key(raw, stamps):
    digest = hashlib.sha256(f"{VERSION} {PIL.__version__}".encode())
    for index, stamp in enumerate(stamps):
        digest.update(f"{raw.name(index)} {stamp}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def _read(path, raw):
    try:
        with np.load(path, allow_pickle=False) as kept:
            facts = zip(kept["messages"].tolist(), kept["notes"].tolist(), kept["kinds"].tolist())
            unfit = {index: UnfitImage(message, raw.name(index), note, kind)
                     for index, (message, note, kind) in zip(kept["indices"].tolist(), facts)}
            return Survey(kept["shapes"], unfit) if kept["shapes"].shape == (len(raw), 3) else None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # NumPy raises many classes on a damaged file
        print(f"{path} cannot be read and is rebuilt: {error}", flush=True)
        return None


def _can_be_kept(path):
    with _going_on_without():
        check_folder("cache", os.path.dirname(path))
        return True
    return False


def _write(path, survey):
    images = [survey.unfit[index] for index in sorted(survey.unfit)]
    with _going_on_without(), writing("cache", os.path.dirname(path)):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with replacing(path) as file:
            np.savez_compressed(
                file,
                shapes=survey.shapes,
                indices=np.array(sorted(survey.unfit), np.int64),
                messages=np.array([str(image) for image in images], str),
                notes=np.array([image.note for image in images], str),
                kinds=np.array([image.kind for image in images], str),
            )


@contextlib.contextmanager
def _going_on_without():
    """A kept survey only saves time: a failure to keep it is reported, but is not an error."""
    try:
        yield
    except UserError as error:
        say(f"{error}; the next start will check the images again")
