"""Serves SavedModels over TF Serving's gRPC and REST protocol, in Python, under TF Serving's own flag names.

    python -m tfcq.serve --model_name=NAME --model_base_path=BASE/NAME \\
        --port=8500 --rest_api_port=8501

Prints one line when it is ready, and goes on serving if nobody reads its output. SIGTERM and Ctrl-C end it gracefully with
status 0; a wrong flag, a missing path or a port in use is reported in one line, with status 2. Like TF Serving it has no
--flagfile. serving/README.md says which features of TF Serving this server lacks.
"""

from __future__ import annotations

import gc
import importlib
import os
import re
import signal
import sys
import time
import types
from typing import Any

from absl import logging

from tfcq.command_line.command import Command
from tfcq.command_line.flags import Flags
from tfcq.errors import UserError
from tfcq.machine import settings
from tfcq.serving.server import flags_of_tf_serving
from tfcq.serving.server.addresses import Address
from tfcq.serving.server.errors import RequestError, UsageError

# TensorFlow is imported only after the flags and ports are checked: it takes seconds, and prints messages.

# Flags that `LocalServer` reads as they are.
_FLAGS = (
    *("port", "host", "rest_api_port", "model_config_file", "model_config_file_poll_wait_seconds", "grpc_socket_path"),
    *("file_system_poll_wait_seconds", "rest_api_num_threads", "rest_api_timeout_in_ms", "rest_api_enable_cors_support"),
    *("grpc_max_threads", "grpc_channel_arguments"),
    *("enable_serialization_as_tensor_content", "allow_version_labels_for_unavailable_models"),
)

# With batching a request waits in its thread until its batch has run, so that threads bound the size of batches. TF Serving's
# documents advise two requests at a time for each row of a batch; more threads than these are not started unasked.
MAX_THREADS = 256


def define(flags: Flags) -> None:
    """The flags of `tfcq.serve`; their names and meanings are those of TF Serving's main.cc."""
    flags.group("The models")
    flags.string("model_name", "default", "The name of the model; ignored with --model_config_file", "NAME")
    flags.string(
        "model_base_path", "", "The folder of the model's versions, each an integer; ignored with --model_config_file", "DIR"
    )
    flags.string(
        "model_config_file", "", "A ModelServerConfig (text protobuf): several models, version policies, labels", "FILE"
    )
    flags.number(
        "file_system_poll_wait_seconds", 1.0, "The seconds between two checks for new versions; 0 checks only at the start", 0.0
    )
    flags.number(
        "model_config_file_poll_wait_seconds", 0.0, "The seconds between two looks at --model_config_file; 0 reads it once", 0.0
    )
    flags.integer(
        "max_num_load_retries",
        0,
        "How many times a version that does not load is tried again at once; in any case it is when its files change. TF "
        "Serving's default is 5",
        0,
    )
    flags.integer("load_retry_interval_micros", 60_000_000, "The pause before such a try, in microseconds", 0)
    flags.boolean(
        "enable_model_warmup", True, "Replays the requests in assets.extra/tf_serving_warmup_requests before a version serves"
    )
    flags.integer("num_request_iterations_for_warmup", 1, "How many times they are replayed", 1)
    flags.boolean(
        "allow_version_labels_for_unavailable_models", False, "Accepts a new label of a version that is not loaded yet"
    )
    flags.group("Batching")
    flags.boolean("enable_batching", False, "Joins concurrent requests into one run of the model")
    flags.string(
        "batching_parameters_file",
        "",
        "A BatchingParameters (text protobuf), such as serving/batching.config; needs --enable_batching",
        "FILE",
    )
    flags.boolean(
        "enable_per_model_batching_parameters",
        False,
        "Joins requests as the file batching_params.pbtxt in a version's folder says, and not without one; of "
        "--batching_parameters_file only the number of threads is used",
    )
    flags.group("The machine")
    flags.integer("tensorflow_session_parallelism", 0, "Sets both of the following that are 0; 0: TensorFlow decides", 0)
    flags.integer("tensorflow_intra_op_parallelism", 0, "How many threads an operation uses", 0)
    flags.integer("tensorflow_inter_op_parallelism", 0, "How many operations run at a time", 0)
    flags.group("The endpoints")
    flags.string(
        "host",
        "127.0.0.1",
        "The address to listen on: 127.0.0.1 or ::1 for this machine alone, 0.0.0.0 or :: for every address (put a proxy with "
        "encryption and authentication in front of it). TF Serving, which has no such flag, listens on every address",
        "ADDRESS",
    )
    flags.integer("port", 8500, "The port of the gRPC API; 0 turns it off", 0, 65535)
    flags.integer("rest_api_port", 0, "The port of the REST API; 0 turns it off", 0, 65535)
    flags.string("grpc_socket_path", "", "A UNIX socket for the gRPC API too", "FILE")
    flags.string(
        "ssl_config_file", "", "An SSLConfig (text protobuf), key and certificates in PEM: TLS for the gRPC API", "FILE"
    )
    threads = f"default: 4 a core, {4 * (os.cpu_count() or 1)} here; with batching at least twice the rows of a batch"
    flags.integer("grpc_max_threads", None, f"How many gRPC requests are handled at a time ({threads})", 1)
    flags.integer("rest_api_num_threads", None, f"How many REST requests are handled at a time ({threads})", 1)
    flags.integer("rest_api_timeout_in_ms", 30000, "The milliseconds that a prediction by REST may take; 0 sets no limit", 0)
    flags.boolean("rest_api_enable_cors_support", False, "Adds CORS headers, so that scripts of any web page may use REST")
    flags.several(
        "grpc_channel_arguments",
        [],
        "Arguments of the gRPC server, key=value, such as grpc.max_receive_message_length=1000000 (the default is 2 GiB)",
    )
    flags.boolean(
        "enable_serialization_as_tensor_content", False, "Answers by gRPC have tensor_content, not typed fields: it is faster"
    )
    flags.string(
        "monitoring_config_file", "", "A MonitoringConfig (text protobuf): Prometheus metrics on the REST port", "FILE"
    )
    flags_of_tf_serving.define(flags)


