"""The messages that the client declares are those of TF Serving."""

import pytest
from google.protobuf import any_pb2, wrappers_pb2
from google.protobuf.descriptor import FieldDescriptor

from tfcq.serving.client.grpc_messages import FIELDS, MESSAGES, STATES

ENTRIES = {"InputsEntry": ("PredictRequest", "inputs"), "OutputsEntry": ("PredictResponse", "outputs"),
           "MetadataEntry": ("GetModelMetadataResponse", "metadata"), "TensorInfoEntry": ("SignatureDef", "inputs"),
           "SignatureDefEntry": ("SignatureDefMap", "signature_def")}


def official(name):
    """TF Serving's descriptor of a message."""
    from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2
    from tensorflow.core.protobuf import meta_graph_pb2
    from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2, predict_pb2

    if name == "StatusProto":
        return official("ModelVersionStatus").fields_by_name["status"].message_type
    if name in ENTRIES:  # a map's entries are a message of its own
        message, field = ENTRIES[name]
        return official(message).fields_by_name[field].message_type
    if name == "Dim":
        return tensor_shape_pb2.TensorShapeProto.Dim.DESCRIPTOR
    modules = (tensor_pb2, tensor_shape_pb2, meta_graph_pb2, model_pb2, predict_pb2, get_model_metadata_pb2, get_model_status_pb2,
               any_pb2, wrappers_pb2)
    return next(getattr(module, name).DESCRIPTOR for module in modules if hasattr(module, name))


@pytest.mark.parametrize("name", FIELDS)
def test_fields_have_the_numbers_and_types_of_tf_serving(name):
    theirs = official(name).fields_by_name
    for field in MESSAGES[name].DESCRIPTOR.fields:
        other = theirs[field.name]
        kind = FieldDescriptor.TYPE_INT32 if other.type == FieldDescriptor.TYPE_ENUM else other.type
        assert (field.number, field.type, field.is_repeated) == (other.number, kind, other.is_repeated), field.name


def test_states_have_tf_servings_names():
    from tensorflow_serving.apis import get_model_status_pb2

    assert {number: name for name, number in get_model_status_pb2.ModelVersionStatus.State.items()} == STATES


def test_client_and_server_mean_the_same():
    """Neither may import the other: the client needs no TensorFlow, and the server none of tfcq's requirements."""
    from tfcq.serving.client import rest_protocol, transports
    from tfcq.serving.server import errors, grpc_api

    assert transports.TENSOR_CONTENT_METADATA == grpc_api.TENSOR_CONTENT_METADATA
    assert {code: errors.HTTP_STATUS[code] for code in rest_protocol._HTTP_CODES.values()} == {
        code: status for status, code in rest_protocol._HTTP_CODES.items()}
    assert set(errors.HTTP_STATUS.values()) - {200} == set(rest_protocol._HTTP_CODES)


def test_types_have_tensorflows_numbers():
    import numpy as np
    import tensorflow as tf
    from tensorflow.core.framework import types_pb2

    from tfcq.serving.client.answers import DTYPES

    for number, (name, dtype) in DTYPES.items():
        assert types_pb2.DataType.Name(number) == name
        assert np.dtype(tf.as_dtype(number).as_numpy_dtype) == np.dtype(dtype)


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "float16", "int8", "int32", "int64", "uint8", "uint32", "uint64", "bool", "object"])
@pytest.mark.parametrize("typed", [False, True])
def test_tensors_are_those_of_tensorflow(dtype, typed):
    """What the client fills is what TensorFlow reads, and the other way round, in both forms that a TensorProto has."""
    import numpy as np
    import tensorflow as tf
    from tensorflow.core.framework import tensor_pb2

    from tfcq.serving.client import grpc_protocol
    from tfcq.serving.client.answers import Expected

    array = np.arange(6).reshape(2, 3) % 2 if dtype == "bool" else np.arange(6).reshape(2, 3) * 20
    array = np.vectorize(lambda value: b"%d\0" % value, otypes=[object])(array) if dtype == "object" else array.astype(dtype)
    filled = MESSAGES["TensorProto"]()
    grpc_protocol._fill(filled, array)
    np.testing.assert_array_equal(tf.make_ndarray(tensor_pb2.TensorProto.FromString(filled.SerializeToString())), array)
    theirs = tf.make_tensor_proto(array.ravel().tolist() if typed else array, shape=array.shape, dtype=tf.as_dtype(array.dtype))
    if typed:
        theirs = typed_proto(theirs, array)
    expected = Expected({"x": {"dtype": dtype, "shape": [None, 3]}}, (), 2)
    read = grpc_protocol._array("x", MESSAGES["TensorProto"].FromString(theirs.SerializeToString()), expected)
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


def typed_proto(proto, array):
    """The same tensor in its typed field, by `Tensor::AsProtoField`'s table in tensor.proto."""
    import numpy as np

    fields = {"float32": "float_val", "float64": "double_val", "float16": "half_val", "int64": "int64_val", "bool": "bool_val",
              "uint32": "uint32_val", "uint64": "uint64_val", "object": "string_val"}
    proto.tensor_content = b""
    field = getattr(proto, fields.get(array.dtype.name, "int_val"))
    del field[:]
    field.extend((array.view(np.uint16) if array.dtype == np.float16 else array).ravel().tolist())
    return proto
