"""What the coarsest latents and the discriminators of CQF see of an image: measured by the gradients of narrow copies."""

import dataclasses
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from commands import config_from

from tfcq import models
from tfcq.networks import convolutional, residual

CONFIGS = pathlib.Path(__file__).parents[3] / "configs"
# What the size of a receptive field depends on.
STRUCTURE = ("network", "discriminator_network", "latent_size", "discriminator_size", "latent_form", "latent_levels")


def structures():
    """{flagfiles of one structure: a Config of it, as narrow as can be}."""
    alike = {}
    for path in sorted(CONFIGS.glob("*.cfg")):
        if "--model=cqf" not in path.read_text(encoding="utf-8").splitlines():
            continue
        config = config_from(f"--flagfile={path}")
        options = {name: getattr(config.system, name) for name in STRUCTURE}
        alike.setdefault((config.data.image_size, *options.values()), ([], config, options))[0].append(path.stem)
    narrow = {"width": 2, "discriminator_width": 2, "latent_channels": 1, "flow_scales": 0, "quality_weight": 1.0}
    return {
        "+".join(names): dataclasses.replace(config, system=type(config.system)(**narrow, **options))
        for names, config, options in alike.values()
    }


STRUCTURES = structures()


def seen(network, output, image_size):
    """Which pixels [H, W] of an image `output(images)` depends on.

    Every weight is made positive and so are the images: no activation rests, and nothing cancels.
    """
    for weight in network.trainable_variables:
        weight.assign(tf.ones(weight.shape) / np.prod(weight.shape[:-1]))
    images = tf.ones((1, image_size, image_size, 1))
    with tf.GradientTape() as tape:
        tape.watch(images)
        value = tf.reduce_sum(output(images))
    return tape.gradient(value, images)[0, :, :, 0].numpy() > 0


def middle(maps):
    """The pixel in the middle of maps [1, side, side, C]; of a vector, all of it."""
    return maps[:, maps.shape[1] // 2, maps.shape[2] // 2] if maps.shape.rank == 4 else maps


def last_map(discriminator, images):
    """The maps [1, side, side, C] that the discriminator's dense unit, or the mean before it, reads."""
    for layer in discriminator.layers:
        if isinstance(layer, (keras.layers.Flatten, keras.layers.GlobalAveragePooling2D)):
            return images
        images = layer(images)
    raise AssertionError("no last map")


@pytest.mark.parametrize("names", STRUCTURES)
def test_the_coarsest_latents_and_the_discriminator_see_the_whole_image(names):
    config = STRUCTURES[names]
    size = config.data.image_size
    model = models.build(config, (size, size, 1))
    assert seen(model.encoder, lambda images: middle(model.encoder(images)[0]), size).all()
    discriminator = model.discriminator
    assert seen(discriminator, discriminator, size).all()
    # The plain network is smaller than any of the papers: 22 of 32 pixels, joined by its dense unit alone.
    if config.system.discriminator_network != "plain":
        assert seen(discriminator, lambda images: middle(last_map(discriminator, images)), size).all()


@pytest.mark.parametrize(
    ("make", "side", "last", "expected"),
    [
        (residual.discriminator, 64, 8, 42),  # by hand: 3, then 4 and a mean of 2 pixels at each resolution: 7 11+1 20+2 38+4
        (residual.discriminator, 128, 8, 82),
        (convolutional.discriminator, 32, 4, 22),  # 4x4 windows, 1, 2, 4 pixels apart: 4 + 2 * 3 + 4 * 3
    ],
)
def test_receptive_fields_by_hand(make, side, last, expected):
    network = make((side, side, 1), last, 2)
    rows, columns = np.nonzero(seen(network, lambda images: middle(last_map(network, images)), side))
    assert np.ptp(rows) + 1 == np.ptp(columns) + 1 == expected


def test_the_discriminator_stops_at_its_own_size():
    config = next(config for config in STRUCTURES.values() if config.data.image_size == 48)
    sides = []
    for size in (0, 6, 12):  # 0: that of the coarsest latents
        system = dataclasses.replace(config.system, discriminator_size=size)
        model = models.build(dataclasses.replace(config, system=system), (48, 48, 1))
        sides.append(last_map(model.discriminator, tf.zeros((1, 48, 48, 1))).shape[1])
    assert sides == [3, 6, 12]
