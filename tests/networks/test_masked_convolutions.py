"""Masked convolutions and the autoregressive network: who sees whom, by autodiff and against the definition."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tfcq.errors import UserError
from tfcq.networks.convolutions import data_dependent_initialization
from tfcq.networks.masked_convolutions import AutoregressiveNetwork, MaskedConvolution

INPUT_DEGREES, OUTPUT_DEGREES = (0, 2, 1), (2, 0, 1, 1, -1)


def batch(shape, seed=0, dtype="float64"):
    return tf.constant(np.random.default_rng(seed).normal(size=shape), dtype)


def masked(kernel_size=3, strict=False, seed=1, perturbed=True, **options):
    layer = MaskedConvolution(INPUT_DEGREES, OUTPUT_DEGREES, kernel_size, strict, seed=seed, dtype="float64", **options)
    layer.build((None, 3, 4, 3))
    return perturb(layer) if perturbed else layer


def perturb(layer, seed=3):
    """Moves every weight well away from its start, those under the mask too."""
    generator = np.random.default_rng(seed)
    for weight in layer.weights:
        weight.assign(weight.numpy() + generator.choice([-1.0, 1.0], weight.shape) * generator.uniform(0.2, 0.6))
    return layer


def sees(row, column, input_degree, output_degree, strict):
    """Whether a kernel's tap, `row` and `column` counted from the centre, may be read: from the definition."""
    if (row, column) == (0, 0):
        return input_degree < output_degree if strict else input_degree <= output_degree
    return row < 0 or (row == 0 and column < 0)


