"""TF Serving's own files in `serving/`: each is what its schema says, and together they speak of one model."""

import json
import re
import subprocess

import pytest
from conftest import REPOSITORY, free_ports

from tfcq import serve
from tfcq.serving.server import flags_of_tf_serving, monitoring, versions
from tfcq.serving.server.batching_parameters import BatchingParameters

SERVING = REPOSITORY / "serving"
MODEL, GRPC_PORT, REST_PORT = "cqf", 8500, 8501


@pytest.fixture(scope="module")
def yaml():
    return pytest.importorskip("yaml", reason="PyYAML (extra dev) reads the compose and Kubernetes files")


@pytest.fixture(scope="module")
def model_config():
    """`models.config`, parsed."""
    (config,) = versions.read_model_config(SERVING / "models.config").model_config_list.config
    return config


@pytest.fixture(scope="module")
def batching():
    """`batching.config`, parsed; what TF Serving would not start with is an error (test_batching.py)."""
    return BatchingParameters.of_file(str(SERVING / "batching.config"), "batching.config")


def test_models_config(model_config):
    assert model_config.name == MODEL and model_config.base_path == f"/models/{MODEL}"
    assert model_config.model_platform == "tensorflow"
    assert model_config.model_version_policy.latest.num_versions == 1


def test_batching_config_gives_every_run_of_the_model_one_size(batching):
    """Another size may round otherwise: the answer to a row would depend on what it is joined with."""
    assert batching.allowed_batch_sizes == (batching.run_size,)


def test_client_does_not_ask_for_more_rows_than_a_batch_may_have(batching):
    """TF Serving refuses a single request larger than max_batch_size."""
    from tfcq.serving.client.client import MAX_BATCH_SIZE

    assert batching.max_batch_size >= MAX_BATCH_SIZE


def test_as_many_requests_may_wait_as_are_handled_at_a_time(batching):
    threads = min(2 * batching.max_batch_size, serve.MAX_THREADS)
    assert batching.max_enqueued_batches * batching.run_size >= threads * batching.max_batch_size


def test_monitoring_config():
    assert monitoring.read_metrics_path(SERVING / "monitoring.config") == monitoring.DEFAULT_PATH


def check_arguments(arguments, folder):
    flags = dict(argument.removeprefix("--").split("=", 1) for argument in arguments)
    files = {name: value for name, value in flags.items() if name.endswith("_file")}
    assert set(files) == {"model_config_file", "monitoring_config_file", "batching_parameters_file"}
    for value in files.values():
        assert value.startswith("/config/") and (SERVING / value.removeprefix("/config/")).is_file()
    assert flags["enable_batching"] == "true"
    check_local_server(arguments, folder)


def check_local_server(arguments, folder):
    """`tfcq serve` understands the very flags, with the folders of this machine."""
    (folder / "models" / MODEL).mkdir(parents=True)
    config = (SERVING / "models.config").read_text().replace("/models/", f"{folder}/models/")
    (folder / "models.config").write_text(config)
    flags = serve.COMMAND.flags()
    given = [argument.replace("/config/", f"{SERVING}/") for argument in arguments]
    ports = [f"--port={port}" for port in free_ports(1)]
    flags.parse([*given, f"--model_config_file={folder}/models.config", *ports])
    options, models = serve.read_options(flags)
    assert options.batching == BatchingParameters.of_file(str(SERVING / "batching.config"), "")
    assert options.metrics_path == monitoring.DEFAULT_PATH and options.file_system_poll_wait_seconds == 5
    assert options.grpc_max_threads == options.rest_api_num_threads == 2 * options.batching.max_batch_size
    assert [model.name for model in models.model_config_list.config] == [MODEL]


