"""The gRPC front end: connections and calls on one asyncio thread, their answers on a bounded number of threads.

A call costs a thread only while it is answered: neither an idle connection nor a message that never arrives holds up others.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import logging
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf import message_factory
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from tensorflow_serving.apis import model_service_pb2, prediction_service_pb2

from .errors import code_and_reason, invalid
from .grpc_api import TENSOR_CONTENT_METADATA, CallOptions, ModelService, PredictionService
from .stopping import Call

if TYPE_CHECKING:
    from .manager import ModelManager
    from .monitoring import RequestMetrics

# TF Serving's kint32max: any message that protobuf can hold, such as 64 images of 64x64x3, may pass.
MAX_MESSAGE_BYTES = 2**31 - 1

# Beyond these a call is refused with RESOURCE_EXHAUSTED: requests in hand (waiting or being answered), the bytes of their
# messages unless it is the only one, and calls of all kinds, such as those whose message has not arrived.
MAX_REQUESTS = 1024
MAX_REQUEST_BYTES = 2**30
MAX_CALLS = 8192

# A client that reads nothing keeps its answers here. It is asked for a sign of life, and its connection closed without one.
_SIGNS_OF_LIFE = {
    "grpc.keepalive_time_ms": 30_000,
    "grpc.http2.ping_timeout_ms": 30_000,
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.http2.max_pings_without_data": 0,  # no limit on how often
}

# gRPC cancels calls that have arrived but that Python has not taken yet when the server stops (grpc/grpc issue 41785). So a stop
# begins when no call has been taken for the first time, but not later than the second; until then no answer is sent, as clients
# would ask again.
QUIET_SECONDS = 0.2
FAREWELL_SECONDS = 1.0

LINGER_SECONDS = 2.0  # how long a stop waits for calls without a message, such as watchers of the health

_Status = health_pb2.HealthCheckResponse

# A client that has gone before its answer is not an error of the server, and must not fill its log.
logging.getLogger("grpc._cython.cygrpc").addFilter(lambda record: not record.getMessage().startswith("ExecuteBatchError"))


class GrpcServer:
    """The gRPC server. After `bind`, `start` begins to answer.

    Args:
        manager: the `ModelManager`.
        metrics: the `RequestMetrics`.
        num_threads: how many requests are answered at a time; further ones wait.
        channel_arguments: pairs of a name and a value, which replace this server's own.
        tensor_content: whether all outputs are serialised as `tensor_content`; otherwise those of requests that ask for it.
    """

    def __init__(
        self,
        manager: ModelManager,
        metrics: RequestMetrics,
        num_threads: int,
        channel_arguments: Iterable[tuple[str, Any]] = (),
        tensor_content: bool = False,
    ) -> None:
        self._manager = manager
        self._metrics = metrics
        self._workers = concurrent.futures.ThreadPoolExecutor(num_threads, thread_name_prefix="grpc")
        self._tensor_content = tensor_content
        self._in_hand = _InHand()
        self._taken_at = 0.0  # when the last call was, by the loop's clock
        self._sends = asyncio.Event()
        self._sends.set()
        self._unfinished: set[Any] = set()  # the contexts of calls with a message whose answers are not sent yet
        self._health = health.aio.HealthServicer()
        self._health_names: set[str] = set()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="grpc", daemon=True).start()
        options = {
            "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
            "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
            "grpc.so_reuseport": 0,  # otherwise a second server could bind the same port and take half of the requests
            **_SIGNS_OF_LIFE,
            **dict(channel_arguments),
        }
        self._server = self._in_loop(self._made(options)).result()

    def bind(self, place: str, credentials: grpc.ServerCredentials | None = None) -> None:
        """Takes a place to listen at.

        Args:
            place: HOST:PORT, or unix:PATH.
            credentials: of the server's side of TLS; None: without encryption.

        Raises:
            RuntimeError: if it cannot be bound.
        """
        if credentials is None:
            bound = self._server.add_insecure_port(place)
        else:
            bound = self._server.add_secure_port(place, credentials)
        if bound == 0:
            raise RuntimeError(f"{place} is not bound")

    def start(self) -> None:
        """Begins to answer; the models' health follows the manager from now on."""
        self._in_loop(self._server.start()).result()
        self._manager.listen(self._set_health)

    def stop(self, grace_seconds: float) -> concurrent.futures.Future[None]:
        """Takes no new call, and asks the clients to go away; ends calls that run longer than `grace_seconds`.

        Returns:
            A future that is done when the last call has ended.
        """
        return self._in_loop(self._stop(grace_seconds))

    def _in_loop(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    async def _made(self, options):
        server = grpc.aio.server(options=list(options.items()), maximum_concurrent_rpcs=MAX_CALLS)
        prediction = prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"]
        models = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"]
        server.add_generic_rpc_handlers((self._handlers(prediction, PredictionService(self._manager, self._metrics)),
                                         self._handlers(models, ModelService(self._manager))))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (prediction.full_name, models.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        return server

    def _handlers(self, descriptor, service):
        """The handlers of those methods that a service has. Messages stay bytes here: worker threads parse and build them."""
        handlers = {}
        for method in descriptor.methods:
            if hasattr(service, method.name):
                message_class = message_factory.GetMessageClass(method.input_type)
                handlers[method.name] = grpc.unary_unary_rpc_method_handler(
                    functools.partial(self._answer, getattr(service, method.name), message_class))
        return grpc.method_handlers_generic_handler(descriptor.full_name, handlers)

    async def _answer(self, method, message_class, message, context):
        """Answers a call with the bytes of a message, or with a status and one readable line."""
        start, remaining, call = time.monotonic(), context.time_remaining(), Call()
        self._taken_at = self._loop.time()
        self._unfinished.add(context)
        context.add_done_callback(self._unfinished.discard)
        asked = TENSOR_CONTENT_METADATA in [tuple(pair) for pair in context.invocation_metadata() or ()]
        options = CallOptions(None if remaining is None else start + remaining, self._tensor_content or asked)
        if not self._in_hand.take(len(message)):
            self._metrics.record("", method.__name__, "GRPC", "RESOURCE_EXHAUSTED", 0.0)
            context.set_code(grpc.StatusCode.RESOURCE_EXHAUSTED)
            context.set_details(f"{self._in_hand.count} requests are waiting; try again later")
            return b""
        work = self._workers.submit(self._work, method, message_class, message, options, call, start)
        work.add_done_callback(functools.partial(self._in_hand.leave, len(message)))
        try:
            reply, code, reason = await asyncio.wrap_future(work)
            await self._sends.wait()
        except asyncio.CancelledError:  # the client has gone, or its deadline has passed
            call.cancel()
            raise
        if code != "OK":
            context.set_code(grpc.StatusCode[code])
            context.set_details(reason)
        return reply

    def _work(self, method, message_class, message, options, call, start):
        """(bytes of the reply, code, reason). An error is not kept: its traceback would keep the request's tensors."""
        name, code = "", "OK"
        try:
            try:
                request = message_class.FromString(message)
            except DecodeError as error:
                raise invalid(f"the message is not a {message_class.DESCRIPTOR.name}: {error}") from error
            if hasattr(request, "model_spec") and request.model_spec.name in self._manager.available():
                name = request.model_spec.name
            with call.answered():
                return method(request, options).SerializeToString(), code, ""
        except Exception as error:
            code, reason = code_and_reason(error)
            return b"", code, reason
        finally:
            self._metrics.record(name, method.__name__, "GRPC", code, time.monotonic() - start)

    def _set_health(self, available: dict[str, list[int]]) -> None:
        statuses = dict.fromkeys(self._health_names - set(available), _Status.SERVICE_UNKNOWN)
        statuses |= {name: _Status.SERVING if versions else _Status.NOT_SERVING for name, versions in available.items()}
        self._health_names = set(available)
        for name, status in statuses.items():
            self._in_loop(self._health.set(name, status))

    async def _stop(self, grace_seconds):
        await self._health.enter_graceful_shutdown()
        await self._take_what_has_arrived(min(grace_seconds, FAREWELL_SECONDS))
        stopping = asyncio.ensure_future(self._server.stop(grace_seconds))
        await asyncio.sleep(0)  # it tells the clients before they have their answers
        self._sends.set()
        await asyncio.wait([stopping], timeout=LINGER_SECONDS)
        while not stopping.done():
            if not self._unfinished:
                await self._server.stop(None)
            await asyncio.wait([stopping], timeout=0.05)
        self._workers.shutdown(wait=False)

    async def _take_what_has_arrived(self, seconds):
        self._sends.clear()
        self._taken_at = begun = self._loop.time()
        while (now := self._loop.time()) < min(self._taken_at + QUIET_SECONDS, begun + seconds):
            await asyncio.sleep(min(self._taken_at + QUIET_SECONDS, begun + seconds) - now)


class _InHand:
    """The requests that wait or are being answered, and the bytes of their messages."""

    def __init__(self):
        self.count = 0
        self._bytes = 0
        self._lock = threading.Lock()

    def take(self, num_bytes):
        """Whether one more can be taken; if so it is in hand until `leave`."""
        with self._lock:
            if self.count >= MAX_REQUESTS or (self.count and self._bytes + num_bytes > MAX_REQUEST_BYTES):
                return False
            self.count += 1
            self._bytes += num_bytes
            return True

    def leave(self, num_bytes, _):
        with self._lock:
            self.count -= 1
            self._bytes -= num_bytes
