"""Requests and answers of TF Serving's gRPC services as bytes; sends nothing (`tfcq.serving.client.transports` does).

Needs protobuf alone, and is imported when the first client by gRPC is made.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np
from google.protobuf.message import DecodeError

from tfcq.serving.client.answers import DTYPE_NAMES, DTYPES, Expected, Request, ServerError
from tfcq.serving.client.grpc_messages import MESSAGES, STATES
from tfcq.serving.client.targets import Target

_PREDICTION, _MODELS = "/tensorflow.serving.PredictionService", "/tensorflow.serving.ModelService"
_NUMBERS = {np.dtype(dtype): number for number, (_, dtype) in DTYPES.items()}

# The typed field of each type. TF Serving fills these, unless asked for tensor_content.
_TYPED_FIELDS = {
    "float32": "float_val",
    "float64": "double_val",
    "int64": "int64_val",
    "bool": "bool_val",
    "float16": "half_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    "object": "string_val",
}
_OTHER_INTEGERS = "int_val"


class GrpcProtocol:
    """Requests to one model, and the reading of their answers, which are bytes."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.address = f"{target.address} model {target.model!r}"

    def predict(self, version: int, signature: str, inputs: Mapping[str, np.ndarray], expected: Expected) -> Request:
        """A Predict of `version`; read as {output name: array}."""
        request = MESSAGES["PredictRequest"](
            output_filter=expected.names if len(expected.names) < len(expected.specs) else ()
        )
        self._address_to(request.model_spec, version)
        request.model_spec.signature_name = signature
        for name, array in inputs.items():
            _fill(request.inputs.add(key=name).value, array)

        def read(response):
            answered = response.model_spec.version.value
            if answered not in (0, version):
                raise ValueError(f"version {answered} answered where {version} was asked")
            return expected.checked(
                {
                    entry.key: _array(entry.key, entry.value, expected)
                    for entry in response.outputs
                    if entry.key in expected.specs
                }
            )

        return self._request(f"{_PREDICTION}/Predict", request, "PredictResponse", read)

    def metadata(self) -> Request:
        """A GetModelMetadata, read as `Client.metadata` returns it."""
        request = MESSAGES["GetModelMetadataRequest"](metadata_field=["signature_def"])
        self._address_to(request.model_spec)

        def read(response):
            packed = {entry.key: entry.value for entry in response.metadata}["signature_def"]
            signatures = MESSAGES["SignatureDefMap"].FromString(packed.value)
            return {
                "name": response.model_spec.name,
                "version": response.model_spec.version.value,
                # Names with two underscores are the SavedModel's own, such as __saved_model_init_op.
                "signatures": {
                    entry.key: {"inputs": _infos(entry.value.inputs), "outputs": _infos(entry.value.outputs)}
                    for entry in sorted(signatures.signature_def, key=lambda entry: entry.key)
                    if not entry.key.startswith("__")
                },
            }

        return self._request(f"{_PREDICTION}/GetModelMetadata", request, "GetModelMetadataResponse", read)

    def status(self) -> Request:
        """A GetModelStatus, read as `Client.status` returns it."""
        request = MESSAGES["GetModelStatusRequest"]()
        self._address_to(request.model_spec)

        def read(response):
            return {
                entry.version: {"state": STATES.get(entry.state, str(entry.state)), "error": entry.status.error_message}
                for entry in response.model_version_status
            }

        return self._request(f"{_MODELS}/GetModelStatus", request, "GetModelStatusResponse", read)

    def failed(self, code: str, reason: str, through: str) -> ServerError:
        """The error of a call that ended with this status.

        Args:
            code: the name of the status.
            reason: what came with it.
            through: text that names the proxy, if one was asked.
        """
        if code == "UNAVAILABLE":
            reason = _explained(reason, self._target.tls)
        if code in ("UNAVAILABLE", "UNKNOWN", "DEADLINE_EXCEEDED"):  # TF Serving itself rarely uses them for a request
            reason += through
        return ServerError(self.address, code, reason, passing=code == "UNAVAILABLE")

    def _address_to(self, spec, version=None):
        target = self._target
        spec.name = target.model
        if version is not None or target.version is not None:
            spec.version.value = target.version if version is None else version
        elif target.label is not None:
            spec.version_label = target.label

    def _request(self, method, message, answer, read):
        def read_bytes(content):
            try:
                return read(MESSAGES[answer].FromString(content))
            except (DecodeError, ValueError, LookupError, TypeError) as error:
                reason = f"{error!r} is not in the answer" if isinstance(error, LookupError) else str(error)
                raise ServerError(
                    self.address, "INTERNAL", f"the answer is not what was asked for: {reason}"
                ) from error

        return Request(method, message.SerializeToString(), read_bytes)


