"""Asks a model server for samples, likelihoods and latents: numpy in, numpy out, by gRPC or REST.

    with Client.rest("http://localhost:8501", model="cqf") as client:
        images = client.sample(16)                      # uint8 [16, H, W, C]
        bits = client.bits_per_dim(images)              # float32 [16]

Works with any server of TF Serving's protocol: TF Serving itself or serving/local_server.py. REST needs only numpy (and is faster
with orjson), gRPC needs grpcio and protobuf; neither imports TensorFlow. Servers on this machine are asked directly, all other
servers through the proxies of the environment (`tfcq.serving.client.proxies`). `tfcq.AsyncClient` is the same for asyncio.
"""

from __future__ import annotations

import concurrent.futures
import inspect
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from tfcq.endpoints import ENDPOINTS, INPUTS
from tfcq.errors import UserError
from tfcq.seeds import row_seeds
from tfcq.serving.client.answers import ServerError
from tfcq.serving.client.calls import Calls, Pause, Plan, Send
from tfcq.serving.client.targets import Target
from tfcq.serving.client.transports import GrpcTransport, RestTransport

__all__ = ["Client", "ServerError", "row_seeds"]

MAX_BATCH_SIZE = 64
TIMEOUT_SECONDS = 60.0
RETRIES = 3


class AnyClient:
    """What `Client` and `AsyncClient` have in common: how they are made, and a method for each endpoint."""

    _transports: ClassVar[dict[str, Callable[[Target], Any]]]

    def __init__(self, kind: str, target: Target) -> None:
        self._kind, self._target = kind, target
        self._transport = self._transports[kind](target)
        self._calls = Calls(self._transport.protocol, target)
        self._closed = False

    def __repr__(self) -> str:
        target = self._target
        named = {"version": target.version, "label": target.label}
        which = "".join(f", {name}={value!r}" for name, value in named.items() if value is not None)
        return f"{type(self).__name__}.{self._kind}({target.address!r}, model={target.model!r}{which})"

    @classmethod
    def grpc(
        cls,
        address: str,
        model: str,
        version: int | None = None,
        timeout: float | None = TIMEOUT_SECONDS,
        max_batch_size: int = MAX_BATCH_SIZE,
        *,
        label: str | None = None,
        parallel: int = 1,
        retries: int = RETRIES,
        headers: Mapping[str, str] | None = None,
        token: str | None = None,
        tls: bool = False,
        ca_file: str | PathLike | None = None,
    ) -> Self:
        """A client by gRPC.

        Args:
            address: "host:port", such as "localhost:8500".
            model: the model's name on the server.
            version: an integer; None for the newest.
            timeout: seconds for a call of a method, with all its requests and tries; None: without limit.
            max_batch_size: rows in one request. More rows travel in several requests, with the same result, because every row
                has its own seed. All of them are answered by one version of the model.
            label: a version's label on the server, such as "stable", in place of its number.
            parallel: how many requests of a call are under way at a time.
            retries: how often a request is sent again while the server is UNAVAILABLE, after 0.1 s, 0.2 s, 0.4 s, ...
            headers: what each request carries besides; gRPC calls it metadata.
            token: the header `Authorization: Bearer TOKEN`.
            tls: whether the server is asked by TLS; `ca_file` implies it.
            ca_file: path of the certificates, in PEM, that the server's must be signed by; None: the usual authorities.

        Raises:
            UserError: an argument that cannot work, or a package that is missing.
        """
        return cls(
            "grpc",
            Target.checked(
                address, model, version, label, timeout, max_batch_size, parallel, retries, headers, token, tls, ca_file
            ),
        )

    @classmethod
    def rest(
        cls,
        address: str,
        model: str,
        version: int | None = None,
        timeout: float | None = TIMEOUT_SECONDS,
        max_batch_size: int = MAX_BATCH_SIZE,
        *,
        label: str | None = None,
        parallel: int = 1,
        retries: int = RETRIES,
        headers: Mapping[str, str] | None = None,
        token: str | None = None,
        ca_file: str | PathLike | None = None,
    ) -> Self:
        """A client by REST; `address` is "http://host:port" or "https://host:port", the other arguments are those of `grpc`."""
        return cls(
            "rest",
            Target.checked(
                address,
                model,
                version,
                label,
                timeout,
                max_batch_size,
                parallel,
                retries,
                headers,
                token,
                False,
                ca_file,
            ),
        )

    def _run(self, plan: Plan[Any]) -> Any:
        """The result of a plan; a coroutine in `AsyncClient`."""
        raise NotImplementedError

    def _check_open(self):
        if self._closed:
            raise UserError(f"{self!r} is closed; make another")


