"""Training: from a Config to a trained workdir (`tfcq.Run.train`, `python -m tfcq.train`)."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import tensorflow as tf

from tfcq import __version__, models
from tfcq import workdir as workdirs
from tfcq.checks import check_bool, check_kind
from tfcq.config import Config, check_config
from tfcq.data.classes import shares
from tfcq.engine import devices
from tfcq.engine.batches import step_batches
from tfcq.engine.checkpoints import Checkpoints
from tfcq.engine.optimizers import check_optimizer, compile_model, new_course
from tfcq.engine.workers import LOST_WORKER_ERRORS, Workers, first_words
from tfcq.errors import TrainingInterrupted, UserError, WorkerLost
from tfcq.machine import cluster, files, paths, settings, terminal
from tfcq.machine.interruption import Signals, Stopped
from tfcq.training import callbacks, first_weights, loggers, opening, progress
from tfcq.training.early_stopping import EarlyStopping, StoppedEarly
from tfcq.training.likelihood_guard import LikelihoodGuard
from tfcq.training.progress import Progress, Reporter

if TYPE_CHECKING:
    import numpy as np

    from tfcq.models.base import GenerativeModel


_STORE_ERRORS = (
    *(tf.errors.UnavailableError, tf.errors.PermissionDeniedError, tf.errors.UnauthenticatedError),
    *(tf.errors.AbortedError, tf.errors.DeadlineExceededError),
)
"""What TensorFlow raises of its own writes to an object store, and of no computation."""

_BALANCE_STEPS = 100
"""The least number of steps over whose means the players' balance is judged."""


@settings.keras_defaults()
def train(
    config: Config,
    workdir: str | os.PathLike,
    accept_changed_data: bool = False,
    on_progress: Callable[[Progress], object] | None = None,
    images: dict[str, np.ndarray] | None = None,
) -> GenerativeModel:
    """Trains until `config.training.train_steps`, or resumes from the workdir's last checkpoint.

    A run that has begun goes on with another config if the differences change no number of training
    (`tfcq.config.fields.ON_RESUME`); history.jsonl records them. With more `train_steps` a finished run goes on; schedules and
    drops of the learning rate then follow the new length. If standard output is closed, training goes on without it.

    Args:
        config: the configuration.
        workdir: folder of the run; created if it does not exist. A training that is refused before its first step leaves no
            files in it.
        accept_changed_data: whether a run goes on with those of its images that are left, if some are gone or have changed;
            the run records which. For a run without a list of its images (of an earlier version): whether it goes on with
            other numbers of images, or from another place.
        on_progress: called with a `tfcq.training.progress.Progress` each time that progress.json is written: when the run
            begins or resumes, after the first step, then every 2 s (10 s at an address) or after each step, whichever is
            longer, and at the end, also after an error. An exception in it ends training without a checkpoint, and it is not
            called again. Not called if there is nothing to do.
        images: the run's images {"train": uint8 [N, H, W, C], perhaps "validation" and "test"}, if they are in memory:
            `config.data.dataset` then names images.npz in the workdir, where they are kept when the run begins. Of a model with
            classes also "train_labels" and so on, ints or strs [N] (`tfcq.data.arrays.collected`).

    Returns:
        The trained model, compiled, with the weights themselves (not their running mean).

    Raises:
        UserError: wrong data, flags or folder, arguments of another type, or a second training in the folder.
        TrainingDiverged: a loss or gradient stopped being finite.
        TrainingInterrupted: SIGTERM, Ctrl-C or SIGHUP, here or on another worker; the state is saved.
        WorkerLost: another worker of the cluster that the environment names has gone.
    """
    check_config(config)
    check_bool("accept_changed_data", accept_changed_data)
    check_kind("on_progress", on_progress, Callable | None, "a function of a tfcq.training.progress.Progress, or None")
    workdir = paths.folder(workdir, "workdir")
    with terminal.outlived_stdout(), Signals() as signals:
        try:
            signals.stop_at_once()  # until there is something to save
            return _train(config.absolute(), workdir, accept_changed_data, on_progress, images or {}, signals)
        except Stopped:
            raise TrainingInterrupted(signals.received or 0, None) from None  # a signal raised Stopped


def _train(config, workdir, accept_changed_data, on_progress, images, signals):
    training = config.training
    machines = cluster.from_environment(os.environ) if training.distribution == "auto" else None
    distribution = devices.prepare(
        training.distribution, training.logical_devices, training.deterministic, training.batch_size, machines
    )
    workers = Workers(distribution)
    workers.listen(signals)
    if not workers.is_chief:
        print(f"{workers}: the first worker prints, writes and evaluates", flush=True)
    silence = contextlib.nullcontext() if workers.is_chief else terminal.silence()
    try:
        with silence, workers.watched(lambda lost: _end(workers, lost, workdir)):
            return _train_with(workers, distribution, config, workdir, accept_changed_data, on_progress, images, signals)
    except LOST_WORKER_ERRORS as error:
        raise _lost_by(error, workers, workdir) or error from error


