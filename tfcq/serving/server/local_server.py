"""The two front ends on their ports and the manager behind them, from binding the ports to a graceful stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from absl import logging

from . import garbage
from .config_polling import ConfigPoller
from .errors import RequestError, UsageError
from .grpc_server import GrpcServer
from .loading import Loader, LoadOptions
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
            `rest_api_enable_cors_support`, `metrics_path` (None is off), `file_system_poll_wait_seconds` (0 looks at the file
            system once), `model_config_file` and `model_config_file_poll_wait_seconds` (0 does not look at it again),
            `grpc_socket_path` ("" is off), `credentials` (None is without encryption), `enable_serialization_as_tensor_content`,
            `allow_version_labels_for_unavailable_models`, and how versions are loaded: `batching`, `per_model_batching`,
            `num_warm_ups`, `num_load_retries`, `load_retry_seconds`, `is_ending` (see `LoadOptions`).

    Raises:
        UsageError: if a port is taken.
    """

    def __init__(self, options: Any) -> None:
        self._options = options
        self._loader = Loader(LoadOptions.of(options))
        self._manager = ModelManager(self._loader, options.allow_version_labels_for_unavailable_models)
        self._metrics = RequestMetrics()
        self._poller: Poller | None = None
        self._config_poller: ConfigPoller | None = None
        self._grpc = self._bind_grpc() if options.port or options.grpc_socket_path else None
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
            if self._options.port:
                endpoints.append(f"gRPC at {self._options.address.with_port(self._options.port)}")
            if self._options.grpc_socket_path:
                endpoints.append(f"gRPC at unix:{self._options.grpc_socket_path}")
        if self._rest:
            self._rest.serve_forever_in_thread()
            endpoints.append(f"REST at {self._options.address.with_port(self._options.rest_api_port)}")
        if self._options.file_system_poll_wait_seconds:
            self._poller = Poller(self._manager, self._options.file_system_poll_wait_seconds)
            self._poller.start()
        if self._options.model_config_file_poll_wait_seconds:
            self._config_poller = ConfigPoller(
                self._manager, self._options.model_config_file, server_config, self._options.model_config_file_poll_wait_seconds
            )
            self._config_poller.start()
        models = [f"{name} (version {', '.join(map(str, versions)) or 'none yet'})"
                  for name, versions in sorted(self._manager.available().items())]
        return f"ready: {', '.join(endpoints)}; serving {', '.join(models)}"

    def stop(self) -> None:
        """Takes no new request, waits up to `GRACE_SECONDS` for running ones, and frees the ports."""
        for poller in (self._poller, self._config_poller):
            if poller:
                poller.stop()
        stopping = self._grpc.stop(GRACE_SECONDS) if self._grpc else None
        if self._rest:
            self._rest.stop(GRACE_SECONDS)
        if stopping:
            stopping.result()
        self._loader.stop()
        logging.info("stopped")

    def _bind_grpc(self):
        server = GrpcServer(
            self._manager, self._metrics, self._options.grpc_max_threads, self._options.grpc_channel_arguments,
            self._options.enable_serialization_as_tensor_content,
        )
        places = {"port": self._options.address.with_port(self._options.port)} if self._options.port else {}
        if self._options.grpc_socket_path:
            places["grpc_socket_path"] = f"unix:{self._options.grpc_socket_path}"
        for flag, place in places.items():
            try:
                server.bind(place, self._options.credentials)
            except RuntimeError as error:
                raise UsageError(_taken(flag, getattr(self._options, flag))) from error
        return server

    def _bind_rest(self):
        api = RestApi(self._manager, self._metrics, self._options.rest_api_num_threads, self._options.metrics_path,
                      self._options.rest_api_timeout_in_ms / 1000, self._options.rest_api_enable_cors_support)
        try:
            return RestServer(self._options.address, self._options.rest_api_port, api)
        except OSError as error:
            raise UsageError(_taken("rest_api_port", self._options.rest_api_port)) from error


def _taken(flag, port):
    return f"--{flag}={port} cannot be bound: another server has it, or it needs more rights; choose another one"
