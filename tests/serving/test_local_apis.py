"""The wire formats of the local server where the client does not reach: raw HTTP, raw gRPC, metrics, warm-up."""

import http.client
import json
import math
import re
import socket

import grpc
import numpy as np
import pytest
import tensorflow as tf
import toy_model
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from tfcq.serving.server.grpc_api import TENSOR_CONTENT_METADATA
from tfcq.serving.server.monitoring import RequestMetrics

PATH = "/v1/models/toy"
SAMPLE_ROW = {"seed": [1, 2], "temperature": 1.0}


@pytest.fixture
def ask(toy_server):
    """ask(method, path, body) -> (HTTP status, parsed JSON), all on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", toy_server.rest_port, timeout=30)

    def ask(method, path, body=None, headers=()):
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
        connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        assert response.headers["Content-Type"] == "application/json"
        return response.status, json.loads(response.read())

    yield ask
    connection.close()


@pytest.fixture(scope="module")
def stub(toy_server):
    with grpc.insecure_channel(toy_server.grpc_address,
                               options=[("grpc.max_send_message_length", -1)]) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


def sample_request(num_rows=2):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "toy"
    request.inputs["seed"].CopyFrom(tf.make_tensor_proto(np.zeros([num_rows, 2], np.int32)))
    request.inputs["temperature"].CopyFrom(tf.make_tensor_proto(np.ones(num_rows, np.float32)))
    return request


def images_rows(fill, rows=1):
    return np.full((rows, *toy_model.IMAGE_SHAPE), fill).tolist()


def nested(depth):
    value = 0.5
    for _ in range(depth):
        value = [value]
    return value


# ---- REST: the forms of an answer ----

def test_single_output_goes_unnamed_in_both_formats(ask):
    _, rows = ask("POST", f"{PATH}:predict", {"instances": [SAMPLE_ROW, SAMPLE_ROW]})
    _, columns = ask("POST", f"{PATH}:predict", {"inputs": {"seed": [[1, 2]] * 2, "temperature": [1, 1]}})
    assert set(rows) == {"predictions"} and set(columns) == {"outputs"}
    assert rows["predictions"] == columns["outputs"]
    assert np.shape(rows["predictions"]) == (2, *toy_model.IMAGE_SHAPE)


def test_several_outputs_go_by_name(ask):
    row = {"images": images_rows(0)[0], "seed": [0, 0]}
    status, rows = ask("POST", f"{PATH}:predict", {"signature_name": "likelihood", "instances": [row]})
    assert status == 200 and set(rows["predictions"][0]) == {"log_prob", "bits_per_dim"}
    assert rows["predictions"][0]["bits_per_dim"] == pytest.approx(8.0)  # uniform pixels: 8 bits each, by definition
    assert rows["predictions"][0]["log_prob"] == pytest.approx(-48 * math.log(256.0))
    inputs = {"images": images_rows(0), "seed": [[0, 0]]}
    _, columns = ask("POST", f"{PATH}:predict", {"signature_name": "likelihood", "inputs": inputs})
    assert columns["outputs"] == {key: [value] for key, value in rows["predictions"][0].items()}


def test_signature_of_one_input_takes_bare_values(ask):
    latents = [0.2] * toy_model.NUM_PIXELS
    answers = [ask("POST", f"{PATH}:predict", {"signature_name": "decode", **body}) for body in (
        {"instances": [latents]}, {"instances": [{"latents": latents}]}, {"inputs": [latents]},
        {"inputs": {"latents": [latents]}})]
    assert [status for status, _ in answers] == [200] * 4
    values = [next(iter(answer.values())) for _, answer in answers]
    assert all(value == images_rows(51) for value in values)  # 0.2 * 255


def test_status_and_metadata_in_the_form_of_tf_serving(ask):
    expected = {"model_version_status": [
        {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}]}
    assert ask("GET", PATH) == ask("GET", f"{PATH}/versions/1") == (200, expected)
    status, answer = ask("GET", f"{PATH}/metadata")
    assert status == 200 and answer["model_spec"] == {"name": "toy", "version": "1", "signature_name": ""}
    seed = answer["metadata"]["signature_def"]["signature_def"]["sample"]["inputs"]["seed"]
    assert seed["dtype"] == "DT_INT32" and [dim["size"] for dim in seed["tensor_shape"]["dim"]] == ["-1", "2"]


# ---- REST: what is refused ----

@pytest.mark.parametrize("body, reason", [
    ("{", "JSON parse error"),
    (b"\xff\xfe{}", "JSON parse error"),
    ("[" * 100000, "JSON parse error"),
    ("[1]", "must be a JSON object"),
    ({}, "exactly one of"),
    ({"instances": [SAMPLE_ROW], "inputs": {}}, "exactly one of"),
    ({"instances": []}, "at least one row"),
    ({"instances": {"seed": 1}}, "at least one row"),
    ({"instances": [[1, 2]]}, "several inputs"),
    ({"instances": [SAMPLE_ROW, 3]}, "row 1"),
    ({"instances": [SAMPLE_ROW, {"seed": [1, 2]}]}, "row 1"),
    ({"instances": [SAMPLE_ROW, {"seed": [1], "temperature": 1}]}, "ragged"),
    ({"inputs": 3}, "must be an object"),
    ({"signature_name": 3, "inputs": {}}, "'signature_name' must be a string"),
    ({"instances": [SAMPLE_ROW | {"seed": [1, 2, 3]}]}, "'seed' has shape [1, 3], the signature declares [?, 2]"),
    ({"instances": [SAMPLE_ROW | {"seed": [1, True]}]}, "int32"),
    ({"instances": [SAMPLE_ROW | {"seed": [1, 2.0]}]}, "int32"),
    ({"instances": [SAMPLE_ROW | {"seed": [1, 2**31]}]}, "2147483648"),
    ({"instances": [SAMPLE_ROW | {"temperature": "1"}]}, "float32"),
    ({"instances": [SAMPLE_ROW | {"temperature": {"b64": "AAAA"}}]}, "float32"),
    ({"instances": [SAMPLE_ROW | {"temperature": None}]}, "float32"),
    ({"instances": [SAMPLE_ROW | {"temperature": 1e300}]}, "too large for float32"),
    ({"instances": [SAMPLE_ROW | {"temperature": 10**400}]}, "too large for float32"),
    ({"signature_name": "encode", "inputs": {"images": images_rows(256), "seed": [[0, 0]]}}, "256"),
    ({"signature_name": "encode", "inputs": {"images": images_rows(-1), "seed": [[0, 0]]}}, "-1"),
    ({"signature_name": "encode", "inputs": {"images": images_rows(1.5), "seed": [[0, 0]]}}, "1.5"),
    *(({"signature_name": "decode", "inputs": nested(depth)}, reason) for depth, reason in (
        (63, "'latents' has shape"), (64, "'latents' has shape"), (65, "more than 64 lists"), (900, "more than 64 lists"))),
    ({"signature_name": "decode", "inputs": [[float("nan")] * toy_model.NUM_PIXELS]}, "latents must be finite"),
])
def test_bad_body_is_400_with_one_line(ask, body, reason):
    status, answer = ask("POST", f"{PATH}:predict", body)
    assert status == 400 and set(answer) == {"error"}
    assert reason in answer["error"] and "\n" not in answer["error"] and len(answer["error"]) < 700
    assert ask("POST", f"{PATH}:predict", {"instances": [SAMPLE_ROW]})[0] == 200


@pytest.mark.parametrize("method, path, status", [
    ("GET", f"{PATH}:predict", 400),  # TF Serving: "Malformed request", not 405
    ("POST", PATH, 400),
    ("PUT", PATH, 400),
    ("DELETE", f"{PATH}:predict", 400),
    ("GET", "/v1/models", 400),
    ("POST", f"{PATH}:forget", 400),
    ("GET", f"{PATH}/versions/one", 400),
    ("GET", f"{PATH}/versions/{2**63}", 400),
    ("GET", f"{PATH}/versions/{'9' * 5000}", 400),
    ("GET", f"{PATH}/versions/{'0' * 5000}2", 404),
    ("OPTIONS", f"{PATH}:predict", 400),
    ("GET", f"{PATH}/labels/stable", 400),
    ("GET", f"{PATH}/versions/2", 404),
    ("POST", f"{PATH}/versions/2:predict", 404),
    ("GET", "/v1/models/toys", 404),
    ("GET", "/", 404),
    ("POST", f"{PATH}:classify", 501),
    ("POST", f"{PATH}:regress", 501),
])
def test_codes_of_paths(ask, method, path, status):
    received, answer = ask(method, path, {"inputs": {}} if method == "POST" else None)
    assert received == status and set(answer) == {"error"}


def test_path_is_read_as_tf_serving_reads_it(ask):
    for path in (PATH.upper().replace("TOY", "toy"), f"{PATH}?query=1", "/v1/models/%74oy", f"http://a.proxy:8{PATH}",
                 f"{PATH}/versions/{'0' * 5000}1"):
        assert ask("GET", path)[0] == 200


@pytest.mark.parametrize("headers", [{"Content-Length": "3000000000"}, {"Content-Length": "-5"}, {"Content-Length": "9" * 5000},
                                     {"Content-Length": "many"}, {"Content-Length": "3000000000", "Expect": "100-continue"}])
def test_body_that_is_too_large_or_of_unknown_size_is_refused_unread(toy_server, headers):
    connection = http.client.HTTPConnection("127.0.0.1", toy_server.rest_port, timeout=30)
    connection.putrequest("POST", f"{PATH}:predict")
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 400 and "error" in json.loads(response.read())
    connection.close()


HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("request_", [
    b"\x16\x03\x01 not http\r\n\r\n",
    b"GET http://[ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"GET * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"GET %s HTTP/1.1\r\n\r\n" % PATH.encode(),  # no Host
    # What two servers in a row could read as different requests:
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: %d\r\n\r\n%s" % (len(HIDDEN), HIDDEN),
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0, %d\r\n\r\n%s" % (len(HIDDEN), HIDDEN),
    b"POST / HTTP/1.1\r\nHost: x\r\nbad line\r\nContent-Length: %d\r\n\r\n%s" % (len(HIDDEN), HIDDEN),
    b"POST / HTTP/1.1\r\nHost: x\r\nBad : 1\r\nContent-Length: %d\r\n\r\n%s" % (len(HIDDEN), HIDDEN),
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +%d\r\n\r\n%s" % (len(HIDDEN), HIDDEN),
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + HIDDEN,
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy0\r\n\r\n" + HIDDEN,
], ids=["tls", "address", "asterisk", "no-host", "two", "list", "line", "name", "sign", "both", "encoding", "chunk"])
def test_what_is_no_request_is_answered_once_and_then_the_connection_ends(toy_server, request_):
    with socket.create_connection(("127.0.0.1", toy_server.rest_port), timeout=60) as connection:
        connection.sendall(request_)
        with connection.makefile("rb") as answer:
            head, _, content = answer.read().partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 4", b"HTTP/1.1 501"))
    assert set(json.loads(content)) == {"error"}, "more than one answer"  # a second request would be a smuggled one


def test_a_client_that_hangs_up_does_no_harm(toy_server, ask):
    with socket.create_connection(("127.0.0.1", toy_server.rest_port), timeout=30) as connection:
        connection.sendall(b"POST /v1/models/toy:predict HTTP/1.1\r\nContent-Length: 100\r\n\r\n{")  # and hangs up
    assert ask("GET", PATH)[0] == 200
    assert "Traceback" not in toy_server.log


# ---- gRPC ----

def test_response_says_who_answered(stub):
    response = stub.Predict(sample_request(), timeout=30)
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("toy", 1, "serving_default")
    assert tf.make_ndarray(response.outputs["images"]).shape == (2, *toy_model.IMAGE_SHAPE)


def test_outputs_are_in_typed_fields_unless_the_call_asks_otherwise(stub):
    request = likelihood_request(3)
    expected = [-48 * math.log(256.0)] * 3
    typed = stub.Predict(request, timeout=30).outputs["log_prob"]
    assert list(typed.float_val) == pytest.approx(expected) and not typed.tensor_content
    content = stub.Predict(request, timeout=30, metadata=[TENSOR_CONTENT_METADATA]).outputs["log_prob"]
    assert np.frombuffer(content.tensor_content, np.float32).tolist() == list(typed.float_val) and not content.float_val


def likelihood_request(num_rows):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "toy", "likelihood"
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(np.zeros([num_rows, *toy_model.IMAGE_SHAPE], np.uint8)))
    request.inputs["seed"].CopyFrom(tf.make_tensor_proto(np.zeros([num_rows, 2], np.int32)))
    return request


def test_output_filter(stub):
    request = likelihood_request(1)
    assert set(stub.Predict(request, timeout=30).outputs) == {"log_prob", "bits_per_dim"}
    request.output_filter.append("log_prob")
    assert set(stub.Predict(request, timeout=30).outputs) == {"log_prob"}
    for wrong in ("log_prob", "nonsense"):  # twice the same, then an unknown one
        request.output_filter[:] = ["log_prob", wrong]
        refused(stub.Predict, request, "INVALID_ARGUMENT", wrong)


def refused(method, request, code, reason):
    with pytest.raises(grpc.RpcError) as caught:
        method(request, timeout=30)
    assert caught.value.code().name == code
    assert reason in caught.value.details() and "\n" not in caught.value.details()


def test_apis_of_examples_are_unimplemented(stub):
    refused(stub.Classify, classification_pb2.ClassificationRequest(), "UNIMPLEMENTED", "use Predict")
    refused(stub.Regress, regression_pb2.RegressionRequest(), "UNIMPLEMENTED", "use Predict")
    refused(stub.MultiInference, inference_pb2.MultiInferenceRequest(), "UNIMPLEMENTED", "use Predict")


def _spoil(field, **values):
    request = sample_request()
    proto = request.inputs[field]
    for key, value in values.items():
        if key == "sizes":
            for size in value:
                proto.tensor_shape.dim.add(size=size)
        else:
            setattr(proto, key, value)
    return request


@pytest.mark.parametrize("request_, code, reason", [
    (predict_pb2.PredictRequest(), "INVALID_ARGUMENT", "name"),
    (_spoil("seed", tensor_content=b"abc"), "INVALID_ARGUMENT", "'seed'"),
    (_spoil("seed", dtype=0), "INVALID_ARGUMENT", "'seed'"),
    (_spoil("seed", sizes=[-1]), "INVALID_ARGUMENT", "'seed'"),
    (_spoil("seed", sizes=[2**40, 2**40]), "INVALID_ARGUMENT", "'seed'"),  # a few bytes that claim to be terabytes
    (_spoil("heat", dtype=1), "INVALID_ARGUMENT", "heat"),
])
def test_malformed_protobuf_is_refused(stub, request_, code, reason):
    refused(stub.Predict, request_, code, reason)
    assert stub.Predict(sample_request(), timeout=30).outputs


def test_oversize_message_is_refused_by_the_limit_that_was_asked_for(stub):
    request = sample_request()
    request.inputs["seed"].tensor_content = b"\0" * (17 * 2**20)
    refused(stub.Predict, request, "RESOURCE_EXHAUSTED", "larger than max")
    request.inputs["seed"].tensor_content = b"\0" * (15 * 2**20)
    refused(stub.Predict, request, "INVALID_ARGUMENT", "'seed'")
    assert stub.Predict(sample_request(), timeout=30).outputs


# ---- metrics and warm-up ----

def test_prometheus_page_counts_requests(toy_server, ask, stub):
    def page():
        connection = http.client.HTTPConnection("127.0.0.1", toy_server.rest_port, timeout=30)
        connection.request("GET", "/metrics/here")
        response = connection.getresponse()
        assert response.status == 200 and response.headers["Content-Type"].startswith("text/plain")
        samples = dict(line.rsplit(" ", 1) for line in response.read().decode().splitlines() if line[0] != "#")
        connection.close()
        return {name: float(value) for name, value in samples.items()}

    before = page()
    for body in ({"instances": [SAMPLE_ROW]}, {"instances": [SAMPLE_ROW]}, {}):
        ask("POST", f"{PATH}:predict", body)
    ask("GET", "/v1/models/invented")
    stub.Predict(sample_request(), timeout=30)
    after = page()

    def increase(name):
        return after.get(name, 0) - before.get(name, 0)

    assert increase(':tensorflow:serving:request_count{model_name="toy",status="OK"}') == 3
    assert increase(':tensorflow:serving:request_count{model_name="toy",status="INVALID_ARGUMENT"}') == 1
    # TF Serving's labels; by REST it writes "predict", and only requests that succeed have a latency.
    for metric, labels, count in (
        ("request", 'API="predict",entrypoint="REST"', 2),
        ("request", 'API="Predict",entrypoint="GRPC"', 1),
        ("runtime", 'API="Predict",runtime="TF1"', 3),
    ):
        name, labels = f":tensorflow:serving:{metric}_latency", f'model_name="toy",{labels}'
        assert increase(f"{name}_count{{{labels}}}") == count
        assert increase(f'{name}_bucket{{{labels},le="+Inf"}}') == count
    assert not any("invented" in name for name in after)


def test_prometheus_escapes_names_of_models():
    metrics = RequestMetrics()
    metrics.record('a"b\\c', "Predict", "GRPC", "OK", 0.1)
    metrics.record_runtime('a"b\\c', "Predict", 0.1)
    labels = re.findall(r'model_name="((?:[^"\\]|\\.)*)",', metrics.page())
    assert set(labels) == {r'a\"b\\c'} and len(labels) == metrics.page().count("model_name")


def test_warm_up_is_replayed_and_a_bad_record_only_warns(toy_server):
    assert "warm-up of" in toy_server.log and "stopped after 2 requests" in toy_server.log
    assert "version 1 is available (2 warm-up requests)" in toy_server.log
