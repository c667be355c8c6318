"""Weight normalisation against the formula in NumPy, and its gradients against autodiff of the formula."""

import numpy as np
import pytest
import tensorflow as tf

from tfcq.networks.weight_normalization import weight_normalized


def arguments(dtype="float64"):
    """A direction whose filters are usual, zero and so small that their norm is that of the bound; a magnitude; a slope."""
    random = np.random.default_rng(0)
    direction = random.normal(size=(3, 2, 4, 5)) * [1.0, 1.0, 0.0, 1e-8, 100.0]
    arrays = direction, random.normal(size=5), random.normal(size=direction.shape)
    return [tf.constant(array, dtype) for array in arrays]


def formula(direction, magnitude):
    """The same, differentiated by TensorFlow operation by operation."""
    return magnitude * tf.math.l2_normalize(direction, axis=[0, 1, 2])


def slopes(function, direction, magnitude, slope, persistent=False):
    """The gradients, and those of a function of the gradients."""
    with tf.GradientTape() as outer:
        outer.watch([direction, magnitude])
        with tf.GradientTape(persistent=persistent) as inner:
            inner.watch([direction, magnitude])
            total = tf.reduce_sum(slope * function(direction, magnitude))
        first = inner.gradient(total, [direction, magnitude])
        # Filters as small as the bound have slopes of 1e6 and more: they would hide the others.
        combined = tf.reduce_sum(tf.sin(first[0])[..., :2]) + tf.reduce_sum(tf.sin(first[1]))
    return first, outer.gradient(combined, [direction, magnitude])


def test_kernels_have_their_magnitude_along_their_direction():
    direction, magnitude, _ = (array.numpy() for array in arguments())
    norms = np.sqrt(np.maximum((direction**2).sum(axis=(0, 1, 2)), 1e-12))
    found = weight_normalized(direction, magnitude)
    np.testing.assert_allclose(found, magnitude * direction / norms, rtol=1e-12)
    assert found.shape == direction.shape and not found.numpy()[..., 2].any()
    found = np.sqrt((found.numpy() ** 2).sum(axis=(0, 1, 2)))
    np.testing.assert_allclose(found[[0, 1, 4]], np.abs(magnitude[[0, 1, 4]]), rtol=1e-12)


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("persistent", [False, True])
def test_gradients_of_both_orders_are_those_of_the_formula(graph, persistent):
    found, expected = (
        (tf.function(slopes, autograph=False) if graph else slopes)(function, *arguments(), persistent)
        for function in (weight_normalized, formula)
    )
    for one, other in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        scale = np.abs(other).max(axis=tuple(range(other.shape.rank - 1)), keepdims=True)  # of each filter
        assert one.shape == other.shape
        assert (np.abs(one - other) <= 1e-11 * (scale + 1.0)).all()


def test_a_kernel_is_two_operations_of_a_training_graph():
    """And no more, whatever its shape: the first step of a deep network waits for its graph."""

    @tf.function(autograph=False)
    def step(*tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            kernels = [weight_normalized(*tensors[place : place + 2]) for place in range(0, len(tensors), 2)]
            total = tf.add_n([tf.nn.l2_loss(kernel) for kernel in kernels])
        return tape.gradient(total, tensors)

    shapes = [(side, 1, channels, 3) for side in (1, 2) for channels in (1, 2)]
    graph = step.get_concrete_function(*(tf.zeros(one) for shape in shapes for one in (shape, shape[-1:]))).graph
    kinds = [operation.type for operation in graph.get_operations()]
    assert kinds.count("PartitionedCall") == 2 * len(shapes)
    assert not {"Rsqrt", "Fill", "IdentityN"} & set(kinds)
