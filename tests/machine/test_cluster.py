"""Clusters as schedulers describe them: TF_CONFIG, the variables of SLURM's srun, those of a Kubernetes Indexed Job."""

import json
import os

import pytest
import tensorflow as tf
from tensorflow.python.distribute import multi_worker_util
from tensorflow.python.distribute.cluster_resolver import slurm_cluster_resolver

from tfcq.errors import UserError
from tfcq.machine import cluster
from tfcq.machine.cluster import from_environment


def tf_config(jobs, kind, index):
    return {"TF_CONFIG": json.dumps({"cluster": jobs, "task": {"type": kind, "index": index}})}


PAIR = {"worker": ["a:1", "b:2"]}
LED = {"chief": ["c:1"], "worker": ["a:1", "b:2"]}

# A task of `srun --nodes=2 --ntasks-per-node=2` in a batch job, as srun(1) documents the variables.
SLURM = {
    "SLURM_JOB_ID": "1003", "SLURM_JOB_NODELIST": "node[09-11]", "SLURM_JOB_NUM_NODES": "3", "SLURM_NTASKS": "4",
    "SLURM_NPROCS": "4", "SLURM_TASKS_PER_NODE": "2(x2)", "SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": "node[09-10]",
    "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURM_PROCID": "2",
    "SLURM_NODEID": "1", "SLURM_LOCALID": "0", "SLURMD_NODENAME": "node10", "SLURM_DISTRIBUTION": "block",
}  # fmt: skip
SLURM_PORT = 20000 + 16 * (1003 - 750)  # the 254th of 750 groups of 16 ports
SLURM_WORKERS = (f"node09:{SLURM_PORT}", f"node09:{SLURM_PORT + 1}", f"node10:{SLURM_PORT}", f"node10:{SLURM_PORT + 1}")

KUBERNETES = {"JOB_COMPLETION_INDEX": "2", "TFCQ_WORKERS": "3", "TFCQ_HOSTS": "train-{index}.workers", "TFCQ_PORT": "2300"}
KUBERNETES_WORKERS = ("train-0.workers:2300", "train-1.workers:2300", "train-2.workers:2300")


def without(variables, *names):
    return {name: value for name, value in variables.items() if name not in names}


