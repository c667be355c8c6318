"""The training of a model: its hooks, optimizers and state.

A system (`tfcq.models.base.GenerativeModel`) defines:

* `players()`: which networks are trained, in which order and how often. A player has objectives and one optimizer, or one for
  each group of its variables. An objective is a loss, with one value per example, and the variables that its gradient trains. If
  a loss must pass *through* a network without training it, the objective leaves out that network's variables.
* `stage_starts`: the steps at which the stages of training begin; each player belongs to one stage.
* `attach`, `begin_step`, `fit_to_data`: hooks for what is not learned from a batch by gradients (a mixture that is fitted, codes
  of training images, a matching that is computed anew each epoch).
* `shared_tensors`: tensors that several losses of a step use, such as the generated images that both the discriminator's and
  the generator's loss need. Without micro-batches they are computed once, at the start of the step; gradients pass through them
  without a second forward pass.

The trainer keeps the optimizers, the step's number and the running mean of the weights; `tfcq.engine.step` is the step itself.
No system repeats either.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from tfcq.engine.averages import WeightAverages
from tfcq.engine.fused_optimizers import use_gradients_as_they_are
from tfcq.engine.players import BalanceWarning, Player
from tfcq.engine.step import Step
from tfcq.engine.workers import Workers
from tfcq.randomness import StepNoise

if TYPE_CHECKING:
    from tfcq.data import ImageDataset


def of_all_replicas(rows: tf.Tensor) -> tf.Tensor:
    """The rows of all replicas, [M, d], from those of this one, [N, d].

    A statistic of a batch is computed from all of them, so that it does not depend on how the batch is split.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return rows
    gathered = context.all_gather(rows, axis=0)
    gathered.set_shape([context.num_replicas_in_sync * rows.shape[0], *rows.shape[1:]])  # between workers it is lost
    return gathered


