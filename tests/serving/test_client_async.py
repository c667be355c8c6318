"""What an `AsyncClient` has of its own, and connections: by asyncio and with threads."""

import asyncio
import concurrent.futures
import inspect
import pickle
import socket
import threading
import time

import numpy as np
import pytest
from client_cases import NUM_PIXELS, GrpcModel, Handler, grpc_server, model_server
from conftest import wait_for

from tfcq.endpoints import ENDPOINTS
from tfcq.errors import UserError
from tfcq.serving.client import connections
from tfcq.serving.client.async_client import AsyncClient
from tfcq.serving.client.client import Client, ServerError


@pytest.fixture
def rest():
    with model_server() as server:
        yield server


def test_leaving_the_context_closes(rest):
    with Client.rest(rest.url, "m") as client:
        client.status()
    with pytest.raises(UserError, match="is closed"):
        client.status()

    async def leave():
        async with AsyncClient.rest(rest.url, "m") as client:
            await client.status()
        with pytest.raises(UserError, match="is closed"):
            await client.status()

    asyncio.run(leave())


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_an_async_client_works_in_one_loop_after_another(rest, transport):
    async def several():
        return await asyncio.gather(*(client.sample(2, seed=seed) for seed in range(3)))

    with grpc_server(GrpcModel()) as address:
        client = getattr(AsyncClient, transport)(rest.url if transport == "rest" else address, "m")
        for _ in range(2):
            assert [len(one) for one in asyncio.run(several())] == [2, 2, 2]


def test_an_async_call_can_be_cancelled(rest):
    rest.behaviour = lambda handler: time.sleep(1)

    async def give_up():
        async with AsyncClient.rest(rest.url, "m", max_batch_size=1, parallel=2) as client:
            await asyncio.wait_for(client.sample(4), 0.3)

    start = time.monotonic()
    with pytest.raises(TimeoutError):
        asyncio.run(give_up())
    assert time.monotonic() - start < 30 and len(rest.bodies) <= 2


@pytest.mark.parametrize("parallel", [1, 3])
@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_a_call_whose_client_is_closed_ends_with_that_reason(rest, transport, parallel):
    begun, going_on, model = threading.Event(), threading.Event(), GrpcModel()
    rest.behaviour = model.behaviour = lambda *_: begun.set() or going_on.wait(60) and None

    async def close_in_between(client):
        call = asyncio.ensure_future(client.sample(8))
        await asyncio.to_thread(begun.wait, 60)
        await client.close()
        with pytest.raises(UserError, match="is closed"):
            await call

    with grpc_server(model) as address, concurrent.futures.ThreadPoolExecutor(2) as pool:
        address, options = rest.url if transport == "rest" else address, {"max_batch_size": 3, "parallel": parallel}
        asyncio.run(close_in_between(getattr(AsyncClient, transport)(address, "m", **options)))
        going_on.set()
        begun.clear()
        going_on.clear()
        client = getattr(Client, transport)(address, "m", **options)
        call = pool.submit(client.sample, 8)
        assert begun.wait(60)
        closing = pool.submit(client.close)
        wait_for(lambda: client._closed)
        going_on.set()
        closing.result(60)
        with pytest.raises(UserError, match="is closed"):
            call.result(60)


def test_both_clients_have_the_same_methods():
    own = ["log_prob", "bits_per_dim", "predict", "metadata", "class_names", "status", "health", "wait_until_ready", "close"]
    own += ["grpc", "rest"]
    for name in [*ENDPOINTS, *own]:
        one, other = (inspect.signature(getattr(family, name)) for family in (Client, AsyncClient))
        assert one == other, name


@pytest.mark.parametrize("host", ["a..b", "256.1.1.1", "x" * 300])
def test_names_that_nothing_can_have_are_no_server(host):
    async def ask():
        async with AsyncClient.rest(f"http://{host}:9", "m", retries=0) as client:
            await client.status()

    for run in (Client.rest(f"http://{host}:9", "m", retries=0).status, lambda: asyncio.run(ask())):
        with pytest.raises(ServerError, match="no server answers there"):
            run()


def test_an_error_can_be_pickled():
    error = ServerError("host", "UNAVAILABLE", "a\n b", passing=True)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.code, copy.passing) == ("host: UNAVAILABLE: a b", "UNAVAILABLE", True)


class RefusingHandler(Handler):
    def do_POST(self):
        self.close_connection = True
        self.answer(413, {"error": "the body is too large"})
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RD)
        time.sleep(0.5)


def test_a_body_that_is_refused_before_it_is_read_is_an_answer():
    latents = {"latents": np.zeros((100_000, NUM_PIXELS), np.float32)}
    with model_server(RefusingHandler) as server, pytest.raises(ServerError, match="HTTP 413: the body is too large"):
        Client.rest(server.url, "m", retries=0, max_batch_size=10**6).predict("decode", latents)


def encoded(handler):
    handler.send_response(200)
    handler.send_header("Content-Encoding", "br")
    handler.end_headers()
    handler.wfile.write(b"\x8b\0")


def truncated(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"outputs": [')


def endless(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", str(10**15))
    handler.end_headers()
    handler.wfile.write(b'{"outputs": [')


def elsewhere(handler):
    handler.send_response(302)
    handler.send_header("Location", "/login")
    handler.end_headers()


@pytest.mark.parametrize(("behaviour", "said"), [
    (encoded, "bytes packed by 'br'"),
    (truncated, "the answer broke off"),
    (endless, "the answer broke off"),
    (elsewhere, "HTTP 302 Found from .* which leads to '/login', which is not TF Serving's JSON"),
], ids=["encoded", "truncated", "endless", "elsewhere"])
@pytest.mark.parametrize("family", [Client, AsyncClient])
def test_broken_answers_by_http(rest, family, behaviour, said):
    rest.behaviour = behaviour

    async def ask():
        async with AsyncClient.rest(rest.url, "m", retries=0) as client:
            await client.sample(1)

    with pytest.raises(ServerError, match=said) as caught:
        if family is AsyncClient:
            asyncio.run(ask())
        else:
            Client.rest(rest.url, "m", retries=0).sample(1)
    assert caught.value.code == "UNAVAILABLE" and "\n" not in str(caught.value)


def test_the_first_of_two_addresses_does_not_take_all_the_time(monkeypatch):
    """localhost is ::1 and 127.0.0.1, and a firewall may swallow what goes to one of them."""
    with socket.create_server(("127.0.0.1", 0)) as open_, socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        full = [socket.socket() for _ in range(3)]  # its queue is full: what connects now waits
        for one in full:
            one.setblocking(False)
            one.connect_ex(silent.getsockname())
        time.sleep(0.1)
        both = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", silent.getsockname()),
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", open_.getsockname())]
        monkeypatch.setattr(connections, "_addresses", lambda host, port, end: both)
        connections._connected("localhost", 1, time.monotonic() + 2).close()
        for one in full:
            one.close()
