"""The client against a server of a few lines in this process; the tests beside it have it against real ones."""

import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from client_cases import IMAGE_SHAPE, NUM_PIXELS, SIGNATURES, Handler, closed_port, model_server

from tfcq.errors import UserError
from tfcq.serving.client.client import Client, ServerError, row_seeds


@pytest.fixture
def server():
    with model_server() as server:
        yield server


@pytest.fixture
def client(server):
    with Client.rest(server.url, "m", max_batch_size=3, timeout=60, retries=0) as client:
        yield client


def test_samples_travel_in_chunks_and_come_back_in_order(server, client):
    images = client.sample(8, seed=5, temperature=np.arange(1, 9) / 10)
    assert images.dtype == np.uint8 and images.shape == (8, *IMAGE_SHAPE)
    np.testing.assert_array_equal(images[:, 0, 0, 0], np.arange(8))  # the server paints a row's number
    assert [len(body["inputs"]["seed"]) for body in server.bodies] == [3, 3, 2]
    np.testing.assert_allclose(sum((body["inputs"]["temperature"] for body in server.bodies), []), np.arange(1, 9) / 10,
                               rtol=1e-6)
    assert {body["signature_name"] for body in server.bodies} == {"sample"}


def test_one_temperature_is_for_every_row(server, client):
    client.sample(2, temperature=0.5)
    client.sample(2, temperature=0)
    assert [body["inputs"]["temperature"] for body in server.bodies] == [[0.5, 0.5], [0.0, 0.0]]


def test_likelihood_in_both_units(client):
    images = np.stack([np.full(IMAGE_SHAPE, value, np.uint8) for value in (0, 10, 20, 30)])
    for values, expected in ((client.log_prob(images), [0, 10, 20, 30]), (client.bits_per_dim(images), [0, 5, 10, 15])):
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, expected)


def test_what_is_known_of_latents_is_two_numbers_an_image(client):
    images = np.stack([np.full(IMAGE_SHAPE, value, np.uint8) for value in (1, 2)])
    log_prob, error = client.latent_likelihood(images)
    np.testing.assert_array_equal(log_prob, [1, 2])
    np.testing.assert_array_equal(error, [-1, -2])


def test_energy_is_a_number_an_image(server, client):
    images = np.stack([np.full(IMAGE_SHAPE, value, np.uint8) for value in (4, 1, 3, 2)])
    energy = client.energy(images, seed=5)
    assert energy.dtype == np.float32
    np.testing.assert_array_equal(energy, [4, 1, 3, 2])
    assert [body["signature_name"] for body in server.bodies] == ["energy"] * 2
    assert server.bodies[1]["inputs"]["seed"] == [[5, 2], [5, 3]]


def test_interpolation_sends_both_images_and_the_way(server, client):
    images, other_images = np.zeros((5, *IMAGE_SHAPE), np.uint8), np.full((5, *IMAGE_SHAPE), 9, np.uint8)
    between = client.interpolate(images, other_images, np.linspace(0.0, 1.0, 5), spherical=True, seed=3)
    assert between.dtype == np.uint8
    np.testing.assert_array_equal(between[:, 0, 0, 0], [0, 0, 0, 9, 9])
    inputs = [body["inputs"] for body in server.bodies]
    assert [part["share"] for part in inputs] == [[0.0, 0.25, 0.5], [0.75, 1.0]]
    assert [part["spherical"] for part in inputs] == [[True] * 3, [True] * 2]
    assert inputs[1]["seed"] == [[3, 3], [3, 4]]


