"""data.json, images.jsonl.gz, images.npz: the images of a run and their splits."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tfcq.errors import UserError
from tfcq.machine.files import replacing, write_text
from tfcq.machine.paths import as_path
from tfcq.workdir.history import record_changes

if TYPE_CHECKING:
    from tfcq.config import Config
    from tfcq.data import ImageDataset
    from tfcq.data.manifest import Manifest

MANIFEST = "images.jsonl.gz"

IMAGES = "images.npz"


def keep_data(
    workdir: str | os.PathLike,
    dataset: ImageDataset,
    step: int | None = None,
    digests: Mapping[str, str] | None = None,
    classes: Mapping[str, Any] | None = None,
) -> None:
    """Writes the list of a data set's images and their splits, and facts about it that are needed without opening it.

    history.jsonl records if a run resumes with other images, which were accepted, or without a list (of an earlier version).

    Args:
        workdir: folder of the run.
        dataset: the images.
        step: from which the run resumes; None: it begins.
        digests: {"section.option": digest} of the other files that training has read, for `check_files`; None: none.
        classes: `tfcq.data.classes.Classes.facts`, of a model with classes; None: it has none.
    """
    folder, manifest = as_path(workdir), dataset.manifest
    kept = None if step is None else read_manifest(folder)
    fingerprints = manifest and manifest.fingerprints()
    digests = dict(digests or {})
    same = kept is not None and kept.fingerprints() == fingerprints
    if not same or read_digests(folder) != digests:
        if step is not None and not same:
            record_changes(folder, step, {"images": [kept and kept.fingerprints(), fingerprints]})
        facts: dict[str, Any] = {"image_shape": list(dataset.image_shape), "description": dataset.description}
        facts |= {"fingerprints": fingerprints}
        facts |= {"files": digests} if digests else {}
        facts |= {"doubt": dataset.doubt} if dataset.doubt else {}
        facts |= {"classes": dict(classes)} if classes else {}
        write_text(folder / "data.json", json.dumps(facts, indent=2) + "\n")
    if manifest and kept != manifest:  # also if only names or times of the same images differ
        with replacing(folder / MANIFEST) as file:
            file.write(manifest.to_bytes())


def read_digests(workdir: str | os.PathLike) -> dict[str, str]:
    """{"section.option": digest} of the files other than images that a run has read; {} if none is known."""
    try:
        return dict(json.loads((as_path(workdir) / "data.json").read_text())["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def check_files(workdir: str | os.PathLike, config: Config, digests: Mapping[str, str]) -> None:
    """Raises UserError if a file that the run has read is not the same now.

    Args:
        workdir: folder of a run.
        config: its configuration, with the paths of the files.
        digests: of the files now, `GenerativeModel.files_read`.
    """
    for name, before in read_digests(workdir).items():
        option, now = name.partition(".")[2], digests.get(name, before)
        if now != before:
            path = getattr(config.system, option) or "(empty: Keras's own file)"
            raise UserError(
                f"{option} {path}: expected the file that the run began with, of SHA-256 {before}..., "
                f"received one of {now}...; say where that is: --{option}=FILE"
            )


def read_manifest(workdir: str | os.PathLike) -> Manifest | None:
    """The `Manifest` of a run; None if it has not begun, or was begun by an earlier version."""
    from tfcq.data.manifest import Manifest

    path = as_path(workdir) / MANIFEST
    try:
        return Manifest.from_bytes(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: the list of the run's images cannot be read: {error}; restore it from a copy, or remove it to split "
            "the images by position"
        ) from error


def read_classes(workdir: str | os.PathLike, config: Config) -> dict[str, float] | None:
    """{name of a class: its probability}, in the order of their numbers, of a run with classes; None: the run has none.

    Raises:
        UserError: the run has classes, and its data.json does not tell them.
    """
    from tfcq.data.classes import shares

    if not config.class_conditional:
        return None
    try:
        return shares(data_facts(workdir)["classes"], config.data.balance_classes)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"workdir {workdir}: expected data.json with the classes of a run that has started: {error}") from error


def data_facts(workdir: str | os.PathLike) -> dict[str, Any]:
    """data.json as a dict; {} if it cannot be read."""
    try:
        facts = json.loads((as_path(workdir) / "data.json").read_text())
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def kept_sizes(workdir: str | os.PathLike) -> dict[str, int]:
    """{split: number of images of the run when its data was last described}; {} if unknown."""
    from tfcq.data import earlier

    return earlier.sizes_of(data_facts(workdir))


def read_image_shape(workdir: str | os.PathLike) -> tuple[int, int, int]:
    """(H, W, C) of a run's images; UserError if the run has not started."""
    try:
        height, width, channels = json.loads((as_path(workdir) / "data.json").read_text())["image_shape"]
        return height, width, channels
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"workdir {workdir}: expected data.json of a run that has started: {error}") from error
