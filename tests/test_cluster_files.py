"""tools/cluster/: the image, the Kubernetes Job and the SLURM script are what their schemas say, and make one cluster.

Neither an image is built here nor a cluster started: schemas, linters, and a stand-in for srun.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from commands import command_of

from tfcq.machine.cluster import from_environment

REPOSITORY = pathlib.Path(__file__).parents[1]
CLUSTER = REPOSITORY / "tools" / "cluster"
DOCKERFILE = (CLUSTER / "Dockerfile").read_text()
SCRIPT = CLUSTER / "train.sbatch"
JOB_FILE = CLUSTER / "train-job.yaml"


def linter(name):
    """A linter of the extra dev, beside this Python or on PATH."""
    found = shutil.which(name, path=f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return found or pytest.skip(f"{name} (extra dev) is not installed")


def instructions(name):
    """The arguments of an instruction of the Dockerfile, wherever it stands there."""
    return re.findall(rf"^{name} (.*)$", DOCKERFILE.replace("\\\n", " "), re.MULTILINE)


def test_the_dockerfile_passes_its_linter():
    done = subprocess.run([linter("hadolint"), CLUSTER / "Dockerfile"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_image_has_what_the_package_is_built_from(tmp_path):
    kept = {line[1:] for line in (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    copies = [line.split() for line in instructions("COPY")]
    assert {source for *sources, _ in copies for source in sources} == kept
    for *sources, target in copies:
        for source in sources:
            if (REPOSITORY / source).is_dir():  # then what is in it is copied
                shutil.copytree(REPOSITORY / source, tmp_path / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(REPOSITORY / source, tmp_path / target)
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_py", "--build-lib", "built", "egg_info"],
        cwd=tmp_path, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    assert (tmp_path / "built/tfcq/train.py").is_file() and (tmp_path / "built/tfcq/configs/quickstart.cfg").is_file()
    (metadata,) = tmp_path.glob("*.egg-info/PKG-INFO")
    offered = set(re.findall(r"^Provides-Extra: (.+)$", metadata.read_text(), re.MULTILINE))
    named = re.findall(r"EXTRAS=([\w,-]+)", DOCKERFILE)
    assert len(named) == 2 and {extra for names in named for extra in names.split(",")} <= offered
    (scripts,) = tmp_path.glob("*.egg-info/entry_points.txt")
    (entry,) = map(json.loads, instructions("ENTRYPOINT"))
    assert entry == ["tfcq"] and f"[console_scripts]\n{entry[0]} = " in scripts.read_text()
    assert instructions("USER") == ["1000"] and "--uid=1000" in DOCKERFILE


@pytest.fixture(scope="module")
def yaml():
    return pytest.importorskip("yaml", reason="PyYAML (extra dev) reads the Kubernetes files")


@pytest.fixture(scope="module")
def manifest(yaml):
    """The objects of train-job.yaml by their kind."""
    return {document["kind"]: document for document in yaml.safe_load_all(JOB_FILE.read_text())}


@pytest.mark.parametrize("version", ["1.31", "1.37"])
@pytest.mark.parametrize("name", ["tools/cluster/train-job.yaml", "serving/kubernetes.yaml"])
def test_kubernetes_files_are_what_the_schemas_of_kubernetes_say(name, version, yaml):
    schemas = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate (extra dev) has Kubernetes' schemas")
    text = (REPOSITORY / name).read_text()
    for variant in {text, text.replace("# nvidia.com/gpu", "nvidia.com/gpu")}:
        for document in yaml.safe_load_all(variant):
            assert schemas.validate(document, version, strict=True) == version


def variables_of_pod(job, index):
    """The environment variables of a pod of the Job, as Kubernetes makes them: references, and the index of an Indexed Job."""
    (container,) = job["spec"]["template"]["spec"]["containers"]
    fields = {"metadata.labels['batch.kubernetes.io/job-name']": job["metadata"]["name"]}  # Kubernetes sets that label
    values = {"JOB_COMPLETION_INDEX": str(index)}
    for variable in container["env"]:
        value = variable["value"] if "value" in variable else fields[variable["valueFrom"]["fieldRef"]["fieldPath"]]
        values[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda reference: values[reference[1]], value)
    return values


def test_the_pods_of_the_job_are_one_cluster(manifest):
    job, service = manifest["Job"], manifest["Service"]
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert spec["completionMode"] == "Indexed" and spec["completions"] == spec["parallelism"] == 2
    # A pod of an Indexed Job has the host name JOB-INDEX; a headless Service with the name of its subdomain makes that known.
    assert pod["subdomain"] == service["metadata"]["name"] and service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    labels = spec["template"]["metadata"]["labels"]
    assert labels == service["spec"]["selector"] == manifest["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]
    (policy,) = manifest["NetworkPolicy"]["spec"]["ingress"]
    assert policy == {"from": [{"podSelector": {"matchLabels": labels}}]}
    port = container["ports"][0]["containerPort"]
    assert service["spec"]["ports"][0]["port"] == port
    for index in range(spec["completions"]):
        found = from_environment(variables_of_pod(job, index))
        assert found.workers == tuple(f"{job['metadata']['name']}-{number}.{pod['subdomain']}:{port}" for number in (0, 1))
        assert (found.index, found.source) == (index, "Kubernetes")


def test_the_job_trains_on_the_shared_volume(manifest):
    pod = manifest["Job"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["args"][0] == "train"
    flags = command_of("train").flags()
    flags.parse(container["args"][1:])
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert str(flags.workdir).startswith(f"{mounts['shared']}/")
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes.keys() == mounts.keys()
    claim = manifest["PersistentVolumeClaim"]
    assert volumes["shared"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert pod["securityContext"]["runAsUser"] == int(instructions("USER")[0])


def action(job, status=None, condition=None):
    """What a Job does about a pod that failed: the first rule that matches, else it is counted."""
    for rule in job["spec"]["podFailurePolicy"]["rules"]:
        codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions", [])
        assert codes is None or (codes["operator"] == "In" and codes["values"] == sorted(set(codes["values"])))
        if (codes and status in codes["values"]) or any(one["type"] == condition for one in conditions):
            return rule["action"]
    return "Count"


def test_what_the_job_does_when_a_worker_ends(manifest):
    """Only what would come back ends the Job; what was asked for does not count; a lost worker counts, once an index."""
    job, spec = manifest["Job"], manifest["Job"]["spec"]
    assert [action(job, status) for status in (1, 2, 75, 137, 139, 143)] == ["FailJob"] * 2 + ["Count"] * 3 + ["Ignore"]
    assert action(job, status=137, condition="DisruptionTarget") == "Ignore"
    # What Kubernetes demands beside podFailurePolicy and backoffLimitPerIndex.
    assert spec["template"]["spec"]["restartPolicy"] == "Never" and spec["podReplacementPolicy"] == "Failed"
    assert spec["backoffLimitPerIndex"] > 1 and spec["maxFailedIndexes"] == 0
    assert spec["successPolicy"] == {"rules": [{"succeededIndexes": "0"}]}
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] >= 60


# Those of sbatch(1) and srun(1) that a script for training may want, with a pattern of their values.
SBATCH_OPTIONS = {
    "job-name": r"\w+", "nodes": r"\d+", "ntasks-per-node": r"1", "cpus-per-task": r"\d+", "gpus-per-node": r"\d+",
    "time": r"\d+:\d\d:\d\d", "output": r"[\w%.-]+", "open-mode": r"append|truncate", "requeue": None,
    "signal": r"([RB]:)?[A-Z]+@\d+",
}  # fmt: skip
SRUN_OPTIONS = {"distribution": r"block", "cpus-per-task": r"\d+", "kill-on-bad-exit": r"[01]", "wait": r"\d+"}


def check_options(options, known):
    for option in options:
        name, _, value = option.removeprefix("--").partition("=")
        assert name in known and (value == "" if known[name] is None else re.fullmatch(known[name], value)), option


def test_the_options_of_the_slurm_script_exist():
    head, _, body = SCRIPT.read_text().partition("\nset ")
    options = re.findall(r"^#SBATCH (\S+)$", head, re.MULTILINE)
    assert head.count("\n#SBATCH") == len(options) and "#SBATCH" not in body  # SLURM reads none behind the first command
    check_options(options, SBATCH_OPTIONS)
    assert {"--requeue", "--open-mode=append"} <= set(options)  # a restart is allowed, and keeps the log
    (seconds,) = re.findall(r"--signal=TERM@(\d+)", head)  # to the tasks, not to the script, and at most 65535
    assert 60 < int(seconds) < 65536


def test_the_slurm_script_passes_its_linter():
    done = subprocess.run([linter("shellcheck"), SCRIPT], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


# As srun(1): its options, then a command, once a task, with the variables of a step; the highest exit status of all, to which
# tasks belong that it has killed.
SRUN = """#!/usr/bin/env bash
kills=0
while [[ $1 == --* ]]; do
  echo "$1" >>"$RECORD/srun"
  [[ $1 != --kill-on-bad-exit=1 ]] || kills=1
  shift
