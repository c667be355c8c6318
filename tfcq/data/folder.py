"""`folder:DIR`: image files, one folder per class or all in one, at any depth.

If a folder directly in DIR has a name of the training split in `SPLIT_NAMES`, in any case (train, Training, ...), the
folders of validation and test beside it (both optional: val, Valid, TEST, testing, ...) are the other splits; no other
images may lie beside them. Without it, all images below DIR are one split; folders that look like splits are then refused,
also further down (images/train, images/val) and under longer names (seg_train, seg_test), since they would be pooled into
one set.

Images are files whose names end in one of `EXTENSIONS`, in any case; `decoding` says how each kind is read and which are
refused. Hidden files and folders (a leading dot) are ignored. Other files are skipped, and the description counts them by
extension, as it counts the images of each class. Links are followed; a file or folder that is reached by two paths (a class
folder linked beside itself) is used once, under its own name if that is below DIR, and reported. A folder that cannot be read
and a broken link are errors.

The order is a fixed random permutation of the sorted relative paths, so that the first n images of a split are a fair sample
of the classes.
"""

from __future__ import annotations

import collections
import dataclasses
import errno
import functools
import io
import os
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from PIL import features

from tfcq.data.classes import Labels
from tfcq.data.classes import notes as class_notes
from tfcq.data.decoding import decode, format_of, verify
from tfcq.data.sources import RawReader, Source, digest_of
from tfcq.data.splits import SPLITS, fixed_permutation
from tfcq.data.survey import file_stamp
from tfcq.errors import UserError
from tfcq.machine.terminal import SearchProgress

EXTENSIONS = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm",
    ".pnm",
) + ((".webp",) if features.check("webp") else ())
"""Extensions of the formats that `decoding` opens."""

SPLIT_NAMES = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation",
    "test": "test", "testing": "test",
}
"""{name of a folder, in lower case: the split that it holds}."""

MOST_EXTENSIONS = 6


def folder(directory: str, begun: bool = False) -> Source:
    """The image files of a folder as a Source.

    Args:
        directory: path of the folder.
        begun: whether the folder is searched for the images of a run that has begun. Those are known by their content, so the
            layout no longer matters: none is refused, and broken links are skipped.

    Raises:
        UserError: no such folder, no images in it or in one of its splits, images that belong to no split, folders that look
            like splits but are not, or something in it that cannot be read.
    """
    if not os.path.isdir(directory):
        raise UserError(f"folder: expected a folder, received {directory!r}")
    try:
        roots = split_folders(directory, begun)
    except UserError:
        if not begun:
            raise
        roots = {"train": directory}
    in_roots = {split: find_images(root, begun) for split, root in roots.items()}
    if begun and not all(found.paths for found in in_roots.values()):
        roots = {"train": directory}
        in_roots = {"train": find_images(directory, begun)}
    splits, classes, twice = {}, {}, []
    passed_over: collections.Counter[str] = collections.Counter()
    for split, root in roots.items():
        found = in_roots[split]
        if not found.paths:
            raise UserError(f"{root}: expected images ({', '.join(EXTENSIONS)}), found none among "
                            f"{found.passed_over.total()} files{_in_brackets(_extensions(found.passed_over))}")
        if not begun:
            _refuse_pooled(root, found.paths)
        splits[split] = ImageFiles([found.paths[index] for index in fixed_permutation(len(found.paths))], root)
        classes[split] = count_classes(root, found.paths)
        passed_over += found.passed_over
        twice += found.twice
    notes = class_notes(classes)
    if twice:
        notes.append(f"found under several names and used once: {', '.join(twice[:3])}" +
                     (f" and {len(twice) - 3} others" if len(twice) > 3 else ""))
    if passed_over:
        notes.append(f"skipped {_extensions(passed_over)}")
    return Source(splits, "; ".join(notes))


def split_folders(directory: str, dead_links: bool = False) -> dict[str, str]:
    """{split: its folder}; {"train": directory} if there are no folders of splits. `dead_links`: as for `find_images`.

    Raises:
        UserError: two folders of one split, splits without train, or images beside them.
    """
    names = collections.defaultdict(list)
    for entry in _entries(directory):
        if entry.name.casefold() in SPLIT_NAMES and _is_folder(entry):
            names[SPLIT_NAMES[entry.name.casefold()]].append(entry.name)
    for split, several in names.items():
        if len(several) > 1:
            raise UserError(f"folder:{directory}: found {' and '.join(sorted(several))}, which are all the {split} split; "
                            "expected one folder of each split")
    found = {split: os.path.join(directory, names[split][0]) for split in SPLITS if split in names}
    if not found:
        return {"train": directory}
    if "train" not in found:
        raise UserError(f"folder:{directory}: found {' and '.join(names[split][0] for split in found)} but no train folder "
                        "beside; expected train, or no folder of a split")
    for entry in sorted(_entries(directory), key=lambda entry: entry.name):
        if entry.path in found.values() or (dead_links and _is_dead_link(entry)):
            continue
        if _is_folder(entry):
            stray = find_images(entry.path, dead_links).paths[:1]
        else:
            stray = [entry.path] if _is_image_name(entry.name) else []
        if stray:
            raise UserError(f"{stray[0]}: belongs to no split; beside {found['train']} expected images in validation and test "
                            "only")
    return found


