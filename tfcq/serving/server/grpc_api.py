"""What TF Serving's gRPC services answer, PredictionService and ModelService, over a `ModelManager`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_management_pb2, predict_pb2

from .errors import RequestError, invalid
from .servable import DEFAULT_SIGNATURE
from .tensor_protos import to_arrays, to_proto

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from .manager import ModelManager
    from .monitoring import RequestMetrics

SIGNATURE_FIELD = "signature_def"
EXAMPLES_ONLY = "{} works on tf.Example records; these models take tensors by name: use Predict"

# A request with this metadata gets its outputs as `tensor_content`, which is faster than the typed fields (`float_val`, ...);
# TF Serving ignores it, and fills those fields.
TENSOR_CONTENT_METADATA = ("tfcq-tensor-content", "true")


def metadata(
    manager: ModelManager, request: get_model_metadata_pb2.GetModelMetadataRequest
) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """The `GetModelMetadataResponse` to a request; REST answers with the same message.

    Raises:
        RequestError: INVALID_ARGUMENT unless `metadata_field` is "signature_def"; what `ModelManager.find` raises.
    """
    fields = set(request.metadata_field)
    if fields != {SIGNATURE_FIELD}:
        raise invalid(f"metadata_field must be [{SIGNATURE_FIELD!r}], received {sorted(fields)}")
    version, servable = manager.find(request.model_spec)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, signature in servable.signature_defs.items():
        signatures.signature_def[name].CopyFrom(signature)
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = request.model_spec.name
    response.model_spec.version.value = version
    response.metadata[SIGNATURE_FIELD].Pack(signatures)
    return response


class CallOptions(NamedTuple):
    """What a gRPC call says beside its message."""

    deadline: float | None  # seconds of time.monotonic()
    tensor_content: bool  # whether it has TENSOR_CONTENT_METADATA


class PredictionService:
    """Predict and GetModelMetadata; methods that need tf.Example are UNIMPLEMENTED. All raise `RequestError`.

    Args:
        manager: the `ModelManager`.
        metrics: the `RequestMetrics`; runs of models that succeed are recorded in it.
    """

    def __init__(self, manager: ModelManager, metrics: RequestMetrics) -> None:
        self._manager, self._metrics = manager, metrics

    def Predict(self, request: predict_pb2.PredictRequest, options: CallOptions) -> predict_pb2.PredictResponse:
        version, servable = self._manager.find(request.model_spec)
        signature_name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        inputs = to_arrays(request.inputs, servable.input_specs(signature_name))
        start = time.monotonic()
        outputs = servable.predict(signature_name, inputs, request.output_filter, options.deadline)
        self._metrics.record_runtime(request.model_spec.name, "Predict", time.monotonic() - start)
        response = predict_pb2.PredictResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = version
        response.model_spec.signature_name = signature_name
        for name, array in outputs.items():
            response.outputs[name].CopyFrom(to_proto(array, options.tensor_content))
        return response

    def GetModelMetadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, options: CallOptions
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        return metadata(self._manager, request)

    def Classify(self, request: Message, options: CallOptions) -> Message:
        raise RequestError("UNIMPLEMENTED", EXAMPLES_ONLY.format("Classify"))

    def Regress(self, request: Message, options: CallOptions) -> Message:
        raise RequestError("UNIMPLEMENTED", EXAMPLES_ONLY.format("Regress"))

    def MultiInference(self, request: Message, options: CallOptions) -> Message:
        raise RequestError("UNIMPLEMENTED", EXAMPLES_ONLY.format("MultiInference"))


class ModelService:
    """GetModelStatus and HandleReloadConfigRequest. Both raise `RequestError`.

    Args:
        manager: the `ModelManager`.
    """

    def __init__(self, manager: ModelManager) -> None:
        self._manager = manager

    def GetModelStatus(
        self, request: get_model_status_pb2.GetModelStatusRequest, options: CallOptions
    ) -> get_model_status_pb2.GetModelStatusResponse:
        return self._manager.status(request.model_spec)

    def HandleReloadConfigRequest(
        self, request: model_management_pb2.ReloadConfigRequest, options: CallOptions
    ) -> model_management_pb2.ReloadConfigResponse:
        self._manager.configure(request.config)
        return model_management_pb2.ReloadConfigResponse(status={})
