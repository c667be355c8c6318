"""The gRPC front end in this process: deadlines, cancelled calls, a full queue, health, reflection, the end."""

import concurrent.futures
import gc
import threading
import time
import weakref

import grpc
import numpy as np
import pytest
import tensorflow as tf
import toy_model
from conftest import free_ports, wait_for
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tensorflow_serving.apis import predict_pb2

from tfcq.serving.server import grpc_server, stopping
from tfcq.serving.server.batching import Batcher, Scheduler
from tfcq.serving.server.batching_parameters import BatchingParameters
from tfcq.serving.server.errors import RequestError, code_and_reason
from tfcq.serving.server.grpc_api import TENSOR_CONTENT_METADATA
from tfcq.serving.server.loading import LoadedServable
from tfcq.serving.server.manager import ModelManager
from tfcq.serving.server.servable import Servable
from tfcq.serving.server.versions import single_model_config

PREDICT = "/tensorflow.serving.PredictionService/Predict"
MANY_ROWS = 1_000_000  # the toy model draws them in a loop, for many seconds
LIMIT = 600  # seconds that no call of these tests needs


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    base = tmp_path_factory.mktemp("models") / "toy"
    base.mkdir()
    toy_model.export(base / "1")
    return base


@pytest.fixture(scope="module")
def servable(base):
    return Servable(str(base / "1"))


def rows(count):
    return {"seed": np.arange(2 * count, dtype=np.int32).reshape(count, 2), "temperature": np.ones(count, np.float32)}


# ---- a model that runs ----

def test_deadline_ends_a_run_and_leaves_others_alone(servable):
    with pytest.raises(RequestError) as caught:
        servable.predict("sample", rows(1), deadline=time.monotonic())
    assert caught.value.code == "DEADLINE_EXCEEDED"
    for late in (float("inf"), 1e12):  # no thread can wait as long
        expected = servable.predict("sample", rows(2000), deadline=late)["images"]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        ended = [pool.submit(servable.predict, "sample", rows(MANY_ROWS), (), time.monotonic() + seconds)
                 for seconds in (0.5, 1.0)]
        while not all(work.done() for work in ended):
            np.testing.assert_array_equal(servable.predict("sample", rows(2000))["images"], expected)
            np.testing.assert_array_equal(
                servable.predict("sample", rows(2000), deadline=time.monotonic() + LIMIT)["images"], expected)
    assert [work.exception().code for work in ended] == ["DEADLINE_EXCEEDED"] * 2


def test_cancelled_call_ends_its_run(servable):
    call, began = stopping.Call(), threading.Event()

    def answer():
        with call.answered():
            began.set()
            servable.predict("sample", rows(MANY_ROWS))

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        work = pool.submit(answer)
        began.wait()
        time.sleep(0.2)
        call.cancel()
        assert work.exception().code == "CANCELLED"
        with pytest.raises(RequestError, match="cancelled"):
            pool.submit(answer).result()  # given up before it began
        assert len(pool.submit(servable.predict, "sample", rows(1)).result()["images"]) == 1  # the thread is as before


def test_cancelled_call_does_not_wait_for_its_batch(base):
    scheduler, call = Scheduler(1), stopping.Call()
    batcher = Batcher(BatchingParameters(max_batch_size=2, batch_timeout_micros=10**9), scheduler)
    servable = LoadedServable(str(base / "1"), batcher)

    def answer():
        with call.answered():
            servable.predict("sample", rows(1))

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        try:
            work = pool.submit(answer)
            wait_for(lambda: batcher.num_waiting == 1)
            call.cancel()
            assert work.exception(60).code == "CANCELLED" and batcher.num_waiting == 0
            runs = [pool.submit(servable.predict, "sample", rows(1)) for _ in range(2)]
            assert [len(run.result(60)["images"]) for run in runs] == [1, 1]  # its place is free
        finally:
            scheduler.stop()


