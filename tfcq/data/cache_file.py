"""The file of a data cache: N images of one shape by row, each with its own checksum.

| bytes | what |
|---|---|
| 0 to 4095 | `MAGIC`, then JSON: count, shape, digest of the records ("" until the file is whole) |
| 4096 to 4096 + 48 N | the `RECORD` of each row |
| the rest | the images, uint8 [N, H, W, C] |

A row's checksum covers its record and its pixels, so that a row is either right or known to be missing: whatever was killed,
cut off or damaged, the other rows are still good. Several processes may write different rows at the same time.

Rows are read by `pread` and not through a memory map: a file that is cut off or a disk that fails is then an error of one
row, where a map would end the process (SIGBUS).
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib

import numpy as np

MAGIC = b"tfcq images 1\n"

HEADER_BYTES = 4096

RECORD = np.dtype([("identity", "S16"), ("digest", "V16"), ("shape", "<i4", 3), ("checksum", "<u4")])
"""Of an image: what it is known by without being read, the digest of its content, (h, w, c) in its source, the checksum."""

_CHECKED_BYTES = RECORD.itemsize - 4  # of a record, before its checksum


class DamagedFile(Exception):
    """A file that is not a whole data cache; the message says what is wrong with it."""


class CacheFile:
    """An open file.

    Args:
        path: path of the file, which exists.
        writable: whether rows can be written.

    Attributes:
        path: path of the file.
        shape: (H, W, C) of the images.
        records: the records as they were when the file was opened, [N] of `RECORD`.

    Raises:
        OSError: the file cannot be opened.
        DamagedFile: it has no readable header or not all of its records.
    """

    def __init__(self, path: str, writable: bool = False) -> None:
        self.path = path
        self._file = open(path, "r+b" if writable else "rb", buffering=0)  # closed with this object
        self._descriptor = self._file.fileno()
        try:
            header = _header(os.pread(self._descriptor, HEADER_BYTES, 0))
            self.shape, self._records_digest = tuple(header["shape"]), header["records"]
            self.records = self.current_records(header["count"])
        except BaseException:
            self.close()
            raise
        self._row_bytes = int(np.prod(self.shape))
        self._first = HEADER_BYTES + len(self.records) * RECORD.itemsize
        self._seen = np.zeros(len(self.records), bool)

    @classmethod
    def create(cls, path: str, identities: np.ndarray, shape: tuple[int, ...]) -> CacheFile:
        """A new file at `path`, in place of what is there, with `identities` (S16 [N]) and no image yet; it is writable."""
        records = np.zeros(len(identities), RECORD)
        records["identity"] = identities
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            os.ftruncate(descriptor, 0)
            os.ftruncate(descriptor, num_bytes(len(identities), shape))
            _write(descriptor, records.tobytes(), HEADER_BYTES)
            _write(descriptor, _header_of(len(identities), shape, ""), 0)
        finally:
            os.close(descriptor)
        return cls(path, writable=True)

    def __len__(self) -> int:
        return len(self.records)

    def require_whole(self) -> None:
        """Raises DamagedFile if the file was not finished, is cut off, or has other records than it was finished with."""
        if not self._records_digest:
            raise DamagedFile("it was not finished")
        if os.fstat(self._descriptor).st_size != num_bytes(len(self), self.shape):
            raise DamagedFile("it is cut off")
        if _digest(self.records) != self._records_digest:
            raise DamagedFile("its records are damaged")

    def read(self, row: int, image: np.ndarray) -> bool:
        """Reads the image of a row into a contiguous uint8 [H, W, C]; whether it is the one that was written.

        A row's checksum is computed when this object reads it for the first time.
        """
        try:
            length = os.preadv(self._descriptor, [image.data.cast("B")], self._first + row * self._row_bytes)
        except OSError:  # the disk
            return False
        if self._seen[row]:
            return length == self._row_bytes
        right = length == self._row_bytes and _checksum(self.records[row], image) == self.records[row]["checksum"]
        self._seen[row] = right
        return right

    def write(self, row: int, digest: bytes, shape: tuple[int, ...], image: np.ndarray) -> None:
        """Writes the image of a row, uint8 [H, W, C], the digest of its content (16 bytes) and its (h, w, c) in the source."""
        record = np.array((self.records[row]["identity"], digest, shape, 0), RECORD)
        pixels = np.ascontiguousarray(image)
        record["checksum"] = _checksum(record, pixels)
        _write(self._descriptor, pixels.data.cast("B"), self._first + row * self._row_bytes)
        _write(self._descriptor, record.tobytes(), HEADER_BYTES + row * RECORD.itemsize)

    def written(self) -> np.ndarray:
        """Which rows have been written, and are right: bool [N]."""
        image = np.empty(self.shape, np.uint8)
        return np.array([bool(checksum) and self.read(row, image)
                         for row, checksum in enumerate(self.records["checksum"].tolist())], bool)

    def current_records(self, count: int | None = None) -> np.ndarray:
        """The records as they are in the file now, [count] of `RECORD`; None: all. DamagedFile if the file is shorter."""
        length = RECORD.itemsize * (len(self) if count is None else count)
        parts, start = [], 0
        while start < length:
            parts.append(os.pread(self._descriptor, length - start, HEADER_BYTES + start))  # at most 2 GiB at a time
            start += len(parts[-1])
            if not parts[-1]:
                raise DamagedFile("it is cut off")
        return np.frombuffer(b"".join(parts), RECORD)

    def extend(self) -> None:
        """Gives the file its length again, if it was cut off."""
        os.ftruncate(self._descriptor, num_bytes(len(self), self.shape))

    def finish(self) -> None:
        """Marks the file as whole, once every row has been written and lies on the disk."""
        self.records = self.current_records()
        os.fsync(self._descriptor)
        _write(self._descriptor, _header_of(len(self), self.shape, _digest(self.records)), 0)
        os.fsync(self._descriptor)

    def forget_pages(self) -> None:
        """Drops the file from the system's cache of pages, so that the next reads come from the disk: for measurements."""
        os.fsync(self._descriptor)
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def num_bytes(count: int, shape: tuple[int, ...]) -> int:
    """The size of a file of `count` images of `shape`."""
    return HEADER_BYTES + count * (RECORD.itemsize + int(np.prod(shape)))


def _checksum(record, pixels):
    return zlib.crc32(record.tobytes()[:_CHECKED_BYTES], zlib.crc32(pixels))


def _digest(records):
    return hashlib.blake2b(records.tobytes(), digest_size=16).hexdigest()


def _header_of(count, shape, records):
    text = json.dumps({"count": count, "shape": list(shape), "records": records})
    return (MAGIC + text.encode()).ljust(HEADER_BYTES, b"\n")


def _header(content):
    try:
        if len(content) != HEADER_BYTES or not content.startswith(MAGIC):
            raise ValueError
        return json.loads(content[len(MAGIC):])
    except ValueError as error:
        raise DamagedFile("it does not begin as a data cache does") from error


def _write(descriptor, content, offset):
    content = memoryview(content)
    while len(content):
        written = os.pwrite(descriptor, content, offset)  # less than all where the disk is nearly full
        content, offset = content[written:], offset + written
