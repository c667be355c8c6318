"""Bounds on what clients keep the REST server busy with: the time of a body or an answer, and the memory of all of them.

A client that sends or reads slowly has `grace_seconds`, and a second more for every `bytes_per_second` that it has sent or read;
but no more than `grace_seconds` without any, since the kernel's buffers take megabytes at once. Where all bodies and answers
together would need more memory than the bound, the slowest one is given up: who sends and reads at a usual rate is served while
others hold on to what they have begun.

All of it runs on the thread of the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from .errors import RequestError

GRACE_SECONDS = 20.0
BYTES_PER_SECOND = 10_000
MAX_HELD_BYTES = 512 * 2**20


class Transfers:
    """All bodies and answers of a server.

    Args:
        max_held_bytes: the bound on their memory together.
        grace_seconds: the time that a transfer has in any case.
        bytes_per_second: how many bytes give it another second.
    """

    def __init__(
        self,
        max_held_bytes: int = MAX_HELD_BYTES,
        grace_seconds: float = GRACE_SECONDS,
        bytes_per_second: float = BYTES_PER_SECOND,
    ) -> None:
        self.max_held_bytes = max_held_bytes
        self.grace_seconds = grace_seconds
        self.bytes_per_second = bytes_per_second
        self.num_held = 0
        self.timed: set[Transfer] = set()  # those that wait for a client now


class Transfer:
    """The memory and the time of one request: first its body is read, then its answer is sent.

    Args:
        transfers: those of the server.
    """

    def __init__(self, transfers: Transfers) -> None:
        self.num_held = 0
        self._all = transfers
        self._given_up = False

    @contextlib.asynccontextmanager
    async def timed(self) -> AsyncIterator[None]:
        """What waits for the client, inside: reading the body, or sending the answer.

        Raises:
            TimeoutError: if the client is too slow.
            RequestError: UNAVAILABLE if it is given up, as others need its memory.
        """
        self._num_moved, self._began = 0, time.monotonic()
        self._start = asyncio.get_running_loop().time()
        self._all.timed.add(self)
        try:
            async with asyncio.timeout_at(self._start + self._all.grace_seconds) as self._limit:
                yield
        except TimeoutError:
            if self._given_up:
                raise _overloaded() from None
            raise
        finally:
            self._all.timed.discard(self)

    def moved(self, count: int) -> None:
        """Counts bytes that were sent or read, inside of `timed`; they give it more time.

        Raises:
            RequestError: UNAVAILABLE if it is given up; its task may run once more before it is cancelled.
        """
        if self._given_up:
            raise _overloaded()
        self._num_moved += count
        earned = self._start + self._num_moved / self._all.bytes_per_second
        self._limit.reschedule(min(earned, asyncio.get_running_loop().time()) + self._all.grace_seconds)

    def hold(self, count: int) -> None:
        """Takes memory for `count` more bytes, from slower transfers if there is no other.

        Raises:
            RequestError: UNAVAILABLE if there is none.
        """
        if self.num_held + count > self._all.max_held_bytes:  # others would be given up in vain
            raise _overloaded()
        while self._all.num_held + count > self._all.max_held_bytes:
            slowest = min((one for one in self._all.timed if one.num_held), key=lambda one: one.rate, default=self)
            if slowest is self:
                raise _overloaded()
            slowest.give_up()
        self.num_held += count
        self._all.num_held += count

    def give_up(self) -> None:
        """Ends what runs inside of `timed`, for others need the memory."""
        self._given_up = True
        self.release()
        self._limit.reschedule(asyncio.get_running_loop().time())

    def release(self) -> None:
        """Gives back all that it holds."""
        self._all.num_held -= self.num_held
        self.num_held = 0

    @property
    def rate(self) -> float:
        """Bytes per second since `timed` was entered."""
        return self._num_moved / max(time.monotonic() - self._began, 1e-6)


def _overloaded():
    return RequestError("UNAVAILABLE", "the requests and answers under way fill the server's memory for them; try again later")
