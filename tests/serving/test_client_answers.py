"""Answers that are not what the model declares, and forms of those that are."""

import base64
import json

import numpy as np
import pytest
from client_cases import IMAGE_SHAPE, NUM_PIXELS, SIGNATURES, GrpcModel, fill_tensor, grpc_server, model_server

from tfcq.errors import UserError
from tfcq.serving.client import rest_protocol
from tfcq.serving.client.client import Client, ServerError


@pytest.fixture
def model():
    return GrpcModel()


@pytest.fixture
def client(model):
    """A client by gRPC."""
    with grpc_server(model) as address, Client.grpc(address, "m") as client:
        yield client


def images(*shape, dtype=int):
    return np.zeros(shape, dtype).tolist()


@pytest.mark.parametrize("content", [
    {"outputs": images(1, *IMAGE_SHAPE)},
    {"outputs": images(3, *IMAGE_SHAPE)},
    {"outputs": images(2, 3, 2, 2)},
    {"outputs": images(2, NUM_PIXELS)},
    {"outputs": images(2, *IMAGE_SHAPE, dtype=float)},
    {"outputs": [images(*IMAGE_SHAPE), [[[0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0]]]]},
    {"outputs": [images(*IMAGE_SHAPE), [[[0, 0, 0], [0, 0, 0]], [[0, 0], [0, 0, 0, 0]]]]},
    {"outputs": (np.zeros((2, *IMAGE_SHAPE), int) + 256).tolist()},
    {"outputs": (np.zeros((2, *IMAGE_SHAPE), int) - 1).tolist()},
    {"outputs": (np.zeros((2, *IMAGE_SHAPE)) + np.nan).tolist()},
    {"outputs": np.full((2, *IMAGE_SHAPE), "0").tolist()},
    {"outputs": np.full((2, *IMAGE_SHAPE), None).tolist()},
    {"outputs": {"pictures": images(2, *IMAGE_SHAPE)}},
    {"outputs": None},
    {"outputs": 2**100},
    {"outputs": []},
    b'{"outputs": ' + b"[" * 100_000,
    b'{"outputs": [' + b"0," * 23 + b"0]}",
], ids=["too few rows", "too many rows", "channels first", "flat", "floats", "ragged", "ragged, of the same number", "256", "-1",
        "NaN", "texts", "null", "another name", "nothing", "a number", "an empty list", "a depth", "a row"])
def test_outputs_by_rest_are_what_was_declared(content):
    with model_server() as server, Client.rest(server.url, "m") as client:
        server.behaviour = lambda handler: handler.answer(200, content)
        with pytest.raises(ServerError, match="not what was asked for|not TF Serving's JSON") as caught:
            client.sample(2)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def other_tensor(dtype, array):
    def change(request, answer, context):
        fill_tensor(answer.outputs[0].value, dtype, array)

    return change


def change(what):
    def behaviour(request, answer, context):
        what(answer)

    return behaviour


@pytest.mark.parametrize("behaviour", [
    other_tensor(4, np.zeros((1, *IMAGE_SHAPE), np.uint8)),
    other_tensor(4, np.zeros((2, 3, 2, 2), np.uint8)),
    other_tensor(1, np.zeros((2, *IMAGE_SHAPE), np.float32)),
    other_tensor(7, np.zeros((2, *IMAGE_SHAPE), np.uint8)),
    other_tensor(14, np.zeros((2, *IMAGE_SHAPE), np.uint16)),
    change(lambda answer: setattr(answer.outputs[0], "key", "pictures")),
    change(lambda answer: setattr(answer.outputs[0].value, "tensor_content", b"123")),
    change(lambda answer: setattr(answer.outputs[0].value, "tensor_content", b"")),
    change(lambda answer: setattr(answer.outputs[0].value.tensor_shape.dim[0], "size", 2**60)),
    change(lambda answer: setattr(answer.outputs[0].value.tensor_shape.dim[0], "size", -1)),
    change(lambda answer: setattr(answer.model_spec.version, "value", 3)),
    lambda request, answer, context: b"\xff\xff",
    lambda request, answer, context: b"",
], ids=["rows", "shape", "type", "strings", "unknown type", "name", "bytes", "empty", "huge", "negative", "version", "no message",
        "nothing"])
def test_outputs_by_grpc_are_what_was_declared(model, client, behaviour):
    model.behaviour = behaviour
    with pytest.raises(ServerError, match="the answer is not what was asked for") as caught:
        client.sample(2)
    assert caught.value.code == "INTERNAL" and "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [list(range(24)), [7], [7, 8]])
def test_typed_fields_are_read_as_tensor_content_is(model, client, values):
    """TF Serving fills `int_val`; a TensorProto leaves out what repeats its last value."""

    def typed(request, answer, context):
        answer.outputs[0].value.tensor_content = b""
        answer.outputs[0].value.int_val.extend(values)

    model.behaviour = typed
    np.testing.assert_array_equal(client.sample(2).ravel(), values + [values[-1]] * (24 - len(values)))


def _tensor(dtype, *sizes):
    return {"dtype": dtype, "tensor_shape": {"dim": [{"size": "-1"}, *({"size": str(size)} for size in sizes)]}}


