"""`tfcq.export`: a workdir's model as a SavedModel under BASE/<model name>/<version>/.

It is written under a temporary name, loaded in a fresh process that imports only TensorFlow, whose answers are compared with
the live model's, and only then renamed to the next version: a server that watches the folder never sees half a model.

At an address (gs://...) nothing can be renamed. The model is written to a temporary folder of this machine, checked there, and
copied, `saved_model.pb` last. TF Serving tries to load a version as soon as its folder appears; without that file it fails, and
tries again (`--max_num_load_retries`, 5, each a minute later; for a gs:// of TF Serving: UNMEASURED).
"""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np
import tensorflow as tf

from tfcq import workdir as workdirs
from tfcq.checks import check_bool, check_integer
from tfcq.endpoints import SIGNATURES
from tfcq.errors import UserError
from tfcq.exporting import card, examples, operations, verify
from tfcq.exporting.signatures import ServingModule, names_of
from tfcq.exporting.succession import check_successor
from tfcq.machine import files, paths
from tfcq.machine.terminal import StageProgress

_STAGED = ".staged-"  # followed by the process id
_LEFT_OVER = 24 * 3600.0  # seconds; an export takes minutes
_FLOAT_TOLERANCE = 1e-4  # relative; the same graph on the same machine gave 0.0


def export(
    workdir: str | os.PathLike,
    export_dir: str | os.PathLike,
    num_importance_samples: int = 10,
    checkpoint: str = "best",
    image_draw: str = "",
    allow_other_signatures: bool = False,
) -> paths.AnyPath:
    """Exports the model of `workdir`.

    Args:
        workdir: folder of a run.
        export_dir: BASE; the model goes to BASE/<model name>/<next integer>/.
        num_importance_samples: K of the endpoints likelihood and unit_gaussian_likelihood, which cost K decoder passes an image.
        checkpoint: "best" or "last".
        image_draw: as in `tfcq.Run.model`.
        allow_other_signatures: whether the model may be the next version of one with other signatures.

    Returns:
        The path of the version's folder.

    Raises:
        UserError: no such run, a folder that cannot be written, an earlier version with other signatures, or a SavedModel
            whose answers differ from the model's.
    """
    check_integer("num_importance_samples", num_importance_samples, 1)
    check_bool("allow_other_signatures", allow_other_signatures)
    workdir, export_dir = paths.folder(workdir, "workdir"), paths.folder(export_dir, "export_dir")
    base = export_dir / workdirs.read_config(workdir).model  # an error if there is no run
    files.check_folder("export_dir", base)
    environment, data = _read_json(workdir, "environment.json"), _read_json(workdir, "data.json")
    model = workdirs.load(workdir, checkpoint, image_draw)
    config = model.config_of_run
    # A folder of this machine: in a fresh process TensorFlow has no ram:// of this one, and writes to a store are slow.
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="tfcq-export-")) if paths.is_remote(base) else base
    staged = scratch / f"{_STAGED}{os.getpid()}"
    names = names_of(model.abilities)
    run_here = [name for name in names if not SIGNATURES[name].encoded]
    progress = StageProgress("exporting", 2 * len(names) + len(run_here) + 3)
    try:
        module = ServingModule(model, num_importance_samples)
        signatures = module.signatures(lambda name: progress.begin(f"building {name}"))
        if not allow_other_signatures:
            check_successor(base, signatures)
        scratch.mkdir(parents=True, exist_ok=True)
        _remove_left_over(scratch)
        progress.begin("writing the SavedModel")
        module.save(f"{paths.plain(scratch)}/{staged.name}", signatures)
        progress.begin("making requests to compare its answers")
        inputs = examples.requests(model)
        answers = examples.answers(signatures, inputs, lambda name: progress.begin(f"asking the model for {name}"))
        progress.begin("loading the SavedModel in a fresh process")
        reloaded = _reloaded_answers(staged, inputs, lambda name: progress.begin(f"asking the SavedModel for {name}"))
        check_equal_answers(answers, examples.without_files(reloaded))
        progress.close()
        if lacking := operations.warning(staged / "saved_model.pb"):
            print(lacking, flush=True)
        rows = workdirs.read_metrics(workdir)
        if "energy" in model.abilities:
            told = card.energy_told(rows, int(model.step), config.system.normalization_of_encoder)
            if told.startswith("warning"):
                print(told, flush=True)
        extra = staged / "assets.extra"
        extra.mkdir(exist_ok=True)
        if not card.write_warmup(staged, inputs):
            print(
                "warning: no warm-up requests were written: they need tensorflow-serving-api (pip install tfcq[serving])"
            )
        files.write_text(
            extra / "MODEL_CARD.md",
            card.model_card(
                config.model,
                "exported",
                config,
                environment,
                data,
                rows,
                int(model.step),
                card.signatures_of(signatures, num_importance_samples),
                "energy" in signatures,
            ),
        )
        card.write_preparation(staged, config.data)
        card.write_manifest(staged)
        target = (_upload_as_next_version if paths.is_remote(base) else _rename_to_next_version)(staged, base)
    except (OSError, tf.errors.OpError) as error:
        reason = paths.restore_name(" ".join(str(error).split()), base)[:200]
        raise UserError(f"export_dir {export_dir}: cannot be written: {reason}") from error
    finally:
        progress.close()
        shutil.rmtree(staged, ignore_errors=True)
        if scratch != base:
            shutil.rmtree(scratch, ignore_errors=True)
    if not {"[", "\\"}.isdisjoint(str(target.absolute())):
        print(
            "warning: TensorFlow takes [ and \\ in a path as patterns: tf.saved_model.load and TF Serving cannot load the model "
            "by its full path here; serving/local_server.py can, and all can by a link, a mount or another place",
            flush=True,
        )
    return target


