"""TF Serving's own files in `serving/`: each is what its schema says, and together they speak of one model."""

import json
import re
import subprocess

import pytest
from conftest import REPOSITORY
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from tfcq.serving import monitoring, versions

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


def batching_parameters_class():
    """BatchingParameters of servables/tensorflow/session_bundle_config.proto, which no Python package has."""
    file = descriptor_pb2.FileDescriptorProto(name="batching.proto", package="check", syntax="proto3",
                                              dependency=["google/protobuf/wrappers.proto"])
    message = file.message_type.add(name="BatchingParameters")
    kinds = descriptor_pb2.FieldDescriptorProto
    wrapped = ["max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads"]
    for number, name in enumerate(wrapped, start=1):
        message.field.add(name=name, number=number, type=kinds.TYPE_MESSAGE, label=kinds.LABEL_OPTIONAL,
                          type_name=".google.protobuf.Int64Value")
    message.field.add(name="thread_pool_name", number=5, type=kinds.TYPE_MESSAGE, label=kinds.LABEL_OPTIONAL,
                      type_name=".google.protobuf.StringValue")
    message.field.add(name="allowed_batch_sizes", number=6, type=kinds.TYPE_INT64, label=kinds.LABEL_REPEATED)
    message.field.add(name="pad_variable_length_inputs", number=7, type=kinds.TYPE_BOOL, label=kinds.LABEL_OPTIONAL)
    from google.protobuf import wrappers_pb2

    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("check.BatchingParameters"))


def test_models_config(model_config):
    assert model_config.name == MODEL and model_config.base_path == f"/models/{MODEL}"
    assert model_config.model_platform == "tensorflow"
    assert model_config.model_version_policy.latest.num_versions == 1


def test_batching_config():
    text = (SERVING / "batching.config").read_text()
    parameters = text_format.Parse(text, batching_parameters_class()())
    sizes = list(parameters.allowed_batch_sizes)
    # TF Serving refuses to start otherwise.
    assert sizes == sorted(set(sizes)) and sizes[-1] == parameters.max_batch_size.value
    assert parameters.num_batch_threads.value >= 1 and parameters.batch_timeout_micros.value >= 0
    assert parameters.max_enqueued_batches.value >= 1


def test_client_does_not_ask_for_more_rows_than_a_batch_may_have():
    """TF Serving refuses a single request larger than max_batch_size."""
    from tfcq.serving.client import MAX_BATCH_SIZE

    parameters = text_format.Parse((SERVING / "batching.config").read_text(), batching_parameters_class()())
    assert parameters.max_batch_size.value >= MAX_BATCH_SIZE


def test_monitoring_config():
    assert monitoring.read_metrics_path(SERVING / "monitoring.config") == monitoring.DEFAULT_PATH


def check_arguments(arguments):
    flags = dict(argument.removeprefix("--").split("=", 1) for argument in arguments)
    files = {name: value for name, value in flags.items() if name.endswith("_file")}
    assert set(files) == {"model_config_file", "monitoring_config_file", "batching_parameters_file"}
    for value in files.values():
        assert value.startswith("/config/") and (SERVING / value.removeprefix("/config/")).is_file()
    assert flags["enable_batching"] == "true"


def test_compose_file(yaml, model_config):
    (service,) = yaml.safe_load((SERVING / "docker-compose.yml").read_text())["services"].values()
    check_arguments(service["command"])
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


def test_kubernetes_file(yaml, model_config):
    text = (SERVING / "kubernetes.yaml").read_text()
    documents = {document["kind"]: document for document in yaml.safe_load_all(text)}
    deployment, service = documents["Deployment"]["spec"], documents["Service"]["spec"]
    template = deployment["template"]
    assert service["type"] == "ClusterIP"
    assert deployment["selector"]["matchLabels"] == template["metadata"]["labels"] == service["selector"]
    (container,) = template["spec"]["containers"]
    check_arguments(container["args"])
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