OTHERS = {"strings": {"inputs": {"images_bytes": _tensor("DT_STRING"), "names": _tensor("DT_STRING")},
                      "outputs": {"text": _tensor("DT_STRING"), "packed_bytes": _tensor("DT_STRING")}},
          "numbers": {"inputs": {"x": _tensor("DT_FLOAT")},
                      "outputs": {"half": _tensor("DT_HALF"), "long": _tensor("DT_INT64"), "yes": _tensor("DT_BOOL", 2),
                                  "any": {"dtype": "DT_DOUBLE", "tensor_shape": {"unknown_rank": True}}}}}


@pytest.fixture
def others():
    """A server by REST whose model has signatures of other types, and a client of it."""
    with model_server() as server, Client.rest(server.url, "m") as client:
        server.signatures = SIGNATURES | OTHERS
        yield server, client


def test_strings_are_bytes_in_both_directions(others):
    server, client = others
    picture = b"\x89PNG\0\0"
    packed = {"b64": base64.b64encode(picture).decode()}
    server.behaviour = lambda handler: handler.answer(200, {"outputs": {"text": ["\u00e9"], "packed_bytes": [packed]}})
    outputs = client.predict("strings", {"images_bytes": [picture], "names": ["\u00e9"]})
    name = {"b64": base64.b64encode("\u00e9".encode()).decode()}
    assert server.bodies[0]["inputs"] == {"images_bytes": [packed], "names": [name]}
    assert {name: array.tolist() for name, array in outputs.items()} == {"text": ["\u00e9".encode()], "packed_bytes": [picture]}
    for wrong in ([1], [{"b64": "?"}], [{"b64": 1}], [None], ["a", "b"]):
        server.behaviour = lambda handler, wrong=wrong: handler.answer(200, {"outputs": {"text": wrong, "packed_bytes": wrong}})
        with pytest.raises(ServerError, match="not what was asked for"):
            client.predict("strings", {"images_bytes": [b""], "names": [b""]})


def test_outputs_without_rows_are_those_of_one_request(others):
    server, client = others
    server.signatures = SIGNATURES | {"mean": {"inputs": {"x": _tensor("DT_FLOAT")},
                                               "outputs": {"mean": {"dtype": "DT_FLOAT", "tensor_shape": {"dim": []}}}}}
    server.behaviour = lambda handler: handler.answer(200, {"outputs": 0.5})
    assert client.predict("mean", {"x": np.ones(64)})["mean"] == np.float32(0.5)
    with pytest.raises(UserError, match=r"output 'mean' has no rows, .* at most 64 \(max_batch_size\), received 65"):
        client.predict("mean", {"x": np.ones(65)})
    assert len(server.bodies) == 1


@pytest.mark.parametrize("orjson", [rest_protocol.orjson, None], ids=["orjson", "json"])
def test_numbers_of_all_types_and_words_that_are_not_json(others, monkeypatch, orjson):
    monkeypatch.setattr(rest_protocol, "orjson", orjson)
    server, client = others
    said = (b'{"outputs": {"half": [0.1, NaN], "long": [9007199254740993, -1], "yes": [[true, false], [false, true]],'
            b' "any": [Infinity, 2]}}')
    server.behaviour = lambda handler: handler.answer(200, said)
    outputs = client.predict("numbers", {"x": [0.1, np.nan]})
    assert server.bodies[0]["inputs"]["x"][0] == pytest.approx(0.1, rel=1e-7) and np.isnan(server.bodies[0]["inputs"]["x"][1])
    assert {name: array.dtype.name for name, array in outputs.items()} == {
        "half": "float16", "long": "int64", "yes": "bool", "any": "float64"}
    np.testing.assert_array_equal(outputs["half"], np.array([0.1, np.nan], np.float16))
    assert outputs["long"].tolist() == [2**53 + 1, -1] and outputs["yes"].tolist() == [[True, False], [False, True]]
    assert outputs["any"].tolist() == [np.inf, 2.0]


@pytest.mark.parametrize("orjson", [rest_protocol.orjson, None], ids=["orjson", "json"])
@pytest.mark.parametrize("indent", [None, 1])
def test_numbers_of_any_layout_are_read_to_the_bit(others, monkeypatch, orjson, indent):
    monkeypatch.setattr(rest_protocol, "orjson", orjson)
    server, client = others
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, *IMAGE_SHAPE), np.uint8)
    values = (rng.normal(size=3) * 10.0 ** rng.integers(-30, 30, 3)).astype(np.float32)

    def answer(handler):
        outputs = pixels if handler.body["signature_name"] == "sample" else values
        handler.answer(200, json.dumps({"outputs": outputs.tolist()}, indent=indent).encode())

    server.behaviour = answer
    images = client.sample(3)
    np.testing.assert_array_equal(images, pixels)
    images[0] = 0  # the caller may write into it
    np.testing.assert_array_equal(client.energy(pixels), values)


def test_one_class_without_seeds_says_not_how_many_images(client):
    with pytest.raises(UserError, match=r"^sample_class\(classes\): expected a value for each row, or one with seeds"):
        client.sample_class(3)
    with pytest.raises(UserError, match=r"^name_classes\(classes\): expected a value for each row, received one"):
        client.name_classes(3)
    assert client.class_names() == ()  # the server has a model without classes
