"""What a client does, without any input or output: generators that say what to send, and receive the answers.

A `Plan` yields steps; whoever runs it (`client` with threads, `async_client` with asyncio) takes each
and sends its result back, or throws the ServerError that came of it. Chunks, versions, repetitions and time limits are
therefore decided here once, for both transports and both kinds of client.
"""

from __future__ import annotations

import copy
import dataclasses
import random
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from tfcq.checks import as_array, check_integer, dims
from tfcq.endpoints import ENDPOINTS, INPUTS, Signature
from tfcq.errors import UserError
from tfcq.inputs import as_text, checked
from tfcq.seeds import row_seeds
from tfcq.serving.client import chunks, pictures
from tfcq.serving.client.answers import Expected, Request, ServerError, declared, has_rows
from tfcq.serving.client.targets import Target, seconds

FRESH_SECONDS = 1.0
"""For so long it is taken for granted which version of the model is the newest, and what it declares."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0  # seconds between two tries
_POLL_SECONDS = 10.0  # the limit of a question whether a server is ready


@dataclasses.dataclass(frozen=True)
class Send:
    """A step: send this; its result is the transport's answer. `seconds`: at most so long; None: without limit."""

    request: Request
    seconds: float | None


@dataclasses.dataclass(frozen=True)
class Pause:
    """A step: wait."""

    seconds: float


@dataclasses.dataclass(frozen=True)
class Together:
    """A step: run these plans, at most `most` at a time; its result is the list of theirs."""

    plans: Sequence[Plan]
    most: int


T = TypeVar("T")
Plan: TypeAlias = Generator[Send | Pause | Together, Any, T]


class Clock:
    """The time of one call, from its making on; every request, try and pause of the call is within it."""

    def __init__(self, limit: float | None, address: str) -> None:
        self._limit, self._address = limit, address
        self._end = None if limit is None else time.monotonic() + limit

    def left(self, reason: str = "") -> float | None:
        """Seconds left; None: without end.

        Raises:
            ServerError: DEADLINE_EXCEEDED, none; `reason` is what the last try ended with.
        """
        if self._end is None:
            return None
        left = self._end - time.monotonic()
        if left <= 0:
            last = f"; the last try: {reason}" if reason else ""
            raise ServerError(self._address, "DEADLINE_EXCEEDED", f"no answer within {self._limit:g} s{last}")
        return left