def test_compose_file(yaml, model_config, tmp_path):
    (service,) = yaml.safe_load((SERVING / "docker-compose.yml").read_text())["services"].values()
    check_arguments(service["command"], tmp_path)
    host = "${SERVING_HOST:-127.0.0.1}"  # only this machine, as SECURITY.md says
    assert set(service["ports"]) == {f"{host}:{GRPC_PORT}:{GRPC_PORT}", f"{host}:{REST_PORT}:{REST_PORT}"}
    targets = {volume.rsplit(":", 2)[1] for volume in service["volumes"]}
    assert targets == {"/config", model_config.base_path.rsplit("/", 1)[0]}
    health = service["healthcheck"]["test"]
    assert health[0] == "CMD" and f"/v1/models/{MODEL}" in health[-1] and f"/{REST_PORT} " in health[-1]


def test_health_check_of_the_compose_file_tells_a_served_model(yaml, toy_server):
    (service,) = yaml.safe_load((SERVING / "docker-compose.yml").read_text())["services"].values()
    command = [part.replace(f"/{REST_PORT}", f"/{toy_server.rest_port}") for part in service["healthcheck"]["test"][1:]]
    for model, status in (("toy", 0), ("other", 1)):
        done = subprocess.run([part.replace(f"/{MODEL} ", f"/{model} ") for part in command], timeout=30)
        assert done.returncode == status


def test_kubernetes_file(yaml, model_config, tmp_path):
    text = (SERVING / "kubernetes.yaml").read_text()
    documents = {document["kind"]: document for document in yaml.safe_load_all(text)}
    deployment, service = documents["Deployment"]["spec"], documents["Service"]["spec"]
    template = deployment["template"]
    assert service["type"] == "ClusterIP"
    assert deployment["selector"]["matchLabels"] == template["metadata"]["labels"] == service["selector"]
    (container,) = template["spec"]["containers"]
    check_arguments(container["args"], tmp_path)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": GRPC_PORT, "rest": REST_PORT}
    assert {port["port"]: port["targetPort"] for port in service["ports"]} == {GRPC_PORT: "grpc", REST_PORT: "rest"}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        check = container[probe]["httpGet"]
        assert check["port"] == "rest" and check["path"].startswith(f"/v1/models/{MODEL}")
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"models": model_config.base_path.rsplit("/", 1)[0], "config": "/config"}
    assert set(mounts) == {volume["name"] for volume in template["spec"]["volumes"]}
    annotations = template["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(REST_PORT)
    assert annotations["prometheus.io/path"] == monitoring.DEFAULT_PATH


def test_probe_paths_answer_on_a_served_model(toy_server):
    import urllib.request

    text = (SERVING / "kubernetes.yaml").read_text()
    paths = set(re.findall(r"path: (/v1/\S+)", text))
    assert paths
    for path in paths:
        with urllib.request.urlopen(toy_server.rest_url + path.replace(f"/{MODEL}", "/toy"), timeout=30) as response:
            assert json.load(response)


def test_both_images_are_the_same():
    patterns = {"docker-compose.yml": r"tensorflow/serving:\$\{TF_SERVING_VERSION:-([\d.]+)\}\n",
                "kubernetes.yaml": r"tensorflow/serving:([\d.]+)\n"}
    found = [re.findall(pattern, (SERVING / name).read_text()) for name, pattern in patterns.items()]
    assert found[0] == found[1] and len(found[0]) == 1


def test_the_command_of_the_readme(tmp_path):
    """What `docker run` is given after the image's name, the local server understands too."""
    text = (SERVING / "README.md").read_text().replace("\\\n", " ")
    (command,) = re.findall(r"tensorflow/serving:[\d.]+ (--model_config_file.*)", text)
    check_arguments([*command.split(), "--file_system_poll_wait_seconds=5"], tmp_path)


def test_the_readme_says_of_each_flag_why_it_does_not_work():
    rows = [line for line in (SERVING / "README.md").read_text().splitlines() if line.startswith("| `--")]
    kinds = {"accepted, changes nothing": flags_of_tf_serving.WITHOUT_EFFECT, "refused": flags_of_tf_serving.REFUSED}
    for how, flags in kinds.items():
        for name, (*_, reason) in flags.items():
            (row,) = [row for row in rows if f"`--{name}`" in row]
            assert row.endswith(f"| {how}: {reason} |")
