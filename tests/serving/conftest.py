"""A model server for these tests: one process for all of them that do not change what is served."""

import collections
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(pathlib.Path(__file__).parent))

for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[name]  # the servers of these tests are on this machine

MODEL_NAME = "toy"
START_SECONDS = 600

Endpoints = collections.namedtuple("Endpoints", "grpc rest model")


class ServerProcess:
    """`serving/local_server.py` as its user starts it.

    Args:
        directory: where its output goes.
        arguments: its flags, without the two ports.
    """

    def __init__(self, directory, *arguments):
        self.grpc_port, self.rest_port = free_ports(2)
        self.rest_url = f"http://127.0.0.1:{self.rest_port}"
        self.grpc_address = f"127.0.0.1:{self.grpc_port}"
        self._output, self._errors = directory / "server.stdout", directory / "server.stderr"
        command = [sys.executable, str(REPOSITORY / "serving" / "local_server.py"), *map(str, arguments),
                   f"--port={self.grpc_port}", f"--rest_api_port={self.rest_port}"]
        # Only TensorFlow and its kin: from a checkout it must work where tfcq is not installed.
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        with open(self._output, "w") as output, open(self._errors, "w") as errors:
            self.process = subprocess.Popen(command, cwd=directory, stdout=output, stderr=errors, env=environment)

    def wait_until_ready(self):
        """Returns the ready line."""
        wait_for(lambda: "\n" in self.output or self.process.poll() is not None, START_SECONDS)
        assert self.process.poll() is None, self.errors
        return self.output

    def stop(self, signal_number=signal.SIGTERM):
        """Sends a signal and returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal_number)
        try:
            return self.process.wait(timeout=120)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    @property
    def output(self):
        return self._output.read_text()

    @property
    def errors(self):
        """stderr without what TensorFlow's libraries print before their logging is set up."""
        noise = re.compile(r"^(WARNING: All log messages before absl|[IWE]\d{4} ).*\n?", re.MULTILINE)
        return noise.sub("", self._errors.read_text())

    @property
    def log(self):
        return self._errors.read_text()


def free_ports(count):
    """Ports that nobody listens on at this moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [entry.getsockname()[1] for entry in sockets]
    for entry in sockets:
        entry.close()
    return ports


def wait_for(condition, seconds=120):
    """Waits until the condition holds; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not so within {seconds} s"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def toy_server(tmp_path_factory):
    """A `ServerProcess` that serves version 1 of the toy model, with warm-up, metrics and a limit on messages."""
    import toy_model

    directory = tmp_path_factory.mktemp("toy_server")
    seeds, temperatures = [[0, 0], [0, 1]], [1.0, 1.0]
    good = toy_model.warmup_record("sample", seed=seeds, temperature=temperatures)
    toy_model.export(directory / "models" / MODEL_NAME / "1", warmup_records=[good, good, b"not a record"])
    monitoring = directory / "monitoring.config"
    monitoring.write_text('prometheus_config { enable: true path: "/metrics/here" }')
    server = ServerProcess(directory, f"--model_name={MODEL_NAME}", f"--model_base_path=models/{MODEL_NAME}",
                           f"--monitoring_config_file={monitoring}",
                           f"--grpc_channel_arguments=grpc.max_receive_message_length={16 * 2**20}")
    server.wait_until_ready()
    yield server
    assert server.stop() == 0


@pytest.fixture
def start(tmp_path):
    """start(num_threads, idle_seconds, options of RestApi) -> (port, the model, the REST server); in this process."""
    import rest_cases

    from tfcq.serving.server import addresses, rest_api, rest_server
    from tfcq.serving.server.manager import ModelManager
    from tfcq.serving.server.monitoring import RequestMetrics
    from tfcq.serving.server.versions import single_model_config

    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").touch()
    started = []

    def start(num_threads=2, idle_seconds=rest_cases.WAIT, **options):
        models = []
        manager = ModelManager(lambda path: models.append(rest_cases.Model()) or models[-1])
        config = single_model_config("toy", str(tmp_path))
        config.model_config_list.config[0].version_labels["stable"] = 1
        manager.configure(config)
        api = rest_api.RestApi(manager, RequestMetrics(), num_threads, "/metrics", **options)
        server = rest_server.RestServer(addresses.Address.of("127.0.0.1"), 0, api, idle_seconds)
        server.serve_forever_in_thread()
        started.append((server, models[0]))
        return server.port, models[0], server

    yield start
    for server, model in started:
        model.go_on.set()
        server.stop(5)


@pytest.fixture(scope="session")
def endpoints(request):
    """The server that the contract is tested on: a running one that the environment names, or the toy server.

        TFCQ_SERVER_GRPC=host:8500 TFCQ_SERVER_REST=http://host:8501 TFCQ_SERVER_MODEL=cqf pytest .../test_contract.py

    One of the two addresses is enough; tests of the other transport are then skipped.
    """
    grpc, rest = os.environ.get("TFCQ_SERVER_GRPC"), os.environ.get("TFCQ_SERVER_REST")
    if grpc or rest:
        return Endpoints(grpc, rest, os.environ["TFCQ_SERVER_MODEL"])
    server = request.getfixturevalue("toy_server")
    return Endpoints(server.grpc_address, server.rest_url, MODEL_NAME)
