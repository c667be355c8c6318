"""The part of the contract (test_contract.py) that is about picture files, by requests as they travel, without the client."""

import base64
import io
import json
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image

from tfcq.serving.client.client import row_seeds

COUNT = 3
SEEDS, ONES = row_seeds(COUNT, 3), np.ones(COUNT, np.float32)


def ask_rest(endpoints, signature, inputs):
    """{output: list} of a request by columns, strings as bytes; TimeoutError and HTTPError as urllib has them."""
    columns = {name: [packed(item) for item in value] for name, value in inputs.items()}
    body = json.dumps({"signature_name": signature, "inputs": columns}).encode()
    request = urllib.request.Request(f"{endpoints.rest}/v1/models/{endpoints.model}:predict", body)
    with urllib.request.urlopen(request, timeout=120) as response:
        outputs = json.load(response)["outputs"]
    outputs = outputs if isinstance(outputs, dict) and "b64" not in outputs else {"": outputs}  # a single one has no name
    return {name: [unpacked(item) for item in value] for name, value in outputs.items()}


def packed(item):
    return {"b64": base64.b64encode(item).decode()} if isinstance(item, bytes) else item.tolist()


def unpacked(item):
    return base64.b64decode(item["b64"]) if isinstance(item, dict) else item


def ask_grpc(endpoints, signature, inputs):
    """{output: list} of a request; grpc.RpcError if it is refused."""
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = endpoints.model, signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    with grpc.insecure_channel(endpoints.grpc) as channel:
        response = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=120)
    return {name: list(tf.make_ndarray(proto)) for name, proto in response.outputs.items()}


@pytest.fixture(params=["grpc", "rest"])
def ask(request, endpoints):
    if not getattr(endpoints, request.param):
        pytest.skip(f"no address for {request.param}")
    function = {"grpc": ask_grpc, "rest": ask_rest}[request.param]
    return lambda signature, inputs: function(endpoints, signature, inputs)


def test_samples_as_png_are_the_samples(ask):
    images = next(iter(ask("sample", {"seed": SEEDS, "temperature": ONES}).values()))
    files = next(iter(ask("sample_png", {"seed": SEEDS, "temperature": ONES}).values()))
    assert all(file.startswith(b"\x89PNG") for file in files)
    for file, image in zip(files, images, strict=True):
        shape = np.shape(image)
        difference = np.asarray(Image.open(io.BytesIO(file))).reshape(shape).astype(int) - np.asarray(image).astype(int)
        assert np.abs(difference).max() <= 1


def test_a_likelihood_of_files_is_that_of_their_images(ask):
    files = next(iter(ask("sample_png", {"seed": SEEDS, "temperature": ONES}).values()))
    images = np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in files])
    images = images[..., None] if images.ndim == 3 else images
    expected = ask("likelihood", {"images": images, "seed": SEEDS})
    received = ask("likelihood_png", {"images_bytes": files, "seed": SEEDS})
    assert received.keys() == expected.keys() == {"log_prob", "bits_per_dim"}
    for name in expected:
        np.testing.assert_allclose(received[name], expected[name], rtol=1e-4)


def test_a_file_that_says_to_be_huge_is_refused_with_the_reason(ask):
    content = io.BytesIO()
    Image.new("RGB", (3, 50)).save(content, "PNG")
    huge = content.getvalue()[:16] + (10000).to_bytes(4, "big") * 2 + content.getvalue()[24:]  # width and height
    with pytest.raises(Exception) as caught:
        ask("likelihood_png", {"images_bytes": [huge] * COUNT, "seed": SEEDS})
    error = caught.value
    if isinstance(error, urllib.error.HTTPError):
        assert error.code == 400
        reason = json.load(error)["error"]
    else:
        assert error.code().name == "INVALID_ARGUMENT"
        reason = error.details()
    assert "images_bytes: expected at most 33554432 pixels" in reason and "[10000 10000]" in reason