class Trainer(Step, keras.Model):
    """Base of a model that is trained by `players()`.

    Args:
        seed: seed of the noise of training; together with the step number it decides every draw.
        name: name of the model.
    """

    train_function: Callable[[Any], dict[str, tf.Tensor]] | None
    traced_step: tf.types.experimental.PolymorphicFunction
    """The function (iterator, stage, variant, flags) of a step, from `make_train_function`; see `step_graph`."""

    def __init__(self, seed: int, name: str | None):
        super().__init__(name=name)
        self.seed = int(seed)
        # The number of steps taken is in the checkpoint, so that noise and schedules continue where they stopped.
        self.step = self.add_weight(
            name="step", shape=(), dtype="int32", initializer="zeros", trainable=False, aggregation="only_first_replica"
        )
        self.player_optimizers = {}
        self.averages: WeightAverages | None = None
        self._settled_at: int | None = None
        self._next_step = 0  # equals `step`, but is known outside the graph
        self.workers = Workers(self.distribute_strategy)
        self._jit_players = False
        self._clip_norm = 0.0
        self.micro_batches = 1

    starts_trained = False
    """Whether the first weights are another run's (`init_from`): no data initialises them, and there is no pre-training."""

    stop_training = False
    """Set after a step, it ends Keras's fit there."""

    # Hooks that a system defines.

    needs_indices = False
    """Whether a step takes pairs of images and their numbers in the train split, int64 [N], instead of images alone."""

    class_names: tuple[str, ...] = ()
    """Names of the classes of a model that learns images given their class: a step takes pairs of images and the numbers of their
    classes, int32 [N]; empty: it does not."""

    weights_changed = ""
    """Since when checkpoints of such a model have other weights, if an earlier version's do; empty: they have not."""

    def players(self) -> list[Player]:
        """The players of all stages, in the order of their turns."""
        raise NotImplementedError

    def optimized_variables(self) -> dict[str, list[keras.Variable]]:
        """{name of an optimizer: the variables that it updates}, of all players."""
        return {name: variables for player in self.players() for name, variables in player.optimized().items()}

    @property
    def stage_starts(self) -> tuple[int, ...]:
        """The step at which each stage of training begins; the first is 0."""
        return (0,)

    def inherited_variables(self) -> list[keras.Variable]:
        """The weights that a run takes over from another (`init_from`), before `attach`: by default all but the steps' number."""
        return [variable for variable in self.variables if variable is not self.step]

    def check_inherited(self) -> None:
        """Raises UserError if the model cannot begin with the weights of another run that it has now; does nothing by default."""

    def averaged_variables(self) -> list[keras.Variable]:
        """The weights that have a running mean, the same before and after `attach`; by default all trainable ones."""
        return self.trainable_variables

    def running_means(self, decay: float) -> WeightAverages | None:
        """The running means of `averaged_variables` and of batch normalisation's statistics; None if `decay` is 0."""
        if not decay:
            return None
        statistics = [one for one in self.non_trainable_variables if one.path.endswith(("/moving_mean", "/moving_variance"))]
        return WeightAverages(self.averaged_variables(), decay, statistics)

    def attach(self, dataset: ImageDataset, batch_size: int) -> None:
        """Called before `compile` if the model is to be trained; does nothing by default.

        Here a model creates what it needs only in training, such as a code of each training image.

        Args:
            dataset: the data of the run.
            batch_size: images of a step, over all replicas.
        """

    @property
    def files_read(self) -> dict[str, str]:
        """{"system.OPTION": digest} of the files that `attach` has read and that affect training; none by default."""
        return {}

    def begin_step(self, step: int) -> dict[str, float]:
        """Called outside the graph before step number `step` (from 0); does nothing by default.

        Returns:
            {"player/term": value} to be logged with this step, the same from all workers; usually none.
        """
        return {}

    @property
    def graph_variant(self) -> Hashable:
        """What `begin_step` has decided that is part of a step's graph: each value has a graph of its own; None by default."""
        return None

    def takes_part(self, player: Player) -> bool:
        """Whether a player of the stage has its turns in the step that has begun (`graph_variant` tells); by default it does."""
        return True

    def long_begin_every(self, stage: int) -> int:
        """After how many steps of a stage, from its first one on, `begin_step` does what takes long; 0, also by default: never.

        Who times steps adds its time to that of a step, by its part.
        """
        return 0

    @property
    def training_note(self) -> str | None:
        """A sentence on options that leave a part untrained, known after `attach`; None, also by default: all is well."""
        return None

    def balance_warning(self, logs: dict[str, float]) -> BalanceWarning | None:
        """Returns a warning if the players have lost their balance; None, also by default, if all is well.

        Args:
            logs: {"player/term": float}, means over several steps.
        """
        return None

    def fit_to_data(self) -> bool:
        """Updates what is fitted to the attached data instead of learned by gradients; does nothing by default.

        The result must follow from weights and data alone. Called by `settle`.

        Returns:
            Whether a weight may have changed.
        """
        return False

    def shared_tensors(self, images: Any, noise: StepNoise, kept: Any = None) -> Any:
        """Tensors for all losses of a step, in any structure, with N rows each; none by default.

        They are computed from the weights at the start of the step, so the last player of the step should be the one that
        trains these weights. If a player takes k turns, each of the first k - 1 has shared tensors of its own and the last one
        uses those of the step.

        Args:
            images: uint8 [N, H, W, C] of the turn (or pairs with their numbers); for the step, those of the first turn.
            noise: noise of the step.
            kept: result of `keep` for the same images, computed before earlier players changed the weights; None: nothing was
                kept.
        """
        return ()

    def keep(self, images: Any, noise: StepNoise) -> Any:
        """The small tensors [N, ...] among the shared ones that depend on earlier players' weights; none by default.

        With micro-batches `shared_tensors` is called anew for every player, after earlier players have been updated. These
        tensors are computed once, before, and handed to it. The statistics of batch normalisation must not be changed here.
        """
        return ()

    def initialize(self, images: tf.Tensor) -> None:
        """Sets weights that depend on data (uint8 [N, H, W, C]) before the first step; does nothing by default."""

    # Training.

    def compile(
        self,
        optimizer: dict[str, keras.optimizers.Optimizer],
        jit_compile: bool = False,
        clip_norm: float = 0.0,
        ema_decay: float = 0.0,
        micro_batches: int = 1,
        **kwargs: Any,
    ) -> None:
        """Gives each player its optimizer, built now so that a checkpoint restores its slots.

        Args:
            optimizer: {player's or optimizer group's name: optimizer}, one for each of `optimized_variables`.
            jit_compile: whether losses and gradients (not the updates) are compiled with XLA.
            clip_norm: the norm that a player's gradient is scaled down to if it is larger; 0: never.
            ema_decay: decay of the running mean of the trained weights, `averages`; 0: no mean.
            micro_batches: number of parts in which a replica's batch goes through a player's losses, one after the other.
            **kwargs: further arguments of `keras.Model.compile`.

        Raises:
            ValueError: the names are not those of the players and their groups.
        """
        wanted = self.optimized_variables()
        if wanted.keys() != optimizer.keys():
            raise ValueError(f"compile: expected optimizers for {sorted(wanted)}, received {sorted(optimizer)}")
        scaled = self.dtype_policy.name == "mixed_float16"
        for name, variables in wanted.items():
            own = keras.optimizers.LossScaleOptimizer(optimizer[name]) if scaled else optimizer[name]
            own.build(variables)
            use_gradients_as_they_are(own)
            self.player_optimizers[name] = own
        self._jit_players, self._clip_norm, self.micro_batches = jit_compile, clip_norm, micro_batches
        self.averages = self.running_means(ema_decay)
        super().compile(
            optimizer=list(self.player_optimizers.values())[-1], jit_compile=False, auto_scale_loss=False, **kwargs
        )

    def fit_batches(
        self, batches: tf.data.Dataset, whole: tf.data.Dataset | None = None, **kwargs: Any
    ) -> keras.callbacks.History:
        """Calls Keras's fit with the batches of `tfcq.engine.batches`; first initialises a new model that has no trained weights.

        Args:
            batches: the batches, or this worker's rows of them.
            whole: the whole batches, of which a new model is initialised with the first; None: `batches` are whole.
            **kwargs: arguments of `keras.Model.fit`.
        """
        if self.steps_taken == 0:
            if not self.starts_trained:
                images = tf.nest.flatten(next(iter((whole or batches).take(1))))[0]
                self.initialize(images[:, 0] if images.shape.rank == 5 else images)
            if self.averages:
                self.averages.restart()
        self._next_step = self.steps_taken
        batches = self.workers.distributed(batches)
        return super().fit(batches, **({"shuffle": False} | kwargs))  # the data set is already shuffled

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Passes by Keras's trial of a batch: the model is built, and workers have no collective for uint8 images."""

    def settle(self) -> bool:
        """Prepares the model for an evaluation or a checkpoint: calls `fit_to_data`, at most once after each step.

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

    def served_weights(self) -> contextlib.AbstractContextManager[None]:
        """A context in which the weights are those that would be served: the running mean, if there is one."""
        return self.averages.in_place() if self.averages and self.steps_taken else contextlib.nullcontext()

    def stage_at(self, step: int) -> int:
        """The number of the stage that step number `step` (from 0) belongs to."""
        return sum(step >= start for start in self.stage_starts) - 1

    @property
    def steps_taken(self) -> int:
        """The value of `step`, read outside a step."""
        # With several replicas int(variable) is not defined.
        return int(self.step.value.numpy())

    def make_train_function(self, force: bool = False) -> Callable[[Any], dict[str, tf.Tensor]]:
        """Overrides Keras 3's function, which cannot run the steps of several replicas; averages the replicas' logs."""
        if self.train_function is not None and not force:
            return self.train_function
        # TensorFlow 2.21's dependency optimizer drops control edges of graphs as large as a step's: reads of the flow's and
        # the discriminator's weights then race with the updates of the same step.
        tf.config.optimizer.set_experimental_options({"dependency_optimization": False})
        strategy = self.distribute_strategy

        def step(iterator, stage, variant, flags):
            names: list[str] = []

            def of_replica(batch):
                logs = self.train_step(batch, stage)
                if strategy.num_replicas_in_sync == 1:
                    return logs
                names[:] = logs
                return tf.stack([*(tf.cast(value, tf.float32) for value in logs.values()), *flags])

            logs = strategy.run(of_replica, args=(next(iterator),))
            if self.averages:
                self.averages.update(self.step.value)
            if strategy.num_replicas_in_sync == 1:
                return logs, []
            means = tf.unstack(strategy.reduce("MEAN", logs, axis=None))  # one collective for all
            return dict(zip(names, means)), means[len(names):]

        self.traced_step = step if self.run_eagerly else tf.function(step, autograph=False)
        self._next_step = self.steps_taken

        def next_step(iterator):
            number, self._next_step = self._next_step, self._next_step + 1
            begun = self.begin_step(number)
            logs, flags = self.traced_step(iterator, self.stage_at(number), self.graph_variant, self._flags())
            self.workers.hear(flags)
            return logs | begun

        self.train_function = next_step
        return self.train_function

    def step_graph(self, iterator: Any, stage: int) -> tf.Graph:
        """The graph that runs in a step of a stage, once `make_train_function` has been called."""
        return self.traced_step.get_concrete_function(iterator, stage, self.graph_variant, self._flags()).graph

    def _flags(self):
        return [tf.constant(flag) for flag in self.workers.flags()]  # tensors: other values are no other graph
