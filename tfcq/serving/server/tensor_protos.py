"""`TensorProto` to NumPy arrays, checked before anything is filled, and back, into the fields that TF Serving fills."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from .errors import invalid

# A tensor may repeat its last value: 40 bytes can ask for gigabytes. Beyond this size all values must be sent.
MAX_REPEATED_BYTES = 2**24

_POINTER_BYTES = 8  # strings are an array of Python objects

# The field of `TensorProto` that TensorFlow fills for a dtype (tensor.proto); the others are serialised as `tensor_content`.
_FIELDS = {
    "float16": "half_val", "bfloat16": "half_val", "float32": "float_val", "float64": "double_val",
    "int8": "int_val", "int16": "int_val", "int32": "int_val", "uint8": "int_val", "uint16": "int_val",
    "int64": "int64_val", "uint32": "uint32_val", "uint64": "uint64_val", "bool": "bool_val",
    "complex64": "scomplex_val", "complex128": "dcomplex_val", "string": "string_val",
}
_PACKED_FIELDS = ("float_val", "double_val", "scomplex_val", "dcomplex_val")


def to_arrays(
    protos: Mapping[str, tensor_pb2.TensorProto], specs: Mapping[str, tf.TensorSpec]
) -> dict[str, np.ndarray]:
    """The inputs of a request as NumPy arrays.

    Args:
        protos: {input name: TensorProto}.
        specs: {input name: tf.TensorSpec} of the signature.

    Returns:
        {input name: array} with the declared dtypes and shapes.

    Raises:
        RequestError: INVALID_ARGUMENT, naming the input, for names, dtypes or shapes that are not the signature's, and for a
            tensor whose shape and content do not fit each other. Nothing is filled before all of them are checked.
    """
    check_names(specs, protos)
    for name, spec in specs.items():
        check_tensor(name, _dtype(name, protos[name]), _sizes(name, protos[name]), spec)
        _check_content(name, protos[name], specs[name].dtype)
    return {name: _filled(name, protos[name]) for name in specs}


def to_proto(array: np.ndarray, as_content: bool = False) -> tensor_pb2.TensorProto:
    """An array as a `TensorProto`.

    Args:
        array: numbers, booleans, or strings as an array of bytes objects.
        as_content: fill `tensor_content`, which is the faster way for both sides, rather than the field of the dtype
            (`float_val`, `int_val`, ...), which TF Serving fills.
    """
    dtype = tf.as_dtype(array.dtype)
    field = _FIELDS.get(dtype.name)
    proto = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum)
    proto.tensor_shape.SetInParent()
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if field is None or (as_content and dtype != tf.string):
        proto.tensor_content = array.tobytes()
    elif field in _PACKED_FIELDS and array.size:
        # A packed field is the bytes of its values; appending them one by one takes four times as long.
        packed = array.astype(array.dtype.newbyteorder("<")).tobytes()
        proto.MergeFromString(_varint(proto.DESCRIPTOR.fields_by_name[field].number << 3 | 2) + _varint(len(packed)) + packed)
    else:
        getattr(proto, field).extend((array.view(np.uint16) if field == "half_val" else array).ravel().tolist())
    return proto


def check_names(specs: Mapping[str, tf.TensorSpec], names: Mapping[str, object]) -> None:
    """Raises RequestError: INVALID_ARGUMENT unless the names are those of the signature's inputs."""
    missing, extra = sorted(set(specs) - set(names)), sorted(set(names) - set(specs))
    if missing or extra:
        raise invalid(f"inputs do not match the signature: missing [{', '.join(missing)}],"
                      f" unknown [{', '.join(extra)}]; expected [{', '.join(sorted(specs))}]")


def check_tensor(name: str, dtype: tf.DType, sizes: tuple[int, ...], spec: tf.TensorSpec) -> None:
    """Raises RequestError: INVALID_ARGUMENT unless an input has the declared dtype and a shape that the signature allows."""
    if dtype != spec.dtype:
        raise invalid(f"input {name!r} has dtype {dtype.name}, the signature declares {spec.dtype.name}")
    if not spec.shape.is_compatible_with(sizes):
        raise invalid(f"input {name!r} has shape {list(sizes)}, the signature declares {_shape_text(spec.shape)}")


def _dtype(name, proto):
    try:
        return tf.as_dtype(proto.dtype)
    except TypeError as error:
        raise invalid(f"input {name!r} has the dtype number {proto.dtype}, which TensorFlow does not know") from error


def _sizes(name, proto):
    sizes = tuple(dimension.size for dimension in proto.tensor_shape.dim)
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in sizes):
        raise invalid(f"input {name!r} is malformed: its shape {list(sizes)} is not fully known")
    return sizes


def _check_content(name, proto, dtype):
    """Refuses a tensor whose shape asks for more than its values give, unless it is small."""
    sizes = _sizes(name, proto)
    value_bytes = _POINTER_BYTES if dtype == tf.string else max(dtype.size or 1, 1)
    num_bytes = math.prod(sizes) * value_bytes  # Python's integers: the product of a hostile shape must not wrap around
    if num_bytes <= MAX_REPEATED_BYTES:
        return
    if proto.tensor_content:
        sent = len(proto.tensor_content)
    else:
        values = len(getattr(proto, _FIELDS[dtype.name])) if dtype.name in _FIELDS else 0
        sent = value_bytes * values // (2 if dtype.is_complex else 1)
    if sent < num_bytes:
        raise invalid(f"input {name!r} is malformed: its shape {list(sizes)} needs {num_bytes} bytes, but it has values of"
                      f" {sent} bytes; a tensor of more than {MAX_REPEATED_BYTES} bytes must have all its values")


def _filled(name, proto):
    try:
        return tf.make_ndarray(proto)
    except (ValueError, TypeError, OverflowError) as error:
        raise invalid(f"input {name!r} is malformed: {error}") from error


def _shape_text(shape):
    if shape.rank is None:
        return "any shape"
    return "[" + ", ".join("?" if size is None else str(size) for size in shape.as_list()) + "]"


def _varint(number):
    """Protobuf's encoding of an integer: 7 bits a byte, lowest first; the top bit says that another byte follows."""
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes([*encoded, number])
