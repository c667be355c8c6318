"""`tfcq.Client` for asyncio: the same methods, to be awaited.

    async with AsyncClient.grpc("localhost:8500", model="cqf", parallel=4) as client:
        images = await client.sample(256)
        bits = await asyncio.gather(*(client.bits_per_dim(images, seed=seed) for seed in range(3)))

gRPC needs grpcio and protobuf, REST needs httpx.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from tfcq.serving.client.answers import ServerError
from tfcq.serving.client.calls import Pause, Plan, Send
from tfcq.serving.client.client import TIMEOUT_SECONDS, AnyClient
from tfcq.serving.client.targets import Target
from tfcq.serving.client.transports import AsyncGrpcTransport, AsyncRestTransport

__all__ = ["AsyncClient", "ServerError"]


class AsyncClient(AnyClient):
    """A model behind an address, asked with asyncio. Make one with `AsyncClient.grpc` or `AsyncClient.rest`.

    Its methods are those of `tfcq.Client`, with the same arguments and results. Any number of calls may be under way at a time.
    In another event loop it opens connections of its own.
    """

    _transports = {"grpc": AsyncGrpcTransport, "rest": AsyncRestTransport}

    def __init__(self, kind: str, target: Target) -> None:
        super().__init__(kind, target)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections; calls after it are refused."""
        self._closed = True
        if self._loop is asyncio.get_running_loop():
            await self._transport.close()

    async def sample(
        self, num_images: int | None = None, seeds: ArrayLike | None = None, temperature: ArrayLike = 1.0, seed: int = 0
    ) -> np.ndarray:
        """As `tfcq.Client.sample`."""
        return await self._run(self._calls.sample(num_images, seeds, temperature, seed))

    async def log_prob(self, images: Any, seeds: ArrayLike | None = None, seed: int = 0) -> np.ndarray:
        """As `tfcq.Client.log_prob`."""
        answers = await self._run(self._calls.endpoint("likelihood", {"images": images}, seeds, seed, "log_prob"))
        return answers["log_prob"]

    async def bits_per_dim(self, images: Any, seeds: ArrayLike | None = None, seed: int = 0) -> np.ndarray:
        """As `tfcq.Client.bits_per_dim`."""
        answers = await self._run(self._calls.endpoint("likelihood", {"images": images}, seeds, seed, "bits_per_dim"))
        return answers["bits_per_dim"]

    async def predict(
        self, signature: str, inputs: Mapping[str, ArrayLike], output_filter: Sequence[str] = ()
    ) -> dict[str, np.ndarray]:
        """As `tfcq.Client.predict`."""
        return await self._run(self._calls.predict(signature, inputs, output_filter))

    async def metadata(self) -> dict[str, Any]:
        """As `tfcq.Client.metadata`."""
        return await self._run(self._calls.metadata())

    async def class_names(self) -> tuple[str, ...]:
        """As `tfcq.Client.class_names`."""
        return await self._run(self._calls.class_names())

    async def status(self) -> dict[int, dict[str, str]]:
        """As `tfcq.Client.status`."""
        return await self._run(self._calls.status())

    async def health(self) -> bool:
        """As `tfcq.Client.health`."""
        return await self._run(self._calls.health())

    async def wait_until_ready(self, timeout: float | None = TIMEOUT_SECONDS) -> None:
        """As `tfcq.Client.wait_until_ready`."""
        await self._run(self._calls.wait_until_ready(timeout))

    async def _run(self, plan: Plan[Any]) -> Any:
        self._check_open()
        if self._loop is not asyncio.get_running_loop():  # connections belong to a loop
            if self._loop is not None:
                self._transport = self._transports[self._kind](self._target)
            self._loop = asyncio.get_running_loop()
        result, error = None, None
        try:
            while True:
                try:
                    step = plan.send(result) if error is None else plan.throw(error)
                except StopIteration as end:
                    return end.value
                result = error = None
                try:
                    result = await self._take(step)
                except ServerError as failed:
                    error = failed
        finally:
            error = None  # its traceback has this frame, which would keep it

    async def _take(self, step):
        """The result of a step."""
        if isinstance(step, Send):
            try:
                return await self._transport.send(step.request, step.seconds)
            except (asyncio.CancelledError, Exception):
                task = asyncio.current_task()
                if task is None or not task.cancelling():  # gRPC cancels calls, not tasks, where its channel is closed
                    self._check_open()
                raise
        if isinstance(step, Pause):
            return await asyncio.sleep(step.seconds)
        free = asyncio.Semaphore(step.most)

        async def run(plan):
            async with free:
                return await self._run(plan)

        tasks = [asyncio.ensure_future(run(plan)) for plan in step.plans]
        try:
            return await asyncio.gather(*tasks)
        finally:  # one failed, or the caller no longer waits
            for task in tasks:
                task.cancel()
