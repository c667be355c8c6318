"""The HTTP server of the REST API: uvicorn on a thread of its own, with bounds on what a connection may do.

uvicorn and h11 speak HTTP. What they leave to others is here: a connection that sends no request, or whose answers nobody reads,
is closed; connections are ended so that no answer is lost; what is no HTTP is answered with JSON; and a stop tells the clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import resource
import socket
import sys
import threading
from typing import Any, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from .addresses import Address
from .errors import one_line
from .rest_api import RestApi

IDLE_SECONDS = 60  # within them the next request must be there, up to the end of its headers
UNREAD_SECONDS = 20.0  # a client to which nothing can be sent for so long is dropped
LINGER_SECONDS = 1.0
FAREWELL_SECONDS = 1.0
_BACKLOG = 1024
_MAX_FILES = 2**16
_RESERVED_FILES = 256  # for gRPC, models, libraries


class RestServer:
    """The HTTP server. The constructor binds its port; `serve_forever_in_thread` starts to listen.

    Args:
        address: the `Address` to listen on.
        port: the port of that address; 0: any free one, which `port` says then.
        api: the `RestApi`.
        idle_seconds: how long a connection may go without a request.

    Raises:
        OSError: if the port is taken.
    """

    def __init__(self, address: Address, port: int, api: RestApi, idle_seconds: float = IDLE_SECONDS) -> None:
        self._api = api
        # asyncio turns Nagle's algorithm off where the protocol is named; with it, an answer's second packet waits 40 ms.
        self._socket = socket.socket(address.family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            address.prepare(self._socket)
            self._socket.bind((address.host, port))
        except OSError:
            self._socket.close()
            raise
        self.port = self._socket.getsockname()[1]
        config = uvicorn.Config(
            api, loop="asyncio", http=_Protocol, ws="none", lifespan="off", interface="asgi3", log_config=None,
            log_level="critical", access_log=False, proxy_headers=False, server_header=False,
            headers=[("Server", "local_server")],  # versions are not revealed
            timeout_keep_alive=idle_seconds,  # type: ignore[arg-type]  # a fraction is as well
            backlog=_BACKLOG)
        self._server = _Server(config, api)
        self._thread: threading.Thread | None = None

    def serve_forever_in_thread(self) -> None:
        """Starts to listen and answer, on threads of its own."""
        self._socket.listen(_BACKLOG)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="rest", daemon=True)
        self._thread.start()

    def stop(self, grace_seconds: float) -> None:
        """Stops taking connections, and waits at most `grace_seconds` for running requests."""
        if self._thread is None:
            self._socket.close()
        else:
            self._server.grace_seconds = grace_seconds
            self._server.should_exit = True
            self._thread.join()
        self._api.close()


class _Server(uvicorn.Server):
    """uvicorn's server with another way to stop: it tells clients that keep their connections to close them."""

    def __init__(self, config, api):
        super().__init__(config)
        self.grace_seconds = 0.0
        self._api = api

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._api.stopping = True
        loop = asyncio.get_running_loop()
        arrived = [connection for listening in sockets or () for connection in _accepted(listening)]
        for listener in self.servers:
            listener.close()
        for listening in sockets or ():
            listening.close()
        make = functools.partial(_Protocol, config=self.config, server_state=self.server_state, app_state={})
        for connection in arrived:
            await loop.connect_accepted_socket(make, connection)
        deadline = loop.time() + self.grace_seconds
        # Closing a connection on which a request is under way would lose it; who asks within this time is answered.
        await self._wait_for_connections(min(loop.time() + FAREWELL_SECONDS, deadline))
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self._wait_for_connections(deadline)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        for task in self.server_state.tasks:
            task.cancel()
        await asyncio.gather(*self.server_state.tasks, return_exceptions=True)

    async def _wait_for_connections(self, until):
        loop = asyncio.get_running_loop()
        while self.server_state.connections and loop.time() < until:
            await asyncio.sleep(0.02)


def _accepted(listening):
    """The connections that wait at a socket, which to close it would reset."""
    with contextlib.suppress(OSError):  # none is left
        for _ in range(_BACKLOG):
            connection, _ = listening.accept()
            connection.setblocking(False)
            yield connection