@pytest.mark.parametrize(
    ("environ", "workers", "index", "source"),
    [
        (tf_config(PAIR, "worker", 0), ("a:1", "b:2"), 0, "TF_CONFIG"),
        (tf_config(PAIR, "worker", "1"), ("a:1", "b:2"), 1, "TF_CONFIG"),  # TensorFlow takes a text, too
        (tf_config(LED, "chief", 0), ("c:1", "a:1", "b:2"), 0, "TF_CONFIG"),
        (tf_config(LED, "worker", 0), ("c:1", "a:1", "b:2"), 1, "TF_CONFIG"),
        (tf_config(LED, "worker", 1), ("c:1", "a:1", "b:2"), 2, "TF_CONFIG"),
        (tf_config({"worker": ["[::1]:1", "[fe80::2]:1"]}, "worker", 1), ("[::1]:1", "[fe80::2]:1"), 1, "TF_CONFIG"),
        (SLURM | KUBERNETES | tf_config(PAIR, "worker", 0), ("a:1", "b:2"), 0, "TF_CONFIG"),
        (SLURM, SLURM_WORKERS, 2, "SLURM"),
        (SLURM | {"TF_CONFIG": ""}, SLURM_WORKERS, 2, "SLURM"),
        (SLURM | {"TF_CONFIG": "{}"}, SLURM_WORKERS, 2, "SLURM"),
        (SLURM | KUBERNETES | {"TFCQ_PORT": "5000"}, ("node09:5000", "node09:5001", "node10:5000", "node10:5001"), 2, "SLURM"),
        (
            SLURM | {"SLURM_STEP_NODELIST": "gpu2,gpu10", "SLURM_STEP_TASKS_PER_NODE": "1,3", "SLURM_LOCALID": "1"}
            | {"TFCQ_PORT": "7", "SLURMD_NODENAME": "gpu10"},
            ("gpu2:7", "gpu10:7", "gpu10:8", "gpu10:9"), 2, "SLURM",
        ),
        (  # an older SLURM, without the variables of the step but for its number
            without(SLURM, *(name for name in SLURM if name.startswith("SLURM_STEP_")))
            | {"SLURM_STEP_ID": "0", "SLURM_JOB_NODELIST": "node[09-10]"}, SLURM_WORKERS, 2, "SLURM",
        ),
        (KUBERNETES, KUBERNETES_WORKERS, 2, "Kubernetes"),
        (without(KUBERNETES, "TFCQ_PORT") | {"TFCQ_WORKERS": "2", "JOB_COMPLETION_INDEX": "0"},
         ("train-0.workers:2222", "train-1.workers:2222"), 0, "Kubernetes"),
    ],
)  # fmt: skip
def test_a_cluster_is_read(environ, workers, index, source):
    found = from_environment(environ)
    assert (found.workers, found.index, found.source, found.is_chief) == (workers, index, source, index == 0)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"TF_CONFIG": "{}"},
        {"TF_CONFIG": " "},
        tf_config({"worker": ["a:1"]}, "worker", 0),
        tf_config({"chief": ["a:1"]}, "chief", 0),
        SLURM | tf_config({"worker": ["a:1"]}, "worker", 0),  # who says that it is alone is
        without(SLURM, *(name for name in SLURM if name.startswith("SLURM_STEP_"))) | {"SLURM_PROCID": "0"},  # a batch script
        # The shell of salloc: a step of one task, among the variables of the job.
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_TASKS_PER_NODE": "8", "SLURM_JOB_NODELIST": "n1"}
        | {"SLURM_PROCID": "0"}
        | {"SLURM_STEP_ID": "4294967290", "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NODELIST": "n1", "SLURM_PTY_PORT": "34889"},
        SLURM | {"SLURM_STEP_ID": "4294967290", "SLURM_PROCID": "0"},
        SLURM | {"SLURM_STEP_ID": "4294967291", "SLURM_PROCID": "0"},  # the step of a batch script
        SLURM | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},  # `srun --ntasks=1` in a larger job
        {"SLURM_STEP_ID": "0", "SLURM_JOB_ID": "7"},
        {"JOB_COMPLETION_INDEX": "3"},  # an Indexed Job of pods that have nothing to do with each other
        {"TFCQ_WORKERS": "1", "JOB_COMPLETION_INDEX": "0"},
        {"TFCQ_WORKERS": "1"},
        {"TFCQ_HOSTS": "train-{index}.workers", "TFCQ_PORT": "2222"},
    ],
)  # fmt: skip
def test_a_process_by_itself_is_no_cluster(environ):
    assert from_environment(environ) is None


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"TF_CONFIG": "{'cluster': 1}"}, "TF_CONFIG is not JSON"),
        ({"TF_CONFIG": "[1]"}, r"TF_CONFIG: .*received \[1\]"),
        ({"TF_CONFIG": '{"cluster": ["a:1"]}'}, "TF_CONFIG: cluster: "),
        ({"TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:1"]}, "task": 1}'}, "TF_CONFIG: task: "),
        ({"TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:1"]}}'}, "TF_CONFIG: task: type: expected worker, .*but there is none"),
        (tf_config(PAIR | {"ps": ["p:1"]}, "worker", 0), "TF_CONFIG: .*worker, ps; expected chief and worker alone"),
        (tf_config(PAIR | {"evaluator": ["e:1"]}, "worker", 0), "TF_CONFIG: .*worker, evaluator"),
        (tf_config(PAIR, "evaluator", 0), "TF_CONFIG: task: type: .*received evaluator"),
        (tf_config(PAIR, "chief", 0), "TF_CONFIG: task: type: .*received chief"),
        (tf_config({"chief": ["a:1", "b:1"]}, "chief", 0), "TF_CONFIG: .*chief: expected one"),
        (tf_config({"worker": {"0": "a:1"}}, "worker", 0), "TF_CONFIG: .*worker: expected a list"),
        (tf_config({"worker": ["a:1", 2]}, "worker", 0), "TF_CONFIG: .*worker: expected a list"),
        *((tf_config(PAIR, "worker", index), "TF_CONFIG: .*index: .*from 0 to 1") for index in (2, -1, 0.0, True, None, "x")),
        (tf_config({"worker": ["a:1", "a:1"]}, "worker", 0), "TF_CONFIG: .*a:1 twice"),
        *((tf_config({"worker": ["a:1", address]}, "worker", 0), "TF_CONFIG: .*such as host:2222, received")
          for address in ("b", "b:0", "b:65536", ":1", "grpc://b:1", "b c:1", "::1:1")),
        (without(SLURM, "SLURM_PROCID"), "SLURM_PROCID is not set"),
        (without(SLURM, "SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"), "SLURM_JOB_NODELIST is not set"),
        (without(SLURM, "SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"), "SLURM_TASKS_PER_NODE is not set"),
        (without(SLURM, "SLURM_JOB_ID"), "SLURM_JOB_ID is not set"),
        (SLURM | {"SLURM_PROCID": "4"}, "SLURM_PROCID=4: .*from 0 to 3"),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "x"}, "SLURM_STEP_NUM_TASKS=x"),
        (SLURM | {"SLURM_STEP_NODELIST": "node[09-"}, r"SLURM_STEP_NODELIST=node\[09-"),
        (SLURM | {"SLURM_STEP_NODELIST": "node10,node10"}, f"SLURM_STEP_NODELIST: .*node10:{SLURM_PORT} twice"),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "2(x"}, r"SLURM_STEP_TASKS_PER_NODE=2\(x"),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "2(x3)"}, "SLURM_STEP_TASKS_PER_NODE=.*4 tasks .* on 2 .*received 6 on 3"),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "2,1"}, "SLURM_STEP_TASKS_PER_NODE=.*received 3 on 2"),
        # Tasks dealt out to the nodes in turns: task 1 is the first of the second node.
        (SLURM | {"SLURM_PROCID": "1", "SLURM_NODEID": "1"}, "SLURM_NODEID=1: expected 0 for task 1.*--distribution=block"),
        (SLURM | {"SLURM_PROCID": "3", "SLURM_LOCALID": "0"}, "SLURM_LOCALID=0: expected 1 for task 3"),
        # A batch script that was submitted in a step keeps that step's variables.
        (SLURM | {"SLURMD_NODENAME": "node12"}, "SLURMD_NODENAME=node12: expected node10 for task 2"),
        (SLURM | {"TFCQ_PORT": "http"}, "TFCQ_PORT=http"),
        (SLURM | {"TFCQ_PORT": "65535"}, "such as host:2222, received node09:65536"),
        (without(KUBERNETES, "JOB_COMPLETION_INDEX"), "TFCQ_WORKERS=3 without JOB_COMPLETION_INDEX"),
        (KUBERNETES | {"JOB_COMPLETION_INDEX": "3"}, "JOB_COMPLETION_INDEX=3: .*from 0 to 2, as there are 3"),
        (KUBERNETES | {"TFCQ_WORKERS": "0"}, "TFCQ_WORKERS=0"),
        (KUBERNETES | {"TFCQ_WORKERS": "-2"}, "TFCQ_WORKERS=-2"),
        (without(KUBERNETES, "TFCQ_HOSTS"), "TFCQ_HOSTS is not set"),
        (KUBERNETES | {"TFCQ_HOSTS": "train-0.workers"}, "TFCQ_HOSTS=train-0.workers"),
        (KUBERNETES | {"TFCQ_HOSTS": "http://train-{index}"}, "TFCQ_HOSTS: .*received http://train-0:2300"),
        (KUBERNETES | {"TFCQ_PORT": "tcp://10.0.0.1:2222"}, "TFCQ_PORT=tcp"),  # as Kubernetes sets it for a Service named tfcq
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_line_that_names_the_variable(environ, named):
    with pytest.raises(UserError, match=named) as caught:
        from_environment(environ)
    message = str(caught.value)
    assert "\n" not in message and message.isprintable() and len(message) < 300


