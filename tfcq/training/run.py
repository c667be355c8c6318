"""`tfcq.train`: from a Config to a trained workdir."""

import math
import os
import pathlib

import keras
import tensorflow as tf

from tfcq import data, devices, files, models, paths, settings, terminal
from tfcq.checkpoints import Checkpoints
from tfcq.checks import check_bool
from tfcq.config import check_config
from tfcq.errors import TrainingInterrupted, UserError
from tfcq.interruption import Signals, Stopped
from tfcq.training import callbacks, opening
from tfcq.training.likelihood_guard import LikelihoodGuard


@settings.keras_defaults()
def train(config, workdir, accept_changed_data=False):
    """Trains until `config.training.train_steps`, or goes on from the workdir's last checkpoint.

    A run that has begun goes on with another config where that changes no number of training (`tfcq.knobs.ON_RESUME`); the change
    is recorded in history.jsonl. With more `train_steps` a finished run goes on; a schedule of the learning rate, or drops of it,
    are then those of the new length. Where standard output is closed, training goes on without it.

    Args:
        config: `tfcq.Config`.
        workdir: folder of the run, a str or os.PathLike; made where it is not there. What is refused before the first step leaves
            nothing in it.
        accept_changed_data: whether a run goes on with those of its images that are there, where some are gone or have another
            content; which they are is kept with the run. Of a run whose version kept no list of its images: whether it goes on
            with other numbers of images, or from another place.

    Returns:
        The trained model, compiled.

    Raises:
        UserError: wrong data, flags or folder, arguments of another type, or a second training in the folder.
        TrainingDiverged: a loss or gradient stopped being finite.
        TrainingInterrupted: SIGTERM, Ctrl-C or SIGHUP; the state is saved.
    """
    check_config(config)
    check_bool("accept_changed_data", accept_changed_data)
    workdir = paths.folder(workdir, "workdir")
    with terminal.outlived_stdout(), Signals() as signals:
        try:
            signals.stop_at_once()  # until there is something to save
            return _train(config.absolute(), workdir, accept_changed_data, signals)
        except Stopped:
            raise TrainingInterrupted(signals.received, None) from None


def _train(config, workdir, accept_changed_data, signals):
    training = config.training
    distribution = devices.prepare(
        training.distribution, training.logical_devices, training.deterministic, training.batch_size
    )
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
        if before and (line := _new_course(model, before.training, training, start)):
            print(line, flush=True)
        batches = _step_batches(dataset, model, training, start)
        evaluation = callbacks.Evaluation(workdir, model, dataset, training, checkpoints, signals)
        files.check_room("workdir", run.folder, _checkpoint_bytes(model))
        run.begin(start, dataset, model.files_read)  # from here on nothing is refused any more
        evaluation.row_at_start = run.row_of(start)
        saver = callbacks.Saver(checkpoints, training.checkpoint_every, training.train_steps, signals)
        _fit(model, batches, workdir, training, evaluation, saver, signals)
    return model


def _fit(model, batches, workdir, training, evaluation, saver, signals):
    """Takes the steps that are left."""
    images_per_step = training.batch_size * model.batches_per_step
    players = [player.name for player in model.players()]
    bound = f"{model.trained_bound}_bits_per_dim"
    shown = {bound: bound} | {f"{player}/loss": f"{player} loss" for player in players}
    writers = {name: tf.summary.create_file_writer(f"{workdir}/tensorboard/{name}") for name in opening.WRITERS}
    evaluation.writer, evaluation.guard = writers["validation"], LikelihoodGuard(training)
    try:
        model.fit(
            batches,
            epochs=1,
            steps_per_epoch=training.train_steps - model.steps_taken,
            verbose=0,
            callbacks=[
                callbacks.FirstStep(signals),
                callbacks.FiniteGuard(),
                evaluation.guard,
                callbacks.StepProgress(training.train_steps, images_per_step, shown),
                callbacks.Balance(training.log_every),
                callbacks.Scalars(writers["train"], training.log_every, images_per_step),
                evaluation,
                saver,
            ],
        )
    except (OSError, tf.errors.OpError) as error:
        raise _in_a_line(error, workdir) or error from error
    finally:
        for writer in writers.values():
            writer.close()


def _in_a_line(error, workdir):
    """The UserError that says what a broken image or a full disk did in the middle of a run; None for other errors."""
    if isinstance(error, OSError) or "No space left" in str(error):
        reason, name = getattr(error, "strerror", None) or "No space left on device", getattr(error, "filename", None)
        kept = f"the checkpoints in {workdir} are untouched"
        if name and not pathlib.Path(os.fsdecode(name)).absolute().is_relative_to(pathlib.Path(workdir).absolute()):
            return UserError(f"{os.fsdecode(name)}: {reason}; {kept}; run the same command again once it is fixed")
        again = "free some space and run the same command again"
        return UserError(f"workdir {workdir}: cannot be written: {reason}; {kept}; {again}")
    return data.user_error(error)


def _checkpoint_bytes(model):
    """What a checkpoint of a compiled model takes, about."""
    variables = [*model.variables, *(variable for one in model.player_optimizers.values() for variable in one.variables)]
    averages = model.averages.values if model.averages else []
    return sum(math.prod(one.shape) * tf.as_dtype(one.dtype).size for one in (*variables, *averages))


