"""All shards of a job on a Ray cluster: actors that hold the model, and a folder of parts that all its machines share.

Ray Data divides the shards among the actors, and gives the shard of an actor that died to another one. What a shard is, and
its part, are the same as without Ray.
"""

from __future__ import annotations

import functools
import pathlib
from typing import TYPE_CHECKING, Any

from tfcq.errors import UserError
from tfcq.machine import settings
from tfcq.machine.terminal import say

if TYPE_CHECKING:
    from tfcq.bulk.stages import Stage


class ShardActor:
    """Computes the shards that it receives; the class that Ray Data's `map_batches` takes. Arguments as of `Work`."""

    def __init__(self, stage: Stage, parts: int, folder: pathlib.Path) -> None:
        self._arguments = stage, parts, folder

    @functools.cached_property
    def _work(self):
        # Not in the constructor, of whose errors Ray hands on the text alone.
        settings.import_tensorflow()
        from tfcq.bulk.running import Work

        return Work(*self._arguments)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Computes the shards of the numbers in `batch["shard"]`: {"shard": those, "error": a user's mistake in words, or ""}."""
        return {"shard": batch["shard"], "error": [self._error_of(int(index)) for index in batch["shard"]]}

    def _error_of(self, index):
        try:
            self._work.compute(index)
        except UserError as error:
            return str(error)
        return ""


def import_ray() -> Any:
    """The package ray, with ray.data; UserError saying what to install if it cannot be imported."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError(f"ray: the package ray[data] cannot be imported ({error}); pip install 'tfcq[ray]'") from error
    return ray


def run_on_ray(stage: Stage, parts: int, folder: pathlib.Path, actors: int | None = None) -> None:
    """Computes all shards of a stage, on the cluster that this process is connected to or that RAY_ADDRESS names, else on
    this machine alone.

    Args:
        stage: what is computed.
        parts: the number of shards.
        folder: for the parts; an absolute path that is the same folder on all machines.
        actors: how many processes compute, each with a GPU, or with a CPU where the cluster has no GPU; None: as many as it has.

    Raises:
        UserError: Ray is not installed, or what `Work` raises for a shard; the other shards are computed nevertheless.
    """
    ray = import_ray()
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    resources = ray.cluster_resources()
    device = "GPU" if resources.get("GPU") else "CPU"
    actors = min(parts, actors or max(int(resources.get(device, 1)), 1))
    # Not `range`, which is read by tasks: they would wait for a CPU that the actors have.
    numbers = ray.data.from_items([{"shard": index} for index in range(parts)], override_num_blocks=parts)
    shards = numbers.map_batches(
        ShardActor,
        fn_constructor_args=(stage, parts, folder),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=1),
        **{f"num_{device.lower()}s": 1},
    )
    errors = [row["error"] for row in shards.take_all() if row["error"]]
    if errors:
        others = f" ({len(errors)} of {parts} shards failed)" if len(errors) > 1 else ""
        raise UserError(f"{errors[0]}{others}")
    say(f"{folder}: all {parts} parts are there")
