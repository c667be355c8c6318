"""Reads a folder of parts as one. No TensorFlow for local folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from tfcq.bulk import job as jobs
from tfcq.bulk.parts import Part
from tfcq.bulk.shards import Shard
from tfcq.errors import UserError
from tfcq.machine import paths

_NAMED = 8


def read_parts(folder: str | os.PathLike) -> Iterator[Any]:
    """The results of a job in their order, a part at a time in memory at most a batch of it.

    Args:
        folder: `--output` of `tfcq sample --shard` or of `tfcq score`; at an address, a whole part is in memory at a time.

    Returns:
        An iterator: of a sampling, arrays uint8 [n, H, W, C] for some n at a time; of a scoring, a dict for each image: {"key":
        its name, and the numbers that the model gives, such as "log_prob", nats}, or {"key", "unfit": why it cannot be used}.

    Raises:
        UserError: no job there, or a part that is missing, damaged or of another job. Before the first result it is known that
            all are there, each with its size; a part's checksum is compared when its turn comes.
    """
    path = paths.to_read(folder, "folder", "a folder with parts", local=False)
    job = jobs.read(path)
    parts = {shard: Part(job, shard, path) for shard in (Shard(index, job.parts) for index in range(job.parts))}
    _refuse(path, job.parts, {shard: reason for shard, part in parts.items() if (reason := part.missing(checksum=False))})

    def results():
        for shard, part in parts.items():
            if reason := part.missing():
                _refuse(path, job.parts, {shard: reason})
            yield from part.read()

    return results()


def _refuse(path, total, missing):
    """UserError naming the parts that are missing, {Shard: why}, if there are any."""
    if missing:
        named = ", ".join(f"{shard} ({reason})" for shard, reason in list(missing.items())[:_NAMED])
        more = f" and {len(missing) - _NAMED} others" if len(missing) > _NAMED else ""
        raise UserError(f"{path}: expected {total} parts, {len(missing)} of them cannot be used: {named}{more}; run these "
                        "shards again")
