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
from collections.abc import Iterable, Mapping
from typing import Any

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
    """

    stage: str
    count: int
    parts: int
    facts: Mapping[str, Any]
    places: Mapping[str, str]
    content: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def format(self) -> str:
        """The files of its parts, a key of `formats.FORMATS`; "format" among the facts."""
        return str(self.facts["format"])

    @property
    def digest(self) -> str:
        """BLAKE2b of all that decides the results, 32 hexadecimal digits. Each part says by it which job it belongs to."""
        return hashlib.blake2b(json.dumps(self._compared(), sort_keys=True).encode(), digest_size=16).hexdigest()

    def begin(self, folder: pathlib.Path) -> None:
        """Writes job.json into `folder`, which is made if it is missing, or checks that the one there is of this job.

        Raises:
            UserError: the folder holds parts of another job, or cannot be written.
        """
        if self.parts > self.count:
            raise UserError(f"shard: expected at most as many shards as there are images, {self.count}, received {self.parts}")
        path = folder / NAME
        if not path.exists():
            if self.format == "png" and folder.exists() and any(not one.name.startswith(NAME) for one in folder.iterdir()):
                raise UserError(f"output {folder}: expected an empty or new folder for the images, found other files in it")
            rest = {"places": dict(self.places), "content": dict(self.content)}
            text = json.dumps({"format": FORMAT, **self._compared(), **rest}, indent=2) + "\n"
            with files.writing("output", folder):
                folder.mkdir(parents=True, exist_ok=True)
                _write_if_missing(path, text)
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
        return {"stage": self.stage, "count": self.count, "parts": self.parts, "facts": dict(self.facts)}


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


_IN_WORDS = {"stage": "kind of results", "count": "number of images", "parts": "number of parts"}


def _difference(there, given):
    """(name, value there, value given) of the first difference of two `_compared`; None: there is none."""
    flat = [{**{key: value for key, value in one.items() if key != "facts"}, **one["facts"]} for one in (there, given)]
    for name in dict.fromkeys([*flat[1], *flat[0]]):
        if flat[0].get(name) != flat[1].get(name):
            return name, flat[0].get(name), flat[1].get(name)
    return None
