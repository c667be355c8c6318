"""Perceptrons: their formula in NumPy, the skip, first outputs of zero."""

import numpy as np
import pytest
import tiny_models as tiny

from tfcq.networks.dense import Perceptron


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("count", [1, 3])
def test_the_formula_in_numpy(skip, count):
    network = Perceptron(4, 2, 5, count, input_skip=skip, seed=1)
    tiny.perturb(network.trainable_variables)
    inputs = np.random.RandomState(0).standard_normal((7, 4)).astype(np.float32)
    weights = [weight.numpy().astype(np.float64) for weight in network.trainable_variables]
    assert len(weights) == 2 * count + 2
    hidden = inputs.astype(np.float64)
    for kernel, bias in zip(weights[0:-2:2], weights[1:-2:2]):
        hidden = np.maximum(hidden @ kernel + bias, 0.0)
    if skip:
        hidden = np.concatenate([hidden, inputs], axis=1)
    np.testing.assert_allclose(network(inputs), hidden @ weights[-2] + weights[-1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("normalization", ["before", "after"])
def test_batch_normalisation_is_before_each_relu_or_after_it(normalization):
    network = Perceptron(4, 2, 5, 2, seed=1, normalization=normalization)
    tiny.perturb(network.trainable_variables)
    inputs = np.random.RandomState(0).standard_normal((7, 4)).astype(np.float32)
    weights = {weight.path.partition("/")[2]: weight.numpy().astype(np.float64) for weight in network.trainable_variables}
    assert ("hidden_0/bias" in weights) == (normalization == "after")

    def expected(moments):
        hidden = inputs.astype(np.float64)
        for index in range(2):
            hidden = hidden @ weights[f"hidden_{index}/kernel"] + weights.get(f"hidden_{index}/bias", 0.0)
            hidden = np.maximum(hidden, 0.0) if normalization == "after" else hidden
            gamma, beta = (weights[f"normalization_{index}/{name}"] for name in ("gamma", "beta"))
            mean, variance = moments(hidden)
            hidden = (hidden - mean) / np.sqrt(variance + 1e-5) * gamma + beta
            hidden = np.maximum(hidden, 0.0) if normalization == "before" else hidden
        return hidden @ weights["outputs/kernel"] + weights["outputs/bias"]

    np.testing.assert_allclose(network(inputs), expected(lambda hidden: (0.0, 1.0)), rtol=1e-4, atol=1e-4)  # not moved yet
    trained = network(inputs, training=True)
    np.testing.assert_allclose(trained, expected(lambda hidden: (hidden.mean(0), hidden.var(0))), rtol=1e-4, atol=1e-4)
    assert network.normalization_0.moving_mean.numpy().any()


def test_a_gain_of_zero_gives_zeros_and_a_small_one_small_outputs():
    inputs = np.random.RandomState(0).standard_normal((200, 8)).astype(np.float32)
    full, tenth, none = (Perceptron(8, 6, 64, 2, output_gain=gain, seed=2)(inputs).numpy() for gain in (1.0, 0.1, 0.0))
    assert not none.any()
    assert tenth.std() == pytest.approx(0.1 * full.std(), rel=1e-3) and full.std() > 0.3


def test_names_tell_the_network():
    paths = [weight.path for weight in Perceptron(2, 2, 2, 1, name="adversary").weights]
    assert paths == [f"adversary/{name}" for name in ("hidden_0/kernel", "hidden_0/bias", "outputs/kernel", "outputs/bias")]
