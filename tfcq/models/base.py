"""The contract of a generative model, and the one `train_step`.

A system subclasses `GenerativeModel`, makes its networks in `__init__` (all weights, so `built` is true), and offers:

* `players()`: who is trained, in which order, how often. A player owns variables and one optimizer; each of its objectives
  is a loss of one value per example together with the variables that may feel it. Where a loss must pass *through* a
  network without training it, the network's variables are simply not in that objective.
* what it can do of `sample`, `elbo_terms`, `log_prob`, `encode`, `decode`, `reconstruct`, and `abilities` that names those.
* `share`: what several losses of one step need, such as the generated images that the discriminator and its generator both
  look at. It is computed once at the start of the step; a loss whose gradient passes through it costs no second pass.

The trainer below walks the players, means over the batch, scales for replicas, sums the objectives' gradients, guards
against values that are not finite, keeps the running mean of the weights, and logs. No system repeats it.
"""

import dataclasses
from collections.abc import Callable

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfcq.errors import UserError
from tfcq.models.averages import WeightAverages
from tfcq.randomness import StepNoise


@dataclasses.dataclass
class Terms:
    """What an objective returns.

    Attributes:
        total: float32 [N], nats; what is minimised.
        logs: {name: float32 [N] or scalar}, for TensorBoard; batch means are shown.
    """

    total: tf.Tensor
    logs: dict


@dataclasses.dataclass(frozen=True)
class Objective:
    """A loss and the variables whose gradient it gives.

    Attributes:
        loss: function (images uint8 [N, H, W, C], noise, shared) -> Terms; `shared` is what the model's `share` gave.
        variables: Keras variables, each one of the player's.
    """

    loss: Callable
    variables: list


@dataclasses.dataclass(frozen=True)
class Player:
    """Who is trained: a name for logs and optimizer, objectives whose gradients add up, and turns in each step."""

    name: str
    objectives: list
    turns: int = 1

    @property
    def variables(self):
        """Each variable of the objectives once, in their order."""
        return list(
            {id(variable): variable for objective in self.objectives for variable in objective.variables}.values()
        )


