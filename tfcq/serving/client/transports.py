"""How a client reaches a server: what `rest_protocol` and `grpc_protocol` make of a call is sent, with threads or asyncio.

A transport sends one request and returns its answer as it came, or raises ServerError. Nothing else is decided here.
"""

from __future__ import annotations

import asyncio
import http.client
import re
import ssl
import urllib.parse
from typing import Any, Protocol

from tfcq.errors import UserError
from tfcq.serving.client import proxies
from tfcq.serving.client.answers import Request, ServerError
from tfcq.serving.client.rest_protocol import HttpAnswer, RestProtocol
from tfcq.serving.client.targets import Target

__all__ = ["AsyncGrpcTransport", "AsyncRestTransport", "GrpcTransport", "RestTransport", "ServerError", "Transport"]

# Asks tfcq's server for `tensor_content`, which costs less than the typed fields that TF Serving fills; TF Serving ignores it.
TENSOR_CONTENT_METADATA = ("tfcq-tensor-content", "true")

# A client that tries again within a second must not wait for a channel that tries again after twenty.
_GRPC_OPTIONS = [
    ("grpc.max_send_message_length", -1),  # no limit
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
]


class Transport(Protocol):
    """Sends a request."""

    protocol: Any

    def send(self, request: Request, seconds: float | None) -> Any:
        """The answer, for `request.read`; ServerError if there is none within `seconds`. A coroutine in the asynchronous ones."""

    def close(self) -> Any:
        """Closes the connections."""


class _Rest:
    """What the two transports by REST have in common."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.protocol = RestProtocol(target)
        try:
            parts = urllib.parse.urlsplit(target.address)
            usable = parts.hostname and parts.port != 0 and not parts.query and not parts.fragment
        except ValueError as error:
            raise UserError(f"a REST address is http://host:port, received {target.address!r} ({error})") from error
        if "@" in parts.netloc:  # messages and proxies would show it
            raise UserError("a REST address has no user and password; pass them as headers, or a token")
        if not usable:
            raise UserError(f"a REST address is http://host:port, received {target.address!r}")
        if "/v1/models" in parts.path:
            raise UserError(f"a REST address ends before /v1/models, received {target.address!r}; the model is named by model=")
        self._proxy = proxies.for_rest(target.address)
        self.protocol = RestProtocol(target, _through(proxies.of_rest(target.address)))
        self._context = target.tls_context() if target.address.startswith("https://") else None

    def _failed(self, request, error, seconds):
        """The ServerError of what went wrong on the way."""
        url, failed = request.where, self.protocol.failed
        if isinstance(error, TimeoutError):
            return failed(url, "DEADLINE_EXCEEDED", f"no answer within {_shown(self._target.timeout or seconds)} s")
        certificate = _cause(error, ssl.SSLCertVerificationError)
        if certificate is not None:
            reason = f"its certificate is not one to trust ({certificate.verify_message}); ca_file names who signed it"
            return failed(url, "UNAVAILABLE", reason)
        handshake = _cause(error, ssl.SSLError)
        if handshake is not None and handshake.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
            return failed(url, "UNAVAILABLE", "what answers there does not speak TLS; http:// asks without")
        if isinstance(error, http.client.BadStatusLine) and not isinstance(error, ConnectionError):
            reason = f"what answers there does not speak HTTP ({str(error)[:40]!r}); is it the port of gRPC?"
            return failed(url, "UNAVAILABLE", reason)
        return None


class RestTransport(_Rest):
    """Requests by REST, with the standard library."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        from tfcq.serving.client.connections import Connections

        self._connections = Connections(target.address, self._proxy, self._context)

    def send(self, request: Request, seconds: float | None) -> HttpAnswer:
        """See `Transport`."""
        try:
            return self._connections.send(request.where, request.body, self.protocol.headers, seconds)
        except http.client.IncompleteRead as error:
            raise self._broke_off(request, f"{len(error.partial)} bytes of its body came") from error
        except (http.client.HTTPException, ConnectionResetError, ConnectionAbortedError, BrokenPipeError) as error:
            raise self._failed(request, error, seconds) or self._broke_off(request, error) from error
        except OSError as error:
            unreached = self.protocol.failed(
                request.where, "UNAVAILABLE", f"no server answers there ({error})", passing=True
            )
            raise self._failed(request, error, seconds) or unreached from error

    def close(self) -> None:
        """See `Transport`."""
        self._connections.close()

    def _broke_off(self, request, reason):
        return self.protocol.failed(request.where, "UNAVAILABLE", f"the answer broke off ({reason})", passing=True)


