"""What the settings of a machine or of a Python process would change of a run: set aside, refused, or recorded."""

import contextlib
import gc
import json
import os
import pathlib
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny_models as tiny

import tfcq
from tfcq.command_line import starting
from tfcq.errors import UserError
from tfcq.evaluation import figures
from tfcq.machine import settings
from tfcq.randomness import row_seeds

HOSTILE = {
    "floatx": "float16",
    "image_data_format": "channels_first",
    "epsilon": 0.5,
    "dtype_policy": "mixed_bfloat16",
    "max_epochs": 1,
    "max_steps_per_epoch": 1,
}
"""What a user's own programs may have set in Keras."""


def of_keras():
    values = {name: getattr(keras.config, name)() for name in HOSTILE}
    return values | {"dtype_policy": values["dtype_policy"].name}


def set_keras(values):
    for name, value in values.items():
        getattr(keras.config, f"set_{name}")(value)


@pytest.fixture
def hostile():
    before = of_keras()
    set_keras(HOSTILE)
    yield
    set_keras(before)


# Keras's defaults.


def test_keras_has_its_own_defaults_inside_and_the_users_after(hostile):
    with contextlib.suppress(ZeroDivisionError), settings.keras_defaults("mixed_float16"):
        assert of_keras() == {
            **{"floatx": "float32", "image_data_format": "channels_last", "epsilon": 1e-7, "dtype_policy": "mixed_float16"},
            **{"max_epochs": None, "max_steps_per_epoch": None},
        }
        raise ZeroDivisionError
    assert of_keras() == HOSTILE

    @settings.keras_defaults()
    def decorated():
        return keras.layers.Dense(1).compute_dtype

    assert decorated() == decorated() == "float32" and of_keras() == HOSTILE


@pytest.mark.parametrize(("model", "options"), [("introvae", {}), ("cqf", {"discriminator_network": "residual"}), ("glf", {})])
def test_a_model_is_the_same_whatever_keras_was_told(model, options):
    config = tiny.config(8, model=model, **options)

    def answers():
        built = tiny.build(config)
        assert {variable.dtype for variable in built.trainable_variables} == {"float32"}
        images, seeds = tiny.images(built.image_shape, 3), row_seeds(3)
        likelihoods = [built.elbo(images, seeds)] if "likelihood" in built.abilities else []
        answered = [built.sample(seeds), built.encode(images, seeds), *likelihoods]
        return [*tiny.values(built.variables), *answered]

    expected, before = answers(), of_keras()
    set_keras(HOSTILE)
    try:
        received = answers()
        assert of_keras() == HOSTILE
    finally:
        set_keras(before)
    for one, other in zip(expected, received, strict=True):
        np.testing.assert_array_equal(one, other)


def test_training_takes_all_its_steps_whatever_keras_was_told(hostile, tmp_path):
    config = tiny.config(8, data={"dataset": "digits"}, training={"train_steps": 3}, model="vae")
    model = tfcq.Run(tmp_path, config).train()
    assert model.steps_taken == 3 and of_keras() == HOSTILE
    kept = [variable for optimizer in model.player_optimizers.values() for variable in optimizer.variables]
    assert {variable.dtype for variable in kept if "int" not in variable.dtype} == {"float32"}


# Keras's backend.


@pytest.mark.parametrize("call", [settings.import_tensorflow, tfcq.Run("w").model, starting.start_tensorflow])
def test_keras_on_another_backend_is_refused(monkeypatch, call):
    monkeypatch.setitem(sys.modules, "keras.src.backend.config", types.SimpleNamespace(backend=lambda: "jax"))
    with pytest.raises(UserError, match="Keras was imported with its jax backend; expected TensorFlow's") as caught:
        call()
    assert "\n" not in str(caught.value)


# What is refused.

