"""The hierarchy of latents as a network: shapes, widths, gradients, precision, seeds, checkpoints, its draws."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny

from tfcq.flows.autoregressive import InverseAutoregressiveFlow
from tfcq.networks.convolutions import Convolution, data_dependent_initialization
from tfcq.networks.hierarchy import Decoder, Encoder, Plan
from tfcq.networks.latents import LatentLayer
from tfcq.networks.residual import ResidualBlock
from tfcq.randomness import RowNoise, row_seeds

CHANNELS = 3  # of each layer of latents
CONTEXT = 4  # channels of the flows' context
TAG = 5
NETWORKS = pytest.mark.parametrize("network", ["plain", "residual"])
FORMS = pytest.mark.parametrize("form", ["map", "vector"])
POSTERIORS = pytest.mark.parametrize("context", [0, CONTEXT], ids=["gaussian", "flow"])
HIERARCHIES = pytest.mark.parametrize(
    ("network", "form", "context"),
    [("plain", "map", CONTEXT), ("plain", "vector", 0), ("residual", "map", 0), ("residual", "vector", CONTEXT)],
)
NORMALIZATIONS = pytest.mark.parametrize("normalization", ["none", "batch", "weight"])


@pytest.fixture
def mixed_precision():
    before = keras.config.dtype_policy()
    yield lambda: keras.config.set_dtype_policy("mixed_bfloat16")
    keras.config.set_dtype_policy(before)


def make_flow(seed, side):
    return InverseAutoregressiveFlow(CONTEXT, 2, 1 if side == 1 else 3, seed)


def make_plan(size=8, halvings=2, channels=1, width=4, form="map", context=0, **options):
    return Plan(
        (size, size, channels),
        halvings,
        width,
        **{"latent_channels": CHANNELS, "latent_form": form, "context_channels": context} | options,
    )


def make(plan, seed=0):
    """An encoder and a decoder, as a CQF has them."""
    return Encoder(plan, seed + 1), Decoder(plan, make_flow, seed)


def shaken(plan):
    """An encoder and a decoder none of whose weights is what it was made as."""
    encoder, decoder = make(plan)
    tiny.perturb([*encoder.trainable_variables, *decoder.trainable_variables], 0.05)
    return encoder, decoder


def features_of(plan, count=4, scale=1.0):
    return scale * tf.random.stateless_normal((count, *plan.image_shape), (3, 1))


def row_noise(count=4):
    return RowNoise(row_seeds(count, 7))


def layers_within(*layers, kind=Convolution):
    found = {id(inner): inner for layer in layers for inner in layer._flatten_layers(include_self=False)}
    return [layer for layer in found.values() if isinstance(layer, kind)]


def record(monkeypatch, kind, method):
    """A list that fills with (the object, its positional arguments, what it returns) at each call of `kind.method`."""
    calls, original = [], getattr(kind, method)

    def recording(self, *arguments, **options):
        calls.append((self, arguments, original(self, *arguments, **options)))
        return calls[-1][2]

    monkeypatch.setattr(kind, method, recording)
    return calls


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


@pytest.mark.parametrize("levels", [0, 1])
def test_residual_channels_are_those_of_table_6(levels, monkeypatch):
    """32x32 images halved to 4x4, width 32: 16 - 32 - 64 - 128 - 256 on the way up, and mirrored on the way down."""
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
        ((4, 4, 256), (8, 8, 128)),
        ((8, 8, 128 + joined), (16, 16, 64)),
        ((16, 16, 64 + joined), (32, 32, 32)),
        ((32, 32, 32 + joined), (32, 32, 32)),
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


def small_plan(network, form, context=0, **options):
    """Two resolutions with latents, 2x2 and 4x4, two layers each if they are maps without flows."""
    size, halvings = (8, 2) if network == "plain" else (4, 1)
    options = {"blocks": 2 if form == "map" and not context else 1} | options
    return make_plan(size, halvings, form=form, context=context, network=network, **options)


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
    if network == "plain":
        assert len(norms) == 4  # two halvings, the first state, one doubling
        assert biased == outermost | {layer for layer in layers_within(decoder) if layer.name.startswith("join")}
    else:
        blocks = layers_within(encoder, decoder, kind=ResidualBlock)
        assert len(norms) == 2 * len(blocks) == 8 * plans["batch"].blocks  # two resolutions, up and down
        assert biased == outermost | {layer for block in blocks for layer in (block.second, block.skip) if layer}
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
    # Six channels of context for a flow of four: there is a convolution between them.
    plan = small_plan(network, form, CONTEXT + 2, normalization="weight")
    encoder, decoder = make(plan)
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


# Draws.


class OtherAt:
    """`noise` with another draw for one tag; `tags` are those that were drawn."""

    def __init__(self, noise, tag=None):
        self.tags, self._noise, self._tag = [], noise, tag

    def normal(self, row_shape, tag):
        self.tags.append(tag)
        return (self._noise.fold(1) if tag == self._tag else self._noise).normal(row_shape, tag)


@HIERARCHIES
def test_decoding_what_was_drawn_gives_the_means_of_the_draw(network, form, context, monkeypatch):
    plan = small_plan(network, form, context)
    encoder, decoder = shaken(plan)
    means, inferred = decoder.infer(encoder(features_of(plan)), row_noise(), TAG)
    assert np.all(np.isfinite(means))
    np.testing.assert_allclose(decoder.decode(decoder.join([layer.latents for layer in inferred])), means, rtol=1e-5)
    calls = record(monkeypatch, LatentLayer, "generate")
    means = decoder.generate(row_noise(), TAG, 0.7)
    latents = decoder.join([latents for _, _, latents in calls])
    assert len(calls) == len(plan.layers)
    np.testing.assert_allclose(decoder.decode(latents), means, rtol=1e-5)

    # All of the latents are heard.
    with tf.GradientTape() as tape:
        tape.watch(latents)
        outputs = tf.reduce_sum(tf.square(decoder.decode(latents)))
    assert np.all(tape.gradient(outputs, latents).numpy() != 0.0)


@NETWORKS
def test_one_layer_of_latents_is_decoded_as_it_is(network):
    decoder = shaken(small_plan(network, "vector", levels=1))[1]
    assert decoder.latent_shape == (CHANNELS,)
    noise = row_noise()
    np.testing.assert_allclose(
        decoder.decode(noise.normal((CHANNELS,), TAG)), decoder.generate(noise, TAG), rtol=1e-5, atol=1e-6
    )


@NETWORKS
def test_temperature_scales_the_deviations_of_the_priors(network, monkeypatch):
    plan = small_plan(network, "vector")
    decoder = shaken(plan)[1]
    calls = record(monkeypatch, LatentLayer, "generate")

    def draw(temperature):
        """Means; and of each layer its latents and its prior's loc and scale."""
        calls.clear()
        means = decoder.generate(row_noise(), TAG, temperature)
        priors = [layer.prior(state) for layer, (state, _, _), _ in calls]
        return means, [(latents, prior.loc, prior.scale) for (_, _, latents), prior in zip(calls, priors, strict=True)]

    means, layers = draw(0.0)
    for latents, loc, _ in layers:
        np.testing.assert_array_equal(latents, np.broadcast_to(loc, latents.shape))
    np.testing.assert_allclose(decoder.decode(decoder.join([latents for latents, _, _ in layers])), means, rtol=1e-5)

    temperatures = np.float32([0.0, 0.5, 1.0, 2.0])
    means, layers = draw(temperatures)
    for number, (latents, loc, scale) in enumerate(layers):
        noise = row_noise().normal(latents.shape[1:], TAG + number).numpy()
        factors = temperatures.reshape(-1, *[1] * (noise.ndim - 1))
        np.testing.assert_allclose(latents, loc + scale * factors * noise, rtol=1e-5, atol=1e-6)
    for row, temperature in enumerate(temperatures):  # one a row is what each row gets alone
        np.testing.assert_allclose(means[row], draw(float(temperature))[0][row], rtol=1e-4, atol=1e-5)


