"""Two replicas, each with half of the batch, compute what one with all of it does."""

import flow_cases
import numpy as np
import pytest
import tensorflow as tf

from tfcq import flows

FLOWS = {
    "batch_normalization": lambda: flows.BatchNormalizationFlow(dtype="float64"),
    "image_flow": lambda: flows.ImageFlow(
        1, 1, 1, 4, normalization="batch", conditioner_batch_normalization=True, dtype="float64"
    ),
}


def step(flow, images):
    with tf.GradientTape() as tape:
        tape.watch(images)
        features, log_det = flow.inverse_and_log_det(images, training=True)
        loss = tf.reduce_sum(tf.sin(features)) - 0.1 * tf.reduce_sum(log_det)
    return features, log_det, tape.gradient(loss, images)


@pytest.mark.parametrize("name", FLOWS)
def test_training_on_two_replicas_is_training_on_one(name, two_replicas):
    images = flow_cases.batch((4, 4, 2), size=8) * 2.0 + 1.0
    alone = FLOWS[name]()
    alone.build((None, 4, 4, 2))
    flow_cases.perturb(alone)
    expected = step(alone, images)

    strategy = two_replicas
    with strategy.scope():
        flow = FLOWS[name]()
        flow.build((None, 4, 4, 2))
    flow_cases.perturb(flow)
    halves = strategy.experimental_distribute_values_from_function(
        lambda context: tf.split(images, 2)[context.replica_id_in_sync_group]
    )
    results = tf.function(lambda x: strategy.run(step, (flow, x)))(halves)
    for result, whole in zip(results, expected):
        np.testing.assert_allclose(tf.concat(strategy.experimental_local_results(result), axis=0), whole, rtol=1e-8)
    for weight, value in zip(flow.weights, alone.weights):
        for replica in strategy.experimental_local_results(weight.value):
            np.testing.assert_allclose(replica, value.value, rtol=1e-10, err_msg=weight.path)
