"""TF Serving's REST API over a `ModelManager`: status, metadata and predict, as an ASGI application.

The event loop reads requests and sends answers, and no slow client holds it up. Predict alone is computed on one of `num_threads`
threads; so status, metadata and metrics are answered while all of these are busy.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import re
import threading
import time
import typing
import urllib.parse
from typing import TYPE_CHECKING

from google.protobuf import json_format
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from tensorflow_serving.apis import get_model_metadata_pb2, model_pb2

from . import bodies, json_tensors
from .errors import HTTP_STATUS, RequestError, code_and_reason, invalid
from .grpc_api import EXAMPLES_ONLY, SIGNATURE_FIELD, metadata
from .stopping import Call as Stoppable
from .transfers import Transfer, Transfers

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from .manager import ModelManager
    from .monitoring import RequestMetrics

# The paths of http_rest_api_util.cc, to the letter; a wrong method or path under /v1/ is "Malformed request", 400.
_MODEL = r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_POST_PATH = re.compile(_MODEL + r"(?P<api>:classify|:regress|:predict)", re.IGNORECASE)
_GET_PATH = re.compile(_MODEL + r"(?P<api>/metadata)?", re.IGNORECASE)
API_PREFIX = "/v1/"
_APIS = {":predict": "Predict", ":classify": "Classify", ":regress": "Regress", "/metadata": "GetModelMetadata",
         "": "GetModelStatus"}

# What follows "GET " in a request line: a path, or a whole address as proxies are sent it.
_TARGET = re.compile(r"(?:[a-z][a-z0-9+.-]*://[^/?#]*)?(?P<path>/[^?#]*)", re.IGNORECASE)
_MAX_VERSION = 2**63 - 1

# AddCORSHeaders of http_rest_api_util.cc
_CORS_HEADERS = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Methods": "POST, GET",
                 "Access-Control-Allow-Headers": "Content-Type"}
_ORIGIN = re.compile("https?://")

_PIECE_BYTES = 2**18  # of an answer, that is sent at a time
_LARGE_BYTES = 4 * 2**20  # the JSON of larger requests is parsed one at a time


class RestApi:
    """The ASGI application.

    Args:
        manager: the `ModelManager`.
        metrics: the `RequestMetrics`.
        num_threads: how many predictions are computed at a time; further ones wait.
        metrics_path: the URL path of Prometheus' page; None: no such page.
        timeout_seconds: how long a prediction may take, with its wait for a thread; 0: without end.
        cors: whether answers allow scripts of any web page to read them.
        transfers: the bounds on bodies and answers.
    """

    def __init__(
        self,
        manager: ModelManager,
        metrics: RequestMetrics,
        num_threads: int,
        metrics_path: str | None = None,
        timeout_seconds: float = 30.0,
        cors: bool = False,
        transfers: Transfers | None = None,
    ) -> None:
        self.stopping = False  # answers tell clients to close their connections
        self._manager = manager
        self._metrics = metrics
        self._metrics_path = metrics_path
        self._timeout_seconds = timeout_seconds
        self._cors = cors
        self._transfers = transfers or Transfers()
        self._workers = concurrent.futures.ThreadPoolExecutor(num_threads, thread_name_prefix="rest")
        self._one_large = threading.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, whatever it is."""
        transfer = Transfer(self._transfers)
        try:
            response = await self._response(scope, receive, transfer)
            await self._send(response, scope, send, transfer)
        except (ClientDisconnect, TimeoutError, RequestError):
            pass  # there is nobody to answer, or who does not read: uvicorn closes the connection
        finally:
            transfer.release()

    def close(self) -> None:
        """Ends the threads that do not compute now."""
        self._workers.shutdown(wait=False, cancel_futures=True)

    async def _response(self, scope, receive, transfer):
        headers = Headers(scope=scope)
        command, path = scope["method"], _path(scope["raw_path"].decode("ascii"))
        held = []  # the body, which whoever parses it takes out, so that it is freed then
        try:
            if bodies.has_body(headers):
                held.append(await bodies.read(receive, transfer))
        except (RequestError, HTTPException) as error:  # the rest of the connection cannot be parsed, as the body was not read
            status, reason = (error.status_code, error.detail) if isinstance(error, HTTPException) else (
                error.http_status, error.reason)
            return _Json(_error(reason), status, {"Connection": "close"})
        if command == "GET" and path == self._metrics_path:
            return Response(self._metrics.page(), 200, media_type="text/plain")
        cors = _CORS_HEADERS if self._cors and path.lower().startswith(API_PREFIX) else None
        if command == "OPTIONS" and path.lower().startswith(API_PREFIX) and _ORIGIN.search(headers.get("origin", "")):
            return Response(b"", 200, cors)
        status, content = await self._answer(command, path, held, headers.get("content-encoding", ""))
        held.clear()
        transfer.release()
        if len(content) > _PIECE_BYTES:
            try:
                transfer.hold(len(content))
            except RequestError as error:
                return _Json(_error(error.reason), error.http_status, cors)
        return _Json(content, status, cors)

    async def _answer(self, command, path, held, encodings):
        """(HTTP status, JSON) for a request to the API; never raises."""
        start, call = time.monotonic(), None
        try:
            call = _Call.of(command, path)
            if call.api == "Predict":
                code, content = await self._predict(call, held, encodings)
            else:
                code, content = "OK", call.run(self._manager)
        except Exception as error:
            code, reason = code_and_reason(error)
            content = _error(reason)
        if call is not None:
            self._metrics.record(self._known(call), call.label, "REST", code, time.monotonic() - start)
        return HTTP_STATUS[code], content

    async def _predict(self, call, held, encodings):
        loop, deadline = asyncio.get_running_loop(), None
        if self._timeout_seconds:
            deadline = time.monotonic() + self._timeout_seconds
        stopped = Stoppable()
        job = loop.run_in_executor(self._workers, self._compute, call, held, encodings, deadline, stopped)
        try:
            async with asyncio.timeout(self._timeout_seconds or None):
                return await job
        except asyncio.CancelledError:  # the server ends, and its threads must not go on
            stopped.cancel()
            raise
        except TimeoutError:
            limit = f"{self._timeout_seconds * 1000:g} ms, the limit of --rest_api_timeout_in_ms"
            return "DEADLINE_EXCEEDED", _error(f"there was no answer within {limit}")

    def _compute(self, call, held, encodings, deadline, stopped):
        """(code, JSON), on a thread; never raises, for an exception would keep the request alive that its traceback refers to."""
        try:
            _, servable = self._manager.find(call.model_spec)
            signature_name, request_format, inputs = self._inputs(servable, held, encodings)
            start = time.monotonic()
            with stopped.answered():
                outputs = servable.predict(signature_name, inputs, deadline=deadline)
            self._metrics.record_runtime(self._known(call), call.api, time.monotonic() - start)
            return "OK", json_tensors.to_json(request_format, outputs)
        except Exception as error:
            code, reason = code_and_reason(error)
        return code, _error(reason)

    def _inputs(self, servable, held, encodings):
        """(signature name, format, {input: array}); the body and the lists that it was parsed to are freed on return."""
        body = bodies.unpacked(held.pop() if held else b"", encodings)
        # As Python's lists JSON takes up to 34 times its bytes ("[],[],..."). The parser holds Python's lock in any case.
        with self._one_large if len(body) > _LARGE_BYTES else contextlib.nullcontext():
            signature_name, request_format, value = json_tensors.parse_request(body)
            del body
            return signature_name, request_format, json_tensors.to_arrays(
                request_format, value, servable.input_specs(signature_name))

    def _known(self, call):
        """The model's name in the metrics: names that clients invent must not become labels."""
        return call.model_spec.name if call.model_spec.name in self._manager.available() else ""

    async def _send(self, response, scope, send, transfer):
        if self.stopping:
            response.headers["Connection"] = "close"
        content = response.body
        await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
        if len(content) <= _PIECE_BYTES:
            await send({"type": "http.response.body", "body": content})
            return
        pieces = memoryview(content)
        async with transfer.timed():
            for start in range(0, len(pieces), _PIECE_BYTES):
                piece = pieces[start:start + _PIECE_BYTES]
                await send({"type": "http.response.body", "body": piece, "more_body": True})  # waits for a client that is slow
                transfer.moved(len(piece))
            await send({"type": "http.response.body", "body": b""})


