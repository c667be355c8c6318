"""Checkpoints: the last few to resume from, and the best on the validation split.

Both are whole `tf.train.Checkpoint`s (weights, optimizers, step), written by `tf.train.CheckpointManager`: a disk that
fills up while one is written leaves those before it as they were. One that cannot be read is passed over for the one
before it.
"""

import pathlib
import re

import tensorflow as tf

from tfcq.errors import UserError

# IndexError: a data file that is too short, read from Python.
_READ_ERRORS = (tf.errors.OpError, ValueError, AssertionError, OSError, IndexError)


class Checkpoints:
    """The checkpoints of a run that trains.

    Args:
        workdir: folder of the run.
        model: a compiled `GenerativeModel`.
        keep: how many of the last are kept.
    """

    def __init__(self, workdir, model, keep):
        self._folder = pathlib.Path(workdir) / "checkpoints"
        self._model = model
        self.best_value = tf.Variable(float("inf"), trainable=False, dtype=tf.float64)
        # The name of the optimizers' dict is part of the format.
        self._checkpoint = tf.train.Checkpoint(
            model=model, optimizers=dict(model.player_optimizers), best_value=self.best_value
        )
        self._keep, self._managers = keep, {}

    def restore(self):
        """Restores the newest checkpoint that can be read, and returns its step; 0 where there is none.

        Raises:
            UserError: there are some and none can be read.
        """
        return _restore_newest(lambda path: self._checkpoint.restore(path).assert_consumed(), self._folder / "last")

    def save(self):
        """Writes the last checkpoint, at the model's step."""
        self._save("last", self._keep)

    def save_if_best(self, value):
        """Writes the best checkpoint where `value` (lower is better) is the lowest so far; returns whether it is."""
        if not value < float(self.best_value.numpy()):
            return False
        self.best_value.assign(value)
        self._save("best", 1)
        return True

    def _save(self, kind, keep):
        step = self._model.steps_taken
        try:
            if kind not in self._managers:
                self._managers[kind] = self._manager(kind, keep)
            self._managers[kind].save(checkpoint_number=step)
        except (tf.errors.OpError, OSError) as error:
            raise UserError(
                f"checkpoint of step {step} cannot be written to {self._folder / kind}: {_reason(error)}; those before "
                "it are untouched; make room and run the same command again"
            ) from error

    def _manager(self, kind, keep):
        def manager():
            return tf.train.CheckpointManager(
                self._checkpoint, str(self._folder / kind), keep, checkpoint_name="step"
            )

        try:
            return manager()
        except ValueError:
            # TensorFlow passes over a damaged list of checkpoints, but not over an empty one or one that is no text.
            # Without it those that are there are not deleted any more; `restore` finds them by their names.
            (self._folder / kind / "checkpoint").unlink()
            return manager()


def restore_model(model, workdir, which="best"):
    """Restores a model's weights alone; returns the step.

    Args:
        model: an uncompiled `GenerativeModel`.
        workdir: folder of the run.
        which: "best" (the last where no best is kept) or "last".

    Raises:
        UserError: nothing to restore.
    """
    if which not in ("best", "last"):
        raise UserError(f"checkpoint: expected best or last, received {which!r}")
    checkpoint = tf.train.Checkpoint(model=model)

    def restore(path):
        checkpoint.restore(path).expect_partial().assert_existing_objects_matched()

    folder = pathlib.Path(workdir) / "checkpoints"
    if which == "best":
        try:
            step = _restore_newest(restore, folder / "best")
        except UserError as error:
            print(f"warning: {error}; the last is taken instead of the best", flush=True)
            step = 0
        if step:
            return step
    step = _restore_newest(restore, folder / "last")
    if step:
        return step
    raise UserError(f"workdir {workdir}: expected a checkpoint in {folder}, found none; train first")


def _restore_newest(restore, folder):
    paths = sorted(filter(_step, folder.glob("step-*.index")), key=_step, reverse=True)
    failures = []
    for path in paths:
        try:
            restore(str(path.with_suffix("")))
        except _READ_ERRORS as error:
            failures.append(f"{path.with_suffix('')} ({_reason(error)})")
            continue
        for failure in failures:
            print(f"warning: checkpoint {failure} cannot be read; resumed from step {_step(path)}", flush=True)
        return _step(path)
    if failures:
        raise UserError(f"no checkpoint can be read: {'; '.join(failures)}; remove {folder} to start again")
    return 0


def _step(path):
    """The step that an index file's name tells, of at least 1; 0: another file."""
    match = re.fullmatch(r"step-(\d+)\.index", path.name)
    return int(match.group(1)) if match else 0


def _reason(error):
    """What happened, in a line: TensorFlow's messages end with the cause and begin with names of its graph."""
    text = re.sub(r"\{\{[^}]*\}\}|\[Op:\w+\]", "", getattr(error, "message", None) or str(error))
    text = " ".join(text.split())
    return text if len(text) <= 200 else f"{text[:100]} ... {text[-100:]}"
