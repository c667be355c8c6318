"""The workloads of a configuration, timed in this process: first step, train step, its parts, log_prob (K = 1), sample."""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tfcq.benchmarking import flop, machine
from tfcq.benchmarking.steps import Ready
from tfcq.benchmarking.timing import WARM_UP, measure, report, row
from tfcq.randomness import row_seeds

if TYPE_CHECKING:
    from tfcq.config import Config


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What is measured of a configuration, besides it.

    Attributes:
        name: of the configuration, in the lines.
        calls: how many calls of each workload are timed.
        parts: whether the parts of a train step are timed, too.
        image_channels: of the random images.
        training_images: the size of the simulated data set.
    """

    name: str
    calls: int = 15
    parts: bool = False
    image_channels: int = 3
    training_images: int = 50000


def stages_of_training(config: Config, image_channels: int = 3) -> list[tuple[int, float | None]]:
    """(number of steps, GFLOP of a step) of each stage of training. The graphs are built, and no step is taken.

    The GFLOP are those of `flop.gflop`, of matrix products and convolutions. None: not known, as with --micro_batches.
    """
    size = config.data.image_size
    ready = Ready.of(config, (size, size, image_channels), config.training.batch_size)
    model = ready.model
    model.make_train_function(force=True)
    ends = [*model.stage_starts[1:], config.training.train_steps]
    lengths = [end - start for start, end in zip(model.stage_starts, ends, strict=True)]
    return [(length, flop.gflop(model.step_graph(ready.iterator, stage))) for stage, length in enumerate(lengths)]


def _measure_parts(model: Any, images: Any, stage: int, step_seconds: float, calls: int) -> None:
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
        report(row(name, seconds, **facts))
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
            model.apply_gradients(player, gradients)
            return tf.constant(0)

        part(f"part: {player.name}, forward", forward, 0, player.turns)
        part(f"part: {player.name}, forward and backward", with_gradients, 1, player.turns)
        part(f"part: {player.name}, update", update, 1, player.turns)

    for player in players:
        measure_player(player)
    report(
        {
            "workload": "sum of the parts (without those of the forward passes alone)",
            "ms": round(1e3 * total, 2),
            "step_ms": round(1e3 * step_seconds, 2),
            "step_over_sum": round(step_seconds / total, 3),
        }
    )


def measure_config(config: Config, wanted: Measurement) -> list[dict[str, Any]]:
    """Times the configuration in this process, prints a JSON line for each workload, and returns the lines.

    The line "first step" has seconds since the process began: `seconds` by the clock and `processor_seconds` of all threads;
    start-up, imports, the model and tracing are in them. A train step's `fraction_of_peak` is of the larger rate of the machine
    that was measured in the same process, in the dtype in which the networks compute.
    """
    training, size = config.training, config.data.image_size
    ready = Ready.of(config, (size, size, wanted.image_channels), wanted.training_images)
    model, batch = ready.model, training.batch_size
    facts = {
        "config": wanted.name,
        "batch_size": batch,
        "num_weights": ready.num_weights,
        "replicas": ready.strategy.num_replicas_in_sync,
        "precision": training.precision,
        "machine": machine.name(),
        "tensorflow": tf.__version__,
    }
    lines, peak = [], None
    for stage, start in enumerate(model.stage_starts):
        if stage + 1 < len(model.stage_starts) and model.stage_starts[stage + 1] - start < wanted.calls + WARM_UP:
            print(f"stage {stage} is too short to be timed", file=sys.stderr)
            continue
        train = ready.step(stage)
        train()
        if peak is None:
            lines.append(report(_first_step() | facts))
            peak = machine.rates(model.compute_dtype)
        seconds = measure(train, calls=wanted.calls)
        gflop = flop.gflop(model.step_graph(ready.iterator, stage))
        line = row("train step", seconds, num_images=batch, gflop=gflop, **facts, stage=stage) | _device_memory()
        if gflop:
            line["fraction_of_peak"] = round(line["gflop_per_second"] / peak, 3)
        lines.append(report(line))
        if wanted.parts:
            images = ready.images if model.batches_per_step > 1 else ready.taken
            _measure_parts(model, images, stage, statistics.median(seconds), wanted.calls)
    seeds = row_seeds(batch)
    if "likelihood" in model.abilities:
        log_prob = tf.function(model.log_prob, autograph=False)
        timed = measure(lambda: log_prob(ready.images, seeds).numpy(), calls=wanted.calls)
        lines.append(report(row("log_prob", timed, num_images=batch, **facts)))
    sample = tf.function(model.sample, autograph=False)
    timed = measure(lambda: sample(seeds).numpy(), calls=wanted.calls)
    lines.append(report(row("sample", timed, num_images=batch, **facts)))
    return lines


def _first_step() -> dict[str, Any]:
    """The line about a first step that has just been taken."""
    import psutil

    now = time.time() - psutil.Process().create_time()
    return {"workload": "first step", "seconds": round(now, 1), "processor_seconds": round(time.process_time(), 1)}


def _device_memory() -> dict[str, int]:
    """{"peak_device_mb": of the first GPU}; empty without one."""
    if not tf.config.list_physical_devices("GPU"):
        return {}
    return {"peak_device_mb": round(tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20)}
