"""Serves SavedModels over TF Serving's gRPC and REST protocol, in Python, under TF Serving's own flag names.

    python -m tfcq.serve --model_name=NAME --model_base_path=BASE/NAME --port=8500 --rest_api_port=8501

Prints one line when it is ready. SIGTERM and Ctrl-C end it gracefully with status 0; a wrong flag, a missing path or a
taken port is one line and status 2. serving/README.md says what TF Serving does that this server does not.
"""

import os
import signal
import sys
import time
import types

from absl import app, flags, logging

from tfcq.serving.addresses import Address
from tfcq.serving.errors import RequestError, UsageError, one_line
from tfcq.serving.versions import checked_models, read_model_config, single_model_config

# TensorFlow is imported only when the flags are right and the ports are free: it takes seconds, and it talks.


def define_flags(flag_values):
    """Declares the flags; their names and meanings are those of TF Serving's main.cc."""
    threads = 4 * (os.cpu_count() or 1)
    flags.DEFINE_integer("port", 8500, "Port of the gRPC API; 0 turns it off.", 0, 65535, flag_values=flag_values)
    flags.DEFINE_string("host", "127.0.0.1", "Address to listen on: 127.0.0.1 or ::1 is this machine alone, 0.0.0.0 or :: is"
                        " every address (put a proxy with encryption and authentication before it). TF Serving, which"
                        " has no such flag, listens on every address.", flag_values=flag_values)
    flags.DEFINE_integer("rest_api_port", 0, "Port of the REST API; 0 turns it off.", 0, 65535, flag_values=flag_values)
    flags.DEFINE_string("model_name", "default", "Name of the model; ignored with --model_config_file.",
                        flag_values=flag_values)
    flags.DEFINE_string("model_base_path", "", "Directory of the model's versions, each an integer; ignored with"
                        " --model_config_file.", flag_values=flag_values)
    flags.DEFINE_string("model_config_file", "", "ModelServerConfig (text protobuf): several models, version policies,"
                        " labels.", flag_values=flag_values)
    flags.DEFINE_string("monitoring_config_file", "", "MonitoringConfig (text protobuf): Prometheus metrics on the REST"
                        " port.", flag_values=flag_values)
    flags.DEFINE_float("file_system_poll_wait_seconds", 1, "Seconds between two looks for new versions; 0 looks only at"
                       " the start.", 0, flag_values=flag_values)
    flags.DEFINE_integer("rest_api_num_threads", threads, "REST requests worked on at a time.", 1,
                         flag_values=flag_values)
    flags.DEFINE_integer("grpc_max_threads", threads, "gRPC requests worked on at a time.", 1, flag_values=flag_values)
    flags.DEFINE_list("grpc_channel_arguments", [], "gRPC server arguments, key=value, such as"
                      " grpc.max_receive_message_length=1000000 (the default is 2 GiB).", flag_values=flag_values)


def read_options(argv, flag_values):
    """(options for `LocalServer`, ModelServerConfig), checked as far as is possible without TensorFlow.

    Raises:
        UsageError: if a flag, or a file or directory that it names, is wrong, or a port is taken.
    """
    if any(argument.partition("=")[0] in ("--flagfile", "-flagfile") for argument in argv[1:]):
        raise UsageError("there is no --flagfile, as in TF Serving; give the flags themselves, or --model_config_file")
    try:
        rest = flag_values(argv)[1:]
    except flags.Error as error:
        raise UsageError(one_line(error)) from error
    if rest:
        raise UsageError(f"unexpected argument {rest[0]!r}; every option is --name=value")
    values = types.SimpleNamespace(**{name: flag_values[name].value for name in flag_values})
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


def main(argv):
    """Runs the server until a signal comes.

    Returns:
        The exit status: 0 after a graceful stop, 2 for a mistake in the call.
    """
    define_flags(flags.FLAGS)
    app.define_help_flags()
    flags.FLAGS.set_default("verbosity", logging.INFO)  # which versions come and go, as TF Serving logs it
    signals = []  # not an Event: its lock must not be taken by a handler that interrupts its owner
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: signals.append(number))
    try:
        options, server_config = read_options(argv, flags.FLAGS)
        logging.use_absl_handler()
        server = _import_server()(options)
        ready = server.start(server_config)
    except UsageError as error:
        print(f"local_server: {error}", file=sys.stderr)
        return 2
    if not signals:
        _say(ready)
    while not signals:
        time.sleep(0.1)
    server.stop()
    return 0


def _import_server():
    """`LocalServer`, with a TensorFlow that computes as in tfcq's other commands, but without Keras, which it does not need.

    oneDNN is on (`import tfcq` sees to it), and TensorFloat-32 is off, as densities are float32. What the user's environment says
    of either stays.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    if not os.environ.get("NVIDIA_TF32_OVERRIDE"):
        tf.config.experimental.enable_tensor_float_32_execution(False)
    from tfcq.serving.server import LocalServer

    return LocalServer


def _say(line):
    """Prints a line, if anybody reads it (`| head`); the models are served all the same."""
    try:
        print(line, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _channel_argument(text):
    key, separator, value = text.partition("=")
    if not key or not separator:
        raise UsageError(f"--grpc_channel_arguments needs key=value, received {text!r}")
    return key, int(value) if value.lstrip("-").isdecimal() else value


if __name__ == "__main__":
    sys.exit(main(sys.argv))