def _lost_by(error, workers, workdir):
    """The WorkerLost that a failed collective means; None for other errors."""
    if workers.count == 1 or not isinstance(error, LOST_WORKER_ERRORS):
        return None
    number = workers.lost(seconds=10.0)
    if number is not None:
        return _lost(workers, number, workdir)
    own = isinstance(error, tf.errors.InternalError) or (workers.is_chief and _in_a_line(error, workdir))
    return None if own else _lost(workers, None, workdir, first_words(error))


def _lost(workers, number, workdir, reason=""):
    step = None
    with contextlib.suppress(OSError, UserError):  # the file system may be gone, too
        step = workdirs.saved_step(workdir)
    return WorkerLost(str(workers), "" if number is None else f"worker {number}", step, reason)


def _end(workers, number, workdir):
    """Ends the process, which does not notice by itself that a worker is lost."""
    try:
        error = _lost(workers, number, workdir)
        print(f"error: {error}", file=sys.stderr, flush=True)
        if workers.is_chief:
            progress.set_state(workdir, "failed", error)
    finally:
        os._exit(WorkerLost.exit_status)


def _train_with(workers, distribution, config, workdir, accept_changed_data, on_progress, images, signals):
    training = config.training
    workers.agree({"version of tfcq": __version__, "version of TensorFlow": tf.__version__} | config.apart_from_places())
    check_optimizer(training)
    workers.each(lambda: loggers.check(config) if workers.is_chief else None)
    of_a_replica = training.batch_size // distribution.num_replicas_in_sync
    if of_a_replica % training.micro_batches:
        raise UserError(f"micro_batches={training.micro_batches}: expected a divisor of {of_a_replica}, a replica's images")
    open_folder = opening.opened if workers.is_chief else opening.joined
    with contextlib.ExitStack() as stack:
        run = workers.each(lambda: stack.enter_context(open_folder(config, workdir, accept_changed_data, images)))
        mark = workers.share(run.mark())[0]
        workers.each(lambda: run.check_mark(mark))
        other = workers.each(lambda: first_weights.other_run(config, run.folder))
        dataset = workers.each(run.load_data)
        workers.agree({"list of images": str(dataset.manifest and dataset.manifest.fingerprints())})
        classes = workers.each(lambda: run.classes(dataset))
        workers.agree({"classes": str(classes)})
        with distribution.scope():
            model = models.build(config, dataset.image_shape, classes and shares(classes, config.data.balance_classes))
        model.starts_trained = bool(training.init_from)
        weights = workers.each(lambda: first_weights.read(other, model)) if other else None
        with distribution.scope():
            if weights:
                weights.assign_to(model)
                model.check_inherited()
            num_weights = model.count_params()  # without what `attach` adds for training alone
            if model.needs_indices:
                run.require_numbers(dataset)
            model.attach(dataset, training.batch_size)
            run.check_files(model.files_read)
            compile_model(model, training)
            checkpoints = Checkpoints(workdir, model, training.keep_checkpoints, run.require_lock)
            start = checkpoints.restore()
        model.workers = workers
        if workers.count > 1:
            workers.agree({"step to resume from": str(start), "state of the model": checkpoints.digest()})
        print(
            f"{config.model}: {num_weights:,} weights; {dataset.description}; "
            f"{distribution.num_replicas_in_sync} replica(s){workers.count_shown}; workdir {workdir}"
            + (f"; resumed from step {start}" if start else ""),
            flush=True,
        )
        if weights:
            print(weights, flush=True)
        if model.likelihood_note:
            print(f"note: {model.likelihood_note}", flush=True)
        if model.training_note:
            print(f"warning: {model.training_note}", flush=True)
        if start >= training.train_steps:
            print(f"nothing to do: {start} steps are done and train_steps={training.train_steps}", flush=True)
            if workers.is_chief:
                progress.set_state(workdir, "done")  # an earlier training may have been killed after its last checkpoint
            return model
        stopping = EarlyStopping(training, model)
        for row in workers.each(lambda: run.rows_until(start) if workers.is_chief and training.early_stopping else []):
            stopping.hear(row)
        if reason := workers.share(stopping.reason)[0]:
            more = "expected a larger early_stopping, or 0, to go on"
            print(f"nothing to do: {start} of {training.train_steps} steps are done; {reason}; {more}", flush=True)
            if workers.is_chief:
                progress.set_state(workdir, "stopped")
            return model
        before = run.config_before()
        if before and (line := new_course(model, before.training, training, start)):
            print(line, flush=True)
        rows = workers.rows(training.batch_size) if workers.count > 1 else None
        batches = step_batches(dataset, model, training.batch_size, training.seed, start, rows)
        whole = step_batches(dataset, model, training.batch_size, training.seed, start) if rows else None
        saver = callbacks.Saver(checkpoints, training.checkpoint_every, training.train_steps, workers)
        first, last = [callbacks.FirstStep(signals), callbacks.FiniteGuard()], [saver]
        meeting = callbacks.Meeting(training, workers) if workers.count > 1 else None
        if meeting:
            last = [meeting, saver]

        def fit(between=(), reporter=None):
            _fit(model, dataset, batches, whole, workdir, training, [*first, *between, *last], reporter)

        if not workers.is_chief:
            workers.each(lambda: None)  # the chief begins the run
            fit()
            return model

        def begin():
            evaluation = callbacks.Evaluation(workdir, model, dataset, training, checkpoints, signals)
            files.check_room("workdir", run.folder, checkpoints.num_bytes())
            begun = loggers.begun(workdir, config)
            run.begin(start, dataset, model.files_read, weights and weights.facts, classes)  # all checks are done
            evaluation.row_at_start = run.row_of(start)
            return evaluation, begun

        evaluation, begun = workers.each(begin)
        bound = f"{model.trained_bound}_bits_per_dim"
        shown = {bound: bound} | {f"{player.name}/loss": f"{player.name} loss" for player in model.players()}
        images_per_step = training.batch_size * model.batches_per_step
        told = (shown, on_progress, devices.gpu_memory)
        with Reporter(workdir, start, training.train_steps, num_weights, images_per_step, *told) as reporter:
            reporter.start()
            with _loggers(workdir, config, begun) as logging:
                pause = workdirs.seconds_between_curves(workdir)
                saver.curves = curves = callbacks.Scalars(logging, training.log_every, images_per_step, pause)
                evaluation.loggers, evaluation.guard = logging, LikelihoodGuard(training)
                evaluation.stopping = stopping
                between = [
                    evaluation.guard,
                    callbacks.StepProgress(reporter),
                    callbacks.Balance(max(training.log_every, _BALANCE_STEPS)),
                    curves,
                ]
                if meeting:
                    meeting.evaluation = evaluation
                else:
                    between.append(evaluation)
                with _closing(curves.write, workdir):
                    try:
                        fit(between, reporter)
                    finally:
                        terminal.clear()
            reporter.stopped_early = model.stop_training
    return model


