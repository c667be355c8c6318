"""Bad gRPC clients: what they cost the server in memory and threads, and whether an honest client is answered meanwhile."""

import asyncio
import concurrent.futures
import pathlib
import re
import socket
import struct

import grpc
import numpy as np
import pytest
import tensorflow as tf
import toy_model
from conftest import free_ports, wait_for
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from tfcq.serving.server import grpc_server
from tfcq.serving.server.grpc_server import GrpcServer
from tfcq.serving.server.manager import ModelManager
from tfcq.serving.server.monitoring import RequestMetrics

PREDICT = "/tensorflow.serving.PredictionService/Predict"
LIMIT = 600
MEGABYTE = 2**20


@pytest.fixture
def stub(toy_server):
    """A stub; after the test an honest client of another connection is still answered."""
    with grpc.insecure_channel(toy_server.grpc_address) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)
    assert honest(toy_server)
    assert "Traceback" not in toy_server.log


def honest(server):
    """Whether an honest client is answered."""
    with grpc.insecure_channel(server.grpc_address) as channel:
        response = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(sample_request(), timeout=LIMIT)
    return tf.make_ndarray(response.outputs["images"]).shape == (2, *toy_model.IMAGE_SHAPE)


def sample_request():
    request = predict_pb2.PredictRequest(model_spec={"name": "toy"})
    request.inputs["seed"].CopyFrom(tf.make_tensor_proto(np.zeros([2, 2], np.int32)))
    request.inputs["temperature"].CopyFrom(tf.make_tensor_proto(np.ones(2, np.float32)))
    return request


class Cost:
    """What the server's process has cost since this object was made."""

    def __init__(self, server):
        self._folder = pathlib.Path(f"/proc/{server.process.pid}")
        (self._folder / "clear_refs").write_text("5")  # VmHWM begins anew
        self._memory, self.threads_before = self._read("VmRSS"), self._read("Threads")

    def _read(self, name):
        return int(re.search(rf"^{name}:\s+(\d+)", (self._folder / "status").read_text(), re.MULTILINE)[1])

    @property
    def peak(self):
        return (self._read("VmHWM") - self._memory) * 1024

    @property
    def kept(self):
        return (self._read("VmRSS") - self._memory) * 1024

    @property
    def threads(self):
        return self._read("Threads") - self.threads_before


def spoiled(name, number, *sizes, **fields):
    request = sample_request()
    request.inputs[name].CopyFrom(tensor_pb2.TensorProto(
        dtype=number, tensor_shape={"dim": [{"size": size} for size in sizes]}, **fields))
    return request


@pytest.mark.parametrize("request_", [
    spoiled("zzz", 3, 2**29 - 1, int_val=[0]),
    spoiled("temperature", 1, 2**29 - 1, float_val=[1]),
    spoiled("seed", 3, 2**28, 2, int_val=[1]),
    spoiled("seed", 7, 2**28, 2, string_val=[b"a"]),
], ids=["name", "rows", "both", "strings"])
def test_a_few_bytes_that_ask_for_gigabytes(toy_server, stub, request_):
    honest(toy_server)
    cost = Cost(toy_server)
    with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT"):
        stub.Predict(request_, timeout=LIMIT)
    assert cost.peak < 100 * MEGABYTE


def test_refused_requests_leave_nothing(toy_server, stub):
    request = spoiled("temperature", 1, 3 * MEGABYTE, tensor_content=bytes(12 * MEGABYTE))  # another number of rows than seed

    def refuse(times):
        for _ in range(times):
            # Either operation of the graph may be the first to fail.
            with pytest.raises(grpc.RpcError, match="temperature needs one entry for each row|Incompatible shapes"):
                stub.Predict(request, timeout=LIMIT)

    refuse(40)  # from then on the C library and gRPC have what they keep for next time: 180 to 280 MB
    cost = Cost(toy_server)
    refuse(60)
    assert cost.kept < 200 * MEGABYTE  # of 60 times 12


@pytest.mark.parametrize("number", [0, 20, 21, 120, 121, 999])
def test_dtypes_that_no_input_has(stub, number):
    with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT"):
        stub.Predict(spoiled("seed", number, 1, int_val=[0]), timeout=LIMIT)


@pytest.mark.parametrize("version", [0, -1, 2**63 - 1, -2**63])
def test_versions_that_no_model_has(stub, version):
    request = sample_request()
    request.model_spec.version.value = version
    with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
        stub.Predict(request, timeout=LIMIT)