@pytest.mark.parametrize("spoil", [{"seed": np.zeros([5, 2], np.int32)}, {"zzz": np.zeros(3)}])
def test_refusal_frees_its_tensors_without_the_collector(servable, spoil):
    gc.disable()
    try:
        inputs = rows(4) | spoil
        freed = weakref.ref(inputs["temperature"])
        try:
            servable.predict("sample", inputs, deadline=time.monotonic() + LIMIT)
        except Exception as error:
            assert code_and_reason(error)[0] == "INVALID_ARGUMENT"
        del inputs
        assert freed() is None
    finally:
        gc.enable()


# ---- the server ----

class Metrics(list):
    def record(self, *entry):
        self.append(entry)

    def record_runtime(self, *run):
        pass


class Server:
    """A `GrpcServer` of the toy model with one thread."""

    def __init__(self, manager):
        self.metrics = Metrics()
        port = free_ports(1)[0]
        self.server = grpc_server.GrpcServer(manager, self.metrics, num_threads=1)
        self.server.bind(f"127.0.0.1:{port}")
        self.server.start()
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.max_receive_message_length", -1)])
        self.health = health_pb2_grpc.HealthStub(self.channel)

    def ask(self, count, timeout=LIMIT, wait=True, metadata=None):
        """A future of the answer to `sample`."""
        request = predict_pb2.PredictRequest(model_spec={"name": "toy"})
        for name, array in rows(count).items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
        predict = self.channel.unary_unary(PREDICT, predict_pb2.PredictRequest.SerializeToString,
                                           predict_pb2.PredictResponse.FromString)
        return predict.future(request, timeout=timeout, wait_for_ready=wait, metadata=metadata)

    def status(self, name=""):
        return self.health.Check(health_pb2.HealthCheckRequest(service=name), timeout=LIMIT).status


@pytest.fixture(scope="module")
def manager(base):
    manager = ModelManager()
    manager.configure(single_model_config("toy", str(base)))
    return manager


@pytest.fixture
def server(manager):
    server = Server(manager)
    yield server
    server.channel.close()
    server.server.stop(0).result()


SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def test_cancelled_calls_and_deadlines_free_the_thread(server):
    call = server.ask(MANY_ROWS)
    wait_for(lambda: server.server._in_hand.count == 1)
    time.sleep(0.2)
    call.cancel()
    assert len(tf.make_ndarray(server.ask(2).result().outputs["images"])) == 2
    assert server.ask(MANY_ROWS, timeout=1).code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert server.ask(2).code() == grpc.StatusCode.OK
    assert [entry[:4] for entry in server.metrics] == [
        ("toy", "Predict", "GRPC", code) for code in ("CANCELLED", "OK", "DEADLINE_EXCEEDED", "OK")]


def test_full_queue_is_resource_exhausted(server, monkeypatch):
    monkeypatch.setattr(grpc_server, "MAX_REQUESTS", 2)
    running = [server.ask(MANY_ROWS), server.ask(MANY_ROWS)]
    wait_for(lambda: server.server._in_hand.count == 2)
    refused = server.ask(1)
    assert refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and "waiting" in refused.details()
    for call in running:
        call.cancel()
    wait_for(lambda: not server.server._in_hand.count)
    monkeypatch.setattr(grpc_server, "MAX_REQUEST_BYTES", 10)
    assert server.ask(1).code() == grpc.StatusCode.OK  # the only one may be of any size


def test_calls_beyond_the_limit_are_resource_exhausted(manager, monkeypatch):
    monkeypatch.setattr(grpc_server, "MAX_CALLS", 3)
    server, going_on = Server(manager), threading.Event()
    silent = server.channel.stream_unary(PREDICT)
    calls = [silent.future(iter(going_on.wait, True), timeout=LIMIT) for _ in range(8)]  # no message until then
    wait_for(lambda: any(call.done() for call in calls))
    assert {call.code() for call in calls if call.done()} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    for call in calls:
        call.cancel()
    going_on.set()
    server.server.stop(0).result()


