"""The machines that train one model together, as the environment names them. No TensorFlow."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

from tfcq.errors import UserError


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of a training.

    Attributes:
        workers: "host:port" of each worker, the chief first.
        index: which of them this process is.
    """

    workers: tuple[str, ...]
    index: int

    def tf_config(self) -> str:
        """TensorFlow's variable TF_CONFIG for this worker, JSON."""
        cluster, task = {"worker": list(self.workers)}, {"type": "worker", "index": self.index}
        return json.dumps({"cluster": cluster, "task": task})


def from_environment(environ: Mapping[str, str]) -> Cluster | None:
    """The cluster that TF_CONFIG names, of its jobs `chief` and `worker`; None: there is none.

    Raises:
        UserError: TF_CONFIG is set, but does not describe a cluster with this process in it.
    """
    text = environ.get("TF_CONFIG")
    if not text:
        return None
    try:
        values = json.loads(text)
        if not values.get("cluster"):
            return None
        jobs, task = values["cluster"], values["task"]
        workers = [(job, number, address) for job in ("chief", "worker") for number, address in enumerate(jobs.get(job, []))]
        here = [(job, number) for job, number, _ in workers].index((task["type"], int(task["index"])))
        return Cluster(tuple(str(address) for _, _, address in workers), here)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            'TF_CONFIG: expected JSON such as {"cluster": {"worker": ["host:port", ...]}, '
            f'"task": {{"type": "worker", "index": 0}}}}, received {text!r}'
        ) from error
