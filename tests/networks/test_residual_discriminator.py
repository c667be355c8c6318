"""The residual discriminator: Table 6, its start, gradients, penalty, precision, checkpoints."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from residual_cases import (
    convolved,
    expected_outputs,
    noise,
    shaken,
    small_discriminator,
)

from tfcq.losses.adversarial import gradient_penalty
from tfcq.networks.convolutions import Convolution, data_dependent_initialization
from tfcq.networks.residual import ResidualBlock, discriminator


def blocks_of(network):
    return [layer for layer in network.layers if isinstance(layer, ResidualBlock)]


def test_table_6():
    network = discriminator((32, 32, 3), 4, 32)
    first, *blocks = [layer for layer in network.layers if isinstance(layer, (Convolution, ResidualBlock))]
    assert (first.filters, first.kernel_size) == (16, 3)
    assert [(block.filters, block.resampling) for block in blocks] == [
        (32, "none"),
        (64, "down"),
        (128, "down"),
        (256, "down"),
    ]
    assert {block.residual_scale for block in blocks} == {1.0}
    assert {block.activation for block in blocks} == {"relu"}
    # k x k x in x out + out: first convolution; of each block 3x3, 3x3 and 1x1; dense.
    by_hand = [
        448,
        4640 + 9248 + 544,
        18496 + 36928 + 2112,
        73856 + 147584 + 8320,
        295168 + 590080 + 33024,
        257,
    ]
    counted = [layer.count_params() for layer in network.layers if layer.weights]
    assert counted == by_hand
    assert network.count_params() == 1_220_705
    # A magnitude for each filter of 13 convolutions more.
    normalized = discriminator((32, 32, 3), 4, 32, weight_normalization=True)
    assert normalized.count_params() == 1_220_705 + 16 + 3 * (32 + 64 + 128 + 256)


@pytest.mark.parametrize(
    ("size", "latent_size", "width", "blocks", "filters"),
    [
        (8, 4, 1, 1, [1, 2]),
        (8, 8, 4, 2, [4, 4]),
        (16, 4, 4, 3, [4] * 3 + [8] * 3 + [16] * 3),
        (48, 6, 2, 1, [2, 4, 8, 16]),
    ],
)
def test_other_sizes(size, latent_size, width, blocks, filters):
    network = discriminator((size, size, 1), latent_size, width, blocks)
    assert network.layers[0].filters == max(1, width // 2)
    assert [block.filters for block in blocks_of(network)] == filters
    for index, block in enumerate(blocks_of(network)):
        assert block.resampling == ("down" if index and index % blocks == 0 else "none")
        assert block.residual_scale == pytest.approx(1 / np.sqrt(blocks))
    pooling = next(layer for layer in network.layers if isinstance(layer, keras.layers.GlobalAveragePooling2D))
    assert pooling.input.shape == (None, latent_size, latent_size, filters[-1])
    logits = network(noise(3, size, size, 1))
    assert logits.shape == (3,) and logits.dtype == tf.float32


def test_discriminator_is_its_layers_in_numpy():
    network = small_discriminator(blocks=2)
    images = noise(3, 8, 8, 2)
    hidden = convolved(images.numpy().astype("float64"), network.layers[0])
    for block in blocks_of(network):
        hidden = expected_outputs(block, hidden)
    dense = next(layer for layer in network.layers if isinstance(layer, keras.layers.Dense))
    logits = np.maximum(hidden, 0).mean((1, 2)) @ dense.kernel.numpy()[:, 0] + dense.bias.numpy()
    np.testing.assert_allclose(network(images), logits, rtol=1e-4, atol=1e-5)


def test_depth_does_not_blow_up_the_start():
    deep = discriminator((8, 8, 3), 4, 16, blocks=16)
    hidden = noise(4, 8, 8, 3)
    for layer in deep.layers:
        hidden = layer(hidden)
        if isinstance(layer, ResidualBlock):
            assert 0.1 < np.std(hidden) < 10.0  # 32 plain blocks would double the variance 32 times


@pytest.mark.parametrize("weight_normalization", [False, True])
def test_every_weight_feels_the_loss_and_each_but_biases_the_penalty(weight_normalization):
    network = small_discriminator(weight_normalization=weight_normalization)
    real, generated, mix = noise(4, 8, 8, 2), noise(4, 8, 8, 2, seed=1), tf.fill([4, 1, 1, 1], 0.3)
    values = [weight.value for weight in network.trainable_variables]

    def gradients():
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(values)
            loss = tf.reduce_sum(network(real) * [1.0, 2.0, -1.0, 0.5])
            penalty = tf.reduce_sum(gradient_penalty(network, real, generated, mix))
        return tape.gradient(loss, values), tape.gradient(penalty, values, unconnected_gradients="zero")

    eager, compiled = gradients(), tf.function(gradients, autograph=False)()
    for weight, loss_slope, penalty_slope in zip(network.trainable_variables, *eager, strict=True):
        assert np.all(np.isfinite(loss_slope)) and np.any(loss_slope != 0), weight.path
        assert np.all(np.isfinite(penalty_slope)), weight.path
        # Between its kinks a ReLU network is linear: biases do not move its slope.
        assert np.any(penalty_slope != 0) == (weight.name != "bias"), weight.path
    for one, other in zip(tf.nest.flatten(eager), tf.nest.flatten(compiled), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("form", ["two_sided", "real"])
@pytest.mark.parametrize(("resampling", "weight_normalization"), [("down", False), ("up", True), ("none", True)])
def test_penalty_through_a_block_has_the_gradient_of_finite_differences(form, resampling, weight_normalization):
    block = ResidualBlock(4, resampling, "elu", weight_normalization, dtype="float64")
    shaken(block, (None, 4, 4, 2))
    real, generated = (noise(2, 4, 4, 2, seed=seed, dtype="float64") for seed in (0, 1))
    mix = tf.constant([0.2, 0.7], "float64", shape=[2, 1, 1, 1])

    def penalty():
        network = lambda images: tf.reduce_sum(tf.tanh(0.1 * block(images)), [1, 2, 3])  # noqa: E731
        return tf.reduce_sum(gradient_penalty(network, real, generated, mix, form))

    with tf.GradientTape() as tape:
        loss = penalty()
    gradients = tape.gradient(loss, [weight.value for weight in block.trainable_variables])
    for weight, gradient in zip(block.trainable_variables, gradients, strict=True):
        before, sides = weight.numpy(), []
        step = 1e-6 * np.random.default_rng(0).normal(size=before.shape)
        for sign in (1, -1):
            weight.assign(before + sign * step)
            sides.append(float(penalty()))
        weight.assign(before)
        assert np.sum(gradient * step) == pytest.approx((sides[0] - sides[1]) / 2, rel=1e-4), weight.path


def test_logits_and_penalty_are_float32_in_mixed_precision():
    exact = small_discriminator()
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = small_discriminator()
    finally:
        keras.config.set_dtype_policy(before)
    assert blocks_of(network)[0].first.compute_dtype == "bfloat16"
    assert {str(weight.dtype) for weight in network.weights} == {"float32"}
    images = noise(4, 8, 8, 2)
    logits, penalty = network(images), gradient_penalty(network, images, None, None, form="real")
    assert logits.dtype == penalty.dtype == tf.float32
    # Not merely cast back: a discriminator that distinguishes only eight bits would see equal images everywhere.
    assert np.any(logits != tf.cast(tf.cast(logits, tf.bfloat16), tf.float32))
    np.testing.assert_allclose(logits, exact(images), atol=0.05)
    np.testing.assert_allclose(penalty, gradient_penalty(exact, images, None, None, form="real"), rtol=0.2)


def test_data_dependent_initialization_reaches_every_convolution(monkeypatch):
    network = small_discriminator(weight_normalization=True, blocks=2)
    images = 0.5 * noise(16, 8, 8, 2) + 0.2
    with data_dependent_initialization() as initialized:
        network(images)
    seen, call = {}, Convolution.call

    def hooked(layer, inputs):
        seen[layer] = call(layer, inputs)
        return seen[layer]

    monkeypatch.setattr(Convolution, "call", hooked)
    network(images)
    # The first; two in each of four blocks; the skips of the two blocks that widen.
    assert len(seen) == 1 + 4 * 2 + 2
    assert list(seen) == initialized
    for layer, outputs in seen.items():
        np.testing.assert_allclose(np.mean(outputs, axis=(0, 1, 2)), 0.0, atol=1e-4)
        np.testing.assert_allclose(np.std(outputs, axis=(0, 1, 2)), layer.gain, rtol=1e-3)
    assert {layer.gain for layer in seen} == {1.0, 0.5**0.5}


@pytest.mark.parametrize("weight_normalization", [False, True])
def test_checkpoint_holds_every_weight(tmp_path, weight_normalization):
    saved, other = (small_discriminator(seed, blocks=2, weight_normalization=weight_normalization) for seed in (1, 2))
    images = noise(3, 8, 8, 2)
    assert np.all(saved(images).numpy() != other(images).numpy())
    path = tf.train.Checkpoint(model=saved).save(str(tmp_path / "checkpoint"))
    stored = [name for name, _ in tf.train.list_variables(path) if name.startswith("model/")]
    assert len(stored) == len(saved.weights)
    tf.train.Checkpoint(model=other).restore(path).assert_consumed()
    np.testing.assert_array_equal(saved(images), other(images))
