"""Each flow against its formula in NumPy, its start, and what it refuses."""

import math

import flow_cases
import numpy as np
import pytest
import tensorflow as tf
from numpy_layers import convolve_weight_normalized as convolve

from tfcq import flows
from tfcq.errors import UserError
from tfcq.networks.convolutions import spawn_seeds


def condition(inputs, network):
    """The residual conditioner, by its definition."""
    hidden = convolve(inputs, network.first)
    for block in range(network.blocks):
        residual = convolve(np.maximum(hidden, 0), network.inner[2 * block])
        hidden = hidden + convolve(np.maximum(residual, 0), network.inner[2 * block + 1])
    outputs = convolve(np.maximum(hidden, 0), network.last)
    return outputs[..., : network.outputs], outputs[..., network.outputs :]


@pytest.mark.parametrize("parity", [0, 1])
def test_checkerboard_coupling_is_its_formula(parity):
    flow = flows.AffineCoupling(parity=parity, width=4, blocks=2, dtype="float64")
    images = flow_cases.batch((4, 5, 2)).numpy()
    flow.build(images.shape)
    flow_cases.perturb(flow)
    kept = np.zeros((4, 5, 1))
    for row in range(4):
        for column in range(5):
            kept[row, column] = (row + column + parity) % 2 == 0
    shift, raw = condition(np.concatenate([images * kept, 0 * images[..., :1] + kept], axis=-1), flow.conditioner)
    log_scale = (1 - kept) * float(flow.log_scale_factor.value) * np.tanh(raw)
    expected = kept * images + (1 - kept) * (images + shift) * np.exp(log_scale)
    features, log_det = flow.inverse_and_log_det(images)
    np.testing.assert_allclose(features, expected, rtol=1e-10)
    np.testing.assert_allclose(log_det, log_scale.sum(axis=(1, 2, 3)), rtol=1e-10)
    # What is kept is kept to the last bit: both directions read the very same values.
    np.testing.assert_array_equal((features * kept).numpy(), images * kept)


@pytest.mark.parametrize("parity", [0, 1])
def test_channel_coupling_is_its_formula(parity):
    flow = flows.AffineCoupling("channel", parity, width=4, blocks=1, dtype="float64")
    images = flow_cases.batch((3, 3, 4)).numpy()
    flow.build(images.shape)
    flow_cases.perturb(flow)
    halves = [images[..., :2], images[..., 2:]]
    shift, raw = condition(halves[parity], flow.conditioner)
    log_scale = float(flow.log_scale_factor.value) * np.tanh(raw)
    halves[1 - parity] = (halves[1 - parity] + shift) * np.exp(log_scale)
    features, log_det = flow.inverse_and_log_det(images)
    np.testing.assert_allclose(features, np.concatenate(halves, axis=-1), rtol=1e-10)
    np.testing.assert_allclose(log_det, log_scale.sum(axis=(1, 2, 3)), rtol=1e-10)
    assert flow.conditioner.first.direction.shape[2] == 2


@pytest.mark.parametrize("options", [{}, {"mask": "channel"}, {"weight_normalization": False}])
def test_a_coupling_starts_as_the_identity(options):
    flow = flows.AffineCoupling(**options, width=4, blocks=1)
    images = flow_cases.batch((4, 4, 2), dtype="float32")
    features, log_det = flow.inverse_and_log_det(images)
    np.testing.assert_array_equal(features, images)
    np.testing.assert_array_equal(log_det, np.zeros(5))


def test_actnorm_is_its_formula():
    flow = flows.ActNorm(dtype="float64")
    images = flow_cases.batch((2, 3, 2)).numpy()
    flow.build(images.shape)
    flow.loc.assign([1.0, -2.0])
    flow.log_scale.assign([0.5, -0.25])
    features, log_det = flow.inverse_and_log_det(images)
    np.testing.assert_allclose(features, (images - [1.0, -2.0]) / np.exp([0.5, -0.25]), rtol=1e-12)
    np.testing.assert_allclose(log_det, np.full(5, -2 * 3 * (0.5 - 0.25)), rtol=1e-12)


def test_actnorm_starts_by_normalizing_its_batch_and_survives_a_constant_channel():
    flow = flows.ActNorm()
    images = 3.0 * flow_cases.batch((4, 4, 3), size=16, dtype="float32").numpy() + [1.0, -5.0, 0.0]
    images[..., 2] = 4.0
    features = flow.initialize(images).numpy()
    np.testing.assert_allclose(features.mean(axis=(0, 1, 2)), [0, 0, 0], atol=1e-5)
    np.testing.assert_allclose(features.var(axis=(0, 1, 2)), [1, 1, 0], atol=1e-5)
    np.testing.assert_array_equal(flow.log_scale.value[2], 0.0)
    assert np.all(np.isfinite(flow.inverse_and_log_det(images)[1]))


