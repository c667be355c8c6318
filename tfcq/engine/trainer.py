"""Who is trained, and the one `train_step`.

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

The trainer below walks the players, means over the batch (part by part where it is to fit into memory), scales for replicas,
sums the objectives' gradients, guards against values that are not finite, keeps the running mean of the weights, and logs. No
system repeats it.
"""

import contextlib

import keras
import tensorflow as tf

from tfcq.engine.averages import WeightAverages
from tfcq.engine.players import BalanceWarning
from tfcq.networks.normalization import statistics_of
from tfcq.randomness import StepNoise


def of_all_replicas(rows):
    """[M, d] of all replicas from this one's [N, d]: a statistic of a batch must not depend on how it is split."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return rows
    return context.all_gather(rows, axis=0)


class Trainer(keras.Model):
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

    def compile(self, optimizers, jit_compile=False, clip_norm=0.0, ema_decay=0.0, micro_batches=1, **kwargs):
        """Gives each player its optimizer, built now so that a checkpoint restores its slots.

        Args:
            optimizers: {player name: keras optimizer}, one for each player.
            jit_compile: compile losses and gradients (not the updates) with XLA.
            clip_norm: a player's gradient is scaled down to this norm; 0: never.
            ema_decay: of the running mean of the trained weights, `averages`; 0: none is kept.
            micro_batches: parts, one after the other, in which a replica's batch goes through a player's losses.

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
        self._jit_players, self._clip_norm, self.micro_batches = jit_compile, clip_norm, micro_batches
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
            {"player/term" or name of a measure of the model: scalar} of this replica.
        """
        step, several = self.step.value, self.batches_per_step > 1
        players = [player for player in self.players() if player.stage == stage]
        if _num_rows(batch) % self.micro_batches:
            raise ValueError(f"micro_batches={self.micro_batches}: expected a divisor of {_num_rows(batch)}, a replica's images")

        def images_of(turn):
            return tf.nest.map_structure(lambda part: part[:, turn], batch) if several else batch

        path_of_all, in_parts, shares = (step, len(players), 0), self.micro_batches > 1, any(one.shares for one in players)
        shared, tape, kept = (), None, None
        if in_parts and shares and len(players) > 1:
            kept = self._kept(images_of(0), path_of_all)
        elif shares and not in_parts:
            shared, tape = self._shared(players, images_of(0), self._noise(path_of_all, _num_rows(batch)))
        logs = {}
        for number, player in enumerate(players):
            for turn in range(player.turns):
                images, path, last = images_of(turn), (step, number, turn), turn == player.turns - 1
                if in_parts:
                    source = ([player], images_of(0), path_of_all, kept if number else None)
                    own = ([], images, (*path, 1), None)
                    logs |= self._update(player, *self._felt_in_parts(player, images, path, *(source if last else own)))
                elif last or not player.shares:
                    logs |= self._take_turn(player, images, path, shared, tape)
                else:
                    own = self._shared([], images, self._noise((*path, 1), _num_rows(images)))
                    logs |= self._take_turn(player, images, path, *own)
        self.step.assign_add(1)
        return logs

    def _noise(self, path, num_rows, part=0):
        """The noise of this replica's rows, `num_rows` in each of its parts."""
        context = tf.distribute.get_replica_context()
        replicas, number, parts = context.num_replicas_in_sync, context.replica_id_in_sync_group, self.micro_batches
        return StepNoise((self.seed, 0), path, num_rows, (number * parts + part) * num_rows, replicas * parts * num_rows)

    def _shared(self, players, images, noise, kept=None):
        """What `share` gives, and the tape that knows how it depends on the players' variables."""
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch([variable.value for player in players for variable in player.variables])
            if self._jit_players:
                shared = tf.function(lambda images: self.share(images, noise, kept), jit_compile=True)(images)
            else:
                shared = self.share(images, noise, kept)
        return shared, tape

    def _take_turn(self, player, images, path, shared=(), tape=None):
        return self._update(player, *self._felt(player, images, path, shared, tape))

    def _felt(self, player, images, path, shared, tape, part=0):
        """This replica's share of a player's gradients, times the scale of its optimizer, and the logs.

        With several parts it is that of part number `part`, whose images and shared tensors these are.
        """
        num_rows, parts = _num_rows(images), self.micro_batches
        scale = self._scale(player) / (tf.distribute.get_replica_context().num_replicas_in_sync * parts)

        def compute(images, shared, scale, part, *path):
            return self._gradients(player, images, self._noise(path, num_rows, part), scale, shared)

        if self._jit_players:
            compute = tf.function(compute, jit_compile=True)
        gradients, slopes, logs = compute(images, shared, scale, part, *path)
        return self._pass_through(player, gradients, slopes, shared, tape), logs

    def _felt_in_parts(self, player, images, path, feeling, shared_images, shared_path, kept):
        """As `_felt`, part by part, each with shared tensors of its own: memory is that of one part.

        Through shared tensors the variables of `feeling` (players) are felt, made of these images and this noise.
        """
        parts = self.micro_batches

        def felt(part):
            images_of_part, shared, tape = _part(images, part, parts), (), None
            with statistics_of(player.variables, 1.0 / parts):
                if player.shares:
                    noise = self._noise(shared_path, _num_rows(images_of_part), part)
                    kept_of_part = None if kept is None else tf.nest.map_structure(lambda tensor: tensor[part], kept)
                    shared, tape = self._shared(feeling, _part(shared_images, part, parts), noise, kept_of_part)
                return self._felt(player, images_of_part, path, shared, tape, part)

        gradients, logs = _sum_of_parts(felt, parts)
        return gradients, {name: value / parts for name, value in logs.items()}

    def _kept(self, images, path):
        """What `keep` gives for all parts: tensors [parts, rows of a part, ...]; None where it keeps nothing."""
        parts = self.micro_batches

        def keep(part):
            images_of_part = _part(images, part, parts)
            return self.keep(images_of_part, self._noise(path, _num_rows(images_of_part), part))

        first = keep(tf.constant(0))
        if not tf.nest.flatten(first):
            return None
        if tf.distribute.get_replica_context().num_replicas_in_sync > 1:
            rows = [first, *(keep(tf.constant(part)) for part in range(1, parts))]
            return tf.nest.map_structure(lambda *tensors: tf.stack(tensors), *rows)
        specs = tf.nest.map_structure(tf.type_spec_from_value, first)
        return tf.map_fn(keep, tf.range(parts), fn_output_signature=specs, parallel_iterations=1)

    def _scale(self, player):
        """What a player's optimizer multiplies its loss by: 1.0 but in float16."""
        optimizer = self.player_optimizers[player.name]
        return optimizer.scale_loss(1.0) if isinstance(optimizer, keras.optimizers.LossScaleOptimizer) else 1.0

    def _update(self, player, gradients, logs):
        """Moves a player by the sum of all replicas' gradients; returns the logs under its name, measures under their own."""
        context = tf.distribute.get_replica_context()
        replicas = context.num_replicas_in_sync
        optimizer, scale = self.player_optimizers[player.name], self._scale(player)
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
        return {name[1:] if name.startswith("/") else f"{player.name}/{name}": value for name, value in logs.items()}

    def _gradients(self, player, images, noise, scale, shared=()):
        """Gradients of scale * mean loss, and the batch means of the terms.

        Returns:
            For each of the player's variables its gradient with `shared` held fixed, None where there is none; for each
            objective the gradients for the tensors of `shared`; the logs, names of measures behind a "/".
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
            measures = {f"/{name}": value for name, value in terms.measures.items()}
            logs |= {name: tf.reduce_mean(value) for name, value in (terms.logs | measures).items()}
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


def _part(batch, part, parts):
    """Part number `part` of `parts` of the rows of images [N, ...], alone or with their indices."""
    size = _num_rows(batch) // parts

    def rows(tensor):
        return tf.slice(tensor, [part * size] + [0] * (tensor.shape.rank - 1), [size, *tensor.shape[1:]])

    return tf.nest.map_structure(rows, batch)


def _sum_of_parts(function, parts):
    """The sum of what `function` gives for part 0 to `parts` - 1, one after the other."""
    total = function(tf.constant(0))
    if tf.distribute.get_replica_context().num_replicas_in_sync > 1:
        # What replicas do together (batch normalisation) has no place in a loop.
        for part in range(1, parts):
            with tf.control_dependencies(tf.nest.flatten(total)):
                total = tf.nest.map_structure(tf.add, total, function(tf.constant(part)))
        return total

    def add(part, *sums):
        return part + 1, *tf.nest.map_structure(tf.add, sums, function(part))

    # The loop needs what the first part gives, so that no two parts run at a time.
    return tf.while_loop(lambda part, *_: part < parts, add, (tf.constant(1), *total), parallel_iterations=1)[1:]


def _add(gradients, variable, gradient):
    """Adds `gradient`, if there is one, to what `gradients` ({id: tensor}) has of `variable`."""
    if gradient is not None:
        gradient = tf.convert_to_tensor(gradient)  # a gather's is sparse
        known = gradients.get(id(variable))
        gradients[id(variable)] = gradient if known is None else known + gradient
