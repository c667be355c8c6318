"""`tfcq.train`: from a Config to a trained workdir."""

import math

import keras
import tensorflow as tf

from tfcq import data, devices, models
from tfcq import workdir as workdirs
from tfcq.checkpoints import Checkpoints
from tfcq.checks import check_folder
from tfcq.config import check_config
from tfcq.errors import UserError
from tfcq.training import callbacks


def train(config, workdir):
    """Trains until `config.training.train_steps`, or goes on from the workdir's last checkpoint.

    Args:
        config: `tfcq.Config`.
        workdir: folder of the run, a str or os.PathLike; made where it is not there.

    Returns:
        The trained model, compiled.

    Raises:
        UserError: wrong data, flags or folder; arguments of another type.
        TrainingDiverged: a loss or gradient stopped being finite.
        TrainingInterrupted: SIGTERM or Ctrl-C; the state is saved.
    """
    check_config(config)
    check_folder("workdir", workdir)
    training = config.training
    distribution = devices.prepare(
        training.distribution, training.logical_devices, training.deterministic, training.batch_size
    )
    of_a_replica = training.batch_size // distribution.num_replicas_in_sync
    if of_a_replica % training.micro_batches:
        raise UserError(f"micro_batches={training.micro_batches}: expected a divisor of {of_a_replica}, a replica's images")
    dataset = data.load(config.data)
    workdirs.open_for(config, workdir)
    workdirs.write_data_facts(workdir, dataset)
    with distribution.scope():
        model = models.build(config, dataset.image_shape)
        num_weights = model.count_params()  # what `attach` adds is of training alone
        model.attach(dataset, training.batch_size)
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
        print(f"nothing to do: {start} of {training.train_steps} steps are done", flush=True)
        return model

    batches = _step_batches(dataset, model, training, start)
    images_per_step = training.batch_size * model.batches_per_step
    writers = {name: tf.summary.create_file_writer(f"{workdir}/tensorboard/{name}") for name in ("train", "validation")}
    saver = callbacks.Saver(checkpoints, training.checkpoint_every, training.train_steps)
    players = [player.name for player in model.players()]
    bound = f"{model.trained_bound}_bits_per_dim"
    shown = {bound: bound} | {f"{player}/loss": f"{player} loss" for player in players}
    try:
        model.fit(
            batches,
            epochs=1,
            steps_per_epoch=training.train_steps - start,
            verbose=0,
            callbacks=[
                callbacks.FiniteGuard(),
                callbacks.Progress(training.train_steps, images_per_step, shown),
                callbacks.Balance(training.log_every),
                callbacks.Scalars(writers["train"], training.log_every, images_per_step),
                callbacks.Evaluation(workdir, dataset, training, writers["validation"], checkpoints),
                saver,
            ],
        )
    except (OSError, tf.errors.OpError) as error:
        raise _in_a_line(error, workdir) or error from error
    finally:
        saver.restore_handlers()
        for writer in writers.values():
            writer.close()
    return model


def _in_a_line(error, workdir):
    """The UserError that says what a broken image or a full disk did in the middle of a run; None for other errors."""
    if isinstance(error, OSError) or "No space left" in str(error):
        reason = getattr(error, "strerror", None) or "No space left on device"
        return UserError(
            f"workdir {workdir}: cannot be written: {reason}; the checkpoints in it are untouched; make room and run the "
            "same command again"
        )
    return data.user_error(error)


def compile_model(model, training):
    """Gives `model` the optimizers that a TrainingConfig describes; call it under the strategy's scope.

    Raises:
        UserError: learning_rate_drops with another number of lists than the model has stages.
    """
    count, drops = len(model.stage_starts), training.drops()
    if len(drops) not in (1, count):
        raise UserError(
            f"learning_rate_drops: expected one list, or one for each of the {count} stage(s) of {model.name} as configured, "
            f"received {len(drops)}: {training.learning_rate_drops!r}"
        )
    drops = drops * count if len(drops) == 1 else drops
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
        # An optimizer counts its updates: one for each turn.
        rate = LearningRate(
            rate,
            num_steps * player.turns,
            training.warmup_steps * player.turns,
            training.learning_rate_schedule,
            drops,
            training.learning_rate_decay ** (1.0 / player.turns),
            training.learning_rate_floor,
        )
    return kind(rate, beta_1=training.beta_1, beta_2=training.beta_2, name=f"{player.name}_optimizer")


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
