"""data.json, images.jsonl.gz, images.npz: which images a run has, and in which splits."""

import json
import pathlib

from tfcq.errors import UserError
from tfcq.machine.files import replacing, write_text
from tfcq.workdir.history import record_changes

MANIFEST = "images.jsonl.gz"

IMAGES = "images.npz"


def keep_data(workdir, dataset, step=None, digests=None):
    """Keeps which images an `ImageDataset` has, of which splits, and what can be told of it without opening it.

    Of a run that goes on at `step` these are known; where others were accepted in their place, or an earlier version kept no
    list of them, history.jsonl says so. `digests`, of the other files that training has read, are kept beside: `check_files`.
    """
    folder, manifest = pathlib.Path(workdir), dataset.manifest
    kept = None if step is None else read_manifest(folder)
    fingerprints = manifest and manifest.fingerprints()
    digests = digests or {}
    same = kept is not None and kept.fingerprints() == fingerprints
    if not same or read_digests(folder) != digests:
        if step is not None and not same:
            record_changes(folder, step, {"images": [kept and kept.fingerprints(), fingerprints]})
        facts = {"image_shape": list(dataset.image_shape), "description": dataset.description, "fingerprints": fingerprints}
        facts |= {"files": digests} if digests else {}
        facts |= {"doubt": dataset.doubt} if dataset.doubt else {}
        write_text(folder / "data.json", json.dumps(facts, indent=2) + "\n")
    if manifest and kept != manifest:  # other names or times of the same images, too
        with replacing(folder / MANIFEST) as file:
            file.write(manifest.to_bytes())


def read_digests(workdir):
    """{"section.option": digest} of the files, beside the images, that a run has read; {} where none is known."""
    try:
        return dict(json.loads((pathlib.Path(workdir) / "data.json").read_text())["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def check_files(workdir, config, digests):
    """Raises UserError where a file that a begun run has read is another now (`digests`: `GenerativeModel.files_read`)."""
    for name, before in read_digests(workdir).items():
        option, now = name.partition(".")[2], digests.get(name, before)
        if now != before:
            path = getattr(config.system, option) or "(empty: Keras's own file)"
            raise UserError(
                f"{option} {path}: expected the file that the run began with, of SHA-256 {before}..., "
                f"received one of {now}...; say where that is: --{option}=FILE"
            )


def read_manifest(workdir):
    """The `Manifest` of a run; None where an earlier version, or nobody yet, began it."""
    from tfcq.data.manifest import Manifest

    path = pathlib.Path(workdir) / MANIFEST
    try:
        return Manifest.from_bytes(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: the list of the run's images cannot be read: {error}; restore it from a copy, or remove it to go "
            "by the images' positions"
        ) from error


def data_facts(workdir):
    """data.json as a dict; {} where it cannot be read."""
    try:
        facts = json.loads((pathlib.Path(workdir) / "data.json").read_text())
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def kept_sizes(workdir):
    """{split: how many images a run had when its data was last described}; {} where that cannot be told."""
    from tfcq.data import earlier

    return earlier.sizes_of(data_facts(workdir))


def read_image_shape(workdir):
    """(H, W, C) of a run's images; UserError where the run has not started."""
    try:
        return tuple(json.loads((pathlib.Path(workdir) / "data.json").read_text())["image_shape"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"workdir {workdir}: expected data.json of a run that has started: {error}") from error