done
export SLURM_STEP_ID=0 SLURM_STEP_NODELIST=$SLURM_JOB_NODELIST SLURM_STEP_NUM_NODES=$SLURM_NNODES
export SLURM_STEP_TASKS_PER_NODE="$SLURM_NTASKS_PER_NODE(x$SLURM_NNODES)"
export SLURM_NTASKS=$((SLURM_NNODES * SLURM_NTASKS_PER_NODE))
export SLURM_STEP_NUM_TASKS=$SLURM_NTASKS SLURM_NPROCS=$SLURM_NTASKS
for ((task = 0; task < SLURM_NTASKS; task++)); do
  SLURM_PROCID=$task SLURM_NODEID=$((task / SLURM_NTASKS_PER_NODE)) SLURM_LOCALID=$((task % SLURM_NTASKS_PER_NODE)) \\
    "$@" >"$RECORD/task$task" &
  started[task]=$!
done
highest=0
for process in "${started[@]}"; do
  wait "$process" || {
    status=$?
    [ $kills = 0 ] || kill "${started[@]}" 2>/dev/null
    [ $status -gt $highest ] && highest=$status
  }
done
exit $highest
"""

SCONTROL = """#!/usr/bin/env bash
case "$1 $2" in
  *) echo "$*" >>"$RECORD/scontrol" ;;