class _Protocol(H11Protocol):
    """One connection."""

    transport: Any  # a _Transport
    _watch: asyncio.TimerHandle | None = None  # over a client that does not read

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(_Transport(transport, self.loop))  # type: ignore[arg-type]
        self._idle_since = self.loop.time()
        # uvicorn's time limit begins with the first answer; whoever never asks must not stay either.
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
        if len(self.connections) > _max_connections():
            connections = cast("set[_Protocol]", self.connections)  # with those that are being closed
            idle = [one for one in connections if one.idle and not one.transport.is_closing()]
            min(idle, key=lambda one: one._idle_since).transport.abort()  # this one, if all others are at work

    @property
    def idle(self) -> bool:
        """Whether no request is under way."""
        return self.cycle is None or self.cycle.response_complete

    def pause_writing(self) -> None:
        """Nothing more is sent until the client reads: it may have sent many requests at once, and never read."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._end_watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Keeps nothing of the connection."""
        super().connection_lost(exc)
        self._end_watch()

    def _end_watch(self):
        if self._watch is not None:
            self._watch.cancel()

    def _watch_reader(self, unsent_before=None):
        unsent = self.transport.get_write_buffer_size()
        if unsent == unsent_before:
            self.transport.abort()
        else:
            self._watch = self.loop.call_later(UNREAD_SECONDS, self._watch_reader, unsent)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return  # the answer has been given
        self.conn.receive_data(data)  # without uvicorn's new time limit for each byte of the headers
        self.handle_events()

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio takes a bool
        """A client that sends no more may still read."""
        if self.idle or self.cycle.more_body or self.transport.is_closing():
            return False
        self.cycle.keep_alive = False
        return True

    def send_400_response(self, msg: str) -> None:
        """Answers what h11 refuses, which uvicorn calls inside of `except`."""
        error = sys.exc_info()[1]
        status = getattr(error, "error_status_hint", 400)
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            content = json.dumps({"error": one_line(f"the request is not HTTP/1.1: {error or msg}")}).encode()
            headers = [("Content-Type", "application/json"), ("Content-Length", str(len(content))), ("Connection", "close")]
            answer = h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status])
            only_head = self.conn.our_state is h11.SEND_RESPONSE and self.scope["method"] == "HEAD"
            for event in (answer, h11.Data(data=b"" if only_head else content), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event))
        if self.cycle is not None:  # a request whose body is broken
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._idle_since = self.loop.time()

    def timeout_keep_alive_handler(self) -> None:
        self.transport.close()

    def shutdown(self) -> None:
        if self.idle:
            self.transport.close()
        else:
            self.cycle.keep_alive = False


class _Transport:
    """A transport that is closed without a loss: all is sent, what the client still sends is read, and then it is gone.

    To close a socket that has unread bytes resets the connection, and a client that is sending then loses the answer. A client
    that reads nothing for `LINGER_SECONDS` after the end is not waited for.
    """

    def __init__(self, transport, loop):
        self._transport = transport
        self._loop = loop
        self._closing = False

    def __getattr__(self, name):
        return getattr(self._transport, name)

    def is_closing(self):
        return self._closing or self._transport.is_closing()

    def write(self, data):
        if not self.is_closing():
            self._transport.write(data)

    def close(self):
        if self.is_closing():
            return
        self._closing = True
        try:
            self._transport.resume_reading()
            self._transport.write_eof()
        except OSError:  # the client has reset the connection
            self._transport.abort()
        self._loop.call_later(LINGER_SECONDS, self._end, self._transport.get_write_buffer_size())

    def _end(self, unsent_before):
        unsent = self._transport.get_write_buffer_size()
        if 0 < unsent < unsent_before:
            self._loop.call_later(LINGER_SECONDS, self._end, unsent)
        else:
            self._transport.abort()


@functools.cache
def _max_connections():
    """How many connections the files that this process may open suffice for; it may raise their number up to the hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(wanted - _RESERVED_FILES, wanted // 2)
