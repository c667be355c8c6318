"""The processes that train together, on one machine or many, read from the environment that a scheduler gives each of them.

In this order, the first that says something:

* `TF_CONFIG`, TensorFlow's own variable, with the jobs `chief` and `worker`.
* SLURM, in the tasks of a step that `srun` started: `SLURM_STEP_ID`, `SLURM_PROCID`, `SLURM_STEP_NODELIST`, ... The shell of a
  batch script or of `salloc` has most of these variables too, but is not a task of such a step and therefore no worker.
* A Kubernetes Job with `completionMode: Indexed`. Kubernetes sets `JOB_COMPLETION_INDEX` alone, so the Job's manifest sets
  `TFCQ_WORKERS` (its completions) and `TFCQ_HOSTS` (such as "train-{index}.workers"). Without them the Job is an array of
  independent pods.

`TFCQ_PORT` is the port of each worker with Kubernetes (without it 2222). With SLURM, where several workers may share a node,
it is the port of the first on each node, and the next have the ports after it; without it the port follows from the job's
number, so that two jobs on a node do not meet.

Importing this module does not import TensorFlow.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import re
from collections.abc import Mapping
from typing import Any

from tfcq.errors import UserError

_EXAMPLE = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
_KUBERNETES_PORT = 2222
_SLURM_PORTS = range(20000, 32000, 16)
"""A job's first port on a node: below those of outgoing connections (from 32768 on Linux); 16: GPUs of the largest nodes."""
_FIRST_SPECIAL_STEP = 0xFFFFFFF0  # SLURM's steps of a batch script, of an interactive shell, ... have numbers from here on
_MOST_NODES = 65536  # SLURM's own limit; a mistyped range must not fill the memory


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes that train together, and which of them this one is.

    >>> cluster = Cluster(("a:2222", "b:2222"), 1, "TF_CONFIG")
    >>> cluster.is_chief
    False
    >>> print(cluster.tf_config())
    {"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 1}}

    Attributes:
        workers: "host:port" of each process, the chief first; at least two.
        index: the place of this process in `workers`.
        source: what it was read from: "TF_CONFIG", "SLURM" or "Kubernetes".
    """

    workers: tuple[str, ...]
    index: int
    source: str

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the files of the run."""
        return self.index == 0

    def tf_config(self) -> str:
        """TF_CONFIG for MultiWorkerMirroredStrategy, as JSON.

        The chief is worker 0: without a job `chief` TensorFlow takes it for the chief, and numbers are the same everywhere.
        """
        return json.dumps({"cluster": {"worker": list(self.workers)}, "task": {"type": "worker", "index": self.index}})


def from_environment(environ: Mapping[str, str] = os.environ) -> Cluster | None:
    """The cluster that this process belongs to; None: it trains by itself, as a cluster of one does.

    Args:
        environ: the environment variables; one that is empty counts as not set.

    Raises:
        UserError: a variable that cannot be read, or that contradicts another; the message names it.
    """
    environ = {name: value for name, value in environ.items() if value.strip()}
    for read in (_from_tf_config, _from_slurm, _from_kubernetes):
        found = read(environ)
        if found is not None:
            return found if len(found.workers) > 1 else None
    return None


def alone(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment variables for a process that belongs to no cluster, though this one may."""
    return {name: value for name, value in environ.items() if name not in ("TF_CONFIG", "SLURM_STEP_ID", "TFCQ_WORKERS")}


def _from_tf_config(environ):
    text = environ.get("TF_CONFIG")
    if text is None:
        return None
    try:
        config = json.loads(text)
    except ValueError as error:
        raise UserError(f"TF_CONFIG is not JSON ({error}); expected such as {_EXAMPLE}, received {_short(text)}") from error
    jobs, task = (_object(config, "TF_CONFIG").get(name, {}) for name in ("cluster", "task"))
    jobs, task = _object(jobs, "TF_CONFIG: cluster"), _object(task, "TF_CONFIG: task")
    if not jobs:
        return None
    if not jobs.keys() <= {"chief", "worker"}:
        raise UserError(
            f"TF_CONFIG: cluster has the jobs {', '.join(jobs)}; expected chief and worker alone: every process trains, none "
            "evaluates beside it or holds parameters"
        )
    kind, index = task.get("type"), str(task.get("index"))  # TensorFlow takes "0" for 0, too
    if kind not in jobs:
        received = f"received {_short(kind)}" if "type" in task else "but there is none"
        raise UserError(f"TF_CONFIG: task: type: expected {' or '.join(jobs)}, a job of the cluster, {received}")
    for name, addresses in jobs.items():
        if not isinstance(addresses, list) or not all(isinstance(address, str) for address in addresses):
            raise UserError(f'TF_CONFIG: cluster: {name}: expected a list such as ["host:2222"], received {_short(addresses)}')
    chiefs, others = jobs.get("chief", []), jobs.get("worker", [])
    if len(chiefs) > 1:
        raise UserError(f"TF_CONFIG: cluster: chief: expected one address, received {len(chiefs)}")
    if not re.fullmatch(r"\d+", index) or int(index) >= len(jobs[kind]):
        raise UserError(
            f"TF_CONFIG: task: index: expected an integer from 0 to {len(jobs[kind]) - 1}, as the job {kind} has "
            f"{len(jobs[kind])} address(es); received {_short(index)}"
        )
    return _cluster([*chiefs, *others], int(index) + (len(chiefs) if kind == "worker" else 0), "TF_CONFIG", "TF_CONFIG")


def _from_slurm(environ):
    if "SLURM_STEP_ID" not in environ:
        return None
    step = _integer(environ, "SLURM_STEP_ID")
    name = _first(environ, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
    if step >= _FIRST_SPECIAL_STEP or name not in environ:
        return None
    tasks = _integer(environ, name)
    if tasks < 2:
        return None
    # A step that is started from such a shell inherits the variable, but not the terminal.
    if "SLURM_PTY_PORT" in environ and os.isatty(0):
        raise UserError(
            f"this terminal belongs to one of the {tasks} tasks of a SLURM step (srun --pty), and nothing starts the others; "
            "expected srun without --pty, or --distribution=mirrored to train in this task alone"
        )
    index = _integer(environ, "SLURM_PROCID", below=tasks)
    nodes_name = _first(environ, "SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST")
    counts_name = _first(environ, "SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE")
    nodes = expand_nodes(_value(environ, nodes_name), nodes_name)
    counts = expand_tasks_per_node(_value(environ, counts_name), counts_name)
    if len(counts) != len(nodes) or sum(counts) != tasks:
        raise UserError(
            f"{counts_name}={environ[counts_name]}: expected {tasks} tasks ({name}) on {len(nodes)} nodes ({nodes_name}), "
            f"received {sum(counts)} on {len(counts)}"
        )
    # SLURM's block distribution: the tasks of the first node, then those of the second, ...
    places = [(node, local) for node, count in enumerate(counts) for local in range(count)]
    node, local = places[index]
    for variable, expected in {"SLURM_NODEID": node, "SLURM_LOCALID": local, "SLURMD_NODENAME": nodes[node]}.items():
        if environ.get(variable, str(expected)) != str(expected):
            raise UserError(
                f"{variable}={environ[variable]}: expected {expected} for task {index}, as tasks fill one node after the "
                "other; start them with srun --distribution=block"
            )
    if "TFCQ_PORT" in environ:
        port = _port(environ)
    else:  # a step further on counts like a job further on, for jobs that run several at a time
        port = _SLURM_PORTS[(_integer(environ, "SLURM_JOB_ID") + 97 * step) % len(_SLURM_PORTS)]
    return _cluster([f"{nodes[node]}:{port + local}" for node, local in places], index, "SLURM", nodes_name)


def _from_kubernetes(environ):
    if "TFCQ_WORKERS" not in environ:
        return None
    count = _integer(environ, "TFCQ_WORKERS")
    if count < 1:
        raise UserError(f"TFCQ_WORKERS={count}: expected 1 or more, the completions of the Job")
    if count == 1:
        return None
    if "JOB_COMPLETION_INDEX" not in environ:
        raise UserError(
            f"TFCQ_WORKERS={count} without JOB_COMPLETION_INDEX; expected both, in a Job with completionMode: Indexed: each "
            "worker would train by itself, in the same workdir"
        )
    index = _integer(environ, "JOB_COMPLETION_INDEX", below=count)
    pattern = _value(environ, "TFCQ_HOSTS")
    if "{index}" not in pattern:
        raise UserError(f"TFCQ_HOSTS={pattern}: expected {{index}} in it, as in train-{{index}}.workers")
    port = _port(environ) if "TFCQ_PORT" in environ else _KUBERNETES_PORT
    addresses = [f"{pattern.replace('{index}', str(number))}:{port}" for number in range(count)]
    return _cluster(addresses, index, "Kubernetes", "TFCQ_HOSTS")


def expand_nodes(nodes: str, variable: str = "SLURM_STEP_NODELIST") -> list[str]:
    """The names in SLURM's compressed list of nodes, in their order, which is that of the tasks.

    >>> expand_nodes("node[08-10,12],rack[1-2]gpu[0-1]")
    ['node08', 'node09', 'node10', 'node12', 'rack1gpu0', 'rack1gpu1', 'rack2gpu0', 'rack2gpu1']

    Args:
        nodes: names with ranges in brackets; a range's numbers have at least as many digits as its first.
        variable: the variable that it comes from, for the error.

    Raises:
        UserError: something else than such a list.
    """
    names: list[str] = []
    for part in re.split(r",(?![^\[]*\])", nodes.strip()):  # at commas outside of brackets
        texts = re.split(r"\[([^\[\]]*)\]", part)  # outside, inside, outside, ...
        if not part or any(re.search(r"[\[\]\s]", outside) for outside in texts[::2]):
            raise _unreadable_nodes(variable, nodes)
        choices = [[text] if number % 2 == 0 else _numbers(text, variable, nodes) for number, text in enumerate(texts)]
        if math.prod(map(len, choices)) + len(names) > _MOST_NODES:
            raise _unreadable_nodes(variable, nodes)
        names += map("".join, itertools.product(*choices))
    return names


def _numbers(ranges, variable, nodes):
    """The texts of the numbers in "01-03,07"."""
    numbers: list[str] = []
    for part in ranges.split(","):
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        low, high = (int(found[1]), int(found[2] or found[1])) if found else (0, -1)
        if not 0 <= high - low < _MOST_NODES:
            raise _unreadable_nodes(variable, nodes)
        numbers += [str(number).zfill(len(part.partition("-")[0])) for number in range(low, high + 1)]
    return numbers


def _unreadable_nodes(variable, nodes):
    return UserError(f"{variable}={_short(nodes)}: expected at most {_MOST_NODES} names of nodes such as node[01-03,07],gpu5")


def expand_tasks_per_node(tasks: str, variable: str = "SLURM_STEP_TASKS_PER_NODE") -> list[int]:
    """The number of tasks on each node, from SLURM's "2(x3),1".

    >>> expand_tasks_per_node("2(x3),1")
    [2, 2, 2, 1]

    Args:
        tasks: numbers, each with the number of nodes that have so many, if these are several.
        variable: the variable that it comes from, for the error.

    Raises:
        UserError: something else than such a list.
    """
    counts: list[int] = []
    for part in tasks.strip().split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        repeats = int(found[2] or 1) if found else 0
        if not found or not 0 < repeats <= _MOST_NODES:
            raise UserError(f"{variable}={_short(tasks)}: expected numbers of tasks such as 2(x3),1")
        counts += [int(found[1])] * repeats
    return counts


def _cluster(workers, index, source, variable):
    for address in workers:
        found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(\d{1,5})", address)
        if not found or not 0 < int(found[2]) < 65536:
            raise UserError(f"{variable}: expected addresses such as host:2222, received {_short(address)}")
    if len(set(workers)) < len(workers):
        twice = next(address for number, address in enumerate(workers) if address in workers[:number])
        raise UserError(f"{variable}: expected an address of its own for each worker, received {twice} twice")
    return Cluster(tuple(workers), index, source)


def _first(environ, *names):
    """The first of the variables that is set, else the last."""
    return next((name for name in names if name in environ), names[-1])


def _value(environ, name):
    if name not in environ:
        raise UserError(f"{name} is not set; expected it beside {_companion(name)}")
    return environ[name]


def _companion(name):
    return "SLURM_STEP_ID, as srun sets it" if name.startswith("SLURM") else "TFCQ_WORKERS, as in tools/cluster/train-job.yaml"


def _integer(environ, name, below=None):
    text = _value(environ, name)
    if not re.fullmatch(r"\d{1,18}", text) or (below is not None and int(text) >= below):
        expected = "an integer from 0" if below is None else f"an integer from 0 to {below - 1}, as there are {below} workers"
        raise UserError(f"{name}={_short(text)}: expected {expected}")
    return int(text)


def _port(environ):
    port = _integer(environ, "TFCQ_PORT")
    if not 0 < port < 65536:
        raise UserError(f"TFCQ_PORT={port}: expected a port from 1 to 65535")
    return port


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected an object such as {_EXAMPLE}, received {_short(value)}")
    return value


def _short(value):
    """A value as it stands in JSON or in the environment, cut to what a message bears."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
