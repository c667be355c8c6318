"""TF Serving's REST API over a `ModelManager`: status, metadata and predict, one thread per connection."""

from __future__ import annotations

import http.server
import json
import re
import socket
import threading
import time
import typing
import urllib.parse
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2, model_pb2

from . import bodies, json_tensors
from .addresses import Address
from .errors import RequestError, as_request_error, invalid
from .grpc_api import EXAMPLES_ONLY, SIGNATURE_FIELD, metadata

if TYPE_CHECKING:
    from .manager import ModelManager
    from .monitoring import RequestMetrics

# The paths of http_rest_api_util.cc, to the letter; a wrong method or path under /v1/ is "Malformed request", 400.
_MODEL = r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_POST_PATH = re.compile(_MODEL + r"(?P<api>:classify|:regress|:predict)", re.IGNORECASE)
_GET_PATH = re.compile(_MODEL + r"(?P<api>/metadata)?", re.IGNORECASE)
API_PREFIX = "/v1/"
_APIS = {":predict": "Predict", ":classify": "Classify", ":regress": "Regress", "/metadata": "GetModelMetadata",
         "": "GetModelStatus"}

IDLE_SECONDS = 60  # a connection on which nothing comes is closed
LINGER_SECONDS = 1.0


class RestServer(http.server.ThreadingHTTPServer):
    """The HTTP server. The constructor binds its port; `serve_forever_in_thread` starts to listen.

    Args:
        address: the `Address` to listen on.
        port: the port of that address.
        manager: the `ModelManager`.
        metrics: the `RequestMetrics`.
        num_threads: how many requests are processed at a time; further ones wait.
        metrics_path: the URL path of Prometheus' page; None: no such page.

    Raises:
        OSError: if the port is taken.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        address: Address,
        port: int,
        manager: ModelManager,
        metrics: RequestMetrics,
        num_threads: int,
        metrics_path: str | None = None,
    ) -> None:
        self.address_family = address.family
        super().__init__((address.host, port), _Handler, bind_and_activate=False)
        address.prepare(self.socket)
        self.manager = manager
        self.metrics = metrics
        self.metrics_path = metrics_path
        self.slots = threading.BoundedSemaphore(num_threads)
        self._num_threads = num_threads
        try:
            self.server_bind()
        except OSError:
            self.server_close()
            raise

    def serve_forever_in_thread(self) -> None:
        """Starts to listen and answer, on threads of its own."""
        self.server_activate()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, name="rest", daemon=True).start()

    def stop(self, grace_seconds: float) -> None:
        """Stops taking connections, and waits at most `grace_seconds` for running requests."""
        self.shutdown()
        deadline = time.monotonic() + grace_seconds
        for _ in range(self._num_threads):
            if not self.slots.acquire(timeout=max(deadline - time.monotonic(), 0)):
                break
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Prints no stack trace: a client that hangs up is not an error of the server."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: RestServer
    server_version, sys_version = "local_server", ""  # Python's version is not revealed
    protocol_version = "HTTP/1.1"  # connections stay open
    timeout = IDLE_SECONDS
    disable_nagle_algorithm = True  # headers and body are two writes; with Nagle's algorithm the second waits 40 ms

    def do_GET(self):
        self._answer()

    do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = do_GET

    def log_message(self, format, *args):
        """Logs nothing: the metrics count requests, and a line for each would hide the messages that matter."""

    def send_error(self, code, message=None, explain=None):
        """Sends http.server's own refusals (a broken request line, too long headers) as JSON, too."""
        self.close_connection = True
        self._send(code, json.dumps({"error": message or explain or self.responses[code][0]}))

    def _answer(self):
        try:
            body = bodies.read(self.headers, self.rfile)
            path = urllib.parse.urlsplit(self.path).path
            with self.server.slots:
                if self.command == "GET" and path == self.server.metrics_path:
                    self._send(200, self.server.metrics.page(), "text/plain; charset=utf-8")
                else:
                    self._send(*self._response(path, body))
        except RequestError as error:  # the body was not read, so the rest of the connection cannot be parsed
            self.send_error(error.http_status, error.reason)
            self._linger()
        except OSError:  # the connection is gone or silent; there is nobody to answer
            self.close_connection = True

    def _response(self, path, body):
        """(HTTP status, JSON) for a request to the API; never raises."""
        start, status, call = time.monotonic(), "OK", None
        try:
            call = _Call.of(self.command, path)
            return 200, call.run(self.server.manager, body)
        except Exception as error:
            failure = as_request_error(error)
            status = failure.code
            return failure.http_status, json.dumps({"error": failure.reason})
        finally:
            if call is not None:
                name = call.model_spec.name if call.model_spec.name in self.server.manager.available() else ""
                self.server.metrics.record(name, call.api, "REST", status, time.monotonic() - start)

    def parse_request(self):
        """Reads the request line and the headers; an expectation other than 100-continue is refused, as by libevent."""
        if not super().parse_request():
            return False
        expectation = self.headers.get("Expect", "100-continue")
        if expectation.lower() != "100-continue":
            self.send_error(417, f"Expect must be 100-continue, received {expectation[:40]!r}")
            return False
        return True

    def handle_expect_100(self):
        """Asks for the body, unless the headers are reason enough to refuse it."""
        try:
            bodies.check_length(self.headers)
        except RequestError as error:
            self.send_error(error.http_status, error.reason)
            return False
        return super().handle_expect_100()

    def _linger(self):
        """Reads on for a moment: closing with unread bytes would reset the connection and lose the answer."""
        deadline = time.monotonic() + LINGER_SECONDS
        try:
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(LINGER_SECONDS)
            while time.monotonic() < deadline and self.connection.recv(2**16):
                pass
        except OSError:
            pass

    def _send(self, status, text, content_type="application/json"):
        content = text.encode("utf-8")
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


