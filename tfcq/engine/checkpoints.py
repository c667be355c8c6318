"""Checkpoints: the last few to resume from, and the best by a number of the evaluations on the validation split.

Both are complete `tf.train.Checkpoint`s (weights, optimizers, step). TensorFlow writes their files under temporary names and
then renames them, so earlier checkpoints stay intact if the disk fills up. If a checkpoint cannot be read, the one before it is
used. Evaluations and exports read them while a training goes on, which removes those that it no longer keeps.

The names of the files in the folder decide which checkpoints exist. `tf.train.CheckpointManager` is not used: it finds and
deletes files by patterns, so in `runs/q?` it deletes the checkpoints of `runs/qa`, and in `runs/[a]` it finds none. Its list,
the file `checkpoint`, is written for TensorFlow's own tools and not read.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tfcq.engine import best
from tfcq.engine.workers import digest_of
from tfcq.errors import UserError
from tfcq.machine import paths
from tfcq.machine.files import PARTIAL, names, write_text
from tfcq.machine.terminal import say

if TYPE_CHECKING:
    from tfcq.engine.trainer import Trainer

KINDS = ("last", "best")
"""Kinds of checkpoints; each has a folder of this name."""

_LIST = "checkpoint"
_FILE = re.compile(r"step-(\d+)\.(index|data-\d{5}-of-\d{5})")

# TensorFlow writes step-N_temp/part-*.tempstateNUMBER, renames that to part-*, and the data of all parts to step-N.*.
_HALF_WRITTEN = re.compile(r"step-\d+_temp")
_PART = re.compile(r"part-\d{5}-of-\d{5}\.(index|data-\d{5}-of-\d{5})(\.tempstate\d+)?")

# What is raised where names or shapes of weights differ; files that are damaged raise others.
_OTHER_WEIGHTS = (ValueError, AssertionError)

# IndexError: a data file that is too short, read from Python.
_READ_ERRORS = (tf.errors.OpError, OSError, IndexError, *_OTHER_WEIGHTS)


_LOOKS = 20
"""How often the checkpoints of a folder are looked at anew, if another process changes those that are read."""


class _WeightsChangedError(UserError):
    """The checkpoints are whole, but of an earlier version's networks."""


class Checkpoints:
    """The checkpoints of a run during training.

    Args:
        workdir: folder of the run.
        model: a compiled `GenerativeModel`.
        keep: how many of the last are kept.
        before_save: called before each save, which an exception in it prevents.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        model: Trainer,
        keep: int,
        before_save: Callable[[], object] = lambda: None,
    ):
        self._folder = paths.as_path(workdir) / "checkpoints"
        self._model, self._before_save = model, before_save
        # The rank (`Criterion.rank`) of the best value so far, by `_criterion`.
        self.best_value = tf.Variable(float("inf"), trainable=False, dtype=tf.float64)
        self._criterion, self._record = best.ELBO, best.Record(self._folder / "best")
        # The name of the optimizers' dict is part of the format.
        self._checkpoint = tf.train.Checkpoint(
            model=model, optimizers=dict(model.player_optimizers), best_value=self.best_value
        )
        _ = self._checkpoint.save_counter  # see `restore_model`
        self._keep = keep

    def restore(self) -> int:
        """Restores the newest checkpoint that can be read, and returns its step; 0 where there is none.

        Raises:
            UserError: there are checkpoints, but none can be read.
        """

        def restore(path):
            with _averages_in(path, self._model):
                self._checkpoint.restore(path).assert_consumed()

        step = _restore_newest(restore, self._folder / "last", self._model.weights_changed)
        if known := self._record.resume(step):
            # The checkpoint has the best until it was saved, which may be by another number than after its evaluation.
            self._criterion, value = known
            self.best_value.assign(self._criterion.rank(value))
        return step

    @property
    def _variables(self):
        averages = [*self._model.averages.values, *self._model.averages.statistics] if self._model.averages else []
        optimizers = self._model.player_optimizers.values()
        return [*self._model.variables, *(variable for one in optimizers for variable in one.variables), *averages]

    def num_bytes(self) -> int:
        """The approximate size of a checkpoint, bytes."""
        return sum(math.prod(one.shape) * tf.as_dtype(one.dtype).size for one in self._variables)

    def digest(self) -> str:
        """A digest of all that a checkpoint restores: weights, optimizers, running means, the step."""
        return digest_of(self._variables)

    def save(self) -> None:
        """Writes a checkpoint of kind "last", for the model's step."""
        self._save("last", self._keep)

    def save_if_best(self, value: float, by: best.Criterion = best.ELBO) -> bool:
        """Writes the best checkpoint if `value` is finite and the best so far; returns whether it is.

        By another criterion than before it is the first value, and a line says so.
        """
        if by != self._criterion:
            if math.isfinite(float(self.best_value.numpy())):
                say(
                    f"step {self._model.steps_taken}: the best checkpoint was chosen by {self._criterion} and is chosen by {by} "
                    "from now on: its record begins anew"
                )
            self._criterion = by
            self.best_value.assign(math.inf)
        if not (math.isfinite(value) and by.rank(value) < float(self.best_value.numpy())):
            return False
        self.best_value.assign(by.rank(value))
        self._save("best", 1)
        self._record.add(self._model.steps_taken, by, value)
        return True

    def _save(self, kind, keep):
        step, folder = self._model.steps_taken, self._folder / kind
        self._before_save()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._checkpoint.save_counter.assign_add(1)  # part of the format, as in tf.train.Checkpoint.save
            self._checkpoint.write(f"{paths.plain(folder)}/step-{step}")
            # Checkpoints of later steps were unreadable when the run was resumed; training has since taken another course.
            kept = sorted(_steps(folder), key=lambda each: (each > step, -each))[:keep]
            _write_list(folder, step, kept)
            for name, step_of_file in _files(folder):
                if step_of_file not in kept:
                    (folder / name).unlink(missing_ok=True)
        except (tf.errors.OpError, OSError) as error:
            space = "" if paths.is_remote(folder) else "free some space and "
            raise UserError(
                f"checkpoint of step {step} cannot be written to {folder}: {_reason(error, folder)}; those before "
                f"it are untouched; {space}run the same command again"
            ) from error