class GenerativeModel(keras.Model):
    """Base of every system.

    Args:
        image_shape: (H, W, C) of its images.
        seed: int, of the noise of training; with the step number it decides every draw.
    """

    def __init__(self, image_shape, seed=0, name=None):
        super().__init__(name=name)
        self.image_shape = tuple(image_shape)
        self.seed = int(seed)
        # How many steps were taken: in the checkpoint, so that noise and schedules go on where they stopped.
        self.step = self.add_weight(
            name="step", shape=(), dtype="int32", initializer="zeros", trainable=False, aggregation="only_first_replica"
        )
        self.player_optimizers = {}
        self.averages = None
        self._jit_players = False
        self._clip_norm = 0.0

    # What a system offers.

    def players(self):
        """list of Player, in the order of their turns."""
        raise NotImplementedError

    @property
    def abilities(self):
        """frozenset of what can be asked of this model: sample, likelihood, encode, decode, reconstruct."""
        raise NotImplementedError

    def share(self, noise):
        """Tensors (any structure of them) for all losses of a step, of N rows each; none by default.

        They are made of the weights that the step begins with: what they depend on is best trained by the step's last
        player. Where a player takes k turns, the first k - 1 get tensors of their own and the last the step's.
        """
        return ()

    def initialize(self, images):
        """Sets what depends on data (uint8 [N, H, W, C]) before the first step; nothing by default."""

    def sample(self, seeds, temperature=1.0):
        """Images uint8 [N, H, W, C], one for each row of `seeds` (int32 [N, 2]).

        `temperature` (float or [N]) multiplies the standard deviation of the prior.
        """
        raise self.cannot("sample")

    def elbo_terms(self, images, seeds):
        """The evidence lower bound of log P(images), one draw decided by `seeds`, and what it is made of.

        Returns:
            {"elbo": float32 [N], nats per 8-bit image, and other names: float32 [N], nats}.
        """
        raise self.cannot("likelihood")

    def elbo(self, images, seeds):
        """Evidence lower bound of log P(images), float32 [N], nats per 8-bit image; one draw, decided by `seeds`."""
        return self.elbo_terms(images, seeds)["elbo"]

    def log_prob(self, images, seeds, num_importance_samples=1):
        """Estimate of log P(images), float32 [N], nats per 8-bit image (uint8 [N, H, W, C]); noise decided by `seeds`."""
        raise self.cannot("likelihood")

    def encode(self, images, seeds):
        """Latents float32 [N, ...] of images."""
        raise self.cannot("encode")

    def decode(self, latents):
        """Images uint8 [N, H, W, C] of latents."""
        raise self.cannot("decode")

    def reconstruct(self, images, seeds):
        """Images encoded, then decoded: uint8 [N, H, W, C]."""
        return self.decode(self.encode(images, seeds))

    def cannot(self, ability):
        """The error that says that this model lacks `ability`, and what it has."""
        return UserError(f"{self.name} (as configured) cannot {ability}; it can: {', '.join(sorted(self.abilities))}")

    # Training.

    def compile(self, optimizers, jit_compile=False, clip_norm=0.0, ema_decay=0.0, **kwargs):
        """Gives each player its optimizer, built now so that a checkpoint restores its slots.

        Args:
            optimizers: {player name: keras optimizer}, one for each player.
            jit_compile: compile losses and gradients (not the updates) with XLA.
            clip_norm: a player's gradient is scaled down to this norm; 0: never.
            ema_decay: of the running mean of the trained weights, `averages`; 0: none is kept.

        Raises:
            ValueError: names that are not the players'.
        """
        players = {player.name: player for player in self.players()}
        if players.keys() != optimizers.keys():
            raise ValueError(f"compile: expected optimizers for {sorted(players)}, received {sorted(optimizers)}")
        scaled = self.dtype_policy.name == "mixed_float16"
        for name, player in players.items():
            optimizer = keras.optimizers.LossScaleOptimizer(optimizers[name]) if scaled else optimizers[name]
            optimizer.build(player.variables)
            self.player_optimizers[name] = optimizer
        self._jit_players, self._clip_norm = jit_compile, clip_norm
        self.averages = WeightAverages(self.trainable_variables, ema_decay) if ema_decay else None
        super().compile(
            optimizer=list(self.player_optimizers.values())[-1], jit_compile=False, auto_scale_loss=False, **kwargs
        )

    def fit(self, x, **kwargs):
        """Keras's fit on a tf.data.Dataset of uint8 batches (see `batches_per_step`); a new model is initialised first."""
        if self.steps_taken == 0:
            images = next(iter(x.take(1)))
            self.initialize(images[:, 0] if images.shape.rank == 5 else images)
            if self.averages:
                self.averages.restart()
        return super().fit(x, **({"shuffle": False} | kwargs))  # the data set has its order

    @property
    def steps_taken(self):
        """int, the value of `step`; asked outside of a step. With several replicas a variable has no int() of its own."""
        return int(self.step.value.numpy())

    @property
    def batches_per_step(self):
        """k: each player's turn wants images of its own, so a step takes uint8 [N, k, H, W, C], or [N, H, W, C] for k = 1."""
        return max(player.turns for player in self.players())

    def train_step(self, images):
        """One step on the images of this replica: every player's turns. Returns {"player/term": scalar} of this replica."""
        logs, players, step = {}, self.players(), self.step.value
        shared, tape = self._shared(players, self._noise((step, len(players), 0), images.shape[0]))
        for number, player in enumerate(players):
            for turn in range(player.turns):
                batch, path = images[:, turn] if images.shape.rank == 5 else images, (step, number, turn)
                if turn < player.turns - 1:
                    own = self._shared([], self._noise((*path, 1), images.shape[0]))
                    logs |= self._take_turn(player, batch, path, *own)
                else:
                    logs |= self._take_turn(player, batch, path, shared, tape)
        self.step.assign_add(1)
        return logs

    def _noise(self, path, num_rows):
        """The noise of this replica's rows."""
        context = tf.distribute.get_replica_context()
        replicas, number = context.num_replicas_in_sync, context.replica_id_in_sync_group
        return StepNoise((self.seed, 0), path, num_rows, number * num_rows, replicas * num_rows)

    def _shared(self, players, noise):
        """What `share` gives, and the tape that knows how it depends on the players' variables."""
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch([variable.value for player in players for variable in player.variables])
            share = tf.function(lambda: self.share(noise), jit_compile=True) if self._jit_players else self.share
            shared = share() if self._jit_players else share(noise)
        return shared, tape

    def _take_turn(self, player, images, path, shared=(), tape=None):
        context = tf.distribute.get_replica_context()
        replicas = context.num_replicas_in_sync
        optimizer = self.player_optimizers[player.name]
        scale = optimizer.scale_loss(1.0) if isinstance(optimizer, keras.optimizers.LossScaleOptimizer) else 1.0

        def compute(images, shared, scale, *path):
            return self._gradients(player, images, self._noise(path, images.shape[0]), scale / replicas, shared)

        if self._jit_players:
            compute = tf.function(compute, jit_compile=True)
        gradients, slopes, logs = compute(images, shared, scale, *path)
        gradients = self._pass_through(player, gradients, slopes, shared, tape)
        if replicas > 1:
            gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        norm = tf.linalg.global_norm(gradients) / scale
        finite = tf.math.is_finite(logs["loss"])
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            finite &= scale >= 1.0  # it skips steps that overflow; one that overflows at this scale is no overflow
        else:
            finite &= tf.math.is_finite(norm)
        if self._clip_norm:
            gradients = [gradient * tf.minimum(1.0, self._clip_norm / norm) for gradient in gradients]
        # Keras's optimizers sum over replicas what is summed already.
        optimizer.apply(
            [gradient / replicas for gradient in gradients] if replicas > 1 else gradients, player.variables
        )
        logs |= {"gradient_norm": norm, "finite": tf.cast(finite, tf.float32)}
        return {f"{player.name}/{name}": value for name, value in logs.items()}

    def _gradients(self, player, images, noise, scale, shared=()):
        """Gradients of scale * mean loss, and the batch means of the terms.

        Returns:
            For each of the player's variables its gradient with `shared` held fixed, None where there is none; for each
            objective the gradients for the tensors of `shared`; the logs.
        """
        gradients, slopes, logs, loss = {}, [], {}, 0.0
        tensors = tf.nest.flatten(shared)
        for objective in player.objectives:
            values = [variable.value for variable in objective.variables]
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch([values, tensors])
                terms = objective.loss(images, noise, shared)
                mean = tf.reduce_mean(terms.total)
                scaled = mean * scale
            direct, through = tape.gradient(scaled, [values, tensors])
            slopes.append(through)
            for variable, gradient in zip(objective.variables, direct, strict=True):
                _add(gradients, variable, gradient)
            loss += mean
            logs |= {name: tf.reduce_mean(value) for name, value in terms.logs.items()}
        return [gradients.get(id(variable)) for variable in player.variables], slopes, logs | {"loss": loss}

    @staticmethod
    def _pass_through(player, gradients, slopes, shared, tape):
        """Adds to `gradients` what each objective's variables feel through `shared`."""
        total = {id(variable): value for variable, value in zip(player.variables, gradients) if value is not None}
        tensors = tf.nest.flatten(shared)
        for objective, through in zip(player.objectives, slopes, strict=True):
            felt = [(tensor, slope) for tensor, slope in zip(tensors, through) if slope is not None]
            if felt:
                values = [variable.value for variable in objective.variables]
                outputs, slope = zip(*felt)
                for variable, gradient in zip(objective.variables, tape.gradient(list(outputs), values, list(slope))):
                    _add(total, variable, gradient)
        missing = [variable.path for variable in player.variables if id(variable) not in total]
        if missing:
            raise ValueError(f"player {player.name}: no gradient reaches {', '.join(missing)}")
        return [total[id(variable)] for variable in player.variables]

    def make_train_function(self, force=False):
        """Keras's hook, so that replicas' logs are meaned (Keras 3's own function cannot run several replicas' steps)."""
        if self.train_function is not None and not force:
            return self.train_function
        # TensorFlow 2.21's dependency optimizer drops control edges of graphs as large as a step's: reads of the flow's and
        # the discriminator's weights then race with the updates of the same step.
        tf.config.optimizer.set_experimental_options({"dependency_optimization": False})
        strategy = self.distribute_strategy

        def step(iterator):
            logs = strategy.run(self.train_step, args=(next(iterator),))
            if self.averages:
                self.averages.update(self.step.value)
            if strategy.num_replicas_in_sync == 1:
                return logs
            return {name: strategy.reduce("MEAN", value, axis=None) for name, value in logs.items()}

        self.train_function = step if self.run_eagerly else tf.function(step, reduce_retracing=True)
        return self.train_function


def _add(gradients, variable, gradient):
    """Adds `gradient`, if there is one, to what `gradients` ({id: tensor}) has of `variable`."""
    if gradient is not None:
        known = gradients.get(id(variable))
        gradients[id(variable)] = gradient if known is None else known + gradient


def log_mean_exp(log_weight, count, shape):
    """log of the mean over k of exp(log_weight(k)), one k at a time: memory does not grow with their number.

    Args:
        log_weight: function of a scalar int tensor k to float32 tensors of `shape`.
        count: how many k, from 0 on: int or scalar int tensor.
        shape: int tensor.
    """
    count = tf.convert_to_tensor(count, tf.int32)

    def add(k, log_sum):
        return k + 1, tfp.math.log_add_exp(log_sum, log_weight(k))

    start = (tf.constant(0), tf.fill(shape, tf.constant(-float("inf"))))
    _, log_sum = tf.while_loop(lambda k, _: k < count, add, start, parallel_iterations=1)
    return log_sum - tf.math.log(tf.cast(count, tf.float32))
