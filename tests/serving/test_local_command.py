"""The call of `serving/local_server.py`: mistakes are one line, status 2, and start no TensorFlow; its settings else."""

import socket
import subprocess
import sys

import grpc
import pytest
import tensorflow as tf
from conftest import REPOSITORY, free_ports

from tfcq import serve
from tfcq.serving.errors import CODE_NUMBER

COMMAND = [sys.executable, "-X", "importtime", str(REPOSITORY / "serving" / "local_server.py")]


def run(*arguments):
    """(exit status, stdout, the lines of stderr, imported modules)."""
    done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=600)
    imports = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    lines = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    return done.returncode, done.stdout, lines, {line.rsplit("|", 1)[1].strip() for line in imports}


@pytest.fixture
def base(tmp_path):
    (tmp_path / "model" / "1").mkdir(parents=True)
    (tmp_path / "model" / "1" / "saved_model.pb").write_bytes(b"no graph")
    (tmp_path / "no_proto.config").write_text("model_config_list { config { nonsense: 3 } }")
    (tmp_path / "twice.config").write_text("model_config_list { %s }" % (
        f'config {{ name: "a" base_path: "{tmp_path}/model" }}' * 2))
    (tmp_path / "monitoring.config").write_text("prometheus { }")
    return tmp_path


@pytest.mark.parametrize("arguments, reason", [
    (["--modelname=x"], "modelname"),
    (["--port=70000"], "port"),
    (["--port=many"], "port"),
    (["--port=0"], "--rest_api_port=0"),
    (["--port=8500", "--rest_api_port=8500"], "differ"),
    ([], "--model_base_path"),
    (["stray"], "'stray'"),
    (["--model_base_path={base}/nowhere"], "not a directory"),
    (["--model_base_path=gs://bucket/model"], "gs://bucket/model is an address; this server reads folders of this machine"),
    (["--model_base_path={base}/model/1"], "itself a version"),
    (["--model_base_path={base}/model", "--model_name=a/b"], "'a/b'"),
    (["--model_config_file={base}/nowhere"], "No such file"),
    (["--model_config_file={base}/no_proto.config"], "nonsense"),
    (["--model_config_file={base}/twice.config"], "twice"),
    (["--model_base_path={base}/model", "--monitoring_config_file={base}/monitoring.config"], "prometheus"),
    (["--model_base_path={base}/model", "--grpc_channel_arguments=grpc.max"], "key=value"),
    (["--model_base_path={base}/model", "--host="], "--host must not be empty"),
    (["--model_base_path={base}/model", "--host=no.such.machine.invalid"], "no.such.machine.invalid"),
    (["--model_base_path={base}/model", "--host=192.0.2.1"], "of 192.0.2.1 cannot be used"),
    (["--model_base_path={base}/model", "--host=http://localhost"], "--host=http://localhost is no address"),
    (["--flagfile={base}/twice.config"], "there is no --flagfile"),
    (["--model_base_path={base}/model", "--file_system_poll_wait_seconds=-1"], "file_system_poll_wait_seconds"),
])
def test_mistake_is_one_line_and_status_2(base, arguments, reason):
    status, output, lines, modules = run(*[argument.format(base=base) for argument in arguments])
    assert status == 2 and output == ""
    assert len(lines) == 1 and lines[0].startswith("error: ") and reason in lines[0]
    assert "tensorflow" not in modules


@pytest.mark.parametrize("package", ["grpc", "tensorflow_serving", "orjson"])
def test_without_the_extra_one_line_says_what_to_install(base, package):
    call = f"import sys; sys.modules['{package}'] = None; from tfcq.serve import COMMAND; sys.exit(COMMAND.run(sys.argv[1:]))"
    command = [sys.executable, "-c", call, f"--model_base_path={base}/model"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=REPOSITORY)
    assert done.returncode == 2 and done.stdout == ""
    line, = done.stderr.splitlines()
    assert line.startswith("error: serve: expected the packages") and package in line
    assert line.endswith("pip install 'tfcq[serving]'")


def test_codes_have_the_numbers_of_grpc():
    assert CODE_NUMBER == {code.name: code.value[0] for code in grpc.StatusCode}


def test_taken_port_is_one_line_and_status_2(base):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        for flag, off in (("port", "rest_api_port"), ("rest_api_port", "port")):
            status, _, lines, modules = run(f"--model_base_path={base}/model", f"--{flag}={taken}", f"--{off}=0")
            assert status == 2 and len(lines) == 1 and str(taken) in lines[0]
            assert "tensorflow" not in modules


@pytest.mark.parametrize("given, tensor_float_32", [(None, False), ("", False), ("1", True)])
def test_it_computes_as_tfcq_does_unless_the_user_says_otherwise(monkeypatch, given, tensor_float_32):
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    if given is not None:
        monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", given)
    tf.config.experimental.enable_tensor_float_32_execution(True)
    try:
        serve._import_server()
        assert tf.config.experimental.tensor_float_32_execution_enabled() == tensor_float_32
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(False)


def test_the_ready_line_needs_no_reader():
    """`| head` ends no server; what `outlives_stdout` does: tests/machine/test_terminal.py."""
    assert serve.COMMAND.outlives_stdout


def test_model_whose_only_version_is_broken_ends_the_start(base):
    status, output, lines, modules = run(f"--model_base_path={base}/model", f"--port={free_ports(1)[0]}")
    assert status == 2 and output == ""
    assert "error: no version of model 'default' loads" in lines[-1] and "version 1" in lines[-1]
    assert "tensorflow" in modules and not modules & {"keras", "tensorflow_probability", "tfcq.models"}