@dataclasses.dataclass
class Found:
    """What `find_images` found.

    Args:
        paths: paths of the images, sorted by their parts below the root.
        passed_over: the number of other files of each extension (in lower case; "" for none).
        twice: paths of links to images or folders that are also found without them.
    """

    paths: list[str] = dataclasses.field(default_factory=list)
    passed_over: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    twice: list[str] = dataclasses.field(default_factory=list)


def find_images(root: str, dead_links: bool = False) -> Found:
    """The images below `root` as `Found`; UserError for a folder that cannot be read or a broken link.

    `dead_links`: whether to skip broken links instead.
    """
    found = Found()
    seen = {os.path.realpath(root)}
    folders = [(root, os.path.realpath(root))]
    linked_folders: list[str] = []
    linked_files: list[str] = []
    real_files: set[str] = set()
    progress = SearchProgress(f"looking for images in {root}")
    while folders or linked_folders:
        if not folders:
            # Links come last, in the order of their names, so that files below `root` keep their own names.
            linked_folders.sort(key=lambda path: _parts(path, root), reverse=True)
            folders = [(linked_folders[-1], os.path.realpath(linked_folders.pop()))]
            if folders[0][1] in seen:
                found.twice.append(folders.pop()[0])
                continue
            seen.add(folders[0][1])
        parent, real_parent = folders.pop()
        for entry in _entries(parent):
            progress(len(found.paths))
            real = os.path.join(real_parent, entry.name)
            if dead_links and _is_dead_link(entry):
                found.passed_over["broken links"] += 1
            elif _is_folder(entry):
                if entry.is_symlink():
                    linked_folders.append(entry.path)
                elif real in seen:
                    found.twice.append(entry.path)
                else:
                    seen.add(real)
                    folders.append((entry.path, real))
            elif not _is_image_name(entry.name):
                _refuse_dead_link(entry)
                found.passed_over[os.path.splitext(entry.name)[1].lower()] += 1
            elif entry.is_symlink():
                _refuse_dead_link(entry)
                linked_files.append(entry.path)
            elif entry.is_file():
                found.paths.append(entry.path)
                real_files.add(real)
            else:
                found.passed_over["pipes or devices"] += 1  # opening one would block
    for path in sorted(linked_files, key=lambda path: _parts(path, root)):
        real = os.path.realpath(path)
        if real in real_files:
            found.twice.append(path)
        elif os.path.isfile(real):
            real_files.add(real)
            found.paths.append(path)
        else:
            found.passed_over["pipes or devices"] += 1
    progress.close()
    found.paths.sort(key=lambda path: _parts(path, root))
    found.twice.sort(key=lambda path: _parts(path, root))
    return found


def count_classes(root: str, paths: Iterable[str]) -> dict[str, int]:
    """{folder directly below `root`: how many of `paths` lie in it}, sorted by name; "" is `root` itself."""
    counts: collections.Counter[str] = collections.Counter()
    for path in paths:
        parts = _parts(path, root)
        counts[parts[0] if len(parts) > 1 else ""] += 1
    return dict(sorted(counts.items()))