@HIERARCHIES
def test_without_noise_every_posterior_gives_its_central_value(network, form, context):
    plan = small_plan(network, form, context)
    encoder, decoder = shaken(plan)

    class Zeros:
        def normal(self, row_shape, tag):
            return tf.zeros((4, *row_shape))

    evidence = encoder(features_of(plan))
    means, inferred = decoder.infer(evidence, None, TAG)
    expected_means, expected = decoder.infer(evidence, Zeros(), TAG)
    assert np.all(np.isfinite(means))
    np.testing.assert_allclose(means, expected_means, rtol=1e-5)
    for layer, other in zip(inferred, expected, strict=True):
        np.testing.assert_allclose(layer.latents, other.latents, rtol=1e-5)
        assert layer.latents.shape == other.latents.shape and layer.log_ratio.shape == (4,)


@NETWORKS
@pytest.mark.parametrize("way", ["infer", "generate"])
def test_each_layer_draws_with_its_own_tag(network, way, monkeypatch):
    plan = small_plan(network, "map", CONTEXT, blocks=2)
    encoder, decoder = shaken(plan)
    evidence = encoder(features_of(plan))
    calls = record(monkeypatch, LatentLayer, way)

    def draw(noise):
        calls.clear()
        decoder.infer(evidence, noise, TAG) if way == "infer" else decoder.generate(noise, TAG)
        latents = [outputs.latents if way == "infer" else outputs for _, _, outputs in calls]
        assert all(np.all(np.isfinite(values)) for values in latents)
        return latents

    noise = OtherAt(row_noise())
    usual = draw(noise)
    assert noise.tags == [TAG + number for number in range(len(plan.layers))]
    for number in range(len(plan.layers)):
        other = draw(OtherAt(row_noise(), TAG + number))
        for before, after in zip(usual[:number], other, strict=False):
            np.testing.assert_array_equal(before, after)
        assert np.all(usual[number].numpy() != other[number].numpy())
        # A layer that heard another draw reads another state.
        assert all(np.any(before.numpy() != after.numpy()) for before, after in zip(usual[number:], other[number:]))
