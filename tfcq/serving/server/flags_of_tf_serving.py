"""Which flags of `tensorflow_model_server` this server has, and why it does not have the others.

The list is that of tensorflow_serving/model_servers/main.cc, with older names that documents still use. A test compares it with
the flags of `tfcq.serve`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from absl import flags as absl_flags

from .errors import UsageError

if TYPE_CHECKING:
    from tfcq.command_line.flags import Flags

WORKING = (
    *("port", "rest_api_port", "grpc_socket_path", "grpc_max_threads", "grpc_channel_arguments", "rest_api_num_threads"),
    *("rest_api_timeout_in_ms", "rest_api_enable_cors_support"),
    *("enable_serialization_as_tensor_content", "allow_version_labels_for_unavailable_models"),
    *("model_name", "model_base_path", "model_config_file", "model_config_file_poll_wait_seconds"),
    *("file_system_poll_wait_seconds", "max_num_load_retries", "load_retry_interval_micros"),
    *("enable_model_warmup", "num_request_iterations_for_warmup", "monitoring_config_file", "ssl_config_file", "version"),
    *("enable_batching", "batching_parameters_file", "enable_per_model_batching_parameters"),
    *("tensorflow_session_parallelism", "tensorflow_intra_op_parallelism", "tensorflow_inter_op_parallelism"),
)
"""What `tfcq.serve` defines."""

WITHOUT_EFFECT: dict[str, tuple[type, str]] = {
    "enable_grpc_healthcheck_service": (bool, "the service is always there"),
    "num_load_threads": (int, "versions load one after the other, on a thread that no request waits for"),
    "num_unload_threads": (int, "a version ends with the last request that uses it"),
    "flush_filesystem_caches": (bool, "caches of files are the system's"),
    "remove_unused_fields_from_bundle_metagraph": (bool, "TensorFlow's loader decides what of the graph it keeps"),
    "enable_signature_method_name_check": (bool, "signatures of tf.saved_model.save have the method name of Predict"),
    "xla_cpu_compilation_enabled": (bool, "what a graph compiles with XLA is always compiled"),
    "xla_gpu_compilation_enabled": (bool, "what a graph compiles with XLA is always compiled"),
    "skip_initialize_tpu": (bool, "TPUs are not used"),
    "num_tflite_pools": (int, "there are no TFLite models here"),
    "num_tflite_interpreters_per_pool": (int, "there are no TFLite models here"),
}
"""{flag: (kind of its value, why it changes nothing here)}."""

REFUSED: dict[str, tuple[type, object, str]] = {
    "saved_model_tags": (str, "serve", "exports have one graph, with the tag `serve`"),
    "per_process_gpu_memory_fraction": (
        *(float, 0.0),
        "TensorFlow 2 limits a GPU's memory in bytes alone; TF_FORCE_GPU_ALLOW_GROWTH=true takes memory as it is needed",
    ),
    "tensorflow_session_config_file": (
        *(str, ""),
        "TensorFlow 2 has no sessions; use --tensorflow_intra_op_parallelism and --tensorflow_inter_op_parallelism",
    ),
    "platform_config_file": (str, "", "the one platform is tensorflow"),
    "thread_pool_factory_config_file": (str, "", "TensorFlow in Python has one thread pool for all models"),
    "use_alts_credentials": (bool, False, "ALTS is for machines of Google Cloud; use --ssl_config_file"),
    "prefer_tflite_model": (bool, False, "this server runs SavedModels, not TFLite models"),
    "use_tflite_model": (bool, False, "this server runs SavedModels, not TFLite models"),
    "mixed_precision": (str, "", "it would change the answers; densities are float32"),
    "enable_profiler": (bool, False, "the service of the profiler belongs to the C++ server"),
}
"""{flag: (kind of its value, the one value that is accepted, why no other)}."""

_DEFINE: dict[type, Callable[..., object]] = {
    bool: absl_flags.DEFINE_bool,
    int: absl_flags.DEFINE_integer,
    float: absl_flags.DEFINE_float,
    str: absl_flags.DEFINE_string,
}


def define(flags: Flags) -> None:
    """Defines the flags that do not work here, so that a command line of TF Serving is understood; --help does not list them."""
    for name, (kind, reason) in WITHOUT_EFFECT.items():
        _DEFINE[kind](name, None, reason, flag_values=flags.values)
    for name, (kind, accepted, reason) in REFUSED.items():
        _DEFINE[kind](name, accepted, reason, flag_values=flags.values)


def check(flags: Flags) -> None:
    """Raises UsageError for the first flag of `REFUSED` with another value than the one accepted."""
    for name, (_, accepted, reason) in REFUSED.items():
        value = getattr(flags, name)
        if value != accepted:
            received = str(value).lower() if isinstance(value, bool) else value
            raise UsageError(f"--{name}={received} is a flag of TF Serving that this server does not have: {reason}")
