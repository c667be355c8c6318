"""Which image belongs to which split, kept with a run: by what an image is, not by where it stands.

Splits are made by position, once, when a run begins. From then on they are facts of that run. A `Manifest` lists the
images of each split in their order, each with a digest of its content. A source that is opened later is matched with it:
an image that was renamed or moved, to another folder or another of the source's splits, is found by its content and keeps
its place; one that was added belongs to no split; one that is gone or changed is told by name.

The digest is BLAKE2b (RFC 7693) of 16 bytes, in hexadecimal: of a file's bytes, of the encoded image in a record, of an
array's shape and pixels. Beside it stands the image's stamp (for files: size, times and inode), so that what has not been touched
since need not be read again.

An image has a number in its split, from when the run began, by which GLANN knows its code. Where images are gone for good, the
others keep theirs.

A manifest's file is JSON, a line each, gzipped: first a header, then [split, the source's split, key, digest, stamp]. Where
images are gone, the header has their numbers: {"lost": {split: [number, ...]}}.
"""

import dataclasses
import gzip
import hashlib
import io
import itertools
import json
import zlib

from tfcq.data.splits import SPLITS
from tfcq.errors import UserError

HEADER = {"format": 1, "digest": "blake2b-128"}

SHOWN = 3
"""How many images a message names."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """An image of a split.

    Args:
        origin: which of its source's splits it was in.
        key: its name there: the path of a file below the split's folder, else "image N".
        digest: of its content, 32 hexadecimal digits.
        stamp: what was known of its file without reading it; "": nothing.
    """

    origin: str
    key: str
    digest: str
    stamp: str

    @property
    def name(self):
        """What to call it in a message."""
        return f"{self.origin}/{self.key}"


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The images of each split.

    Args:
        splits: {"train" | "validation" | "test": list of Entry, in the split's order}.
        lost: {split: the numbers of those that it had when the run began and has no more, a list of int, rising}; a split that
            has all is not in it.
    """

    splits: dict
    lost: dict = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, raws, images):
        """The manifest of splits whose images are `images`, {split: SplitImages}, in `raws`, {the source's split: RawImages}."""
        tables = {origin: entries(raw, origin) for origin, raw in raws.items()}
        return cls(
            {
                split: [tables[one.origins[number]][index] for number, index in zip(one.of_origin, one.indices)]
                for split, one in images.items()
            }
        )

    def match(self, source):
        """Finds the images of each split in a `Source`: a `Match`."""
        tables = {origin: entries(raw, origin, self) for origin, raw in source.splits.items()}
        by_name = {entry.name: (origin, index) for origin, table in tables.items() for index, entry in enumerate(table)}
        by_digest = {}
        for origin, table in tables.items():
            for index, entry in enumerate(table):
                by_digest.setdefault(entry.digest, (origin, index))
        match = Match({split: [] for split in self.splits}, {split: list(lost) for split, lost in self.lost.items()})
        of_the_run = {entry.digest for expected in self.splits.values() for entry in expected}
        found_names = set()
        for split, expected in self.splits.items():
            for number, entry in zip(self.numbers(split), expected):
                place = by_name.get(entry.name)
                content = place and tables[place[0]][place[1]].digest
                if content == entry.digest:
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

    def count_at_start(self, split):
        """How many images a split had when the run began."""
        return len(self.splits[split]) + len(self.lost.get(split, ()))

    def numbers(self, split):
        """The number of each image of a split, from when the run began: a list of int, rising."""
        lost = set(self.lost.get(split, ()))
        return [number for number in range(self.count_at_start(split)) if number not in lost]

    def fingerprints(self):
        """{split: `fingerprint` of all of it}: whether two data sets are the same can be told by these."""
        return {split: self.fingerprint(split) for split in self.splits}

    def fingerprint(self, split, count=None):
        """Hexadecimal digest of the first `count` images of a split (None: of all), in their order."""
        digest = hashlib.blake2b(digest_size=16)
        for entry in itertools.islice(self.splits[split], count):
            digest.update(bytes.fromhex(entry.digest))
        return digest.hexdigest()

    def repeats(self):
        """How many images of one split stand in another too: {(split, other split): int above 0}."""
        digests = {split: [entry.digest for entry in self.splits.get(split, ())] for split in SPLITS}
        pairs = {}
        for split, other in (("test", "train"), ("validation", "train"), ("test", "validation")):
            others = set(digests[other])
            count = sum(digest in others for digest in digests[split])
            if count:
                pairs[split, other] = count
        return pairs

    def to_bytes(self):
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
    def from_bytes(cls, content):
        """Inverse of `to_bytes`; ValueError where the content is no whole manifest."""
        try:
            lines = [json.loads(line) for line in gzip.decompress(content).splitlines()]
            header, *rows, end = lines
            lost = header.pop("lost", {})
            if header != HEADER or end != "end":
                raise ValueError("no manifest of a format that is known here, or one that was cut off")
            splits = {split: [] for split in SPLITS}
            for split, origin, key, digest, stamp in rows:
                splits[split].append(Entry(origin, key, digest, stamp))
            return cls(splits, lost)
        except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(str(error)) from error


@dataclasses.dataclass
class Match:
    """What a `Source` has of a manifest's images.

    Attributes:
        splits: {split: list of (the source's split, index there, Entry as it is now)}, in the manifest's order, without those
            that are gone; of one that changed, what has its name now.
        lost: as of `Manifest`, with those that are gone.
        moved: names under which images are not found any more, but their content is elsewhere.
        added: names of images of the source that belong to no split.
        changed, gone: (split, name) of images with another content, and of those that are not there.
    """

    splits: dict
    lost: dict
    moved: list = dataclasses.field(default_factory=list)
    added: list = dataclasses.field(default_factory=list)
    changed: list = dataclasses.field(default_factory=list)
    gone: list = dataclasses.field(default_factory=list)

    @property
    def whole(self):
        """Whether every image is there with its content."""
        return not (self.changed or self.gone)

    def counts(self):
        """How many images are gone and changed, in words; "" where all are there."""
        return "" if self.whole else f"{len(self.gone)} gone, {len(self.changed)} changed"

    def manifest(self):
        """The Manifest of the images that are there, as they are now."""
        return Manifest({split: [entry for _, _, entry in found] for split, found in self.splits.items()}, self.lost)

    def differences(self):
        """What differs, with the first names; "" where nothing does."""
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


def entries(raw, origin, known=None):
    """The Entry of each image of a source's split `origin`, `RawImages`: a list.

    `known`: a Manifest; images with its keys and stamps have its digests and are not read.
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
    digests = [remembered.get((origin, key, stamp)) for key, stamp in zip(keys, stamps)]
    unread = [index for index, digest in enumerate(digests) if digest is None]
    # In this order `digests` runs to its end, which takes its progress off the terminal.
    for digest, index in zip(raw.digests(unread), unread):
        digests[index] = digest
    return [Entry(origin, *row) for row in zip(keys, digests, stamps)]


def refuse_changes(match, dataset):
    """Raises UserError, saying what differs, where a `Match` is not whole."""
    if not match.whole:
        raise UserError(
            f"dataset {dataset}: its images are not those that the run began with: {match.differences()}; expected the same "
            "images (--dataset=... where they have moved), or --accept_changed_data to go on with those that are there"
        )


def _counted(names, what):
    shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    return f"{len(names)} {what} ({shown})"
