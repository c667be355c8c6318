"""Runs of versions of tfcq that kept no list of a run's images: how those read a folder, and what is known of such a run.

Splits were made by position, so they are found again only if the same images stand in the same order. Against `folder` of today:
TIFF, PNM, .jpe, .jfif and .apng were passed over; folders of splits had to be called train, validation and test in small letters,
so that Train/ and Test/ were one set; what is reached by two ways was taken twice.
"""

import os
import re

from tfcq.data.folder import ImageFiles
from tfcq.data.sources import Source
from tfcq.data.splits import SPLITS, fixed_permutation
from tfcq.errors import UserError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")


def folder(directory):
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


def sizes_of(facts):
    """{split: how many images it has} by the description in a run's data.json, a dict; {} where that cannot be told."""
    found = re.search(r": train (\d+), validation (\d+)[^;]*?, test (\d+)", str(facts.get("description")))
    return dict(zip(SPLITS, map(int, found.groups()))) if found else {}


def check_sizes(workdir, facts, manifest, accept_changed_data):
    """Says what is not known of a run without a list of its images; gives how the sizes of its splits differ, in words, or "".

    Args:
        workdir: the run, for messages.
        facts: its data.json, a dict.
        manifest: `Manifest` of what is there, by position.
        accept_changed_data: whether splits may have other sizes than they had.

    Raises:
        UserError: they have, and may not.
    """
    kept, now = sizes_of(facts), {split: len(entries) for split, entries in manifest.splits.items()}
    said = f"workdir {workdir}: nobody kept a list of its images, as earlier versions of tfcq did not"
    if kept in ({}, now):
        print(f"{said}; they are taken by their positions, unchecked", flush=True)
        return ""
    differ = f"they were {_shown(kept)}, and are {_shown(now)} now"
    if not accept_changed_data:
        raise UserError(
            f"{said}; {differ}; expected the same images, or --accept_changed_data to split what is there anew: images that the "
            "model has trained on may then be test images"
        )
    print(
        f"warning: {said}; {differ}; what is there is split anew: images that the model has trained on may now be test or "
        "validation images",
        flush=True,
    )
    return differ


def _shown(sizes):
    return ", ".join(f"{split} {sizes[split]}" for split in SPLITS)
