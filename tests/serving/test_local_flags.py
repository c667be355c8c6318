"""Flags of the local server at work, in this process: batching, TLS, a UNIX socket, loading of versions and configurations."""

import concurrent.futures
import contextlib
import json
import shutil
import subprocess
import threading

import grpc
import numpy as np
import pytest
import tensorflow as tf
import toy_model
from conftest import free_ports, wait_for
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from tfcq import serve
from tfcq.seeds import row_seeds
from tfcq.serving.server import config_polling, stopping
from tfcq.serving.server.batching_parameters import BatchingParameters
from tfcq.serving.server.config_polling import ConfigPoller
from tfcq.serving.server.errors import RequestError
from tfcq.serving.server.loading import LoadedServable, Loader, LoadOptions
from tfcq.serving.server.local_server import LocalServer
from tfcq.serving.server.manager import ModelManager
from tfcq.serving.server.versions import read_model_config, single_model_config

FOUR_ROWS = BatchingParameters(max_batch_size=4, batch_timeout_micros=10_000_000, allowed_batch_sizes=(4,))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """BASE with version 1 of the toy model, which has one warm-up request."""
    base = tmp_path_factory.mktemp("flags")
    toy_model.export(base / "toy" / "1", warmup_records=[toy_model.warmup_record("sample", seed=[[0, 0]], temperature=[1.0])])
    return base


def predict(channel, num_rows=1, first=0):
    """Images for rows of seeds, as (gRPC code, None) or ("OK", images)."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "toy"
    request.inputs["seed"].CopyFrom(tf.make_tensor_proto(row_seeds(first + num_rows, 0)[first:]))
    request.inputs["temperature"].CopyFrom(tf.make_tensor_proto(np.ones(num_rows, np.float32)))
    try:
        answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=60)
    except grpc.RpcError as error:
        return error.code().name, None
    return "OK", tf.make_ndarray(answer.outputs["images"])


@pytest.fixture(scope="module")
def tls(base):
    """(certificate, SSLConfig file) of a server on 127.0.0.1."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout key -out cert"
    names = ["-subj", "/CN=toy", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command.split(), *names], cwd=base, check=True, capture_output=True)
    key, certificate = ((base / name).read_text() for name in ("key", "cert"))
    (base / "tls.config").write_text(f"server_key: {json.dumps(key)} server_cert: {json.dumps(certificate)}")
    return certificate.encode(), base / "tls.config"


def test_a_server_with_tls_a_socket_and_batching(base, tls):
    certificate, config = tls
    (base / "batching.config").write_text(
        "max_batch_size { value: 4 } allowed_batch_sizes: 4 batch_timeout_micros { value: 60000000 }"
    )
    flags, (port,), socket = serve.COMMAND.flags(), free_ports(1), f"unix:{base}/grpc.socket"
    flags.parse([
        *("--model_name=toy", f"--model_base_path={base}/toy", f"--port={port}", f"--grpc_socket_path={base}/grpc.socket"),
        *(f"--ssl_config_file={config}", "--enable_batching", f"--batching_parameters_file={base}/batching.config"),
    ])
    options, models = serve.read_options(flags)
    server = LocalServer(options)
    try:
        assert server.start(models).startswith(f"ready: gRPC at 127.0.0.1:{port}, gRPC at {socket}; serving toy")
        credentials = grpc.ssl_channel_credentials(certificate)
        local = [("grpc.ssl_target_name_override", "127.0.0.1")]
        with grpc.secure_channel(f"127.0.0.1:{port}", credentials) as channel, \
                grpc.secure_channel(socket, credentials, local) as by_socket, \
                grpc.insecure_channel(f"127.0.0.1:{port}") as plain:
            code, together = predict(channel, 4)
            assert code == "OK" and together.shape == (4, *toy_model.IMAGE_SHAPE)
            answers = [None] * 4

            def ask(number):  # a batch that is not full would wait for a minute
                answers[number] = predict((channel, by_socket)[number % 2], first=number)

            threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert [code for code, _ in answers] == ["OK"] * 4
            np.testing.assert_array_equal(np.concatenate([images for _, images in answers]), together)
            assert predict(channel, 5)[0] == "INVALID_ARGUMENT"
            assert predict(plain)[0] == "UNAVAILABLE"
    finally:
        server.stop()


def sampled(servable, num_rows=1, **options):
    inputs = {"seed": row_seeds(num_rows, 0), "temperature": np.ones(num_rows, np.float32)}
    return servable.predict("", inputs, **options)