NODES = {
    "node1": ["node1"],
    "a,b": ["a", "b"],
    "node[01-03,07],gpu5": ["node01", "node02", "node03", "node07", "gpu5"],
    "n[8-11]": ["n8", "n9", "n10", "n11"],
    "n[098-101]": ["n098", "n099", "n100", "n101"],
    "n[1-2],m5,o[3-4,6,7-9]": ["n1", "n2", "m5", "o3", "o4", "o6", "o7", "o8", "o9"],
    "[1-2]": ["1", "2"],
}


@pytest.mark.parametrize("text", NODES)
def test_lists_of_nodes_are_expanded_as_tensorflow_does(text):
    assert cluster.expand_nodes(text) == NODES[text] == slurm_cluster_resolver.expand_hostlist(text)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("rack[1-2]node[01-02]", ["rack1node01", "rack1node02", "rack2node01", "rack2node02"]),
        ("n[1-2]-ib,m[3]x", ["n1-ib", "n2-ib", "m3x"]),
    ],
)
def test_lists_of_nodes_that_tensorflow_does_not_take(text, names):
    """TensorFlow's parser takes one range at the end of a name."""
    assert cluster.expand_nodes(text) == names
    with pytest.raises(ValueError):
        slurm_cluster_resolver.expand_hostlist(text)