def test_between_two_samples_the_seeds_of_both_are_sent(server, client):
    first, second = np.int32([[0, row] for row in range(5)]), np.int32([[1, 10 + row] for row in range(5)])
    between = client.interpolate_noise(first, second, np.linspace(0.0, 1.0, 5), temperature=0.5)
    np.testing.assert_array_equal(between[:, 0, 0, 0], [0, 1, 2, 13, 14])
    inputs = server.bodies[1]["inputs"]
    assert inputs["first_seed"] == [[0, 3], [0, 4]] and inputs["second_seed"] == [[1, 13], [1, 14]]
    assert inputs["share"] == [0.75, 1.0] and inputs["spherical"] == [False] * 2 and inputs["temperature"] == [0.5] * 2
    with pytest.raises(UserError, match=r"interpolate_noise\(second_seeds\): expected 5 rows, as many as first_seeds"):
        client.interpolate_noise(first, second[:3], 0.5)


def test_compressed_images_have_a_shape_of_their_own(server, client):
    compressed = np.arange(12, dtype=np.uint8).reshape(4, 1, 1, 3)
    images = client.super_resolve(compressed, seed=3)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, np.tile(compressed, (1, 2, 2, 1)))
    assert [len(body["inputs"]["compressed"]) for body in server.bodies] == [2, 2]
    assert server.bodies[1]["inputs"]["seed"] == [[3, 2], [3, 3]]


def test_images_that_a_first_stage_makes_come_back(client):
    images = np.arange(2 * NUM_PIXELS, dtype=np.uint8).reshape(2, *IMAGE_SHAPE)
    np.testing.assert_array_equal(client.generative_reconstruct(images), 255 - images)


def test_decode_takes_any_floats(client):
    latents = np.arange(2 * NUM_PIXELS, dtype=np.float64).reshape(2, NUM_PIXELS)
    images = client.decode(latents)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images.reshape(2, -1), latents)


def test_seeds_are_the_stream_and_the_number_of_the_row():
    seeds = row_seeds(3, 7)
    assert seeds.dtype == np.int32
    np.testing.assert_array_equal(seeds, [[7, 0], [7, 1], [7, 2]])
    np.testing.assert_array_equal(row_seeds(2), [[0, 0], [0, 1]])
    np.testing.assert_array_equal(row_seeds(1, -2**31), [[-2**31, 0]])


def test_default_seeds_and_given_seeds_are_sent(server, client):
    client.log_prob(np.zeros((2, *IMAGE_SHAPE), np.uint8), seed=9)
    client.sample(seeds=[[1, 2]])
    assert [body["inputs"]["seed"] for body in server.bodies] == [[[9, 0], [9, 1]], [[1, 2]]]


def test_metadata_and_status(client):
    metadata = client.metadata()
    assert (metadata["name"], metadata["version"]) == ("m", 4)
    assert set(metadata["signatures"]) == SIGNATURES.keys() - {"__saved_model_init_op"}
    assert metadata["signatures"]["sample"] == {
        "inputs": {"seed": {"dtype": "int32", "shape": [None, 2]},
                   "temperature": {"dtype": "float32", "shape": [None]}},
        "outputs": {"images": {"dtype": "uint8", "shape": [None, *IMAGE_SHAPE]}}}
    assert client.status() == {4: {"state": "AVAILABLE", "error": ""}, 5: {"state": "END", "error": "broken"}}


def test_version_and_name_are_in_the_path(server):
    Client.rest(server.url + "/", "a name", version=3).predict("decode", {"latents": np.zeros((1, NUM_PIXELS))})
    assert server.paths == ["/v1/models/a%20name/versions/3:predict"]


