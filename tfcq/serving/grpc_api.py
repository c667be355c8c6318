"""TF Serving's gRPC services, PredictionService and ModelService, over a `ModelManager`."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, NoReturn

import grpc
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from .errors import CODE_NUMBER, RequestError, as_request_error, invalid
from .servable import DEFAULT_SIGNATURE, to_array

if TYPE_CHECKING:
    from tensorflow_serving.apis import get_model_status_pb2

    from .manager import ModelManager
    from .monitoring import RequestMetrics

SIGNATURE_FIELD = "signature_def"
EXAMPLES_ONLY = "{} works on tf.Example records; these models take tensors by name: use Predict"


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


def _answered(method):
    """Turns every exception of a method into a gRPC status with one readable line, and counts the request."""

    @functools.wraps(method)
    def answer(self, request, context):
        start, status = time.monotonic(), "OK"
        try:
            return method(self, request, context)
        except Exception as error:
            failure = as_request_error(error)
            status = failure.code
            context.abort(failure.grpc_status, failure.reason)
        finally:
            spec = getattr(request, "model_spec", None)
            name = spec.name if spec is not None and spec.name in self.manager.available() else ""
            self.metrics.record(name, method.__name__, "GRPC", status, time.monotonic() - start)

    return answer


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict and GetModelMetadata; methods that need tf.Example are UNIMPLEMENTED.

    Args:
        manager: the `ModelManager`.
        metrics: the `RequestMetrics`.
    """

    def __init__(self, manager: ModelManager, metrics: RequestMetrics) -> None:
        self.manager = manager
        self.metrics = metrics

    @_answered
    def Predict(
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        version, servable = self.manager.find(request.model_spec)
        inputs = {name: to_array(name, proto) for name, proto in request.inputs.items()}
        signature_name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        outputs = servable.predict(signature_name, inputs, request.output_filter)
        response = predict_pb2.PredictResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = version
        response.model_spec.signature_name = signature_name
        for name, array in outputs.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(array))
        return response

    @_answered
    def GetModelMetadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, context: grpc.ServicerContext
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        return metadata(self.manager, request)

    @_answered
    def Classify(self, request: object, context: grpc.ServicerContext) -> NoReturn:
        raise RequestError("UNIMPLEMENTED", EXAMPLES_ONLY.format("Classify"))

    @_answered
    def Regress(self, request: object, context: grpc.ServicerContext) -> NoReturn:
        raise RequestError("UNIMPLEMENTED", EXAMPLES_ONLY.format("Regress"))

    @_answered
    def MultiInference(self, request: object, context: grpc.ServicerContext) -> NoReturn:
        raise RequestError("UNIMPLEMENTED", EXAMPLES_ONLY.format("MultiInference"))


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus and HandleReloadConfigRequest.

    Args:
        manager: the `ModelManager`.
        metrics: the `RequestMetrics`.
    """

    def __init__(self, manager: ModelManager, metrics: RequestMetrics) -> None:
        self.manager = manager
        self.metrics = metrics

    @_answered
    def GetModelStatus(
        self, request: get_model_status_pb2.GetModelStatusRequest, context: grpc.ServicerContext
    ) -> get_model_status_pb2.GetModelStatusResponse:
        return self.manager.status(request.model_spec)

    @_answered
    def HandleReloadConfigRequest(
        self, request: model_management_pb2.ReloadConfigRequest, context: grpc.ServicerContext
    ) -> model_management_pb2.ReloadConfigResponse:
        # A refused configuration is an answer, not a failed call: TF Serving's clients read response.status.
        response = model_management_pb2.ReloadConfigResponse()
        try:
            self.manager.configure(request.config)
        except RequestError as error:
            response.status.error_code = CODE_NUMBER[error.code]
            response.status.error_message = error.reason
        return response
