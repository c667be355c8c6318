"""`folder:DIR`: image files, one folder a class or all in one, any depth.

With a folder DIR/train, that is the train split, and DIR/validation and DIR/test (both optional) are the others;
nothing else with images may lie beside them. Without it, all images below DIR are one split.

Images are files whose names end in one of `EXTENSIONS`, in any case. Hidden files and folders (a leading dot) are not
looked at; other files are ignored, and the description counts them. `decoding` says which images are refused. The order
is a fixed random permutation of the sorted relative paths, so that the first n images of a split are a fair sample of
the classes.
"""

import os

from PIL import features

from tfcq.data.decoding import decode, inspect
from tfcq.data.sources import RawReader, Source, file_stamp
from tfcq.data.splits import SPLITS, fixed_permutation
from tfcq.errors import UserError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".gif") + ((".webp",) if features.check("webp") else ())


def folder(directory):
    """The image files of a folder as a Source.

    Raises:
        UserError: no such folder, no images in it or in one of its splits, or images that belong to no split.
    """
    if not os.path.isdir(directory):
        raise UserError(f"folder: expected a folder, received {directory!r}")
    found = {split: os.path.join(directory, split) for split in SPLITS if os.path.isdir(os.path.join(directory, split))}
    if "train" not in found:
        if found:
            raise UserError(f"folder:{directory}: found {' and '.join(found)} but no train folder beside; expected "
                            "train, or none of the three")
        found = {"train": directory}
    else:
        _refuse_strays(directory, found)
    splits, num_ignored = {}, 0
    for split, root in found.items():
        paths, ignored = find_images(root)
        if not paths:
            raise UserError(f"{root}: expected images ({', '.join(EXTENSIONS)}), found none among {ignored} files")
        splits[split] = ImageFiles([paths[index] for index in fixed_permutation(len(paths))], root)
        num_ignored += ignored
    return Source(splits, f"{num_ignored} other files ignored" if num_ignored else "")


def find_images(root):
    """The paths of all images below `root`, sorted by their relative path, and how many other files there are."""
    paths, num_ignored, seen = [], 0, set()
    for parent, folders, files in os.walk(root, followlinks=True):
        seen.add(os.path.realpath(parent))
        # Links are followed, as classes are often linked in from elsewhere, but never round in circles.
        folders[:] = [name for name in sorted(folders)
                      if not name.startswith(".") and os.path.realpath(os.path.join(parent, name)) not in seen]
        for name in files:
            if name.startswith("."):
                continue
            if name.lower().endswith(EXTENSIONS):
                paths.append(os.path.join(parent, name))
            else:
                num_ignored += 1
    # By the parts of the path and not by its text: the order must not depend on how separators compare with other
    # characters.
    return sorted(paths, key=lambda path: os.path.relpath(path, root).split(os.sep)), num_ignored


class ImageFiles(RawReader):
    """The images of some files.

    Args:
        paths: of the files, in order.
        root: folder below which they lie, and that may move.
    """

    def __init__(self, paths, root):
        self.paths = paths
        self.root = root

    def __len__(self):
        return len(self.paths)

    def name(self, index):
        return self.paths[index]

    def key(self, index):
        return os.path.relpath(self.paths[index], self.root).replace(os.sep, "/")

    def stamps(self):
        return [file_stamp(path) for path in self.paths]

    def select(self, indices):
        return ImageFiles([self.paths[index] for index in indices], self.root)

    def content(self, index):
        path = self.paths[index]
        try:
            with open(path, "rb") as file:
                return file.read()
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from error

    def read(self, index):
        return decode(self.paths[index], self.paths[index])

    def check(self, transform):
        for path in self.paths:
            transform.check(inspect(path, path), path)


def _refuse_strays(directory, found):
    for name in sorted(os.listdir(directory)):
        path = os.path.join(directory, name)
        if name.startswith(".") or name in found:
            continue
        stray = find_images(path)[0][:1] if os.path.isdir(path) else [path] * name.lower().endswith(EXTENSIONS)
        if stray:
            raise UserError(f"{stray[0]}: belongs to no split; beside {os.path.join(directory, 'train')} expected "
                            "images in validation and test only")
