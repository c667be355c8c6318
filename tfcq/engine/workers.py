"""The processes that train one model together (`tf.distribute.MultiWorkerMirroredStrategy`), seen from one of them.

Every process is a worker; the first one, the chief, alone writes, prints and evaluates. What all of them must do at the same
moment is a method here; a training in one process uses the same methods, which then do nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context  # whether a worker can be reached is known nowhere else

from tfcq.errors import UserError
from tfcq.machine.interruption import NUMBERS, Signals

_Answer = TypeVar("_Answer")

LOST_WORKER_ERRORS = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)
"""What TensorFlow raises where a collective fails: which of them depends on what was running when the peer went."""


CHECK_SECONDS = 2.0
"""The time between two looks at other workers; one that does not answer three times is lost."""

GRACE_SECONDS = 10.0
"""How long a training whose worker is lost may take to end by itself, as by an error of what it waits for."""


class Workers:
    """The workers of a strategy, seen from one of them.

    Args:
        strategy: a `tf.distribute.MultiWorkerMirroredStrategy` that has a cluster; any other strategy, or None, is one worker.

    Attributes:
        count: number of workers.
        index: which of them this one is; the chief is 0.
    """

    def __init__(self, strategy: tf.distribute.Strategy | None = None) -> None:
        self._strategy, self.count, self.index = strategy, 1, 0
        self._signals: Signals | None = None
        self._stop: int | None = None
        self._over = threading.Event()
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            resolver = strategy.cluster_resolver
            self.count, self.index = len(resolver.cluster_spec().job_tasks("worker")), int(resolver.task_id)

    @property
    def is_chief(self) -> bool:
        """Whether this worker opens the folder, writes, prints and evaluates."""
        return self.index == 0

    def __str__(self) -> str:
        return f"worker {self.index} of {self.count}"

    @property
    def count_shown(self) -> str:
        """" of 2 workers"; "" for one."""
        return f" of {self.count} workers" if self.count > 1 else ""

    # What this worker does of a batch.

    def rows(self, batch_size: int) -> range:
        """Numbers of the rows of a batch that this worker reads; `batch_size` is a multiple of `count`."""
        own = batch_size // self.count
        return range(self.index * own, (self.index + 1) * own)

    def distributed(self, batches: tf.data.Dataset) -> tf.data.Dataset | tf.distribute.DistributedDataset:
        """This worker's rows of every batch, [batch_size / count, ...], divided among its own devices.

        TensorFlow would shard a data set by files, or give each worker all rows, so it is not asked to.
        """
        if self.count == 1:
            return batches
        assert self._strategy is not None
        local = self._strategy.num_replicas_in_sync // self.count
        if local > 1:
            batches = batches.rebatch(tf.nest.flatten(batches.element_spec)[0].shape[0] // local)
        return self._strategy.distribute_datasets_from_function(lambda _: batches)

    # What all workers do at the same moment.

    def share(self, text: str) -> list[str]:
        """The texts of all workers, by their index. Waits until every worker has called it."""
        if self.count == 1:
            return [text]
        own = np.frombuffer(text.encode(), np.uint8)
        lengths = self._rows_of_all(np.array([len(own)]))[:, 0]
        texts = self._rows_of_all(np.pad(own, (0, lengths.max() - len(own) + 1)))
        return [row[:length].astype(np.uint8).tobytes().decode() for row, length in zip(texts, lengths)]

    def _rows_of_all(self, row):
        """int32 [count, n], from this worker's row of whole numbers [n]."""
        rows = np.zeros((self.count, len(row)), np.int32)
        rows[self.index] = row
        assert self._strategy is not None
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, tf.constant(rows), axis=None).numpy()

    def agree(self, facts: Mapping[str, str]) -> None:
        """Compares facts, {what it is: text}, with those of the chief.

        Raises:
            UserError: on every worker, where one differs.
        """
        chief, *others = (json.loads(text) for text in self.share(json.dumps({**facts})))
        for number, other in enumerate(others, 1):
            for name in [*chief, *(other.keys() - chief.keys())]:
                mine, theirs = (_shown(one.get(name, "nothing")) for one in (chief, other))
                if chief.get(name) != other.get(name):
                    raise UserError(
                        f"worker {number} of {self.count} has another {name} than the chief: {theirs} instead of {mine}; all "
                        "workers need the same command, versions, images and workdir"
                    )

    def each(self, work: Callable[[], _Answer]) -> _Answer:
        """The result of `work()`, which every worker does; in it they may not wait for each other.

        Raises:
            UserError, OSError, tf.errors.OpError: the one of `work`, and on every other worker a UserError that names it, so
                that none waits for one that has ended.
        """
        if self.count == 1:
            return work()
        own, answer = None, None
        try:
            answer = work()
        except (UserError, OSError, tf.errors.OpError) as error:
            own = error
        reason = "" if own is None else str(own) if isinstance(own, UserError) else first_words(own)
        for number, text in enumerate(self.share(reason)):
            if text:
                raise own or UserError(f"worker {number} of {self.count}: {text}")
        return answer  # type: ignore[return-value]  # work() was called

    # A worker that is lost.

    def lost(self, seconds: float = 0.0) -> int | None:
        """A worker that cannot be reached; None: there is none. The chief looks at all others, these at the chief.

        `seconds`: how long it looks, if all answer.
        """
        ends = time.monotonic() + seconds
        while True:
            for number in range(1, self.count) if self.is_chief else (0,):
                if not _answers(number):
                    return number
            if time.monotonic() >= ends:
                return None
            time.sleep(1.0)

    @contextlib.contextmanager
    def watched(self, end: Callable[[int], object]) -> Iterator[None]:
        """A context in which a thread watches the other workers, until `part`.

        TensorFlow finds out that a worker is gone only where it waits for it, and not while a large graph is traced.

        Args:
            end: called with the number of a lost worker, in that thread, if the context does not end by itself meanwhile.
        """
        if self.count == 1:
            yield
            return

        def watch():
            failures = 0
            while not self._over.wait(CHECK_SECONDS):
                number = self.lost()
                failures = 0 if number is None else failures + 1
                if number is not None and failures == 3 and not self._over.wait(GRACE_SECONDS):
                    end(number)

        thread = threading.Thread(target=watch, name="watch of the other workers", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.part()

    def part(self) -> None:
        """Ends the watch: from here on no worker waits for another, and each may take its own time to end."""
        self._over.set()

    # Signals: one that any worker received ends all at the same step.

    def listen(self, signals: Signals) -> None:
        """Takes this worker's signals from `signals`."""
        self._signals = signals

    @property
    def stop(self) -> int | None:
        """The number of the signal that ends the training: this process's, or, with several workers, one that all know of."""
        if self.count > 1:
            return self._stop
        return self._signals.received if self._signals else None

    def flags(self) -> list[float]:
        """1.0 for each of `interruption.NUMBERS` that this worker received, else 0.0; [] if there is no other worker."""
        received = self._signals.received if self._signals else None
        return [float(number == received) for number in NUMBERS] if self.count > 1 else []

    def hear(self, flags: Iterable[float]) -> None:
        """Takes the sum or mean of all workers' `flags`."""
        received = [int(number) for number, flag in zip(NUMBERS, flags) if flag > 0]
        self._stop = self._stop or next(iter(received), None)

    def wait(self) -> None:
        """Waits for all workers; afterwards they know of each other's signals."""
        if self.count > 1:
            self.hear(self._rows_of_all(np.array(self.flags())).sum(axis=0))


def _answers(worker: int) -> bool:
    try:
        context.context().check_collective_ops_peer_health(f"/job:worker/replica:0/task:{worker}", timeout_in_ms=15000)
    except tf.errors.OpError:
        return False
    return True


def digest_of(variables: Iterable[tf.Variable]) -> str:
    """A digest of the values of variables, in their order."""
    digest = hashlib.sha256()
    for variable in variables:
        digest.update(tf.convert_to_tensor(variable).numpy().tobytes())
    return digest.hexdigest()


def first_words(error: Exception) -> str:
    """What an error says, in a line of at most 200 characters; its class, if it says nothing."""
    return " ".join(str(getattr(error, "message", None) or error).split())[:200] or type(error).__name__


def _shown(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:16]}..."
