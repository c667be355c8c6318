"""`tfcq.train`: from a Config to a trained workdir."""

import errno
import math
import os
import pathlib
from collections.abc import Callable

import tensorflow as tf

from tfcq import models
from tfcq.checks import check_bool, check_kind
from tfcq.config import check_config
from tfcq.engine import devices
from tfcq.engine.batches import step_batches
from tfcq.engine.checkpoints import Checkpoints
from tfcq.engine.optimizers import check_optimizer, compile_model, new_course
from tfcq.errors import TrainingInterrupted, UserError
from tfcq.machine import files, paths, settings, terminal
from tfcq.machine.interruption import Signals, Stopped
from tfcq.training import callbacks, opening
from tfcq.training.likelihood_guard import LikelihoodGuard
from tfcq.training.progress import Progress, Reporter


@settings.keras_defaults()
def train(config, workdir, accept_changed_data=False, on_progress: Callable[[Progress], object] | None = None):
    """Trains until `config.training.train_steps`, or goes on from the workdir's last checkpoint.

    A run that has begun goes on with another config where that changes no number of training
    (`tfcq.config.fields.ON_RESUME`); the change is recorded in history.jsonl. With more `train_steps` a finished run goes on; a
    schedule of the learning rate, or drops of it, are then those of the new length. Where standard output is closed, training
    goes on without it.

    Args:
        config: `tfcq.Config`.
        workdir: folder of the run, a str or os.PathLike; made where it is not there. What is refused before the first step leaves
            nothing in it.
        accept_changed_data: whether a run goes on with those of its images that are there, where some are gone or have another
            content; which they are is kept with the run. Of a run whose version kept no list of its images: whether it goes on
            with other numbers of images, or from another place.
        on_progress: called with a `tfcq.training.progress.Progress` each time that progress.json is written: when the run
            begins or goes on, after the first step, then every 2 s or after each step, whichever is longer, and at the end,
            also after an error. What it raises ends training without a checkpoint. Not called where there is nothing to do.

    Returns:
        The trained model, compiled.

    Raises:
        UserError: wrong data, flags or folder, arguments of another type, or a second training in the folder.
        TrainingDiverged: a loss or gradient stopped being finite.
        TrainingInterrupted: SIGTERM, Ctrl-C or SIGHUP; the state is saved.
    """
    check_config(config)
    check_bool("accept_changed_data", accept_changed_data)
    check_kind("on_progress", on_progress, Callable | None, "a function of a tfcq.training.progress.Progress, or None")
    workdir = paths.folder(workdir, "workdir")
    with terminal.outlived_stdout(), Signals() as signals:
        try:
            signals.stop_at_once()  # until there is something to save
            return _train(config.absolute(), workdir, accept_changed_data, on_progress, signals)
        except Stopped:
            raise TrainingInterrupted(signals.received, None) from None


