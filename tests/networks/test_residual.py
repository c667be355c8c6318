"""Residual blocks against NumPy: definition, start, mistakes, second derivatives, replicas."""

import numpy as np
import pytest
import tensorflow as tf
from residual_cases import enlarged, expected_outputs, noise, pooled, shaken, small_discriminator

from tfcq.errors import UserError
from tfcq.losses.adversarial import gradient_penalty
from tfcq.networks.residual import ResidualBlock, discriminator

POOLED, WIDENED = (2, 6, 4, 3), 5


@pytest.mark.parametrize("filters", [3, WIDENED])
@pytest.mark.parametrize("resampling", ["none", "down", "up"])
@pytest.mark.parametrize(
    ("activation", "weight_normalization", "batch_normalization", "training", "joined"),
    [
        ("relu", False, False, False, 0),
        ("elu", True, False, False, 0),
        ("elu", False, True, True, 0),
        ("relu", True, True, False, 0),
        ("elu", True, False, False, 2),
    ],
)
def test_block_is_its_definition(
    filters, resampling, activation, weight_normalization, batch_normalization, training, joined
):
    filters -= joined if filters == 3 else 0
    options = {"residual_scale": 0.3, "joined": joined, "joined_fraction": 0.2, "dtype": "float64"}
    block = ResidualBlock(filters, resampling, activation, weight_normalization, batch_normalization, **options)
    shaken(block, POOLED)
    assert (block.skip is None) == (filters == 3 - joined) and (block.joined_skip is None) == (joined == 0)
    inputs = noise(*POOLED, dtype="float64")
    expected = expected_outputs(block, inputs.numpy(), training)
    outputs = block(inputs, training=training)
    assert block.compute_output_shape(POOLED) == tuple(outputs.shape)
    np.testing.assert_allclose(outputs, expected, rtol=1e-9, atol=1e-10)
    compiled = tf.function(
        lambda images: block(images, training=training),
        input_signature=[tf.TensorSpec((None, None, None, 3), tf.float64)],
        autograph=False,
    )
    np.testing.assert_allclose(compiled(inputs), expected, rtol=1e-9, atol=1e-10)


def test_batch_normalization_moves_its_averages_only_in_training():
    block = ResidualBlock(3, batch_normalization=True, dtype="float64")
    inputs = 2.0 + noise(*POOLED, dtype="float64")
    block(inputs)
    np.testing.assert_array_equal(block.first_normalization.moving_mean, 0.0)
    block(inputs, training=True)
    mean = np.mean(inputs, axis=(0, 1, 2))
    np.testing.assert_allclose(block.first_normalization.moving_mean, 0.1 * mean, rtol=1e-10)
    assert block.first.bias is None and block.second.bias is not None


@pytest.mark.parametrize("resampling", ["none", "down", "up"])
def test_block_without_its_residual_is_the_resampled_identity(resampling):
    block = ResidualBlock(3, resampling, residual_scale=0.0, dtype="float64")
    inputs = noise(*POOLED, dtype="float64")
    expected = {"none": np.asarray, "down": pooled, "up": enlarged}[resampling](inputs.numpy())
    np.testing.assert_allclose(block(inputs), expected, rtol=1e-12)


@pytest.mark.parametrize("weight_normalization", [False, True])
@pytest.mark.parametrize("filters", [16, 64])
def test_block_starts_with_as_much_variance_from_residual_as_from_skip(filters, weight_normalization):
    inputs = noise(4, 32, 32, 16)
    block = ResidualBlock(filters, weight_normalization=weight_normalization, seed=1)
    outputs = block(inputs)
    assert np.mean(np.square(outputs)) == pytest.approx(2.0, rel=0.25)
    block.residual_scale = 0.0
    assert np.mean(np.square(block(inputs))) == pytest.approx(1.0, rel=0.2)


def test_block_computes_in_the_policy_and_keeps_float32_weights():
    block = ResidualBlock(5, "down", batch_normalization=True, dtype="mixed_bfloat16")
    assert block(noise(*POOLED), training=True).dtype == tf.bfloat16
    assert {str(weight.dtype) for weight in block.weights} == {"float32"}


def test_a_seed_fixes_the_block():
    outputs = [ResidualBlock(5, seed=seed)(noise(*POOLED)).numpy() for seed in (0, 0, 1)]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert np.all(outputs[0] != outputs[2])
    block = ResidualBlock(3)
    block(noise(*POOLED))
    assert np.all(block.first.effective_kernel() != block.second.effective_kernel())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resampling": "sideways"}, "expected one of none, down, up, received 'sideways'"),
        ({"activation": "tanh"}, "expected one of relu, elu, received 'tanh'"),
        ({"filters": 0}, "filters"),
    ],
)
def test_a_mistake_is_named(options, message):
    with pytest.raises(UserError, match=message):
        ResidualBlock(**{"filters": 3, **options})


def test_an_odd_side_cannot_be_halved():
    with pytest.raises(UserError, match="expected even sides, received 6 x 5"):
        ResidualBlock(3, "down").build((None, 6, 5, 3))
    with pytest.raises(UserError, match="received 0"):
        discriminator((8, 8, 3), 4, 2, blocks=0)


def test_checkpoint_of_a_block_holds_normalizations_and_skip(tmp_path):
    options = {"filters": 5, "weight_normalization": True, "batch_normalization": True}
    saved, other = (shaken(ResidualBlock(**options), POOLED, seed) for seed in (1, 2))
    path = tf.train.Checkpoint(block=saved).save(str(tmp_path / "checkpoint"))
    stored = [name for name, _ in tf.train.list_variables(path) if name.startswith("block/")]
    # Directions and magnitudes of three, biases of two, four weights of each of two normalisations.
    assert len(stored) == len(saved.weights) == 3 * 2 + 2 + 2 * 4
    tf.train.Checkpoint(block=other).restore(path).assert_consumed()
    np.testing.assert_array_equal(saved(noise(*POOLED)), other(noise(*POOLED)))


def test_two_replicas_have_the_gradients_of_one(two_replicas):
    alone = small_discriminator(weight_normalization=True)
    with two_replicas.scope():
        mirrored = small_discriminator(weight_normalization=True)
    images = noise(4, 8, 8, 2)

    def gradients(network, images):
        values = [weight.value for weight in network.trainable_variables]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            penalty = gradient_penalty(network, images, None, None, form="real")
            loss = tf.reduce_sum(tf.nn.softplus(-network(images)) + penalty)
        return tape.gradient(loss, values, unconnected_gradients="zero")

    def of_replica():
        row = 2 * tf.distribute.get_replica_context().replica_id_in_sync_group
        return gradients(mirrored, images[row : row + 2])

    summed = tf.function(
        lambda: [two_replicas.reduce("SUM", slope, axis=None) for slope in two_replicas.run(of_replica)],
        autograph=False,
    )()
    for one, other in zip(summed, gradients(alone, images), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_two_replicas_share_the_statistics_of_batch_normalization(two_replicas):
    options = {"filters": 3, "batch_normalization": True, "seed": 4}
    alone = ResidualBlock(**options)
    images = noise(*POOLED) * [[[[1.0]]], [[[3.0]]]]
    expected = alone(images, training=True)
    with two_replicas.scope():
        mirrored = ResidualBlock(**options)
        mirrored.build(POOLED)

    def of_replica():
        row = tf.distribute.get_replica_context().replica_id_in_sync_group
        return mirrored(images[row : row + 1], training=True)

    outputs = tf.function(lambda: two_replicas.run(of_replica), autograph=False)()
    outputs = tf.concat(two_replicas.experimental_local_results(outputs), 0)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4)