class AsyncRestTransport(_Rest):
    """Requests by REST, with httpx."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        try:
            import httpx
        except ImportError as error:
            raise UserError(
                f"AsyncClient.rest needs the package httpx ({error}); install it or use Client.rest"
            ) from error

        def made(kept):
            return httpx.AsyncClient(
                verify=True if self._context is None else self._context,
                proxy=self._proxy,
                trust_env=False,  # `proxies` has looked
                timeout=None,  # below, for the whole request
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=kept),
            )

        self._client = made(max(target.parallel, 20))
        self._without_keeping = made(0)

    async def send(self, request: Request, seconds: float | None) -> HttpAnswer:
        """See `Transport`."""
        import httpx

        method = "GET" if request.body is None else "POST"
        stale, begun = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError), False

        async def answer(client):
            nonlocal begun
            headers = self.protocol.headers
            async with client.stream(method, request.where, content=request.body, headers=headers) as response:
                begun = True
                return response, b"".join([part async for part in response.aiter_raw()])

        try:
            async with asyncio.timeout(seconds):
                try:
                    response, body = await answer(self._client)
                except stale:
                    if begun:
                        raise
                    # The server may just have closed a connection that was kept: a new one shows. No request changes a model.
                    response, body = await answer(self._without_keeping)
        except (httpx.ConnectError, httpx.ProxyError, httpx.InvalidURL) as error:
            unreached = self.protocol.failed(
                request.where, "UNAVAILABLE", f"no server answers there ({error})", passing=True
            )
            raise self._failed(request, error, seconds) or unreached from error
        except (httpx.HTTPError, TimeoutError) as error:
            broken = self.protocol.failed(request.where, "UNAVAILABLE", f"the answer broke off ({error})", passing=True)
            raise self._failed(request, error, seconds) or broken from error
        headers = {name.lower(): value for name, value in response.headers.items()}
        return HttpAnswer(response.status_code, response.reason_phrase, headers, body)

    async def close(self) -> None:
        """See `Transport`."""
        await self._client.aclose()
        await self._without_keeping.aclose()


class _Grpc:
    """What the two transports by gRPC have in common."""

    def __init__(self, target: Target) -> None:
        if "://" in target.address:
            raise UserError(f"a gRPC address is host:port without a scheme, received {target.address!r}")
        if re.fullmatch(r"[^:/]*|\[[^]]*\]", target.address):  # gRPC would ask port 443
            raise UserError(f"a gRPC address is host:port, received {target.address!r} without a port")
        try:
            import grpc

            from tfcq.serving.client.grpc_protocol import GrpcProtocol
        except ImportError as error:
            raise UserError(
                f"gRPC needs the packages grpcio and protobuf ({error}); install them or use Client.rest"
            ) from error
        self._target = target
        self.protocol = GrpcProtocol(target)
        self._through = _through(proxies.of_grpc(target.address))
        self._methods: dict[str, Any] = {}
        self._metadata = (TENSOR_CONTENT_METADATA, *target.headers.items())
        self._credentials = None
        if target.tls:
            roots = None
            if target.ca_file is not None:
                with open(target.ca_file, "rb") as file:
                    roots = file.read()
            self._credentials = grpc.ssl_channel_credentials(roots)

    def _opened(self, module):
        """A channel of grpc or grpc.aio."""
        address, options = self._target.address, list(_GRPC_OPTIONS)
        if proxies.is_here(proxies.grpc_host(address)):
            options.append(("grpc.enable_http_proxy", 0))
        if self._credentials is None:
            return module.insecure_channel(address, options=options)
        return module.secure_channel(address, self._credentials, options=options)

    def _call(self, channel, request, seconds):
        if request.where not in self._methods:
            self._methods[request.where] = channel.unary_unary(request.where)  # bytes: `grpc_protocol` reads them
        return self._methods[request.where](request.body, timeout=seconds, metadata=self._metadata)

    def _failed(self, error):
        return self.protocol.failed(error.code().name, str(error.details()), self._through)


class GrpcTransport(_Grpc):
    """Requests by gRPC."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        import grpc

        self._channel = self._opened(grpc)

    def send(self, request: Request, seconds: float | None) -> bytes:
        """See `Transport`."""
        import grpc

        try:
            return self._call(self._channel, request, seconds)
        except grpc.RpcError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """See `Transport`."""
        self._channel.close()


class AsyncGrpcTransport(_Grpc):
    """Requests by gRPC, in the event loop that sends the first of them."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._channel: Any = None  # belongs to the event loop in which it is made

    async def send(self, request: Request, seconds: float | None) -> bytes:
        """See `Transport`."""
        import grpc

        if self._channel is None:
            self._channel = self._opened(grpc.aio)
        try:
            return await self._call(self._channel, request, seconds)
        except grpc.RpcError as error:
            raise self._failed(error) from error

    async def close(self) -> None:
        """See `Transport`."""
        if self._channel is not None:
            await self._channel.close()


def _shown(seconds):
    return "the time" if seconds is None else f"{seconds:g}"


def _cause(error, kind):
    """The exception of this kind that led to an error, or None."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error


def _through(proxy):
    return f"; asked through the proxy of {proxy} (no_proxy names hosts to be asked directly)" if proxy else ""