@pytest.mark.parametrize("call", [
    lambda client: client.sample(),
    lambda client: client.sample(0),
    lambda client: client.sample(2, seeds=[[0, 0]]),
    lambda client: client.sample(2, seed=2**31),
    lambda client: client.sample(2, temperature=[1.0, 1.0, 1.0]),
    lambda client: client.sample(2, temperature=-1.0),
    lambda client: client.sample(2, temperature="1"),
    lambda client: client.sample(2, temperature=np.nan),
    lambda client: client.sample(2.5),
    lambda client: client.sample(seeds=[0, 1]),
    lambda client: client.sample(seeds=[[0.5, 1.0]]),
    lambda client: client.sample(seeds=[[0, 2**31]]),
    lambda client: client.log_prob(np.zeros(IMAGE_SHAPE, np.uint8)),
    lambda client: client.log_prob(np.zeros((1, *IMAGE_SHAPE), np.float32)),
    lambda client: client.log_prob(np.zeros((0, *IMAGE_SHAPE), np.uint8)),
    lambda client: client.log_prob(np.zeros((2, *IMAGE_SHAPE), np.uint8), seeds=[[0, 0]]),
    lambda client: client.decode(np.zeros((0, NUM_PIXELS))),
    lambda client: client.super_resolve(np.zeros((2, 1, 1, 3), np.float32)),
    lambda client: client.super_resolve(np.zeros((2, 1, 1, 3), np.uint8), seeds=[[0, 0]]),
    lambda client: client.interpolate(np.zeros((2, *IMAGE_SHAPE), np.uint8), np.zeros((1, *IMAGE_SHAPE), np.uint8), 0.5),
    lambda client: client.interpolate(*np.zeros((2, 2, *IMAGE_SHAPE), np.uint8), [0.5, 0.5, 0.5]),
    lambda client: client.interpolate(*np.zeros((2, 2, *IMAGE_SHAPE), np.float32), 0.5),
    lambda client: client.interpolate(*np.zeros((2, 2, *IMAGE_SHAPE), np.uint8), 2.0),
    lambda client: client.interpolate(*np.zeros((2, 2, *IMAGE_SHAPE), np.uint8), 0.5, spherical=0.5),
    lambda client: client.decode(5.0),
    lambda client: client.decode([[np.nan]]),
])
def test_mistakes_are_told_without_asking_the_server(server, client, call):
    with pytest.raises(UserError) as caught:
        call(client)
    assert not isinstance(caught.value, ServerError) and "\n" not in str(caught.value)
    assert not server.bodies


@pytest.mark.parametrize("call, told", [
    (lambda client: client.log_prob(np.full((2, *IMAGE_SHAPE), 0.5)), r'log_prob\(images\).*np.rint\(255 \* images\)'),
    (lambda client: client.sample(2, temperature=[1.0] * 3), r"sample\(temperature\): expected one number or 2, received 3"),
    (lambda client: client.decode(5.0), r"decode\(latents\): expected float32 \[N, \.\.\.\], received float64 \[\]$"),
    (lambda client: client.decode(np.zeros(NUM_PIXELS, np.float32)),
     r"decode\(latents\): expected float32 \[N, \.\.\.\], received float32 \[12\]; latents\[None\] is one row$"),
    (lambda client: client.energy(np.zeros((2, *IMAGE_SHAPE), np.uint8), [[0, 0]]), r"energy\(seeds\): expected 2 rows"),
])
def test_mistakes_are_told_as_the_model_in_python_tells_them(client, call, told):
    with pytest.raises(UserError, match=told):
        call(client)


@pytest.mark.parametrize("make", [
    lambda: Client.rest("localhost:8501", "m"),
    lambda: Client.grpc("grpc://localhost:8500", "m"),
    lambda: Client.rest("http://localhost:8501", "m", max_batch_size=0),
])
def test_bad_addresses_and_sizes_are_refused_at_once(make):
    with pytest.raises(UserError):
        make()


