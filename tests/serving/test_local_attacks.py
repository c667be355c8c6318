"""Clients of the REST API that send or read slowly, or not at all, or too much: they cost little, and others are answered."""

import concurrent.futures
import http.client
import json
import pathlib
import socket
import threading
import time

import numpy as np
import pytest
from conftest import wait_for
from rest_cases import PATH, SAMPLE, WAIT, answers, connect, post, predict, request

from tfcq.serving.server import rest_server
from tfcq.serving.server.transfers import Transfers

# ---- slow clients ----

def test_connections_that_ask_nothing_are_closed(start):
    port, _, _ = start(idle_seconds=0.2)
    silent, begun = connect(port), connect(port, b"GET /v1/models/toy HTTP/1.1\r\nHost: x\r\n")
    kept = connect(port, b"GET /v1/models/toy HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answers(silent) == b""
    assert answers(kept).startswith(b"HTTP/1.1 200 OK")
    deadline = time.monotonic() + WAIT
    with begun, pytest.raises(OSError):  # a byte now and then is no reason to wait longer
        while time.monotonic() < deadline:
            begun.sendall(b"a")
            time.sleep(0.05)


def test_the_longest_idle_connection_makes_room(start, monkeypatch):
    monkeypatch.setattr(rest_server, "_max_connections", lambda: 3)
    port, model, _ = start()
    busy = connect(port, post(b'{"inputs": [-1]}'))
    assert model.waiting.acquire(timeout=WAIT)
    idle = [connect(port) for _ in range(2)]
    assert predict(port, 1) == (200, {"outputs": [1.0]})
    assert idle[0].recv(1) == b""
    idle[1].sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert idle[1].recv(1000).startswith(b"HTTP/1.1 200 OK")
    model.go_on.set()
    assert busy.recv(1000).startswith(b"HTTP/1.1 200 OK")
    for connection in (busy, *idle):
        connection.close()


def test_a_body_that_drips_is_given_up(start):
    port, _, _ = start(transfers=Transfers(grace_seconds=0.3, bytes_per_second=1e6))
    nothing = connect(port, post(b"", length=10000))
    dripping, deadline = connect(port, post(b"", length=10000)), time.monotonic() + WAIT
    dripping.settimeout(0.05)
    answer = b""
    while not answer and time.monotonic() < deadline:
        dripping.sendall(b" ")
        try:
            answer = dripping.recv(1000)
        except TimeoutError:
            pass
    dripping.settimeout(WAIT)
    answer += answers(dripping)
    assert answer.startswith(b"HTTP/1.1 408 ") and b"comes too slowly" in answer
    assert answers(nothing).startswith(b"HTTP/1.1 408 ")
    assert predict(port, 1) == (200, {"outputs": [1.0]})


def test_bytes_give_a_body_more_time(start):
    port, _, _ = start(transfers=Transfers(grace_seconds=0.5, bytes_per_second=1000))
    body = json.dumps({"inputs": [1]}).encode().ljust(60000)
    with connect(port, post(body[:50000], len(body))) as slow:
        for part in range(50000, 60000, 1000):
            time.sleep(0.1)
            slow.sendall(body[part:part + 1000])
        assert slow.recv(1000).startswith(b"HTTP/1.1 200 OK")


def test_bodies_have_a_bound_together_and_the_slowest_go_first(start):
    port, _, server = start(transfers=Transfers(max_held_bytes=10**6))
    slow = [connect(port, post(b" " * 300_000, length=400_000)) for _ in range(3)]
    transfers = server._api._transfers
    wait_for(lambda: transfers.num_held == 900_000, WAIT)
    time.sleep(0.2)
    status, content, _ = request(port, body=json.dumps({"inputs": [1]}).ljust(350_000))
    assert (status, content) == (200, b'{"outputs":[1.0]}')
    assert answers(slow[0]).startswith(b"HTTP/1.1 503 ")
    for body in (b" " * 2_000_000, b'{"inputs": [2000000]}'):  # a body, or its answer, that is too large alone
        status, content, _ = request(port, body=body)
        assert status == 503 and b"try again later" in content
    for connection in slow[1:]:
        connection.close()
    wait_for(lambda: transfers.num_held == 0, WAIT)


def test_who_does_not_read_occupies_no_thread_and_is_dropped(start):
    port, _, server = start(num_threads=1, transfers=Transfers(grace_seconds=0.5))
    body = json.dumps({"inputs": [2_000_000]}).encode()  # 8 MB of JSON
    deaf = [connect(port, post(body), receive_buffer=4096) for _ in range(3)]
    transfers = server._api._transfers
    wait_for(lambda: transfers.num_held > 7_000_000, WAIT)
    assert predict(port, 1) == (200, {"outputs": [1.0]})
    assert request(port, "GET", "/v1/models/toy")[0] == request(port, "GET", "/metrics")[0] == 200
    assert len(request(port, body=body)[1]) > 7_000_000  # who reads gets such an answer too
    wait_for(lambda: transfers.num_held == 0 and not server._server.server_state.connections, WAIT)
    for connection in deaf:
        connection.close()


# ---- deadlines and the end ----

def test_a_prediction_has_a_time_limit(start):
    port, model, _ = start(num_threads=1, timeout_seconds=0.5)
    begun = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(2) as clients:
        running = clients.submit(predict, port, -1)
        assert model.waiting.acquire(timeout=WAIT)
        waiting = clients.submit(predict, port, 1)  # for the one thread
        for answer in (running, waiting):
            status, content = answer.result()
            assert status == 504 and "500 ms, the limit of --rest_api_timeout_in_ms" in content["error"]
    (deadline,) = model.deadlines  # the second was never run
    assert begun + 0.5 <= deadline <= time.monotonic()
    model.go_on.set()
    assert predict(port, 1) == (200, {"outputs": [1.0]})
    page = request(port, "GET", "/metrics")[1].decode()
    assert 'request_count{model_name="toy",status="DEADLINE_EXCEEDED"} 2' in page


def test_a_stop_tells_clients_that_keep_their_connections_and_resets_none(start):
    port, model, server = start()
    ending, ends = threading.Event(), []

    def keep_asking():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT)
        while True:
            connection.request("POST", PATH, json.dumps({"inputs": [1]}))
            response = connection.getresponse()
            assert response.status == 200 and response.read() == b'{"outputs":[1.0]}'
            if response.headers["Connection"] == "close":
                return ending.is_set()

    def ask_slowly():
        return predict(port, -1)

    with concurrent.futures.ThreadPoolExecutor(5) as clients:
        ends = [clients.submit(keep_asking) for _ in range(4)]
        slow = clients.submit(ask_slowly)
        assert model.waiting.acquire(timeout=WAIT)
        idle = connect(port)
        ending.set()
        stop = threading.Thread(target=server.stop, args=(WAIT,))
        stop.start()
        assert [end.result() for end in ends] == [True] * 4
        assert answers(idle) == b""
        assert stop.is_alive()  # waits for the request that is being computed
        model.go_on.set()
        assert slow.result() == (200, {"outputs": [-1.0]})
        stop.join(WAIT)
    with pytest.raises(ConnectionRefusedError):
        connect(port)


