"""The machine that a benchmark runs on: its name, and the rates that it reaches in matrix products and convolutions."""

from __future__ import annotations

import pathlib
import platform

from tfcq.benchmarking.timing import measure, report, row


def name() -> str:
    """The GPUs' names with their number, or else the CPU's with the number of its cores that this process may use."""
    import os

    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        kind = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
        return f"{len(gpus)} x {kind}"
    return f"{_cpu()}, {len(os.sched_getaffinity(0))} cores"


def _cpu():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    found = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return found[0] if found else platform.processor() or platform.machine()


def rates(dtype: str) -> float:
    """Prints the machine's GFLOP/s in a square matrix product and in a 3x3 convolution; returns the larger one.

    Args:
        dtype: in which a model's networks compute: "float32", "bfloat16" or "float16".
    """
    import tensorflow as tf

    side, maps = (8192, 256) if tf.config.list_physical_devices("GPU") else (1024, 32)
    left, right = tf.unstack(tf.cast(tf.random.stateless_normal((2, side, side), (0, 1)), dtype))
    images = tf.cast(tf.random.stateless_normal((64, 32, 32, maps), (0, 2)), dtype)
    kernel = tf.cast(tf.random.stateless_normal((3, 3, maps, maps), (0, 3)), dtype)
    # The sum alone comes back to the host.
    product = tf.function(lambda left, right: tf.reduce_sum(tf.matmul(left, right)), autograph=False)
    convolve = tf.function(lambda images, kernel: tf.reduce_sum(tf.nn.conv2d(images, kernel, 1, "SAME")), autograph=False)
    lines = [
        row(f"machine: {dtype} matmul {side}", measure(lambda: product(left, right).numpy()), gflop=2 * side**3 / 1e9),
        row(
            f"machine: {dtype} 3x3 convolution, {maps} channels",
            measure(lambda: convolve(images, kernel).numpy()),
            gflop=2 * 64 * 32 * 32 * 9 * maps * maps / 1e9,
        ),
    ]
    return max(report(line)["gflop_per_second"] for line in lines)