def _new_course(model, before, training, step):
    """A line on learning rates whose course hangs on the number of steps, where that was changed within the course; or ''."""
    stage = len(model.stage_starts) - 1
    done = step - model.stage_starts[stage]
    if before.train_steps == training.train_steps or done <= 0:
        return ""
    rates = []
    for one in (before, training):
        length = max(1, one.train_steps - model.stage_starts[stage])
        rate = LearningRate(*_course(one, one.learning_rate, length, _drops(model, one)[stage]))
        rates.append(float(rate(done)))
    if rates[0] == rates[1]:
        return ""
    return (
        f"train_steps {before.train_steps} -> {training.train_steps}: the learning rates' course is now that of "
        f"{training.train_steps} steps; learning_rate at step {step}: {rates[0]:.4g} -> {rates[1]:.4g}"
    )


def compile_model(model, training):
    """Gives `model` the optimizers that a TrainingConfig describes; call it under the strategy's scope.

    Raises:
        UserError: learning_rate_drops with another number of lists than the model has stages.
    """
    drops = _drops(model, training)
    ends = [*model.stage_starts[1:], training.train_steps]
    lengths = [max(1, end - start) for start, end in zip(model.stage_starts, ends, strict=True)]
    optimizers = {
        player.name: _optimizer(training, player, lengths[player.stage], drops[player.stage]) for player in model.players()
    }
    model.compile(
        optimizers,
        jit_compile=training.jit_compile,
        clip_norm=training.clip_norm,
        ema_decay=training.ema_decay,
        micro_batches=training.micro_batches,
    )


def _drops(model, training):
    """`TrainingConfig.drops` of each stage."""
    count, drops = len(model.stage_starts), training.drops()
    if len(drops) not in (1, count):
        raise UserError(
            f"learning_rate_drops: expected one list, or one for each of the {count} stage(s) of {model.name} as configured, "
            f"received {len(drops)}: {training.learning_rate_drops!r}"
        )
    return drops * count if len(drops) == 1 else drops


def _step_batches(dataset, model, training, start):
    """What `GenerativeModel.batches_per_step` and `needs_indices` say: uint8 [batch_size, H, W, C], or [batch_size, k, ...]."""
    turns = model.batches_per_step
    batches = dataset.train_batches(training.batch_size * turns, training.seed, start, model.needs_indices)
    if turns > 1:

        def by_turns(part):
            part = tf.reshape(part, (turns, training.batch_size, *part.shape[1:]))
            return tf.transpose(part, (1, 0, *range(2, part.shape.rank)))

        batches = batches.map(lambda *parts: tf.nest.map_structure(by_turns, parts if len(parts) > 1 else parts[0]))
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return batches.with_options(options)


def _optimizer(training, player, num_steps, drops):
    """Of a player whose stage of training has `num_steps` steps and these `drops` of the learning rate."""
    rate = training.discriminator_learning_rate if player.name == "discriminator" else training.learning_rate
    kind = {"adamax": keras.optimizers.Adamax, "adam": keras.optimizers.Adam}[training.optimizer]
    if training.learning_rate_schedule != "constant" or training.warmup_steps or drops:
        rate = LearningRate(*_course(training, rate, num_steps, drops, player.turns))
    return kind(rate, beta_1=training.beta_1, beta_2=training.beta_2, name=f"{player.name}_optimizer")


def _course(training, rate, num_steps, drops, turns=1):
    """The arguments of `LearningRate`; an optimizer counts its updates, one for each of a step's turns."""
    return (
        rate,
        num_steps * turns,
        training.warmup_steps * turns,
        training.learning_rate_schedule,
        drops,
        training.learning_rate_decay ** (1.0 / turns),
        training.learning_rate_floor,
    )


@keras.saving.register_keras_serializable("tfcq")
class LearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up from 0 over `warmup_steps`, then constant, a linear or cosine fall to 0 at `total_steps`, or exponential.

    Each of `drops`, (share, factor), multiplies what is then by its factor from that share of `total_steps` on. An exponential
    fall multiplies by `decay` each step. What falls, by a drop too, ends at `floor`; the warm-up rises from 0 all the same.
    """

    def __init__(self, rate, total_steps, warmup_steps, shape, drops=(), decay=1.0, floor=0.0):
        self._arguments = {
            "rate": rate,
            "total_steps": total_steps,
            "warmup_steps": warmup_steps,
            "shape": shape,
            "drops": [tuple(drop) for drop in drops],
            "decay": decay,
            "floor": floor,
        }

    def __call__(self, step):
        rate, total, warmup, shape, drops, decay, floor = self._arguments.values()
        step = tf.cast(step, tf.float32)
        rise = tf.minimum(1.0, (step + 1.0) / (warmup + 1.0))
        # A stage may be over before the warm-up is.
        done = tf.clip_by_value((step - warmup) / max(total - warmup, 1), 0.0, 1.0)
        fall = {
            "constant": 1.0,
            "linear": 1.0 - done,
            "cosine": 0.5 * (1.0 + tf.cos(math.pi * done)),
            "exponential": tf.exp(math.log(decay) * tf.maximum(step - warmup, 0.0)),
        }[shape]
        for share, factor in drops:
            fall *= tf.where(step >= share * total, factor, 1.0)
        return rise * tf.maximum(rate * fall, min(floor, rate))

    def get_config(self):
        return dict(self._arguments)
