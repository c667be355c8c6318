"""The files that a part's results are written to: `Npz`, `Pngs`, `TFRecords`, `Latents` and `Rows`.

A format writes results batch by batch, so that memory does not grow with a part (except `Latents`), and the same results give
the same bytes, wherever and whenever they are computed. No TensorFlow for local folders, except for `TFRecords`.
"""

from __future__ import annotations

import abc
import gzip
import hashlib
import io
import json
import pathlib
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

import numpy as np

from tfcq import picture_files
from tfcq.machine import files, paths

IMAGES_OF_A_FOLDER = 1000
"""Images in a folder of `Pngs`: many file systems become slow with more than some thousands."""

_READ_ROWS = 64
_PIECE = 2**22  # bytes read at a time


class Checksum:
    """The number of bytes of some files and the BLAKE2b of their contents, one after the other."""

    def __init__(self) -> None:
        self._digest, self._size = hashlib.blake2b(digest_size=16), 0

    def add(self, file: IO[bytes]) -> None:
        """Reads a file from where it is to its end."""
        while piece := file.read(_PIECE):
            self._digest.update(piece)
            self._size += len(piece)

    def facts(self) -> dict[str, Any]:
        """{"bytes", "blake2b"}."""
        return {"bytes": self._size, "blake2b": self._digest.hexdigest()}


class Format(abc.ABC):
    """How the results of some rows are kept.

    Args:
        folder: the job's folder.
        name: of the part, without an ending.
        rows: the numbers of the part's rows.
        seed: of the job.
    """

    def __init__(self, folder: pathlib.Path, name: str, rows: range, seed: int) -> None:
        self.folder, self.name, self.rows, self.seed = folder, name, rows, seed

    @property
    @abc.abstractmethod
    def path(self) -> pathlib.Path:
        """What messages name."""

    def files(self) -> Sequence[pathlib.Path]:
        """All files of the part, in their order."""
        return [self.path]

    @abc.abstractmethod
    def write(self, batches: Iterable[Any], checksum: Checksum) -> None:
        """Writes the results of `rows`, given batch by batch; each file appears whole, and is added to `checksum`."""

    @abc.abstractmethod
    def read(self) -> Iterator[Any]:
        """The results in their order."""


class _OneFile(Format):
    """A part that is one file."""

    ending: str

    @property
    def path(self) -> pathlib.Path:
        return self.folder / (self.name + self.ending)

    def write(self, batches: Iterable[Any], checksum: Checksum) -> None:
        with files.replacing(self.path) as file:
            self.write_to(file, batches)
            file.flush()
            file.seek(0)
            checksum.add(file)

    @abc.abstractmethod
    def write_to(self, file: IO[bytes], batches: Iterable[Any]) -> None:
        """Writes the results to an open file."""


class Joined(_OneFile):
    """A part that may be all rows, written from the parts of some of them."""

    def join(self, parts: Iterable[Format]) -> None:
        """Writes what all parts hold, which are of the same format."""
        with files.replacing(self.path) as file:
            self.write_to(file, (result for part in parts for result in part.read()))


class Npz(Joined):
    """Images, uint8 [n, H, W, C] in all: an array `images` in an npz file, which `--dataset=npz:FILE` reads."""

    ending = ".npz"

    def write_to(self, file: IO[bytes], batches: Iterable[np.ndarray]) -> None:
        with zipfile.ZipFile(file, "w") as archive:  # stored, as numpy.savez does
            with archive.open(zipfile.ZipInfo("images.npy"), "w", force_zip64=True) as entry:
                for number, images in enumerate(batches):
                    if number == 0:
                        header = {"descr": "|u1", "fortran_order": False, "shape": (len(self.rows), *images.shape[1:])}
                        np.lib.format.write_array_header_1_0(entry, header)
                    entry.write(np.ascontiguousarray(images).data)

    def read(self) -> Iterator[np.ndarray]:
        with self.path.open("rb") as file, zipfile.ZipFile(file) as archive, archive.open("images.npy") as entry:
            np.lib.format.read_magic(entry)
            (count, *shape), _, dtype = np.lib.format.read_array_header_1_0(entry)
            for start in range(0, count, _READ_ROWS):
                rows = min(_READ_ROWS, count - start)
                yield np.frombuffer(entry.read(rows * int(np.prod(shape))), dtype).reshape(rows, *shape)


