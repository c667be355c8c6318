"""The job that a folder of parts belongs to: job.json says what decides its results, and all shards must agree on it.

The first shard to come writes the file. The others compare it with what they would have written, and refuse to add a part to
another job. No TensorFlow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tfcq.bulk.shards import Shard
from tfcq.errors import UserError
from tfcq.machine import files

NAME = "job.json"
FORMAT = 2


@dataclasses.dataclass(frozen=True)
class Job:
    """What a folder's parts are made of.

    Args:
        stage: "sample", "variations", "likelihood" or "encode" (`stages`).
        count: the number of rows.
        parts: the number of parts, in which the rows are divided.
        facts: plain values that decide the results: digests of the model and of the names of the images, options, versions.
        places: where model and images were found; they may lie elsewhere for another process, and are not compared.
        content: {key: digest of the content} of some images. Most must agree: one may have been repaired since, but names such
            as 0.png, or numbers, are those of many data sets.
        earlier: if it went on from smaller jobs, {"count", "parts", "batch_size"} of each, the smallest first. Their parts stay
            as they are; the rest of `parts` has the rows beyond.
    """

    stage: str
    count: int
    parts: int
    facts: Mapping[str, Any]
    places: Mapping[str, str]
    content: Mapping[str, str] = dataclasses.field(default_factory=dict)
    earlier: Sequence[Mapping[str, int]] = ()

    @property
    def format(self) -> str:
        """The files of its parts, a key of `formats.FORMATS`; "format" among the facts."""
        return str(self.facts["format"])

    @property
    def digest(self) -> str:
        """BLAKE2b of all that decides the results, 32 hexadecimal digits. Each part says by it which job it belongs to."""
        return hashlib.blake2b(json.dumps(self._compared(), sort_keys=True).encode(), digest_size=16).hexdigest()

    def piece(self, index: int) -> tuple[Job, str, range]:
        """(the job that the part of this number is of, itself or an earlier one; the part's name; the numbers of its rows)."""
        rows = parts = 0
        for number, span in enumerate([*self.earlier, {}]):
            facts = {**self.facts, **({"batch_size": span["batch_size"]} if span else {})}
            sizes = {name: span.get(name, getattr(self, name)) for name in ("count", "parts")}
            job = dataclasses.replace(self, **sizes, facts=facts, earlier=self.earlier[:number])
            if index < job.parts:
                own = Shard(index - parts, job.parts - parts).rows(job.count - rows)
                return job, Shard(index, job.parts).name, range(rows + own.start, rows + own.stop)
            rows, parts = job.count, job.parts
        raise IndexError(index)

    def begin_or_extend(self, folder: pathlib.Path, parts_of: Callable[[int], int]) -> Job:
        """As `begin`, but a folder with the same job of fewer rows goes on to these, and the number of parts does not matter.

        Args:
            folder: as in `begin`.
            parts_of: function from a number of rows to the number of parts that they are divided in.

        Returns:
            The job that the folder now has.

        Raises:
            UserError: as `begin`; or the folder's job has more rows.
        """
        if not (folder / NAME).exists():
            self.begin(folder)
            return self
        there = read(folder)
        lowered = self.count < there.count
        # Batches are at most as long as a job, so those of a smaller job may be shorter.
        batch = {"batch_size": there.facts["batch_size"] if lowered else min(self.facts["batch_size"], there.count)}
        same = dataclasses.replace(self, count=there.count, parts=there.parts, earlier=there.earlier)
        dataclasses.replace(same, facts={**self.facts, **batch}).begin(folder)
        if lowered:
            raise UserError(
                f"output {folder}: has {there.count} images, received --num_samples={self.count}; expected at least as many, or "
                "another folder"
            )
        if self.count == there.count:
            return there
        span = {"count": there.count, "parts": there.parts, "batch_size": there.facts["batch_size"]}
        parts = there.parts + parts_of(self.count - there.count)
        job = dataclasses.replace(self, parts=parts, earlier=(*there.earlier, span), places=there.places, content=there.content)
        if not _replaced(folder, there, job._text()):  # another process went on from it meanwhile
            return self.begin_or_extend(folder, parts_of)
        return job

    def begin(self, folder: pathlib.Path) -> None:
        """Writes job.json into `folder`, which is made if it is missing, or checks that the one there is of this job.

        Raises:
            UserError: the folder holds parts of another job, or cannot be written.
        """
        if self.parts > self.count:
            raise UserError(f"shard: expected at most as many shards as there are images, {self.count}, received {self.parts}")
        path = folder / NAME
        if not path.exists():
            check_new_or_begun(folder, self.format)
            with files.writing("output", folder):
                folder.mkdir(parents=True, exist_ok=True)
                _write_if_missing(path, self._text())
        there = read(folder)
        if difference := _difference(there._compared(), self._compared()):
            name, of_folder, given = difference
            name = _IN_WORDS.get(name, name)
            begun = any(one.name != NAME for one in folder.iterdir())
            anew = "" if begun else f"; no part is there yet: remove {NAME} to begin anew, if no other process writes one"
            raise UserError(
                f"output {folder}: its parts are of another job, with {name}={of_folder}, and this one has {name}={given}; "
                f"expected the options, model and images that the folder began with, or another folder{anew}"
            )
        others = [key for key, digest in self.content.items() if there.content.get(key) != digest]
        if 2 * len(others) > len(self.content):
            raise UserError(
                f"output {folder}: its parts are of other images: of {len(self.content)} that were compared {len(others)} have "
                f"another content, such as {others[0]!r}; expected the images that the folder began with, or another folder"
            )

    def _compared(self):
        earlier = {"earlier": list(map(dict, self.earlier))} if self.earlier else {}
        return {"stage": self.stage, "count": self.count, "parts": self.parts, "facts": dict(self.facts), **earlier}

    def _text(self):
        rest = {"places": dict(self.places), "content": dict(self.content)}
        return json.dumps({"format": FORMAT, **self._compared(), **rest}, indent=2) + "\n"


def check_new_or_begun(folder: pathlib.Path, format: str) -> None:
    """Raises UserError if images would be written among other files: `format` is "png", and a folder without a job has some."""
    if format != "png" or not folder.is_dir() or (folder / NAME).exists():
        return
    others = sorted(one.name for one in folder.iterdir() if not one.name.startswith(NAME))
    if others:
        raise UserError(
            f"output {folder}: expected an empty or new folder for the images, found other files in it, such as {others[0]}"
        )


def remove(folder: pathlib.Path, parts: Iterable[pathlib.Path]) -> None:
    """Removes the files of parts, job.json, and the folder if nothing else is in it."""
    for path in (*parts, folder / NAME):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def forget_unbegun(folder: pathlib.Path) -> None:
    """Removes job.json of a folder in which nothing else is: no part of that job was finished."""
    if (folder / NAME).exists() and not any(one.name != NAME for one in folder.iterdir()):
        (folder / NAME).unlink()


def read(folder: pathlib.Path) -> Job:
    """The Job of a folder of parts; UserError if there is none that can be read."""
    path = folder / NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            raise UserError(f"{folder}: was begun by another version of tfcq; expected another folder")
        return Job(**content)
    except FileNotFoundError as error:
        raise UserError(f"{folder}: expected a folder with parts and {NAME}, found no {NAME}") from error
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: expected the file that a job in parts begins with, received something else "
                        f"({' '.join(str(error).split())})") from error


def _write_if_missing(path, text):
    try:
        with files.replacing(path) as file:  # which lets one process at a time in here
            if path.exists():
                raise FileExistsError
            file.write(text.encode())
    except FileExistsError:
        pass


def _replaced(folder, there, text):
    """Writes job.json, unless it is no longer that of the Job `there`; whether it was written."""
    with files.writing("output", folder):
        try:
            with files.replacing(folder / NAME) as file:  # which lets one process at a time in here
                if read(folder) != there:
                    raise FileExistsError
                file.write(text.encode())
        except FileExistsError:
            return False
    return True


_IN_WORDS = {"stage": "kind of results", "count": "number of images", "parts": "number of parts"}
_IN_WORDS |= {"earlier": "smaller jobs before"}


def _difference(there, given):
    """(name, value there, value given) of the first difference of two `_compared`; None: there is none."""
    flat = [{**{key: value for key, value in one.items() if key != "facts"}, **one["facts"]} for one in (there, given)]
    for name in dict.fromkeys([*flat[1], *flat[0]]):
        if flat[0].get(name) != flat[1].get(name):
            return name, flat[0].get(name), flat[1].get(name)
    return None