@contextlib.contextmanager
def _loggers(workdir, config, begun):
    """A context with the `Loggers` of a training."""
    opened = loggers.opened(workdir, config, begun)
    with _closing(opened.close, workdir):
        yield opened


@contextlib.contextmanager
def _closing(close, workdir):
    """A context that ends with `close()`, whose error is one line; what ended the context counts more than that error."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError, tf.errors.OpError):
            close()
        raise
    try:
        close()
    except (OSError, tf.errors.OpError) as error:
        raise _in_a_line(error, workdir) or error from error


def _fit(model, dataset, batches, whole, workdir, training, all_callbacks, reporter):
    """Takes the remaining steps."""
    try:
        model.fit_batches(
            batches,
            whole,
            epochs=1,
            steps_per_epoch=training.train_steps - model.steps_taken,
            verbose=0,
            callbacks=all_callbacks,
        )
    except StoppedEarly:
        pass
    except (OSError, tf.errors.OpError) as error:
        if reporter and error is reporter.error_of_callback:
            raise
        line = dataset.take_error() or _lost_by(error, model.workers, workdir) or _in_a_line(error, workdir)
        raise line or error from error
    finally:
        model.workers.part()


def _in_a_line(error, workdir):
    """The UserError for a file or a full disk that failed in the middle of a run; None for other errors."""
    if paths.is_remote(workdir) and isinstance(error, _STORE_ERRORS):
        reason = " ".join(error.message.split())[:200]
        kept = "its checkpoints are untouched; run the same command again"
        return UserError(f"workdir {workdir}: cannot be written: {reason}; {kept}")
    if isinstance(error, OSError) or _is_full_disk(error):
        reason, name = getattr(error, "strerror", None) or os.strerror(errno.ENOSPC), getattr(error, "filename", None)
        kept = f"the checkpoints in {workdir} are untouched"
        if name and not paths.as_path(os.fsdecode(name)).absolute().is_relative_to(paths.as_path(workdir).absolute()):
            return UserError(f"{os.fsdecode(name)}: {reason}; {kept}; run the same command again once it is fixed")
        again = f"{'' if paths.is_remote(workdir) else 'free some space and '}run the same command again"
        return UserError(f"workdir {workdir}: cannot be written: {reason}; {kept}; {again}")
    return None


def _is_full_disk(error):
    """Whether TensorFlow could not write a file because the disk is full.

    TensorFlow uses the same code for a lack of memory, and reports the system's error only as text in the message.
    """
    return isinstance(error, tf.errors.ResourceExhaustedError) and os.strerror(errno.ENOSPC) in error.message
