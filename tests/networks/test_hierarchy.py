"""The hierarchy of latents as a network: shapes, widths, gradients, precision, seeds, checkpoints."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hierarchy_cases import (
    CHANNELS,
    CONTEXT,
    HIERARCHIES,
    NETWORKS,
    TAG,
    features_of,
    make,
    make_flow,
    make_plan,
    record,
    row_noise,
    small_plan,
)

from tfcq.networks.convolutions import Convolution, data_dependent_initialization
from tfcq.networks.hierarchy import Decoder
from tfcq.networks.residual import ResidualBlock

FORMS = pytest.mark.parametrize("form", ["map", "vector"])
POSTERIORS = pytest.mark.parametrize("context", [0, CONTEXT], ids=["gaussian", "flow"])
NORMALIZATIONS = pytest.mark.parametrize("normalization", ["none", "batch", "weight"])


@pytest.fixture
def mixed_precision():
    before = keras.config.dtype_policy()
    yield lambda: keras.config.set_dtype_policy("mixed_bfloat16")
    keras.config.set_dtype_policy(before)


def layers_within(*layers, kind=Convolution):
    found = {id(inner): inner for layer in layers for inner in layer._flatten_layers(include_self=False)}
    return [layer for layer in found.values() if isinstance(layer, kind)]


# Shapes and widths.

SHAPES = [  # network, form, context, size, halvings, channels, levels, blocks
    ("plain", "map", 0, 8, 1, 1, 1, 1),
    ("plain", "map", CONTEXT, 8, 2, 3, 1, 3),
    ("plain", "vector", CONTEXT, 8, 3, 1, 0, 1),
    ("plain", "vector", 0, 32, 3, 3, 2, 2),
    ("plain", "map", 0, 64, 3, 3, 0, 1),
    ("residual", "vector", 0, 8, 1, 1, 1, 1),
    ("residual", "vector", CONTEXT, 8, 2, 3, 1, 3),
    ("residual", "map", CONTEXT, 8, 3, 1, 0, 1),
    ("residual", "map", 0, 32, 3, 3, 2, 2),
    ("residual", "vector", 0, 64, 3, 1, 0, 1),
]


@pytest.mark.parametrize("sizes", SHAPES, ids=str)
def test_shapes(sizes):
    network, form, context, size, halvings, channels, levels, blocks = sizes
    plan = make_plan(size, halvings, channels, 2, form, context, network=network, levels=levels, blocks=blocks)
    encoder, decoder = make(plan)
    evidence = encoder(features_of(plan, 2))
    means, inferred = decoder.infer(evidence, row_noise(2), TAG)

    # Counted from the sizes alone: sides double from level to level; the coarsest layer may be a vector.
    levels = levels or halvings + (network == "residual")
    sides = [size // 2**halvings * 2**level for level in range(levels)]
    shapes = [(side, side, CHANNELS) for side in sides for _ in range(blocks)]
    if form == "vector":
        shapes[0] = (CHANNELS,)
    assert [tuple(layer.shape) for layer in decoder.latents] == shapes
    statistics = 2 * CHANNELS + context
    assert [tuple(values.shape) for values in evidence] == [(2, *shape[:-1], statistics) for shape in shapes]
    assert [tuple(layer.latents.shape) for layer in inferred] == [(2, *shape) for shape in shapes]
    assert all(layer.kl.shape == (2, CHANNELS) and layer.log_ratio.shape == (2,) for layer in inferred)
    joined = decoder.join([layer.latents for layer in inferred])
    expected = shapes[0] if len(shapes) == 1 else (sum(int(np.prod(shape)) for shape in shapes),)
    assert decoder.latent_shape == expected and joined.shape == (2, *expected)
    assert means.shape == decoder.decode(joined).shape == decoder.generate(row_noise(2), TAG).shape
    assert means.shape == (2, *plan.image_shape)


@NETWORKS
@pytest.mark.parametrize(("levels", "blocks"), [(1, 1), (2, 3), (0, 2)])
def test_number_and_order_of_the_layers_of_latents(network, levels, blocks):
    plan = make_plan(network=network, levels=levels, blocks=blocks)
    _, decoder = make(plan)
    every = 3 if network == "residual" else 2  # 2x2 and 4x4; of residual networks also the image's own 8x8
    expected = [(level, index) for level in range(levels or every) for index in range(blocks)]
    assert plan.layers == expected
    assert [layer.name for layer in decoder.latents] == [f"latents_{level}_{index}" for level, index in expected]
    # The coarsest layer has a fixed prior, and no other.
    assert [layer.head is None for layer in decoder.latents] == [True] + [False] * (len(expected) - 1)


def test_standard_channels_are_those_of_table_1():
    """The standard CNN of Miyato et al. 2018 as decoder of 32x32 images: 512 - 256 - 128 - 64 - 3; the encoder mirrors it."""
    encoder, decoder = make(make_plan(32, 3, 3, 64, network="standard", normalization="batch"))

    def sizes(network):
        return [(layer.filters, layer.kernel_size, layer.strides) for layer in layers_within(network)]

    def weights(blocks):
        return [layer.kernel.shape.num_elements() for block in blocks for layer in layers_within(block)]

    blocks = [encoder.stem, *(getattr(encoder, f"level_{level}_0") for level in (2, 1, 0))]
    assert [sizes(block) for block in blocks] == [[(64, 3, 1)], [(128, 4, 2)], [(256, 4, 2)], [(512, 4, 2)]]
    assert [block.output_shape[1:] for block in blocks] == [(32, 32, 64), (16, 16, 128), (8, 8, 256), (4, 4, 512)]
    assert weights(blocks) == [3 * 3 * 3 * 64, 4 * 4 * 64 * 128, 4 * 4 * 128 * 256, 4 * 4 * 256 * 512]
    assert decoder.top.output_shape == (None, 4, 4, 512)
    blocks = [getattr(decoder, f"level_{level}_0") for level in (0, 1, 2)]
    assert [sizes(block) for block in blocks] == [[(256, 4, 2)], [(128, 4, 2)], [(64, 4, 2)]]
    assert [block.output_shape[1:] for block in blocks] == [(8, 8, 256), (16, 16, 128), (32, 32, 64)]
    assert weights(blocks) == [4 * 4 * 512 * 256, 4 * 4 * 256 * 128, 4 * 4 * 128 * 64]
    output = decoder.output_layer
    assert (output.filters, output.kernel_size, output.strides, output.kernel.shape[2]) == (3, 3, 1, 64)
    assert decoder.generate(row_noise(2), TAG).shape == (2, 32, 32, 3)


def test_plain_channels_double_at_each_halving():
    encoder, decoder = make(make_plan(32, 3, 3, 16))

    def sizes(network):
        return [(layer.filters, layer.kernel_size, layer.strides) for layer in layers_within(network)]

    up = [sizes(getattr(encoder, f"level_{level}_0")) for level in (2, 1, 0)]
    assert up == [[(16, 4, 2)], [(32, 4, 2)], [(64, 4, 2)]]
    assert sizes(decoder.top) == [(64, 3, 1)]
    assert [sizes(getattr(decoder, f"level_{level}_0")) for level in (0, 1)] == [[(32, 4, 2)], [(16, 4, 2)]]
    output = decoder.output_layer
    assert (output.filters, output.kernel_size, output.strides) == (3, 4, 2)


# Weights.


def assert_all_have_gradients(tape, loss, weights):
    gradients = tape.gradient(loss, [weight.value for weight in weights])
    for weight, gradient in zip(weights, gradients, strict=True):
        assert gradient is not None and np.all(np.isfinite(gradient)), weight.path
        # What a normalisation would cancel leaves rounding, not zero.
        assert np.max(np.abs(gradient)) > 1e-5, weight.path


@NETWORKS
@FORMS
@NORMALIZATIONS
@POSTERIORS
def test_every_weight_gets_a_gradient_from_reconstruction_and_kl(network, form, normalization, context):
    plan = small_plan(network, form, context, normalization=normalization)
    encoder, decoder = make(plan)
    features = features_of(plan)
    with tf.GradientTape() as tape:
        means, inferred = decoder.infer(encoder(features, training=True), row_noise(), TAG, training=True)
        loss = tf.reduce_sum(tf.square(means - features)) + sum(tf.reduce_sum(layer.kl) for layer in inferred)
    assert_all_have_gradients(tape, loss, [*encoder.trainable_variables, *decoder.trainable_variables])


@NETWORKS
@NORMALIZATIONS
def test_without_inference_every_weight_gets_a_gradient_from_generation(network, normalization):
    # A context is asked for and not made: there is no posterior to read it.
    plan = small_plan(network, "vector", CONTEXT, normalization=normalization, inference=False)
    decoder = Decoder(plan, make_flow)
    assert all(layer.flow is None for layer in decoder.latents)
    with tf.GradientTape() as tape:
        means = decoder.generate(row_noise(), TAG, training=True)
        loss = tf.reduce_sum(tf.square(means - features_of(plan)))
    assert_all_have_gradients(tape, loss, decoder.trainable_variables)


@FORMS
@NETWORKS
def test_batch_normalization_takes_the_biases_before_it(network, form):
    plans = {kind: small_plan(network, form, normalization=kind) for kind in ("none", "weight", "batch")}
    networks = {kind: make(plan) for kind, plan in plans.items()}
    for kind in ("none", "weight"):
        assert not layers_within(*networks[kind], kind=keras.layers.BatchNormalization)
        assert all(layer.use_bias for layer in layers_within(*networks[kind]))
    encoder, decoder = networks["batch"]
    norms = layers_within(encoder, decoder, kind=keras.layers.BatchNormalization)
    assert all(norm.synchronized for norm in norms)
    biased = {layer for layer in layers_within(encoder, decoder) if layer.use_bias}
    outermost = {*layers_within(*decoder.latents), decoder.output_layer}
    outermost |= {layer for layer in layers_within(encoder) if layer.name.startswith("head")}
    if network != "residual":
        # Two halvings, the first state, one doubling; at the image's resolution the stem and another doubling.
        assert len(norms) == (6 if network == "standard" else 4)
        assert biased == outermost | {layer for layer in layers_within(decoder) if layer.name.startswith("join")}
    else:
        blocks = layers_within(encoder, decoder, kind=ResidualBlock)
        assert len(norms) == 2 * len(blocks) == 8 * plans["batch"].blocks  # two resolutions, up and down
        within = {layer for block in blocks for layer in (block.second, block.skip, block.joined_skip) if layer}
        assert biased == outermost | within
    dense = layers_within(decoder, kind=keras.layers.Dense)
    assert len(dense) == (form == "vector") and not any(layer.use_bias for layer in dense)


@NETWORKS
def test_mixed_precision_keeps_statistics_and_means_in_float32(mixed_precision, network):
    plan = make_plan(form="vector", context=CONTEXT, network=network)
    exact_evidence = make(plan)[0](features_of(plan))
    exact_means, exact = make(plan)[1].infer(exact_evidence, row_noise(), TAG)
    mixed_precision()
    encoder, decoder = make(plan)
    evidence = encoder(features_of(plan))
    means, inferred = decoder.infer(evidence, row_noise(), TAG)
    results = [*evidence, means, decoder.generate(row_noise(), TAG)]
    results += [value for layer in inferred for value in (layer.latents, layer.kl, layer.log_ratio)]
    assert {value.dtype for value in results} == {tf.float32}
    assert {str(weight.dtype) for weight in (*encoder.weights, *decoder.weights)} == {"float32"}
    # The policy reaches the convolutions, or the test proves nothing; and they compute what they do in float32.
    assert {layer.compute_dtype for layer in layers_within(encoder, decoder)} == {"bfloat16", "float32"}
    ways = [layer for name, layer in vars(decoder).items() if name.startswith("level")]
    assert ways and all(layer.compute_dtype == "bfloat16" for layer in layers_within(*ways))
    np.testing.assert_allclose(means, exact_means, atol=0.1 * np.std(exact_means))
    assert np.any(means.numpy() != exact_means.numpy())
    for layer, expected in zip(inferred, exact, strict=True):
        np.testing.assert_allclose(layer.latents, expected.latents, atol=0.05)


@NETWORKS
def test_two_seeds_give_two_networks_and_one_seed_one(network):
    plan = make_plan(form="vector", context=CONTEXT, network=network, normalization="weight", blocks=2)

    def weights(seed):
        return [weight.numpy() for part in make(plan, seed) for weight in part.weights]

    first, again, other = weights(0), weights(0), weights(2)
    for one, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, same)
    drawn = [index for index, values in enumerate(first) if np.ptp(values) > 0]
    assert drawn and all(np.all(first[index] != other[index]) for index in drawn)
    # Nor do two layers of one network, or of encoder and decoder, start with the same draws.
    beginnings = {tuple(first[index].ravel()[:8]) for index in drawn}
    assert len(beginnings) == len(drawn)


@HIERARCHIES
@pytest.mark.parametrize(("size", "halvings", "width"), [(8, 2, 4), (32, 3, 16)])
def test_the_posterior_starts_near_the_prior(network, form, context, size, halvings, width):
    plan = make_plan(size, halvings, 3, width, form, context, network=network)
    encoder, decoder = make(plan)
    # Logit pixels of natural images have about this standard deviation.
    evidence = encoder(features_of(plan, 8, scale=2.0))
    _, inferred = decoder.infer(evidence, row_noise(8), TAG)
    for layer, costs, statistics in zip(decoder.latents, inferred, evidence, strict=True):
        kl = np.mean(np.sum(costs.kl, axis=-1)) / np.prod(layer.shape)
        assert kl < 0.2  # nats a latent; a head of the usual size gives several
        assert np.mean(np.std(statistics, axis=0)) > 1e-3  # and still depends on the image


@FORMS
def test_evidence_of_a_layer_comes_from_the_blocks_up_to_its_own(form):
    """Of three blocks at a resolution the last on the way up serves the first on the way down."""
    plan = make_plan(4, 1, form=form, network="residual", blocks=3)
    encoder, _ = make(plan)
    with tf.GradientTape(persistent=True) as tape:
        evidence = [tf.reduce_sum(tf.square(values)) for values in encoder(features_of(plan))]
    for (level, index), value in zip(plan.layers, evidence, strict=True):
        heard = [
            tape.gradient(value, getattr(encoder, f"level_{level}_{block}").second.kernel.value) is not None
            for block in range(3)
        ]
        assert heard == [block <= 2 - index for block in range(3)]


@NETWORKS
@pytest.mark.parametrize("normalization", ["batch", "weight"])
def test_a_checkpoint_holds_every_weight(network, normalization, tmp_path):
    plan = small_plan(network, "map", CONTEXT, normalization=normalization)
    encoder, decoder = make(plan)
    weights = [*encoder.weights, *decoder.weights]
    for number, weight in enumerate(weights):
        weight.assign(np.full(weight.shape, number + 0.5))
    path = tf.train.Checkpoint(encoder=encoder, decoder=decoder).write(str(tmp_path / "weights"))

    reader = tf.train.load_checkpoint(path)
    names = {}  # of each saved tensor, by the number that was put into it
    for name in reader.get_variable_to_shape_map():
        values = reader.get_tensor(name)
        if np.asarray(values).dtype == np.float32:
            names.setdefault(float(np.ravel(values)[0]), name)
    for number, weight in enumerate(weights):
        assert weight.name in names.get(number + 0.5, "nothing"), weight.path

    others = make(plan, seed=4)
    status = tf.train.Checkpoint(encoder=others[0], decoder=others[1]).read(path)
    status.assert_consumed()
    for number, weight in enumerate([*others[0].weights, *others[1].weights]):
        np.testing.assert_array_equal(weight, np.full(weight.shape, number + 0.5), err_msg=weight.path)


@NETWORKS
@FORMS
def test_data_dependent_initialization_gives_every_layer_its_gain(network, form, monkeypatch):
    plan = small_plan(network, form, CONTEXT + 2, normalization="weight")
    encoder, _ = make(plan)
    # Six channels of context for a flow of four: there is a convolution between them.
    decoder = Decoder(plan, lambda seed, side, width, gain: make_flow(seed, side, width - 2, gain), 0)
    features = features_of(plan, 16, scale=3.0) + 1.0
    with data_dependent_initialization() as initialized:
        decoder.infer(encoder(features), row_noise(16), TAG)
    calls = record(monkeypatch, Convolution, "_outputs")
    decoder.infer(encoder(features), row_noise(16), TAG)
    layers = [layer for layer, _, _ in calls]
    assert len(layers) == len(set(layers)) == len(initialized)
    assert set(layers) == set(initialized) == set(layers_within(encoder, decoder))
    for layer, _, outputs in calls:
        outputs = outputs.numpy().reshape(-1, layer.filters).astype(np.float64)
        sees = np.any(layer.effective_kernel().numpy() != 0.0, axis=(0, 1, 2))
        gains = layer._gains() * sees  # a masked filter of a vector may see nothing, and then says nothing
        assert np.any(sees), layer.path
        np.testing.assert_allclose(outputs.mean(axis=0), 0.0, atol=2e-5 * gains.max(), err_msg=layer.path)
        np.testing.assert_allclose(outputs.std(axis=0), gains, rtol=1e-3, err_msg=layer.path)