def read_options(flags: Flags) -> tuple[types.SimpleNamespace, Any]:
    """(options for `LocalServer`, ModelServerConfig), checked as far as possible without TensorFlow.

    Raises:
        UsageError: a package of the extra `serving` is missing, a flag, or a file or folder that it names, is wrong, or a
            port is in use.
    """
    _check_packages()
    from tfcq.serving.server.versions import checked_models, read_model_config, single_model_config

    flags_of_tf_serving.check(flags)
    values = types.SimpleNamespace(**{name: getattr(flags, name) for name in _FLAGS})
    values.grpc_channel_arguments = [_channel_argument(text) for text in values.grpc_channel_arguments]
    ports = [port for port in (values.port, values.rest_api_port) if port]
    if not (ports or values.grpc_socket_path) or len(set(ports)) < len(ports):
        raise UsageError(f"--port={values.port} and --rest_api_port={values.rest_api_port}: one of them must be on, and"
                         f" they must differ")
    if not values.model_config_file and not flags.model_base_path:
        raise UsageError("give --model_base_path (one model) or --model_config_file (several)")
    if values.model_config_file_poll_wait_seconds and not values.model_config_file:
        raise UsageError("--model_config_file_poll_wait_seconds needs --model_config_file")
    values.metrics_path = None
    if flags.monitoring_config_file:
        from tfcq.serving.server.monitoring import read_metrics_path

        values.metrics_path = read_metrics_path(flags.monitoring_config_file)
    values.batching, values.per_model_batching = _batching(flags), flags.enable_per_model_batching_parameters
    _set_threads(values)
    values.num_warm_ups = flags.num_request_iterations_for_warmup if flags.enable_model_warmup else 0
    values.num_load_retries, values.load_retry_seconds = flags.max_num_load_retries, flags.load_retry_interval_micros * 1e-6
    values.is_ending = lambda: False  # `main` knows better
    values.credentials = None
    if flags.ssl_config_file:
        from tfcq.serving.server.tls import server_credentials

        values.credentials = server_credentials(flags.ssl_config_file)
    if values.model_config_file:
        server_config = read_model_config(values.model_config_file)
    else:
        server_config = single_model_config(flags.model_name, flags.model_base_path)
    try:
        checked_models(server_config)
    except RequestError as error:
        raise UsageError(error.reason) from error
    values.address = Address.of(values.host)
    for port in ports:
        values.address.check_free(port)
    return values, server_config


