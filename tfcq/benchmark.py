"""Times a configuration on random images: train step (of each stage of training), log_prob (K = 1) and sample.

It also measures the FLOP rates of the machine. Each line is one JSON object: images/s of the median call, the median and the
extremes of a call in ms, peak memory of the process so far in MB, number of weights. Calls are timed until their results are
on the host, after warm-up. Each round is a process of its own, so that rounds can alternate with another program (--beside):
on a shared machine only times measured side by side can be compared.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tfcq.command_line import starting
from tfcq.command_line.command import Command
from tfcq.command_line.configuration import config_of
from tfcq.command_line.flags import Flags
from tfcq.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from tfcq.config import Config
    from tfcq.data import ImageDataset


def define(flags: Flags) -> None:
    """The flags of `tfcq.benchmark`."""
    flags.configuration()
    flags.group("The measurement")
    flags.integer("rounds", 1, "How many times everything is measured, each time in a new process", minimum=1)
    flags.string("beside", None, "A shell command that is run after each round; its output is passed through", "COMMAND")
    flags.integer("calls", 15, "How many calls of each workload are timed", minimum=3)
    flags.boolean("parts", False, "Also times the parts of a train step, one by one, and prints their sum and the step's time")
    flags.integer("image_channels", 3, "The channels of the random images", minimum=1)
    flags.integer(
        "training_images", 50000, "The size of the simulated data set (glann has one code per image)", minimum=1
    )


_WARM_UP = 3  # untimed calls


def measure(call: Callable[[], Any], warm_up: int = _WARM_UP, calls: int = 15) -> list[float]:
    """Seconds of each of `calls` calls, after `warm_up` untimed ones."""
    for _ in range(warm_up):
        call()
    seconds = []
    for _ in range(calls):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return seconds


def random_data(image_shape: tuple[int, ...], count: int) -> ImageDataset:
    """A data set of `count` random training images, made when they are asked for."""
    import numpy as np

    from tfcq.data import ImageDataset

    train = (lambda indices: random_images(len(indices), image_shape), np.arange(count))
    return ImageDataset("random images", image_shape, {"train": train}, horizontal_flip=False)


def random_images(count: int, image_shape: tuple[int, ...]) -> np.ndarray:
    """Random images, uint8 [count, *image_shape]."""
    import numpy as np

    return np.random.default_rng(0).integers(0, 256, (count, *image_shape), np.uint8)


def report(workload: str, seconds: Sequence[float], **facts: Any) -> None:
    """Prints a JSON line about a workload.

    Args:
        workload: its name.
        seconds: of each call.
        **facts: further values of the line; `num_images` and `gflop` of a call are divided by the median of its seconds.
    """
    median = statistics.median(seconds)
    row: dict[str, Any] = {
        "workload": workload,
        "median_ms": round(1e3 * median, 2),
        "min_ms": round(1e3 * min(seconds), 2),
        "max_ms": round(1e3 * max(seconds), 2),
        "calls": len(seconds),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    if "num_images" in facts:
        row["images_per_second"] = round(facts.pop("num_images") / median, 1)
    if "gflop" in facts:
        row["gflop_per_second"] = round(facts.pop("gflop") / median, 1)
    print(json.dumps(row | facts), flush=True)


def machine_rates(tf: Any) -> None:
    """Prints the float32 GFLOP/s of a square matrix product and of a 3x3 convolution, 2 FLOP per multiply-add."""
    left, right = tf.random.stateless_normal((2, 1024, 1024), (0, 1))
    product = tf.function(tf.matmul, autograph=False)
    report("machine: float32 matmul 1024", measure(lambda: product(left, right).numpy()), gflop=2 * 1024**3 / 1e9)
    images, kernel = tf.random.stateless_normal((64, 32, 32, 32), (0, 2)), tf.random.stateless_normal((3, 3, 32, 32), (0, 3))
    convolve = tf.function(lambda images, kernel: tf.nn.conv2d(images, kernel, 1, "SAME"), autograph=False)
    gflop = 2 * 64 * 32 * 32 * 9 * 32 * 32 / 1e9
    report("machine: float32 3x3 convolution", measure(lambda: convolve(images, kernel).numpy()), gflop=gflop)


def measure_parts(tf: Any, model: Any, images: Any, stage: int, step_seconds: float, calls: int) -> None:
    """Times each part of a step of a stage, compiled by itself, on one device; prints a line for each, and their sum.

    The parts are: the shared tensors, forward and with gradients; each player's losses given the shared tensors, forward and
    with gradients; each player's update. The sum is the cost of a step in which nothing runs twice and nothing overlaps.
    """
    noise = model._noise((0, 0, 0), len(tf.nest.flatten(images)[0]))
    players = [player for player in model.players() if player.stage == stage]
    total = 0.0

    def part(name, function, counted, turns=1):
        nonlocal total
        compiled = tf.function(function, autograph=False)

        def call():
            return tf.nest.map_structure(lambda value: value.numpy(), compiled())

        seconds = measure(call, calls=calls)
        facts = {"turns": turns} if turns > 1 else {}
        report(name, seconds, **facts)
        total += counted * turns * statistics.median(seconds)

    def norm(gradients):
        return tf.linalg.global_norm([gradient for gradient in gradients if gradient is not None])

    def shared_with_gradients():
        shared, tape = model._shared(players, images, noise)
        return norm(tape.gradient(shared, [variable.value for variable in players[-1].variables]))

    shared = tf.nest.map_structure(tf.constant, tf.function(lambda: model.shared_tensors(images, noise), autograph=False)())
    if tf.nest.flatten(shared):
        part("part: shared tensors, forward", lambda: model.shared_tensors(images, noise), 0)
        part("part: shared tensors, forward and backward", shared_with_gradients, 1)

    def measure_player(player):
        def forward():
            return [tf.reduce_mean(one.loss(images, noise, shared).total) for one in player.objectives]

        def with_gradients():
            direct, through, _ = model._gradients(player, images, noise, 1.0, shared)
            return norm([*direct, *tf.nest.flatten(through)])

        def update():
            # Gradients of zero: the update costs the same, and the weights hardly change.
            gradients = [tf.zeros_like(variable.value) for variable in player.variables]
            model.player_optimizers[player.name].apply(gradients, player.variables)
            return tf.constant(0)

        part(f"part: {player.name}, forward", forward, 0, player.turns)
        part(f"part: {player.name}, forward and backward", with_gradients, 1, player.turns)
        part(f"part: {player.name}, update", update, 1, player.turns)

    for player in players:
        measure_player(player)
    print(json.dumps({"workload": "sum of the parts (without those of the forward passes alone)", "ms": round(1e3 * total, 2),
                      "step_ms": round(1e3 * step_seconds, 2), "step_over_sum": round(step_seconds / total, 3)}), flush=True)


def measure_config(config: Config, flags: Flags) -> None:
    """Times the configuration in this process, and prints the lines."""
    starting.start_tensorflow()
    import tensorflow as tf

    from tfcq import models
    from tfcq.engine import devices, optimizers
    from tfcq.randomness import row_seeds

    machine_rates(tf)
    training, size = config.training, config.data.image_size
    distribution = devices.prepare(
        training.distribution, training.logical_devices, training.deterministic, training.batch_size
    )
    with distribution.scope():
        model = models.build(config, (size, size, flags.image_channels))
        num_weights = model.count_params()
        model.attach(random_data(model.image_shape, flags.training_images), training.batch_size)
        optimizers.compile_model(model, training)
    batch, turns = training.batch_size, model.batches_per_step
    images = random_images(batch, (turns, *model.image_shape))
    images = tf.constant(images if turns > 1 else images[:, 0])
    taken = (images, tf.range(batch, dtype=tf.int64)) if model.needs_indices else images
    iterator = iter(distribution.experimental_distribute_dataset(tf.data.Dataset.from_tensors(taken).repeat()))
    model.initialize(images[:, 0] if turns > 1 else images)
    facts = {"config": flags.run_name() or config.model, "batch_size": batch,
             "num_weights": num_weights, "replicas": distribution.num_replicas_in_sync, "tensorflow": tf.__version__}
    for stage, start in enumerate(model.stage_starts):
        model.step.assign(start)
        step = model.make_train_function(force=True)

        def train(step=step):
            return {name: float(value) for name, value in step(iterator).items()}

        if stage + 1 < len(model.stage_starts) and model.stage_starts[stage + 1] - start < flags.calls + _WARM_UP:
            print(f"stage {stage} is too short to be timed", file=sys.stderr)
            continue
        seconds = measure(train, calls=flags.calls)
        report("train step", seconds, num_images=batch, **facts, stage=stage)
        if flags.parts:
            measure_parts(tf, model, images[:, 0] if turns > 1 else taken, stage, statistics.median(seconds), flags.calls)
    single, seeds = images[:, 0] if turns > 1 else images, row_seeds(batch)
    if "likelihood" in model.abilities:
        log_prob = tf.function(model.log_prob, autograph=False)
        report("log_prob", measure(lambda: log_prob(single, seeds).numpy(), calls=flags.calls), num_images=batch, **facts)
    sample = tf.function(model.sample, autograph=False)
    report("sample", measure(lambda: sample(seeds).numpy(), calls=flags.calls), num_images=batch, **facts)


def main(flags: Flags) -> None:
    """Measures: one round in this process, several rounds (or a program --beside) in processes of their own."""
    config = config_of({"model": flags.model} | flags.given())
    if flags.rounds == 1 and not flags.beside:
        return measure_config(config, flags)
    this_round = [*flags.arguments, "--rounds=1", "--beside="]  # the last one of a flag holds
    for _ in range(flags.rounds):
        for command in ([sys.executable, "-m", "tfcq.benchmark", *this_round], ["bash", "-c", flags.beside or "true"]):
            if subprocess.run(command).returncode:
                raise UserError(f"a round failed: {' '.join(command)}")


COMMAND = Command("tfcq benchmark", __doc__, define, main, presets="")

if __name__ == "__main__":
    sys.exit(COMMAND.run())