def _infos(entries):
    return {entry.key: _info(entry.value) for entry in sorted(entries, key=lambda entry: entry.key)}


def _info(info):
    name = DTYPES[info.dtype][0] if info.dtype in DTYPES else f"DataType {info.dtype}"
    shape = (
        None
        if info.tensor_shape.unknown_rank
        else [None if one.size < 0 else one.size for one in info.tensor_shape.dim]
    )
    return {"dtype": DTYPE_NAMES.get(name, name), "shape": shape}


def _fill(proto, array):
    """Puts an array into a TensorProto."""
    proto.dtype = _NUMBERS[array.dtype]
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if array.dtype.kind == "O":
        proto.string_val.extend(array.ravel().tolist())
    else:
        little_endian = array.dtype.newbyteorder("<")
        proto.tensor_content = np.ascontiguousarray(array, little_endian).tobytes()


def _array(name, proto, expected):
    """The array of a TensorProto; its shape is checked before anything of that size is made.

    Raises:
        ValueError: another type or shape than declared, or as many values as do not fit the shape.
    """
    if proto.dtype not in DTYPES:
        raise ValueError(f"output {name!r} is of DataType {proto.dtype}, which this client does not know")
    dtype = np.dtype(DTYPES[proto.dtype][1])
    shape = tuple(one.size for one in proto.tensor_shape.dim)
    expected.check_shape(name, shape)
    size = math.prod(shape)
    if proto.tensor_content:
        if len(proto.tensor_content) != size * dtype.itemsize or dtype.kind == "O":
            raise ValueError(f"output {name!r} has {len(proto.tensor_content)} bytes for {dtype.name} {list(shape)}")
        return np.frombuffer(proto.tensor_content, dtype.newbyteorder("<")).astype(dtype).reshape(shape)
    values = getattr(proto, _TYPED_FIELDS.get(dtype.name, _OTHER_INTEGERS))
    if len(values) > size or (size and not values):
        raise ValueError(f"output {name!r} has {len(values)} values for the shape {list(shape)}")
    if dtype == np.float16:  # as the numbers of their bits
        array = np.array(values, np.uint16).view(np.float16)
    else:
        array = np.array(values, dtype)
    if len(array) < size:  # a TensorProto leaves out what repeats its last value
        array = np.concatenate([array, np.full(size - len(array), array[-1], dtype)])
    return array.reshape(shape)


def _explained(reason, tls):
    """What gRPC says of a server that it does not reach, with the likely cause; any other reason as it is."""
    if not reason.startswith("failed to connect to all addresses"):
        return reason
    certificate = re.search(r"CERTIFICATE_VERIFY_FAILED: (.*?)(?:: OK)?$", reason)
    if certificate:
        return f"its certificate is not one to trust ({certificate.group(1)}); ca_file names who signed it"
    last = re.sub(r"^[A-Z_]+: ", "", reason.partition("last error: ")[2]) or reason
    if "Failed parsing HTTP/2" in reason:
        return f"what answers there does not speak gRPC ({last}); is it the port of REST?"
    hint = ""
    if tls:  # where one address of the host has no server, and the handshake fails at the other, gRPC may name either
        hint = "; does it speak TLS? Without tls=True and ca_file it is asked without"
    elif "Socket closed" in reason:
        hint = "; does it expect TLS (tls=True)?"
    return f"no server answers there ({last}){hint}"
