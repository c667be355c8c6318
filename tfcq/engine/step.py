"""A training step: every player's turns.

It averages losses over the batch (in parts, to save memory), scales gradients for the replicas, adds the objectives' gradients,
checks that values are finite, and logs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfcq.engine.players import Player
from tfcq.networks import host_variables
from tfcq.networks.normalization import frozen_statistics, statistics_of
from tfcq.randomness import StepNoise


class Origin(NamedTuple):
    """What the shared tensors of a turn in parts are computed from."""

    players: list[Player]
    """The players whose variables get gradients through the shared tensors."""

    images: Any
    path: tuple[Any, ...]
    """The path of their noise."""

    kept: Any
    """The result of `keep` for all parts; None if nothing was kept."""


class Step:
    """The steps of a `tfcq.engine.trainer.Trainer`, which sets these attributes and has these methods."""

    seed: int
    step: keras.Variable
    variables: list[keras.Variable]
    micro_batches: int
    player_optimizers: dict[str, keras.optimizers.Optimizer]
    players: Callable[[], list[Player]]
    takes_part: Callable[[Player], bool]
    shared_tensors: Callable[..., Any]
    keep: Callable[..., Any]
    _jit_players: bool
    _clip_norm: float

    @property
    def batches_per_step(self) -> int:
        """k, the largest number of turns: each turn has images of its own, so a step takes uint8 [N, k, H, W, C].

        For k = 1 a step takes [N, H, W, C]. The same holds for the indices of `needs_indices`.
        """
        return max(player.turns for player in self.players())

    def train_step(self, batch: Any, stage: int = 0) -> dict[str, tf.Tensor]:
        """One step on the images of this replica: the turns of every player of a stage.

        Args:
            batch: see `batches_per_step` and `needs_indices`.
            stage: number of the stage.

        Returns:
            {"player/term", or the name of a measure of the model: scalar} of this replica.
        """
        step, several = host_variables.value_of(self.step), self.batches_per_step > 1
        players = [player for player in self.players() if player.stage == stage and self.takes_part(player)]
        if _num_rows(batch) % self.micro_batches:
            raise ValueError(f"micro_batches={self.micro_batches}: expected a divisor of {_num_rows(batch)}, a replica's images")

        def images_of(turn):
            return tf.nest.map_structure(lambda part: part[:, turn], batch) if several else batch

        take_turns = self._take_turns_in_parts if self.micro_batches > 1 else self._take_turns
        logs = take_turns(players, images_of, step)
        self.step.assign_add(1)
        return logs

    def _take_turns(self, players: list[Player], images_of: Callable[[int], Any], step: tf.Tensor) -> dict[str, tf.Tensor]:
        """Takes every player's turns; `images_of(turn)` are the images of a turn."""
        shared, tape = (), None
        logs: dict[str, tf.Tensor] = {}
        if any(player.uses_shared_tensors for player in players):
            images = images_of(0)
            shared, tape = self._shared(players, images, self._noise((step, len(players), 0), _num_rows(images)))
        for number, player in enumerate(players):
            for turn in range(player.turns):
                images, path = images_of(turn), (step, number, turn)
                if player.uses_shared_tensors and turn < player.turns - 1:  # these turns have shared tensors of their own
                    own, own_tape = self._shared([], images, self._noise((*path, 1), _num_rows(images)))
                    logs |= self._take_turn(player, images, path, own, own_tape)
                else:
                    logs |= self._take_turn(player, images, path, shared, tape)
        return logs

    def _take_turn(
        self, player: Player, images: Any, path: tuple[Any, ...], shared: Any, tape: tf.GradientTape | None
    ) -> dict[str, tf.Tensor]:
        gradients, terms = self._turn_gradients(player, images, path, shared, tape)
        return self._update(player, gradients, terms)

    def _take_turns_in_parts(
        self, players: list[Player], images_of: Callable[[int], Any], step: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Like `_take_turns`, with each turn's images in `micro_batches` parts, one after the other."""
        path_of_step, kept = (step, len(players), 0), None
        logs: dict[str, tf.Tensor] = {}
        if len(players) > 1 and any(player.uses_shared_tensors for player in players):
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

    def _noise(self, path: Sequence[Any], num_rows: int, part: Any = 0) -> StepNoise:
        """The noise of part number `part` of this replica's rows; each part has `num_rows`."""
        context = tf.distribute.get_replica_context()
        replicas, number, parts = context.num_replicas_in_sync, context.replica_id_in_sync_group, self.micro_batches
        return StepNoise((self.seed, 0), path, num_rows, (number * parts + part) * num_rows, replicas * parts * num_rows)

    def _shared(self, players: list[Player], images: Any, noise: StepNoise, kept: Any = None) -> tuple[Any, tf.GradientTape]:
        """The result of `shared_tensors`, and the tape on which it was computed from the players' variables."""
        with (
            frozen_statistics(not players),  # tensors that teach no network of the model move no statistics either
            tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape,
        ):
            tape.watch([variable.value for player in players for variable in player.variables])
            if self._jit_players:
                shared = self._compiled(lambda images: self.shared_tensors(images, noise, kept))(images)
            else:
                shared = self.shared_tensors(images, noise, kept)
        return shared, tape

    def _turn_gradients(
        self, player: Player, images: Any, path: tuple[Any, ...], shared: Any, tape: tf.GradientTape | None, part: Any = 0
    ) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        """This replica's contribution to a player's gradients, times the loss scale of its optimizer, and the logs.

        With several parts it is the contribution of part number `part`, whose images and shared tensors are given.
        """
        num_rows, parts = _num_rows(images), self.micro_batches
        scale = self._scale(player) / (tf.distribute.get_replica_context().num_replicas_in_sync * parts)

        def compute(images, shared, scale, part, *path):
            return self._gradients(player, images, self._noise(path, num_rows, part), scale, shared)

        if self._jit_players:
            compute = self._compiled(compute)
        gradients, slopes, logs = compute(images, shared, scale, part, *path)
        return self._pass_through(player, gradients, slopes, shared, tape), logs

    def _compiled(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        """`compute`, a function of tensors, compiled by XLA; it gets the values that int32 variables have now."""
        variables = host_variables.on_host(self.variables)

        @tf.function(autograph=False, jit_compile=True)
        def compiled(values, arguments):
            with host_variables.given(variables, values):
                return compute(*arguments)

        values = [host_variables.value_of(variable) for variable in variables]
        return lambda *arguments: compiled(values, arguments)

    def _turn_gradients_in_parts(
        self, player: Player, images: Any, path: tuple[Any, ...], origin: Origin
    ) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        """Like `_turn_gradients`, part by part, so that it takes the memory of one part.

        Each part has shared tensors of its own, computed from `origin`.
        """
        parts = self.micro_batches

        def of_part(part):
            images_of_part, shared, tape = _part(images, part, parts), (), None
            with statistics_of(player.variables, 1.0 / parts):
                if player.uses_shared_tensors:
                    noise = self._noise(origin.path, _num_rows(images_of_part), part)
                    kept = None if origin.kept is None else tf.nest.map_structure(lambda tensor: tensor[part], origin.kept)
                    shared, tape = self._shared(origin.players, _part(origin.images, part, parts), noise, kept)
                return self._turn_gradients(player, images_of_part, path, shared, tape, part)

        gradients, logs = _sum_of_parts(of_part, parts)
        return gradients, {name: value / parts for name, value in logs.items()}

    def _kept(self, images: Any, path: tuple[Any, ...]) -> Any:
        """The result of `keep` for all parts: tensors [parts, rows of a part, ...]; None if it keeps nothing."""
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

    def _scale(self, player: Player) -> Any:
        """The loss scale of a player's optimizer, the first one of several: 1.0 except in float16."""
        return _scale_of(self.player_optimizers[next(iter(player.optimized()))])

    def _update(self, player: Player, gradients: list[tf.Tensor], logs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Applies the sum of all replicas' gradients; returns the logs, with the player's name before all but measures."""
        context = tf.distribute.get_replica_context()
        scale, scales = self._scale(player), self._loss_scales(player)
        if context.num_replicas_in_sync > 1:
            gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        norm = tf.linalg.global_norm(gradients) / scale
        finite = tf.math.is_finite(logs["loss"])
        if scales:  # optimizers that have one skip steps that overflow; below 1 it is not the scale that makes them
            finite &= tf.reduce_all(tf.stack(scales) >= 1.0)
        else:
            finite &= tf.math.is_finite(norm)
        if self._clip_norm:
            factor = tf.minimum(1.0, self._clip_norm / norm)
            gradients = [gradient * factor for gradient in gradients]
        if len(scales) > 1:  # an overflow in one optimizer's gradients is one for all: none of them updates alone
            blank = tf.where(tf.math.is_finite(norm), 0.0, float("nan"))
            gradients = [gradient + blank for gradient in gradients]
        self.apply_gradients(player, gradients, scale)
        logs |= {"gradient_norm": norm, "finite": tf.cast(finite, tf.float32)}
        return {name[1:] if name.startswith("/") else f"{player.name}/{name}": value for name, value in logs.items()}

    def apply_gradients(self, player: Player, gradients: Sequence[tf.Tensor], scale: Any = 1.0) -> None:
        """Updates a player's variables by their gradients, [gradient of each of `Player.variables`] times `scale`."""
        known = {id(variable): gradient for variable, gradient in zip(player.variables, gradients, strict=True)}
        for number, (name, variables) in enumerate(player.optimized().items()):
            optimizer, own = self.player_optimizers[name], [known[id(variable)] for variable in variables]
            if number and self._loss_scales(player):  # scales may differ, as after a resumption of an earlier version's run
                own = [gradient * (_scale_of(optimizer) / scale) for gradient in own]
            optimizer.apply(own, variables)  # without another sum: `use_gradients_as_they_are`

    def _loss_scales(self, player: Player) -> list[tf.Tensor]:
        """The loss scale of each of a player's optimizers; empty except in float16."""
        optimizers = [self.player_optimizers[name] for name in player.optimized()]
        return [_scale_of(one) for one in optimizers if isinstance(one, keras.optimizers.LossScaleOptimizer)]

    def _gradients(
        self, player: Player, images: Any, noise: StepNoise, scale: Any, shared: Any = ()
    ) -> tuple[list[tf.Tensor | None], list[list[tf.Tensor | None]], dict[str, tf.Tensor]]:
        """Gradients of scale * mean loss, and the batch means of the terms.

        Returns:
            The gradient of each of the player's variables with `shared` held fixed, None if there is none; for each
            objective, the gradients with respect to the tensors of `shared`; the logs, with a "/" before names of measures.
        """
        gradients: dict[int, tf.Tensor] = {}
        logs: dict[str, tf.Tensor] = {}
        slopes, loss = [], 0.0
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
    def _pass_through(
        player: Player,
        gradients: Sequence[tf.Tensor | None],
        slopes: Sequence[Sequence[tf.Tensor | None]],
        shared: Any,
        tape: tf.GradientTape | None,
    ) -> list[tf.Tensor]:
        """Adds to `gradients` the gradients that reach each objective's variables through `shared`.

        Variables that the same objectives train get the sum of these objectives' gradients by one pass back through `shared`.
        """
        total = {id(variable): value for variable, value in zip(player.variables, gradients) if value is not None}
        tensors = tf.nest.flatten(shared)
        groups: dict[tuple[int, ...], list[keras.Variable]] = {}
        for variable in player.variables:
            trained_by = (any(variable is one for one in objective.variables) for objective in player.objectives)
            groups.setdefault(tuple(number for number, trains in enumerate(trained_by) if trains), []).append(variable)
        for numbers, variables in groups.items():
            reached = []
            for position, tensor in enumerate(tensors):
                parts = [slopes[number][position] for number in numbers if slopes[number][position] is not None]
                if parts:
                    reached.append((tensor, tf.add_n(parts) if len(parts) > 1 else parts[0]))
            if reached and tape is not None:
                outputs, slope = zip(*reached)
                values = [variable.value for variable in variables]
                for variable, gradient in zip(variables, tape.gradient(list(outputs), values, list(slope))):
                    _add(total, variable, gradient)
        missing = [variable.path for variable in player.variables if id(variable) not in total]
        if missing:
            raise ValueError(f"player {player.name}: no gradient reaches {', '.join(missing)}")
        return [total[id(variable)] for variable in player.variables]


def _scale_of(optimizer: keras.optimizers.Optimizer) -> Any:
    """The loss scale of an optimizer: 1.0 except in float16."""
    return optimizer.scale_loss(1.0) if isinstance(optimizer, keras.optimizers.LossScaleOptimizer) else 1.0


def _num_rows(batch: Any) -> int:
    """N of images [N, ...], alone or with their indices."""
    return tf.nest.flatten(batch)[0].shape[0]


def _part(batch: Any, part: tf.Tensor, parts: int) -> Any:
    """The rows of part number `part` (of `parts`) of images [N, ...], alone or with their indices."""
    size = _num_rows(batch) // parts

    def rows(tensor):
        return tf.slice(tensor, [part * size] + [0] * (tensor.shape.rank - 1), [size, *tensor.shape[1:]])

    return tf.nest.map_structure(rows, batch)


def _sum_of_parts(function: Callable[[tf.Tensor], Any], parts: int) -> Any:
    """The sum of `function(part)` over the parts 0 to `parts` - 1, computed one after the other."""
    total = function(tf.constant(0))
    if tf.distribute.get_replica_context().num_replicas_in_sync > 1:
        # Operations over all replicas (batch normalisation) are not allowed in a loop.
        for part in range(1, parts):
            with tf.control_dependencies(tf.nest.flatten(total)):
                total = tf.nest.map_structure(tf.add, total, function(tf.constant(part)))
        return total

    def add(part, *sums):
        return part + 1, *tf.nest.map_structure(tf.add, sums, function(part))

    # The loop starts from the result of the first part, so no two parts run at the same time.
    return tf.while_loop(lambda part, *_: part < parts, add, (tf.constant(1), *total), parallel_iterations=1)[1:]


def _add(gradients: dict[int, tf.Tensor], variable: keras.Variable, gradient: tf.Tensor | None) -> None:
    """Adds `gradient`, unless it is None, to the entry of `variable` in `gradients`, {id of the variable: tensor}."""
    if gradient is not None:
        gradient = tf.convert_to_tensor(gradient)  # the gradient of a gather is sparse
        gradient.set_shape(variable.shape)  # unknown from a function for all shapes, such as weight normalisation
        known = gradients.get(id(variable))
        gradients[id(variable)] = gradient if known is None else known + gradient
