"""Batching as TF Serving's: concurrent requests that ask the same of one model are joined into one run of it.

A `Scheduler` has the threads that run batches, for all models. A `Batcher` has the queue of one version of a model. It joins
requests of one signature that ask for the same outputs and whose inputs have the same names, dtypes and shapes of a row. If a
batch fails, its halves are run one after the other, and so on: a request that is refused fails alone.
"""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from collections.abc import Callable, Hashable, Iterable
from contextlib import AbstractContextManager
from typing import TypeAlias

import numpy as np
from absl import logging

from .batching_parameters import BatchingParameters
from .errors import RequestError, code_and_reason, invalid

MAX_WAIT_SECONDS = 60  # a longer wait is several

Arrays: TypeAlias = dict[str, np.ndarray]

Run: TypeAlias = Callable[[str, Arrays, Iterable[str], float | None], Arrays]
"""A run of the model: signature, inputs [N, ...], outputs wanted (empty: all), deadline (`time.monotonic()`) -> outputs."""


class Scheduler:
    """The threads that run batches. Queues take turns, as in TF Serving's SharedBatchScheduler.

    Args:
        num_threads: how many batches run at a time.
    """

    def __init__(self, num_threads: int) -> None:
        self.changed = threading.Condition()  # guards the queues of all batchers
        self._waiting: list[Batcher] = []  # those with batches that wait, in the order of their turns
        self._stopped = False
        self._threads = [threading.Thread(target=self._work, name=f"batch-{n}", daemon=True) for n in range(num_threads)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends the threads when nothing waits any more; batches that wait are run at once."""
        with self.changed:
            self._stopped = True
            self.changed.notify_all()

    def join(self) -> None:
        """Waits, after `stop`, for the runs that have begun: a process that ends inside of TensorFlow crashes."""
        for thread in self._threads:
            thread.join()

    def announce(self, batcher: Batcher) -> None:
        """Says, with `changed` held, that a batcher has a new batch or one that is full now."""
        if batcher not in self._waiting:
            self._waiting.append(batcher)
        self.changed.notify()

    def _work(self):
        while True:
            with self.changed:
                batch = self._next()
                if self._waiting:
                    self.changed.notify()  # another thread watches over what waits
            if batch is None:
                return
            try:
                batch.run()
            except Exception:  # no request may wait without end, and no thread be lost
                logging.exception("a batch failed")
            finally:
                batch.end()
            del batch  # an idle thread keeps no request's tensors

    def _next(self):
        """The next batch whose time has come; None when the scheduler has stopped and nothing waits."""
        while True:
            now, soonest = time.monotonic(), None
            for batcher in self._waiting:
                batch, due = batcher.take(now, self._stopped)
                if batch is not None:
                    self._waiting.remove(batcher)
                    if batcher.num_waiting:
                        self._waiting.append(batcher)
                    return batch
                soonest = due if soonest is None else min(soonest, due)
            if self._stopped and not self._waiting:
                return None
            self.changed.wait(None if soonest is None else min(soonest - now, MAX_WAIT_SECONDS))

    def forget(self, batcher: Batcher) -> None:
        """Says, with `changed` held, that nothing of a batcher waits any more."""
        if batcher in self._waiting:
            self._waiting.remove(batcher)


class Batcher:
    """The queue of one version of a model.

    Args:
        parameters: how requests are joined.
        scheduler: runs the batches.
    """

    def __init__(self, parameters: BatchingParameters, scheduler: Scheduler) -> None:
        self._parameters = parameters
        self._scheduler = scheduler
        self._full: collections.deque[_Batch] = collections.deque()
        self._open: dict[Hashable, _Batch] = {}  # in the order of their beginning; they all wait equally long
        self._num_batches: collections.Counter[str] = collections.Counter()  # {signature: batches that wait}

    @property
    def num_waiting(self) -> int:
        """The number of batches that wait."""
        return len(self._full) + len(self._open)

    def predict(
        self,
        run: Run,
        signature_name: str,
        inputs: Arrays,
        output_filter: Iterable[str] = (),
        deadline: float | None = None,
        ended_by: Callable[[Callable[[], object]], AbstractContextManager[None]] = lambda _: contextlib.nullcontext(),
    ) -> Arrays:
        """Runs the model on a request's inputs, together with those of others; returns when it is answered.

        Args:
            run: the model. Of the requests of a batch, that of the first one is called.
            signature_name: the signature; "" is one of its own.
            inputs: {input name: array [N, ...]}. Unless they have one N, which is not 0, the request is run alone.
            output_filter: the outputs wanted, empty for all.
            deadline: in `time.monotonic()` seconds; None: none.
            ended_by: given a function that ends the wait, the context in which the caller may call it (`stopping.ended_by`).

        Returns:
            {output name: array [N, ...]}; the arrays may be parts of larger ones.

        Raises:
            RequestError: INVALID_ARGUMENT for more than `max_batch_size` rows; UNAVAILABLE if the queue is full;
                DEADLINE_EXCEEDED; CANCELLED; FAILED_PRECONDITION if an output does not have a row for each row of the inputs;
                what `run` raises for this request.
        """
        output_filter = tuple(output_filter)
        num_rows = _num_rows(inputs)
        if not num_rows:
            return run(signature_name, inputs, output_filter, deadline)
        limit = self._parameters.max_batch_size
        if num_rows > limit:
            raise invalid(f"signature {signature_name!r}: {num_rows} rows are more than max_batch_size, {limit}; ask for fewer"
                          " at a time")
        request = _Request(inputs, num_rows, deadline)
        rows_of = tuple((name, array.dtype, array.shape[1:]) for name, array in sorted(inputs.items()))
        request.check_time()
        with ended_by(request.cancel):
            with self._scheduler.changed:
                self._enqueue(request, run, signature_name, output_filter, (signature_name, output_filter, rows_of))
            in_time = request.wait()
        if not in_time or request.cancelled:
            with self._scheduler.changed:
                self._withdraw(request)
        if not in_time:
            raise _too_late()
        return request.answer()

    def pad_and_run(self, run: Run, signature_name: str, inputs: Arrays, output_filter: Iterable[str] = ()) -> Arrays:
        """Runs the model as for a batch of this request alone, at once."""
        request = _Request(inputs, _num_rows(inputs), None)
        if not 0 < request.num_rows <= self._parameters.run_size:
            return run(signature_name, inputs, output_filter, None)
        batch = _Batch(self._parameters, run, signature_name, tuple(output_filter), None)
        batch.add(request, 0, request.num_rows)
        batch.run()
        return request.answer()

    def take(self, now: float, at_once: bool) -> tuple[_Batch | None, float]:
        """With `Scheduler.changed` held: the next batch to run, or None and the time at which there will be one."""
        first_open = next(iter(self._open.values()), None)
        due = first_open.due if first_open is not None else np.inf
        batch = self._full[0] if self._full else None
        if first_open is not None and (due <= now or at_once) and (batch is None or due < batch.due):
            batch = first_open
        if batch is not None:
            self._remove(batch)
        return batch, due

    def _enqueue(self, request, run, signature_name, output_filter, key):
        """Puts a request's rows into the open batch of its key, and into new ones."""
        size = self._parameters.run_size
        batch: _Batch | None = self._open.get(key)
        space = size - batch.num_rows if batch is not None else 0
        if not self._parameters.enable_large_batch_splitting and space < request.num_rows:
            space = 0
        missing = -(-max(request.num_rows - space, 0) // size)
        most = self._parameters.max_enqueued_batches
        if self._num_batches[signature_name] + missing > most:
            raise RequestError("UNAVAILABLE", f"signature {signature_name!r}: its batching queue is full, {most} batches wait"
                               " (max_enqueued_batches); try again later")
        if batch is not None and not space:
            self._close(batch)
            batch = None
        start = 0
        while start < request.num_rows:
            if batch is None:
                batch, space = _Batch(self._parameters, run, signature_name, output_filter, key), size
                self._open[key] = batch
                self._num_batches[signature_name] += 1
            rows = min(space, request.num_rows - start)
            batch.add(request, start, rows)
            start, space = start + rows, space - rows
            if not space:
                self._close(batch)
                batch = None
        self._scheduler.announce(self)

    def _close(self, batch):
        del self._open[batch.key]
        self._full.append(batch)

    def _remove(self, batch):
        if batch.key in self._open and self._open[batch.key] is batch:
            del self._open[batch.key]
        else:
            self._full.remove(batch)
        self._num_batches[batch.signature_name] -= 1
        if not self._num_batches[batch.signature_name]:
            del self._num_batches[batch.signature_name]
        batch.waits = False

    def _withdraw(self, request):
        """Takes a request out of the batches that wait."""
        for batch in [batch for batch in request.batches if batch.waits]:
            batch.drop(request)
            if not batch.parts:
                self._remove(batch)
        if not self.num_waiting:
            self._scheduler.forget(self)


class _Request:
    """A request: its inputs, and its answer, part by part."""

    def __init__(self, inputs, num_rows, deadline):
        self.inputs, self.num_rows, self.deadline = inputs, num_rows, deadline
        self.done = threading.Event()
        self.cancelled = False
        self.batches: list[_Batch] = []
        self._missing = num_rows
        self._parts: dict[int, Arrays] = {}  # {first row: outputs}
        self._error: RequestError | None = None
        self._lock = threading.Lock()  # parts may be answered by several threads

    def check_time(self):
        if self.deadline is not None and self.deadline <= time.monotonic():
            raise _too_late()

    def wait(self):
        """Whether the request was answered or cancelled before its deadline."""
        remaining = None if self.deadline is None else max(self.deadline - time.monotonic(), 0)
        return self.done.wait(remaining if remaining is None else min(remaining, threading.TIMEOUT_MAX))

    def cancel(self):
        """Ends the wait; what has begun to run goes on for the others."""
        with self._lock:
            if not self.done.is_set():
                self.cancelled = True
                self._error = RequestError("CANCELLED", "the caller has cancelled the request")
                self.done.set()

    def put(self, start, num_rows, outputs=None, error=None):
        """Adds the outputs of some rows, or the error of their run. Only code and reason of an error are kept, as its traceback
        holds the tensors of the whole batch."""
        with self._lock:
            if error is not None:
                self._error = self._error or RequestError(error.code, error.reason)
            else:
                self._parts[start] = outputs
            self._missing -= num_rows
            if self._missing <= 0:  # `end` may answer rows once more
                self.done.set()

    def answer(self):
        if self._error is not None:
            raise RequestError(self._error.code, self._error.reason)
        parts = [outputs for _, outputs in sorted(self._parts.items())]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class _Batch:
    """Rows of requests that are run together."""

    def __init__(self, parameters, run, signature_name, output_filter, key):
        self._parameters, self._run = parameters, run
        self.signature_name, self.output_filter, self.key = signature_name, output_filter, key
        self.due = time.monotonic() + parameters.batch_timeout_micros * 1e-6
        self.parts: list[tuple[_Request, int, int]] = []  # (request, its first row, number of rows)
        self.num_rows = 0
        self.waits = True

    def add(self, request, start, num_rows):
        self.parts.append((request, start, num_rows))
        self.num_rows += num_rows
        request.batches.append(self)

    def drop(self, request):
        self.parts = [part for part in self.parts if part[0] is not request]
        self.num_rows = sum(num_rows for _, _, num_rows in self.parts)

    def run(self):
        """Runs the model, and hands every request its rows."""
        now, in_time = time.monotonic(), []
        for part in self.parts:
            request, start, num_rows = part
            if request.deadline is not None and request.deadline <= now:
                request.put(start, num_rows, error=_too_late())
            else:
                in_time.append(part)
        if in_time:
            self._answer(in_time)
        self.parts = []

    def end(self):
        """Fails the requests that an error of this module left without an answer."""
        for request, start, num_rows in self.parts:
            if not request.done.is_set():
                request.put(start, num_rows, error=RequestError("INTERNAL", "the batch of this request failed"))
        self.parts = []

    def _answer(self, parts):
        outputs, problem, common = self._attempt(parts)
        if problem is not None and len(parts) > 1 and not common:
            self._answer(parts[: len(parts) // 2])
            self._answer(parts[len(parts) // 2 :])
            return
        first = 0
        for request, start, num_rows in parts:
            if problem is not None:
                request.put(start, num_rows, error=problem)
            else:
                rows = slice(first, first + num_rows)
                request.put(start, num_rows, {name: array[rows] for name, array in outputs.items()})
            first += num_rows

    def _attempt(self, parts):
        """(outputs, None, False) of a run, or (None, error, whether all of these requests have it); nothing else of an error is
        kept, as its traceback holds the tensors of the run."""
        try:
            outputs = self._outputs(parts)
        except Exception as error:
            code, reason = code_and_reason(error)
            # The deadline of a run is that of its last request.
            return None, RequestError(code, reason), code == "DEADLINE_EXCEEDED"
        problem = self._not_in_rows(outputs, sum(num_rows for *_, num_rows in parts))
        return outputs, problem, problem is not None

    def _outputs(self, parts):
        """The outputs of a run on the rows of all parts, and on copies of a row that pad them."""
        padding = self._parameters.padded(sum(num_rows for *_, num_rows in parts)) - sum(num_rows for *_, num_rows in parts)
        inputs = {}
        for name in parts[0][0].inputs:
            arrays = [request.inputs[name][start : start + num_rows] for request, start, num_rows in parts]
            if padding:
                arrays.append(np.repeat(arrays[-1][:1], padding, axis=0))
            inputs[name] = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        deadlines = [request.deadline for request, *_ in parts]
        deadline = None if None in deadlines else max(deadlines)
        return self._run(self.signature_name, inputs, self.output_filter, deadline)

    def _not_in_rows(self, outputs, num_rows):
        """The error of a model whose outputs are not [N, ...], or None."""
        size = self._parameters.padded(num_rows)
        for name, array in outputs.items():
            if array.ndim == 0 or len(array) != size:
                return RequestError(
                    "FAILED_PRECONDITION",
                    f"signature {self.signature_name!r} cannot be batched: for {size} rows output {name!r} has shape "
                    f"{list(array.shape)}, expected [{size}, ...]; serve it without --enable_batching",
                )
        return None


def _num_rows(inputs):
    """N if all inputs are [N, ...], else 0."""
    counts = {len(array) if array.ndim else 0 for array in inputs.values()}
    return counts.pop() if len(counts) == 1 else 0


def _too_late():
    return RequestError("DEADLINE_EXCEEDED", "the deadline of the request passed while it waited for its batch")
