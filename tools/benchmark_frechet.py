"""Times the Frechet distance of random features: tfcq.metrics.frechet beside scipy's matrix root and TF-GAN.

    python tools/benchmark_frechet.py --num_images=10000 --num_features=2048 --rounds=3

One JSON line a method: seconds from features to value (median, minimum, maximum over the rounds), the seconds of it
that are left when the means and covariances are at hand (null for TF-GAN, which does not separate them), the value, its
relative difference from scipy's, and how many times as fast as scipy's the method is. The methods take turns, so that a
machine that is busy for a while is busy for all of them.
"""

import json
import statistics
import sys
import time

import numpy as np
import scipy.linalg

from tfcq.command_line.command import Command
from tfcq.command_line.flags import Flags
from tfcq.metrics.frechet import GaussianStatistics, frechet_distance
from tfcq.metrics.tf_gan import import_tensorflow_gan


def define(flags: Flags) -> None:
    """The flags of this tool."""
    flags.integer("num_images", 10_000, "The rows of each of the two sets of features", minimum=2)
    flags.integer("num_features", 2048, "The columns; Inception's last layer has 2048", minimum=1)
    flags.integer("rounds", 3, "How often every method is run", minimum=1)
    flags.several("methods", ["tfcq", "sqrtm", "tf_gan"], "Which methods are run; sqrtm is the reference")


def random_features(generator, mixing, scale, num_images):
    """float32 [num_images, *]: positive, correlated, a spectrum that falls, as an image network's are."""
    noise = generator.normal(size=(num_images, len(mixing)))
    return np.maximum(scale * noise @ mixing + 0.1 * generator.normal(size=noise.shape), 0.0).astype(np.float32)


def with_tfcq(real, generated):
    first, second = GaussianStatistics.from_features(real), GaussianStatistics.from_features(generated)
    begin = time.perf_counter()
    return frechet_distance(first, second), begin


def with_matrix_root(real, generated):
    means = [features.mean(axis=0, dtype=np.float64) for features in (real, generated)]
    first, second = (np.cov(features, rowvar=False, dtype=np.float64) for features in (real, generated))
    begin = time.perf_counter()
    root = scipy.linalg.sqrtm(first @ second)
    value = np.sum((means[0] - means[1]) ** 2) + np.trace(first) + np.trace(second) - 2.0 * np.trace(root).real
    return float(value), begin


def with_tf_gan(real, generated):
    # Of float64 features: it computes in float64 in any case, and rounds its result to the type that it was given.
    evaluation = import_tensorflow_gan().eval
    real, generated = real.astype(np.float64), generated.astype(np.float64)
    return float(evaluation.frechet_classifier_distance_from_activations(real, generated)), None


def main(flags: Flags) -> None:
    """Times, and prints a row a method."""
    functions = {"tfcq": with_tfcq, "sqrtm": with_matrix_root, "tf_gan": with_tf_gan}
    generator = np.random.default_rng(0)
    mixing = generator.normal(size=(flags.num_features,) * 2) / np.sqrt(flags.num_features)
    mixing *= np.exp(-5.0 * np.arange(flags.num_features) / flags.num_features)[:, None]
    real, generated = (random_features(generator, mixing, scale, flags.num_images) for scale in (1.0, 1.1))
    if "tf_gan" in flags.methods:
        import_tensorflow_gan()  # some seconds, once a process: not the method's
    seconds, later_seconds, values = {}, {}, {}
    for _ in range(flags.rounds):
        for method in flags.methods:
            begin = time.perf_counter()
            values[method], half_way = functions[method](real, generated)
            end = time.perf_counter()
            seconds.setdefault(method, []).append(end - begin)
            later_seconds.setdefault(method, []).append(end - half_way if half_way else None)
    reference = "sqrtm" if "sqrtm" in values else None
    for method, value in values.items():
        row = {
            "method": method,
            "num_images": flags.num_images,
            "num_features": flags.num_features,
            "rounds": flags.rounds,
            "seconds_median": round(statistics.median(seconds[method]), 3),
            "seconds_min": round(min(seconds[method]), 3),
            "seconds_max": round(max(seconds[method]), 3),
            "seconds_median_from_statistics": None,
            "value": value,
        }
        if None not in later_seconds[method]:
            row["seconds_median_from_statistics"] = round(statistics.median(later_seconds[method]), 3)
        if reference:
            row["difference_from_sqrtm"] = float(f"{value / values[reference] - 1.0:.1e}")
            row["times_as_fast_as_sqrtm"] = round(
                statistics.median(seconds[reference]) / statistics.median(seconds[method]), 1
            )
        print(json.dumps(row), flush=True)


COMMAND = Command("tools/benchmark_frechet.py", __doc__, define, main)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