class Calls:
    """The plans of a client's methods; their arguments and results are those of `tfcq.serving.client.client.Client`.

    Args:
        protocol: a `RestProtocol` or `GrpcProtocol`.
        target: whom it asks.
    """

    def __init__(self, protocol: Any, target: Target) -> None:
        self._protocol, self._target = protocol, target
        self._known: tuple[float, dict[str, Any]] | None = None  # (when it was asked for, metadata)

    def sample(self, num_images: int | None, seeds: Any, temperature: ArrayLike, seed: int) -> Plan[np.ndarray]:
        """See `Client.sample`."""
        if (num_images is None) == (seeds is None):
            received = "neither" if seeds is None else "both"
            raise UserError(f"sample: expected either num_images or seeds, received {received}")
        if seeds is None:
            seeds = row_seeds(check_integer("sample(num_images)", num_images, 1), seed)
            factors = checked("sample", {"temperature": temperature}, lambda _: ())["temperature"]
            if np.ndim(factors) and len(factors) != num_images:
                raise UserError(f"sample(temperature): expected one number or {num_images}, received {len(factors)}")
            temperature = factors
        answers = yield from self.endpoint("sample", {"temperature": temperature}, seeds, seed)
        return answers["images"]

    def endpoint(
        self, endpoint: str, given: Mapping[str, Any], seeds: Any, seed: Any, method: str = ""
    ) -> Plan[dict[str, np.ndarray]]:
        """{output: array} of an endpoint.

        Args:
            endpoint: a key of `ENDPOINTS`.
            given: {argument: what the caller passed}, without seeds.
            seeds: int32 [N, 2]; None: those of the stream `seed`.
            seed: int32.
            method: the output of that name alone is asked for, which is the method's name in messages; "": all outputs.
        """
        name = method or endpoint
        images: dict[str, Any] = {
            argument: pictures.opened(f"{name}({argument})", value)
            for argument, value in given.items()
            if INPUTS[argument].dtype == "uint8" and pictures.are_pictures(value)
        }
        stand_ins = {argument: np.zeros((len(opened), 1, 1, 1), np.uint8) for argument, opened in images.items()}
        values = {**given, **stand_ins} if seeds is None else {**given, **stand_ins, "seeds": seeds}
        # A mistake is reported before the server is asked.
        rows = checked(name, values, lambda one: _row_shape(f"{name}({one})", INPUTS[one], values[one]))
        count = next((len(value) for value in rows.values() if np.ndim(value)), None)
        if count is None:  # of arguments that may all be one number for all rows
            other = ", or one with seeds" if "seeds" in ENDPOINTS[endpoint].inputs else ""
            raise UserError(f"{name}({next(iter(rows))}): expected a value for each row{other}, received one")
        if seeds is None and "seeds" in ENDPOINTS[endpoint].inputs:
            rows["seeds"] = row_seeds(count, seed)
        # An endpoint takes a value per row, not one number for all.
        rows = {argument: np.broadcast_to(one, (count, *np.shape(one)[1:])) for argument, one in rows.items()}
        images = {argument: images.get(argument, rows[argument]) for argument in rows if INPUTS[argument].dtype == "uint8"}
        of_arrays, of_files = Signature(endpoint), Signature(endpoint, encoded=True)

        def request(signatures):
            """(signature, {input name: array}): images go as arrays if they are as the model has them."""
            specs = signatures.get(endpoint, {}).get("inputs", {})
            shapes = {argument: (specs.get(argument, {}).get("shape") or [None] * 4)[1:] for argument in images}
            fit = all(pictures.have_shape(one, shapes[argument]) for argument, one in images.items())
            signature = of_arrays if fit or of_files.name not in signatures else of_files
            tensors = {}
            for tensor, argument in signature.inputs.items():
                value = images.get(argument, rows[argument])
                if signature.takes_files(argument):
                    tensors[tensor] = pictures.as_files(f"{name}({argument})", value)
                    continue
                if isinstance(value, list):
                    value = pictures.stacked(f"{name}({argument})", value, shapes[argument])
                tensors[tensor] = np.ascontiguousarray(value, INPUTS[argument].dtype)
            return signature.name, tensors

        answers = yield from self._predict(request, (method,) if method else ())
        for tensor, output in of_files.outputs.items():
            if tensor != output and tensor in answers:
                answers[output] = pictures.as_images(f"{name}: the server's {tensor}", answers.pop(tensor))
        for output, one in ENDPOINTS[endpoint].outputs.items():
            if one.dtype == "string" and output in answers:
                answers[output] = as_text(answers[output])
        return answers

    def class_names(self) -> Plan[tuple[str, ...]]:
        """See `Client.class_names`."""
        if "name_classes" not in (yield from self._served(self._clock()))["signatures"]:
            return ()
        first = yield from self.endpoint("name_classes", {"classes": [0]}, None, 0)
        numbers = np.arange(first["num_classes"][0])
        return tuple((yield from self.endpoint("name_classes", {"classes": numbers}, None, 0))["names"].tolist())

    def predict(
        self, signature: str, inputs: Mapping[str, Any], output_filter: Sequence[str]
    ) -> Plan[dict[str, np.ndarray]]:
        """See `Client.predict`."""
        if isinstance(output_filter, str):
            raise UserError(
                f"output_filter: expected a list of names, received {output_filter!r}; ({output_filter!r},) is one"
            )
        if not inputs:
            raise UserError(f"signature {signature!r}: expected inputs by their names, received none")
        return (yield from self._predict(lambda signatures: (signature, inputs), tuple(output_filter)))

    def metadata(self) -> Plan[dict[str, Any]]:
        """See `Client.metadata`."""
        return copy.deepcopy((yield from self._served(self._clock(), 0)))  # the caller may change it

    def status(self) -> Plan[dict[int, dict[str, str]]]:
        """See `Client.status`."""
        return (yield from self._states(self._clock()))

    def health(self) -> Plan[bool]:
        """See `Client.health`."""
        try:
            return not (yield from self._not_ready(self._target.timeout))
        except ServerError:
            return False

    def wait_until_ready(self, timeout: float | None) -> Plan[None]:
        """See `Client.wait_until_ready`."""
        clock = Clock(seconds("timeout", timeout), self._protocol.address)
        pause, reason = _FIRST_PAUSE, ""
        while True:
            left = clock.left(reason)
            try:
                reason = yield from self._not_ready(_POLL_SECONDS if left is None else min(left, _POLL_SECONDS))
            except ServerError as error:
                reason = error.reason
            if not reason:
                return
            left = clock.left(reason)
            yield Pause(pause if left is None else min(pause, left))
            pause = min(2 * pause, 1.0)

    def _not_ready(self, limit):
        """Why no version is available; "" if one is."""
        clock = Clock(limit, self._protocol.address)
        states = yield from self._states(clock, retries=0)
        if any(one["state"] == "AVAILABLE" for one in states.values()):
            return ""
        said = ", ".join(
            f"version {version} is {one['state']} {one['error']}".strip() for version, one in states.items()
        )
        return said or "the model has no version"

    def _states(self, clock, retries=None):
        self._known = None  # who was answered that a new version is available is answered by it next
        return (yield from self._exchange(self._protocol.status, clock, retries))

    def _clock(self):
        return Clock(self._target.timeout, self._protocol.address)

    def _served(self, clock, fresh_seconds=FRESH_SECONDS):
        """The metadata of the version that answers; `fresh_seconds` 0: asked now."""
        known, now = self._known, time.monotonic()  # other threads may set it at any time
        if known is not None and fresh_seconds and now - known[0] <= fresh_seconds:
            return known[1]
        served = yield from self._exchange(self._protocol.metadata, clock)
        if self._target.version not in (None, served["version"]):
            reason = f"version {served['version']} answered where {self._target.version} was asked"
            raise ServerError(self._protocol.address, "INTERNAL", reason)
        self._known = now, served
        return served

    def _predict(self, request, names):
        """{output: array} of all rows, by one version of the model; `request` is a function of its signatures.

        Every request names the version whose metadata were read: its answers are what that version declares, and no two
        of them are from different versions. If it is gone in the meantime, everything begins again, once.
        """
        clock = self._clock()
        for again in (False, True):
            served = yield from self._served(clock, 0 if again else FRESH_SECONDS)
            signature, tensors = request(served["signatures"])
            specs = declared(served, signature, self._protocol.address)
            unknown = [name for name in names if name not in specs["outputs"]]
            if unknown:
                raise UserError(
                    f"signature {signature!r}: expected outputs among {', '.join(specs['outputs'])}, received {unknown[0]!r}"
                )
            arrays, num_rows = chunks.as_declared(signature, tensors, specs["inputs"])
            parts = chunks.cut(arrays, specs["inputs"], num_rows, self._target.max_batch_size)
            single = [name for name in names or specs["outputs"] if not has_rows(specs["outputs"][name])]
            if len(parts) > 1 and single:
                most = self._target.max_batch_size
                raise UserError(
                    f"signature {signature!r}: output {single[0]!r} has no rows, so that all rows are one request: expected at "
                    f"most {most} (max_batch_size), received {num_rows}"
                )
            plans = [
                self._part(clock, served["version"], signature, part, Expected(specs["outputs"], names, count))
                for part, count in parts
            ]
            try:
                answers = yield Together(plans, self._target.parallel)
            except ServerError as error:
                if again or error.code != "NOT_FOUND" or self._target.version is not None:
                    raise
            else:
                return _joined(answers)
        raise AssertionError("the second round returns or raises")

    def _part(self, clock, version, signature, part, expected):
        return self._exchange(lambda: self._protocol.predict(version, signature, part, expected), clock)

    def _exchange(self, make: Callable[[], Request], clock: Clock, retries: int | None = None) -> Plan[Any]:
        """What a request's answer says; it is sent again, a little later each time, while a server cannot answer yet."""
        retries = self._target.retries if retries is None else retries
        request = make()
        for attempt in range(retries + 1):
            try:
                return request.read((yield Send(request, clock.left())))
            except ServerError as error:
                if not error.passing or attempt == retries:
                    raise
                left, pause, reason = clock.left(error.reason), _pause(attempt), error.reason
                if left is not None and pause >= left:
                    raise
            yield Pause(pause)
            clock.left(reason)


def _pause(attempt):
    """Seconds before the next try: twice as long each time, and not the same for all clients of a server that was away."""
    return min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE) * random.uniform(0.5, 1.0)


def _joined(answers):
    """The outputs of all requests in one; those without rows are the same in all."""
    if len(answers) == 1:
        return answers[0]
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}


def _row_shape(name, wanted, given):
    """The shape of an argument's rows, as far as it is the same for all models; latents have the shape that is given."""
    if wanted.dtype == "uint8":
        return (None, None, None)
    if not isinstance(wanted.row, str):
        return wanted.row
    array = as_array(given, name, f"{wanted.dtype} [N, ...]")
    if array.ndim < 2:
        argument = name[name.index("(") + 1 : -1]
        received = f"{array.dtype} {dims(*array.shape)}" + (f"; {argument}[None] is one row" if array.ndim else "")
        raise UserError(f"{name}: expected {wanted.dtype} [N, ...], received {received}")
    return array.shape[1:]