class Client(AnyClient):
    """A model behind an address. Make one with `Client.grpc` or `Client.rest`; threads may share it.

    It has a method for each row of `tfcq.endpoints.ENDPOINTS`: `encode(images)`, `interpolate(images, other_images, share)`, ...
    Seeds may be left out: they are then those of the stream `seed`. A method returns an array if its endpoint has one output,
    and otherwise a tuple in the table's order.

    Images may be given as pictures, too: the path of a file, its bytes, a PIL image, or a list of these, and pictures and arrays
    may have any size: unless they have the model's, they are sent as files to the endpoint whose name ends in `_png`, where the
    model cuts, resizes and converts them as the images that it was trained on. A model exported without such endpoints refuses
    other sizes.

    All methods raise `UserError` for arguments that do not fit, and its subclass `ServerError` if the server cannot be reached,
    refuses the request, or answers anything but what its signatures declare.
    """

    _transports = {"grpc": GrpcTransport, "rest": RestTransport}

    def __init__(self, kind: str, target: Target) -> None:
        super().__init__(kind, target)
        self._threads: concurrent.futures.ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections; calls after it are refused. Leaving a `with Client.rest(...) as client` does the same."""
        self._closed = True
        self._transport.close()
        if self._threads is not None:
            self._threads.shutdown()

    def sample(
        self, num_images: int | None = None, seeds: ArrayLike | None = None, temperature: ArrayLike = 1.0, seed: int = 0
    ) -> np.ndarray:
        """Draws images.

        Args:
            num_images: number of images; or give `seeds`.
            seeds: int32 [N, 2], one for each image; default: `row_seeds(num_images, seed)`.
            temperature: float, or [N]; at least 0, scales the prior's standard deviation; 1 is the model's own distribution.
            seed: int32, the stream of default seeds.

        Returns:
            uint8 [N, H, W, C].

        Raises:
            UserError: for arguments that do not fit each other; `ServerError` if the server refuses the request.
        """
        return self._run(self._calls.sample(num_images, seeds, temperature, seed))

    def log_prob(self, images: Any, seeds: ArrayLike | None = None, seed: int = 0) -> np.ndarray:
        """log p(image) in nats, float32 [N]; uint8 images [N, H, W, C] or pictures; seeds as in `sample`."""
        return self._run(self._calls.endpoint("likelihood", {"images": images}, seeds, seed, "log_prob"))["log_prob"]

    def bits_per_dim(self, images: Any, seeds: ArrayLike | None = None, seed: int = 0) -> np.ndarray:
        """-log_prob / (D ln 2), float32 [N]; a model that calls all images equally likely scores 8."""
        return self._run(self._calls.endpoint("likelihood", {"images": images}, seeds, seed, "bits_per_dim"))[
            "bits_per_dim"
        ]

    def predict(
        self, signature: str, inputs: Mapping[str, ArrayLike], output_filter: Sequence[str] = ()
    ) -> dict[str, np.ndarray]:
        """Runs any signature, in chunks of at most `max_batch_size` rows.

        Args:
            signature: its name; "" for the server's default.
            inputs: {input name: array [N, ...]}; a value of another type than declared is converted if nothing is lost.
            output_filter: names of the outputs that are wanted; empty: all.

        Returns:
            {output name: array [N, ...]}; strings are an array of bytes objects.

        Raises:
            UserError: inputs that are not as the signature declares; `ServerError` with the server's reason.
        """
        return self._run(self._calls.predict(signature, inputs, output_filter))

    def metadata(self) -> dict[str, Any]:
        """The signatures of the model.

        Returns:
            {"name": str, "version": int, "signatures": {signature: {"inputs": {name: {"dtype": str, "shape": list}},
            "outputs": the same}}}; None in a shape is any size, None for a shape is any shape.
        """
        return self._run(self._calls.metadata())

    def class_names(self) -> tuple[str, ...]:
        """The names of the model's classes, in the order of their numbers.

        Empty: it has no classes, or was exported by an earlier version of tfcq, without their names.
        """
        return self._run(self._calls.class_names())

    def status(self) -> dict[int, dict[str, str]]:
        """{version: {"state": "AVAILABLE" | "LOADING" | "END" | ..., "error": str, empty if all is well}}."""
        return self._run(self._calls.status())

    def health(self) -> bool:
        """Whether the server can be reached and the model, or the version that was asked for, is available."""
        return self._run(self._calls.health())

    def wait_until_ready(self, timeout: float | None = TIMEOUT_SECONDS) -> None:
        """Returns as soon as `health()` is true.

        Args:
            timeout: seconds; None: without limit.

        Raises:
            ServerError: DEADLINE_EXCEEDED with what the server said last.
        """
        self._run(self._calls.wait_until_ready(timeout))

    def _run(self, plan: Plan[Any]) -> Any:
        self._check_open()
        result, error = None, None
        try:
            while True:
                try:
                    step = plan.send(result) if error is None else plan.throw(error)
                except StopIteration as end:
                    return end.value
                result = error = None
                try:
                    result = self._take(step)
                except ServerError as failed:
                    error = failed
        finally:
            error = None  # its traceback has this frame, which would keep it

    def _take(self, step):
        """The result of a step."""
        if isinstance(step, Send):
            try:
                return self._transport.send(step.request, step.seconds)
            except Exception:
                self._check_open()  # what went wrong may be that another thread has closed the client
                raise
        if isinstance(step, Pause):
            return time.sleep(step.seconds)
        if step.most == 1 or len(step.plans) == 1:
            return [self._run(plan) for plan in step.plans]
        running = [self._pool().submit(self._run, plan) for plan in step.plans]
        try:
            concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_EXCEPTION)
        finally:
            for one in running:  # what has not begun is not needed if one failed; the rest ends within the call's time
                one.cancel()
            concurrent.futures.wait(running)
        failed = [one.exception() for one in running if not one.cancelled() and one.exception()]
        if failed:
            raise failed[0]
        return [one.result() for one in running]

    def _pool(self):
        with self._lock:
            if self._threads is None:
                self._threads = concurrent.futures.ThreadPoolExecutor(self._target.parallel, "tfcq-client")
            return self._threads


def _method(name, endpoint):
    """The method of clients for an endpoint: its inputs in the table's order, then seeds, which may be left out."""
    kind, empty = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.empty
    arguments = [argument for argument in endpoint.inputs if argument != "seeds"]
    defaults = {argument: INPUTS[argument].default for argument in arguments}
    parameters = [inspect.Parameter("self", kind)]
    parameters += [
        inspect.Parameter(one, kind, default=empty if value is None else value) for one, value in defaults.items()
    ]
    if "seeds" in endpoint.inputs:
        parameters += [inspect.Parameter("seeds", kind, default=None), inspect.Parameter("seed", kind, default=0)]
    signature = inspect.Signature(parameters)

    def ask(self: AnyClient, *args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        given = {argument: bound.arguments[argument] for argument in arguments}
        seeds, seed = bound.arguments.get("seeds"), bound.arguments.get("seed")

        def plan() -> Plan[Any]:
            answers = yield from self._calls.endpoint(name, given, seeds, seed)
            outputs = [answers[output] for output in endpoint.outputs]
            return outputs[0] if len(outputs) == 1 else tuple(outputs)

        return self._run(plan())

    described = [f"{argument}: {_described(INPUTS[argument])}" for argument in arguments]
    if "seeds" in endpoint.inputs:
        described.append("seeds, seed: as in `sample`")
    returned = [f"{output}: {_described(one)}" for output, one in endpoint.outputs.items()]
    ask.__name__, ask.__qualname__ = name, f"Client.{name}"
    ask.__signature__ = signature  # type: ignore[attr-defined]  # `inspect` looks for it; typeshed does not know it
    sections = {"Args": described, "Returns": returned}
    ask.__doc__ = f"The endpoint `{name}`: {endpoint.meaning}.\n" + "".join(
        f"\n{heading}:\n    " + "\n    ".join(lines) + "\n" for heading, lines in sections.items()
    )
    return ask


def _described(one):
    """An `Input` or `Output` in words: type, shape, meaning."""
    shape = {"image_shape": "[N, H, W, C]", "compressed_shape": "[N, h, w, c]", (): "[N]"}.get(one.row, "[N, ...]")
    single = "one number or " if getattr(one, "one_for_all", False) else ""
    return f"{single}{one.dtype} {shape}, {one.meaning}"


for _name, _endpoint in ENDPOINTS.items():
    if _name != "sample":  # it has arguments of its own
        setattr(AnyClient, _name, _method(_name, _endpoint))
