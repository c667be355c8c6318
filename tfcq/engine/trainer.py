"""What a model is while it is trained.

A system (`tfcq.models.base.GenerativeModel`) says:

* `players()`: who is trained, in which order, how often. A player owns variables and one optimizer; each of its objectives
  is a loss of one value per example together with the variables that may feel it. Where a loss must pass *through* a
  network without training it, the network's variables are simply not in that objective.
* `stage_starts`: where training has stages, the step at which each begins; a player belongs to one of them.
* `attach`, `begin_step`, `settle`: hooks of what is not learned from a batch by gradients (a mixture that is fitted, codes of
  training images, a matching that is made anew each epoch).
* `share`: what several losses of one step need, such as the generated images that the discriminator and its generator both
  look at. Without micro-batches it is computed once at the start of the step; a loss whose gradient passes through it costs no
  second pass.

The trainer below keeps the optimizers, the step's number and the running mean of the weights; `tfcq.engine.step` is what a step
does. No system repeats it.
"""

import contextlib

import keras
import tensorflow as tf

from tfcq.engine.averages import WeightAverages
from tfcq.engine.players import BalanceWarning
from tfcq.engine.step import Step


def of_all_replicas(rows):
    """[M, d] of all replicas from this one's [N, d]: a statistic of a batch must not depend on how it is split."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return rows
    return context.all_gather(rows, axis=0)


class Trainer(Step, keras.Model):
    """What a model is while it is trained.

    Args:
        seed: int, of the noise of training; with the step number it decides every draw.
        name: of the model.
    """

    def __init__(self, seed, name):
        super().__init__(name=name)
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
        self.micro_batches = 1

    # What a system says.

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

    @property
    def files_read(self):
        """{"system.OPTION": digest} of the files that `attach` has read and that decide training's numbers; none by default."""
        return {}

    def begin_step(self, step):
        """Called outside of the graph before step number `step` (from 0); nothing by default."""

    def balance_warning(self, logs: dict[str, float]) -> BalanceWarning | None:
        """A warning, from the means of some steps' logs {"player/term": float}, where the players have lost their balance.

        None, the default, where all is well.
        """
        return None

    def fit_to_data(self):
        """Brings up to date what is fitted to the attached data instead of learned by gradients; nothing by default.

        It must follow from weights and data alone. Called by `settle`.

        Returns:
            Whether a weight may have changed.
        """
        return False

    def share(self, images, noise, kept=None):
        """Tensors (any structure of them) for all losses of a step, of N rows each; none by default.

        They are made of the weights that the step begins with: what they depend on is best trained by the step's last
        player. Where a player takes k turns, the first k - 1 get tensors of their own and the last the step's.

        Args:
            images: uint8 [N, H, W, C] (or with their numbers) of the turn; the step's are those of the first turn.
            noise: of the step.
            kept: what `keep` gave for the same images, which the weights may have moved on from; None: nothing was kept.
        """
        return ()

    def keep(self, images, noise):
        """Small tensors, [N, ...], of what `share` computes from weights that train before others; none by default.

        With micro-batches every player shares anew, when those before it have moved; with these it shares the same. Statistics
        of batch normalisations stay as they are.
        """
        return ()

    def initialize(self, images):
        """Sets what depends on data (uint8 [N, H, W, C]) before the first step; nothing by default."""

    # Training.

    def compile(self, optimizer, jit_compile=False, clip_norm=0.0, ema_decay=0.0, micro_batches=1, **kwargs):
        """Gives each player its optimizer, built now so that a checkpoint restores its slots.

        Args:
            optimizer: {player name: keras optimizer}, one for each player.
            jit_compile: compile losses and gradients (not the updates) with XLA.
            clip_norm: a player's gradient is scaled down to this norm; 0: never.
            ema_decay: of the running mean of the trained weights, `averages`; 0: none is kept.
            micro_batches: parts, one after the other, in which a replica's batch goes through a player's losses.

        Raises:
            ValueError: names that are not the players'.
        """
        players = {player.name: player for player in self.players()}
        if players.keys() != optimizer.keys():
            raise ValueError(f"compile: expected optimizers for {sorted(players)}, received {sorted(optimizer)}")
        scaled = self.dtype_policy.name == "mixed_float16"
        for name, player in players.items():
            own = keras.optimizers.LossScaleOptimizer(optimizer[name]) if scaled else optimizer[name]
            own.build(player.variables)
            self.player_optimizers[name] = own
        self._jit_players, self._clip_norm, self.micro_batches = jit_compile, clip_norm, micro_batches
        self.averages = WeightAverages(self.averaged_variables(), ema_decay) if ema_decay else None
        super().compile(
            optimizer=list(self.player_optimizers.values())[-1], jit_compile=False, auto_scale_loss=False, **kwargs
        )

    def fit_batches(self, batches, **kwargs):
        """Keras's fit on a tf.data.Dataset of a step's batches (see `tfcq.engine.batches`); a new model is initialised first."""
        if self.steps_taken == 0:
            images = tf.nest.flatten(next(iter(batches.take(1))))[0]
            self.initialize(images[:, 0] if images.shape.rank == 5 else images)
            if self.averages:
                self.averages.restart()
        self._next_step = self.steps_taken
        return super().fit(batches, **({"shuffle": False} | kwargs))  # the data set has its order

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