def _train(config, workdir, accept_changed_data, on_progress, signals):
    training = config.training
    distribution = devices.prepare(
        training.distribution, training.logical_devices, training.deterministic, training.batch_size
    )
    check_optimizer(training)
    of_a_replica = training.batch_size // distribution.num_replicas_in_sync
    if of_a_replica % training.micro_batches:
        raise UserError(f"micro_batches={training.micro_batches}: expected a divisor of {of_a_replica}, a replica's images")
    with opening.opened(config, workdir, accept_changed_data) as run:
        dataset = run.load_data()
        with distribution.scope():
            model = models.build(config, dataset.image_shape)
            num_weights = model.count_params()  # what `attach` adds is of training alone
            if model.needs_indices:
                run.require_numbers(dataset)
            model.attach(dataset, training.batch_size)
            run.check_files(model.files_read)
            compile_model(model, training)
            checkpoints = Checkpoints(workdir, model, training.keep_checkpoints)
            start = checkpoints.restore()
        print(
            f"{config.model}: {num_weights:,} weights; {dataset.description}; "
            f"{distribution.num_replicas_in_sync} replica(s); workdir {workdir}"
            + (f"; resumed from step {start}" if start else ""),
            flush=True,
        )
        if model.likelihood_note:
            print(f"note: {model.likelihood_note}", flush=True)
        if start >= training.train_steps:
            print(f"nothing to do: {start} steps are done and train_steps={training.train_steps}", flush=True)
            return model
        before = run.config_before()
        if before and (line := new_course(model, before.training, training, start)):
            print(line, flush=True)
        batches = step_batches(dataset, model, training.batch_size, training.seed, start)
        evaluation = callbacks.Evaluation(workdir, model, dataset, training, checkpoints, signals)
        files.check_room("workdir", run.folder, _checkpoint_bytes(model))
        run.begin(start, dataset, model.files_read)  # from here on nothing is refused any more
        evaluation.row_at_start = run.row_of(start)
        saver = callbacks.Saver(checkpoints, training.checkpoint_every, training.train_steps, signals)
        bound = f"{model.trained_bound}_bits_per_dim"
        shown = {bound: bound} | {f"{player.name}/loss": f"{player.name} loss" for player in model.players()}
        images_per_step = training.batch_size * model.batches_per_step
        with Reporter(workdir, start, training.train_steps, num_weights, images_per_step, shown, on_progress) as reporter:
            reporter.start()
            _fit(model, dataset, batches, workdir, training, reporter, evaluation, saver, signals)
    return model


def _fit(model, dataset, batches, workdir, training, reporter, evaluation, saver, signals):
    """Takes the steps that are left."""
    images_per_step = training.batch_size * model.batches_per_step
    writers = {name: tf.summary.create_file_writer(f"{workdir}/tensorboard/{name}") for name in opening.WRITERS}
    evaluation.writer, evaluation.guard = writers["validation"], LikelihoodGuard(training)
    try:
        model.fit_batches(
            batches,
            epochs=1,
            steps_per_epoch=training.train_steps - model.steps_taken,
            verbose=0,
            callbacks=[
                callbacks.FirstStep(signals),
                callbacks.FiniteGuard(),
                evaluation.guard,
                callbacks.StepProgress(reporter),
                callbacks.Balance(training.log_every),
                callbacks.Scalars(writers["train"], training.log_every, images_per_step),
                evaluation,
                saver,
            ],
        )
    except (OSError, tf.errors.OpError) as error:
        raise dataset.take_error() or _in_a_line(error, workdir) or error from error
    finally:
        terminal.clear()
        for writer in writers.values():
            writer.close()


def _in_a_line(error, workdir):
    """The UserError that says what a file or a full disk did in the middle of a run; None for other errors."""
    if isinstance(error, OSError) or _is_full_disk(error):
        reason, name = getattr(error, "strerror", None) or os.strerror(errno.ENOSPC), getattr(error, "filename", None)
        kept = f"the checkpoints in {workdir} are untouched"
        if name and not pathlib.Path(os.fsdecode(name)).absolute().is_relative_to(pathlib.Path(workdir).absolute()):
            return UserError(f"{os.fsdecode(name)}: {reason}; {kept}; run the same command again once it is fixed")
        again = "free some space and run the same command again"
        return UserError(f"workdir {workdir}: cannot be written: {reason}; {kept}; {again}")
    return None


def _is_full_disk(error):
    """Whether TensorFlow could not write a file for want of space.

    Its code for that is the one of want of memory too, and the number of the system's error is nowhere but in the message, in
    the system's words.
    """
    return isinstance(error, tf.errors.ResourceExhaustedError) and os.strerror(errno.ENOSPC) in error.message


def _checkpoint_bytes(model):
    """What a checkpoint of a compiled model takes, about."""
    variables = [*model.variables, *(variable for one in model.player_optimizers.values() for variable in one.variables)]
    averages = model.averages.values if model.averages else []
    return sum(math.prod(one.shape) * tf.as_dtype(one.dtype).size for one in (*variables, *averages))
