"""Connections by HTTP that stay open between requests, and whose time limit is that of a whole request.

`http.client` speaks HTTP. The limit of a socket is one of each read, and a server that drips a byte a second is never late for
it; so the socket given to `http.client` here has, at every operation, what is left of the request's time. Standard library alone.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import queue
import select
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Mapping

from tfcq.serving.client.rest_protocol import HttpAnswer

_LONGEST_WRITE = 2**20  # bytes handed to the system at a time, so that the clock is looked at between
_LONGEST_READ = 2**22  # bytes


class Connections:
    """Open connections to one server, used by any number of threads, a connection by one at a time.

    Args:
        url: "http://host:port" or https.
        proxy: the URL of the proxy to ask through; None: directly.
        context: for https.
    """

    def __init__(self, url: str, proxy: str | None, context: ssl.SSLContext | None) -> None:
        self._server, self._context = urllib.parse.urlsplit(url), context
        self._proxy = urllib.parse.urlsplit(proxy) if proxy else None
        self._idle: list[_Connection] = []
        self._closed = False
        self._lock = threading.Lock()

    def send(self, url: str, body: bytes | None, headers: Mapping[str, str], seconds: float | None) -> HttpAnswer:
        """The answer to a POST of `body`, or to a GET if it is None.

        Args:
            seconds: from here to the last byte of the answer; None: no limit.

        Raises:
            TimeoutError: no answer in this time.
            OSError, http.client.HTTPException: no server, no HTTP, or an answer that broke off.
        """
        end = None if seconds is None else time.monotonic() + seconds
        while True:
            connection, used = self._take(end)
            try:
                answer, stays = connection.ask(url, body, headers, end)
            except TimeoutError:
                connection.close()
                raise
            except (ConnectionError, http.client.BadStatusLine, ssl.SSLError):
                connection.close()
                if used and not connection.answered:  # the server closed it while it lay idle; nothing was done
                    continue
                raise
            except BaseException:
                connection.close()
                raise
            with self._lock:
                kept = stays and not self._closed
                if kept:
                    self._idle.append(connection)
            if not kept:
                connection.close()
            return answer

    def close(self) -> None:
        """Closes what lies idle; what is in use is closed after its answer."""
        with self._lock:
            idle, self._idle, self._closed = self._idle, [], True
        for connection in idle:
            connection.close()

    def _take(self, end):
        """(a connection, whether it was used before)."""
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return self._opened(end), False
            if connection.is_quiet():
                return connection, True
            connection.close()

    def _opened(self, end):
        server, proxy = self._server, self._proxy
        secure = server.scheme == "https"
        port = server.port or (443 if secure else 80)
        if proxy is None:
            raw = _connected(server.hostname, port, end)
        else:
            raw = _connected(proxy.hostname, proxy.port or (443 if proxy.scheme == "https" else 80), end)
        try:
            if proxy is not None and proxy.scheme == "https":
                if secure:
                    raise OSError("a proxy by https does not lead to a server by https here; take one by http")
                raw.settimeout(_left(end))
                raw = ssl.create_default_context().wrap_socket(raw, server_hostname=proxy.hostname)
            if secure:
                if proxy is not None:
                    _tunnel(raw, f"{_bracketed(server.hostname)}:{port}", _credentials(proxy), end)
                raw.settimeout(_left(end))
                raw = (self._context or ssl.create_default_context()).wrap_socket(raw, server_hostname=server.hostname)
        except BaseException:
            raw.close()
            raise
        through = proxy if not secure else None
        return _Connection(raw, server.hostname, port, through is not None, _credentials(through))


class _Connection:
    """One connection; `answered` says whether anything of the last answer came."""

    def __init__(self, raw, host, port, absolute, credentials):
        self._raw, self._absolute, self._credentials = raw, absolute, credentials
        self._http = http.client.HTTPConnection(_bracketed(host), port)
        self.socket = self._http.sock = _TimedSocket(raw)
        self.answered = False

    def ask(self, url, body, headers, end):
        """(the answer, whether the connection stays)."""
        self.socket.end, self.answered = end, False
        parts = urllib.parse.urlsplit(url)
        where = url if self._absolute else urllib.parse.urlunsplit(("", "", *parts[2:]))
        whole = True
        try:
            self._http.request("GET" if body is None else "POST", where, body, dict(headers) | self._credentials)
        except (BrokenPipeError, ConnectionResetError):
            whole = False  # a server may refuse a long body before it has all of it; that answer is read
        response = self._http.getresponse()
        self.answered = True
        with response:
            content = _body(response)
            stays = whole and not response.will_close
        return HttpAnswer(
            response.status, response.reason, {name.lower(): value for name, value in response.getheaders()}, content
        ), stays

    def is_quiet(self):
        """Whether it is open and nothing came on it since the last answer."""
        try:
            poll = select.poll()
            poll.register(self._raw, select.POLLIN)
            return not poll.poll(0)
        except (OSError, ValueError):
            return False

    def close(self):
        with contextlib.suppress(OSError):
            self._http.close()
            self._raw.close()


class _TimedSocket:
    """As much of a socket as `http.client` uses; every operation ends at `end`, in seconds of `time.monotonic`."""

    def __init__(self, raw):
        self._raw, self.end = raw, None

    def sendall(self, content):
        view = memoryview(content).cast("B")
        while view:
            self._raw.settimeout(_left(self.end))
            view = view[self._raw.send(view[:_LONGEST_WRITE]) :]

    def makefile(self, mode):
        return io.BufferedReader(_Reader(self), 2**16)

    def receive_into(self, buffer):
        self._raw.settimeout(_left(self.end))
        return self._raw.recv_into(buffer)

    def close(self):
        """Nothing: `http.client` closes it when it has the headers of a last answer, whose body is still to be read."""


class _Reader(io.RawIOBase):
    def __init__(self, timed):
        self._timed = timed

    def readable(self):
        return True

    def readinto(self, buffer):
        return self._timed.receive_into(buffer)


def _body(response):
    """The whole body, in parts: at once, `http.client` would first take as much memory as the header says that comes."""
    announced, parts = response.length, []
    while part := response.read(_LONGEST_READ):
        parts.append(part)
    content = b"".join(parts)
    if announced is not None and len(content) < announced:
        raise http.client.IncompleteRead(content, announced - len(content))
    return content


def _left(end):
    """Seconds until `end`."""
    if end is None:
        return None
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError("no time is left")
    return left


def _connected(host, port, end):
    """A socket that is connected to the first address of a host that accepts it; none may take more than its part of the time."""
    addresses = _addresses(host, port, end)
    for place, (family, kind, protocol, _, address) in enumerate(addresses):
        left = _left(end)
        raw = socket.socket(family, kind, protocol)
        try:
            raw.settimeout(None if left is None else left / (len(addresses) - place))
            raw.connect(address)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # headers and body are two writes
            return raw
        except OSError:
            raw.close()
            if place == len(addresses) - 1:
                raise
        except BaseException:
            raw.close()
            raise
    raise OSError(f"{host} has no address")


def _addresses(host, port, end):
    """What `getaddrinfo` finds. It has no time limit of its own, hence a thread, which is left behind when the time is up."""
    with contextlib.suppress(OSError, UnicodeError):
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    found: queue.SimpleQueue = queue.SimpleQueue()

    def look():
        try:
            found.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            found.put(error)

    threading.Thread(target=look, name="address", daemon=True).start()
    try:
        answer = found.get(timeout=_left(end))
    except queue.Empty:
        raise TimeoutError(f"the address of {host} was not found in time") from None
    if isinstance(answer, Exception):
        raise OSError(str(answer)) from answer
    return answer


def _tunnel(raw, server, credentials, end):
    """Asks a proxy for a connection to `server`."""
    timed = _TimedSocket(raw)
    timed.end = end
    lines = [
        f"CONNECT {server} HTTP/1.1",
        f"Host: {server}",
        *(f"{name}: {value}" for name, value in credentials.items()),
    ]
    timed.sendall("\r\n".join([*lines, "", ""]).encode())
    response = http.client.HTTPResponse(timed, method="CONNECT")  # type: ignore[arg-type]
    response.begin()
    if response.status != 200:
        raise OSError(f"the proxy does not lead there: HTTP {response.status} {response.reason}")


def _credentials(proxy):
    if proxy is None or proxy.username is None:
        return {}
    pair = f"{urllib.parse.unquote(proxy.username)}:{urllib.parse.unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair.encode()).decode('ascii')}"}


def _bracketed(host):
    return f"[{host}]" if ":" in host else host
