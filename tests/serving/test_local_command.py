"""The call of `serving/local_server.py`: mistakes are one line, status 2, and start no TensorFlow; its settings else."""

import socket
import subprocess
import sys

import grpc
import pytest
import tensorflow as tf
from conftest import REPOSITORY, free_ports

from tfcq import serve
from tfcq.serving.server import flags_of_tf_serving
from tfcq.serving.server.batching_parameters import BatchingParameters
from tfcq.serving.server.errors import CODE_NUMBER, UsageError

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
    (tmp_path / "tls.config").write_text('server_key: "no key" server_cert: "no certificate"')
    (tmp_path / "unsafe.config").write_text('server_key: "a" server_cert: "b" client_verify: true')
    (tmp_path / "batching.config").write_text("max_batch_size { value: 4 }")
    (tmp_path / "padding.config").write_text("pad_variable_length_inputs: true")
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
    (["--model_base_path={base}"], "holds models, not versions; give the directory of one model, such as {base}/model"),
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
    (["--model_base_path={base}/model", "--ssl_config_file={base}/tls.config"], "server_key and server_cert cannot be used"),
])
def test_mistake_is_one_line_and_status_2(base, arguments, reason):
    status, output, lines, modules = run(*[argument.format(base=base) for argument in arguments])
    assert status == 2 and output == ""
    assert len(lines) == 1 and lines[0].startswith("error: ") and reason.format(base=base) in lines[0]
    assert "tensorflow" not in modules


def options_of(base, *arguments):
    """What `LocalServer` is given for these flags, in this process."""
    flags = serve.COMMAND.flags()
    flags.parse([f"--model_base_path={base}/model", f"--port={free_ports(1)[0]}", *arguments])
    return serve.read_options(flags)[0]


@pytest.mark.parametrize("arguments, reason", [
    (["--batching_parameters_file={base}/batching.config"], "--batching_parameters_file needs --enable_batching"),
    (["--enable_per_model_batching_parameters"], "--enable_per_model_batching_parameters needs --enable_batching"),
    (["--enable_batching", "--batching_parameters_file={base}/none"], "none cannot be read: No such file"),
    (["--enable_batching", "--batching_parameters_file={base}/padding.config"], "pad_variable_length_inputs is not supported"),
    (["--ssl_config_file={base}/none"], "--ssl_config_file={base}/none cannot be read"),
    (["--ssl_config_file={base}/batching.config"], "does not hold SSLConfig as text"),
    (["--ssl_config_file={base}/unsafe.config"], "received no custom_ca"),
    (["--model_config_file_poll_wait_seconds=1"], "needs --model_config_file"),
    (["--grpc_channel_arguments=grpc.max=3000000000"], "expected numbers of 32 bits, received 'grpc.max=3000000000'"),
    (["--grpc_channel_arguments=grpc.max=-" + "9" * 5000], "expected numbers of 32 bits"),
])
def test_flags_that_do_not_fit(base, arguments, reason):
    with pytest.raises(UsageError) as caught:
        options_of(base, *[argument.format(base=base) for argument in arguments])
    assert reason.format(base=base) in str(caught.value) and "\n" not in str(caught.value)


def test_channel_arguments_are_numbers_or_texts(base):
    given = ["a=5", "a=-5", "a=", "a=b=c", "a=--5"]
    expected = [("a", 5), ("a", -5), ("a", ""), ("a", "b=c"), ("a", "--5")]
    assert options_of(base, f"--grpc_channel_arguments={','.join(given)}").grpc_channel_arguments == expected


@pytest.mark.parametrize("argument", ["--enable_batching", "--enable_batching=true", "--enable_batching=1"])
def test_batching_without_a_file_is_that_of_tf_serving(base, argument):
    options = options_of(base, argument)
    assert options.batching == BatchingParameters()  # test_batching.py has the numbers
    assert options.grpc_max_threads == options.rest_api_num_threads == serve.MAX_THREADS
    assert options_of(base, argument, "--grpc_max_threads=3").grpc_max_threads == 3
    assert options_of(base, "--enable_batching=false").batching is None


def test_warm_up_and_retries(base):
    assert [options_of(base, *given).num_warm_ups for given in
            ([], ["--enable_model_warmup=false"], ["--num_request_iterations_for_warmup=3"])] == [1, 0, 3]
    options = options_of(base, "--max_num_load_retries=5", "--load_retry_interval_micros=1500000")
    assert (options.num_load_retries, options.load_retry_seconds) == (5, 1.5)


def test_every_flag_of_tensorflow_model_server_is_accepted_or_refused_with_its_reason(base):
    """The list of tensorflow_serving/model_servers/main.cc, and one older name."""
    names = """port grpc_socket_path rest_api_port rest_api_num_threads rest_api_timeout_in_ms rest_api_enable_cors_support
        enable_batching allow_version_labels_for_unavailable_models batching_parameters_file enable_per_model_batching_parameters
        model_config_file model_config_file_poll_wait_seconds model_name model_base_path num_load_threads num_unload_threads
        max_num_load_retries load_retry_interval_micros file_system_poll_wait_seconds flush_filesystem_caches
        tensorflow_session_parallelism tensorflow_session_config_file tensorflow_intra_op_parallelism
        tensorflow_inter_op_parallelism use_alts_credentials ssl_config_file platform_config_file per_process_gpu_memory_fraction
        saved_model_tags grpc_channel_arguments grpc_max_threads enable_model_warmup num_request_iterations_for_warmup version
        monitoring_config_file remove_unused_fields_from_bundle_metagraph prefer_tflite_model num_tflite_pools
        num_tflite_interpreters_per_pool enable_signature_method_name_check xla_cpu_compilation_enabled
        xla_gpu_compilation_enabled enable_profiler thread_pool_factory_config_file mixed_precision skip_initialize_tpu
        enable_grpc_healthcheck_service enable_serialization_as_tensor_content use_tflite_model""".split()
    own = {"host", "help", "h", "helpfull"}
    assert set(serve.COMMAND.flags().values) - own == set(names)
    working, without, refused = flags_of_tf_serving.WORKING, flags_of_tf_serving.WITHOUT_EFFECT, flags_of_tf_serving.REFUSED
    assert sorted([*working, *without, *refused]) == sorted(names)  # each is in one of the three
    values = {bool: ("true", "false"), int: ("3",), float: ("0.5",), str: ("a,b",)}
    options_of(base, *[f"--{name}={value}" for name, (kind, _) in without.items() for value in values[kind]])
    for name, (kind, accepted, reason) in refused.items():
        with pytest.raises(UsageError) as caught:
            options_of(base, f"--{name}={values[kind][0]}")
        message = f"--{name}={values[kind][0]} is a flag of TF Serving that this server does not have: {reason}"
        assert str(caught.value) == message
        options_of(base, f"--{name}={str(accepted).lower()}")


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
