"""Trains goldens in this process, one after the other, on what TF_CONFIG or LOGICAL_DEVICES say; the chief keeps the results.

    PYTHONPATH=.:tests:tests/conformance python golden_worker.py RESULTS.npz LOGICAL_DEVICES BATCH_SIZE NAME ...
"""

import dataclasses
import os
import sys

import goldens
import numpy as np
import tensorflow as tf
import tiny_models as tiny

from tfcq.engine import devices
from tfcq.engine.workers import Workers
from tfcq.machine import cluster, settings


def batch_of(model, batch_size):
    """What a step of this model takes, all rows."""
    turns = model.batches_per_step
    images = tiny.images(model.image_shape, batch_size * turns)
    images = images if turns == 1 else images.reshape(-1, turns, *model.image_shape)
    if model.class_names:
        classes = np.arange(len(images) * turns, dtype=np.int32) % len(model.class_names)
        return images, classes.reshape(images.shape[: images.ndim - 3])
    return (images, np.arange(len(images))) if model.needs_indices else images


def train(strategy, golden, batch_size):
    """{name of a variable or of a step's logged term: value} after the steps of a golden."""
    training = dataclasses.replace(golden.config.training, batch_size=batch_size)
    config = dataclasses.replace(golden.config, training=training)
    with strategy.scope():
        model = tiny.compiled(config, golden.channels)
    batch, rows = batch_of(model, batch_size), np.array(model.workers.rows(batch_size))
    logs = tiny.fit(model, tf.nest.map_structure(lambda part: part[rows], batch), golden.steps, whole=batch)
    found = {f"step {step}: {name}": value for step, row in enumerate(logs) for name, value in row.items()}
    owners = {"model": model} | model.player_optimizers
    for kind, variables in ((name, one.variables) for name, one in owners.items()):
        found |= dict(zip((f"{kind}: {variable.path}" for variable in variables), tiny.values(variables), strict=True))
    if model.averages:
        found |= {f"averages: {number}": value for number, value in enumerate(tiny.values(model.averages.values))}
    return found


def main(results, logical_devices, batch_size, *names):
    settings.import_tensorflow()
    strategy = devices.prepare("auto", int(logical_devices), True, int(batch_size), cluster.from_environment(os.environ))
    workers, found = Workers(strategy), {}
    with settings.keras_defaults():
        for name in goldens.GOLDENS if names == ("all",) else names:
            values = train(strategy, goldens.GOLDENS[name], int(batch_size))
            found |= {f"{name}: {key}": value for key, value in values.items()}
            print(name, flush=True)
    if workers.is_chief:
        np.savez(results, **{key.replace("/", "|"): value for key, value in found.items()})  # a file's name has no slash
    workers.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
