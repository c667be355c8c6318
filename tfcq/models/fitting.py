"""The Keras interface of a model: `compile`, `fit`, and clear errors for methods that mean nothing for these models."""

from __future__ import annotations

import dataclasses
from typing import Any, NoReturn

import keras

from tfcq.checks import check_integer
from tfcq.config import TrainingConfig
from tfcq.data import arrays
from tfcq.engine.batches import step_batches
from tfcq.engine.optimizers import compile_model
from tfcq.engine.trainer import Trainer
from tfcq.errors import UserError
from tfcq.models.arguments import internal

_ANSWERS = "model.sample(16), model.log_prob(images), model.reconstruct(images), ... (model.abilities says which it has)"


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
            optimizer: a Keras optimizer or its name, of which each player gets its own copy; or {player's name: optimizer};
                None: the one of `training_config`.
            **options: arguments of `tfcq.engine.trainer.Trainer.compile`: jit_compile, clip_norm, ema_decay, micro_batches,
                run_eagerly.
        """
        if isinstance(optimizer, dict):
            super().compile(optimizer, **options)
            self._compiled_by = None
        else:
            self._compiled_by = (optimizer, options)

    def fit(self, x: Any, batch_size: int | None = None, epochs: int = 1, **options: Any) -> keras.callbacks.History:
        """Trains on images in memory; a new model is first initialised with some of them.

        Args:
            x: uint8 [N, H, W, C] (or [N, H, W]), an array or a finite `tf.data.Dataset` of images.
            batch_size: images of an update; None: `training_config.batch_size`, or fewer if there are fewer images.
            epochs: passes over the images; a step takes one batch for each turn of the player with the most turns.
            **options: arguments of `keras.Model.fit`, such as verbose, callbacks, steps_per_epoch.

        Returns:
            The history of the players' losses.

        Raises:
            UserError: images of another type or shape, too few images, or an option that has no meaning here.
        """
        check_integer("fit(epochs)", epochs, 1)
        for name in ("y", "validation_data", "validation_split", "class_weight", "sample_weight"):
            if options.pop(name, None) is not None:
                raise UserError(f"fit({name}): a model learns from images alone here; tfcq.Run.train measures on held-out images")
        dataset = arrays.training_set(x, self.image_shape, "fit(x)")
        count, turns = dataset.num_images("train"), self._turns()
        most = count // turns
        if batch_size is None:
            batch_size = min(self.training_config.batch_size, max(1, most))
        if not 1 <= check_integer("fit(batch_size)", batch_size) <= most:
            raise UserError(
                f"fit(batch_size): expected 1 to {most}, as a step takes {turns} batch(es) of {count} images, "
                f"received {batch_size}"
            )
        steps = options.pop("steps_per_epoch", None) or most // batch_size
        self._attach(dataset, batch_size)
        self._compile_for(steps * epochs)
        batches = step_batches(dataset, self, batch_size, self.seed, self.steps_taken)
        history = self.fit_batches(batches, epochs=epochs, steps_per_epoch=steps, **options)
        self.settle()
        return history

    def train_step(self, batch: Any, stage: int = 0) -> dict:
        with internal():  # a loss's call of the model's methods is not a user's call, even if the step runs eagerly
            return super().train_step(batch, stage)

    def _turns(self) -> int:
        return 1 if self.needs_indices else self.batches_per_step

    def _attach(self, dataset, batch_size):
        count = dataset.num_images("train")
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
        (optimizer, options), self._compiled_by = self._compiled_by or (None, {}), None
        if optimizer is None:
            options = {"train_steps": self.steps_taken + steps} | options
            compile_model(self, dataclasses.replace(self.training_config, **options))
            return
        one = keras.optimizers.get(optimizer)
        self.compile({player.name: type(one).from_config(one.get_config()) for player in self.players()}, **options)

    # Keras's other methods have no meaning for these models.

    def call(self, inputs: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise UserError(f"{self.name} is a generative model, which has several answers; call one of {_ANSWERS}")

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        self.call(None)

    def predict(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise UserError(f"predict: {self.name} is a generative model, which has several answers; call one of {_ANSWERS}")

    def evaluate(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise UserError(
            "evaluate: tfcq.Run(workdir).evaluate() measures a trained run; model.log_prob(images) and model.elbo_terms(images) "
            "give the values of single images"
        )

    def save(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise UserError(
            "save: tfcq.Run(workdir).export(BASE) writes a SavedModel; model.save_weights('NAME.weights.h5') and load_weights "
            "keep the weights of a model that tfcq.models.build makes again"
        )

    export = save
