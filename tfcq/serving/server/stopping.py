"""What ends a run of a model before it has finished: its deadline, or a caller that does not want the answer any more.

TensorFlow asks whether a run is cancelled at each turn of a loop (`tf.while_loop`, `tf.map_fn`), not between other operations:
a graph without loops runs to its end.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import tensorflow as tf
from tensorflow.python.eager import cancellation

from .errors import RequestError


class _Thread(threading.local):
    """What belongs to the thread that runs a model."""

    manager: cancellation.CancellationManager | None = None
    call: Call | None = None


_thread = _Thread()

# TensorFlow has one slot for the manager of all threads: two requests at a time would end each other.
cancellation.context = lambda: _thread.manager


class Call:
    """A request whose caller may give it up, in whatever thread it is answered.

        call = Call()
        with call.answered():             # in the thread that answers
            servable.predict(...)
        call.cancel()                     # in another one, at any time
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = False
        self._end: Callable[[], object] | None = None

    def cancel(self) -> None:
        """Ends what the call is in, the run of a model or the wait for a batch, and what it would begin, with CANCELLED."""
        with self._lock:
            self._cancelled = True
            if self._end is not None:
                self._end()

    @contextlib.contextmanager
    def answered(self) -> Iterator[None]:
        """In this context runs of models in this thread belong to the call."""
        _thread.call = self
        try:
            yield
        finally:
            _thread.call = None

    @contextlib.contextmanager
    def ended_by(self, end: Callable[[], object]) -> Iterator[None]:
        """In this context `cancel` calls a function, from its own thread.

        Raises:
            RequestError: CANCELLED if the call has been given up.
        """
        with self._lock:
            if self._cancelled:
                raise RequestError("CANCELLED", "the caller has cancelled the request")
            self._end = end
        try:
            yield
        finally:
            with self._lock:
                self._end = None


def ended_by(end: Callable[[], object]) -> contextlib.AbstractContextManager[None]:
    """`Call.ended_by` of the call that this thread answers; nothing if it answers none."""
    return contextlib.nullcontext() if _thread.call is None else _thread.call.ended_by(end)


class Calls:
    """Calls that are given up together, at the end of a server, in whatever threads they are answered."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: set[Call] = set()
        self._cancelled = False

    @contextlib.contextmanager
    def answered(self) -> Iterator[None]:
        """In this context runs of models in this thread are one of the calls."""
        call = Call()
        with self._lock:
            self._under_way.add(call)
            if self._cancelled:
                call.cancel()
        try:
            with call.answered():
                yield
        finally:
            with self._lock:
                self._under_way.discard(call)

    def cancel(self) -> None:
        """Ends the calls under way, and those that would begin, with CANCELLED."""
        with self._lock:
            self._cancelled = True
            for call in self._under_way:
                call.cancel()


class _Watch:
    """Cancels runs at their deadlines, on one thread for all of them, which starts with the first."""

    def __init__(self):
        self._changed = threading.Condition()
        self._deadlines: dict[cancellation.CancellationManager, float] = {}  # as many as there are runs at this moment
        self._wakes_at = float("inf")
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def over(self, manager, deadline):
        with self._changed:
            self._deadlines[manager] = deadline
            if deadline < self._wakes_at:
                self._wakes_at = deadline
                self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="deadlines", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._changed:
                self._deadlines.pop(manager, None)

    def _run(self):
        with self._changed:
            while True:
                now = time.monotonic()
                if now < self._wakes_at:  # it sleeps on though that run may have ended: being woken for each would cost more
                    self._changed.wait(min(self._wakes_at - now, threading.TIMEOUT_MAX))
                    continue
                for manager in [manager for manager, deadline in self._deadlines.items() if deadline <= now]:
                    manager.start_cancel()
                    del self._deadlines[manager]
                self._wakes_at = min(self._deadlines.values(), default=float("inf"))


_watch = _Watch()


@contextlib.contextmanager
def until(deadline: float | None) -> Iterator[None]:
    """In this context TensorFlow's functions end at a deadline, or when the `Call` of this thread is cancelled.

    Args:
        deadline: seconds of `time.monotonic()`; None: no deadline.

    Raises:
        RequestError: DEADLINE_EXCEEDED if it has passed, at the beginning or in a function; CANCELLED likewise.
    """
    if deadline is not None and time.monotonic() >= deadline:
        raise _exceeded()
    manager = cancellation.CancellationManager()
    with contextlib.ExitStack() as stack:
        stack.enter_context(ended_by(manager.start_cancel))
        if deadline is not None:
            stack.enter_context(_watch.over(manager, deadline))
        _thread.manager = manager
        try:
            yield
        except tf.errors.CancelledError as error:
            if deadline is not None and time.monotonic() >= deadline:
                raise _exceeded() from error
            raise RequestError("CANCELLED", "the run of the model was cancelled") from error
        finally:
            _thread.manager = None


def _exceeded():
    return RequestError("DEADLINE_EXCEEDED", "the deadline of the request passed before the model had finished")
