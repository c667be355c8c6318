"""Which image belongs to which split, kept with a run: images are identified by their content, not by their position.

Splits are made by position, once, when a run begins. From then on they are facts of that run. A `Manifest` lists the
images of each split in their order, each with a digest of its content. A source that is opened later is matched with it:
an image that was renamed or moved, to another folder or another of the source's splits, is found by its content and keeps
its place; one that was added belongs to no split; one that is missing or changed is reported by name.

The digest is BLAKE2b (RFC 7693) of 16 bytes, in hexadecimal: of a file's bytes, of the encoded image in a record, of an
array's shape and pixels. The image's stamp (for files: size, times and inode) is kept with it, so that an image that has not
been touched since need not be read again.

An image keeps the number that it had in its split when the run began, even if other images are lost: GLANN finds an image's
code by that number.

A manifest's file is gzipped JSON lines: first a header, then rows [split, the source's split, key, digest, stamp]. If images
are lost, the header has their numbers: {"lost": {split: [number, ...]}}.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import itertools
import json
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tfcq.data.splits import JOINED, SPLITS
from tfcq.errors import UserError

if TYPE_CHECKING:
    from tfcq.data.sources import RawImages, Source
    from tfcq.data.split_images import SplitImages

HEADER = {"format": 1, "digest": "blake2b-128"}

SHOWN = 3
"""How many images a message names."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """An image of a split.

    Args:
        origin: the split of the source that it was in.
        key: its name there: the path of a file below the split's folder, else "image N".
        digest: digest of its content, 32 hexadecimal digits.
        stamp: what was known of its file without reading it; "": nothing.
    """

    origin: str
    key: str
    digest: str
    stamp: str

    @property
    def name(self) -> str:
        """Its name in messages."""
        return f"{self.origin}/{self.key}"


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The images of each split.

    Args:
        splits: {"train" | "validation" | "test": list of Entry, in the split's order}.
        lost: {split: ascending numbers of the images that it had when the run began and has lost since}; only of splits
            that have lost images.
    """

    splits: dict[str, list[Entry]]
    lost: dict[str, list[int]] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, raws: Mapping[str, RawImages], images: Mapping[str, SplitImages]) -> Manifest:
        """The manifest of splits whose images are `images`, {split: SplitImages}, in `raws`, {the source's split: RawImages}."""
        tables = {origin: entries(raw, origin) for origin, raw in raws.items()}
        return cls(
            {
                split: [tables[one.origins[number]][index] for number, index in zip(one.of_origin, one.indices)]
                for split, one in images.items()
            }
        )

    def match(self, source: Source) -> Match:
        """Finds the images of each split in a `Source`: a `Match`."""
        tables = {origin: entries(raw, origin, self) for origin, raw in source.splits.items()}
        by_name = {entry.name: (origin, index) for origin, table in tables.items() for index, entry in enumerate(table)}
        by_digest: dict[str, tuple[str, int]] = {}
        for origin, table in tables.items():
            for index, entry in enumerate(table):
                by_digest.setdefault(entry.digest, (origin, index))
        match = Match({split: [] for split in self.splits}, {split: list(lost) for split, lost in self.lost.items()})
        of_the_run = {entry.digest for expected in self.splits.values() for entry in expected}
        found_names = set()
        for split, expected in self.splits.items():
            for number, entry in zip(self.numbers(split), expected):
                place = by_name.get(entry.name)
                content = tables[place[0]][place[1]].digest if place else None
                if place and content == entry.digest:
                    pass
                elif entry.digest in by_digest:
                    place = by_digest[entry.digest]
                    match.moved.append(entry.name)
                elif place and content not in of_the_run:  # else another of the run's images has taken its name
                    match.changed.append((split, entry.name))
                else:
                    match.gone.append((split, entry.name))
                    match.lost[split] = sorted([*match.lost.get(split, ()), number])
                    continue
                origin, index = place
                found = tables[origin][index]
                found_names.add(found.name)
                match.splits[split].append((origin, index, found))
        match.added.extend(sorted(name for name in by_name if name not in found_names))
        return match

    def count_at_start(self, split: str) -> int:
        """How many images a split had when the run began."""
        return len(self.splits[split]) + len(self.lost.get(split, ()))

    def numbers(self, split: str) -> list[int]:
        """The numbers that the images of a split had when the run began, ascending."""
        lost = set(self.lost.get(split, ()))
        return [number for number in range(self.count_at_start(split)) if number not in lost]

    def fingerprints(self) -> dict[str, str]:
        """{split: `fingerprint` of all its images}; equal fingerprints mean equal data sets."""
        return {split: self.fingerprint(split) for split in self.splits}

    def fingerprint(self, split: str, count: int | None = None) -> str:
        """Hexadecimal digest of the first `count` images of a split (None: of all), also a joined one, in their order."""
        digest = hashlib.blake2b(digest_size=16)
        expected = itertools.chain.from_iterable(self.splits[one] for one in JOINED.get(split, (split,)))
        for entry in itertools.islice(expected, count):
            digest.update(bytes.fromhex(entry.digest))
        return digest.hexdigest()

    def repeats(self) -> dict[tuple[str, str], int]:
        """How many images of one split are in another too: {(split, other split): int above 0}."""
        digests = {split: [entry.digest for entry in self.splits.get(split, ())] for split in SPLITS}
        pairs = {}
        for split, other in (("test", "train"), ("validation", "train"), ("test", "validation")):
            others = set(digests[other])
            count = sum(digest in others for digest in digests[split])
            if count:
                pairs[split, other] = count
        return pairs

    def to_bytes(self) -> bytes:
        """The file's content; the same manifest gives the same bytes."""
        buffer = io.BytesIO()
        with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as file:
            file.write(json.dumps(HEADER | ({"lost": self.lost} if self.lost else {})).encode() + b"\n")
            for split, expected in self.splits.items():
                for entry in expected:
                    row = [split, entry.origin, entry.key, entry.digest, entry.stamp]
                    file.write(json.dumps(row).encode() + b"\n")
            file.write(b'"end"\n')  # a file without it was cut off
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Manifest:
        """Inverse of `to_bytes`; ValueError if the content is not a whole manifest."""
        try:
            lines = [json.loads(line) for line in gzip.decompress(content).splitlines()]
            header, *rows, end = lines
            lost = header.pop("lost", {})
            if header != HEADER or end != "end":
                raise ValueError("no manifest of a format that is known here, or one that was cut off")
            splits: dict[str, list[Entry]] = {split: [] for split in SPLITS}
            for split, origin, key, digest, stamp in rows:
                splits[split].append(Entry(origin, key, digest, stamp))
            return cls(splits, lost)
        except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(str(error)) from error