def test_every_actnorm_of_a_flow_is_initialized_by_what_reaches_it():
    flow = flows.ImageFlow(scales=2, couplings=2, width=4, blocks=1, dtype="float64")
    images = 2.0 * flow_cases.batch((4, 4, 3), size=16) + 1.0
    flow.build((None, 4, 4, 3))
    # Couplings away from the identity, so that each normalisation has something to do.
    flow_cases.perturb(flow)
    flow.initialize(images)
    # Walk into the finest chain: after each ActNorm, mean 0 and variance 1.
    normalized = 0
    for layer in in_order(flow.flows[0].fine):
        images = layer.inverse_and_log_det(images)[0]
        if isinstance(layer, flows.ActNorm):
            normalized += 1
            np.testing.assert_allclose(np.mean(images, axis=(0, 1, 2)), 0, atol=1e-9)
            np.testing.assert_allclose(np.var(images, axis=(0, 1, 2)), 1, atol=1e-9)
    assert normalized == 4


def test_batch_normalization_is_its_formula_in_training_and_out_of_it():
    flow = flows.BatchNormalizationFlow(dtype="float64")
    images = (2.0 * flow_cases.batch((2, 3, 2), size=8) + [1.0, -1.0]).numpy()
    mean, variance = images.mean(axis=(0, 1, 2)), images.var(axis=(0, 1, 2))
    features, log_det = flow.inverse_and_log_det(images, training=True)
    np.testing.assert_allclose(features, (images - mean) / np.sqrt(variance + 1e-4), rtol=1e-10)
    np.testing.assert_allclose(log_det, np.full(8, -0.5 * 6 * np.log(variance + 1e-4).sum()), rtol=1e-10)
    np.testing.assert_allclose(flow.moving_mean.value, 0.1 * mean, rtol=1e-10)
    np.testing.assert_allclose(flow.moving_variance.value, 0.9 + 0.1 * variance, rtol=1e-10)

    features, log_det = flow.inverse_and_log_det(images, training=False)
    moving_mean, moving_variance = 0.1 * mean, 0.9 + 0.1 * variance
    np.testing.assert_allclose(features, (images - moving_mean) / np.sqrt(moving_variance + 1e-4), rtol=1e-10)
    np.testing.assert_allclose(log_det, np.full(8, -3 * np.log(moving_variance + 1e-4).sum()), rtol=1e-10)

    flow.initialize(images)
    np.testing.assert_allclose(flow.moving_mean.value, mean, rtol=1e-10)
    np.testing.assert_allclose(flow.moving_variance.value, variance, rtol=1e-10)


def test_a_batch_normalized_conditioner_learns_statistics_only_in_the_training_inverse():
    flow, images = flow_cases.make("conditioner_batch_normalization")
    moving = flow.conditioner.normalizations[0].moving_mean
    before = moving.numpy()
    inference = flow.inverse_and_log_det(images, training=False)[0]
    np.testing.assert_array_equal(moving.value, before)
    training = flow.inverse_and_log_det(images, training=True)[0]
    assert np.all(np.not_equal(moving.value, before))
    assert not np.allclose(training, inference)


def test_squeezes_put_pixels_where_they_say():
    # The value says where it stood: row, column, colour.
    images = np.fromfunction(lambda n, row, column, colour: 100 * row + 10 * column + colour, (1, 4, 4, 2))
    by_rows = flows.Squeeze(dtype="float64").inverse_and_log_det(images)[0].numpy()
    np.testing.assert_array_equal(by_rows[0, 0, 0], [0, 1, 10, 11, 100, 101, 110, 111])
    np.testing.assert_array_equal(by_rows[0, 1, 0], [200, 201, 210, 211, 300, 301, 310, 311])
    diagonals = flows.Squeeze(diagonals_first=True, dtype="float64").inverse_and_log_det(images)[0].numpy()
    np.testing.assert_array_equal(diagonals[0, 0, 0], [0, 1, 110, 111, 100, 101, 10, 11])
    for order in (False, True):
        squeezed = flows.Squeeze(order, dtype="float64").inverse_and_log_det(images)[0]
        np.testing.assert_array_equal(flows.Unsqueeze(order, dtype="float64").inverse_and_log_det(squeezed)[0], images)


def test_a_multi_scale_flow_leaves_half_a_checkerboard_to_its_first_scale():
    fine, coarse = flows.Chain([], dtype="float64"), flows.ActNorm(dtype="float64")
    flow = flows.MultiScale(fine, coarse, dtype="float64")
    images = flow_cases.batch((4, 4, 1))
    flow.build((None, 4, 4, 1))
    coarse.loc.assign([-100.0, -100.0])
    moved = (flow.inverse_and_log_det(images)[0] - images)[0, :, :, 0].numpy()
    np.testing.assert_allclose(moved, [[100, 0, 100, 0], [0, 100, 0, 100]] * 2, atol=1e-10)


