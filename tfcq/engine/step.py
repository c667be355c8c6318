"""The one step of training: every player's turns.

It means over the batch (part by part where it is to fit into memory), scales for replicas, sums the objectives' gradients, guards
against values that are not finite, and logs.
"""

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfcq.networks.normalization import statistics_of
from tfcq.randomness import StepNoise


class Origin(NamedTuple):
    """What the shared tensors of a turn in parts are made of."""

    players: list
    """Whose variables are to get gradients through them."""

    images: Any
    path: tuple
    """Of their noise."""

    kept: Any
    """What `keep` gave for all parts; None: nothing was kept."""


class Step:
    """The steps of a `tfcq.engine.trainer.Trainer`."""

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

        take = self._take_turns_in_parts if self.micro_batches > 1 else self._take_turns
        logs = take(players, images_of, step)
        self.step.assign_add(1)
        return logs

    def _take_turns(self, players, images_of, step):
        """Every player's turns; `images_of` gives the images of a turn by its number."""
        shared, tape, logs = (), None, {}
        if any(player.shares for player in players):
            images = images_of(0)
            shared, tape = self._shared(players, images, self._noise((step, len(players), 0), _num_rows(images)))
        for number, player in enumerate(players):
            for turn in range(player.turns):
                images, path = images_of(turn), (step, number, turn)
                if player.shares and turn < player.turns - 1:  # the turns before the last have shared tensors of their own
                    own, own_tape = self._shared([], images, self._noise((*path, 1), _num_rows(images)))
                    logs |= self._take_turn(player, images, path, own, own_tape)
                else:
                    logs |= self._take_turn(player, images, path, shared, tape)
        return logs

    def _take_turn(self, player, images, path, shared, tape):
        gradients, terms = self._turn_gradients(player, images, path, shared, tape)
        return self._update(player, gradients, terms)

    def _take_turns_in_parts(self, players, images_of, step):
        """As `_take_turns`, with each turn's images in `micro_batches` parts, one after the other."""
        path_of_step, kept, logs = (step, len(players), 0), None, {}
        if len(players) > 1 and any(player.shares for player in players):
            kept = self._kept(images_of(0), path_of_step)
        for number, player in enumerate(players):
            for turn in range(player.turns):
                images, path = images_of(turn), (step, number, turn)
                if turn == player.turns - 1:
                    origin = Origin([player], images_of(0), path_of_step, kept if number else None)
                else:
                    origin = Origin([], images, (*path, 1), None)
                gradients, terms = self._turn_gradients_in_parts(player, images, path, origin)
                logs |= self._update(player, gradients, terms)
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

    def _turn_gradients(self, player, images, path, shared, tape, part=0):
        """This replica's part of a player's gradients, times the scale of its optimizer, and the logs.

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

    def _turn_gradients_in_parts(self, player, images, path, origin):
        """As `_turn_gradients`, part by part, each with shared tensors of its own (`Origin`): memory is that of one part."""
        parts = self.micro_batches

        def of_part(part):
            images_of_part, shared, tape = _part(images, part, parts), (), None
            with statistics_of(player.variables, 1.0 / parts):
                if player.shares:
                    noise = self._noise(origin.path, _num_rows(images_of_part), part)
                    kept = None if origin.kept is None else tf.nest.map_structure(lambda tensor: tensor[part], origin.kept)
                    shared, tape = self._shared(origin.players, _part(origin.images, part, parts), noise, kept)
                return self._turn_gradients(player, images_of_part, path, shared, tape, part)

        gradients, logs = _sum_of_parts(of_part, parts)
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
        """Adds to `gradients` those that reach each objective's variables through `shared`."""
        total = {id(variable): value for variable, value in zip(player.variables, gradients) if value is not None}
        tensors = tf.nest.flatten(shared)
        for objective, through in zip(player.objectives, slopes, strict=True):
            reached = [(tensor, slope) for tensor, slope in zip(tensors, through) if slope is not None]
            if reached:
                values = [variable.value for variable in objective.variables]
                outputs, slope = zip(*reached)
                for variable, gradient in zip(objective.variables, tape.gradient(list(outputs), values, list(slope))):
                    _add(total, variable, gradient)
        missing = [variable.path for variable in player.variables if id(variable) not in total]
        if missing:
            raise ValueError(f"player {player.name}: no gradient reaches {', '.join(missing)}")
        return [total[id(variable)] for variable in player.variables]


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
