"""Reads a folder of parts as one. No TensorFlow for local folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from tfcq.bulk import job as jobs
from tfcq.bulk.formats import FORMATS, Joined
from tfcq.bulk.parts import Part
from tfcq.bulk.shards import Shard
from tfcq.errors import UserError
from tfcq.machine import files, paths

_NAMED = 8


def read_parts(folder: str | os.PathLike) -> Iterator[Any]:
    """The results of a job in their order, a part at a time in memory at most a batch of it.

    Args:
        folder: `--output` of `tfcq sample`, `tfcq score` or `tfcq encode`, if it is a folder; at an address, a whole part is in
            memory at a time.

    Returns:
        An iterator: of a sampling, arrays uint8 [n, H, W, C] for some n at a time; of an encoding, a dict of arrays "keys",
        "latents" and "unfit" (`formats.Latents`) for each part; of a scoring, a dict for each image: {"key":
        its name, and the numbers that the model gives, such as "log_prob", nats}, or {"key", "unfit": why it cannot be used}.

    Raises:
        UserError: no job there, or a part that is missing, damaged or of another job. Before the first result it is known that
            all are there, each with its size; a part's checksum is compared when its turn comes.
    """
    path = paths.to_read(folder, "folder", "a folder with parts", local=False)
    return (result for part in _whole_parts(path, jobs.read(path)) for result in part.read())


def join(folder: paths.AnyPath, path: paths.AnyPath) -> None:
    """Writes the results of all parts into one file of the parts' format, then removes the parts and an empty folder.

    Args:
        folder: of the parts.
        path: of the file, whose name ends as the parts' names do; it may be in another folder.

    Raises:
        UserError: as `read_parts`, or a file that cannot be written.
    """
    job = jobs.read(folder)
    whole = FORMATS[job.format](path.parent, path.stem, range(job.count), job.facts["seed"])
    assert isinstance(whole, Joined)
    with files.writing("output", path):
        whole.join(part.format for part in _whole_parts(folder, job))
        jobs.remove(folder, (path for part in _parts(folder, job).values() for path in part.files()))


def _parts(path, job):
    return {shard: Part(job, shard, path) for shard in (Shard(index, job.parts) for index in range(job.parts))}


def _whole_parts(path, job):
    """An iterator over the parts; each one's checksum is compared when its turn comes."""
    parts = _parts(path, job)
    _refuse(path, job.parts, {shard: reason for shard, part in parts.items() if (reason := part.missing(checksum=False))})

    def compared():
        for shard, part in parts.items():
            if reason := part.missing():
                _refuse(path, job.parts, {shard: reason})
            yield part

    return compared()


def _refuse(path, total, missing):
    """UserError naming the parts that are missing, {Shard: why}, if there are any."""
    if missing:
        named = ", ".join(f"{shard} ({reason})" for shard, reason in list(missing.items())[:_NAMED])
        more = f" and {len(missing) - _NAMED} others" if len(missing) > _NAMED else ""
        raise UserError(f"{path}: expected {total} parts, {len(missing)} of them cannot be used: {named}{more}; run these "
                        "shards again")
