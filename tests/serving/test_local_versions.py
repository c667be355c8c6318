"""The local server over time: new versions, broken versions, policies, labels, new configurations, the end."""

import concurrent.futures
import http.client
import json
import os
import shutil
import signal
import socket
import threading

import grpc
import numpy as np
import pytest
import tensorflow as tf
import toy_model
from conftest import ServerProcess, wait_for
from google.protobuf import text_format
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2

from tfcq.serving.client.client import Client, ServerError

CONFIG = """
model_config_list {{
  config {{ name: "newest" base_path: "{base}/newest" model_platform: "tensorflow" }}
  config {{ name: "swapped" base_path: "{base}/swapped" }}
  config {{ name: "fragile" base_path: "{base}/fragile" }}
  config {{ name: "empty" base_path: "{base}/empty" }}
  config {{ name: "everything" base_path: "{base}/everything" model_version_policy {{ all {{}} }} }}
  config {{
    name: "chosen" base_path: "{base}/chosen"
    model_version_policy {{ specific {{ versions: 1 versions: 3 }} }}
    version_labels {{ key: "stable" value: 1 }}
  }}
}}
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """BASE with the models of `CONFIG`."""
    base = tmp_path_factory.mktemp("versions")
    toy_model.export(base / "original" / "1")
    for model, versions in {"newest": [1], "swapped": [1], "fragile": [1], "everything": [1, 2], "chosen": [1, 2, 3]}.items():
        for version in versions:
            put_copy(base, f"{model}/{version}")
    (base / "empty").mkdir()
    return base


def put_copy(base, target):
    """A complete copy of the original model, put in its place in one step."""
    unfinished = base / f"{target}.writing"
    shutil.copytree(base / "original" / "1", unfinished)
    os.rename(unfinished, base / target)


@pytest.fixture(scope="module")
def server(base):
    config = base / "models.config"
    config.write_text(CONFIG.format(base=base))
    server = ServerProcess(base, f"--model_config_file={config}", "--file_system_poll_wait_seconds=0.1")
    server.wait_until_ready()
    yield server
    server.stop(signal.SIGKILL)


def states(client):
    return {version: entry["state"] for version, entry in client.status().items()}


def test_ready_line_and_policies(server):
    assert server.output.count("\n") == 1
    for text in (f"gRPC at 127.0.0.1:{server.grpc_port}", f"REST at 127.0.0.1:{server.rest_port}", "newest (version 1)",
                 "everything (version 1, 2)", "chosen (version 1, 3)", "empty (version none yet)"):
        assert text in server.output


def test_version_and_label(server):
    chosen = Client.rest(server.rest_url, "chosen")
    assert states(chosen) == {1: "AVAILABLE", 3: "AVAILABLE"}
    assert chosen.metadata()["version"] == 3
    assert Client.rest(server.rest_url, "chosen", version=1).metadata()["version"] == 1
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.version_label = "chosen", "stable"
    request.inputs["seed"].CopyFrom(tf.make_tensor_proto(np.zeros([1, 2], np.int32)))
    request.inputs["temperature"].CopyFrom(tf.make_tensor_proto(np.ones(1, np.float32)))
    with grpc.insecure_channel(server.grpc_address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        assert stub.Predict(request, timeout=30).model_spec.version.value == 1
        request.model_spec.version_label = "canary"
        with pytest.raises(grpc.RpcError, match="canary"):
            stub.Predict(request, timeout=30)


def test_new_version_takes_over_without_a_gap_and_unfinished_ones_do_not(base, server):
    client = Client.rest(server.rest_url, "newest")
    assert client.sample(8).max() > 200
    unfinished = base / "newest" / "7"
    (unfinished / "variables").mkdir(parents=True)  # an exporter at work: the graph is not there yet
    put_copy(base, "newest/20261125134500123456")  # no int64
    shutil.copytree(base / "original" / "1", base / "newest" / "8.tmp")
    shutil.copytree(base / "original" / "1", base / "newest" / "nine")
    failures, finished = [], threading.Event()

    def keep_asking():
        while not finished.is_set():
            try:
                client.sample(1)
            except ServerError as error:
                failures.append(str(error))

    asking = threading.Thread(target=keep_asking)
    asking.start()
    try:
        toy_model.export(base / "newest" / "2", brightest=10)
        wait_for(lambda: states(client) == {1: "END", 2: "AVAILABLE"})
    finally:
        finished.set()
        asking.join()
    assert not failures
    assert client.sample(8).max() < 10
    with pytest.raises(ServerError, match="NOT_FOUND"):
        Client.rest(server.rest_url, "newest", version=1).sample(1)


def test_swap_under_sixteen_clients_refuses_nothing_and_mixes_nothing(base, server):
    """Eight raw clients of each protocol; the same noise, which the two versions scale differently."""
    columns = {"seed": [[0, row] for row in range(8)], "temperature": [1.0] * 8}
    request = predict_pb2.PredictRequest(model_spec={"name": "swapped"})
    request.inputs["seed"].CopyFrom(tf.make_tensor_proto(columns["seed"], tf.int32))
    request.inputs["temperature"].CopyFrom(tf.make_tensor_proto(columns["temperature"], tf.float32))
    body = json.dumps({"inputs": columns})
    finished = threading.Event()
    answers = []  # (version, or None by REST; bytes of the images)

    def ask_grpc():
        with grpc.insecure_channel(server.grpc_address) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            while not finished.is_set():
                response = stub.Predict(request, timeout=600)
                answers.append((response.model_spec.version.value, tf.make_ndarray(response.outputs["images"]).tobytes()))

    def ask_rest():
        connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=600)
        while not finished.is_set():
            connection.request("POST", "/v1/models/swapped:predict", body)
            response = connection.getresponse()
            text = response.read()
            assert response.status == 200, text
            answers.append((None, np.array(json.loads(text)["outputs"], np.uint8).tobytes()))
        connection.close()

    client = Client.rest(server.rest_url, "swapped")
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        asking = [pool.submit(ask) for ask in [ask_grpc, ask_rest] * 8]
        try:
            wait_for(lambda: len(answers) > 50)
            toy_model.export(base / "swapped" / "2", brightest=10)
            wait_for(lambda: states(client) == {1: "END", 2: "AVAILABLE"})
            count = len(answers)
            wait_for(lambda: len(answers) > count + 50)
        finally:
            finished.set()
    for work in asking:
        work.result()  # raises what a client has met
    images = {version: {image for asked, image in answers if asked == version} for version in (1, 2)}
    assert [len(images[version]) for version in (1, 2)] == [1, 1]
    assert {image for asked, image in answers if asked is None} == images[1] | images[2]


def test_broken_version_is_reported_and_the_old_one_stays_until_it_is_mended(base, server):
    client = Client.grpc(server.grpc_address, "fragile")
    before = client.sample(2)
    broken = base / "fragile" / "2"
    broken.mkdir()
    (broken / "saved_model.pb").write_bytes(b"this is no graph")
    wait_for(lambda: client.status().get(2, {}).get("state") == "END")
    status = client.status()
    assert status[1] == {"state": "AVAILABLE", "error": ""}
    assert "version 2" in status[2]["error"] and "\n" not in status[2]["error"]
    np.testing.assert_array_equal(client.sample(2), before)
    assert client.metadata()["version"] == 1
    # An exporter that writes the variables late looks the same, so a version whose files change is tried again.
    shutil.copytree(base / "original" / "1", broken, dirs_exist_ok=True)
    wait_for(lambda: states(client) == {1: "END", 2: "AVAILABLE"})
    assert client.metadata()["version"] == 2


def test_deleting_the_newest_version_rolls_back(base, server):
    client = Client.rest(server.rest_url, "everything")
    shutil.rmtree(base / "everything" / "2")
    wait_for(lambda: states(client) == {1: "AVAILABLE", 2: "END"})
    shutil.rmtree(base / "everything" / "1")  # nothing is left on disk; what is loaded goes on serving
    wait_for(lambda: f"no version under {base}/everything" in server.log)
    assert len(client.sample(1)) == 1


def test_model_without_a_version_waits_for_one(base, server):
    client = Client.rest(server.rest_url, "empty")
    for ask in (client.status, client.metadata):
        with pytest.raises(ServerError, match="NOT_FOUND"):
            ask()
    put_copy(base, "empty/12")
    wait_for(lambda: "version 12 is available" in server.log)
    assert states(client) == {12: "AVAILABLE"}


def reload(server, text):
    """(code, message) of the answer to a HandleReloadConfigRequest."""
    request = model_management_pb2.ReloadConfigRequest()
    text_format.Parse(text, request.config)
    assert isinstance(request.config, model_server_config_pb2.ModelServerConfig)
    with grpc.insecure_channel(server.grpc_address) as channel:
        try:
            status = model_service_pb2_grpc.ModelServiceStub(channel).HandleReloadConfigRequest(request, timeout=600).status
        except grpc.RpcError as error:  # as TF Serving: the call fails, it is not an answer with an error in it
            return error.code().name, error.details()
    assert (status.error_code, status.error_message) == (0, "")
    return "OK", ""


def test_reload_of_the_configuration(base, server):
    put_copy(base, "added/5")
    added = f'config {{ name: "added" base_path: "{base}/added" }}'
    assert reload(server, f"model_config_list {{ {added} }}") == ("OK", "")
    assert len(Client.grpc(server.grpc_address, "added").sample(1)) == 1  # loaded before the answer
    with pytest.raises(ServerError, match="NOT_FOUND"):
        Client.grpc(server.grpc_address, "chosen").sample(1)
    put_copy(base, "corrupt/6")
    (base / "corrupt" / "6" / "saved_model.pb").write_bytes(b"this is no graph")
    (base / "void").mkdir()
    good = f'config {{ name: "chosen" base_path: "{base}/chosen" }}'
    for bad, code, reason in (
        (f"{added} {added}", "INVALID_ARGUMENT", "twice"),
        ("", "INVALID_ARGUMENT", "no model"),
        (f'config {{ name: "a" base_path: "{base}/nowhere" }}', "INVALID_ARGUMENT", "not a directory"),
        ('config { name: "a" base_path: "relative" }', "INVALID_ARGUMENT", "absolute"),
        (f'config {{ name: "a" base_path: "{base}/added/5" }}', "INVALID_ARGUMENT", "itself a version"),
        (f'config {{ name: "a" base_path: "{base}" model_platform: "other" }}', "INVALID_ARGUMENT", "tensorflow"),
        (f'{good} config {{ name: "added" base_path: "{base}/void" }}', "FAILED_PRECONDITION", "no version"),
        (f'{good} config {{ name: "added" base_path: "{base}/corrupt" }}', "FAILED_PRECONDITION",
         "no version of model 'added'"),
        (f'{good} config {{ name: "new" base_path: "{base}/void" }}', "FAILED_PRECONDITION", "no version"),
        (f'{good} {added[:-1]} version_labels {{ key: "stable" value: 9 }} }}', "FAILED_PRECONDITION",
         "label 'stable' of model 'added' names version 9"),
    ):
        received, message = reload(server, f"model_config_list {{ {bad} }}")
        assert received == code and reason in message
        assert len(Client.grpc(server.grpc_address, "added").sample(1)) == 1  # a refused configuration changes nothing
        with pytest.raises(ServerError, match="NOT_FOUND"):
            Client.grpc(server.grpc_address, "chosen").sample(1)
    labelled = f'{added[:-1]} version_labels {{ key: "stable" value: 5 }} }}'
    assert reload(server, f"model_config_list {{ {labelled} }}") == ("OK", "")
    request = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "added", "version_label": "stable"})
    with grpc.insecure_channel(server.grpc_address) as channel:
        status = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request, timeout=600)
    assert [entry.version for entry in status.model_version_status] == [5]


def test_interrupt_stops_gracefully(server):
    """The last test: it ends the server."""
    with socket.create_connection(("127.0.0.1", server.rest_port)):  # an idle connection does not hold the stop up
        assert server.stop(signal.SIGINT) == 0
    assert "Traceback" not in server.log
    for port in (server.grpc_port, server.rest_port):
        socket.create_server(("127.0.0.1", port)).close()
