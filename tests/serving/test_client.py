"""The client against a server of a few lines in this process; the tests beside it have it against real ones."""

import contextlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from tfcq.errors import UserError
from tfcq.serving import proxies
from tfcq.serving.client import Client, ServerError, row_seeds

IMAGE_SHAPE = (2, 2, 3)
NUM_PIXELS = 12


def _tensor(dtype, *sizes):
    dims = [{"size": str(size)} for size in (-1, *sizes)]
    return {"dtype": dtype, "tensor_shape": {"dim": dims, "unknown_rank": False}}


IMAGES, SEEDS = _tensor("DT_UINT8", *IMAGE_SHAPE), _tensor("DT_INT32", 2)
SIGNATURES = {
    "sample": {"inputs": {"seed": SEEDS, "temperature": _tensor("DT_FLOAT")}, "outputs": {"images": IMAGES}},
    "likelihood": {"inputs": {"images": IMAGES, "seed": SEEDS},
                   "outputs": {"log_prob": _tensor("DT_FLOAT"), "bits_per_dim": _tensor("DT_FLOAT")}},
    "decode": {"inputs": {"latents": _tensor("DT_FLOAT", NUM_PIXELS)}, "outputs": {"images": IMAGES}},
    "latent_likelihood": {"inputs": {"images": IMAGES, "seed": SEEDS},
                          "outputs": {"latent_log_prob": _tensor("DT_FLOAT"), "reconstruction_error": _tensor("DT_FLOAT")}},
    "energy": {"inputs": {"images": IMAGES, "seed": SEEDS}, "outputs": {"energy": _tensor("DT_FLOAT")}},
    "interpolate": {"inputs": {"images": IMAGES, "other_images": IMAGES, "share": _tensor("DT_FLOAT"),
                               "spherical": _tensor("DT_BOOL"), "seed": SEEDS},
                    "outputs": {"images": IMAGES}},
    "super_resolve": {"inputs": {"compressed": _tensor("DT_UINT8", 1, 1, 3), "seed": SEEDS}, "outputs": {"images": IMAGES}},
    "generative_reconstruct": {"inputs": {"images": IMAGES, "seed": SEEDS}, "outputs": {"images": IMAGES}},
    "__saved_model_init_op": {"inputs": {}, "outputs": {"op": {"dtype": "DT_INVALID"}}},
}


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as TF Serving's REST API does; keeps the bodies of the requests in `server.bodies`."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        if self.path.endswith("/metadata"):
            self.answer(200, {"model_spec": {"name": "m", "version": "4"},
                              "metadata": {"signature_def": {"signature_def": SIGNATURES}}})
        else:
            self.answer(200, {"model_version_status": [
                {"version": "4", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}},
                {"version": "5", "state": "END", "status": {"error_code": "UNKNOWN", "error_message": "broken"}}]})

    def do_POST(self):
        self.server.paths.append(self.path)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        if self.server.behaviour:
            self.server.behaviour(self)
            return
        rows = body["inputs"]
        if body.get("signature_name") == "likelihood":
            means = [float(np.mean(image)) for image in rows["images"]]
            self.answer(200, {"outputs": {"log_prob": means, "bits_per_dim": [mean / 2 for mean in means]}})
        elif body.get("signature_name") == "latent_likelihood":
            means = [float(np.mean(image)) for image in rows["images"]]
            self.answer(200, {"outputs": {"latent_log_prob": means, "reconstruction_error": [-mean for mean in means]}})
        elif body.get("signature_name") == "energy":
            self.answer(200, {"outputs": [float(np.max(image)) for image in rows["images"]]})
        elif body.get("signature_name") == "interpolate":
            chosen = [other if share > 0.5 else one
                      for one, other, share in zip(rows["images"], rows["other_images"], rows["share"])]
            self.answer(200, {"outputs": chosen})
        elif body.get("signature_name") == "super_resolve":
            self.answer(200, {"outputs": np.tile(rows["compressed"], (1, 2, 2, 1)).tolist()})
        elif body.get("signature_name") == "generative_reconstruct":
            self.answer(200, {"outputs": (255 - np.array(rows["images"])).tolist()})
        elif body.get("signature_name") == "decode":
            self.answer(200, {"outputs": np.reshape(rows["latents"], (-1, *IMAGE_SHAPE)).astype(int).tolist()})
        else:
            self.answer(200, {"outputs": [np.full(IMAGE_SHAPE, row[1]).tolist() for row in rows["seed"]]})

    def answer(self, status, content):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextlib.contextmanager
