"""A call as a whole: one version, one time limit, chunks, tries, connections. By REST and by gRPC, with threads and asyncio."""

import asyncio
import threading
import time

import numpy as np
import pytest
from client_cases import (
    IMAGE_SHAPE,
    SIGNATURES,
    GrpcModel,
    Handler,
    closed_port,
    grpc_server,
    model_server,
)

from tfcq.errors import UserError
from tfcq.serving.client import calls
from tfcq.serving.client.async_client import AsyncClient
from tfcq.serving.client.client import Client, ServerError


class Awaited:
    """An `AsyncClient` whose methods are run in an event loop, so that one test is for both kinds of client."""

    def __init__(self, client, loop):
        self._client, self._loop = client, loop

    def __getattr__(self, name):
        def call(*args, **kwargs):
            return self._loop.run_until_complete(getattr(self._client, name)(*args, **kwargs))

        return call


@pytest.fixture(params=["rest", "grpc", "async rest", "async grpc"])
def kind(request):
    return request.param


@pytest.fixture
def loop():
    with asyncio.Runner() as runner:
        yield runner.get_loop()


@pytest.fixture
def rest():
    with model_server() as server:
        yield server


@pytest.fixture
def grpc_model():
    model = GrpcModel()
    with grpc_server(model) as address:
        model.address = address
        yield model


@pytest.fixture
def make(kind, loop, request):
    """Function from options to a client of each kind; `make.model` is its server."""
    transport = kind.split()[-1]
    model = request.getfixturevalue("rest" if transport == "rest" else "grpc_model")
    address, made = model.url if transport == "rest" else model.address, []

    def client(address=address, **options):
        family = AsyncClient if kind.startswith("async") else Client
        one = getattr(family, transport)(address, **({"model": "m", "max_batch_size": 3, "retries": 0} | options))
        made.append(Awaited(one, loop) if family is AsyncClient else one)
        return made[-1]

    client.model, client.transport = model, transport
    yield client
    for one in made:
        one.close()


def predictions(model):
    """Versions of the Predict requests that a server received."""
    if isinstance(model, GrpcModel):
        return [request.model_spec.version.value for method, request, _ in model.asked if method == "Predict"]
    return [int(path.split("/")[-1].removesuffix(":predict")) for path in model.paths]


def behave(model, numbered):
    """Has a server call `numbered(place, refuse)` for each Predict; `refuse(code)` ends it with UNAVAILABLE or another code."""
    import grpc

    lock, count = threading.Lock(), [0]

    def place():
        with lock:
            count[0] += 1
            return count[0] - 1

    if isinstance(model, GrpcModel):
        model.behaviour = lambda request, answer, context: numbered(
            place(), lambda code: context.abort(getattr(grpc.StatusCode, code), "busy"))
        return

    def answer(handler):
        codes = []
        numbered(place(), codes.append)
        if codes:
            handler.answer({"UNAVAILABLE": 503, "RESOURCE_EXHAUSTED": 429}[codes[0]], {"error": "busy"})
        else:
            seeds = handler.body["inputs"]["seed"]
            images = np.full((len(seeds), *IMAGE_SHAPE), handler.version, np.uint8)
            images[..., 0] = np.array(seeds)[:, 1, None, None]
            if handler.version in handler.server.gone:
                handler.answer(404, {"error": "Servable not found"})
            else:
                handler.answer(200, {"outputs": images.tolist()})

    model.behaviour = answer


def test_many_rows_come_back_in_order(make):
    images = make(parallel=2).sample(8)
    np.testing.assert_array_equal(images[:, 0, 0, 0], np.arange(8))
    assert predictions(make.model) == [4, 4, 4]


def test_chunks_of_a_call_are_nearly_equal(make):
    make(max_batch_size=64).sample(65)
    if make.transport == "rest":
        sizes = [len(body["inputs"]["seed"]) for body in make.model.bodies]
    else:
        sent = [request for method, request, _ in make.model.asked if method == "Predict"]
        sizes = [request.inputs[0].value.tensor_shape.dim[0].size for request in sent]
    assert sizes == [33, 32]