@dataclasses.dataclass
class Match:
    """The images of a manifest that a `Source` has.

    Attributes:
        splits: {split: list of (the source's split, index there, Entry as it is now)}, in the manifest's order, without
            missing images; for a changed image, the image that has its name now.
        lost: as in `Manifest`, including the images that are missing now.
        moved: former names of images whose content was found under another name.
        added: names of images of the source that belong to no split.
        changed, gone: (split, name) of the images whose content differs, and of the missing ones.
    """

    splits: dict[str, list[tuple[str, int, Entry]]]
    lost: dict[str, list[int]]
    moved: list[str] = dataclasses.field(default_factory=list)
    added: list[str] = dataclasses.field(default_factory=list)
    changed: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    gone: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether every image is there with its content."""
        return not (self.changed or self.gone)

    def counts(self) -> str:
        """How many images are gone and changed, in words; "" if the match is whole."""
        return "" if self.whole else f"{len(self.gone)} gone, {len(self.changed)} changed"

    def manifest(self) -> Manifest:
        """The Manifest of the images that are there, as they are now."""
        return Manifest({split: [entry for _, _, entry in found] for split, found in self.splits.items()}, self.lost)

    def differences(self) -> str:
        """What differs, with the first names; "" if nothing does."""
        parts = [
            _counted(names, what)
            for names, what in (
                ([f"{name} of {split}" for split, name in self.gone], "gone"),
                ([f"{name} of {split}" for split, name in self.changed], "changed"),
                (self.added, "added"),
                (self.moved, "renamed or moved"),
            )
            if names
        ]
        return "; ".join(parts)


def entries(raw: RawImages, origin: str, known: Manifest | None = None) -> list[Entry]:
    """The Entry of each image of a source's split `origin`, `RawImages`: a list.

    `known`: a Manifest; images with its keys and stamps get its digests and are not read.
    """
    keys, stamps = [raw.key(index) for index in range(len(raw))], raw.stamps()
    remembered = {}
    if known and any(stamps):
        remembered = {
            (entry.origin, entry.key, entry.stamp): entry.digest
            for expected in known.splits.values()
            for entry in expected
            if entry.stamp
        }
    digests = [remembered.get((origin, key, stamp), "") for key, stamp in zip(keys, stamps)]
    unread = [index for index, digest in enumerate(digests) if not digest]
    # `digests` is first in zip, so that it runs to its end and clears its progress line.
    for digest, index in zip(raw.digests(unread), unread):
        digests[index] = digest
    return [Entry(origin, key, digest, stamp) for key, digest, stamp in zip(keys, digests, stamps)]


def refuse_changes(match: Match, dataset: str) -> None:
    """Raises UserError, saying what differs, if a `Match` is not whole."""
    if not match.whole:
        raise UserError(
            f"dataset {dataset}: its images are not those that the run began with: {match.differences()}; expected the same "
            "images (--dataset=... where they have moved), or --accept_changed_data to go on with those that are there"
        )


def _counted(names: list[str], what: str) -> str:
    shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    return f"{len(names)} {what} ({shown})"