def _batching(flags):
    """The `BatchingParameters` that the flags ask for, or None."""
    given = [name for name in ("batching_parameters_file", "enable_per_model_batching_parameters") if getattr(flags, name)]
    if not flags.enable_batching:
        if given:
            raise UsageError(f"--{given[0]} needs --enable_batching")
        return None
    from tfcq.serving.server.batching_parameters import BatchingParameters

    file = flags.batching_parameters_file
    return BatchingParameters.of_file(file, f"--batching_parameters_file={file}") if file else BatchingParameters()


def _set_threads(values):
    """The numbers of threads that no flag says."""
    default = 4 * (os.cpu_count() or 1)
    if values.batching:
        default = max(default, min(2 * values.batching.max_batch_size, MAX_THREADS))
    for name in ("grpc_max_threads", "rest_api_num_threads"):
        if getattr(values, name) is None:
            setattr(values, name, default)


def _check_packages():
    """Raises UsageError, saying which extra to install, if a package is missing that only serving needs."""
    try:
        for package in ("grpc", "grpc_health", "grpc_reflection", "tensorflow_serving", "starlette", "uvicorn", "orjson"):
            importlib.import_module(package)
    except ImportError as error:
        raise UsageError(
            f"serve: expected the packages of the extra `serving`, but one cannot be imported ({error});"
            " pip install 'tfcq[serving]'"
        ) from error


def main(flags: Flags) -> None:
    """Runs the server until it receives a signal; returns after a graceful stop."""
    signals: list[int] = []  # not an Event: a handler that interrupts the owner of its lock would deadlock
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: signals.append(number))
    try:
        options, server_config = read_options(flags)
        options.is_ending = lambda: bool(signals)
        logging.set_verbosity(logging.INFO)  # logs which versions are loaded and unloaded, as TF Serving does
        logging.use_absl_handler()
        server = _import_server(flags)(options)
        ready = server.start(server_config)
    except UsageError as error:
        raise UserError(str(error)) from error
    try:
        if not signals:
            print(ready, flush=True)
        while not signals:
            time.sleep(0.1)
    finally:  # a hang-up raises
        server.stop()


def _import_server(flags=None):
    """Imports `LocalServer`, with TensorFlow set as in tfcq's other commands, but without Keras, which it does not need.

    oneDNN is on (`import tfcq` enables it), and TensorFloat-32 is off, as densities are float32, unless the environment
    variables of the user say otherwise.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with settings.without_garbage_collection(), settings.without_optional_imports():
        import tensorflow as tf

        from tfcq.serving.server.local_server import LocalServer
    gc.freeze()  # as `start_tensorflow` does
    if not os.environ.get("NVIDIA_TF32_OVERRIDE"):
        tf.config.experimental.enable_tensor_float_32_execution(False)
    if flags is not None:
        both = flags.tensorflow_session_parallelism
        tf.config.threading.set_intra_op_parallelism_threads(flags.tensorflow_intra_op_parallelism or both)
        tf.config.threading.set_inter_op_parallelism_threads(flags.tensorflow_inter_op_parallelism or both)
    return LocalServer


def _channel_argument(text):
    key, separator, value = text.partition("=")
    if not key or not separator:
        raise UsageError(f"--grpc_channel_arguments needs key=value, received {text!r}")
    if not re.fullmatch(r"-?[0-9]+", value):
        return key, value
    if len(value) > 20 or not -(2**31) <= int(value) < 2**31:  # gRPC's own limit
        raise UsageError(f"--grpc_channel_arguments: expected numbers of 32 bits, received {text[:60]!r}")
    return key, int(value)


COMMAND = Command("tfcq serve", __doc__, define, main, outlives_stdout=True, flagfiles=False)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