@pytest.mark.parametrize(
    "text",
    ["", ",", "a,", "a,,b", "n[", "n]", "n[]", "n[1-]", "n[-1]", "n[3-1]", "n[1,]", "n[a-b]", "n[[1]]", "a b", "n[0-99999]",
     "n[0-999]m[0-999]", "n[1-99999999999999999999]"],
)  # fmt: skip
def test_other_lists_of_nodes_are_refused(text):
    with pytest.raises(UserError, match="NODES="):
        cluster.expand_nodes(text, "NODES")


@pytest.mark.parametrize("text", ["1", "2(x3),1", "3(x2),2,1"])
def test_tasks_per_node_are_expanded_as_tensorflow_does(text):
    assert cluster.expand_tasks_per_node(text) == slurm_cluster_resolver.expand_tasks_per_node(text)


@pytest.mark.parametrize("text", ["", "x", "2(x0)", "2(x)", "2(3)", "1,", "-1", "1(x99999)"])
def test_other_tasks_per_node_are_refused(text):
    with pytest.raises(UserError, match="TASKS="):
        cluster.expand_tasks_per_node(text, "TASKS")


def test_a_step_of_slurm_is_what_tensorflow_makes_of_it(monkeypatch):
    """TensorFlow's SlurmClusterResolver sorts nodes as texts, so that node10 comes before node9; here both orders are one."""
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(port_base=SLURM_PORT, gpus_per_node=2, auto_set_gpu=False)
    found = from_environment(os.environ)
    assert resolver.cluster_spec().as_dict() == {"worker": list(found.workers)}
    assert resolver.get_task_info() == ("worker", found.index)


@pytest.mark.parametrize("environ", [tf_config(LED, "chief", 0), tf_config(LED, "worker", 1), SLURM, KUBERNETES])
def test_tensorflow_reads_what_was_read(environ, monkeypatch):
    """The number of the worker, and who is the chief, as MultiWorkerMirroredStrategy finds them."""
    found = from_environment(environ)
    monkeypatch.setenv("TF_CONFIG", found.tf_config())
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    place = resolver.cluster_spec(), resolver.task_type, resolver.task_id
    assert [multi_worker_util.id_in_cluster(*place), multi_worker_util.is_chief(*place)] == [found.index, found.is_chief]
    assert multi_worker_util.worker_count(*place[:2]) == len(found.workers)
    assert from_environment(os.environ).workers == found.workers
    if "TF_CONFIG" in environ:  # nor does the place among all the processes change
        original = json.loads(environ["TF_CONFIG"])
        before = original["cluster"], original["task"]["type"], original["task"]["index"]
        assert multi_worker_util.id_in_cluster(*before) == found.index


def test_jobs_and_steps_have_ports_of_their_own():
    def port(job, step):
        found = from_environment(SLURM | {"SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(step)})
        return int(found.workers[0].partition(":")[2])

    ports = [port(*place) for place in ((1000, 0), (1001, 0), (1002, 0), (1000, 1), (1001, 1))]
    assert all(abs(one - other) >= 16 for one in ports for other in ports if one != other) and len(set(ports)) == 5
    assert all(20000 <= port(job, 0) and port(job, 0) + 15 < 32768 for job in (1, 749, 750, 67108863))


def test_a_shell_that_srun_gave_a_terminal_is_no_worker(monkeypatch):
    """`srun --ntasks=4 --pty bash` runs four shells, and three end at once. What srun starts in the first is a cluster."""
    environ = SLURM | {"SLURM_PTY_PORT": "34889", "SLURM_PTY_WIN_COL": "236"}
    monkeypatch.setattr(os, "isatty", lambda descriptor: False)
    assert from_environment(environ).workers == SLURM_WORKERS
    monkeypatch.setattr(os, "isatty", lambda descriptor: descriptor == 0)
    assert from_environment(SLURM).workers == SLURM_WORKERS
    with pytest.raises(UserError, match="one of the 4 tasks .* --pty.*--distribution=mirrored"):
        from_environment(environ)


def test_empty_variables_count_as_not_set():
    assert from_environment(SLURM | {"TF_CONFIG": "", "TFCQ_PORT": " "}).workers == SLURM_WORKERS
