"""The smallest models and images that still have every part, for the tests of all that uses a model."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

import tfcq
from tfcq import data as datasets
from tfcq import models, workdir
from tfcq.config import SYSTEMS
from tfcq.data.classes import shares
from tfcq.engine import fused_optimizers
from tfcq.engine.checkpoints import Checkpoints

SYSTEM = {
    "latent_channels": 2,
    "latent_size": 2,
    "discriminator_size": 2,
    "iaf_width": 4,
    "width": 4,
    "discriminator_width": 4,
    "flow_couplings": 2,
    "flow_blocks": 1,
    "flow_width": 4,
    "latent_dim": 3,
    "autoencoder_width": 2,
    "hidden_units": 6,
    "latent_flow_blocks": 2,
    "latent_flow_units": 4,
    "latent_flow_layers": 1,
    "pretraining_steps": 1,
    "adversary_units": 4,
    "second_stage_units": 4,
    "second_stage_layers": 1,
    "mixture_components": 2,
    "noise_dim": 6,
    "imle_units": 8,
    "imle_layers": 1,
    "growth_scale": 0.03,
    "steps_scale": 0.1,
    "prior_couplings": 1,
}
# Not deterministic: that switch is the whole process's, and would outlive the test that sets it.
TRAINING = {"batch_size": 8, "validation_images": 16, "grid_images": 4, "log_every": 1, "deterministic": False}
ROWS = {
    "gan": {"coverage": False, "flow_scales": 0},
    "vae": {"quality_weight": 0.0, "flow_scales": 0},
    "cq": {"flow_scales": 0},
    "cqf": {},
}
"""The rows of the paper's Table 1, as options of `CQFConfig`."""


CLASSES = {"zero": 0.5, "one": 0.2, "two": 0.3}
"""Of a model with `class_conditional`."""


def config(image_size=4, data=None, training=None, model="cqf", **system):
    """A `tfcq.Config` of a tiny model; options override the tiny ones, of which a system takes those that it has."""
    kind = SYSTEMS[model]
    known = {field.name for field in dataclasses.fields(kind)}
    small = {name: value for name, value in SYSTEM.items() if name in known}
    if model == "realnvp":
        small["discriminator_size"] = 2  # CQF's is its latent_size
    return tfcq.Config(
        model=model,
        data=tfcq.DataConfig(image_size=image_size, **(data or {})),
        system=kind(**small | system),
        training=tfcq.TrainingConfig(**(TRAINING | (training or {}))),
    )


def images(shape, count=8, seed=0):
    """Reproducible uint8 [count, *shape]: smooth blobs with noise, so that no channel and no pixel is constant."""
    random = np.random.RandomState(seed)
    height, width, channels = shape
    rows, columns = np.mgrid[0:height, 0:width]
    centres = random.uniform(0, (height, width), (count, channels, 2))
    squares = (rows - centres[..., 0, None, None]) ** 2 + (columns - centres[..., 1, None, None]) ** 2
    blobs = 200.0 * np.exp(-squares / (height * width / 8.0)) + random.uniform(0, 50, (count, channels, height, width))
    return np.clip(blobs, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


def dataset(shape, count=20):
    """An `ImageDataset` of `images`, all of them in the train split."""
    return datasets.ImageDataset("tiny: images", shape, {"train": (images(shape, count).__getitem__, np.arange(count))}, False)


def shape_of(config, channels=1):
    """(H, W, C) of a config's images."""
    return (config.data.image_size, config.data.image_size, channels)


def build(config, channels=1):
    """An untrained, uncompiled model."""
    return models.build(config, shape_of(config, channels), CLASSES if config.class_conditional else None)


def compiled(config, channels=1, optimizer=fused_optimizers.Adamax, learning_rate=2e-3):
    """A model with optimizers, attached to `dataset`, its data-dependent weights set from `images`."""
    model = build(config, channels)
    model.attach(dataset(model.image_shape), config.training.batch_size)
    model.compile(
        {name: optimizer(learning_rate) for name in model.optimized_variables()},
        jit_compile=config.training.jit_compile,
        clip_norm=config.training.clip_norm,
        ema_decay=config.training.ema_decay,
        micro_batches=config.training.micro_batches,
    )
    model.initialize(images(model.image_shape))
    return model


def fit(model, batch, steps, whole=None):
    """`steps` steps of `model.fit_batches` on the same batch, then `settle`; returns a list of one dict of logs a step.

    `whole`: the whole batch, where `batch` has a worker's rows of it.
    """
    rows = []
    keep = keras.callbacks.LambdaCallback(on_train_batch_end=lambda _, logs: rows.append(dict(logs)))
    batches, whole = (None if one is None else tf.data.Dataset.from_tensors(one).repeat() for one in (batch, whole))
    model.fit_batches(batches, whole, steps_per_epoch=steps, verbose=0, callbacks=[keep])
    model.settle()
    return rows


def values(variables):
    """Copies of Keras or TensorFlow variables as a list of arrays."""
    return [tf.convert_to_tensor(variable).numpy() for variable in variables]


def changed(before, variables):
    """Paths of the variables that are not, to the bit, as in `before` (from `values`)."""
    pairs = zip(variables, before, values(variables), strict=True)
    return {variable.path for variable, old, new in pairs if old.tobytes() != new.tobytes()}


def perturb(variables, scale=0.3, seed=0):
    """Adds reproducible noise to variables, so that nothing is at its special first value (zeros, identities)."""
    random = np.random.RandomState(seed)
    for variable in variables:
        variable.assign(
            tf.convert_to_tensor(variable) + scale * random.standard_normal(variable.shape).astype(np.float32)
        )


def make_workdir(folder, config):
    """The workdir of a run that took one step, without the time that takes: weights are random. Returns its model."""
    source = datasets.load(config.data)
    workdir.open_for(config, folder)
    classes = source.classes.facts() if config.class_conditional else None
    model = models.build(config, source.image_shape, classes and shares(classes, False))
    model.attach(source, config.training.batch_size)
    workdir.keep_data(folder, source, digests=model.files_read, classes=classes)
    model.compile({name: keras.optimizers.Adamax() for name in model.optimized_variables()})
    model.initialize(images(model.image_shape))
    perturb(model.trainable_variables)
    model.step.assign(1)
    Checkpoints(folder, model, 2).save()
    return model