class Pngs(Format):
    """Images as PNG files: image i of seed s is 00012/seed-s-00012345.png with i = 12345, a thousand in a folder."""

    @property
    def path(self) -> pathlib.Path:
        return self._path(self.rows.start)

    def files(self) -> Sequence[pathlib.Path]:
        return [self._path(number) for number in self.rows]

    def write(self, batches: Iterable[np.ndarray], checksum: Checksum) -> None:
        number = self.rows.start
        for images in batches:
            for image in images:
                content = picture_files.encoded(image)
                self._write_file(self._path(number), content)
                checksum.add(io.BytesIO(content))
                number += 1

    def read(self) -> Iterator[np.ndarray]:
        for path in self.files():
            yield picture_files.decoded(path.read_bytes())[None]

    @staticmethod
    def _write_file(path, content):
        """Not by `files.replacing`, which waits for the disk: the part's checksum says whether all have arrived there."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if paths.is_remote(path):
            path.write_bytes(content)
        else:
            staged = path.with_name(path.name + files.PARTIAL)
            try:
                staged.write_bytes(content)
                staged.replace(path)
            except BaseException:
                staged.unlink(missing_ok=True)
                raise

    def _path(self, number):
        return self.folder / f"{number // IMAGES_OF_A_FOLDER:05}" / f"seed-{self.seed}-{number:08}.png"


class TFRecords(Joined):
    """Images as records of tf.train.Example, with the names that TensorFlow's own image data sets have.

    "image/encoded": the PNG file; "image/format": "png"; "image/height", "image/width", "image/channels"; "image/seed": the
    two numbers of the image's seed.
    """

    ending = ".tfrecord"

    def write_to(self, file: IO[bytes], batches: Iterable[np.ndarray]) -> None:
        number = self.rows.start
        for images in batches:
            file.write(_framed([self._record(image, number + index) for index, image in enumerate(images)]))
            number += len(images)

    def read(self) -> Iterator[np.ndarray]:
        import tensorflow as tf

        for record in tf.data.TFRecordDataset(paths.plain(self.path)):
            features = tf.train.Example.FromString(record.numpy()).features.feature
            yield picture_files.decoded(features["image/encoded"].bytes_list.value[0])[None]

    def join(self, parts: Iterable[Format]) -> None:
        with files.replacing(self.path) as file:  # files of records, one after the other, are one
            for part in parts:
                with part.path.open("rb") as records:
                    shutil.copyfileobj(records, file)

    def _record(self, image, number):
        import tensorflow as tf

        def integers(*values):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

        def text(value):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

        height, width, channels = image.shape
        features = {
            "image/encoded": text(picture_files.encoded(image, ".png")),
            "image/format": text(b"png"),
            "image/height": integers(height),
            "image/width": integers(width),
            "image/channels": integers(channels),
            "image/seed": integers(self.seed, number),
        }
        return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)


def _framed(records):
    """The bytes of a TFRecord file of these records."""
    import tensorflow as tf

    path = f"ram://tfcq/{id(records)}.tfrecord"
    with tf.io.TFRecordWriter(path) as writer:
        for record in records:
            writer.write(record)
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            return file.read()
    finally:
        tf.io.gfile.remove(path)


class Latents(Joined):
    """Latents: an npz file with `keys`, str [n], `latents`, float32 [n, ...], and `unfit`, why an image has none, or "".

    The latents of an image that cannot be used are NaN. A part is in memory until it is written.
    """

    ending = ".npz"

    def write_to(self, file: IO[bytes], batches: Iterable[Mapping[str, np.ndarray]]) -> None:
        joined: dict[str, list[np.ndarray]] = {}
        for batch in batches:
            for name, values in batch.items():
                joined.setdefault(name, []).append(values)
        with zipfile.ZipFile(file, "w") as archive:
            for name, parts in joined.items():
                content = io.BytesIO()
                np.lib.format.write_array(content, np.concatenate(parts), allow_pickle=False)
                archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue())  # the same bytes at any time of day

    def read(self) -> Iterator[dict[str, np.ndarray]]:
        with self.path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            yield {name: arrays[name] for name in arrays.files}


class Rows(_OneFile):
    """Gzipped JSON lines, a row for each image: {"key": name, "log_prob": nats, and so on: `stages.Scoring`}."""

    ending = ".jsonl.gz"

    def write_to(self, file: IO[bytes], batches: Iterable[list[Mapping[str, Any]]]) -> None:
        with gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
            for rows in batches:
                packed.write("".join(json.dumps(row) + "\n" for row in rows).encode())

    def read(self) -> Iterator[dict[str, Any]]:
        with self.path.open("rb") as file, gzip.open(file, "rt", encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)


IMAGE_FORMATS = {"png": Pngs, "npz": Npz, "tfrecord": TFRecords}
"""{a value of `tfcq sample --format`: the format}."""

FORMATS: dict[str, type[Format]] = {**IMAGE_FORMATS, "latents": Latents, "rows": Rows}
"""{the "format" of a job: the format of its parts}."""
