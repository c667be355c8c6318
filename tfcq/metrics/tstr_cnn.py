"""Train on synthetic, test on real, with a small convolutional network on pixels: see `tfcq.metrics.tstr`.

The recipe is fixed, so that numbers compare: images of more than 32 pixels a side are averaged down to 32; two convolutions of 32
and two of 64 channels, 3x3, the second and fourth with stride 2, a layer of 128 units, ReLU; Adam with batches of 64, its
learning rate from 0.001 to 0 along a cosine over 20 epochs, but at least 300 and at most 3000 steps. There is no augmentation.
Weights, order and so the result follow from the seed, up to the rounding of a machine.
"""

from __future__ import annotations

import numpy as np

from tfcq.machine.settings import keras_defaults
from tfcq.metrics.metric import Metric
from tfcq.metrics.tstr import Classifier, measured, train_and_test

SIDE = 32
"""Pixels of a side that the network sees at most."""

_BATCH, _EPOCHS, _FEWEST, _MOST = 64, 20, 300, 3000
_LEARNING_RATE = 1e-3
_AT_A_TIME = 512


def fit(images: np.ndarray, classes: np.ndarray, seed: int = 0) -> Classifier:
    """A `Classifier` of images uint8 [N, H, W, C].

    Args:
        images: uint8 [N, H, W, C].
        classes: str [N].
        seed: of the first weights and of the order.
    """
    names, numbers = np.unique(classes, return_inverse=True)
    size = min(_BATCH, len(images))
    steps = int(np.clip(_EPOCHS * len(images) // size, _FEWEST, _MOST))
    order = _order(len(images), size * steps, seed)
    with keras_defaults():
        model = _network(_seen(images[:1]).shape[1:], len(names), steps, seed)
        for step in range(steps):
            batch = order[step * size : (step + 1) * size]
            model.train_on_batch(_seen(images[batch]), numbers[batch])

    def classify(some):
        with keras_defaults():
            pieces = [some[start : start + _AT_A_TIME] for start in range(0, len(some), _AT_A_TIME)]
            logits = [model.predict_on_batch(_seen(piece)) for piece in pieces]
        return names[np.concatenate(logits).argmax(axis=1)]

    return classify


def _seen(images):
    """What the network gets of images uint8 [N, H, W, C]: float32 [N, h, w, C] in [-1, 1]."""
    import tensorflow as tf

    if max(images.shape[1:3]) > SIDE:
        images = tf.image.resize(images, (SIDE, SIDE), tf.image.ResizeMethod.AREA).numpy()
    return np.asarray(images, np.float32) / 127.5 - 1.0


def _order(count, length, seed):
    """`length` numbers below `count`: permutations, one after the other."""
    random = np.random.default_rng(seed)
    return np.concatenate([random.permutation(count) for _ in range(-(-length // count))])[:length]


def _network(shape, num_classes, steps, seed):
    import keras

    def weights(number):
        return keras.initializers.GlorotUniform(seed=(seed * 8 + number) % 2**31)

    layers = [keras.layers.Input(shape)]
    for number, (channels, stride) in enumerate([(32, 1), (32, 2), (64, 1), (64, 2)]):
        layers.append(keras.layers.Conv2D(channels, 3, stride, "same", activation="relu", kernel_initializer=weights(number)))
    layers += [keras.layers.Flatten(), keras.layers.Dense(128, "relu", kernel_initializer=weights(4))]
    layers.append(keras.layers.Dense(num_classes, kernel_initializer=weights(5)))
    model = keras.Sequential(layers)
    rate = keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, jit_compile=False)
    return model


def _measure(real, generated, seed, train, num_samples, num_train_images):
    of_generated, of_train, of_test = ((one.images, one.classes[: len(one.images)]) for one in (generated, train, real))
    tested = train_and_test(fit, of_generated, of_train, of_test, seed)
    return measured(tested, "tstr_cnn", "convolutional network on pixels, a fixed recipe (tfcq.metrics.tstr_cnn)")


METRIC = Metric(
    _measure,
    needs="images",
    floor=False,
    train=True,
    options=("num_samples", "num_train_images"),
    classes=True,
    num_images=lambda num_samples, num_train_images: max(num_samples, num_train_images),
)
