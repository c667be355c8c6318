"""The transposed convolution against the scattered kernel and the adjoint of the convolution."""

import numpy as np
import pytest
import tensorflow as tf
from convolution_cases import batch

from tfcq.errors import UserError
from tfcq.networks.convolutions import (
    Convolution,
    TransposedConvolution,
)

# The transposed convolution.


def transposed(inputs, kernel, strides):
    """Each input pixel adds its kernel to the outputs; what sticks out beyond SAME is cut off. NumPy, float64."""
    size = kernel.shape[0]
    count, height, width, _ = inputs.shape
    sides = [strides * (side - 1) + max(size, strides) for side in (height, width)]
    outputs = np.zeros((count, *sides, kernel.shape[3]))
    for row in range(height):
        for column in range(width):
            patch = np.einsum("nc,abcf->nabf", inputs[:, row, column], kernel)
            outputs[:, row * strides :, column * strides :][:, :size, :size] += patch
    before = (size - strides) // 2
    return outputs[:, before:, before:][:, : height * strides, : width * strides]


@pytest.mark.parametrize("weight_normalization", [True, False])
@pytest.mark.parametrize(("kernel_size", "strides"), [(4, 2), (3, 2), (5, 2), (4, 4), (5, 3), (3, 1), (1, 1)])
def test_transposed_is_the_scattered_kernel(weight_normalization, kernel_size, strides):
    layer = TransposedConvolution(4, kernel_size, strides, weight_normalization, dtype="float64")
    inputs = batch(size=2)
    layer.build(inputs.shape)
    generator = np.random.default_rng(2)
    for weight in layer.weights:
        weight.assign(generator.normal(size=weight.shape))
    if weight_normalization:
        direction = layer.direction.numpy()
        assert direction.shape == (kernel_size, kernel_size, 3, 4)
        kernel = layer.magnitude.numpy() * direction / np.linalg.norm(direction.reshape(-1, 4), axis=0)
    else:
        kernel = layer.kernel.numpy()
    outputs = layer(inputs)
    assert outputs.shape == (2, 7 * strides, 8 * strides, 4) == layer.compute_output_shape(inputs.shape)
    expected = transposed(inputs.numpy(), kernel, strides) + layer.bias.numpy()
    np.testing.assert_allclose(outputs, expected, rtol=1e-10, atol=1e-12)


def test_transposed_is_the_adjoint_of_the_convolution():
    down = Convolution(3, 4, 2, use_bias=False, dtype="float64")
    up = TransposedConvolution(5, 4, 2, use_bias=False, weight_normalization=False, dtype="float64")
    large, small = (
        tf.random.stateless_normal(shape, [0, 1], dtype=tf.float64) for shape in ([2, 6, 8, 5], [2, 3, 4, 3])
    )
    convolved, _ = down(large), up(small)
    up.kernel.assign(tf.transpose(down.effective_kernel(), [0, 1, 3, 2]))
    assert float(tf.reduce_sum(convolved * small)) == pytest.approx(float(tf.reduce_sum(large * up(small))), rel=1e-12)


@pytest.mark.parametrize("shape", [(None, 4, 6, 3), (None, None, None, 3)])
def test_transposed_with_unknown_sizes(shape):
    layer = TransposedConvolution(4, dtype="float64")
    inputs = tf.random.stateless_normal([2, 4, 6, 3], [0, 1], dtype=tf.float64)
    expected = layer(inputs)
    compiled = tf.function(layer, input_signature=[tf.TensorSpec(shape, tf.float64)], autograph=False)
    np.testing.assert_allclose(compiled(inputs), expected, rtol=1e-12)
    sides = [None if side is None else 2 * side for side in shape[1:3]]
    assert layer.compute_output_shape(shape) == (None, *sides, 4)
    if shape[1]:
        assert compiled.get_concrete_function().output_shapes == [None, 8, 12, 4]


@pytest.mark.parametrize("weight_normalization", [True, False])
@pytest.mark.parametrize(("kernel_size", "strides"), [(4, 2), (2, 2), (3, 2), (6, 3), (3, 1)])
def test_transposed_starts_by_keeping_the_variance_of_what_a_relu_feeds_it(kernel_size, strides, weight_normalization):
    inputs = tf.nn.relu(tf.random.stateless_normal([2, 16, 16, 16], seed=[0, 1]))
    layer = TransposedConvolution(64, kernel_size, strides, weight_normalization)
    outputs = layer(inputs)[:, strides:-strides, strides:-strides]
    # The tolerance is for the few kernels drawn; a factor forgotten would be strides**2.
    assert np.mean(np.square(outputs)) == pytest.approx(1.0, rel=0.25)
    norms = np.linalg.norm(layer.effective_kernel().numpy().reshape(-1, 64), axis=0)
    np.testing.assert_allclose(norms, strides * 2**0.5, rtol=1e-5 if weight_normalization else 0.5)


def test_transposed_goes_backward_twice():
    layer = TransposedConvolution(2, dtype="float64")
    inputs = tf.random.stateless_normal([2, 3, 3, 2], [0, 1], dtype=tf.float64)
    layer(inputs)

    def squared_slope():
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = tf.reduce_sum(tf.tanh(layer(inputs)))
        return tf.reduce_sum(tape.gradient(outputs, inputs) ** 2)

    weights = layer.trainable_variables
    with tf.GradientTape() as tape:
        slope = squared_slope()
    gradients = tape.gradient(slope, [weight.value for weight in weights])
    for weight, gradient in zip(weights, gradients, strict=True):
        before, sides = weight.numpy(), []
        step = 1e-5 * np.random.default_rng(0).normal(size=before.shape)
        for sign in (1, -1):
            weight.assign(before + sign * step)
            sides.append(float(squared_slope()))
        weight.assign(before)
        assert np.sum(gradient * step) == pytest.approx((sides[0] - sides[1]) / 2, rel=1e-5), weight.path


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_transposed_in_half_precision(policy):
    layer, exact = TransposedConvolution(4, dtype=policy), TransposedConvolution(4)
    inputs = batch(dtype="float32")
    outputs = layer(inputs)
    assert outputs.dtype == layer.compute_dtype
    assert all(weight.dtype == "float32" for weight in layer.weights)
    np.testing.assert_allclose(tf.cast(outputs, tf.float32), exact(inputs), rtol=0.1, atol=0.1)


@pytest.mark.parametrize("options", [{"filters": 0}, {"kernel_size": 1}, {"strides": 0}, {"gain": [1.0, 2.0]}])
def test_a_mistake_in_a_transposed_one_is_named(options):
    with pytest.raises(UserError):
        TransposedConvolution(**{"filters": 3, **options})
