"""Two logical CPU devices for the whole session: they must be made before TensorFlow starts, and one process has one set.

The settings of the machine are as in a command of tfcq.
"""

import contextlib
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # here, as the next lines import TensorFlow before tfcq

import pytest
import tensorflow as tf

from tfcq import settings


def pytest_configure(config):
    settings.import_tensorflow()
    defaults = contextlib.ExitStack()
    defaults.enter_context(settings.keras_defaults())
    config.add_cleanup(defaults.close)
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


@pytest.fixture(scope="session")
def two_replicas():
    """A MirroredStrategy on two logical CPU devices; one a session, since a second one's collectives clash with the first's."""
    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    return tf.distribute.MirroredStrategy(devices[:2], cross_device_ops=tf.distribute.ReductionToOneDevice())
