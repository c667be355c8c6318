"""JSON to tensors and back, without a server: what the toy model's dtypes do not reach."""

import json
import math

import numpy as np
import orjson
import pytest
import tensorflow as tf

from tfcq.serving.server import json_tensors
from tfcq.serving.server.errors import RequestError, one_line


def read(value, dtype, request_format=json_tensors.COLUMNS):
    return json_tensors.to_arrays(request_format, {"x": value}, {"x": tf.TensorSpec(None, dtype)})["x"]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "int64", "uint64"])
def test_integers_reach_exactly_to_the_ends_of_their_dtype(dtype):
    ends = [int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)]
    array = read(ends, tf.as_dtype(dtype))
    assert array.dtype == dtype and array.tolist() == ends
    for beyond in (ends[0] - 1, ends[1] + 1):
        with pytest.raises(RequestError, match=str(beyond)):
            read([beyond], tf.as_dtype(dtype))


def test_floats_survive_the_way_there_and_back():
    values = np.random.default_rng(0).normal(size=1000) * 10.0 ** np.arange(-30, 20, 0.05)
    values = values.astype(np.float32)
    text = json_tensors.to_json(json_tensors.COLUMNS, {"x": values})
    np.testing.assert_array_equal(read(json.loads(text)["outputs"], tf.float32), values)


def test_floats_are_as_short_as_their_dtype_allows():
    assert json_tensors.to_json(json_tensors.COLUMNS, {"x": np.float32([0.2])}) == b'{"outputs":[0.2]}'


def test_not_a_number_and_infinity_are_bare_words_both_ways():
    text = json_tensors.to_json(json_tensors.COLUMNS, {"x": np.float32([np.nan, np.inf, -np.inf])})
    assert text == b'{"outputs":[NaN,Infinity,-Infinity]}'
    _, _, value = json_tensors.parse_request(b'{"inputs": [NaN, Infinity, -Infinity]}')
    array = read(value, tf.float32)
    assert math.isnan(array[0]) and array[1:].tolist() == [math.inf, -math.inf]


def test_strings_and_base64():
    array = read(["text", {"b64": "/w=="}], tf.string)
    assert array.tolist() == [b"text", b"\xff"]
    answer = json_tensors.to_json(json_tensors.COLUMNS, {"a": np.array([b"text"], object),
                                                         "a_bytes": np.array([b"\xff"], object)})
    assert json.loads(answer)["outputs"] == {"a": ["text"], "a_bytes": [{"b64": "/w=="}]}
    for wrong in ({"b64": "!"}, {"b64": 3}, {"base64": "AA=="}):
        with pytest.raises(RequestError, match="'x'"):
            read([wrong], tf.string)


def test_booleans_are_no_integers_and_integers_no_booleans():
    assert read([True, False], tf.bool).tolist() == [True, False]
    for value, dtype in (([1], tf.bool), ([True], tf.int32), ([True], tf.float32)):
        with pytest.raises(RequestError, match="'x'"):
            read(value, dtype)


@pytest.mark.parametrize("value", [[[1], [2, 3]], [[1], 2], [[[1]], [2]], [[], [1]]])
def test_ragged_lists_are_refused(value):
    with pytest.raises(RequestError, match="ragged"):
        read(value, tf.int32)


def test_shapes_are_those_of_the_lists():
    for value in (3, [], [[], []], [[1, 2, 3]], [[[1]], [[2]]]):
        assert read(value, tf.int32).shape == np.shape(value)


def test_rows_need_outputs_of_equal_length():
    with pytest.raises(RequestError, match="different numbers of rows"):
        json_tensors.to_json(json_tensors.ROWS, {"a": np.zeros(2), "b": np.zeros(3)})
    with pytest.raises(RequestError, match="scalar"):
        json_tensors.to_json(json_tensors.ROWS, {"a": np.float32(2)})


def test_dtype_without_a_form_in_json_says_so():
    with pytest.raises(RequestError) as caught:
        json_tensors.to_json(json_tensors.COLUMNS, {"a": np.zeros(2, np.complex64)})
    assert caught.value.code == "UNIMPLEMENTED" and caught.value.http_status == 501


def test_one_line_keeps_the_sentence_and_drops_the_stack():
    message = ("Graph execution error:\n\nDetected at node check/Assert defined at (most recent call last):\n"
               "<stack traces unavailable>\nassertion failed: [seed must be even] [Condition x == y] [x = ] [3]\n"
               "\t [[{{node check/Assert}}]] [Op:__inference_signature_wrapper_285]")
    assert one_line(message) == "assertion failed: seed must be even [Condition x == y] [x = ] [3]"
    size = "assertion failed: [images: expected height and width [8, 8], received] [9 7]"
    assert one_line(size) == "assertion failed: images: expected height and width [8, 8], received [9 7]"
    assert len(one_line("long " * 1000)) == 600


def test_errors_hold_nothing():
    """The parser's error holds its text, and an error's context or cause would hold the parser's error."""
    for body in (b" ", b"[" * 10000):
        with pytest.raises(RequestError) as caught:
            json_tensors.parse_request(body)
        assert caught.value.__context__ is caught.value.__cause__ is None


@pytest.mark.parametrize("shape", [(2, 3), (1, 1), (3, 2, 2, 1), (64, 4, 4, 3), (2, 0), (0, 3), (5,)], ids=str)
@pytest.mark.parametrize("request_format, key", [("instances", "predictions"), ("inputs", "outputs")])
def test_images_are_their_numbers(shape, request_format, key):
    images = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    images.flat[:3] = 0, 99, 255
    document = json_tensors.to_json(request_format, {"images": images})
    assert json.loads(document) == orjson.loads(document) == {key: images.tolist()}
    two = json.loads(json_tensors.to_json("inputs", {"images": images, "score": np.float32(0.1)}))
    assert two == {"outputs": {"images": images.tolist(), "score": 0.1}}
