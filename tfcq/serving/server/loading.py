"""How versions are loaded: with batching, warm-up and retries as the flags say."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from absl import logging

from . import stopping
from .batching import Batcher, Scheduler
from .batching_parameters import PER_MODEL_FILE, BatchingParameters
from .errors import as_request_error
from .servable import DEFAULT_SIGNATURE, Servable

PAUSE_SECONDS = 0.1  # between two looks at whether the server is to end


@dataclasses.dataclass(frozen=True)
class LoadOptions:
    """What the flags say about loading.

    Args:
        batching: how requests are joined; None: they are not.
        per_model: whether a version's own file `batching_params.pbtxt` says how its requests are joined, and not at all without
            one. `batching` then gives the number of threads alone, as in TF Serving.
        num_warm_ups: how many times the recorded requests are replayed; 0: never.
        num_retries: how many times a version that does not load is tried again at once.
        retry_seconds: the pause before each of them.
        is_ending: whether the server is about to end, so that nothing is tried again.
    """

    batching: BatchingParameters | None = None
    per_model: bool = False
    num_warm_ups: int = 1
    num_retries: int = 0
    retry_seconds: float = 60.0
    is_ending: Callable[[], bool] = lambda: False

    @classmethod
    def of(cls, options: Any) -> LoadOptions:
        """Those in the options of a `LocalServer`."""
        return cls(
            options.batching, options.per_model_batching, options.num_warm_ups, options.num_load_retries,
            options.load_retry_seconds, options.is_ending,
        )


class LoadedServable(Servable):
    """A `Servable` whose requests may be joined with each other, and that is warmed up as the flags say.

    Args:
        path: the version's directory.
        batcher: joins the requests; None: each is run by itself.
        runs: what runs of joined requests belong to, so that they can be ended; None: nothing ends them.
        num_warm_ups: see `LoadOptions`.

    Raises:
        Exception: any error of TensorFlow for a SavedModel that it cannot read.
    """

    def __init__(
        self, path: str, batcher: Batcher | None = None, runs: stopping.Calls | None = None, num_warm_ups: int = 1
    ) -> None:
        super().__init__(path)
        self._batcher, self._runs = batcher, runs or stopping.Calls()
        self._num_warm_ups = num_warm_ups
        self._is_warming_up = False

    def predict(
        self,
        signature_name: str,
        inputs: dict[str, np.ndarray],
        output_filter: Iterable[str] = (),
        deadline: float | None = None,
    ) -> dict[str, np.ndarray]:
        """Runs a signature, as `Servable.predict`; together with the requests of other threads where there is a batcher.

        Raises:
            RequestError: what `Servable.predict` and `Batcher.predict` raise.
        """
        run = super().predict
        if self._batcher is None:
            return run(signature_name, inputs, output_filter, deadline)
        self.input_specs(signature_name)  # an unknown signature has no queue
        signature_name = signature_name or DEFAULT_SIGNATURE
        inputs = {name: np.asarray(array) for name, array in inputs.items()}
        if self._is_warming_up:
            return self._batcher.pad_and_run(run, signature_name, inputs, output_filter)
        return self._batcher.predict(self._run_of_batch, signature_name, inputs, output_filter, deadline, stopping.ended_by)

    def _run_of_batch(self, *arguments):
        with self._runs.answered():  # in a thread of the scheduler, where there is no call of a client
            return super().predict(*arguments)

    def warm_up(self) -> int:
        """Replays the recorded requests as often as the flags say; returns their number, as `Servable.warm_up`."""
        replayed, self._is_warming_up = 0, True
        for _ in range(self._num_warm_ups):
            replayed = super().warm_up()
        self._is_warming_up = False
        return replayed


class Loader:
    """Loads versions; a `ModelManager` calls it.

    Args:
        options: see `LoadOptions`.
    """

    def __init__(self, options: LoadOptions) -> None:
        self._options = options
        self._scheduler = Scheduler(options.batching.num_batch_threads) if options.batching else None
        self._runs = stopping.Calls()

    def __call__(self, path: str) -> LoadedServable:
        """The version in a directory.

        Raises:
            UsageError: if its own batching parameters are wrong.
            Exception: any error of TensorFlow for a SavedModel that it cannot read, after all retries.
        """
        retries = self._options.num_retries
        while True:
            try:
                return LoadedServable(path, self._batcher(path), self._runs, self._options.num_warm_ups)
            except Exception as error:
                if retries == 0 or self._options.is_ending():
                    raise
                reason = as_request_error(error).reason
                logging.warning("%s does not load, and is tried again %d times: %s", path, retries, reason)
            retries -= 1
            self._pause()

    def stop(self) -> None:
        """Ends the threads of batching; what waits or runs there is of no use to anybody any more."""
        self._runs.cancel()
        if self._scheduler is not None:
            self._scheduler.stop()
            self._scheduler.join()

    def _batcher(self, path):
        parameters = self._options.batching
        if parameters is not None and self._options.per_model:
            file = os.path.join(path, PER_MODEL_FILE)
            parameters = BatchingParameters.of_file(file, file) if os.path.exists(file) else None
        return Batcher(parameters, self._scheduler) if parameters and self._scheduler else None

    def _pause(self):
        end = time.monotonic() + self._options.retry_seconds
        while time.monotonic() < end and not self._options.is_ending():
            time.sleep(min(PAUSE_SECONDS, max(end - time.monotonic(), 0)))