def _remove_left_over(base):
    """Removes what killed exports left, by its age: a process id says nothing of another machine or container."""
    for path in base.glob(f"{_STAGED}*"):
        if time.time() - path.stat().st_mtime > _LEFT_OVER:
            shutil.rmtree(path, ignore_errors=True)


def _read_json(workdir, name):
    path = paths.as_path(workdir) / name
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: the model card needs this file of the run, which cannot be read: {error}") from error


def _reloaded_answers(folder, inputs, begin):
    with tempfile.TemporaryDirectory() as scratch:
        given, answered = f"{scratch}/inputs.npz", f"{scratch}/outputs.npz"
        np.savez(
            given,
            **{
                f"{signature}/{name}": array for signature, tensors in inputs.items() for name, array in tensors.items()
            },
        )
        # From the folder above, since TensorFlow treats a path with brackets as a pattern.
        command = [sys.executable, verify.__file__, folder.name, given, answered]
        with tempfile.TemporaryFile("w+") as errors:
            with subprocess.Popen(
                command, cwd=folder.parent, stdout=subprocess.PIPE, stderr=errors, text=True
            ) as process:
                try:
                    for name in process.stdout or ():
                        begin(name.strip())
                except BaseException:  # also a signal: otherwise the end of the process would be waited for
                    process.kill()
                    raise
            if process.returncode:
                errors.seek(0)
                reason = (errors.read().strip() or f"it ended with status {process.returncode}").splitlines()[-1]
                raise UserError(f"the SavedModel cannot be used in a fresh process: {reason}")
        with np.load(answered) as arrays:
            return dict(arrays)


def check_equal_answers(live: dict[str, np.ndarray], reloaded: dict[str, np.ndarray]) -> None:
    """Raises UserError if a reloaded model's answers (dicts of arrays) are not the live model's.

    Floats may differ by 1e-4 relatively, images in one value of a hundred: a value at the edge of a bin may change by a grey
    level, and one whose mixture component is drawn at the edge of another component by any number.
    """
    if live.keys() != reloaded.keys():
        raise UserError(f"the SavedModel answers {sorted(reloaded)}, expected {sorted(live)}")
    for name, expected in live.items():
        received = reloaded[name]
        if expected.shape != received.shape or expected.dtype != received.dtype:
            raise UserError(
                f"the SavedModel's {name} is {received.dtype} {received.shape}, expected {expected.dtype} {expected.shape}"
            )
        if expected.dtype.kind in "SO":  # strings
            if not np.array_equal(expected, received):
                raise UserError(f"the SavedModel's {name} is {received.tolist()}, expected {expected.tolist()}")
            continue
        difference = np.abs(expected.astype(np.float64) - received)
        if expected.dtype == np.uint8:
            equal = (difference > 0).mean() <= 0.01
        else:
            equal = np.all(difference <= _FLOAT_TOLERANCE * np.maximum(1.0, np.abs(expected)))
        if not equal:
            raise UserError(f"the SavedModel's {name} differs from the live model's by up to {difference.max():.3g}")


def _next_version(base):
    versions = [int(name) for name in files.names(base) if name.isascii() and name.isdecimal()]
    return base / str(max(versions, default=0) + 1)


def _rename_to_next_version(staged, base):
    while True:
        target = _next_version(base)
        try:
            target.mkdir()  # reserves the number: a simultaneous export takes the next one
        except FileExistsError:
            continue
        staged.replace(target)
        return target


def _upload_as_next_version(staged, base):
    from tfcq.machine.remote_lock import RemoteLock

    base.mkdir(parents=True, exist_ok=True)
    with RemoteLock(base / ".export", f"process {os.getpid()}"):  # a simultaneous export takes the next number
        target = _next_version(base)
        try:
            inside = [path.relative_to(staged) for path in staged.rglob("*") if path.is_file()]
            for name in sorted(inside, key=lambda name: (name.name == "saved_model.pb", name)):
                (target / name).upload(staged / name)
        except BaseException:
            with contextlib.suppress(OSError):
                target.rmtree()
            raise
    return target
