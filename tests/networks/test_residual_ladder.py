"""The residual ladder of latents: Table 6 of Shmelkov et al. 2018, and a start at which all of its layers count alike."""

import functools

import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny
from hierarchy_cases import CHANNELS, TAG, features_of, make, make_plan, record, row_noise

from tfcq.networks.convolutions import data_dependent_initialization
from tfcq.networks.residual import ResidualBlock, discriminator

# The start.

STARTS = {  # normalisation, data-dependent initialisation, form of the coarsest layer, blocks, channels of the flows' context
    "none": ("none", False, "map", 1, 0),
    "none-vector": ("none", False, "vector", 1, 0),
    "batch-blocks": ("batch", False, "map", 3, 0),
    "weight-vector-blocks": ("weight", False, "vector", 3, 0),
    "weight-initialized-blocks": ("weight", True, "map", 3, 0),
    "weight-initialized-vector": ("weight", True, "vector", 1, 0),
    "weight-initialized-flow": ("weight", True, "map", 1, None),
}


class Draws:
    """Given noise in the place of a `RowNoise`: an array for each layer of latents."""

    def __init__(self, arrays):
        self.arrays = arrays

    def normal(self, shape, tag):
        return tf.constant(self.arrays[tag - TAG])


@functools.cache
def start(name):
    """Of each layer of latents at the start: the variance of the means that it causes, and its KL in nats."""
    normalization, initialized, form, blocks, context = STARTS[name]
    plan = make_plan(
        16, 2, 3, 4, form, context, network="residual", normalization=normalization, blocks=blocks, latent_channels=8
    )
    encoder, decoder = make(plan)
    features = features_of(plan, 16)
    if initialized:
        with data_dependent_initialization():
            decoder.infer(encoder(features), row_noise(16), TAG)
    training = normalization == "batch"
    generator = np.random.default_rng(1)
    noise = [generator.normal(size=(32, *layer.shape)).astype(np.float32) for layer in decoder.latents]

    def means(arrays):
        return decoder.generate(Draws(arrays), TAG, training=training).numpy()

    before, variances = means(noise), []
    for index, values in enumerate(noise):
        others = list(noise)
        others[index] = generator.normal(size=values.shape).astype(np.float32)
        # The mean square of the difference of two independent values is twice their variance.
        variances.append(np.mean(np.square(means(others) - before)) / 2.0)
    _, inferred = decoder.infer(encoder(features, training=training), row_noise(16), TAG, training=training)
    return variances, [np.mean(np.sum(layer.kl, axis=-1)) for layer in inferred]


@pytest.mark.parametrize("name", STARTS)
def test_at_the_start_every_layer_of_latents_causes_as_much_of_the_means(name):
    variances, _ = start(name)
    assert max(variances) < 3.0 * min(variances), variances
    assert 0.5 < sum(variances) < 2.0  # and all together as much as latents have, with any number of layers


@pytest.mark.parametrize("name", STARTS)
def test_at_the_start_every_map_of_latents_has_about_the_same_kl(name):
    (_, initialized, form, blocks, _), (_, divergences) = STARTS[name], start(name)
    later = divergences[1:]
    assert max(later) < (3.0 if blocks == 1 else 6.0) * min(later), divergences
    # The first layer is apart: its prior is fixed, its maps have borders for the most part, or it is a vector. A map starts
    # with about a third of the others' KL, or an eighth where the evidence has the scale that weights happen to give it.
    assert form == "vector" or (0.2 if initialized else 0.1) * min(later) < divergences[0] < max(later), divergences


# Table 6.


def weights_of_convolution(kernel_size, inputs, outputs):
    return kernel_size**2 * inputs * outputs + outputs


def weights_of_block(inputs, outputs, joined=0):
    """Two 3x3 convolutions, of which the first one sees the latents too; 1x1 convolutions where widths differ."""
    weights = weights_of_convolution(3, inputs + joined, outputs) + weights_of_convolution(3, outputs, outputs)
    weights += weights_of_convolution(1, inputs, outputs) if inputs != outputs else 0
    return weights + (weights_of_convolution(1, joined, outputs) if joined else 0)


def count(*layers):
    return sum(int(np.prod(weight.shape)) for layer in layers for weight in layer.trainable_weights)


