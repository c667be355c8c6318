"""Runs of earlier versions of tfcq, which kept no list of images: how those read a folder, and what is known of such a run.

Splits were made by position, so they are found again only if the same images are in the same order. Unlike today's `folder`,
those versions skipped TIFF, PNM, .jpe, .jfif and .apng; only the folders train, validation and test, in lower case, were
splits, so Train/ and Test/ were one set; an image that is reached by two paths was used twice.
"""

from __future__ import annotations

import os
import re

from tfcq.config import DataConfig
from tfcq.data.folder import ImageFiles
from tfcq.data.manifest import Manifest
from tfcq.data.sources import Source
from tfcq.data.splits import SPLITS, fixed_permutation
from tfcq.errors import UserError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")


def folder(directory: str) -> Source:
    """The image files of a folder as a Source, as commit d74abb1 found them.

    Raises:
        UserError: no images in it or in one of its splits.
    """
    roots = {split: os.path.join(directory, split) for split in SPLITS if os.path.isdir(os.path.join(directory, split))}
    splits = {}
    for split, root in (roots if "train" in roots else {"train": directory}).items():
        paths = _find_images(root)
        if not paths:
            raise UserError(f"{root}: expected images ({', '.join(EXTENSIONS)}), found none")
        splits[split] = ImageFiles([paths[index] for index in fixed_permutation(len(paths))], root)
    return Source(splits)


def _find_images(root):
    paths, seen = [], set()
    for parent, folders, files in os.walk(root, followlinks=True):
        seen.add(os.path.realpath(parent))
        folders[:] = [
            name
            for name in sorted(folders)
            if not name.startswith(".") and os.path.realpath(os.path.join(parent, name)) not in seen
        ]
        paths += [
            os.path.join(parent, name)
            for name in files
            if not name.startswith(".") and name.lower().endswith(EXTENSIONS)
        ]
    return sorted(paths, key=lambda path: os.path.relpath(path, root).split(os.sep))


def sizes_of(facts: dict) -> dict[str, int]:
    """{split: how many images it has} by the description in a run's data.json, a dict; {} if it does not say."""
    found = re.search(r": train (\d+), validation (\d+)[^;]*?, test (\d+)", str(facts.get("description")))
    return dict(zip(SPLITS, map(int, found.groups()))) if found else {}


def doubt_of(
    workdir: str | os.PathLike, facts: dict, manifest: Manifest, before: DataConfig, now: DataConfig, accept_changed_data: bool
) -> str:
    """Prints and returns what is uncertain about the splits of a run without a list of its images; "" if nothing is.

    Args:
        workdir: the run, for messages.
        facts: its data.json, a dict.
        manifest: `Manifest` of the images that are there now, by position.
        before, now: the run's DataConfig, and the one that says where the images are now, both with absolute paths.
        accept_changed_data: whether the images may have moved or changed.

    Raises:
        UserError: they have, and `accept_changed_data` is False.
    """
    said = f"workdir {workdir}: there is no list of its images (packed models and runs of earlier versions have none)"
    fingerprints = facts.get("fingerprints")
    if fingerprints == manifest.fingerprints():  # the list was lost, and only that
        print(f"{said}; what is there has the content that they had", flush=True)
        return ""
    moved = "; ".join(
        f"{name} was {getattr(before, name)}, and is {getattr(now, name)} now"
        for name in ("dataset", "data_dir")
        if getattr(before, name) != getattr(now, name)
    )
    sizes, sizes_now = sizes_of(facts), {split: len(entries) for split, entries in manifest.splits.items()}
    others = ""
    if sizes not in ({}, sizes_now):
        others = f"they were {_shown(sizes)}, and are {_shown(sizes_now)} now"
    elif fingerprints:
        others = "some have another content, or another position, than they had"
    differences = "; ".join(filter(None, (moved, others)))
    if differences and not accept_changed_data:
        anew = "to split what is there anew: images that the model has trained on may then be test images"
        same = "where the same images have moved there: they are then taken by their positions, unchecked"
        accepted = f"--accept_changed_data {anew if others else same}"
        raise UserError(f"{said}; {differences}; expected the same images, or {accepted}")
    if others:
        print(
            f"warning: {said}; {differences}; what is there is split anew: images that the model has trained on may now be "
            "test or validation images",
            flush=True,
        )
        return (
            f"without a list of the run's images what was there was split anew ({others}): the model may have trained on "
            "images of the test and validation splits"
        )
    where = f"in another place ({moved}), " if moved else ""
    print(f"{said}; they are taken by their positions, {where}unchecked", flush=True)
    where = "in another place, " if moved else ""
    return f"without a list of the run's images they were taken by their positions, {where}unchecked"


def _shown(sizes):
    return ", ".join(f"{split} {sizes[split]}" for split in SPLITS)
