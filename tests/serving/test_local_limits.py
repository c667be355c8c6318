"""Bounds of the REST server that clients reach in one turn of its event loop, or by many small requests."""

import asyncio
import concurrent.futures
import gzip
import json
import threading
import time

import pytest
import tensorflow as tf
from conftest import wait_for
from rest_cases import WAIT, connect, post, predict, request

from tfcq.serving.server import bodies, json_tensors, rest_server, stopping
from tfcq.serving.server.errors import RequestError
from tfcq.serving.server.transfers import Transfer, Transfers


def test_each_of_many_that_come_at_once_makes_room(start, monkeypatch):
    monkeypatch.setattr(rest_server, "_max_connections", lambda: 3)
    port, _, server = start()
    first = connect(port)
    connections = server._server.server_state.connections
    wait_for(lambda: connections, WAIT)
    asleep = threading.Event()
    loop = next(iter(connections)).loop
    loop.call_soon_threadsafe(lambda: (asleep.set(), time.sleep(0.3)))
    assert asleep.wait(WAIT)
    many = [connect(port) for _ in range(8)]  # accepted in one turn of the event loop
    assert first.recv(1) == b""
    assert predict(port, 1) == (200, {"outputs": [1.0]})
    wait_for(lambda: len(connections) <= 3, WAIT)
    for connection in (first, *many):
        connection.close()


def test_who_asks_again_and_again_and_does_not_read_is_dropped(start, monkeypatch):
    """The answers are small, so that none of them is under the time limit of large ones."""
    monkeypatch.setattr(rest_server, "UNREAD_SECONDS", 0.3)
    port, _, server = start()
    deaf = connect(port, post(json.dumps({"inputs": [50_000]}).encode()) * 60, receive_buffer=4096)  # 60 times 200 kB
    connections = server._server.server_state.connections
    wait_for(lambda: any(one.flow.write_paused for one in connections), WAIT)
    wait_for(lambda: not connections, WAIT)
    deaf.close()


def test_an_answer_that_can_never_fit_drops_nobody(start):
    port, _, server = start(transfers=Transfers(max_held_bytes=10**6))
    slow = connect(port, post(b"[" * 300_000, length=300_001))
    wait_for(lambda: server._api._transfers.num_held == 300_000, WAIT)
    assert request(port, body=b'{"inputs": [2000000]}')[0] == 503
    slow.sendall(b"[")
    assert slow.recv(1000).startswith(b"HTTP/1.1 400 ")
    slow.close()


def test_a_transfer_that_is_given_up_earns_no_more_time():
    """Its bytes may have come in the same turn of the event loop, before it is cancelled."""
    async def give_up_and_go_on():
        transfers = Transfers()
        slow = Transfer(transfers)
        async with slow.timed():
            slow.hold(10)
            slow.give_up()
            slow.hold(10)
            slow.moved(10)
            await asyncio.sleep(0.2)

    with pytest.raises(RequestError, match="try again later"):
        asyncio.run(give_up_and_go_on())


def test_a_stop_ends_a_prediction_that_runs_on(start):
    """Its thread would hold up the end of the process."""
    port, model, server = start(timeout_seconds=0)
    long, ended = tf.function(lambda: tf.while_loop(lambda i: i < 3_000_000, lambda i: i + 1, [0])), []

    def predict(signature_name, inputs, output_filter=(), deadline=None):
        try:
            with stopping.until(deadline):
                model.waiting.release()
                long()
            ended.append("OK")
        except RequestError as error:
            ended.append(error.code)
        return inputs

    model.predict = predict
    running = connect(port, post(b'{"inputs": [1]}'))
    assert model.waiting.acquire(timeout=WAIT)
    server.stop(0.1)
    wait_for(lambda: ended, WAIT)
    assert ended == ["CANCELLED"]
    running.close()


@pytest.mark.parametrize("headers", [{}, {"Content-Encoding": "gzip"}], ids=["plain", "gzip"])
def test_large_bodies_are_unpacked_and_parsed_one_at_a_time(start, monkeypatch, headers):
    """As lists one takes 34 times its bytes, unpacked a thousand times as many; there may be hundreds of threads."""
    unpacked, to_arrays, at_a_time = bodies.unpacked, json_tensors.to_arrays, [0, 0]

    def unpack(*arguments):
        content = unpacked(*arguments)
        at_a_time[0] += 1
        at_a_time[1] = max(at_a_time)
        time.sleep(0.05)
        return content

    def convert(*arguments):
        try:
            return to_arrays(*arguments)
        finally:
            at_a_time[0] -= 1

    monkeypatch.setattr(bodies, "unpacked", unpack)
    monkeypatch.setattr(json_tensors, "to_arrays", convert)
    port, _, _ = start(num_threads=4)
    body = json.dumps({"inputs": [1]}).ljust(2**20).encode()
    body = gzip.compress(body) if headers else body
    with concurrent.futures.ThreadPoolExecutor(4) as clients:
        answered = [clients.submit(request, port, body=body, headers=headers) for _ in range(4)]
    assert [one.result()[0] for one in answered] == [200] * 4
    assert at_a_time == [0, 1]
