"""Devices: which of them train, and the process-wide switches that must be set before TensorFlow starts."""

import tensorflow as tf

from tfcq.errors import UserError


def prepare(distribution="auto", logical_devices=1, deterministic=False, batch_size=0):
    """The tf.distribute strategy of a configuration; the arguments are its options of these names.

    `auto` mirrors where there are several GPUs, or several logical CPU devices where there is no GPU.

    Args:
        distribution: "auto", "none" or "mirrored".
        logical_devices: into how many devices a CPU is split.
        deterministic: whether the process keeps to deterministic kernels.
        batch_size: images that the replicas must share evenly; 0: they need not.

    Raises:
        UserError: logical devices beside GPUs, or a batch that the replicas cannot share evenly.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if logical_devices > 1:
        if gpus:
            raise UserError(
                f"logical_devices={logical_devices}: expected 1, as this machine has {len(gpus)} GPU(s)"
            )
        _split_cpu(logical_devices)
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")[:logical_devices]
    if distribution == "none" or (distribution == "auto" and len(devices) == 1):
        return tf.distribute.get_strategy()
    if batch_size % len(devices):
        raise UserError(f"batch_size={batch_size}: expected a multiple of the {len(devices)} devices")
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
