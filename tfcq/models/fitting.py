"""The Keras interface of a model: `compile`, `fit`, and clear errors for methods that mean nothing for these models."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any, NoReturn

import keras
import tensorflow as tf

from tfcq.checks import check_integer
from tfcq.config import TrainingConfig
from tfcq.data import arrays
from tfcq.endpoints import METHODS
from tfcq.engine.batches import step_batches
from tfcq.engine.optimizers import compile_model
from tfcq.engine.trainer import Trainer
from tfcq.errors import UserError
from tfcq.models.arguments import internal

_COMPILE_OPTIONS = ("jit_compile", "clip_norm", "ema_decay", "micro_batches", "run_eagerly")

_NOT_OF_FIT = ("y", "validation_data", "validation_split", "class_weight", "sample_weight")
"""Arguments of Keras's `fit` that these models do not have."""


class FittedModel(Trainer):
    """A model with Keras's own methods. `tfcq.Run.train` is training with checkpoints, evaluation and resuming."""

    training_config = TrainingConfig()
    """The options of training for `fit` without `compile`, or after `compile` without an optimizer."""

    _compiled_by: tuple[Any, dict[str, Any]] | None = None
    """The arguments of `compile`, to be applied when `fit` has the images: some models have a weight for each image."""

    _num_fitted: int | None = None
    """The number of images that the model was fitted to."""

    def compile(self, optimizer: Any = None, **options: Any) -> None:  # type: ignore[override]  # a wider one
        """Sets how `fit` trains.

        Args:
            optimizer: a Keras optimizer or its name, of which each player (and each group of a player's variables, such as
                "flow" with latent_flow_optimizer=own) gets its own copy: the rate and the decays that the options give a group
                are not used then, and a warning says so; or {name of player or group: optimizer}; None: the one of
                `config.training`, with its schedule, and those of the groups' options.
            **options: jit_compile, clip_norm, ema_decay, micro_batches, run_eagerly (`tfcq.engine.trainer.Trainer.compile`).

        Raises:
            UserError: an unknown optimizer or option; a loss or metrics, which the system itself defines.
        """
        for name in options:
            if name not in _COMPILE_OPTIONS:
                own = "; the system itself defines its losses and what is logged" if name in ("loss", "metrics") else ""
                raise UserError(f"compile({name}): expected some of {', '.join(_COMPILE_OPTIONS)}{own}")
        if isinstance(optimizer, dict):
            wanted = list(self.optimized_variables())
            if set(optimizer) != set(wanted):
                raise UserError(f"compile(optimizer): expected one for each of {', '.join(wanted)}, received {list(optimizer)}")
            optimizers = {name: _optimizer(one) for name, one in optimizer.items()}
            super().compile(optimizers, **options)
            self._compiled_by = None
        else:
            self._compiled_by = (None if optimizer is None else _optimizer(optimizer), options)
            groups = [group for player in self.players() for group in player.groups] if optimizer is not None else []
            for group in groups:
                warnings.warn(
                    f"compile(optimizer): {group.name} gets a copy of it, so that the rate and decays of its own "
                    f"({group.asked_by}) are not used; expected one for each of {', '.join(self.optimized_variables())}, or none",
                    stacklevel=2,
                )

    def fit(
        self, x: Any, y: Any = None, batch_size: int | None = None, epochs: int = 1, **options: Any
    ) -> keras.callbacks.History:
        """Trains on images in memory, without checkpoints and evaluations; a new model is first initialised with some of them.

        Schedules and stages of the learning rate follow the number of steps of the first `fit`. A running mean of the weights
        (`ema_decay`) is kept in `model.averages`; `model.averages.assign_to_variables()` puts it in place of the weights.

        Args:
            x: uint8 [N, H, W, C] (or [N, H, W]), an array or a finite `tf.data.Dataset` of images.
            y: numbers of the images' classes, int [N], of a model with classes, indices into `class_names`; None: the labels of a
                `tf.data.Dataset`, second in a tuple or "label" in a dict; of a model without classes.
            batch_size: images of an update; None: `config.training.batch_size`, or fewer if there are fewer images.
            epochs: passes over the images; a step takes one batch for each turn of the player with the most turns.
            **options: arguments of `keras.Model.fit`, such as verbose, callbacks, steps_per_epoch.

        Returns:
            Keras's history: what the last step of each epoch logged, such as "autoencoder/loss" ("PLAYER/loss").

        Raises:
            UserError: images of another type or shape, too few images, or an option that has no meaning here.
        """
        check_integer("fit(epochs)", epochs, 1)
        if self.class_names and y is None and not isinstance(x, tf.data.Dataset):
            raise UserError(f"fit(y): {self.name} learns images given their class; expected int [N], a number for each image")
        for name, value in (options if self.class_names else {"y": y} | options).items():
            if name in _NOT_OF_FIT and value is not None:
                raise UserError(f"fit({name}): a model learns from images alone here; tfcq.Run.train measures on held-out images")
        options = {name: value for name, value in options.items() if name not in _NOT_OF_FIT}
        if self.training_config.init_from:
            raise UserError("fit: init_from is of tfcq.Run.train; expected none here: assign weights, or load them, before fit")
        dataset = arrays.training_set(x, self.image_shape, "fit(x)", y, self.class_names)
        self._attach(dataset, batch_size or self.training_config.batch_size)
        count, turns = dataset.num_images("train"), self.batches_per_step
        most = count // turns
        if batch_size is None:
            batch_size = min(self.training_config.batch_size, max(1, most))
        if not 1 <= check_integer("fit(batch_size)", batch_size) <= most:
            raise UserError(
                f"fit(batch_size): expected 1 to {most}, as a step takes {turns} batch(es) of {count} images, "
                f"received {batch_size}"
            )
        steps = options.pop("steps_per_epoch", None) or most // batch_size
        self._compile_for(steps * epochs)
        if batch_size % self.micro_batches:
            raise UserError(f"fit(batch_size): expected a multiple of micro_batches={self.micro_batches}, received {batch_size}")
        last = self.stage_starts[-1]
        if self.steps_taken + steps * epochs <= last:
            warnings.warn(
                f"fit: {self.name} trains in stages, and the last one begins at step {last}; these {steps * epochs} steps end "
                "before it",
                stacklevel=2,
            )
        batches = step_batches(dataset, self, batch_size, self.seed, self.steps_taken)
        history = self.fit_batches(batches, epochs=epochs, steps_per_epoch=steps, **options)
        self.settle()
        return history

    def train_step(self, batch: Any, stage: int = 0) -> dict:
        with internal():  # a loss's call of the model's methods is not a user's call, even if the step runs eagerly
            return super().train_step(batch, stage)

    def _attach(self, dataset, batch_size):
        count = dataset.num_images("train")
        if self.needs_indices and self._num_fitted is None and self.steps_taken:
            raise UserError(
                f"fit(x): {self.name} has a code for each image of the run that trained it; continue with tfcq.Run.train, or "
                "fit a new model"
            )
        if not self.needs_indices or self._num_fitted is None:
            self.attach(dataset, batch_size)
        elif self._num_fitted != count:
            raise UserError(
                f"fit(x): {self.name} has a code for each of the {self._num_fitted} images of the first fit, received {count} "
                "images; fit a new model"
            )
        self._num_fitted = count

    def _compile_for(self, steps):
        """Applies the arguments of `compile` for a training of `steps` steps, unless that was done before."""
        if self._compiled_by is None and self.player_optimizers:
            return
        one, options = self._compiled_by or (None, {})
        if one is None:
            own = {name: value for name, value in options.items() if name != "run_eagerly"}
            compile_model(self, dataclasses.replace(self.training_config, train_steps=self.steps_taken + steps, **own))
            self.run_eagerly = options.get("run_eagerly", False)
        else:
            optimizers = {name: type(one).from_config(one.get_config()) for name in self.optimized_variables()}
            super().compile(optimizers, **options)
        self._compiled_by = None

    # Keras's other methods have no meaning for these models.

    def call(self, inputs: Any, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises UserError: a generative model has several answers."""
        raise self._several_answers(self.name)

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise self._several_answers(self.name)

    def predict(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises UserError: a generative model has several answers."""
        raise self._several_answers(f"predict: {self.name}")

    def evaluate(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises UserError: `tfcq.Run.evaluate` measures a run."""
        able = [f"model.{name}(images)" for name in ("log_prob", "latent_likelihood", "energy") if self._has(name)]
        values = f"; {', '.join(able)} gives the values of single images" if able else ""
        raise UserError(f"evaluate: tfcq.Run(workdir).evaluate() measures a trained run{values}")

    def save(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises UserError: `tfcq.Run.export` writes a SavedModel, `save_weights` the weights."""
        weights = "" if self.needs_indices else (
            "; model.save_weights('NAME.weights.h5') and load_weights keep the weights of a model that tfcq.models.build makes "
            "again"
        )
        raise UserError(f"save: tfcq.Run(workdir).export(BASE) writes a SavedModel{weights}")

    def export(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises UserError: `tfcq.Run.export` writes a SavedModel."""
        raise UserError("export: tfcq.Run(workdir).export(BASE) writes a SavedModel of a trained run")

    def get_config(self) -> NoReturn:
        """Raises UserError: a model is made of a `tfcq.Config`."""
        raise UserError(f"get_config: {self.name} is made of a tfcq.Config by tfcq.models.build; config.to_json() keeps that")

    to_json = get_config  # type: ignore[assignment]  # Keras's has arguments

    def quantize(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises UserError: densities need float32."""
        raise UserError("quantize: densities need float32; tfcq.TrainingConfig(precision=...) sets the arithmetic of training")

    def train_on_batch(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises UserError: `fit` trains."""
        raise UserError("train_on_batch: model.fit(images, batch_size=N, steps_per_epoch=1) takes one step")

    test_on_batch = evaluate
    predict_on_batch = predict

    def _has(self, name):
        return METHODS[name][0] in self.abilities

    def _several_answers(self, who):
        shown = ("log_prob", "encode", "reconstruct", "energy")
        asked = ["model.sample(16)"] if self._has("sample") else []
        asked += [f"model.{name}(images)" for name in shown if self._has(name)]
        return UserError(f"{who} is a generative model, which has several answers; call one of {', '.join(asked)}")


def _optimizer(optimizer):
    try:
        return keras.optimizers.get(optimizer)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"compile(optimizer): expected a Keras optimizer or its name, such as 'adam', received {optimizer!r}"
        ) from error