def test_a_permutation_is_the_seeds_and_a_weight_that_does_not_train():
    drawn = []
    for seed in (0, 0, 1):
        flow = flows.ChannelPermutation(seed)
        flow.build((None, 2, 2, 16))
        drawn.append(flow.permutation.numpy())
        assert not flow.trainable_weights and len(flow.non_trainable_weights) == 1
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert np.any(drawn[0] != drawn[2]) and sorted(drawn[2]) == list(range(16))
    images = flow_cases.batch((2, 2, 16), dtype="float32").numpy()
    np.testing.assert_array_equal(flow.inverse_and_log_det(images)[0], images[..., drawn[2]])


def in_order(flow):
    """The simple flows that `flow` is made of, in the order in which an image meets them."""
    if isinstance(flow, flows.Chain):
        inner = flow.flows
    elif isinstance(flow, flows.MultiScale):
        inner = [flow.fine, flow.coarse]
    else:
        return [flow]
    return [layer for part in inner for layer in in_order(part)]


def couplings_of(flow):
    return [layer for layer in in_order(flow) if isinstance(layer, flows.AffineCoupling)]


@pytest.mark.parametrize(
    ("scales", "expected", "widths"),
    [
        (0, [], []),
        (1, ["checkerboard"] * 3, [4] * 3),
        (2, ["checkerboard"] * 3 + ["channel"] * 3 + ["checkerboard"] * 4, [4] * 3 + [8] * 7),
        (3, (["checkerboard"] * 3 + ["channel"] * 3) * 2 + ["checkerboard"] * 4, [4] * 3 + [8] * 6 + [16] * 7),
    ],
)
@pytest.mark.parametrize("normalization", ["actnorm", "batch", "none"])
def test_an_image_flow_is_composed_as_its_authors_did(scales, expected, widths, normalization):
    flow = flows.ImageFlow(scales, width=4, blocks=0, normalization=normalization)
    flow.build((None, 4, 4, 3))
    layers, couplings = list(in_order(flow)), couplings_of(flow)
    assert [coupling.mask for coupling in couplings] == expected
    parities = [0, 1, 0] * (2 * (scales - 1)) + [0, 1, 0, 1]
    assert [coupling.parity for coupling in couplings] == parities[: len(expected)]
    # The authors' program: base_dim * 2 ** scale, twice that in channel couplings.
    assert [coupling.width for coupling in couplings] == widths
    kinds = {"actnorm": flows.ActNorm, "batch": flows.BatchNormalizationFlow, "none": ()}
    assert sum(isinstance(layer, kinds[normalization]) for layer in layers) == len(expected) * (normalization != "none")
    assert len({coupling.seed for coupling in couplings}) == len(expected)
    assert bool(flow.weights) == bool(scales)


