"""Residual blocks in NumPy, float64, and their inputs."""

import keras
import numpy as np
import scipy.signal
import tensorflow as tf

from tfcq.networks.residual import discriminator


def noise(*shape, seed=0, dtype="float32"):
    return tf.random.stateless_normal(shape, (seed, 1), dtype=dtype)


def shaken(layer, shape, seed=5):
    """`layer`, built, every weight random (variances positive): zeros at the start would hide what they multiply."""
    layer.build(shape)
    generator = np.random.default_rng(seed)
    for weight in layer.weights:
        values = generator.normal(size=weight.shape)
        weight.assign(np.exp(values) if "variance" in weight.path else values)
    return layer


# The block in NumPy, float64.


def convolved(images, layer):
    kernel = layer.effective_kernel().numpy()
    bias = 0.0 if layer.bias is None else layer.bias.numpy()
    outputs = np.zeros((*images.shape[:3], kernel.shape[3]))
    for row, image in enumerate(images):
        for source in range(kernel.shape[2]):
            for target in range(kernel.shape[3]):
                outputs[row, ..., target] += scipy.signal.correlate2d(
                    image[..., source], kernel[..., source, target], "same"
                )
    return outputs + bias


def activated(values, kind):
    return (
        np.maximum(values, 0.0) if kind == "relu" else np.where(values > 0, values, np.exp(np.minimum(values, 0)) - 1)
    )


def normalized(values, layer, training):
    gamma, beta, mean, variance = (
        weight.numpy() for weight in (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance)
    )
    if training:
        mean, variance = values.mean((0, 1, 2)), values.var((0, 1, 2))
    return gamma * (values - mean) / np.sqrt(variance + layer.epsilon) + beta


def pooled(values):
    return (values[:, ::2, ::2] + values[:, 1::2, ::2] + values[:, ::2, 1::2] + values[:, 1::2, 1::2]) / 4.0


def enlarged(values):
    return np.kron(values, np.ones((1, 2, 2, 1)))


def expected_outputs(block, inputs, training=False):
    """In the order of the papers: on the skip too, the convolution comes before the pooling and after the enlarging."""
    residual = normalized(inputs, block.first_normalization, training) if block.batch_normalization else inputs
    residual = activated(residual, block.activation)
    skip, joined = inputs, np.zeros((*inputs.shape[:-1], block.filters))
    if block.joined:
        skip, joined = inputs[..., : -block.joined], convolved(inputs[..., -block.joined :], block.joined_skip)
        if block.skip is None:
            skip = (1.0 - block.joined_fraction) ** 0.5 * skip
    if block.resampling == "up":
        residual, skip, joined = enlarged(residual), enlarged(skip), enlarged(joined)
    residual = convolved(residual, block.first)
    if block.batch_normalization:
        residual = normalized(residual, block.second_normalization, training)
    residual = convolved(activated(residual, block.activation), block.second)
    if block.skip is not None:
        skip = convolved(skip, block.skip)
    if block.resampling == "down":
        residual, skip, joined = pooled(residual), pooled(skip), pooled(joined)
    return skip + joined + block.residual_scale * residual


# The discriminator.


def small_discriminator(seed=1, **options):
    keras.utils.set_random_seed(seed)
    return discriminator((8, 8, 2), 4, 4, **options)