def field(number, content):
    """A field of a message on the wire."""
    length = len(content)
    return bytes([number << 3 | 2, length & 127 | 128, length >> 7 & 127 | 128, length >> 14]) + content


def nested_tensor(depth):
    """A PredictRequest whose tensor has a variant that has a tensor that ... (`variant_val` is 15, its `tensors` 3)."""
    tensor = b""
    for _ in range(depth):
        tensor = field(15, field(3, tensor))
    return field(1, field(1, b"toy")) + field(2, field(1, b"seed") + field(2, tensor))


@pytest.mark.parametrize("message", [b"\xff\xff", nested_tensor(10), nested_tensor(1000)], ids=["garbage", "10", "1000"])
def test_messages_that_are_no_requests(toy_server, stub, message):
    with grpc.insecure_channel(toy_server.grpc_address) as channel, pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT"):
        channel.unary_unary(PREDICT)(message, timeout=LIMIT)


def test_calls_without_a_message_hold_nobody_up(toy_server, stub):
    async def hold():
        async with grpc.aio.insecure_channel(toy_server.grpc_address) as channel:
            calls = [channel.stream_unary(PREDICT)() for _ in range(500)]  # the headers go out, a message never does
            await asyncio.sleep(0.5)
            answered = await asyncio.to_thread(honest, toy_server)
            assert answered and cost.threads < 30 and cost.peak < 100 * MEGABYTE
            for call in calls:
                call.cancel()

    cost = Cost(toy_server)
    asyncio.run(hold())


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, flags, stream, content):
    return struct.pack(">I", len(content))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + content


def unread_call(port, message):
    """A connection that has sent a request, allows the server to send no byte of the answer, and does not read."""
    headers = {b":method": b"POST", b":scheme": b"http", b":path": PREDICT.encode(), b":authority": b"localhost",
               b"content-type": b"application/grpc", b"te": b"trailers"}
    literal = b"".join(b"\0" + bytes([len(key)]) + key + bytes([len(value)]) + value for key, value in headers.items())
    body = b"\0" + struct.pack(">I", len(message)) + message
    connection = socket.create_connection(("127.0.0.1", port), timeout=LIMIT)
    connection.sendall(PREFACE + frame(4, 0, 0, struct.pack(">HI", 4, 0)) + frame(1, 4, 1, literal) + frame(0, 1, 1, body))
    return connection


def test_clients_that_do_not_read_hold_nobody_up(toy_server, stub):
    cost = Cost(toy_server)
    connections = [unread_call(toy_server.grpc_port, sample_request().SerializeToString()) for _ in range(100)]
    assert honest(toy_server) and cost.threads < 30
    for connection in connections:
        connection.close()


def test_connection_without_a_sign_of_life_is_closed():
    port, = free_ports(1)
    settings = {"grpc.keepalive_time_ms": 500, "grpc.http2.ping_timeout_ms": 500}
    server = GrpcServer(ModelManager(), RequestMetrics(), 1, settings.items())
    server.bind(f"127.0.0.1:{port}")
    server.start()
    with unread_call(port, sample_request().SerializeToString()) as connection:
        wait_for(lambda: b"ping timeout" in connection.recv(2**16, socket.MSG_PEEK))
    server.stop(0).result()


def test_stop_says_goaway_to_an_idle_connection(monkeypatch):
    monkeypatch.setattr(grpc_server, "LINGER_SECONDS", 0.1)
    port, = free_ports(1)
    server = GrpcServer(ModelManager(), RequestMetrics(), 1)
    server.bind(f"127.0.0.1:{port}")
    server.start()
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as connection:
        connection.sendall(PREFACE + frame(4, 0, 0, b""))
        received = connection.recv(2**16)  # the server's settings: it is connected
        end = server.stop(LIMIT)
        while content := connection.recv(2**16):
            received += content
    end.result()
    kinds = []
    while received:
        kinds.append(received[3])
        received = received[9 + int.from_bytes(received[:3], "big"):]
    assert 7 in kinds


def test_idle_connections_cost_no_thread(toy_server, stub):
    cost = Cost(toy_server)
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        connections = list(pool.map(
            lambda _: socket.create_connection(("127.0.0.1", toy_server.grpc_port), timeout=LIMIT), range(400)))
    for connection in connections[:200]:
        connection.sendall(PREFACE[:10])  # and no more
    assert honest(toy_server) and cost.threads < 30 and cost.peak < 200 * MEGABYTE
    for connection in connections:
        connection.close()