esac
"""

ASK = """
import json, os, sys
from tfcq.machine.cluster import from_environment
cluster = from_environment()
print(json.dumps([sys.argv[1:], cluster.workers, cluster.index, cluster.source]))
"""


@pytest.fixture(name="sbatch")
def fixture_sbatch(tmp_path):
    """Runs the script as sbatch would, with a script in tfcq's place: exit status, {record: lines}, stderr."""

    def run(tfcq, variables, *arguments):
        (tmp_path / "bin").mkdir()
        stands_in = {"srun": SRUN, "scontrol": SCONTROL, "tfcq": tfcq, "squeue": '#!/bin/sh\necho "${STATE-RUNNING}"\n'}
        for name, text in stands_in.items():
            (tmp_path / "bin" / name).write_text(text)
            (tmp_path / "bin" / name).chmod(0o755)
        batch = {
            "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[09-10]", "SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "1",
            "SLURM_TASKS_PER_NODE": "1(x2)", "SLURM_CPUS_PER_TASK": "8", "SLURM_PROCID": "0", "SLURM_NODEID": "0",
            "SLURM_LOCALID": "0",
        } | variables  # fmt: skip
        assert from_environment(batch) is None  # the script's own shell is no worker
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        environ = batch | {"PATH": path, "RECORD": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(["bash", SCRIPT, *arguments], env=environ, capture_output=True, text=True, timeout=120)
        records = {path.name: path.read_text().splitlines() for path in tmp_path.iterdir() if path.is_file()}
        return done.returncode, records, done.stderr

    return run


@pytest.mark.parametrize("per_node", [1, 2])
def test_the_tasks_of_the_slurm_script_are_one_cluster(per_node, sbatch):
    arguments = ["--preset=quickstart", "--workdir=/shared/a folder"]
    variables = {"SLURM_NTASKS_PER_NODE": str(per_node), "SLURM_TASKS_PER_NODE": f"{per_node}(x2)"}
    status, records, stderr = sbatch(f"#!/bin/sh\nexec '{sys.executable}' -c '{ASK}' \"$@\"\n", variables, *arguments)
    assert (status, stderr) == (0, "") and "scontrol" not in records
    check_options(records["srun"], SRUN_OPTIONS)
    port = 20000 + 16 * 7
    workers = [f"{node}:{port + local}" for node in ("node09", "node10") for local in range(per_node)]
    for index in range(2 * per_node):
        (line,) = records[f"task{index}"]
        assert json.loads(line) == [["train", *arguments], workers, index, "SLURM"]


@pytest.mark.parametrize(
    ("status", "variables", "again"),
    [
        (0, {}, False),
        (1, {}, False),  # a loss stopped being finite
        (2, {}, False),  # a mistake
        (75, {}, True),
        (143, {}, True),
        (137, {"SLURM_RESTART_COUNT": "19"}, True),
        (75, {"SLURM_RESTART_COUNT": "20"}, False),
        (75, {"SECONDS": "3"}, False),
        (143, {"STATE": "COMPLETING"}, False),  # scancel
        (143, {"STATE": ""}, False),  # SLURM does not answer
    ],
)
def test_what_the_slurm_script_does_when_a_worker_ends(status, variables, again, sbatch):
    ended, records, stderr = sbatch(f"#!/bin/sh\n[ $SLURM_PROCID = 0 ] || exit {status}\n", {"SECONDS": "100"} | variables)
    assert ended == status
    assert records.get("scontrol", []) == (["requeue 7"] if again else [])
    assert stderr.startswith(f"status {status}") if status > 2 else stderr == ""


def test_a_mistake_that_all_workers_report_does_not_start_the_slurm_job_again(sbatch):
    """They do not end at the same moment; one that was killed meanwhile would count as lost."""
    ended, records, _ = sbatch("#!/bin/sh\n[ $SLURM_PROCID = 0 ] || sleep 1\nexit 2\n", {"SECONDS": "100"})
    assert ended == 2 and "scontrol" not in records