def test_warm_up_neither_waits_nor_is_refused(base, monkeypatch):
    sizes = []
    monkeypatch.setattr(Loader, "_batcher", lambda *_: Sizes(sizes))
    path = str(base / "toy" / "1")
    assert Loader(LoadOptions(FOUR_ROWS, num_warm_ups=2))(path).warm_up() == 1 and sizes == [1, 1]
    assert Loader(LoadOptions(FOUR_ROWS, num_warm_ups=0))(path).warm_up() == 0 and sizes == [1, 1]


class Sizes:
    """In the place of a `Batcher`: remembers the rows of warm-up requests; others are errors."""

    def __init__(self, sizes):
        self._sizes = sizes

    def pad_and_run(self, run, signature_name, inputs, output_filter):
        self._sizes.append(len(inputs["seed"]))
        return run(signature_name, inputs, output_filter)


def test_batching_of_the_version_itself(base):
    path = base / "per_model" / "1"
    shutil.copytree(base / "toy" / "1", path)
    loader = Loader(LoadOptions(FOUR_ROWS, per_model=True))
    assert len(sampled(loader(str(path)), 5)["images"]) == 5  # no file, no batching
    (path / "batching_params.pbtxt").write_text("max_batch_size { value: 2 }")
    servable = loader(str(path))
    assert len(sampled(servable, 2)["images"]) == 2
    with pytest.raises(RequestError, match="3 rows are more than max_batch_size, 2"):
        sampled(servable, 3)
    with pytest.raises(RequestError, match="'nonsense' is not in the model"):
        servable.predict("nonsense", {})
    (path / "batching_params.pbtxt").write_text("max_batch_size { value: 0 }")
    with pytest.raises(Exception, match="batching_params.pbtxt: max_batch_size must be at least 1"):
        loader(str(path))


@pytest.mark.parametrize("failures, ending, tries", [(2, False, 3), (9, False, 3), (9, True, 1)])
def test_retries(monkeypatch, failures, ending, tries):
    tried = []

    def load(self, *_):
        tried.append(self)
        if len(tried) <= failures:
            raise OSError("not yet")

    monkeypatch.setattr(LoadedServable, "__init__", load)
    loader = Loader(LoadOptions(num_retries=2, retry_seconds=0.01, is_ending=lambda: ending))
    if failures < 3:
        assert loader("path") is tried[2]
    else:
        with pytest.raises(OSError, match="not yet"):
            loader("path")
    assert len(tried) == tries


def test_the_end_cancels_runs_of_batches_that_nobody_waits_for(base):
    """Threads that wait for them would hold up the end of the process."""
    loader = Loader(LoadOptions(BatchingParameters(max_batch_size=2_000_000), num_warm_ups=0))
    model, began = loader(str(base / "toy" / "1")), threading.Event()
    unpatched = stopping.until

    @contextlib.contextmanager
    def until(deadline):
        with unpatched(deadline):
            began.set()
            yield

    with pytest.MonkeyPatch.context() as patch, concurrent.futures.ThreadPoolExecutor(2) as pool:
        patch.setattr(stopping, "until", until)
        many = {"seed": np.zeros([1_000_000, 2], np.int32), "temperature": np.ones(1_000_000, np.float32)}
        running = pool.submit(model.predict, "sample", many)
        assert began.wait(60)
        loader.stop()
        assert running.exception().code == "CANCELLED"


def test_a_configuration_that_changes_is_served(base, tmp_path):
    file, manager = tmp_path / "models.config", ModelManager()
    entry = 'config {{ name: "{}" base_path: "{}/toy" }}'
    file.write_text(f"model_config_list {{ {entry.format('first', base)} }}")
    served = read_model_config(str(file))
    manager.configure(served)
    poller = ConfigPoller(manager, str(file), served, 0.01)
    poller.start()
    file.write_text(f"model_config_list {{ {entry.format('first', base)} {entry.format('second', base)} }}")
    wait_for(lambda: manager.available() == {"first": [1], "second": [1]})
    poller.stop()
    for wrong in ("nonsense", "model_config_list { }", f"model_config_list {{ {entry.format('third', tmp_path)} }}"):
        file.write_text(wrong)
        poller.look()
        assert set(manager.available()) >= {"first", "second"}


def test_a_file_that_is_wrong_again_is_reported_again(base, tmp_path, monkeypatch):
    reported, file, manager = [], tmp_path / "models.config", ModelManager()
    monkeypatch.setattr(config_polling.logging, "warning", lambda *arguments: reported.append(arguments))
    served = single_model_config("toy", str(base / "toy"))
    poller = ConfigPoller(manager, str(file), served, 1)
    for text, count in (("nonsense", 1), ("nonsense", 1), (str(served), 1), ("nonsense", 2)):
        file.write_text(text)
        poller.look()
        assert len(reported) == count
