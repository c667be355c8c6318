"""Floating-point operations of graphs, against counts by hand."""

import pytest
import tensorflow as tf

from tfcq.benchmarking import flop


def counted(function, *specs):
    return flop.gflop(tf.function(function).get_concrete_function(*specs).graph)


IMAGES, KERNEL = tf.TensorSpec((5, 8, 8, 3)), tf.TensorSpec((3, 3, 3, 7))
CONVOLUTION = 2 * 5 * 8 * 8 * 7 * 27 / 1e9


def convolve(images, kernel):
    return tf.nn.conv2d(images, kernel, 1, "SAME")


def with_gradients(images, kernel):
    with tf.GradientTape() as tape:
        tape.watch([images, kernel])
        loss = tf.reduce_sum(tf.square(convolve(images, kernel)))
    return tape.gradient(loss, [images, kernel])


def test_a_convolution_and_its_gradients():
    assert counted(convolve, IMAGES, KERNEL) == pytest.approx(CONVOLUTION)
    assert counted(with_gradients, IMAGES, KERNEL) == pytest.approx(3 * CONVOLUTION)


def test_what_no_result_needs_is_not_counted():
    """The gradient with respect to the images, for one: TensorFlow does not compute it either."""

    def step(images, kernel):
        variable = tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=kernel.shape)
        tf.raw_ops.AssignSubVariableOp(resource=variable, value=with_gradients(images, kernel)[1])
        return tf.constant(0.0)

    assert counted(step, IMAGES, KERNEL) == pytest.approx(2 * CONVOLUTION)


def test_functions_are_counted_as_often_as_they_are_called():
    inner = tf.function(convolve)
    assert counted(lambda images, kernel: inner(images, kernel) + inner(images + 1.0, kernel), IMAGES, KERNEL) == pytest.approx(
        2 * CONVOLUTION
    )


@pytest.mark.parametrize("transposed", [False, True])
def test_matrix_products(transposed):
    left = tf.TensorSpec((4, 6) if transposed else (6, 4))
    product = counted(lambda left, right: tf.matmul(left, right, transpose_a=transposed), left, tf.TensorSpec((4, 9)))
    assert product == pytest.approx(2 * 6 * 4 * 9 / 1e9)
    batches = counted(lambda left: tf.matmul(left, left, transpose_b=True), tf.TensorSpec((3, 6, 4)))
    assert batches == pytest.approx(2 * 3 * 6 * 6 * 4 / 1e9)


def test_loops_are_unknown_only_where_something_is_counted_in_them():
    assert counted(lambda rows: tf.map_fn(lambda row: row + 1.0, rows), tf.TensorSpec((3, 4))) == 0.0
    assert counted(lambda rows: tf.map_fn(lambda row: tf.matmul(row, row), rows), tf.TensorSpec((3, 4, 4))) is None
    assert counted(convolve, tf.TensorSpec((None, 8, 8, 3)), KERNEL) is None
