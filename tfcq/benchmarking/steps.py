"""Train steps of configurations, ready to be timed: one configuration's, or those of several in turns."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tfcq import models
from tfcq.benchmarking.timing import WARM_UP
from tfcq.data import ImageDataset
from tfcq.engine import devices, optimizers

if TYPE_CHECKING:
    from tfcq.config import Config
    from tfcq.models.base import GenerativeModel


def random_data(image_shape: tuple[int, ...], count: int) -> ImageDataset:
    """A data set of `count` random training images, made when they are asked for."""
    train = (lambda indices: random_images(len(indices), image_shape), np.arange(count))
    return ImageDataset("random images", image_shape, {"train": train}, horizontal_flip=False)


def random_images(count: int, image_shape: tuple[int, ...]) -> np.ndarray:
    """Random images, uint8 [count, *image_shape]."""
    return np.random.default_rng(0).integers(0, 256, (count, *image_shape), np.uint8)


@dataclasses.dataclass(frozen=True)
class Ready:
    """A model that is ready to train on random images.

    Attributes:
        model: compiled.
        strategy: of its devices.
        iterator: of the batches of a step, all equal.
        taken: one such batch: images, with their numbers in the data set if the model needs them.
        images: uint8 [N, H, W, C], those of the first turn.
        num_weights: of the model, without what only training needs.
    """

    model: GenerativeModel
    strategy: tf.distribute.Strategy
    iterator: Any
    taken: Any
    images: tf.Tensor
    num_weights: int

    @classmethod
    def of(cls, config: Config, image_shape: tuple[int, ...], training_images: int) -> Ready:
        """Builds and compiles the model of `config`, for a data set of that many random images."""
        training = config.training
        strategy = devices.prepare(
            training.distribution, training.logical_devices, training.deterministic, training.batch_size
        )
        with strategy.scope():
            classes = dict.fromkeys(map(str, range(10)), 0.1) if config.class_conditional else None
            model = models.build(config, image_shape, classes)
            num_weights = model.count_params()
            model.attach(random_data(model.image_shape, training_images), training.batch_size)
            optimizers.compile_model(model, training)
        batch, turns = training.batch_size, model.batches_per_step
        images = random_images(batch, (turns, *model.image_shape))
        images = tf.constant(images if turns > 1 else images[:, 0])
        taken = (images, tf.range(batch, dtype=tf.int64)) if model.needs_indices else images
        if model.class_names:
            taken = (images, tf.zeros(images.shape[:-3], tf.int32))
        iterator = iter(strategy.experimental_distribute_dataset(tf.data.Dataset.from_tensors(taken).repeat()))
        single = images[:, 0] if turns > 1 else images
        model.initialize(single)
        return cls(model, strategy, iterator, taken, single, num_weights)

    def step(self, stage: int) -> Callable[[], dict[str, float]]:
        """The train step of a stage of training, from its first one on; not yet traced. That of another stage then ends."""
        self.model.step.assign(self.model.stage_starts[stage])
        step = self.model.make_train_function(force=True)

        def train() -> dict[str, float]:
            return {name: float(value) for name, value in step(self.iterator).items()}

        return train


def in_turns(calls: Mapping[str, Callable[[], Any]], rounds: int, warm_up: int = WARM_UP) -> dict[str, list[float]]:
    """{name: seconds of each of `rounds` calls}: each round calls each once; the first `warm_up` rounds are not timed.

    What else a shared machine does then slows all of them alike, and their ratios stay right.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(-warm_up, rounds):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            if number >= 0:
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def step_times(
    configs: Mapping[str, Config], image_shape: tuple[int, ...], training_images: int, rounds: int = 15
) -> dict[str, list[float]]:
    """{name: milliseconds of a train step in each stage of training} of several configurations, timed in turns.

    They are the median of steps, and the mean of what a model does only now and then, such as once an epoch
    (`Trainer.long_begin_every`). All models are in memory together. Later stages are timed after all first ones, in turns with
    one another.

    Args:
        configs: {name: configuration}.
        image_shape: (H, W, C).
        training_images: the size of the data set.
        rounds: how often each step is timed.
    """
    ready = {name: Ready.of(config, image_shape, training_images) for name, config in configs.items()}
    found: dict[str, list[float]] = {name: [] for name in configs}
    for stage in range(max(len(one.model.stage_starts) for one in ready.values())):
        steps = {name: one.step(stage) for name, one in ready.items() if stage < len(one.model.stage_starts)}
        for step in steps.values():
            step()  # traces and compiles
        for name, seconds in in_turns(steps, rounds).items():
            found[name].append(round(1e3 * _seconds_of_a_step(ready[name].model, stage, seconds), 3))
    return found


def _seconds_of_a_step(model, stage, seconds):
    """Seconds of a step of a stage, with the part that falls to it of what `begin_step` does now and then.

    Args:
        model: whose step was taken.
        stage: the stage of training.
        seconds: those of its steps that followed the first one and the warm-up.
    """
    every = model.long_begin_every(stage)
    if every:
        # Such a step may be among the timed ones; they are numbered from that after the first one on.
        numbered = enumerate(seconds, start=1 + WARM_UP)
        seconds = [one for number, one in numbered if number % every] or seconds
    between = statistics.median(seconds)
    if every < 2:  # each step has it
        return between
    begin = time.perf_counter()
    model.begin_step(model.stage_starts[stage])
    return between + (time.perf_counter() - begin) / every
