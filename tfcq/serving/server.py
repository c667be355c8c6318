"""The two front ends on their ports and the manager behind them, from binding the ports to a graceful stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from absl import logging

from . import garbage
from .errors import RequestError, UsageError
from .grpc_server import GrpcServer
from .manager import ModelManager, Poller
from .monitoring import RequestMetrics
from .rest_api import RestApi
from .rest_server import RestServer

if TYPE_CHECKING:
    from tensorflow_serving.config import model_server_config_pb2

GRACE_SECONDS = 10


class LocalServer:
    """A model server.

    Args:
        options: an object with `address` (an `Address`), `port`, `rest_api_port` (0 is off), `grpc_max_threads`,
            `grpc_channel_arguments` (a list of pairs), `rest_api_num_threads`, `rest_api_timeout_in_ms` (0 is none),
            `rest_api_enable_cors_support`, `metrics_path` (None is off) and `file_system_poll_wait_seconds` (0 looks at the
            file system once).

    Raises:
        UsageError: if a port is taken.
    """

    def __init__(self, options: Any) -> None:
        self._options = options
        self._manager = ModelManager()
        self._metrics = RequestMetrics()
        self._poller: Poller | None = None
        self._grpc = self._bind_grpc() if options.port else None
        self._rest = self._bind_rest() if options.rest_api_port else None

    def start(self, server_config: model_server_config_pb2.ModelServerConfig) -> str:
        """Loads the models, then starts to answer.

        Args:
            server_config: a `ModelServerConfig`.

        Returns:
            One line that says which models are served at which addresses.

        Raises:
            UsageError: if the configuration is bad or a model has only versions that do not load.
        """
        try:
            self._manager.configure(server_config)
        except RequestError as error:
            raise UsageError(error.reason) from error
        garbage.freeze()
        endpoints = []
        if self._grpc:
            self._grpc.start()
            endpoints.append(f"gRPC at {self._options.address.with_port(self._options.port)}")
        if self._rest:
            self._rest.serve_forever_in_thread()
            endpoints.append(f"REST at {self._options.address.with_port(self._options.rest_api_port)}")
        if self._options.file_system_poll_wait_seconds:
            self._poller = Poller(self._manager, self._options.file_system_poll_wait_seconds)
            self._poller.start()
        models = [f"{name} (version {', '.join(map(str, versions)) or 'none yet'})"
                  for name, versions in sorted(self._manager.available().items())]
        return f"ready: {', '.join(endpoints)}; serving {', '.join(models)}"

    def stop(self) -> None:
        """Takes no new request, waits up to `GRACE_SECONDS` for running ones, and frees the ports."""
        if self._poller:
            self._poller.stop()
        stopping = self._grpc.stop(GRACE_SECONDS) if self._grpc else None
        if self._rest:
            self._rest.stop(GRACE_SECONDS)
        if stopping:
            stopping.result()
        logging.info("stopped")

    def _bind_grpc(self):
        server = GrpcServer(self._manager, self._metrics, self._options.grpc_max_threads, self._options.grpc_channel_arguments)
        try:
            server.bind(self._options.address.with_port(self._options.port))
        except RuntimeError as error:
            raise UsageError(_taken("port", self._options.port)) from error
        return server

    def _bind_rest(self):
        api = RestApi(self._manager, self._metrics, self._options.rest_api_num_threads, self._options.metrics_path,
                      self._options.rest_api_timeout_in_ms / 1000, self._options.rest_api_enable_cors_support)
        try:
            return RestServer(self._options.address, self._options.rest_api_port, api)
        except OSError as error:
            raise UsageError(_taken("rest_api_port", self._options.rest_api_port)) from error


def _taken(flag, port):
    return f"--{flag}={port} cannot be bound: another server has it, or it needs more rights; choose another port"