def remove_half_written(workdir: str | os.PathLike) -> None:
    """Removes what killed or failed saves left beside the checkpoints; no process may be saving to `workdir` meanwhile.

    Only TensorFlow's step-N_temp/ with its parts and our list's unfinished file are removed. Data files without an index are
    removed by the next save.
    """
    for folder in (paths.as_path(workdir) / "checkpoints" / kind for kind in KINDS):
        with contextlib.suppress(OSError):
            (folder / f"{_LIST}{PARTIAL}").unlink()
        for name in _listed(folder):
            path = folder / name
            if not _HALF_WRITTEN.fullmatch(name) or path.is_symlink():
                continue
            with contextlib.suppress(OSError):  # what cannot be removed takes up space, but does no harm
                for part in names(path):
                    if _PART.fullmatch(part):
                        (path / part).unlink()
                path.rmdir()  # fails if it holds anything else


def restore_model(model: Trainer, workdir: str | os.PathLike, which: str = "best") -> tuple[int, str]:
    """Restores only the weights of a model.

    Args:
        model: an uncompiled `GenerativeModel`.
        workdir: folder of the run.
        which: "best" or "last". If there is no readable best checkpoint, the last is taken, with a message.

    Returns:
        (step of the checkpoint, its kind: "best" or "last").

    Raises:
        UserError: nothing to restore.
    """
    if which not in ("best", "last"):
        raise UserError(f"checkpoint: expected best or last, received {which!r}")
    checkpoint = tf.train.Checkpoint(model=model)
    # Made by being asked for. One that is made after a read that failed still waits for that checkpoint's value, and the next
    # read then fails too.
    _ = checkpoint.save_counter

    def restore(path):
        with _averages_in(path, model):
            checkpoint.restore(path).expect_partial().assert_existing_objects_matched()

    folder = paths.as_path(workdir) / "checkpoints"
    step: int | None
    if which == "best":
        try:
            step = _restore_newest(restore, folder / "best", model.weights_changed)
        except _WeightsChangedError:
            raise
        except UserError as error:
            print(f"warning: {error}; the last is taken instead of the best", flush=True)
            step = None
        if step:
            return step, "best"
    last = _restore_newest(restore, folder / "last", model.weights_changed)
    if last:
        if which == "best" and step is not None:
            print(f"workdir {workdir}: no best checkpoint is kept, so the last is taken, of step {last}", flush=True)
        return last, "last"
    raise UserError(f"workdir {workdir}: expected a checkpoint in {folder}, found none; train first")


def write_parts(parts: Mapping[str, Any], workdir: str | os.PathLike, step: int) -> None:
    """Writes the variables of some parts of a model as its last checkpoint, of `step`, for `restore_parts`.

    Args:
        parts: {name: layer, module or variable}.
        workdir: a folder of this machine without checkpoints.
        step: the step in the checkpoint's name.
    """
    folder = paths.as_path(workdir) / "checkpoints" / "last"
    folder.mkdir(parents=True, exist_ok=True)
    tf.train.Checkpoint(**parts).write(f"{paths.plain(folder)}/step-{step}")


def restore_parts(parts: Mapping[str, Any], workdir: str | os.PathLike, step: int) -> None:
    """Restores parts of a model, all of what `write_parts` wrote; UserError if that is not possible."""
    folder = paths.as_path(workdir) / "checkpoints" / "last"
    try:
        tf.train.Checkpoint(**parts).read(f"{paths.plain(folder)}/step-{step}").assert_consumed()
    except _READ_ERRORS as error:
        raise UserError(
            f"{folder / f'step-{step}'}: the weights cannot be read: {_reason(error, folder)}; expected whole files of this "
            "model; unpack it again"
        ) from error


def _averages_in(path, model):
    return model.averages.in_checkpoint(path) if model.averages else contextlib.nullcontext()