def test_all_chunks_are_of_one_version_while_a_server_changes_it(make):
    def swap(place, refuse):
        if place == 2:  # the third request is the first that the new version gets
            make.model.version, make.model.gone = 5, {4}

    behave(make.model, swap)
    client = make()
    images = client.sample(12)
    assert np.unique(images[..., 1:]).tolist() in ([4], [5])
    np.testing.assert_array_equal(images[:, 0, 0, 0], np.arange(12))
    make.model.gone = {4, 5}
    with pytest.raises(ServerError) as caught:
        client.sample(12)
    assert caught.value.code == "NOT_FOUND"


def test_a_call_that_names_its_version_does_not_begin_again(make):
    client = make(version=4)
    client.sample(1)
    make.model.version, make.model.gone = 5, {4}
    with pytest.raises(ServerError) as caught:
        client.sample(6)
    assert caught.value.code == "NOT_FOUND" and set(predictions(make.model)) == {4}


def test_the_newest_version_is_asked_soon(make, monkeypatch):
    client = make()
    assert client.sample(1).max() <= 4
    make.model.version = 5  # and 4 still serves
    monkeypatch.setattr(calls, "FRESH_SECONDS", -1.0)
    client.sample(1)
    assert predictions(make.model) == [4, 5]


@pytest.mark.parametrize("kind", ["rest"], indirect=True)
def test_signatures_are_asked_again_when_they_change(make):
    client, server = make(), make.model
    assert client.sample(2).dtype == np.uint8
    grey = {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1"}, {"size": "1"}]}}
    server.signatures = SIGNATURES | {"sample": {"inputs": SIGNATURES["sample"]["inputs"], "outputs": {"levels": grey}}}
    server.version, server.gone = 5, {4}

    def answer(handler):
        gone = handler.version in server.gone
        handler.answer(404 if gone else 200, {"error": "Servable not found"} if gone else {"outputs": [[0.5], [1.0]]})

    server.behaviour = answer
    levels = client.predict("sample", {"seed": [[0, 0], [0, 1]], "temperature": [1, 1]})["levels"]
    assert levels.dtype == np.float32 and levels.tolist() == [[0.5], [1.0]]


def test_a_label_is_asked_for_its_version_once(make):
    make(label="stable").sample(6)
    if make.transport == "rest":
        assert [one.path for one in make.model.asked][0] == "/v1/models/m/labels/stable/metadata"
    else:
        assert make.model.asked[0][1].model_spec.version_label == "stable"
    assert predictions(make.model) == [4, 4]


def test_the_time_limit_is_that_of_the_call_not_of_a_chunk(make):
    behave(make.model, lambda place, refuse: time.sleep(0.25))
    client = make(timeout=1.0, max_batch_size=1)
    with pytest.raises(ServerError, match="no answer within 1 s|Deadline") as caught:
        client.sample(8)
    assert caught.value.code == "DEADLINE_EXCEEDED" and len(predictions(make.model)) < 8


def test_the_time_limit_is_that_of_the_call_not_of_a_try(make):
    behave(make.model, lambda place, refuse: refuse("UNAVAILABLE"))
    start = time.monotonic()
    with pytest.raises(ServerError) as caught:
        make(timeout=2.0, retries=1000).sample(1)
    assert caught.value.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED") and time.monotonic() - start < 30
    assert len(predictions(make.model)) > 1


@pytest.mark.parametrize("where", ["headers", "body"])
@pytest.mark.parametrize("kind", ["rest", "async rest"], indirect=True)
def test_a_server_that_drips_ends_at_the_time_limit(make, where):
    def drip(handler):
        parts = [b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n", b'{"outputs": [[[[0,0,0],[0,0,0]]]]}      ']
        start = time.monotonic()
        for part in parts:
            slow = (where == "headers") == (part is parts[0])
            for place in range(len(part)):
                handler.wfile.write(part[place:place + 1])
                time.sleep(0.5 if slow and time.monotonic() < start + 20 else 0)

    make.model.behaviour = drip
    start = time.monotonic()
    with pytest.raises(ServerError, match="no answer within 1 s") as caught:
        make(timeout=1.0).sample(1)
    assert caught.value.code == "DEADLINE_EXCEEDED" and time.monotonic() - start < 15


def test_unavailable_is_tried_again(make):
    behave(make.model, lambda place, refuse: refuse("UNAVAILABLE") if place < 2 else None)
    assert make(retries=2).sample(1).shape == (1, *IMAGE_SHAPE)
    assert len(predictions(make.model)) == 3


def test_other_refusals_are_not_tried_again(make):
    behave(make.model, lambda place, refuse: refuse("RESOURCE_EXHAUSTED"))
    with pytest.raises(ServerError, match="busy") as caught:
        make(retries=5).sample(1)
    assert caught.value.code == "RESOURCE_EXHAUSTED" and len(predictions(make.model)) == 1


def test_pauses_grow_and_differ():
    pauses = np.array([[calls._pause(attempt) for attempt in range(8)] for _ in range(50)])
    longest = np.minimum(0.1 * 2.0 ** np.arange(8), 5)
    assert (pauses <= longest).all() and (pauses >= longest / 2).all() and np.ptp(pauses, axis=0).min() > 0


def test_parallel_chunks_are_under_way_together(make):
    together = threading.Barrier(3)

    def wait(place, refuse):
        together.wait(60)

    behave(make.model, wait)
    images = make(max_batch_size=1, parallel=3).sample(6)
    np.testing.assert_array_equal(images[:, 0, 0, 0], np.arange(6))


def test_outputs_that_are_not_wanted_are_not_returned(make):
    client, inputs = make(), {"seed": [[0, 3]], "temperature": [1.0]}
    assert list(client.predict("sample", inputs, output_filter=["images"])) == ["images"]
    with pytest.raises(UserError, match="expected outputs among images, received 'image'"):
        client.predict("sample", inputs, output_filter=["image"])
    with pytest.raises(UserError, match="expected a list of names"):
        client.predict("sample", inputs, output_filter="images")


def test_both_transports_send_the_declared_types(make):
    make().predict("sample", {"seed": np.array([[0, 3]], np.int64), "temperature": np.array([1], np.int64)})
    if make.transport == "rest":
        assert make.model.bodies[0]["inputs"] == {"seed": [[0, 3]], "temperature": [1.0]}
        assert type(make.model.bodies[0]["inputs"]["temperature"][0]) is float
    else:
        sent = {entry.key: entry.value for entry in make.model.asked[-1][1].inputs}
        assert (sent["seed"].dtype, sent["temperature"].dtype) == (3, 1)
        assert sent["temperature"].tensor_content == np.float32(1).tobytes()


SEEDS = np.zeros((7, 2), np.int32)


@pytest.mark.parametrize(("signature", "inputs", "said"), [
    ("sample", {"seed": SEEDS}, "expected the inputs seed, temperature, received seed"),
    ("sample", {"seed": SEEDS, "heat": np.ones(7)}, "expected the inputs seed, temperature, received heat, seed"),
    ("sample", {"seed": SEEDS + 0.5, "temperature": np.ones(7)}, r"sample\(seed\): expected int32 \[N, 2\], received float64"),
    ("sample", {"seed": SEEDS.astype(np.int64) + 2**40, "temperature": np.ones(7)}, r"sample\(seed\): expected int32"),
    ("sample", {"seed": SEEDS[0], "temperature": np.ones(7)}, r"sample\(seed\): expected int32 \[N, 2\], received int32 \[2\]"),
    ("sample", {"seed": SEEDS, "temperature": np.ones(4)}, "as many rows of each input, received 7 of seed, 4 of temperature"),
    ("sample", {"seed": SEEDS[:0], "temperature": np.ones(0)}, "at least one row, received none"),
    ("sample", {"seed": SEEDS, "temperature": np.full(7, 1e300)}, r"sample\(temperature\): expected float32"),
    ("sample", {"seed": SEEDS, "temperature": ["1"] * 7}, "not an array of numbers"),
    ("sample", {}, "expected inputs by their names, received none"),
    ("likelihood", {"images": np.zeros((1, *IMAGE_SHAPE)), "seed": SEEDS[:1]}, r"likelihood\(images\): expected uint8"),
    ("likelihood", {"images": np.zeros((1, 3, 2, 3), np.uint8), "seed": SEEDS[:1]}, r"uint8 \[N, 2, 2, 3\], received"),
])
@pytest.mark.parametrize("kind", ["rest", "grpc"], indirect=True)
def test_inputs_are_checked_before_the_first_chunk_is_sent(make, signature, inputs, said):
    with pytest.raises(UserError, match=said) as caught:
        make().predict(signature, inputs)
    assert not isinstance(caught.value, ServerError) and "\n" not in str(caught.value) and not predictions(make.model)


def test_a_signature_that_the_model_lacks_is_the_servers_word(make):
    with pytest.raises(ServerError, match="version 4 of the model has no signature 'encode'; it has decode, energy") as caught:
        make().encode(np.zeros((1, *IMAGE_SHAPE), np.uint8))
    assert caught.value.code == "INVALID_ARGUMENT"


def test_health_and_waiting(make):
    client = make()
    assert client.health() is True
    client.wait_until_ready(timeout=30)
    make.model.gone = {4}
    assert make(version=4).health() is False
    nobody = make(f"http://127.0.0.1:{closed_port()}" if make.transport == "rest" else f"127.0.0.1:{closed_port()}")
    assert nobody.health() is False
    with pytest.raises(ServerError, match="no answer within 0.3 s; the last try: ") as caught:
        nobody.wait_until_ready(timeout=0.3)
    assert caught.value.code == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize("kind", ["rest", "async rest"], indirect=True)
def test_waiting_ends_when_the_model_is_there(make):
    make.model.gone = {4}

    def arrive():
        make.model.gone = set()

    timer = threading.Timer(0.3, arrive)
    timer.start()
    client = make(version=4)
    client.wait_until_ready(timeout=60)
    assert not make.model.gone
    timer.join()


def test_a_closed_client_is_refused(make):
    client = make()
    client.sample(1)
    client.close()
    client.close()
    with pytest.raises(UserError, match=r"Client\.(rest|grpc)\(.*model='m'\) is closed"):
        client.sample(1)


# Connections.


class KeepingHandler(Handler):
    protocol_version, disable_nagle_algorithm = "HTTP/1.1", True


class WaitingHandler(KeepingHandler):
    begun, go_on = threading.Event(), threading.Event()

    def do_GET(self):
        self.begun.set()
        assert self.go_on.wait(60)
        super().do_GET()


def test_a_connection_that_is_in_use_when_the_client_is_closed_is_not_kept():
    with model_server(WaitingHandler) as server, Client.rest(server.url, "m") as client:
        asking = threading.Thread(target=client.status)
        asking.start()
        assert WaitingHandler.begun.wait(60)
        client.close()
        WaitingHandler.go_on.set()
        asking.join(60)
        assert server.asked and client._transport._connections._idle == []


class ForgetfulHandler(KeepingHandler):
    """Closes a connection after each answer, and does not say so."""

    def handle_one_request(self):
        super().handle_one_request()
        self.close_connection = True


@pytest.mark.parametrize("kind", ["rest", "async rest"], indirect=True)
@pytest.mark.parametrize("handler", [KeepingHandler, ForgetfulHandler])
def test_connections_are_kept_and_one_that_was_closed_is_no_error(make, handler):
    with model_server(handler) as server:
        client = make(server.url, max_batch_size=1)
        client.sample(3)
        client.sample(3)
        client.close()
        assert len(server.bodies) == 6
        assert len({one.client_address for one in server.asked}) == (1 if handler is KeepingHandler else len(server.asked))
