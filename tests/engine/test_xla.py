"""XLA on a machine where variables of integers lie in another device's memory than the weights, as with a GPU.

TensorFlow keeps a GPU's int32 variables in the host's memory. Here the weights are on one of two logical CPU devices, which
computes, and the int32 variables are on the other. Without a GPU this is the nearest: the error is the same.
"""

import contextlib

import numpy as np
import pytest
import tensorflow as tf

from tests import tiny_models as tiny

pytestmark = pytest.mark.slow

@contextlib.contextmanager
def integers_elsewhere():
    """Variables of int32 are made on the last logical CPU device."""
    devices = tf.config.list_logical_devices("CPU")
    assert len(devices) > 1
    moved = []

    def create(next_creator, **arguments):
        if tf.as_dtype(arguments["dtype"]) != tf.int32:
            return next_creator(**arguments)
        with tf.device(devices[-1].name):
            moved.append(next_creator(**arguments))
        return moved[-1]

    with tf.variable_creator_scope(create):
        yield moved
    assert moved and all(variable.device.endswith(devices[-1].name) for variable in moved)


@pytest.mark.parametrize(
    "family, micro_batches, options",
    [("cqf", 1, {"quality_ramp_steps": 5, "flow_couplings": 1}), pytest.param("glf", 2, {}, marks=pytest.mark.long)],
)
def test_a_step_reads_no_variable_of_another_device_inside_of_xla(family, micro_batches, options):
    def losses(**training):
        training["micro_batches"] = micro_batches
        model = tiny.compiled(tiny.config(model=family, training=training, **options))
        return tiny.fit(model, tiny.images(model.image_shape), 2)

    with integers_elsewhere():
        compiled = losses(jit_compile=True)
    for row, plain in zip(compiled, losses(), strict=True):
        assert row.keys() == plain.keys()
        for name in row:
            np.testing.assert_allclose(row[name], plain[name], rtol=1e-3, atol=1e-4, err_msg=name)
