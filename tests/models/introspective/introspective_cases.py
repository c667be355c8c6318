"""Models of 16x16 in colour for the tests of introspective systems."""

import keras
import numpy as np
import tiny_models as tiny

SHAPE = (16, 16, 3)
IMAGES = tiny.images(SHAPE, 8)
SYSTEMS = ("introvae", "soft_introvae")


def model_of(name, training=None, optimizer=keras.optimizers.Adamax, away=0.1, **options):
    """A model of 16x16 in colour, `away` from its first values."""
    margin = {"margin": "5"} if name == "introvae" else {}
    config = tiny.config(16, model=name, training=training, **({"pretraining_steps": 0} | margin | options))
    model = tiny.compiled(config, 3, optimizer)
    tiny.perturb(model.trainable_variables, away)
    return model


def numpy_kl(mean, log_variance):
    mean, log_variance = (np.asarray(value, np.float64) for value in (mean, log_variance))
    return 0.5 * np.sum(-1.0 - log_variance + mean**2 + np.exp(log_variance), axis=-1)