def jacobian(function, inputs):
    """`[outputs, inputs]` of one example, both flattened in raster order with the channels innermost."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = tf.reshape(function(inputs), [-1])
    return tape.jacobian(outputs, inputs).numpy().reshape(outputs.shape[0], -1)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_the_mask_is_the_definition(kernel_size, strict):
    mask = masked(kernel_size, strict).mask().numpy()
    assert mask.shape == (kernel_size, kernel_size, 3, 5)
    for row, column, i, o in itertools.product(*map(range, mask.shape)):
        half = kernel_size // 2
        assert mask[row, column, i, o] == sees(row - half, column - half, INPUT_DEGREES[i], OUTPUT_DEGREES[o], strict)


@pytest.mark.parametrize("weight_normalization", [True, False])
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_an_output_depends_on_what_the_mask_shows_and_on_all_of_it(kernel_size, strict, weight_normalization):
    layer = masked(kernel_size, strict, weight_normalization=weight_normalization)
    inputs = batch((1, 3, 4, 3))
    dependence = jacobian(layer, inputs).reshape(3, 4, 5, 3, 4, 3) != 0
    for row, column, o, other_row, other_column, i in itertools.product(*map(range, dependence.shape)):
        y, x = other_row - row, other_column - column
        covered = max(abs(y), abs(x)) <= kernel_size // 2
        expected = covered and sees(y, x, INPUT_DEGREES[i], OUTPUT_DEGREES[o], strict)
        assert dependence[row, column, o, other_row, other_column, i] == expected


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_the_norm_is_of_what_is_seen(kernel_size):
    layer = masked(kernel_size, strict=True)
    direction = layer.direction.numpy() * layer.mask().numpy()
    norms = np.sqrt(np.sum(direction**2, axis=(0, 1, 2)))
    expected = layer.magnitude.numpy() * direction / np.where(norms > 0, norms, 1.0)
    np.testing.assert_allclose(layer.effective_kernel(), expected, rtol=1e-12)
    outputs = tf.nn.conv2d(batch((2, 3, 4, 3)), expected, 1, "SAME") + layer.bias.numpy()
    np.testing.assert_allclose(layer(batch((2, 3, 4, 3))), outputs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("weight_normalization", [True, False])
def test_what_the_mask_hides_has_no_effect_however_large(weight_normalization):
    layer = masked(weight_normalization=weight_normalization)
    inputs = batch((2, 3, 4, 3))
    before = layer(inputs).numpy()
    weight = layer.direction if weight_normalization else layer.kernel
    weight.assign(tf.where(layer.mask() == 0, tf.constant(1e6, tf.float64), weight.value))
    np.testing.assert_array_equal(layer(inputs), before)


@pytest.mark.parametrize("weight_normalization", [True, False])
def test_a_filter_that_sees_nothing_is_its_bias_and_has_finite_gradients(weight_normalization):
    layer = masked(1, strict=True, weight_normalization=weight_normalization)
    inputs = batch((2, 3, 4, 3))
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs)
        loss = tf.reduce_sum(tf.sin(outputs))
    for blind in (1, 4):
        np.testing.assert_array_equal(outputs[..., blind], np.broadcast_to(layer.bias[blind], (2, 3, 4)))
    assert np.all(np.isfinite(outputs))
    for gradient in tape.gradient(loss, [inputs, *(weight.value for weight in layer.weights)]):
        assert np.all(np.isfinite(gradient)) and np.any(gradient != 0)


@pytest.mark.parametrize("weight_normalization", [True, False])
@pytest.mark.parametrize(("kernel_size", "strict"), [(1, False), (3, True), (3, False)])
def test_it_starts_by_keeping_the_variance_of_what_a_relu_feeds_it(kernel_size, strict, weight_normalization):
    degrees = [channel // 4 for channel in range(32)]
    outputs_degrees = [1 + channel // 8 for channel in range(64)]
    layer = MaskedConvolution(
        degrees, outputs_degrees, kernel_size, strict, weight_normalization=weight_normalization, seed=2
    )
    inputs = tf.nn.relu(tf.random.stateless_normal([4, 24, 24, 32], seed=[0, 1]))
    outputs = layer(inputs)[:, 1:-1, 1:-1]
    assert np.mean(np.square(outputs)) == pytest.approx(1.0, rel=0.15)


def test_the_data_dependent_initialization_is_of_the_masked_outputs():
    layer = masked(1, strict=True, perturbed=False, gain=0.5)
    inputs = 3.0 * batch((40, 3, 4, 3)) + 2.0
    magnitude = layer.magnitude.numpy()
    with data_dependent_initialization() as layers:
        outputs = layer(inputs)
    assert layers == [layer]
    np.testing.assert_allclose(np.mean(outputs, axis=(0, 1, 2)), 0, atol=1e-10)
    np.testing.assert_allclose(np.std(outputs, axis=(0, 1, 2)), [0.5, 0, 0.5, 0.5, 0], atol=1e-10)
    np.testing.assert_array_equal(layer.magnitude.numpy()[[1, 4]], magnitude[[1, 4]])


@pytest.mark.parametrize("options", [{"kernel_size": 2}, {"strides": 2}, {"output_degrees": ()}])
def test_a_mistake_is_named(options):
    with pytest.raises(UserError):
        MaskedConvolution(**{"input_degrees": (0, 1), "output_degrees": (0, 1), **options})


def test_another_number_of_channels_is_refused():
    with pytest.raises(UserError, match="expected 2 channels, got 3"):
        MaskedConvolution((0, 1), (0, 1)).build((None, 4, 4, 3))


# The network.


def network(channels=2, context_channels=None, dtype="float64", perturbed=True, size=(2, 3), **options):
    layer = AutoregressiveNetwork(**{"width": 5, "layers": 2, "seed": 4, "dtype": dtype, **options})
    layer.build((None, *size, channels), context_channels and (None, *size, context_channels))
    return perturb(layer) if perturbed else layer


@pytest.mark.parametrize(
    ("channels", "context_channels", "options"),
    [
        (2, None, {}),
        (2, 3, {}),
        (2, 5, {"layers": 1}),
        (3, 2, {"width": 7, "layers": 3}),
        (4, 2, {"width": 3}),  # fewer hidden channels than degrees
        (1, 2, {"width": 3}),
    ],
)
def test_outputs_depend_on_strictly_earlier_latents(channels, context_channels, options):
    layer = network(channels, context_channels, **options)
    latents = batch((1, 2, 3, channels))
    context = None if context_channels is None else batch((1, 2, 3, context_channels), seed=1)
    dims = 6 * channels
    for output in (0, 1):
        dependence = jacobian(lambda x: layer(x, context)[output], latents)  # noqa: B023
        np.testing.assert_array_equal(np.triu(dependence), 0.0)
        # Not vacuous: of the channel before the last pixel's last, and of the neighbour to the left.
        if options.get("width", 5) >= channels:
            assert channels == 1 or dependence[dims - 1, dims - 2] != 0
            assert np.all(dependence[dims - channels :, dims - 2 * channels : dims - channels] != 0)


def test_every_earlier_latent_within_reach_is_seen():
    layer = network(3, width=12, layers=2, size=(2, 2))
    dependence = jacobian(lambda x: layer(x)[0], batch((1, 2, 2, 3)))
    np.testing.assert_array_equal(dependence != 0, np.tri(12, k=-1) > 0)


def test_a_pixel_of_kernel_one_sees_itself_alone():
    layer = network(3, width=8, kernel_size=1)
    dependence = jacobian(lambda x: layer(x)[1], batch((1, 2, 3, 3))) != 0
    np.testing.assert_array_equal(dependence, np.kron(np.eye(6), np.tri(3, k=-1)) > 0)


@pytest.mark.parametrize(("context_channels", "convolved"), [(5, False), (3, True)])
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_the_context_of_a_pixel_reaches_every_channel_of_it(context_channels, convolved, kernel_size):
    layer = network(3, context_channels, kernel_size=kernel_size)
    assert (layer.context_convolution is not None) == convolved
    latents, context = batch((1, 2, 3, 3)), batch((1, 2, 3, context_channels), seed=1)
    for output in (0, 1):
        dependence = jacobian(lambda x: layer(latents, x)[output], context)  # noqa: B023
        blocks = dependence.reshape(6, 3, 6, context_channels)
        for pixel in range(6):
            assert np.all(np.any(blocks[pixel, :, pixel] != 0, axis=-1))
            # And none comes from a later pixel.
            np.testing.assert_array_equal(blocks[pixel, :, pixel + 1 :], 0.0)


def test_it_starts_small():
    layer = network(8, 16, perturbed=False, size=(8, 8), width=32)
    outputs = layer(batch((4, 8, 8, 8)), batch((4, 8, 8, 16), seed=1))
    for output in outputs:
        assert 0.03 < np.std(output) < 0.3


@pytest.mark.parametrize(
    ("policy", "inside", "outside"),
    [
        ("float32", tf.float32, tf.float32),
        ("mixed_bfloat16", tf.bfloat16, tf.float32),
        ("mixed_float16", tf.float16, tf.float32),
        ("bfloat16", tf.bfloat16, tf.float32),
        ("float64", tf.float64, tf.float64),
    ],
)
def test_outputs_are_of_single_precision_whatever_is_inside(policy, inside, outside):
    layer = network(2, 3, policy, perturbed=False)
    specs = [tf.TensorSpec((None, 2, 3, channels), outside) for channels in (2, 3)]
    function = tf.function(layer).get_concrete_function(*specs)
    assert [output.dtype for output in function.outputs] == [outside] * 2
    convolutions = [operation for operation in function.graph.get_operations() if operation.type == "Conv2D"]
    assert {operation.outputs[0].dtype for operation in convolutions} == {inside}
    assert len(convolutions) == 4


def test_keras_builds_it_on_the_first_call_and_knows_its_shapes():
    latents, context = batch((2, 2, 3, 2), dtype="float32"), batch((2, 2, 3, 3), seed=1, dtype="float32")
    layer = AutoregressiveNetwork(5, 2, seed=4)
    outputs = layer(latents, context)
    built = network(2, 3, "float32", perturbed=False)
    assert len(layer.weights) == len(built.weights) == 3 * 4
    for output, expected in zip(outputs, built(latents, context)):
        np.testing.assert_array_equal(output, expected)
    assert layer.compute_output_shape((None, 2, 3, 2), (None, 2, 3, 3)) == ((None, 2, 3, 2),) * 2


def test_a_checkpoint_brings_every_weight_back(tmp_path):
    layer = network(2, 3, layers=3)
    path = tf.train.Checkpoint(network=layer).write(str(tmp_path / "network"))
    other = network(2, 3, layers=3, seed=9, perturbed=False)
    tf.train.Checkpoint(network=other).read(path).assert_consumed()
    assert len(layer.weights) == 5 * 3
    for weight, restored in zip(layer.weights, other.weights):
        np.testing.assert_array_equal(weight.value, restored.value)


@pytest.mark.parametrize("options", [{"width": 0}, {"layers": 0}])
def test_a_network_of_nothing_is_refused(options):
    with pytest.raises(UserError, match="got width"):
        AutoregressiveNetwork(**options)


@pytest.mark.parametrize(
    ("context_channels", "context_shape", "message"),
    [
        (None, (2, 2, 3, 3), "built for no context, got a context of 3 channels"),
        (3, None, "built for a context of 3 channels, got no context"),
        (3, (2, 2, 3, 4), "built for a context of 3 channels, got a context of 4 channels"),
        (3, (2, 3, 3, 3), "batch, height and width"),
        (3, (1, 2, 3, 3), "batch, height and width"),
    ],
)
def test_a_context_that_does_not_fit_is_refused(context_channels, context_shape, message):
    layer = network(2, context_channels)
    with pytest.raises(UserError, match=message):
        layer(batch((2, 2, 3, 2)), None if context_shape is None else batch(context_shape))
