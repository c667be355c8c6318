"""TensorProtos of requests and answers: what is refused before it is filled, and the fields that TF Serving fills."""

import tracemalloc

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from tfcq.serving.server.errors import RequestError
from tfcq.serving.server.tensor_protos import MAX_REPEATED_BYTES, to_arrays, to_proto

SPECS = {"row": tf.TensorSpec([None], tf.int32), "text": tf.TensorSpec([None], tf.string)}
GOOD = {"row": tf.make_tensor_proto([1, 2]), "text": tf.make_tensor_proto([b"a", b"b"])}


def proto_of(dtype, *sizes, **fields):
    return tensor_pb2.TensorProto(dtype=dtype, tensor_shape={"dim": [{"size": size} for size in sizes]}, **fields)


@pytest.mark.parametrize("inputs, reason", [
    (GOOD | {"zzz": proto_of(3, 2**29 - 1, int_val=[0])}, "unknown [zzz]"),
    (GOOD | {"row": proto_of(3, 2**29 - 1, int_val=[0])}, "must have all its values"),
    (GOOD | {"row": proto_of(3, 2**29 - 1, tensor_content=b"abcd")}, "must have all its values"),
    (GOOD | {"row": proto_of(1, 2**29 - 1, float_val=[0])}, "float32"),
    (GOOD | {"row": proto_of(3, 2**28, 2, int_val=[0])}, "the signature declares [?]"),
    (GOOD | {"row": proto_of(3, 2**62, 2**62, int_val=[0])}, "the signature declares [?]"),
    (GOOD | {"row": proto_of(3, -1, int_val=[0])}, "not fully known"),
    (GOOD | {"row": proto_of(3, 3, tensor_content=b"abc")}, "malformed"),
    (GOOD | {"text": proto_of(7, 2**27, string_val=[b"a"])}, "must have all its values"),
    *((GOOD | {"row": proto_of(number, 1, int_val=[0])}, "'row' has")
      for number in (0, 2, 20, 21, 22, 31, 101, 103, 120, 121, 999)),
])
def test_what_does_not_fit_the_signature_is_refused_before_it_is_filled(inputs, reason):
    tracemalloc.start()
    try:
        with pytest.raises(RequestError) as caught:
            to_arrays(inputs, SPECS)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert caught.value.code == "INVALID_ARGUMENT" and reason in caught.value.reason


def test_a_value_may_be_repeated_in_a_small_tensor_and_a_large_one_has_all_values():
    specs = {"row": SPECS["row"]}
    np.testing.assert_array_equal(to_arrays({"row": proto_of(3, 5, int_val=[1, 7])}, specs)["row"], [1, 7, 7, 7, 7])
    large = np.arange(MAX_REPEATED_BYTES // 4 + 1, dtype=np.int32)
    np.testing.assert_array_equal(to_arrays({"row": tf.make_tensor_proto(large)}, specs)["row"], large)


FIELDS = {"float32": "float_val", "float64": "double_val", "int8": "int_val", "int16": "int_val", "int32": "int_val",
          "int64": "int64_val", "uint8": "int_val", "uint16": "int_val", "uint32": "uint32_val", "uint64": "uint64_val",
          "bool": "bool_val"}


@pytest.mark.parametrize("dtype", FIELDS)
@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (2, 150)])
def test_outputs_are_in_the_field_of_their_dtype(dtype, shape):
    limits = None if dtype == "bool" else np.iinfo(dtype) if "int" in dtype else np.finfo(dtype)
    values = [False, True] if limits is None else [limits.min, limits.max, 0, 1, 127]
    array = np.resize(np.array(values, dtype), shape)
    proto = to_proto(array)
    assert proto.dtype == tf.as_dtype(dtype).as_datatype_enum and not proto.tensor_content
    assert list(getattr(proto, FIELDS[dtype])) == array.ravel().tolist()
    np.testing.assert_array_equal(tf.make_ndarray(proto), array, strict=True)
    asked = to_proto(array, as_content=True)
    assert tf.make_ndarray(asked).shape == shape
    assert asked.tensor_content == array.tobytes()


@pytest.mark.parametrize("array", [
    np.array([1.5, -2], np.float16), np.array([1.5, -2], tf.bfloat16.as_numpy_dtype), np.array([1 + 2j], np.complex64),
    np.array([[b"a", b"\xff"]], object),
], ids=lambda array: str(array.dtype))
def test_other_dtypes_go_both_ways(array):
    np.testing.assert_array_equal(tf.make_ndarray(to_proto(array)), array, strict=True)
