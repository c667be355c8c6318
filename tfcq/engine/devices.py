"""Devices: which ones are used for training, and process-wide settings that must precede TensorFlow's start."""

import os

import tensorflow as tf
from tensorflow.python.eager import context  # the only place where the heartbeat's timeout can be set

from tfcq.errors import UserError, WorkerLost
from tfcq.machine import interruption, peers
from tfcq.machine.cluster import Cluster

JOIN_SECONDS = 1800.0
"""How long a worker waits for the others to start."""

HEARTBEAT_SECONDS = 90.0
"""How long a worker may be silent before the others end."""

_JOINING_ERRORS = (
    *(tf.errors.AbortedError, tf.errors.AlreadyExistsError, tf.errors.CancelledError, tf.errors.DeadlineExceededError),
    *(tf.errors.FailedPreconditionError, tf.errors.InternalError, tf.errors.UnavailableError),
)
"""What TensorFlow raises where a worker is gone again, or meets those of a training that does not know of its end yet."""

_strategies: dict[Cluster, tf.distribute.Strategy] = {}
"""The cluster that this process has joined, which it can do once; later trainings have the same strategy."""


def prepare(
    distribution: str = "auto",
    logical_devices: int = 1,
    deterministic: bool = False,
    batch_size: int = 0,
    cluster: Cluster | None = None,
) -> tf.distribute.Strategy:
    """Sets up the devices; returns the tf.distribute strategy. The arguments are the options of these names.

    `auto` mirrors over the devices of all workers of a cluster, or over several GPUs or, without a GPU, over several logical
    CPU devices. With a cluster it waits for the other workers, and nothing may have used TensorFlow in this process before,
    except an earlier training on the same cluster.

    Args:
        distribution: "auto", "none" or "mirrored".
        logical_devices: the number of devices that the CPU is split into.
        deterministic: whether the process uses only deterministic kernels.
        batch_size: images to be divided evenly among the replicas; 0: no such check.
        cluster: the machines that train together; None: this one alone.

    Raises:
        UserError: several logical devices on a machine with GPUs or in a cluster, a batch that cannot be divided evenly, or a
            cluster that this process can no longer join.
        WorkerLost: a worker of the cluster did not start.
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
    if cluster and len(cluster.workers) > 1 and distribution == "auto":
        return _joined(cluster, logical_devices, batch_size)
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")[:logical_devices]
    if distribution == "none" or (distribution == "auto" and len(devices) == 1):
        return tf.distribute.get_strategy()
    if batch_size % len(devices):
        raise UserError(f"batch_size={batch_size}: expected a multiple of the {len(devices)} devices")
    # Collectives between CPU devices keep keys that clash with a second strategy in the same process.
    on_cpu = None if gpus else tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy([device.name for device in devices], cross_device_ops=on_cpu)


def _joined(cluster: Cluster, logical_devices: int, batch_size: int) -> tf.distribute.Strategy:
    """The strategy over all workers of a cluster, once all of them are there."""
    count = len(cluster.workers)
    if logical_devices > 1:
        raise UserError(f"logical_devices={logical_devices}: expected 1, as {count} workers train together")
    if batch_size % count:  # said now, before the others are waited for; their devices are not known yet
        raise UserError(f"batch_size={batch_size}: expected a multiple of the {count} workers")
    strategy = _strategies.get(cluster) or _joined_first(cluster)
    _strategies[cluster] = strategy
    if batch_size % strategy.num_replicas_in_sync:
        raise UserError(
            f"batch_size={batch_size}: expected a multiple of the {strategy.num_replicas_in_sync} devices of {count} workers"
        )
    return strategy


def _joined_first(cluster: Cluster) -> tf.distribute.Strategy:
    count = len(cluster.workers)
    if context.context()._initialized:  # also where this process has joined another cluster
        raise UserError(
            f"{cluster.source} names {count} workers: expected the training to be the first that uses TensorFlow in this "
            "process; start Python anew and train first, or train here alone with distribution=none"
        )
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.workers)}), task_type="worker", task_id=cluster.index, rpc_layer="grpc"
    )
    worker = f"worker {cluster.index} of {count}"
    # Otherwise gRPC reaches the other workers by way of http_proxy, if that is set.
    hosts = dict.fromkeys(address.rpartition(":")[0].strip("[]") for address in cluster.workers)
    os.environ["no_grpc_proxy"] = ",".join(filter(None, [os.environ.get("no_grpc_proxy"), *hosts]))

    def report(missing):
        print(f"{worker}: waiting for {', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}", flush=True)

    if missing := peers.wait_for_all(cluster, JOIN_SECONDS, report):
        raise WorkerLost(worker, f"worker {cluster.workers.index(missing[0])} ({missing[0]}), which did not answer,")
    _allow_late_heartbeats(count)
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except _JOINING_ERRORS as error:
        raise WorkerLost(worker, "") from error
    interruption.reinstall()  # TensorFlow's coordination of workers has taken SIGTERM for itself
    return strategy


def _allow_late_heartbeats(count: int) -> None:
    """Sets how late a worker's heartbeat may be: after TensorFlow's 10 s a busy machine counted as lost."""
    jobs = tf.compat.v1.ConfigProto().experimental.coordination_config.coordinated_job_list
    jobs.add(name="worker", num_tasks=count)
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader="/job:worker/replica:0/task:0",
        heartbeat_timeout_in_ms=int(1000 * HEARTBEAT_SECONDS),
        coordinated_jobs=list(jobs),
    )


def _split_cpu(count: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError as error:  # TensorFlow runs already; its devices may suffice
        if len(tf.config.list_logical_devices("CPU")) < count:
            raise UserError(
                f"logical_devices={count}: expected to be set before TensorFlow starts in this process"
            ) from error


def gpu_memory() -> int | None:
    """The most bytes that TensorFlow has had allocated so far on one of this process's GPUs; None without a GPU."""
    gpus = tf.config.list_logical_devices("GPU")
    peaks = [tf.config.experimental.get_memory_info(gpu.name.removeprefix("/device:"))["peak"] for gpu in gpus]
    return max(peaks, default=None)