def test_a_stop_answers_connections_that_have_only_arrived(start):
    port, _, server = start()
    shutdown, arrived = server._server.shutdown, []

    async def late(sockets):  # runs on the loop, so that these are not accepted before
        arrived.extend(connect(port, post(b'{"inputs": [1]}')) for _ in range(3))
        await shutdown(sockets)

    server._server.shutdown = late
    server.stop(WAIT)
    for answer in map(answers, arrived):
        assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b'{"outputs":[1.0]}')


def test_a_stop_does_not_wait_for_ever(start):
    port, model, server = start()
    deaf = connect(port, post(json.dumps({"inputs": [3_000_000]}).encode()), receive_buffer=4096)
    running = connect(port, post(b'{"inputs": [-1]}'))
    assert model.waiting.acquire(timeout=WAIT)
    begun = time.monotonic()
    server.stop(1.5)
    assert time.monotonic() - begun < WAIT / 2
    assert model.go_on.is_set()  # the run has been ended, as the process waits for its thread
    deaf.close()
    running.close()


# ---- forms ----

def test_status_by_label(start):
    port, _, _ = start()
    status, content, _ = request(port, "GET", "/v1/models/toy/labels/stable")
    assert status == 200 and json.loads(content) == json.loads(request(port, "GET", "/v1/models/toy/versions/1")[1])