def test_health_of_the_server_and_of_each_model_and_reflection(server):
    assert server.status() == server.status("toy") == SERVING
    with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
        server.status("other")
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    answer, = reflection_pb2_grpc.ServerReflectionStub(server.channel).ServerReflectionInfo(iter([request]), timeout=LIMIT)
    assert {service.name for service in answer.list_services_response.service} >= {
        "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService", "grpc.health.v1.Health"}


def test_health_follows_the_versions(server, base, tmp_path):
    (tmp_path / "empty").mkdir()
    config = single_model_config("toy", str(base))
    both = single_model_config("late", str(tmp_path / "empty"))
    both.MergeFrom(config)
    manager = ModelManager()
    manager.configure(both)
    manager.listen(server.server._set_health)
    assert (server.status("late"), server.status("toy")) == (NOT_SERVING, SERVING)
    toy_model.export(tmp_path / "empty" / "3")
    manager.poll()
    assert server.status("late") == SERVING
    manager.configure(config)
    assert server.status("late") == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


def test_stop_lets_running_calls_finish_and_says_so(server, monkeypatch):
    going_on, predict = threading.Event(), Servable.predict
    monkeypatch.setattr(Servable, "predict", lambda *arguments: going_on.wait(LIMIT) and predict(*arguments))
    monkeypatch.setattr(grpc_server, "LINGER_SECONDS", 0.1)
    monkeypatch.setattr(grpc_server, "QUIET_SECONDS", 0)  # a late call is refused at once
    watch = server.health.Watch(health_pb2.HealthCheckRequest(service="toy"), timeout=LIMIT)
    assert next(watch).status == SERVING
    running, queued = server.ask(2), server.ask(3)
    wait_for(lambda: server.server._in_hand.count == 2)
    end = server.server.stop(LIMIT)
    assert next(watch).status == NOT_SERVING
    late = server.ask(1, wait=False)
    assert late.code() == grpc.StatusCode.UNAVAILABLE
    going_on.set()
    assert [len(tf.make_ndarray(call.result().outputs["images"])) for call in (running, queued)] == [2, 3]
    end.result()  # although the watch has not ended


def test_stop_sends_the_last_answer_to_its_end(server, monkeypatch):
    going_on, images = threading.Event(), np.zeros(2**26, np.uint8)
    monkeypatch.setattr(Servable, "predict", lambda *arguments: going_on.wait(LIMIT) and {"images": images})
    monkeypatch.setattr(grpc_server, "LINGER_SECONDS", 0.1)
    call = server.ask(1, metadata=[TENSOR_CONTENT_METADATA])
    wait_for(lambda: server.server._in_hand.count == 1)
    end = server.server.stop(LIMIT)
    time.sleep(0.5)
    going_on.set()
    assert len(call.result().outputs["images"].tensor_content) == images.size
    end.result()


def test_stop_answers_calls_that_have_only_arrived(server, monkeypatch):
    monkeypatch.setattr(grpc_server, "QUIET_SECONDS", 1)
    monkeypatch.setattr(grpc_server, "FAREWELL_SECONDS", LIMIT)
    going_on = threading.Event()
    assert len(tf.make_ndarray(server.ask(1).result().outputs["images"])) == 1  # connected
    server.server._loop.call_soon_threadsafe(going_on.wait, LIMIT)  # so that none is taken
    calls = [server.ask(1, wait=False) for _ in range(8)]
    time.sleep(1)
    end = server.server.stop(LIMIT)
    going_on.set()
    assert [call.code() for call in calls] == [grpc.StatusCode.OK] * 8
    end.result()


def test_stop_ends_a_call_that_runs_on_after_the_grace(server):
    endless = server.ask(MANY_ROWS)
    wait_for(lambda: server.server._in_hand.count == 1)
    server.server.stop(0.1).result()
    assert endless.code() != grpc.StatusCode.OK
    wait_for(lambda: not server.server._in_hand.count)
