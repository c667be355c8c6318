"""Many images: one sampling, scoring or encoding, a job, by one process or by many that know nothing of each other.

The rows of a job (images) are divided into shards, contiguous ranges of nearly equal length. A process computes one shard and
writes it as a part, files in the job's folder. Any scheduler's array job starts the processes, and one that was killed is
started again: parts that are there are skipped.

    job.json                     what is computed, of which model and images, in how many parts (`job`)
    part-00003-of-00010.npz      rows of shard 3 of 0 .. 9, images of a sampling (`parts`, `formats`)
    part-00003-of-00010.json     that the part is whole: its rows, size and checksum; written last

`read_parts` reads a folder with all its parts. A row's result depends on the row alone: `stages`.
"""

from tfcq.bulk.reading import read_parts

__all__ = ["read_parts"]
