"""Two logical CPU devices for the whole session: they must be made before TensorFlow starts, and one process has one set.

The settings of the machine are as in a command of tfcq.
"""

import contextlib
import gc
import os
import signal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # here, as the next lines import TensorFlow before tfcq

import pytest
import tensorflow as tf

from tfcq.data import survey
from tfcq.machine import settings


def pytest_configure(config):
    settings.import_tensorflow()
    gc.freeze()
    gc.set_threshold(10_000, 10, 5)  # tracing makes many objects that stay: Python's own limits cost a tenth of the time
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, and so it would be in what is tested
    defaults = contextlib.ExitStack()
    defaults.enter_context(settings.keras_defaults())
    config.add_cleanup(defaults.close)
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


@pytest.fixture(autouse=True)
def _no_cache_at_home(tmp_path_factory, monkeypatch):
    """What is known of images, and their pixels, are kept beside the test's files and not in the home folder."""
    monkeypatch.setattr(survey, "FOLDER", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def _mirrored():
    """One a session, since a second one's collectives clash with the first's."""
    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    return tf.distribute.MirroredStrategy(devices[:2], cross_device_ops=tf.distribute.ReductionToOneDevice())


@pytest.fixture
def unoptimised_graphs():
    """TensorFlow does not optimise graphs meanwhile: where each runs once or twice that takes longer than all its runs."""
    before = tf.config.optimizer.get_experimental_options()
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    yield
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False} | before)


@pytest.fixture
def two_replicas(_mirrored, unoptimised_graphs):
    """A MirroredStrategy on two logical CPU devices. Graphs are not optimised; that of one replica is, as in a training."""
    return _mirrored