def test_cors_headers_where_they_are_asked_for(start):
    """As http_server.cc of TF Serving has it."""
    expected = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Methods": "POST, GET",
                "Access-Control-Allow-Headers": "Content-Type"}
    for cors in (False, True):
        port, _, _ = start(cors=cors)
        origin = {"Origin": "http://page.example"}
        for method, path, sent, body, status in (
            ("OPTIONS", PATH, origin, None, 200), ("OPTIONS", PATH, {}, None, 400), ("GET", "/v1/models/toy", origin, None, 200),
            ("POST", PATH, origin, "{}", 400), ("GET", "/v1/models/none", {}, None, 404),
        ):
            received, content, headers = request(port, method, path, body, sent)
            assert received == status
            assert {name: headers[name] for name in expected if name in headers} == (expected if cors else {})
            assert bool(content) != (method == "OPTIONS" and status == 200)
        assert "Access-Control-Allow-Origin" not in request(port, "GET", "/metrics", headers=origin)[2]


def test_a_client_that_sends_no_more_is_answered(start):
    port, _, _ = start()
    with connect(port, post(b'{"inputs": [1]}')) as half:
        half.shutdown(socket.SHUT_WR)
        assert answers(half).endswith(b'{"outputs":[1.0]}')


def test_a_refused_body_is_read_so_that_the_answer_arrives(start):
    port, _, _ = start()
    with connect(port, post(b"", length=2**31)) as large:
        for _ in range(20):
            large.sendall(bytes(2**16))  # a reset would raise
            time.sleep(0.01)
        assert large.recv(1000).startswith(b"HTTP/1.1 400 ")


def test_a_broken_body_is_answered_whatever_the_method(start, caplog):
    port, _, _ = start()
    for method in (b"HEAD", b"POST", b"OPTIONS", b"CONNECT"):
        answer = answers(connect(port, method + b" /x:1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnone\r\n"))
        head, _, content = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ") and bool(content) == (method != b"HEAD")
    assert not caplog.records


def test_answers_are_sent_at_once(start):
    """Nagle's algorithm would hold an answer's second packet for 40 ms."""
    port, _, server = start()
    with connect(port):
        connections = server._server.server_state.connections
        wait_for(lambda: connections, WAIT)
        (connection,) = connections
        assert connection.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# ---- the whole server: its memory and threads ----

def process_status(server):
    """{VmRSS and VmHWM in bytes, Threads}"""
    lines = pathlib.Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    values = {line.partition(":")[0]: line.split()[1] for line in lines if line.startswith(("Vm", "Threads"))}
    return int(values["VmRSS"]) * 1024, int(values["VmHWM"]) * 1024, int(values["Threads"])


def test_refused_bodies_leave_their_memory(toy_server):
    request(toy_server.rest_port, body=SAMPLE)
    before, _, _ = process_status(toy_server)
    for _ in range(6):
        assert request(toy_server.rest_port, body=b" " * (30 * 2**20))[0] == 400
    after, peak, _ = process_status(toy_server)
    # glibc's allocator keeps at most 64 MiB of a thread's memory; each of these bodies once kept 60 MiB.
    assert after - before < 160 * 2**20 and peak - before < 260 * 2**20


def test_a_thousand_connections_cost_no_threads(toy_server):
    port = toy_server.rest_port
    request(port, body=SAMPLE)
    _, _, threads = process_status(toy_server)
    connections = [connect(port, begun) for begun in (
        b"", b"GET /v1/models/toy HT", post(SAMPLE.encode()[:9], len(SAMPLE)), post(b"", 1000)) for _ in range(250)]
    try:
        assert request(port, body=SAMPLE)[0] == request(port, "GET", "/v1/models/toy")[0] == 200
        assert process_status(toy_server)[2] <= threads + 8  # of the pool; others may be starting too
    finally:
        for connection in connections:
            connection.close()


def test_answers_that_nobody_reads_hold_nobody_back(toy_server):
    rows = np.full([30_000, 48], 0.5).tolist()  # 5.8 MB of answer or more: the kernel's buffers hold 4
    body = json.dumps({"signature_name": "decode", "inputs": rows}).encode()
    before, _, _ = process_status(toy_server)
    deaf = [connect(toy_server.rest_port, post(body), receive_buffer=4096) for _ in range(8)]
    try:
        assert [connection.recv(4) for connection in deaf] == [b"HTTP"] * 8  # all are being answered
        for _ in range(3):
            assert request(toy_server.rest_port, body=SAMPLE)[0] == 200
            assert request(toy_server.rest_port, "GET", "/v1/models/toy")[0] == 200
            assert request(toy_server.rest_port, "GET", "/metrics/here")[0] == 200
        _, peak, _ = process_status(toy_server)
        assert peak - before < 2**30
    finally:
        for connection in deaf:
            connection.close()