REFUSED = [
    ("TF_XLA_FLAGS", "--tf_xla_auto_jit=2"),
    ("TF_XLA_FLAGS", "--tf_xla_cpu_global_jit --tf_xla_auto_jit=fusible"),
    ("XLA_FLAGS", "--xla_dump_to=x --xla_cpu_enable_fast_math=true"),
    ("XLA_FLAGS", "--xla_gpu_enable_fast_min_max"),
    ("ONEDNN_DEFAULT_FPMATH_MODE", "BF16"),
    ("DNNL_DEFAULT_FPMATH_MODE", "any"),
    ("TF_SET_ONEDNN_FPMATH_MODE", "BF16"),
    ("NVIDIA_TF32_OVERRIDE", "1"),
]
ACCEPTED = [
    ("TF_XLA_FLAGS", "--tf_xla_auto_jit=0 --tf_xla_enable_xla_devices"),
    ("TF_XLA_FLAGS", "/nowhere/flags"),
    ("XLA_FLAGS", "--xla_gpu_cuda_data_dir=/usr/lib/cuda --xla_cpu_enable_fast_math=false"),
    ("ONEDNN_DEFAULT_FPMATH_MODE", "STRICT"),
    ("NVIDIA_TF32_OVERRIDE", "0"),
    ("TF_DETERMINISTIC_OPS", "1"),
]


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_less_exact_arithmetic_that_no_flag_asks_for_is_refused(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    for call in (settings.import_tensorflow, starting.start_tensorflow, tfcq.Run("w").train):
        with pytest.raises(UserError, match=name) as caught:
            call()
        message = str(caught.value)
        assert "\n" not in message and value.split()[-1] in message and "expected it unset" in message


@pytest.mark.parametrize(("name", "value"), ACCEPTED)
def test_what_changes_nothing_or_only_rounding_is_accepted(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    settings.check_environment()


def test_xlas_flags_may_stand_in_a_file(monkeypatch, tmp_path):
    (tmp_path / "flags").write_text("--tf_xla_clustering_debug\n--tf_xla_auto_jit=1\n")
    monkeypatch.setenv("TF_XLA_FLAGS", str(tmp_path / "flags"))
    with pytest.raises(UserError, match="TF_XLA_FLAGS: --tf_xla_auto_jit=1 would"):
        settings.check_environment()


@pytest.mark.parametrize(
    ("name", "switch"),
    [
        ("set_jit", lambda on: tf.config.optimizer.set_jit("autoclustering" if on else False)),
        ("auto_mixed_precision", lambda on: tf.config.optimizer.set_experimental_options({"auto_mixed_precision": on})),
    ],
)
def test_a_process_that_compiles_or_rounds_by_itself_is_refused(name, switch):
    switch(True)
    try:
        with pytest.raises(UserError, match=f"tf.config.optimizer: {name} is on in this process; expected it off"):
            settings.import_tensorflow()
    finally:
        switch(False)
    settings.import_tensorflow()


# What is set.


@pytest.mark.parametrize("collects", [True, False])
def test_an_import_leaves_garbage_collection_as_it_was(collects):
    try:
        (gc.enable if collects else gc.disable)()
        with contextlib.suppress(ImportError), settings.without_garbage_collection():
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled() == collects
    finally:
        gc.enable()


def test_float32_is_not_tensor_float_32(monkeypatch):
    tf.config.experimental.enable_tensor_float_32_execution(True)
    tiny.build(tiny.config(8, model="vae"))
    assert not tf.config.experimental.tensor_float_32_execution_enabled()


@pytest.mark.parametrize(
    ("given", "loaded", "expected"), [(None, False, "1"), ("", False, "1"), ("0", False, "0"), (None, True, None)]
)
def test_onednn_is_on_unless_the_user_says_otherwise_or_tensorflow_runs(monkeypatch, given, loaded, expected):
    if not loaded:
        monkeypatch.delitem(sys.modules, "tensorflow")
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    if given is not None:
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", given)
    settings.prefer_onednn()
    assert os.environ.get("TF_ENABLE_ONEDNN_OPTS") == expected
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "")  # so that what was set above is undone too


def test_figures_do_not_look_as_a_matplotlibrc_says():
    import matplotlib

    def picture():
        return figures.histogram({"real": np.arange(9.0)}, "nats").picture()

    expected = picture()
    with matplotlib.rc_context({"text.usetex": True, "font.size": 20.0, "axes.facecolor": "black"}):
        np.testing.assert_array_equal(picture(), expected)
        assert matplotlib.rcParams["font.size"] == 20.0


# What is recorded.


def test_what_may_change_rounding_is_recorded_and_no_secret(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("TF_VAR_password", "secret")
    monkeypatch.setenv("NVIDIA_API_KEY", "secret")
    record = settings.record()
    text = json.dumps(record)
    assert "secret" not in text and record["settings"]["OPENBLAS_CORETYPE"] == "Haswell"
    assert record["tensorflow"].keys() == {"onednn", "tensor_float_32", "intra_op_threads", "inter_op_threads"}
    assert isinstance(record["tensorflow"]["onednn"], bool) and record["tensorflow"]["tensor_float_32"] is False
    assert record["processor"]["model"] and record["processor"]["count"] >= 1
    assert len(record["gpus"]) == len(tf.config.list_physical_devices("GPU"))


# A process of its own: Keras reads its settings while it is imported.

PROGRAM = """
import os, pathlib, sys
import tfcq
from tfcq.machine import settings
home = pathlib.Path(os.environ["KERAS_HOME"])
for text in ['{"floatx": "bfloat16"}', '{"epsilon": 1}', '{"image_data_format": "hwc"}', "[]", "{}"]:
    (home / "keras.json").write_text(text)
    if text == "{}":
        os.environ["KERAS_MAX_EPOCHS"] = "many"
    try:
        settings.import_tensorflow()
    except tfcq.UserError as error:
        assert "\\n" not in str(error) and str(home / "keras.json") in str(error), error
        print("refused")
os.environ.pop("KERAS_MAX_EPOCHS")
(home / "keras.json").write_text('{"backend": "jax", "floatx": "float16", "image_data_format": "channels_first", "epsilon": 0.5}')
config = tfcq.Config.from_json(sys.argv[1])
model = tfcq.Run(sys.argv[2], config).train()
import keras
assert (keras.config.backend(), os.environ["KERAS_BACKEND"]) == ("tensorflow", "jax")  # children of the user's are the user's
assert (keras.config.floatx(), keras.config.image_data_format()) == ("float16", "channels_first")
print("steps", model.steps_taken)
"""


@pytest.mark.long
def test_a_keras_json_changes_no_run(tmp_path):
    config = tiny.config(8, data={"dataset": "digits"}, training={"train_steps": 2}, model="vae")
    (tmp_path / "keras").mkdir()
    environment = {"KERAS_HOME": str(tmp_path / "keras"), "KERAS_BACKEND": "jax", "KERAS_MAX_STEPS_PER_EPOCH": "1"}
    environment |= {"PYTHONPATH": str(pathlib.Path(tfcq.__file__).parent.parent), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, config.to_json(), str(tmp_path / "hostile")],
        env=os.environ | environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines[:5] == ["refused"] * 5 and lines[-1] == "steps 2", done.stderr[-2000:]
    tfcq.Run(tmp_path / "here", config).train()
    for one, other in zip(*(tfcq.Run(tmp_path / name).model("last").variables for name in ("hostile", "here")), strict=True):
        np.testing.assert_allclose(one.value, other.value, rtol=1e-4, atol=1e-5)
    record = json.loads((tmp_path / "hostile" / "environment.json").read_text())
    assert record["settings"]["TF_ENABLE_ONEDNN_OPTS"] and "packages" in record
