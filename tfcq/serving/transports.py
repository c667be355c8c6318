"""How `tfcq.serving.client` reaches a server: a request by REST or by gRPC, and errors in one line."""

import http.client
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, Protocol

import numpy as np

from tfcq.errors import UserError
from tfcq.serving import proxies

# The names in protobuf's enumeration DataType, which JSON and metadata have as text.
_DTYPES = {
    "DT_FLOAT": np.float32,
    "DT_DOUBLE": np.float64,
    "DT_INT32": np.int32,
    "DT_UINT8": np.uint8,
    "DT_INT64": np.int64,
    "DT_BOOL": np.bool_,
    "DT_STRING": np.object_,
    "DT_HALF": np.float16,
}
_HTTP_CODES = {
    400: "INVALID_ARGUMENT",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class Transport(Protocol):
    """Sends one request to the server, with the arguments and results of the methods of `tfcq.serving.client.Client`."""

    def predict(self, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]: ...

    def metadata(self) -> dict[str, Any]: ...

    def status(self) -> dict[int, dict[str, str]]: ...


class ServerError(UserError):
    """A server that cannot be reached, or that refused a request, in one line.

    Attributes:
        code: the name of the canonical status: "UNAVAILABLE", "NOT_FOUND", "INVALID_ARGUMENT", ...
    """

    def __init__(self, address: str, code: str, reason: object) -> None:
        self.code = code
        super().__init__(f"{address}: {code}: {' '.join(str(reason).split())}")


def _signatures(signature_defs):
    """The `signatures` of `Client.metadata` from a SignatureDefMap's dictionary, for both transports."""

    def tensors(infos):
        return {
            name: {
                "dtype": np.dtype(_DTYPES[info["dtype"]]).name if info["dtype"] in _DTYPES else info["dtype"],
                "shape": _shape(info.get("tensor_shape", {})),
            }
            for name, info in sorted(infos.items())
        }

    # Names with two underscores are the SavedModel's own, such as __saved_model_init_op.
    return {
        name: {"inputs": tensors(signature.get("inputs", {})), "outputs": tensors(signature.get("outputs", {}))}
        for name, signature in sorted(signature_defs.items())
        if not name.startswith("__")
    }


def _shape(shape):
    if shape.get("unknown_rank"):
        return None
    sizes = [int(dimension.get("size", 0)) for dimension in shape.get("dim", [])]
    return [None if size < 0 else size for size in sizes]


class RestTransport:
    """Requests by REST, in column format; needs only numpy."""

    def __init__(self, address: str, model: str, version: int | None, timeout: float) -> None:
        if not address.startswith(("http://", "https://")):
            raise UserError(f"a REST address starts with http:// or https://, received {address!r}")
        self._model_url = f"{address.rstrip('/')}/v1/models/{urllib.parse.quote(model, safe='')}"
        self._url = self._model_url if version is None else f"{self._model_url}/versions/{version}"
        self._timeout = timeout
        self._signatures: dict[str, Any] | None = None
        try:
            self._proxy = proxies.of_rest(self._url)
        except ValueError as error:
            raise UserError(f"a REST address is http://host:port, received {address!r} ({error})") from error
        proxies_used = urllib.request.ProxyHandler(None if self._proxy else {})  # None: those of the environment
        self._opener = urllib.request.build_opener(proxies_used)

    def predict(self, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        body: dict[str, Any] = {"signature_name": signature} if signature else {}
        body["inputs"] = {name: array.tolist() for name, array in inputs.items()}
        outputs = self._ask(f"{self._url}:predict", lambda answer: answer["outputs"], json.dumps(body).encode())
        # JSON has no dtypes, and a single output has no name: the signature has both.
        if self._signatures is None:
            self._signatures = self.metadata()["signatures"]
        specs = self._signatures[signature or "serving_default"]["outputs"]
        if len(specs) == 1:
            outputs = {next(iter(specs)): outputs}
        return {name: np.asarray(value, np.dtype(specs[name]["dtype"])) for name, value in outputs.items()}

    def metadata(self) -> dict[str, Any]:
        return self._ask(
            f"{self._url}/metadata",
            lambda answer: {
                "name": answer["model_spec"]["name"],
                "version": int(answer["model_spec"]["version"]),
                "signatures": _signatures(answer["metadata"]["signature_def"]["signature_def"]),
            },
        )

    def status(self) -> dict[int, dict[str, str]]:
        return self._ask(
            self._url,
            lambda answer: {
                int(entry["version"]): {"state": entry["state"], "error": entry["status"].get("error_message", "")}
                for entry in answer["model_version_status"]
            },
        )

    def _ask(self, url, read, body=None):
        """`read(answer)` of TF Serving's answer in JSON; ServerError for any other answer or none."""
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        try:
            try:
                response = self._opener.open(request, timeout=self._timeout)
            except urllib.error.HTTPError as error:
                response = error  # an answer too
            with response:
                status, text = response.status, response.read().decode("utf-8", errors="replace")
        except (OSError, ValueError, http.client.HTTPException) as error:
            cause = getattr(error, "reason", error)
            if isinstance(cause, TimeoutError):
                raise self._error(url, "DEADLINE_EXCEEDED", f"no answer within {self._timeout} s") from error
            if isinstance(error, urllib.error.URLError):
                raise self._error(url, "UNAVAILABLE", f"no server answers there ({cause})") from error
            if isinstance(error, http.client.BadStatusLine) and not isinstance(error, ConnectionError):
                reason = f"what answers there does not speak HTTP ({str(error)[:40]!r}); is it the port of gRPC?"
                raise self._error(url, "UNAVAILABLE", reason) from error
            raise self._error(url, "UNAVAILABLE", f"the answer broke off ({error})") from error
        code = "UNAVAILABLE" if status < 400 else _HTTP_CODES.get(status, f"HTTP {status}")
        try:
            answer = json.loads(text)
            if status < 400:
                return read(answer)
            reason = answer["error"]
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            server = response.headers.get("Server") or "a server that does not say its name"
            answered = f"HTTP {status} {response.reason} from {server}, which is not TF Serving's JSON: {_gist(text)!r}"
            raise self._error(url, code, answered) from error
        raise ServerError(url, code, reason)

    def _error(self, url, code, reason):
        """An error that TF Serving itself did not report: it may come from a proxy, which is therefore named."""
        return ServerError(url, code, reason + _through(self._proxy))


def _gist(text):
    """The first meaningful line of a body, or the title if it is HTML, at most 100 characters."""
    title = re.search(r"<title>\s*(.*?)\s*</title>", text, re.IGNORECASE | re.DOTALL)
    lines = [line.strip() for line in ([title[1]] if title else text.splitlines())]
    meaningful = [line for line in lines if line and not re.fullmatch(r"<[^>]*>", line)]
    return " ".join((meaningful or lines or [""])[0].split())[:100]


def _through(proxy):
    return f"; asked through the proxy of {proxy} (no_proxy names hosts to be asked directly)" if proxy else ""


class GrpcTransport:
    """Requests by gRPC; imports TensorFlow, as messages consist of its protocol buffers."""

    def __init__(self, address: str, model: str, version: int | None, timeout: float) -> None:
        if "://" in address:
            raise UserError(f"a gRPC address is host:port without a scheme, received {address!r}")
        try:
            import grpc
            from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc
        except ImportError as error:
            raise UserError(
                f"gRPC needs the package tensorflow-serving-api ({error}); install it or use Client.rest"
            ) from error
        self._proxy = proxies.of_grpc(address)
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]  # -1 is no limit
        if proxies.is_here(proxies.grpc_host(address)):
            options.append(("grpc.enable_http_proxy", 0))
        channel = grpc.insecure_channel(address, options=options)
        self._prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(channel)
        self._address, self._model, self._version, self._timeout = address, model, version, timeout

    def predict(self, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = self._named(predict_pb2.PredictRequest())
        request.model_spec.signature_name = signature
        for name, array in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
        response = self._ask(self._prediction.Predict, request)
        return {name: tf.make_ndarray(proto) for name, proto in response.outputs.items()}

    def metadata(self) -> dict[str, Any]:
        from google.protobuf import json_format
        from tensorflow_serving.apis import get_model_metadata_pb2

        request = self._named(get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"]))
        response = self._ask(self._prediction.GetModelMetadata, request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        fields = json_format.MessageToDict(signatures, preserving_proto_field_name=True)
        return {
            "name": response.model_spec.name,
            "version": response.model_spec.version.value,
            "signatures": _signatures(fields.get("signature_def", {})),
        }

    def status(self) -> dict[int, dict[str, str]]:
        from tensorflow_serving.apis import get_model_status_pb2

        response = self._ask(self._models.GetModelStatus, self._named(get_model_status_pb2.GetModelStatusRequest()))
        state_name = get_model_status_pb2.ModelVersionStatus.State.Name
        return {
            entry.version: {"state": state_name(entry.state), "error": entry.status.error_message}
            for entry in response.model_version_status
        }

    def _named(self, request):
        request.model_spec.name = self._model
        if self._version is not None:
            request.model_spec.version.value = self._version
        return request

    def _ask(self, method, request):
        import grpc

        try:
            return method(request, timeout=self._timeout)
        except grpc.RpcError as error:
            code, reason = error.code().name, str(error.details())
            if code in ("UNAVAILABLE", "UNKNOWN", "DEADLINE_EXCEEDED"):  # codes that TF Serving does not use for a request
                reason += _through(self._proxy)
            raise ServerError(f"{self._address} model {self._model!r}", code, reason) from error