class _Json(Response):
    media_type = "application/json"


class _Call(typing.NamedTuple):
    """The API call that an HTTP method and a path ask for."""

    api: str
    label: str  # of the metrics: there, TF Serving names calls of REST as its paths do
    model_spec: model_pb2.ModelSpec

    @classmethod
    def of(cls, command, path):
        """Reads a request line.

        Raises:
            RequestError: INVALID_ARGUMENT for a path or method that the API does not have, NOT_FOUND outside of it.
        """
        if path.startswith("/") and not path.lower().startswith(API_PREFIX):
            raise RequestError("NOT_FOUND", f"nothing is served at {path}; the API is under /v1/models/")
        pattern = {"POST": _POST_PATH, "GET": _GET_PATH}.get(command)
        match = pattern.fullmatch(path) if pattern else None
        if match is None:
            raise invalid(f"Malformed request: {command} {path}")
        spec = model_pb2.ModelSpec(name=urllib.parse.unquote(match["name"]))
        if match["version"]:
            digits = match["version"].lstrip("0") or "0"
            if len(digits) > len(str(_MAX_VERSION)) or int(digits) > _MAX_VERSION:  # int() refuses thousands of digits
                raise invalid(f"the version must be at most {_MAX_VERSION}, received {match['version']}")
            spec.version.value = int(digits)
        elif match["label"]:
            spec.version_label = urllib.parse.unquote(match["label"])
        path_of_api = (match["api"] or "").lower()
        api = _APIS[path_of_api]
        return cls(api, path_of_api.removeprefix(":") if command == "POST" else api, spec)

    def run(self, manager):
        """The JSON of the answer to what takes no body."""
        if self.api == "GetModelMetadata":
            return self._metadata(manager)
        if self.api == "GetModelStatus":
            return _indented(_as_dict(manager.status(self.model_spec)))
        raise RequestError("UNIMPLEMENTED", EXAMPLES_ONLY.format(self.api))

    def _metadata(self, manager):
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=[SIGNATURE_FIELD])
        request.model_spec.CopyFrom(self.model_spec)
        response = metadata(manager, request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata[SIGNATURE_FIELD].Unpack(signatures)
        return _indented({"model_spec": _as_dict(response.model_spec), "metadata": {SIGNATURE_FIELD: _as_dict(signatures)}})


def _path(target):
    """The path in a request's target, without its query; the target itself if it has none."""
    match = _TARGET.match(target)
    return match["path"] if match else target


def _error(reason):
    return json.dumps({"error": reason}).encode()


def _indented(document):
    return json.dumps(document, indent=1).encode()


def _as_dict(message):
    return json_format.MessageToDict(message, preserving_proto_field_name=True,
                                     always_print_fields_with_no_presence=True)