def blocks_of(network):
    layers = network._flatten_layers(include_self=False)
    return [layer for layer in layers if isinstance(layer, ResidualBlock)]


def test_the_weights_of_table_6():
    """32x32 images, 32 channels of latents: the widths and the order of the layers are the table's, word for word."""
    encoder, decoder = make(make_plan(32, 3, 3, 32, network="residual", latent_channels=32))
    assert count(encoder.stem) == weights_of_convolution(3, 3, 16)
    up = [(16, 32), (32, 64), (64, 128), (128, 256)]  # block 32, down 64, down 128, down 256
    assert [count(block) for block in blocks_of(encoder)] == [weights_of_block(*sizes) for sizes in up]
    assert [block.resampling for block in blocks_of(encoder)] == ["none", "down", "down", "down"]
    down = [(256, 256, 0), (256, 128, 32), (128, 64, 32), (64, 32, 32)]  # up 256, up 128, up 64, block 32
    assert [count(block) for block in blocks_of(decoder)] == [weights_of_block(*sizes) for sizes in down]
    assert [block.resampling for block in blocks_of(decoder)] == ["up", "up", "up", "none"]
    assert count(*blocks_of(decoder)) == pytest.approx(1.88e6, rel=0.01)
    assert count(decoder.output_layer) == weights_of_convolution(3, 32, 3)
    judge = discriminator((32, 32, 3), 4, 32)
    assert [block.resampling for block in blocks_of(judge)] == ["none", "down", "down", "down"]
    expected = weights_of_convolution(3, 3, 16) + sum(weights_of_block(*sizes) for sizes in up) + 256 + 1
    assert count(judge) == expected


@pytest.mark.parametrize("levels", [0, 1])
def test_the_sizes_of_table_6(levels, monkeypatch):
    """32x32 images halved to 4x4, width 32: 16 - 32 - 64 - 128 - 256 on the way up, 256 - 128 - 64 - 32 on the way down."""
    plan = make_plan(32, 3, 3, 32, network="residual", levels=levels)
    encoder, decoder = make(plan)
    joined = CHANNELS if levels == 0 else 0  # latents that stand beside the state, at all levels but the top one
    up = [
        ((32, 32, 16), (32, 32, 32)),
        ((32, 32, 32), (16, 16, 64)),
        ((16, 16, 64), (8, 8, 128)),
        ((8, 8, 128), (4, 4, 256)),
    ]
    down = [
        ((4, 4, 256), (8, 8, 256)),
        ((8, 8, 256 + joined), (16, 16, 128)),
        ((16, 16, 128 + joined), (32, 32, 64)),
        ((32, 32, 64 + joined), (32, 32, 32)),
    ]
    calls = record(monkeypatch, ResidualBlock, "__call__")

    def sizes():
        return [(tuple(inputs.shape[1:]), tuple(outputs.shape[1:])) for _, (inputs,), outputs in calls]

    evidence = encoder(features_of(plan, 1))
    assert sizes() == up
    calls.clear()
    decoder.infer(evidence, row_noise(1), TAG)
    assert sizes() == down
    assert (encoder.stem.filters, encoder.stem.kernel_size, encoder.stem.strides) == (16, 3, 1)
    assert decoder.top.output_shape == (None, 4, 4, 256)
    assert (decoder.output_layer.filters, decoder.output_layer.kernel_size) == (3, 3)


# The posteriors' flows.


@pytest.mark.parametrize("network", ["standard", "plain", "residual"])
def test_flows_are_as_wide_as_their_level(network):
    """As in the program of Kingma et al. 2016: the hidden layers and the context have the channels of the level."""
    plan = make_plan(8, 2, width=4, network=network, context=None, blocks=2)
    _, decoder = make(plan)
    for (level, _), layer in zip(plan.layers, decoder.latents, strict=True):
        assert layer.flow.network.width == layer.flow.network.context_channels == plan.channels(level)
        assert layer.flow.network.context_convolution is None


@pytest.mark.parametrize(("width", "expected"), [(0, [16, 8, 4]), (5, [5, 5, 5])])
def test_the_option_for_the_width_of_flows(width, expected):
    model = tiny.build(tiny.config(8, network="residual", posterior="iaf", iaf_width=width, **tiny.ROWS["vae"]))
    assert [layer.flow.network.width for layer in model.decoder.latents] == expected
