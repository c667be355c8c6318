"""Computes shards: the part of each is written, or skipped where it is there."""

from __future__ import annotations

import dataclasses
import pathlib
import time

from tfcq.bulk import job as jobs
from tfcq.bulk.parts import Part
from tfcq.bulk.shards import Shard
from tfcq.bulk.stages import Stage
from tfcq.machine.terminal import ImageProgress, say

ROWS_OF_A_PART = 1000
"""Of a job that one process computes: what is lost at most when it is killed."""


class Work:
    """A stage whose job has begun in a folder; the model is loaded once for all shards that this process computes.

    Args:
        stage: what is computed.
        parts: the number of parts; None: one process computes all, in as many as it likes, and may go on from fewer rows.
        folder: the job's folder, which is made if it is missing.

    Raises:
        UserError: no model or images, a folder that cannot be written, or one of another job.
    """

    def __init__(self, stage: Stage, parts: int | None, folder: pathlib.Path) -> None:
        self._stage, self._folder = stage, folder
        self._job = stage.job(parts or parts_of(stage.count))
        if parts is None and stage.extends:
            self._job = self._job.begin_or_extend(folder, parts_of)
        else:
            self._job.begin(folder)

    def compute(self, index: int) -> bool:
        """Writes the part of shard `index`, unless it is there and whole; says so. Returns whether it was computed.

        Raises:
            UserError: a part of another job in its place, images that cannot be used, or a disk that is full.
        """
        shard = Shard(index, self._job.parts)
        part = Part(self._job, shard, self._folder)
        reason = part.missing()
        if not reason:
            say(f"{part.path}: is there already")
            return False
        if reason == "it is damaged":
            say(f"{part.path}: {reason}, and computed again")
        part.write(self._results(part, ImageProgress(self._stage.verb, len(part.rows))))
        say(f"wrote {part.path}: images {part.rows.start} to {part.rows.stop - 1} of {self._job.count}")
        return True

    def compute_all(self) -> None:
        """Writes the parts that are not there and whole, one after the other, and says how far it is with all of them.

        Raises:
            UserError: as `compute`.
        """
        parts = [Part(self._job, Shard(index, self._job.parts), self._folder) for index in range(self._job.parts)]
        missing = {part: reason for part in parts if (reason := part.missing())}
        for part, reason in missing.items():
            if reason == "it is damaged":
                say(f"{part.path}: a part of images {part.rows.start} to {part.rows.stop - 1} is damaged, and computed again")
        there = sum(len(part.rows) for part in parts if part not in missing)
        if there:
            say(f"{self._folder}: {there} of {self._job.count} images are there already")
        progress, began = _Progress(ImageProgress(self._stage.verb, self._job.count - there)), time.monotonic()
        for part in missing:
            part.write(self._results(part, progress))
            progress.before += len(part.rows)
        if missing:
            seconds = time.monotonic() - began
            say(f"{self._stage.verb}: {progress.before} images in {seconds:.1f} s, {progress.before / seconds:.1f} images/s")


    def _results(self, part, progress):
        """Those of a part's rows, by batches of the length that the part's job has."""
        stage = self._stage
        if part.batch_size != self._job.facts["batch_size"]:
            stage = dataclasses.replace(stage, batch_size=part.batch_size)
            stage.share_model_of(self._stage)
        return stage.results(part.rows, progress)


class _Progress:
    """Of several parts, one after the other: `before` are those that are done."""

    def __init__(self, show: ImageProgress) -> None:
        self._show, self.before = show, 0

    def __call__(self, rows: int) -> None:
        self._show(self.before + rows)


def parts_of(rows: int) -> int:
    """The number of parts of so many rows whose shards nobody counts."""
    return max(1, -(-rows // ROWS_OF_A_PART))


def is_complete(folder: pathlib.Path) -> bool:
    """Whether a folder has a job and the parts of all its shards, each with its size."""
    if not (folder / jobs.NAME).exists():
        return False
    job = jobs.read(folder)
    shards = (Shard(index, job.parts) for index in range(job.parts))
    return not any(Part(job, shard, folder).missing(checksum=False) for shard in shards)
