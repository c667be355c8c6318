"""All images of a place, whatever its layout, for what looks at images that no run has split.

Places are named as data sets, `config.DataConfig.dataset`, or `list:FILE`, a text file with the path of an image a line.
"""

from __future__ import annotations

import codecs
import collections
import os

import numpy as np

from tfcq.config import DataConfig
from tfcq.data.dataset import MEMORY_LIMIT, ImageDataset, open_source
from tfcq.data.folder import EXTENSIONS, ImageFiles, find_images
from tfcq.data.holding import cache_folder, gather_all
from tfcq.data.manifest import Manifest
from tfcq.data.sources import RawImages
from tfcq.data.split_images import SplitImages
from tfcq.data.transforms import Transform
from tfcq.errors import UserError, named
from tfcq.machine import paths


def dataset_of(place: str | os.PathLike, option: str) -> str:
    """The `dataset` that a user's PLACE names, its path absolute; a folder without a prefix is folder:DIR.

    `option`: the name of what was given, for messages.
    """
    if not isinstance(place, str | os.PathLike) or not os.fspath(place):
        raise UserError(f"{option}: expected a folder or the name of a data set, received {place!r}")
    place = os.fspath(place)
    kind, _, path = place.partition(":")
    if kind == "list" and path:
        return f"list:{paths.to_read(path, option, 'a text file with the path of an image a line').absolute()}"
    if os.path.isdir(os.path.expanduser(place)) or place.startswith((os.sep, "~", "./", "../")):
        place = f"folder:{place}"
    return DataConfig(dataset=place).absolute().dataset


def all_splits(config: DataConfig, option: str = "images") -> dict[str, RawImages]:
    """{split: RawImages} of the place `config.dataset`; a folder, searched at any depth, and a list have one split, "".

    `option`: the name of what was given, for messages.

    Raises:
        UserError: no such place, or no images in it.
    """
    kind, _, place = config.dataset.partition(":")
    if kind == "list" and place:
        return {"": ListedFiles(place, option)}
    if kind != "folder" or not place:
        with named(option):
            return dict(open_source(config).splits)
    root = os.fspath(paths.to_read(place, option, "a folder"))
    if not os.path.isdir(root):
        raise UserError(f"{option}: expected a folder, received {root!r}")
    found = find_images(root)
    if not found.paths:
        looked_at = f"found none among {found.passed_over.total()} files"
        raise UserError(f"{option}: {root}: expected images ({', '.join(EXTENSIONS)}), {looked_at}")
    return {"": ImageFiles(found.paths, root)}


def whole(raw: RawImages, config: DataConfig, name: str) -> ImageDataset:
    """An `ImageDataset` whose one split `name` has all images of `raw`, in their order, prepared as `config` says.

    Raises:
        UserError: images that are broken, or unfit for the configuration.
    """
    transform = Transform.of(config, raw.channels, raw.name(raw.example))
    in_memory = len(raw) * int(np.prod(transform.shape)) <= MEMORY_LIMIT
    gather, way, parallel_calls = gather_all({name: raw}, transform, in_memory, cache_folder(config.data_cache))
    raw.refuse_scaled()
    images = {name: SplitImages([name], np.zeros(len(raw), np.int64), np.arange(len(raw)))}
    height, width, channels = transform.shape
    return ImageDataset(
        f"{config.dataset}: {name} {len(raw)}; {height}x{width}x{channels}, {way}",
        transform.shape,
        {name: images[name].gather(gather)},
        horizontal_flip=False,
        parallel_calls=parallel_calls,
        manifest=Manifest.of({name: raw}, images),
    )


class ListedFiles(ImageFiles):
    """The images of a text file with a path a line, absolute or relative to the text file's folder; a line is the image's key.

    Args:
        place: path of the text file. Empty lines are passed over.
        option: the name of what was given, for messages.

    Raises:
        UserError: a file that cannot be read, no line, a line twice, or images that are not there.
    """

    def __init__(self, place: str, option: str = "images") -> None:
        path = paths.to_read(place, option, "a text file with the path of an image a line")
        try:
            text = path.read_bytes().removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
        except OSError as error:
            raise UserError(f"{option}: {path}: cannot be read: {error.strerror}") from error
        lines = [line.removesuffix("\r") for line in text.split("\n")]  # a name may hold what `splitlines` takes for an end
        self._keys = [line for line in lines if line.strip()]
        if not self._keys:
            raise UserError(f"{path}: expected the path of an image a line, found none")
        twice = [key for key, count in collections.Counter(self._keys).items() if count > 1]
        if twice:
            raise UserError(f"{path}: expected each path once, found {twice[0]} again ({len(twice)} such lines)")
        super().__init__([os.path.join(os.path.abspath(path.parent), key) for key in self._keys])
        missing = [one for one in self.paths if not os.path.isfile(one)]
        if missing:
            raise UserError(f"{path}: {len(missing)} of {len(self.paths)} files are not there, such as {missing[0]}")

    def key(self, index: int) -> str:
        return self._keys[index]

    @property
    def labels(self) -> None:
        return None  # a path in a list may begin anywhere
