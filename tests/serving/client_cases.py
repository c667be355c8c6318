"""Servers of the REST protocol and of gRPC, in threads of this process, for tests of the client."""

import concurrent.futures
import contextlib
import http.server
import json
import re
import socket
import threading

import numpy as np

IMAGE_SHAPE = (2, 2, 3)
NUM_PIXELS = 12


def _tensor(dtype, *sizes):
    dims = [{"size": str(size)} for size in (-1, *sizes)]
    return {"dtype": dtype, "tensor_shape": {"dim": dims, "unknown_rank": False}}


IMAGES, SEEDS = _tensor("DT_UINT8", *IMAGE_SHAPE), _tensor("DT_INT32", 2)
SIGNATURES = {
    "sample": {"inputs": {"seed": SEEDS, "temperature": _tensor("DT_FLOAT")}, "outputs": {"images": IMAGES}},
    "likelihood": {"inputs": {"images": IMAGES, "seed": SEEDS},
                   "outputs": {"log_prob": _tensor("DT_FLOAT"), "bits_per_dim": _tensor("DT_FLOAT")}},
    "decode": {"inputs": {"latents": _tensor("DT_FLOAT", NUM_PIXELS)}, "outputs": {"images": IMAGES}},
    "latent_likelihood": {"inputs": {"images": IMAGES, "seed": SEEDS},
                          "outputs": {"latent_log_prob": _tensor("DT_FLOAT"), "reconstruction_error": _tensor("DT_FLOAT")}},
    "energy": {"inputs": {"images": IMAGES, "seed": SEEDS}, "outputs": {"energy": _tensor("DT_FLOAT")}},
    "interpolate": {"inputs": {"images": IMAGES, "other_images": IMAGES, "share": _tensor("DT_FLOAT"),
                               "spherical": _tensor("DT_BOOL"), "seed": SEEDS},
                    "outputs": {"images": IMAGES}},
    "interpolate_noise": {"inputs": {"first_seed": SEEDS, "second_seed": SEEDS, "share": _tensor("DT_FLOAT"),
                                     "spherical": _tensor("DT_BOOL"), "temperature": _tensor("DT_FLOAT")},
                          "outputs": {"images": IMAGES}},
    "super_resolve": {"inputs": {"compressed": _tensor("DT_UINT8", 1, 1, 3), "seed": SEEDS}, "outputs": {"images": IMAGES}},
    "generative_reconstruct": {"inputs": {"images": IMAGES, "seed": SEEDS}, "outputs": {"images": IMAGES}},
    "__saved_model_init_op": {"inputs": {}, "outputs": {"op": {"dtype": "DT_INVALID"}}},
}


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as TF Serving's REST API does; keeps the bodies of the requests in `server.bodies`.

    `server.version` is the newest version, `server.gone` those that are no more, `server.signatures` what all declare.
    """

    def log_message(self, *args):
        pass

    @property
    def version(self):
        asked = re.search(r"/versions/(\d+)", self.path)
        return int(asked[1]) if asked else self.server.version

    def do_GET(self):
        self.server.asked.append(self)
        if self.version in self.server.gone:
            self.answer(404, {"error": f"Servable not found for request: Specific(m, {self.version})"})
        elif self.path.endswith("/metadata"):
            self.answer(200, {"model_spec": {"name": "m", "version": str(self.version)},
                              "metadata": {"signature_def": {"signature_def": self.server.signatures}}})
        else:
            self.answer(200, {"model_version_status": [
                {"version": "4", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}},
                {"version": "5", "state": "END", "status": {"error_code": "UNKNOWN", "error_message": "broken"}}]})

    def do_POST(self):
        self.server.asked.append(self)
        self.server.paths.append(self.path)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.body = body
        self.server.bodies.append(body)
        if self.server.behaviour:
            self.server.behaviour(self)
            return
        if self.version in self.server.gone:
            self.answer(404, {"error": f"Servable not found for request: Specific(m, {self.version})"})
            return
        rows = body["inputs"]
        if body.get("signature_name") == "likelihood":
            means = [float(np.mean(image)) for image in rows["images"]]
            self.answer(200, {"outputs": {"log_prob": means, "bits_per_dim": [mean / 2 for mean in means]}})
        elif body.get("signature_name") == "latent_likelihood":
            means = [float(np.mean(image)) for image in rows["images"]]
            self.answer(200, {"outputs": {"latent_log_prob": means, "reconstruction_error": [-mean for mean in means]}})
        elif body.get("signature_name") == "energy":
            self.answer(200, {"outputs": [float(np.max(image)) for image in rows["images"]]})
        elif body.get("signature_name") == "interpolate":
            chosen = [other if share > 0.5 else one
                      for one, other, share in zip(rows["images"], rows["other_images"], rows["share"])]
            self.answer(200, {"outputs": chosen})
        elif body.get("signature_name") == "interpolate_noise":
            chosen = [other if share > 0.5 else one
                      for one, other, share in zip(rows["first_seed"], rows["second_seed"], rows["share"])]
            self.answer(200, {"outputs": [np.full(IMAGE_SHAPE, row[1]).tolist() for row in chosen]})
        elif body.get("signature_name") == "super_resolve":
            self.answer(200, {"outputs": np.tile(rows["compressed"], (1, 2, 2, 1)).tolist()})
        elif body.get("signature_name") == "generative_reconstruct":
            self.answer(200, {"outputs": (255 - np.array(rows["images"])).tolist()})
        elif body.get("signature_name") == "decode":
            self.answer(200, {"outputs": np.reshape(rows["latents"], (-1, *IMAGE_SHAPE)).astype(int).tolist()})
        else:
            self.answer(200, {"outputs": [np.full(IMAGE_SHAPE, row[1]).tolist() for row in rows["seed"]]})

    def answer(self, status, content):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextlib.contextmanager
def running(handler, address="127.0.0.1", **attributes):
    """A server on a thread of its own, with these attributes."""
    server = http.server.ThreadingHTTPServer((address, 0), handler)
    vars(server).update(attributes, daemon_threads=True, port=server.server_address[1])
    server.url = f"http://127.0.0.1:{server.port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def model_server(handler=Handler, address="127.0.0.1"):
    """`running` with a model."""
    return running(handler, address, bodies=[], paths=[], asked=[], behaviour=None, version=4, gone=set(), signatures=SIGNATURES)


class GrpcModel:
    """A model by gRPC that paints each row's number in the first channel, and its version in all others.

    Attributes:
        version, gone: as in `Handler`.
        asked: [(method, request, metadata)] of all calls.
        behaviour: function from a PredictRequest's message and the answer to the answer, or None.
    """

    def __init__(self):
        self.version, self.gone, self.asked, self.behaviour = 4, set(), [], None

    def answer(self, method, content, context):
        import grpc

        from tfcq.serving.client.grpc_messages import MESSAGES

        request = MESSAGES[f"{method}Request"].FromString(content)
        self.asked.append((method, request, dict(context.invocation_metadata())))
        version = request.model_spec.version.value or self.version
        if version in self.gone:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Specific(m, {version})")
        answer = MESSAGES[f"{method}Response"]()
        if method == "GetModelStatus":
            answer.model_version_status.add(version=version, state=30)
            return answer.SerializeToString()
        answer.model_spec.name, answer.model_spec.version.value = "m", version
        if method == "GetModelMetadata":
            signatures = MESSAGES["SignatureDefMap"]()
            for name, tensors in SIGNATURES.items():
                signature = signatures.signature_def.add(key=name).value
                for kind in ("inputs", "outputs"):
                    for tensor, info in tensors[kind].items():
                        fill_info(getattr(signature, kind).add(key=tensor).value, info)
            answer.metadata.add(key="signature_def").value.value = signatures.SerializeToString()
            return answer.SerializeToString()
        inputs = {entry.key: entry.value for entry in request.inputs}
        seeds = np.frombuffer(inputs["seed"].tensor_content, np.int32).reshape(-1, 2)
        images = np.full((len(seeds), *IMAGE_SHAPE), version, np.uint8)
        images[..., 0] = seeds[:, 1, None, None]
        fill_tensor(answer.outputs.add(key="images").value, 4, images)
        if self.behaviour:
            other = self.behaviour(request, answer, context)
            answer = answer if other is None else other
        return answer if isinstance(answer, bytes) else answer.SerializeToString()


def fill_info(proto, info):
    numbers = {"DT_UINT8": 4, "DT_INT32": 3, "DT_FLOAT": 1, "DT_BOOL": 10, "DT_INVALID": 0}
    proto.dtype = numbers[info["dtype"]]
    for one in info.get("tensor_shape", {}).get("dim", []):
        proto.tensor_shape.dim.add(size=int(one["size"]))


def fill_tensor(proto, dtype, array):
    proto.Clear()
    proto.dtype = dtype
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    proto.tensor_content = array.tobytes()


@contextlib.contextmanager
def grpc_server(model, credentials=None):
    """A `GrpcModel`'s address."""
    import grpc

    class Any(grpc.GenericRpcHandler):
        def service(self, details):
            method = details.method.rpartition("/")[2]
            return grpc.unary_unary_rpc_method_handler(lambda content, context: model.answer(method, content, context))

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(8), handlers=(Any(),))
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("localhost:0", credentials)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as unused:
        return unused.getsockname()[1]