def chosen_by(workdir: str | os.PathLike, step: int) -> str:
    """By which number the best checkpoint of a run, of `step`, was chosen, in words; "": unknown, as of earlier versions."""
    return best.chosen_by(paths.as_path(workdir) / "checkpoints" / "best", step)


def _restore_newest(restore: Callable[[str], object], folder: paths.AnyPath, weights_changed: str) -> int:
    """Calls `restore` with the newest checkpoint that it can read; returns its step, 0 where there is no checkpoint.

    A training may save and remove checkpoints meanwhile. One that it removed or wrote again while it was read says nothing:
    the folder is looked at anew.

    `weights_changed` (see `Trainer`) is the message where all checkpoints have other weights.
    """
    for _ in range(_LOOKS):
        before = _stamps(folder)
        errors: dict[int, Exception] = {}
        restored = 0
        for step in sorted(before, reverse=True):
            try:
                restore(f"{paths.plain(folder)}/step-{step}")
                restored = step
                break
            except _READ_ERRORS as error:
                errors[step] = error
                tf.get_logger().addFilter(_is_no_echo)
        now = _stamps(folder)
        was_removed = restored not in now  # after it was read, as a whole
        if all(now.get(step) == before[step] for step in errors) and (was_removed or now[restored] == before[restored]):
            break
    else:
        raise UserError(
            f"{folder}: no checkpoint can be read, as another process writes them faster than they are read; try again, or "
            "let that training keep more of the last (--keep_checkpoints) and save less often (--checkpoint_every)"
        )
    failures = [f"{folder / f'step-{step}'} ({_reason(error, folder)})" for step, error in errors.items()]
    if restored or not failures:
        for failure in failures:
            print(f"warning: checkpoint {failure} cannot be read; resumed from step {restored}", flush=True)
        return restored
    if weights_changed and all(isinstance(error, _OTHER_WEIGHTS) for error in errors.values()):
        raise _WeightsChangedError(f"{folder}: the checkpoints have other weights than this model: {weights_changed}")
    raise UserError(
        f"no checkpoint can be read: {'; '.join(failures)}; expected whole files of this model; where they are damaged, "
        f"move {folder} away to start again"
    )


def _is_no_echo(record: logging.LogRecord) -> bool:
    """A filter of TensorFlow's log: leaves out what it says of a checkpoint whose reading failed, once for each variable."""
    return not (record.module == "checkpoint" and record.funcName == "__del__")


def _stamps(folder: paths.AnyPath) -> dict[int, tuple]:
    """{step of a checkpoint: what changes when it is written again}."""
    found = {}
    for step in _steps(folder):
        with contextlib.suppress(FileNotFoundError):  # it has been removed meanwhile
            status = (folder / f"step-{step}.index").stat()
            found[step] = (status.st_size, status.st_mtime, getattr(status, "st_ino", 0))
    return found


def _steps(folder: paths.AnyPath) -> list[int]:
    """The steps (at least 1) of the checkpoints whose index is in the folder; none if there is no such folder."""
    return [step for name, step in _files(folder) if step and name.endswith(".index")]


def _files(folder: paths.AnyPath) -> list[tuple[str, int]]:
    """[(name, step)] of the checkpoint files in a folder, indices before data.

    Raises:
        UserError: the folder exists but cannot be listed, so whether it has checkpoints is unknown.
    """
    matches = [match for name in _listed(folder) if (match := _FILE.fullmatch(name))]
    return [(match[0], int(match[1])) for match in sorted(matches, key=lambda match: (match[2] != "index", match[0]))]


def _listed(folder: paths.AnyPath) -> list[str]:
    try:
        return names(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"checkpoints: {folder} cannot be listed: {error.strerror}; make it readable") from error


def _write_list(folder: paths.AnyPath, newest: int, steps: Iterable[int]) -> None:
    """Writes TensorFlow's list of the checkpoints of a folder (CheckpointState as text), for tf.train.latest_checkpoint.

    Names are relative, as CheckpointManager writes them, and contain no character that needs quoting.
    """
    times = {step: (folder / f"step-{step}.index").stat().st_mtime for step in steps}
    oldest_first = sorted(steps, key=lambda step: (step == newest, times[step], step))
    lines = [f'model_checkpoint_path: "step-{newest}"']
    lines += [f'all_model_checkpoint_paths: "step-{step}"' for step in oldest_first]
    lines += [f"all_model_checkpoint_timestamps: {times[step]}" for step in oldest_first]
    lines += [f"last_preserved_timestamp: {min(times.values()) - 1.0}", ""]
    write_text(folder / _LIST, "\n".join(lines))


def _reason(error: Exception, folder: paths.AnyPath) -> str:
    """The cause in one line: TensorFlow's messages begin with names of graph nodes and end with the cause."""
    text = re.sub(r"\{\{[^}]*\}\}|\[Op:\w+\]", "", getattr(error, "message", None) or str(error))
    text = paths.restore_name(" ".join(text.split()), folder)
    return text if len(text) <= 200 else f"{text[:100]} ... {text[-100:]}"
