"""All shards of a job on a Ray cluster: actors that hold the model, and a folder of parts that all its machines share.

Ray Data divides the shards among the actors, and gives the shard of an actor that died to another one. What a shard is, and
its part, are the same as without Ray.
"""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

from tfcq.errors import UserError
from tfcq.machine import settings

if TYPE_CHECKING:
    from tfcq.bulk.stages import Stage


class ShardActor:
    """Computes the shards that it receives; the class that Ray Data's `map_batches` takes. Arguments as of `Work`."""

    def __init__(self, stage: Stage, parts: int, folder: pathlib.Path) -> None:
        settings.import_tensorflow()
        from tfcq.bulk.running import Work

        self._work = Work(stage, parts, folder)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Computes the shards of the numbers in `batch["id"]`, and returns `batch`."""
        for index in batch["id"]:
            self._work.compute(int(index))
        return batch


def run_on_ray(stage: Stage, parts: int, folder: pathlib.Path, actors: int | None = None) -> None:
    """Computes all shards of a stage, on the cluster that this process is connected to or that RAY_ADDRESS names, else on
    this machine alone.

    Args:
        stage: what is computed.
        parts: the number of shards.
        folder: for the parts; an absolute path that is the same folder on all machines.
        actors: how many processes compute, each with one CPU; None: one for each CPU of the cluster.

    Raises:
        UserError: Ray is not installed, or what `Work` raises.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError(f"ray: the package ray[data] cannot be imported ({error}); pip install 'tfcq[ray]'") from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    actors = min(parts, actors or max(int(ray.cluster_resources().get("CPU", 1)), 1))
    shards = ray.data.range(parts, override_num_blocks=parts).map_batches(
        ShardActor,
        fn_constructor_args=(stage, parts, folder),
        batch_size=1,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=1),
        max_restarts=-1,
        max_task_retries=-1,
    )
    try:
        shards.materialize()
    except ray.exceptions.RayError as error:
        if isinstance(cause := getattr(error, "cause", None), UserError):
            raise UserError(str(cause)) from error
        raise
