"""A server of the REST protocol for tests of the client."""

import contextlib
import http.server
import json
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
    "super_resolve": {"inputs": {"compressed": _tensor("DT_UINT8", 1, 1, 3), "seed": SEEDS}, "outputs": {"images": IMAGES}},
    "generative_reconstruct": {"inputs": {"images": IMAGES, "seed": SEEDS}, "outputs": {"images": IMAGES}},
    "__saved_model_init_op": {"inputs": {}, "outputs": {"op": {"dtype": "DT_INVALID"}}},
}


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as TF Serving's REST API does; keeps the bodies of the requests in `server.bodies`."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        if self.path.endswith("/metadata"):
            self.answer(200, {"model_spec": {"name": "m", "version": "4"},
                              "metadata": {"signature_def": {"signature_def": SIGNATURES}}})
        else:
            self.answer(200, {"model_version_status": [
                {"version": "4", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}},
                {"version": "5", "state": "END", "status": {"error_code": "UNKNOWN", "error_message": "broken"}}]})

    def do_POST(self):
        self.server.paths.append(self.path)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        if self.server.behaviour:
            self.server.behaviour(self)
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
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as unused:
        return unused.getsockname()[1]
