"""For tests of the REST server in this process: requests byte by byte, and a model that answers at once or waits."""

import http.client
import json
import socket
import threading

import numpy as np
import tensorflow as tf

from tfcq.serving.server import stopping

PATH = "/v1/models/toy:predict"
SAMPLE = json.dumps({"instances": [{"seed": [1, 2], "temperature": 1.0}]})
WAIT = 50  # seconds, for a machine with other work


def request(port, method="POST", path=PATH, body=None, headers=()):
    """(HTTP status, body as bytes, headers) of a request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT)
    try:
        connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        return response.status, response.read(), response.headers
    finally:
        connection.close()


def connect(port, content=b"", receive_buffer=None):
    """A socket on which something was sent."""
    connection = socket.socket()
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(WAIT)
    connection.connect(("127.0.0.1", port))
    connection.sendall(content)
    return connection


def post(body, length=None):
    """The bytes of a Predict request, whose body may be shorter than its Content-Length."""
    return b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (PATH.encode(), length or len(body), body)


def answers(connection):
    """All that comes until the server closes the connection."""
    with connection, connection.makefile("rb") as answer:
        return answer.read()


class Model:
    """A model without TensorFlow: it answers its input, and waits where that is negative."""

    signature_defs: dict = {}

    def __init__(self):
        self.waiting, self.go_on = threading.Semaphore(0), threading.Event()
        self.deadlines = []

    def warm_up(self):
        return 0

    def input_specs(self, signature_name):
        return {"x": tf.TensorSpec([None], tf.float32)}

    def predict(self, signature_name, inputs, output_filter=(), deadline=None):
        self.deadlines.append(deadline)
        if inputs["x"][0] < 0:
            self.waiting.release()
            with stopping.ended_by(self.go_on.set):
                self.go_on.wait(WAIT)
        if inputs["x"][0] > 1000:  # a large answer
            return {"x": np.zeros(int(inputs["x"][0]), np.float32)}
        return inputs


def predict(port, value):
    status, content, _ = request(port, body=json.dumps({"inputs": [value]}))
    return status, json.loads(content)