@pytest.mark.parametrize("status, content, code, reason", [
    (400, {"error": "temperature\nmust be positive"}, "INVALID_ARGUMENT", "temperature must be positive"),
    (404, {"error": "no such model"}, "NOT_FOUND", "no such model"),
    (503, b"<html>busy</html>", "UNAVAILABLE", "<html>busy</html>"),
    (418, {"other": 1}, "HTTP 418", "other"),
    (200, b"not json", "UNAVAILABLE", "HTTP 200 OK from BaseHTTP/"),
    (200, b"not json", "UNAVAILABLE", "which is not TF Serving's JSON: 'not json'"),
    (200, {"predictions": [1]}, "UNAVAILABLE", "not TF Serving's JSON"),
    (200, [1], "UNAVAILABLE", "not TF Serving's JSON: '[1]'"),
    (200, b"", "UNAVAILABLE", "not TF Serving's JSON: ''"),
    (200, b"\xff\xfe", "UNAVAILABLE", "not TF Serving's JSON"),
    (403, b"<!DOCTYPE html>\n<html><head><title>\nAccess\n denied</title>" + b"x" * 10**6, "PERMISSION_DENIED",
     "JSON: 'Access denied'"),
    (502, b"\n<html>\n<body>\nBad gateway: " + b"x" * 10**6, "HTTP 502", "'Bad gateway: xxx"),
])
def test_refusals_are_one_line_with_code_and_reason(server, client, status, content, code, reason):
    server.behaviour = lambda handler: handler.answer(status, content)
    with pytest.raises(ServerError) as caught:
        client.sample(1)
    assert caught.value.code == code and reason in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.exit_status == 2 and len(str(caught.value)) < 400


@pytest.mark.parametrize("ask", [Client.metadata, Client.status, lambda client: client.sample(1)])
@pytest.mark.parametrize("answer", [{}, [], "text", {"model_spec": 1, "model_version_status": [1]}, {"error": 3}, None], ids=repr)
def test_another_servers_json_is_told(server, monkeypatch, ask, answer):
    monkeypatch.setattr(Handler, "do_GET", lambda handler: handler.answer(200, answer))
    server.behaviour = lambda handler: handler.answer(200, answer)
    with pytest.raises(ServerError, match=r"HTTP 200 OK from BaseHTTP/\S+ Python/\S+, which is not TF Serving's JSON"):
        ask(Client.rest(server.url, "m"))


def test_the_port_of_grpc_is_told():
    with socket.create_server(("127.0.0.1", 0)) as other:
        def answer():
            connection, _ = other.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"\0\0\x18\x04\0\0\0\0\0\0\4\0\x3f\xff\xff\r\n")  # a frame of HTTP/2

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ServerError, match="does not speak HTTP .* is it the port of gRPC"):
            Client.rest(f"http://127.0.0.1:{other.getsockname()[1]}", "m", timeout=5).status()
        thread.join()


def test_server_that_hangs_up_is_unavailable(server, client):
    server.behaviour = lambda handler: handler.connection.shutdown(socket.SHUT_RDWR)
    with pytest.raises(ServerError) as caught:
        client.sample(1)
    assert caught.value.code == "UNAVAILABLE"


@pytest.mark.parametrize("make", [
    lambda port: Client.rest(f"http://127.0.0.1:{port}", "m", timeout=1),
    lambda port: Client.grpc(f"127.0.0.1:{port}", "m", timeout=1),
], ids=["rest", "grpc"])
def test_no_server_and_a_silent_one_fail_within_the_timeout(make):
    start = time.monotonic()
    with pytest.raises(ServerError) as caught:
        make(closed_port()).sample(1)
    assert caught.value.code == "UNAVAILABLE"
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never says a word
        with pytest.raises(ServerError) as caught:
            make(silent.getsockname()[1]).status()
        assert caught.value.code in ("DEADLINE_EXCEEDED", "UNAVAILABLE")
    assert time.monotonic() - start < 60
    assert "\n" not in str(caught.value)


def test_no_client_needs_tensorflow_and_rest_needs_numpy_alone():
    code = ("import sys, tfcq; tfcq.Client.rest('http://localhost:1', 'm');"
            "light = not {'grpc', 'httpx', 'PIL'} & set(sys.modules); tfcq.Client.grpc('localhost:1', 'm');"
            "tfcq.AsyncClient.rest('http://localhost:1', 'm'); sys.exit(not light or 'tensorflow' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], timeout=600).returncode == 0
