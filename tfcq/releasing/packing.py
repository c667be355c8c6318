"""`tfcq.Run.pack`: a run as a small folder or zip file for others, with weights, card, metrics, licence and checksums.

What is left out: optimizers, the weights beside their running mean, networks that only training uses, images, their list,
pictures and TensorBoard's files. Of the places of images and other files only the last name is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import re
import tempfile
import zipfile

import numpy as np
import tensorflow as tf

from tfcq import workdir as workdirs
from tfcq.errors import UserError
from tfcq.exporting import card
from tfcq.exporting.signatures import ServingModule
from tfcq.machine import files, paths
from tfcq.releasing import places
from tfcq.workdir import packed

LICENSE, CARD, METRICS = "LICENSE", "MODEL_CARD.md", "metrics.jsonl"
_TRAINING = ("averages", "optimizer")  # attributes of a loaded model that are no part of it
_DATE = (1980, 1, 1, 0, 0, 0)  # of the files in a zip, the first that it can have: theirs say nothing


def pack(
    workdir: str | os.PathLike, output: str | os.PathLike, checkpoint: str = "best", license_file: str = ""
) -> pathlib.Path:
    """Packs the model of a run.

    Args:
        workdir: folder of a run.
        output: a new folder, or a new file that ends in .zip; its name is the model's.
        checkpoint: "best" or "last".
        license_file: a text that becomes LICENSE; "": none.

    Returns:
        The path of `output`.

    Raises:
        UserError: no run, a packed one, an output that exists or cannot be written, or a name that cannot be a model's.
    """
    workdir, target = paths.folder(workdir, "workdir"), pathlib.Path(paths.folder(output, "output", local=True))
    name = target.name.removesuffix(".zip")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name):
        raise UserError(f"output {target}: expected a model's name of letters, digits, _, . and -, received {name!r}")
    if target.exists():
        raise UserError(f"output {target}: expected a new folder or zip file, found one that exists")
    if packed.read(workdir) is not None:
        raise UserError(f"workdir {workdir}: expected a run, received a packed model")
    model = workdirs.load(workdir, checkpoint)
    with files.writing("output", target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
            folder = pathlib.Path(scratch) / name
            folder.mkdir()
            _write(folder, model, workdir, license_file)
            _check_equal(model, folder)
            if target.suffix == ".zip":
                _zip(folder, pathlib.Path(scratch) / "zip")
                folder = pathlib.Path(scratch) / "zip"
            folder.replace(target)
    return target


def _write(folder, model, workdir, license_file):
    used, left_out = _parts(model)
    step = int(model.step)
    packed_config = places.without(model.config_of_run)
    renamed = places.renamed(model.config_of_run, packed_config)

    def content_of(name):
        path = paths.as_path(workdir) / name
        try:
            return places.shortened(json.loads(path.read_bytes()), renamed)
        except FileNotFoundError:
            if name == "environment.json":
                return {}
            raise UserError(f"{path}: expected that of a run, found none") from None
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read: {error}") from error

    facts, environment = content_of("data.json"), content_of("environment.json")
    rows = [places.shortened(row, renamed) for row in workdirs.read_metrics(workdir)]
    measured = [row for row in rows if row.get("step") == step and "checkpoint" in row]
    texts = {
        "config.json": packed_config.to_json(),
        "data.json": json.dumps(facts, indent=2) + "\n",
        "environment.json": json.dumps(environment, indent=2) + "\n",
        METRICS: "".join(json.dumps(row) + "\n" for row in rows),
        "metrics.json": json.dumps((measured or rows or [{}])[-1], indent=2) + "\n",
    }
    of_license = ""
    if license_file:
        path = pathlib.Path(paths.to_read(license_file, "license"))
        try:
            texts[LICENSE] = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"license {path}: expected a text, which cannot be read: {error}") from error
        of_license = f"The weights are under the terms in `{LICENSE}`."
    use = [
        "## Use",
        "",
        f"    run = tfcq.Run.from_pretrained({folder.name!r})  # this folder, its zip file, or an address of it",
        "    images = run.model().sample(16)",
        "",
        "The run can be sampled, evaluated, scored and exported, and not trained on.",
    ]
    texts[CARD] = card.model_card(
        folder.name, "packed", packed_config, environment, facts, rows, step, use, "energy" in model.abilities, of_license
    )
    for name, text in texts.items():
        (folder / name).write_text(text)
    from tfcq.engine import checkpoints

    checkpoints.write_parts({name: getattr(model, name) for name in used}, folder, step)
    digests = {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    release = packed.Packed(folder.name, step, model.checkpoint_of_run, model.chosen_by, used, left_out, digests)
    (folder / packed.FILE).write_text(release.to_json())


def _parts(model):
    """([attributes of a model whose variables its answers need], [others])."""
    with tempfile.TemporaryDirectory() as scratch:
        path = tf.train.Checkpoint(model=model).write(f"{scratch}/all")
        keys = [key.split("/") for key, _ in tf.train.list_variables(path)]
    names = sorted({key[1] for key in keys if key[0] == "model"} - set(_TRAINING))
    module, asked = ServingModule(model, 2), set()
    for ability in sorted(model.abilities):
        asked |= {variable.ref() for variable in module.signature(ability).graph.variables}
    used = [name for name in names if name == "step" or packed.keys_of(getattr(model, name)) & asked]
    return used, [name for name in names if name not in used]


def _check_equal(model, folder):
    """Raises UserError unless the packed model has the same weights, read as everybody reads them."""
    again, release = workdirs.load(folder), packed.read(folder)
    if release is None or int(again.step) != release.step:
        raise UserError(f"output {folder.name}: what was written is not the model at step {int(model.step)}; nothing was kept")
    for name in release.parts:
        for one, other in zip(*(packed.variables_of(getattr(each, name)) for each in (model, again)), strict=True):
            if not np.array_equal(one.numpy(), other.numpy(), equal_nan=True):
                raise UserError(f"output {folder.name}: other weights of {name} were written than the run has; nothing was kept")


def _zip(folder, path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for one in sorted(folder.rglob("*")):
            if one.is_file():
                info = zipfile.ZipInfo(f"{folder.name}/{one.relative_to(folder)}", _DATE)
                info.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(info, one.read_bytes())
