"""`tfcq.train`: from a Config to a trained workdir."""

import keras
import tensorflow as tf

from tfcq import data, devices, models
from tfcq import workdir as workdirs
from tfcq.checkpoints import Checkpoints
from tfcq.errors import UserError
from tfcq.training import callbacks


def train(config, workdir):
    """Trains until `config.training.train_steps`, or goes on from the workdir's last checkpoint.

    Args:
        config: `tfcq.Config`.
        workdir: folder of the run; made where it is not there.

    Returns:
        The trained model, compiled.

    Raises:
        UserError: wrong data, flags or folder.
        TrainingDiverged: a loss or gradient stopped being finite.
        TrainingInterrupted: SIGTERM or Ctrl-C; the state is saved.
    """
    training = config.training
    distribution = devices.prepare(
        training.distribution, training.logical_devices, training.deterministic, training.batch_size
    )
    dataset = data.load(config.data)
    workdirs.open_for(config, workdir)
    workdirs.write_data_facts(workdir, dataset)
    with distribution.scope():
        model = models.build(config, dataset.image_shape)
        compile_model(model, training)
        checkpoints = Checkpoints(workdir, model, training.keep_checkpoints)
        start = checkpoints.restore()
    print(
        f"{config.model}: {model.count_params():,} weights; {dataset.description}; "
        f"{distribution.num_replicas_in_sync} replica(s); workdir {workdir}"
        + (f"; resumed from step {start}" if start else ""),
        flush=True,
    )
    if start >= training.train_steps:
        print(f"nothing to do: {start} of {training.train_steps} steps are done", flush=True)
        return model

    batches = _step_batches(dataset, model, training, start)
    images_per_step = training.batch_size * model.batches_per_step
    writers = {name: tf.summary.create_file_writer(f"{workdir}/tensorboard/{name}") for name in ("train", "validation")}
    saver = callbacks.Saver(checkpoints, training.checkpoint_every, training.train_steps)
    players = [player.name for player in model.players()]
    shown = {f"{player}/bits_per_dim": "bits_per_dim" for player in players}
    shown |= {f"{player}/loss": f"{player} loss" for player in players}
    try:
        model.fit(
            batches,
            epochs=1,
            steps_per_epoch=training.train_steps - start,
            verbose=0,
            callbacks=[
                callbacks.FiniteGuard(),
                callbacks.Progress(training.train_steps, images_per_step, shown),
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
    """Gives `model` the optimizers that a TrainingConfig describes; call it under the strategy's scope."""
    optimizers = {player.name: _optimizer(training, player) for player in model.players()}
    model.compile(
        optimizers, jit_compile=training.jit_compile, clip_norm=training.clip_norm, ema_decay=training.ema_decay
    )


def _step_batches(dataset, model, training, start):
    """uint8 [batch_size, H, W, C] a step, or [batch_size, k, H, W, C] where a player takes k turns."""
    turns = model.batches_per_step
    batches = dataset.train_batches(training.batch_size * turns, training.seed, start)
    if turns > 1:
        shape = (turns, training.batch_size, *dataset.image_shape)
        batches = batches.map(lambda images: tf.transpose(tf.reshape(images, shape), (1, 0, 2, 3, 4)))
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return batches.with_options(options)


def _optimizer(training, player):
    rate = training.discriminator_learning_rate if player.name == "discriminator" else training.learning_rate
    kind = {"adamax": keras.optimizers.Adamax, "adam": keras.optimizers.Adam}[training.optimizer]
    if training.learning_rate_schedule != "constant" or training.warmup_steps:
        # An optimizer counts its updates: one for each turn.
        rate = LearningRate(
            rate,
            training.train_steps * player.turns,
            training.warmup_steps * player.turns,
            training.learning_rate_schedule,
        )
    return kind(rate, beta_1=training.beta_1, beta_2=training.beta_2, name=f"{player.name}_optimizer")


@keras.saving.register_keras_serializable("tfcq")
class LearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up from 0 over `warmup_steps`, then constant, or a linear or cosine fall to 0 at `total_steps`."""

    def __init__(self, rate, total_steps, warmup_steps, shape):
        self._arguments = {"rate": rate, "total_steps": total_steps, "warmup_steps": warmup_steps, "shape": shape}

    def __call__(self, step):
        rate, total, warmup, shape = self._arguments.values()
        step = tf.cast(step, tf.float32)
        rise = tf.minimum(1.0, (step + 1.0) / (warmup + 1.0))
        done = tf.clip_by_value((step - warmup) / (total - warmup), 0.0, 1.0)
        fall = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + tf.cos(3.141592653589793 * done))}[shape]
        return rate * rise * fall

    def get_config(self):
        return dict(self._arguments)
