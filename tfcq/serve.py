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
from tfcq.serving.addresses import Address
from tfcq.serving.errors import RequestError, UsageError

# TensorFlow is imported only after the flags and ports are checked: it takes seconds, and prints messages.

_FLAGS = (
    *("port", "host", "rest_api_port", "model_name", "model_base_path", "model_config_file", "monitoring_config_file"),
    *("file_system_poll_wait_seconds", "rest_api_num_threads", "grpc_max_threads", "grpc_channel_arguments"),
)


def define(flags: Flags) -> None:
    """The flags of `tfcq.serve`; their names and meanings are those of TF Serving's main.cc."""
    threads = 4 * (os.cpu_count() or 1)
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
    flags.integer("grpc_max_threads", threads, "How many gRPC requests are handled at a time", 1)
    flags.integer("rest_api_num_threads", threads, "How many REST requests are handled at a time", 1)
    flags.several(
        "grpc_channel_arguments",
        [],
        "Arguments of the gRPC server, key=value, such as grpc.max_receive_message_length=1000000 (the default is 2 GiB)",
    )
    flags.string(
        "monitoring_config_file", "", "A MonitoringConfig (text protobuf): Prometheus metrics on the REST port", "FILE"
    )


def read_options(flags: Flags) -> tuple[types.SimpleNamespace, Any]:
    """(options for `LocalServer`, ModelServerConfig), checked as far as possible without TensorFlow.

    Raises:
        UsageError: a package of the extra `serving` is missing, a flag, or a file or folder that it names, is wrong, or a
            port is in use.
    """
    _check_packages()
    from tfcq.serving.versions import checked_models, read_model_config, single_model_config

    values = types.SimpleNamespace(**{name: getattr(flags, name) for name in _FLAGS})
    values.grpc_channel_arguments = [_channel_argument(text) for text in values.grpc_channel_arguments]
    ports = [port for port in (values.port, values.rest_api_port) if port]
    if not ports or len(set(ports)) < len(ports):
        raise UsageError(f"--port={values.port} and --rest_api_port={values.rest_api_port}: one of them must be on, and"
                         f" they must differ")
    if not values.model_config_file and not values.model_base_path:
        raise UsageError("give --model_base_path (one model) or --model_config_file (several)")
    values.metrics_path = None
    if values.monitoring_config_file:
        from tfcq.serving.monitoring import read_metrics_path

        values.metrics_path = read_metrics_path(values.monitoring_config_file)
    if values.model_config_file:
        server_config = read_model_config(values.model_config_file)
    else:
        server_config = single_model_config(values.model_name, values.model_base_path)
    try:
        checked_models(server_config)
    except RequestError as error:
        raise UsageError(error.reason) from error
    values.address = Address.of(values.host)
    for port in ports:
        values.address.check_free(port)
    return values, server_config


def _check_packages():
    """Raises UsageError, saying which extra to install, if a package is missing that only serving needs."""
    try:
        importlib.import_module("grpc")
        importlib.import_module("tensorflow_serving")
    except ImportError as error:
        raise UsageError(
            "serve: expected the packages grpcio and tensorflow-serving-api, the extra `serving`, but one cannot be imported "
            f"({error}); pip install 'tfcq[serving]'"
        ) from error


def main(flags: Flags) -> None:
    """Runs the server until it receives a signal; returns after a graceful stop."""
    signals: list[int] = []  # not an Event: a handler that interrupts the owner of its lock would deadlock
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: signals.append(number))
    try:
        options, server_config = read_options(flags)
        logging.set_verbosity(logging.INFO)  # logs which versions are loaded and unloaded, as TF Serving does
        logging.use_absl_handler()
        server = _import_server()(options)
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


def _import_server():
    """Imports `LocalServer`, with TensorFlow set as in tfcq's other commands, but without Keras, which it does not need.

    oneDNN is on (`import tfcq` enables it), and TensorFloat-32 is off, as densities are float32, unless the environment
    variables of the user say otherwise.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with settings.without_garbage_collection():
        import tensorflow as tf

        from tfcq.serving.server import LocalServer
    gc.freeze()  # as `start_tensorflow` does
    if not os.environ.get("NVIDIA_TF32_OVERRIDE"):
        tf.config.experimental.enable_tensor_float_32_execution(False)
    return LocalServer


def _channel_argument(text):
    key, separator, value = text.partition("=")
    if not key or not separator:
        raise UsageError(f"--grpc_channel_arguments needs key=value, received {text!r}")
    return key, int(value) if value.lstrip("-").isdecimal() else value


COMMAND = Command("tfcq serve", __doc__, define, main, outlives_stdout=True, flagfiles=False)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
