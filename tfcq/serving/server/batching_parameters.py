"""How requests are joined: TF Serving's BatchingParameters, read from a file and checked as there."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from . import text_protos
from .errors import UsageError

# The file in a version's folder that --enable_per_model_batching_parameters reads.
PER_MODEL_FILE = "batching_params.pbtxt"


@dataclasses.dataclass(frozen=True)
class BatchingParameters:
    """The options of batching; the defaults are TF Serving's (`SharedBatchScheduler`).

    Args:
        max_batch_size: the most rows of a request, and of a run of the model unless large requests are split.
        batch_timeout_micros: how long a batch that is not full waits for more rows, in microseconds.
        max_enqueued_batches: the most batches of a signature that wait; a request that needs another one is refused.
        num_batch_threads: how many batches run at a time, of all models together.
        allowed_batch_sizes: a batch is padded to the smallest of these sizes that holds it; empty: no padding.
        enable_large_batch_splitting: whether a request may be run in several parts.
        max_execution_batch_size: the most rows of a run where requests are split; 0: `max_batch_size`.
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = os.cpu_count() or 1
    allowed_batch_sizes: tuple[int, ...] = ()
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int = 0

    @classmethod
    def of_file(cls, path: str, given_as: str) -> BatchingParameters:
        """The parameters in a file in protobuf's text format.

        Args:
            path: the file.
            given_as: how errors name it, such as "--batching_parameters_file=batching.config".

        Raises:
            UsageError: if the file cannot be read, is not a `BatchingParameters`, or asks for what cannot be.
        """
        kind = text_protos.message_class("BatchingParameters", text_protos.BATCHING_PARAMETERS)
        message: Any = text_protos.read(path, given_as, kind())
        if message.pad_variable_length_inputs:
            raise UsageError(
                f"{given_as}: pad_variable_length_inputs is not supported: padding inside of a row would change its answer; "
                "requests are joined only if their rows have one shape"
            )
        given = {
            field.name: getattr(message, field.name).value
            for field in dataclasses.fields(cls)
            if field.name != "allowed_batch_sizes" and message.HasField(field.name)
        }
        parameters = cls(**given, allowed_batch_sizes=tuple(message.allowed_batch_sizes))
        problem = parameters._problem("max_execution_batch_size" in given)
        if problem:
            raise UsageError(f"{given_as}: {problem}")
        return parameters

    @property
    def run_size(self) -> int:
        """The most rows of a run of the model."""
        if not self.enable_large_batch_splitting:
            return self.max_batch_size
        return self.max_execution_batch_size or self.max_batch_size

    def padded(self, num_rows: int) -> int:
        """How many rows the model is run on for a batch of `num_rows`, at most `run_size`."""
        return next((size for size in self.allowed_batch_sizes if size >= num_rows), num_rows)

    def _problem(self, execution_size_given):
        """What is wrong, or None; TF Serving does not start either."""
        for name, lowest in {"max_batch_size": 1, "batch_timeout_micros": 0, "max_enqueued_batches": 1,
                             "num_batch_threads": 1}.items():
            if getattr(self, name) < lowest:
                return f"{name} must be at least {lowest}, received {getattr(self, name)}"
        if execution_size_given:
            if not self.enable_large_batch_splitting:
                return "max_execution_batch_size needs enable_large_batch_splitting { value: true }"
            if not 1 <= self.max_execution_batch_size <= self.max_batch_size:
                return (f"max_execution_batch_size must be between 1 and max_batch_size ({self.max_batch_size}), "
                        f"received {self.max_execution_batch_size}")
        sizes = self.allowed_batch_sizes
        if sizes and (sizes[0] < 1 or any(first >= second for first, second in zip(sizes, sizes[1:]))):
            return f"allowed_batch_sizes must be positive and increase, received {', '.join(map(str, sizes))}"
        if sizes and sizes[-1] != self.run_size:
            name = "max_execution_batch_size" if self.enable_large_batch_splitting else "max_batch_size"
            return f"the last of allowed_batch_sizes must be {name} ({self.run_size}), received {sizes[-1]}"
        return None
