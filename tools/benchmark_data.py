"""Times what gathers a model's images: decoded as needed, and from the cache, beside a train step of the model.

    python tools/benchmark_data.py --model=glf --dataset=folder:DIR --image_size=64 --batch_size=64 --data_cache=CACHE

Prints one JSON line per way: images/s of one thread, by processor seconds (which other work on the machine changes little) and by
elapsed seconds, the median of the rounds; and the processor seconds of a batch as a fraction of a train step's. Images come in
random order, as in training. The ways take turns. "cold" reads from the disk, after the file has been dropped from the
system's memory; "build" makes the cache, by all processes together.
"""

from __future__ import annotations

import collections
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tfcq.command_line import starting
from tfcq.command_line.command import Command
from tfcq.command_line.configuration import config_of
from tfcq.command_line.flags import Flags
from tfcq.config import Config


def define(flags: Flags) -> None:
    """The flags of this tool."""
    flags.configuration()
    flags.group("The measurement")
    flags.integer("rounds", 3, "How many times each way is run", minimum=1)
    flags.integer("batches", 20, "How many batches each way gathers in a round", minimum=1)
    flags.integer("steps", 5, "How many train steps are timed; 0: none", minimum=0)


def processor_seconds() -> float:
    """Of this process and of the processes that it started and that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """(processor seconds, elapsed seconds) of a call."""
    processor, elapsed = processor_seconds(), time.perf_counter()
    work()
    return processor_seconds() - processor, time.perf_counter() - elapsed


def step_seconds(config: Config, image_shape: tuple[int, ...], count: int) -> float:
    """Processor seconds of a train step, the median of `count`."""
    import tensorflow as tf

    from tfcq import models
    from tfcq.benchmarking.steps import random_data, random_images
    from tfcq.engine import optimizers

    model = models.build(config, image_shape)
    batch, turns = config.training.batch_size, model.batches_per_step
    model.attach(random_data(image_shape, batch), batch)
    optimizers.compile_model(model, config.training)
    images = tf.constant(random_images(batch, (turns, *image_shape) if turns > 1 else image_shape))
    taken = (images, tf.range(batch, dtype=tf.int64)) if model.needs_indices else images
    model.initialize(images[:, 0] if turns > 1 else images)
    step, iterator = model.make_train_function(force=True), iter(tf.data.Dataset.from_tensors(taken).repeat())
    seconds = [timed(lambda: [float(value) for value in step(iterator).values()])[0] for _ in range(count + 2)]
    return statistics.median(seconds[2:])  # the first ones trace and warm up


def main(flags: Flags) -> None:
    """Builds the cache, times the ways, and prints a line for each."""
    config = config_of({"model": flags.model} | flags.given())
    starting.start_tensorflow()
    from tfcq.data import cache, dataset, holding
    from tfcq.data.transforms import Transform

    raw = dataset.open_source(config.data).splits["train"]
    transform = Transform.of(config.data, raw.channels, raw.name(raw.example))
    folder, batch = holding.cache_folder(config.data.data_cache), config.training.batch_size
    built = timed(lambda: cache.cached(raw, transform, folder))
    images = cache.cached(raw, transform, folder)
    order = np.random.default_rng(0)

    def gather(take, cold=False):
        if cold:
            images._file.forget_pages()
        elif take == images.take:
            images.take(np.arange(len(raw)))  # into memory; every checksum has then been computed, as after an epoch
        indices = order.integers(0, len(raw), (flags.batches, batch))
        return timed(lambda: collections.deque(map(take, indices), maxlen=0))  # none is kept

    ways = {
        "as needed": lambda: gather(lambda indices: raw.take(indices, transform)),
        "cache, warm": lambda: gather(images.take),
        "cache, cold": lambda: gather(images.take, cold=True),
    }
    rounds = {name: [] for name in ways}
    for _ in range(flags.rounds):
        for name, way in ways.items():
            rounds[name].append(way())
    step = step_seconds(config, transform.shape, flags.steps) if flags.steps else None
    facts = {"model": config.model, "image_size": transform.image_size, "batch_size": batch}
    rows = {"build": (len(raw), built)}
    for name, seconds in rounds.items():
        rows[name] = (flags.batches * batch, tuple(statistics.median(column) for column in zip(*seconds)))
    for name, (count, (processor, elapsed)) in rows.items():
        row = {"way": name, **facts, "images_per_processor_second": float(f"{count / processor:.3g}"),
               "images_per_second": float(f"{count / elapsed:.3g}")}
        if step and name != "build":
            row["processor_seconds_of_a_step"] = round(step, 3)
            row["fraction_of_a_step"] = float(f"{processor / flags.batches / step:.2g}")
        print(json.dumps(row), flush=True)


COMMAND = Command("tools/benchmark_data.py", __doc__, define, main, presets="")

if __name__ == "__main__":
    sys.exit(COMMAND.run())