class _Call(typing.NamedTuple):
    """The API call that an HTTP method and a path ask for."""

    api: str
    model_spec: model_pb2.ModelSpec

    @classmethod
    def of(cls, command, path):
        """Reads a request line.

        Raises:
            RequestError: INVALID_ARGUMENT for a path or method that the API does not have, NOT_FOUND outside of it.
        """
        if not path.lower().startswith(API_PREFIX):
            raise RequestError("NOT_FOUND", f"nothing is served at {path}; the API is under /v1/models/")
        pattern = {"POST": _POST_PATH, "GET": _GET_PATH}.get(command)
        match = pattern.fullmatch(path) if pattern else None
        if match is None:
            raise invalid(f"Malformed request: {command} {path}")
        spec = model_pb2.ModelSpec(name=urllib.parse.unquote(match["name"]))
        if match["version"]:
            if int(match["version"]) >= 2**63:
                raise invalid(f"version {match['version']} is not a 64-bit integer")
            spec.version.value = int(match["version"])
        elif match["label"]:
            spec.version_label = urllib.parse.unquote(match["label"])
        api = match["api"] or ""
        return cls(_APIS[api.lower()], spec)

    def run(self, manager, body):
        """The JSON of the answer."""
        if self.api == "Predict":
            return self._predict(manager, body)
        if self.api == "GetModelMetadata":
            return self._metadata(manager)
        if self.api == "GetModelStatus":
            return json.dumps(_as_dict(manager.status(self.model_spec)), indent=1)
        raise RequestError("UNIMPLEMENTED", EXAMPLES_ONLY.format(self.api))

    def _predict(self, manager, body):
        signature_name, request_format, value = json_tensors.parse_request(body)
        _, servable = manager.find(self.model_spec)
        inputs = json_tensors.to_arrays(request_format, value, servable.input_specs(signature_name))
        return json_tensors.to_json(request_format, servable.predict(signature_name, inputs))

    def _metadata(self, manager):
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=[SIGNATURE_FIELD])
        request.model_spec.CopyFrom(self.model_spec)
        response = metadata(manager, request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata[SIGNATURE_FIELD].Unpack(signatures)
        return json.dumps({"model_spec": _as_dict(response.model_spec),
                           "metadata": {SIGNATURE_FIELD: _as_dict(signatures)}}, indent=1)


def _as_dict(message):
    return json_format.MessageToDict(message, preserving_proto_field_name=True,
                                     always_print_fields_with_no_presence=True)