def test_the_couplings_of_two_scales_move_the_pixels_that_their_authors_move():
    """Each coupling alone is moved away from the identity: which pixels of a 4x4 image change."""
    flow = flows.ImageFlow(2, width=4, blocks=0, normalization="none", dtype="float64")
    images = flow_cases.batch((4, 4, 3)).numpy()
    flow.build((None, 4, 4, 3))
    np.testing.assert_array_equal(flow.inverse_and_log_det(images)[0], images)  # a flow of identities starts as one
    rows, columns = np.mgrid[0:4, 0:4]
    odd, odd_rows = (rows + columns) % 2 == 1, rows % 2 == 1
    # One diagonal of each 2x2 block goes on; at the second scale whole blocks are a checkerboard.
    odd_blocks = (rows // 2 + columns // 2) % 2 == 1
    coarse = [~odd & odd_blocks, ~odd & ~odd_blocks, ~odd & odd_blocks, ~odd & ~odd_blocks]
    expected = [odd, ~odd, odd, odd_rows, ~odd_rows, odd_rows, *coarse]
    for coupling, moved in zip(couplings_of(flow), expected, strict=True):
        before = [variable.numpy() for variable in coupling.trainable_variables]
        flow_cases.perturb(coupling)
        changed = flow.inverse_and_log_det(images)[0].numpy() != images
        np.testing.assert_array_equal(changed, np.broadcast_to(moved[..., np.newaxis], changed.shape))
        for variable, value in zip(coupling.trainable_variables, before, strict=True):
            variable.assign(value)


def num_weights(read, moved, width, blocks):
    """By hand, of a coupling: weight-normalised kernels, with batch normalisation between them, and `a`."""
    first = 9 * read * width + width  # 3x3 kernels and their magnitudes; no biases
    inner = 2 * blocks * (9 * width * width + width)
    last = width * 2 * moved + 2 * moved + 2 * moved  # 1x1 kernels, magnitudes, biases
    return first + inner + last + (2 * blocks + 1) * 2 * width + 1  # scale and offset of each normalisation


@pytest.mark.parametrize(
    ("scales", "blocks", "width", "total", "couplings"),
    [
        # couplings: (how many, channels read, channels moved, factor of the width). The flow of CQF (Shmelkov et al. 2018):
        # 3 channels and the mask are read, 3 are moved.
        (1, 2, 32, 116_103, [(3, 4, 3, 1)]),
        # CIFAR-10 in Dinh et al. 2017: 64 maps; 128 from the squeeze on, where 6 of 12 channels move; then 6 and the mask.
        (2, 8, 64, 18_412_054, [(3, 4, 3, 1), (3, 6, 6, 2), (4, 7, 6, 2)]),
        # The defaults of their program, 4 scales of 32 maps: 3 channels, then 6, 12, 24.
        (4, 2, 32, 21_714_346, [(3, 4, 3, 1), (3, 6, 6, 2), (3, 7, 6, 2), (3, 12, 12, 4), (3, 13, 12, 4), (3, 24, 24, 8),
                                (4, 25, 24, 8)]),
    ],
)  # fmt: skip
def test_the_weights_of_the_papers_flows_are_as_many_as_counted_by_hand(scales, blocks, width, total, couplings):
    def by_hand(width, blocks):
        return sum(count * num_weights(read, moved, width * factor, blocks) for count, read, moved, factor in couplings)

    # A narrow one with one block, quicker to make, shows that the formula counts right.
    flow = flows.ImageFlow(scales, blocks=1, width=4, normalization="batch", conditioner_batch_normalization=True)
    flow.build((None, 32, 32, 3))
    assert sum(math.prod(variable.shape) for variable in flow.trainable_variables) == by_hand(4, 1)
    assert by_hand(width, blocks) == total


@pytest.mark.parametrize("weight_normalization", [True, False])
def test_the_squared_magnitudes_are_those_of_all_kernels_and_couplings(weight_normalization):
    flow = flows.ImageFlow(2, 1, 1, 4, weight_normalization=weight_normalization, dtype="float64")
    flow.build((None, 4, 4, 3))
    flow_cases.perturb(flow)
    expected = 0.0
    for coupling in couplings_of(flow):
        expected += float(coupling.log_scale_factor.value) ** 2
        conditioner = coupling.conditioner
        for convolution in (conditioner.first, *conditioner.inner, conditioner.last):
            expected += float(np.sum(convolution.magnitude.numpy() ** 2)) if weight_normalization else 0.0
    assert len(couplings_of(flow)) == 4 and expected > 0
    np.testing.assert_allclose(flow.squared_magnitudes(), expected, rtol=1e-12)
    assert flows.ImageFlow(0).squared_magnitudes() == 0.0


def test_seeds_differ_and_a_longer_list_begins_with_the_shorter():
    assert spawn_seeds(0, 5)[:3] == spawn_seeds(0, 3)
    assert len(set(spawn_seeds(0, 100) + spawn_seeds(1, 100))) == 200


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (lambda: flows.ImageFlow(scales=3), (4, 6, 1), "divisible by 4, got 4x6"),
        (lambda: flows.ImageFlow(scales=2), (7, 8, 1), "divisible by 2, got 7x8"),
        (lambda: flows.ImageFlow(scales=-1), (4, 4, 1), "scales=-1"),
        (lambda: flows.ImageFlow(normalization="layer"), (4, 4, 1), "got 'layer'"),
        (lambda: flows.Squeeze(), (3, 4, 1), "got 3x4"),
        (lambda: flows.Unsqueeze(), (4, 4, 6), "got 6"),
        (lambda: flows.MultiScale(flows.ActNorm(), flows.ActNorm()), (4, 5, 1), "got 4x5"),
        (lambda: flows.AffineCoupling("channel"), (4, 4, 1), "2 or more, got 1"),
        (lambda: flows.AffineCoupling("stripes"), (4, 4, 1), "got 'stripes'"),
        (lambda: flows.AffineCoupling(parity=2), (4, 4, 1), "got 2"),
        (lambda: flows.AffineCoupling(width=0), (4, 4, 1), "width=0"),
        (lambda: flows.BatchNormalizationFlow(rate=0.0), (4, 4, 1), "got 0.0"),
        (lambda: flows.BatchNormalizationFlow(epsilon=0.0), (4, 4, 1), "got 0.0"),
    ],
)
def test_a_mistake_is_named_in_one_line(make, shape, message):
    with pytest.raises(UserError, match=message) as error:
        make().inverse_and_log_det(tf.zeros((1, *shape)))
    assert "\n" not in str(error.value)
