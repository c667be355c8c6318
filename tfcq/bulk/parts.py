"""A part: the file with the results of a shard, and the seal beside it that says that the part is whole.

Both are written under another name and renamed, the seal last, so that a killed process leaves no part, or one without a seal,
which is computed again. Neither file grows in memory: results are written batch by batch. At an address (`gs://`) there is no
renaming: a part appears when its upload ends, and is in memory until then. No TensorFlow for local folders.

A sampling's part is an npz file with one array, `images`, uint8 [n, H, W, C]: `--dataset=npz:FILE` reads it, too. A scoring's
part is gzipped JSON lines, a row for each image: {"key": name, "log_prob": nats, and so on: `stages.Scoring`}, or {"key": name,
"unfit": reason} for one that cannot be used. The same rows give the same bytes, wherever and whenever they are computed.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import pathlib
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

import numpy as np

from tfcq.bulk import job as jobs
from tfcq.bulk.shards import Shard
from tfcq.errors import UserError
from tfcq.machine import files

ENDINGS = {"sample": ".npz", "likelihood": ".jsonl.gz"}
"""{stage: the ending of its parts' names}."""

_PIECE = 2**22  # bytes read at a time
_READ_ROWS = 64


class Part:
    """The part of one shard in a job's folder, which may not be there yet.

    Attributes:
        path: of the file.
        rows: the numbers of its rows.
    """

    def __init__(self, job: jobs.Job, shard: Shard, folder: pathlib.Path) -> None:
        self._job, self._shard, self._folder = job, shard, folder
        self.rows = shard.rows(job.count)
        self.path = folder / (shard.name + ENDINGS[job.stage])
        self._seal = folder / f"{shard.name}.json"

    def missing(self, checksum: bool = True) -> str:
        """Why the part has to be computed, in words: it is not there, or damaged; "": it is whole.

        Args:
            checksum: whether the file is read for its checksum; without, its size is compared alone.

        Raises:
            UserError: the part belongs to another job, or cannot be read.
        """
        try:
            seal = json.loads(self._seal.read_text(encoding="utf-8"))
            received = seal.get("job") if isinstance(seal, dict) else None
        except FileNotFoundError:
            return "it is not there"
        except ValueError:
            return f"{self._seal.name} is damaged"
        except OSError as error:
            raise UserError(f"{self._seal}: cannot be read: {error.strerror}") from error
        if received != self._job.digest:
            raise UserError(
                f"{self.path}: belongs to another job than {self._folder / jobs.NAME}; expected {self._job.digest}, received "
                f"{received}; remove the part and its .json, or use another folder"
            )
        try:
            whole = self.path.stat().st_size == seal.get("bytes")
            if whole and checksum:
                with self.path.open("rb") as file:
                    whole = _seal_of(file, self._job, self._shard) == seal
        except FileNotFoundError:
            return "it is not there"
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read: {error.strerror}") from error
        return "" if whole else "it is damaged"

    def write(self, batches: Iterable[Any]) -> None:
        """Writes the part and its seal.

        Args:
            batches: the results of its rows in their order: uint8 [n, H, W, C], or lists of rows.

        Raises:
            UserError: the files cannot be written.
        """
        write = _write_images if self._job.stage == "sample" else _write_rows
        with files.writing("output", self._folder):
            self._seal.unlink(missing_ok=True)
            with files.replacing(self.path) as file:
                write(file, batches, len(self.rows))
                file.flush()
                file.seek(0)
                seal = _seal_of(file, self._job, self._shard)
            files.write_text(self._seal, json.dumps(seal) + "\n")

    def read(self) -> Iterator[Any]:
        """Its results in their order: uint8 [n, H, W, C] for some n at a time, or the rows one by one."""
        return _read_images(self.path) if self._job.stage == "sample" else _read_rows(self.path)


def _seal_of(file, job, shard):
    """The content of a part's seal, given the open file."""
    digest, size = hashlib.blake2b(digest_size=16), 0
    while piece := file.read(_PIECE):
        digest.update(piece)
        size += len(piece)
    rows = shard.rows(job.count)
    return {"job": job.digest, "rows": [rows.start, rows.stop], "bytes": size, "blake2b": digest.hexdigest()}


def _write_images(file: IO[bytes], batches: Iterable[np.ndarray], count: int) -> None:
    with zipfile.ZipFile(file, "w") as archive:  # stored, as numpy.savez does
        with archive.open(zipfile.ZipInfo("images.npy"), "w", force_zip64=True) as entry:
            for number, images in enumerate(batches):
                if number == 0:
                    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *images.shape[1:])}
                    np.lib.format.write_array_header_1_0(entry, header)
                entry.write(np.ascontiguousarray(images).data)


def _read_images(path: pathlib.Path) -> Iterator[np.ndarray]:
    with path.open("rb") as file, zipfile.ZipFile(file) as archive, archive.open("images.npy") as entry:
        np.lib.format.read_magic(entry)
        (count, *shape), _, dtype = np.lib.format.read_array_header_1_0(entry)
        for start in range(0, count, _READ_ROWS):
            rows = min(_READ_ROWS, count - start)
            yield np.frombuffer(entry.read(rows * int(np.prod(shape))), dtype).reshape(rows, *shape)


def _write_rows(file: IO[bytes], batches: Iterable[list[Mapping[str, Any]]], count: int) -> None:
    with gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
        for rows in batches:
            packed.write("".join(json.dumps(row) + "\n" for row in rows).encode())


def _read_rows(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file, gzip.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
