"""The contract of a generative model, and the one `train_step`.

A system subclasses `GenerativeModel`, makes its networks in `__init__` (all weights, so `built` is true), and offers:

* `players()`: who is trained, in which order, how often. A player owns variables and one optimizer; each of its objectives
  is a loss of one value per example together with the variables that may feel it. Where a loss must pass *through* a
  network without training it, the network's variables are simply not in that objective.
* what it can do of `sample`, `elbo_terms` and `log_prob`, `latent_likelihood`, `encode`, `decode`, `reconstruct`,
  `interpolate`, `super_resolve`, ..., and `abilities` that names those.
* `stage_starts`: where training has stages, the step at which each begins; a player belongs to one of them.
* `attach`, `begin_step`, `settle`: hooks of what is not learned from a batch by gradients (a mixture that is fitted, codes of
  training images, a matching that is made anew each epoch).
* `share`: what several losses of one step need, such as the generated images that the discriminator and its generator both
  look at. It is computed once at the start of the step; a loss whose gradient passes through it costs no second pass.

The trainer below walks the players, means over the batch, scales for replicas, sums the objectives' gradients, guards
against values that are not finite, keeps the running mean of the weights, and logs. No system repeats it.
"""

import contextlib
import dataclasses
from collections.abc import Callable

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfcq.errors import UserError
from tfcq.models import interpolation
from tfcq.models.averages import WeightAverages
from tfcq.randomness import StepNoise