class ImageFiles(RawReader):
    """The images of some files.

    Args:
        paths: paths of the files, in order.
        root: the folder that holds them; `key` is relative to it, so the folder may move.
    """

    def __init__(self, paths: Sequence[str], root: str = ".") -> None:
        self.paths = paths
        self.root = root

    def __len__(self):
        return len(self.paths)

    def name(self, index: int) -> str:
        return self.paths[index]

    def key(self, index: int) -> str:
        path, beginning = self.paths[index], self.root.rstrip(os.sep) + os.sep
        rest = path[len(beginning):]
        if path.startswith(beginning) and not rest.startswith((os.sep, ".")) and f"{os.sep}." not in rest:
            return rest.replace(os.sep, "/")  # ten times as fast as what follows, which takes any path
        return os.path.relpath(path, self.root).replace(os.sep, "/")

    @property
    def labels(self) -> Callable[[], Labels] | None:
        return self._labels

    def _labels(self):
        folders = [self.key(index).partition("/") for index in range(len(self))]
        loose = next((first for first, slash, _ in folders if not slash), None)
        if loose is not None:
            raise UserError(f"{os.path.join(self.root, loose)}: expected each image in a folder of its class, found this one in "
                            "none")
        return Labels.of([first for first, _, _ in folders])

    def stamps(self) -> list[str]:
        return self._stamps  # taken once, before a file is read: one that changes meanwhile is read again by the next command

    @functools.cached_property
    def _stamps(self):
        progress, stamps = SearchProgress("looking for images that have changed"), []
        for path in self.paths:
            stamps.append(file_stamp(path))
            progress(len(stamps))
        progress.close()
        return stamps

    def content(self, index: int) -> bytes:
        path = self.paths[index]
        try:
            with open(path, "rb") as file:
                return file.read()
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from error

    def read(self, index: int) -> np.ndarray:
        return decode(self.paths[index], self.paths[index])

    def look(self, index: int) -> tuple[str, np.ndarray]:
        try:
            content = self.content(index)
        except UserError:
            self.read(index)  # names it as one of the images that cannot be used
            raise
        return digest_of(content), decode(io.BytesIO(content), self.paths[index])

    def shape(self, index: int) -> tuple[int, int, int]:
        return verify(self.paths[index], self.paths[index])

    def format_and_shape(self, index: int) -> tuple[str, tuple[int, int, int]]:
        return format_of(self.paths[index], self.paths[index])

    def _some(self, indices):
        rest = ImageFiles([self.paths[index] for index in indices], self.root)
        if "_stamps" in self.__dict__:
            rest._stamps = [self._stamps[index] for index in indices]
        return rest

    def portable(self, indices: np.ndarray) -> ImageFiles:
        return ImageFiles([self.paths[index] for index in indices], self.root)


def _entries(path):
    """The entries of a folder without hidden ones; UserError if it cannot be read."""
    try:
        with os.scandir(path) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(f"{path}: expected a folder that can be read, received {error.strerror}; its images would "
                        "silently be left out") from error


def _is_folder(entry):
    try:
        return entry.is_dir()
    except OSError as error:
        raise UserError(f"{entry.path}: cannot be read: {error.strerror}") from error


def _is_dead_link(entry):
    if not entry.is_symlink():
        return False
    try:
        os.stat(entry.path)
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
    return False


def _refuse_dead_link(entry):
    if _is_dead_link(entry):
        raise UserError(f"{entry.path}: expected a link to a file or folder, received a broken one (to "
                        f"{os.readlink(entry.path)}); fix or remove it")


def _is_image_name(name):
    return name.lower().endswith(EXTENSIONS)


def _parts(path, root):
    # Sorted by parts and not as text: the order must not depend on how separators compare with other characters.
    return path[len(root):].strip(os.sep).split(os.sep)


def _refuse_pooled(root, paths):
    """UserError where folders with images below `root` look like splits, which would become one set."""
    folders = set()
    for path in paths:
        parent = os.path.dirname(path)
        while parent not in folders and len(parent) > len(root):
            folders.add(parent)
            parent = os.path.dirname(parent)
    alike: collections.defaultdict[tuple[str, str], dict[str, str]] = collections.defaultdict(dict)
    for path in sorted(folders):
        for split, rest in _readings(os.path.basename(path)):
            alike[os.path.dirname(path), rest].setdefault(split, path)
    for (parent, rest), found in alike.items():
        if len(found) > 1:
            hint = "rename them to train, validation and test" if rest else f"give folder:{parent}"
            raise UserError(f"{' and '.join(found.values())}: look like splits of one data set, which would be pooled into one; "
                            f"expected folders of splits right in the folder that is given: {hint}, or link them so")


def _readings(name):
    """Yields each split whose name begins or ends a folder's name, with the rest of the folder's name."""
    name = name.casefold()
    for word, split in SPLIT_NAMES.items():
        if name.startswith(word):
            yield split, name[len(word):]
        elif name.endswith(word):
            yield split, name[:-len(word)]


def _extensions(counts):
    """A Counter of extensions in words: '12 .tif, 3 without an extension'."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    parts = [f"{count} {extension or 'without an extension'}" for extension, count in ordered[:MOST_EXTENSIONS]]
    rest = sum(count for _, count in ordered[MOST_EXTENSIONS:])
    if rest:
        parts.append(f"{rest} others")
    return ", ".join(parts)


def _in_brackets(text):
    return f" ({text})" if text else ""
