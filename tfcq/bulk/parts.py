"""A part: the files with the results of a shard, and the seal beside them that says that the part is whole.

They are written under another name and renamed, the seal last, so that a killed process leaves no part, or one without a seal,
which is computed again. At an address (`gs://`) there is no renaming: a file appears when its upload ends, and is in memory
until then. `formats` says which files. No TensorFlow for local folders.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

from tfcq.bulk import job as jobs
from tfcq.bulk.formats import FORMATS, Checksum
from tfcq.bulk.shards import Shard
from tfcq.errors import UserError
from tfcq.machine import files


class Part:
    """The part of one shard in a job's folder, which may not be there yet.

    Attributes:
        path: of the file, or of the first of several.
        format: the `Format` of its files.
        rows: the numbers of its rows.
        batch_size: of the job that it is of, which may be a smaller one that has gone on since; 0: not known.
    """

    def __init__(self, job: jobs.Job, shard: Shard, folder: pathlib.Path) -> None:
        self._job, name, self.rows = job.piece(shard.index)
        self._folder = folder
        self.batch_size = self._job.facts.get("batch_size", 0)
        self.format = FORMATS[job.format](folder, name, self.rows, job.facts["seed"])
        self.path = self.format.path
        self._seal = folder / f"{name}.json"

    def missing(self, checksum: bool = True) -> str:
        """Why the part has to be computed, in words: it is not there, or damaged; "": it is whole.

        Args:
            checksum: whether its files are read for their checksum; without, their size is compared alone.

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
                f"{self._seal}: belongs to another job than {self._folder / jobs.NAME}; expected {self._job.digest}, received "
                f"{received}; remove it and its part, or use another folder"
            )
        try:
            whole = sum(path.stat().st_size for path in self.format.files()) == seal.get("bytes")
            if whole and checksum:
                whole = self._sealed_now() == seal
        except FileNotFoundError:
            return "it is not there"
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read: {error.strerror}") from error
        return "" if whole else "it is damaged"

    def write(self, batches: Iterable[Any]) -> None:
        """Writes the part and its seal.

        Args:
            batches: the results of its rows in their order: uint8 [n, H, W, C], latents, or lists of rows (`formats`).

        Raises:
            UserError: the files cannot be written.
        """
        with files.writing("output", self._folder):
            self._seal.unlink(missing_ok=True)
            checksum = Checksum()
            self.format.write(batches, checksum)
            files.write_text(self._seal, json.dumps(self._sealed(checksum)) + "\n")

    def files(self) -> list[pathlib.Path]:
        """Its files, the seal last."""
        return [*self.format.files(), self._seal]

    def read(self) -> Iterator[Any]:
        """Its results in their order, as `write` was given them, or fewer at a time."""
        return self.format.read()

    def _sealed_now(self):
        checksum = Checksum()
        for path in self.format.files():
            with path.open("rb") as file:
                checksum.add(file)
        return self._sealed(checksum)

    def _sealed(self, checksum):
        return {"job": self._job.digest, "rows": [self.rows.start, self.rows.stop], **checksum.facts()}