def running(handler, address="127.0.0.1", **attributes):
    """A server on a thread of its own, with these attributes."""
    server = http.server.ThreadingHTTPServer((address, 0), handler)
    vars(server).update(attributes, daemon_threads=True, port=server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server():
    with running(Handler, bodies=[], paths=[], behaviour=None) as server:
        server.url = f"http://127.0.0.1:{server.port}"
        yield server


@pytest.fixture
def client(server):
    return Client.rest(server.url, "m", max_batch_size=3, timeout=5)


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
    assert server.bodies[1]["inputs"]["seed"] == [[5, 3]]


def test_interpolation_sends_both_images_and_the_way(server, client):
    images, other_images = np.zeros((5, *IMAGE_SHAPE), np.uint8), np.full((5, *IMAGE_SHAPE), 9, np.uint8)
    between = client.interpolate(images, other_images, np.linspace(0.0, 1.0, 5), spherical=True, seed=3)
    assert between.dtype == np.uint8
    np.testing.assert_array_equal(between[:, 0, 0, 0], [0, 0, 0, 9, 9])
    inputs = [body["inputs"] for body in server.bodies]
    assert [part["share"] for part in inputs] == [[0.0, 0.25, 0.5], [0.75, 1.0]]
    assert [part["spherical"] for part in inputs] == [[True] * 3, [True] * 2]
    assert inputs[1]["seed"] == [[3, 3], [3, 4]]


def test_compressed_images_have_a_shape_of_their_own(server, client):
    compressed = np.arange(12, dtype=np.uint8).reshape(4, 1, 1, 3)
    images = client.super_resolve(compressed, seed=3)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, np.tile(compressed, (1, 2, 2, 1)))
    assert [len(body["inputs"]["compressed"]) for body in server.bodies] == [3, 1]
    assert server.bodies[1]["inputs"]["seed"] == [[3, 3]]


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
    (403, b"<!DOCTYPE html>\n<html><head><title>\nAccess\n denied</title>" + b"x" * 10**6, "HTTP 403", "JSON: 'Access denied'"),
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


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as unused:
        return unused.getsockname()[1]


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


def test_import_and_rest_need_no_tensorflow():
    code = ("import sys, tfcq.serving.client; tfcq.serving.client.Client.rest('http://localhost:1', 'm');"
            "sys.exit('tensorflow' in sys.modules or 'grpc' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], timeout=600).returncode == 0


# Proxies.


class ProxyHandler(Handler):
    """A proxy that knows no way out; counts in `server.asked` who was asked for."""

    server_version, sys_version = "Squid/6.1", ""

    def refuse(self):
        self.server.asked.append(self.path)
        self.answer(503, b"<html><head><title>ERROR: no such machine</title></head></html>")

    do_GET = do_POST = do_CONNECT = refuse


@pytest.fixture
def proxy(monkeypatch):
    """A proxy of everything, in no variable yet."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    with running(ProxyHandler, asked=[]) as server:
        server.address = f"127.0.0.1:{server.port}"
        yield server


VARIABLES = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "grpc_proxy"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "127.1.2.3", "0.0.0.0"])
def test_this_machine_is_asked_without_a_proxy(proxy, monkeypatch, host):
    for name in VARIABLES:
        monkeypatch.setenv(name, f"http://{proxy.address}")
    with running(Handler, "0.0.0.0", bodies=[], paths=[], behaviour=None) as server:
        assert len(Client.rest(f"http://{host}:{server.port}", "m", timeout=5).sample(2)) == 2
    with pytest.raises(ServerError) as caught:
        Client.grpc(f"{host}:{closed_port()}", "m", timeout=5).status()
    assert caught.value.code == "UNAVAILABLE" and "proxy" not in str(caught.value)
    assert not proxy.asked


@pytest.mark.parametrize(("name", "scheme", "code", "said"), [
    ("http_proxy", "http", "UNAVAILABLE", "HTTP 503 Service Unavailable from Squid/6.1"),
    ("HTTP_PROXY", "http", "UNAVAILABLE", "not TF Serving's JSON: 'ERROR: no such machine'"),
    ("https_proxy", "https", "UNAVAILABLE", "503"),
])
def test_other_machines_are_asked_through_the_proxy_and_its_answer_is_told_as_such(proxy, monkeypatch, name, scheme, code, said):
    monkeypatch.setenv(name, f"http://me:secret@{proxy.address}")
    with pytest.raises(ServerError) as caught:
        Client.rest(f"{scheme}://models.example:8501", "m", timeout=5).status()
    text = str(caught.value)
    assert caught.value.code == code and said in text and "\n" not in text
    assert f"asked through the proxy of {name.lower()}=http://{proxy.address} (no_proxy" in text and "secret" not in text
    assert any("models.example:8501" in path for path in proxy.asked)


def test_no_proxy_is_honoured(proxy, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://{proxy.address}")
    monkeypatch.setenv("no_proxy", "models.invalid")
    with pytest.raises(ServerError, match="no server answers there") as caught:
        Client.rest("http://models.invalid:8501", "m", timeout=5).status()
    assert "proxy" not in str(caught.value) and not proxy.asked


@pytest.mark.parametrize("name", ["grpc_proxy", "https_proxy", "http_proxy"])
def test_grpc_asks_other_machines_through_its_proxy(proxy, monkeypatch, name):
    monkeypatch.setenv(name, f"http://me:secret@{proxy.address}")
    with pytest.raises(ServerError) as caught:
        Client.grpc("models.example:8500", "m", timeout=5).status()
    assert f"asked through the proxy of {name}=http://{proxy.address}" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert proxy.asked and "models.example:8500" in proxy.asked[0]


@pytest.mark.parametrize(("address", "here"), [
    ("localhost:8500", True), ("[::1]:8500", True), ("127.0.0.1:8500", True), ("dns:localhost:8500", True),
    ("ipv4:127.0.0.1:8500", True), ("unix:/run/model", True), ("[::ffff:127.0.0.1]:8500", True), ("a.localhost:1", True),
    ("models.example:8500", False), ("10.0.0.1:8500", False), ("[2001:db8::1]:8500", False), ("localhost.example:8500", False),
    ("[::ffff:10.0.0.1]:1", False), ("[fe80::1%eth0]:1", False),
])
def test_what_is_this_machine(address, here):
    assert proxies.is_here(proxies.grpc_host(address)) == here