ABILITIES = (
    "sample",
    "likelihood",
    "latent_likelihood",
    "encode",
    "decode",
    "reconstruct",
    "generative_reconstruct",
    "interpolate",
    "super_resolve",
)
"""What can be asked of models; each is an endpoint too."""


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
        loss: function (images uint8 [N, H, W, C], noise, shared) -> Terms; `shared` is what the model's `share` gave. With
            `needs_indices` of the model `images` is a pair: the images, and int64 [N], their numbers in the train split.
        variables: Keras variables, each one of the player's.
    """

    loss: Callable
    variables: list


@dataclasses.dataclass(frozen=True)
class Player:
    """Who is trained.

    Attributes:
        name: for logs and optimizer.
        objectives: list of Objective; their gradients add up.
        turns: in each step.
        stage: of training, in which it plays; see `GenerativeModel.stage_starts`.
    """

    name: str
    objectives: list
    turns: int = 1
    stage: int = 0

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
        self._settled_at = None
        self._next_step = 0  # as `step`, but known outside of the graph
        self._jit_players = False
        self._clip_norm = 0.0

    # What a system offers.

    needs_indices = False
    """Whether a step takes (images, their numbers in the train split int64 [N]) instead of images alone."""

    def players(self):
        """list of Player of all stages, in the order of their turns."""
        raise NotImplementedError

    @property
    def stage_starts(self):
        """tuple of ints: the step at which each stage of training begins, the first 0."""
        return (0,)

    def averaged_variables(self):
        """The weights that a running mean is kept of, the same ones before and after `attach`; all by default."""
        return self.trainable_variables

    def attach(self, dataset, batch_size):
        """Called before `compile` where the model is to be trained; nothing by default.

        Here a model makes what it needs while it is trained and never after, such as a code of each training image.

        Args:
            dataset: `tfcq.data.ImageDataset`.
            batch_size: images of a step, over all replicas.
        """

    def begin_step(self, step):
        """Called outside of the graph before step number `step` (from 0); nothing by default."""

    def fit_to_data(self):
        """Brings up to date what is fitted to the attached data instead of learned by gradients; nothing by default.

        It must follow from weights and data alone. Called by `settle`.

        Returns:
            Whether a weight may have changed.
        """
        return False

    @property
    def abilities(self):
        """frozenset of what can be asked of this model, out of `ABILITIES`."""
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

    def generative_reconstruct(self, images, seeds):
        """Images of what a model's first stage keeps of images, the rest being generated: uint8 [N, H, W, C]."""
        raise self.cannot("generative_reconstruct")

    def super_resolve(self, compressed, seeds):
        """Images uint8 [N, H, W, C] of compressed ones, uint8 [N, *compressed_shape]."""
        raise self.cannot("super_resolve")

    def latent_likelihood(self, images, seeds):
        """{"latent_log_prob", "reconstruction_error"}, float32 [N] each, of models that are no density of images."""
        raise self.cannot("latent_likelihood")

    def noise_of(self, latents):
        """The noise that latents [N, *latent_shape] are made of, where the model makes them of noise; else themselves."""
        return latents

    def latents_of(self, noise):
        """Inverse of `noise_of`."""
        return noise

    def interpolate(self, images, other_images, share, spherical, seeds):
        """Images between two images: a way between their noise (`noise_of` their latents), decoded.

        Args:
            images, other_images: uint8 [N, H, W, C].
            share: float32 [N], where on the way: 0 at the first, 1 at the other.
            spherical: bool [N]; False: a straight way; True: Shoemake's (1985), along a great circle where both have one
                length.
            seeds: int32 [N, 2], of what is random in `encode`.

        Returns:
            uint8 [N, H, W, C].
        """
        self.require("interpolate")
        ends = [self.noise_of(self.encode(one, seeds)) for one in (images, other_images)]
        return self.decode(self.latents_of(interpolation.between(*ends, share, spherical)))

    def require(self, ability):
        """Raises the UserError of `cannot` where this model lacks `ability`."""
        if ability not in self.abilities:
            raise self.cannot(ability)

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
        self.averages = WeightAverages(self.averaged_variables(), ema_decay) if ema_decay else None
        super().compile(
            optimizer=list(self.player_optimizers.values())[-1], jit_compile=False, auto_scale_loss=False, **kwargs
        )

    def fit(self, x, **kwargs):
        """Keras's fit on a tf.data.Dataset of uint8 batches (see `batches_per_step`); a new model is initialised first."""
        if self.steps_taken == 0:
            images = tf.nest.flatten(next(iter(x.take(1))))[0]
            self.initialize(images[:, 0] if images.shape.rank == 5 else images)
            if self.averages:
                self.averages.restart()
        self._next_step = self.steps_taken
        return super().fit(x, **({"shuffle": False} | kwargs))  # the data set has its order

    def settle(self):
        """Makes the model whole for an evaluation or a checkpoint: `fit_to_data`, once for each step that asks for it.

        Returns:
            Whether a weight may have changed.
        """
        step = self.steps_taken
        if self._settled_at == step:
            return False
        with self.served_weights():
            changed = self.fit_to_data()
        self._settled_at = step
        return changed

    def served_weights(self):
        """A context in which the weights are those that would be served: the running mean, where one is kept."""
        return self.averages.in_place() if self.averages and self.steps_taken else contextlib.nullcontext()

    def stage_at(self, step):
        """The number of the stage that step number `step` (from 0) belongs to."""
        return sum(step >= start for start in self.stage_starts) - 1

    @property
    def steps_taken(self):
        """int, the value of `step`; asked outside of a step. With several replicas a variable has no int() of its own."""
        return int(self.step.value.numpy())

    @property
    def batches_per_step(self):
        """k: each player's turn wants images of its own, so a step takes uint8 [N, k, H, W, C], or [N, H, W, C] for k = 1.

        The same holds for the indices of `needs_indices`.
        """
        return max(player.turns for player in self.players())

    def train_step(self, batch, stage=0):
        """One step of a stage on the images of this replica: every player's turns.

        Args:
            batch: see `batches_per_step` and `needs_indices`.
            stage: int.

        Returns:
            {"player/term": scalar} of this replica.
        """
        step, several = self.step.value, self.batches_per_step > 1
        players = [player for player in self.players() if player.stage == stage]
        logs, num_rows = {}, _num_rows(batch)
        shared, tape = self._shared(players, self._noise((step, len(players), 0), num_rows))
        for number, player in enumerate(players):
            for turn in range(player.turns):
                images = tf.nest.map_structure(lambda part, turn=turn: part[:, turn], batch) if several else batch
                path = (step, number, turn)
                if turn < player.turns - 1:
                    own = self._shared([], self._noise((*path, 1), num_rows))
                    logs |= self._take_turn(player, images, path, *own)
                else:
                    logs |= self._take_turn(player, images, path, shared, tape)
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
        num_rows = _num_rows(images)
        context = tf.distribute.get_replica_context()
        replicas = context.num_replicas_in_sync
        optimizer = self.player_optimizers[player.name]
        scale = optimizer.scale_loss(1.0) if isinstance(optimizer, keras.optimizers.LossScaleOptimizer) else 1.0

        def compute(images, shared, scale, *path):
            return self._gradients(player, images, self._noise(path, num_rows), scale / replicas, shared)

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

        def step(iterator, stage):
            logs = strategy.run(self.train_step, args=(next(iterator), stage))
            if self.averages:
                self.averages.update(self.step.value)
            if strategy.num_replicas_in_sync == 1:
                return logs
            return {name: strategy.reduce("MEAN", value, axis=None) for name, value in logs.items()}

        traced = step if self.run_eagerly else tf.function(step, reduce_retracing=True)
        self._next_step = self.steps_taken

        def next_step(iterator):
            number, self._next_step = self._next_step, self._next_step + 1
            self.begin_step(number)
            return traced(iterator, self.stage_at(number))

        self.train_function = next_step
        return self.train_function


def _num_rows(batch):
    """N of images [N, ...], alone or with their indices."""
    return tf.nest.flatten(batch)[0].shape[0]


def _add(gradients, variable, gradient):
    """Adds `gradient`, if there is one, to what `gradients` ({id: tensor}) has of `variable`."""
    if gradient is not None:
        gradient = tf.convert_to_tensor(gradient)  # a gather's is sparse
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
