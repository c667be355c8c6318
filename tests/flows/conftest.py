"""Splits the CPU in two logical devices, for the tests of several replicas; before TensorFlow starts, or not at all."""

import tensorflow as tf

_CPU = tf.config.list_physical_devices("CPU")[0]
if tf.config.get_logical_device_configuration(_CPU) is None:
    tf.config.set_logical_device_configuration(_CPU, [tf.config.LogicalDeviceConfiguration()] * 2)
