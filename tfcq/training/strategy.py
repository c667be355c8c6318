"""Devices: which of them train, and the process-wide switches that must be set before TensorFlow starts."""

import tensorflow as tf

from tfcq.errors import UserError


def prepare(training):
    """The tf.distribute strategy of a TrainingConfig.

    `auto` mirrors where there are several GPUs, or several logical CPU devices where there is no GPU.

    Raises:
        UserError: logical devices beside GPUs, or a batch that the replicas cannot share evenly.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if training.logical_devices > 1:
        if gpus:
            raise UserError(
                f"logical_devices={training.logical_devices}: expected 1 on a machine with {len(gpus)} GPUs"
            )
        _split_cpu(training.logical_devices)
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if training.deterministic:
        tf.config.experimental.enable_op_determinism()
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")[: training.logical_devices]
    if training.distribution == "none" or (training.distribution == "auto" and len(devices) == 1):
        return tf.distribute.get_strategy()
    if training.batch_size % len(devices):
        raise UserError(f"batch_size={training.batch_size}: expected a multiple of the {len(devices)} devices")
    # Collectives between CPU devices keep keys that a second strategy of the same process runs into.
    on_cpu = None if gpus else tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy([device.name for device in devices], cross_device_ops=on_cpu)


def _split_cpu(count):
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError as error:  # TensorFlow runs already; what it has may do
        if len(tf.config.list_logical_devices("CPU")) < count:
            raise UserError(
                f"logical_devices={count}: expected to be set before TensorFlow starts in this process"
            ) from error
