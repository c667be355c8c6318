"""Settings of a machine, or of a Python process, that would change a run: they are set, refused in one line, or recorded.

A run depends on its flags alone.

* Set: Keras's backend, and its defaults (image format, float type, epsilon, dtype policy, limits of `fit`), which
  ~/.keras/keras.json and KERAS_* change in every process. `keras_defaults` sets Keras's own defaults while tfcq builds or trains
  a model, and restores the user's. TensorFloat-32 is switched off for the process: densities are float32, and products with
  10 bits are too coarse for a log-density that sums over thousands of pixels.
* Refused, by `import_tensorflow`: settings that compute less exactly than the flags say, or compile without a flag for it, and
  that can be changed only before the process starts.
* Recorded in environment.json: settings that choose between kernels which are equal up to rounding (oneDNN, threads, the
  processor).

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pathlib
import platform
import re
import sys
from collections.abc import Iterator
from typing import Any

from tfcq.errors import UserError

_RECORDED = (
    *("TF_ENABLE_ONEDNN_OPTS", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "TF_USE_DEEP_CONV2D", "TF_ENABLE_WINOGRAD_NONFUSED"),
    *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "TF_OVERRIDE_GLOBAL_THREADPOOL", "OMP_NUM_THREADS"),
    *("OPENBLAS_NUM_THREADS", "OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES", "NPY_ENABLE_CPU_FEATURES"),
    *("TF_XLA_FLAGS", "XLA_FLAGS", "TF_DETERMINISTIC_OPS", "TF_CUDNN_DETERMINISTIC", "TF_DISABLE_SCATTER_OP_DETERMINISM"),
    *("TF_CUDNN_USE_AUTOTUNE", "TF_CUDNN_USE_RUNTIME_FUSION", "TF_USE_CUBLASLT", "TF_USE_CUDNN_BATCHNORM_SPATIAL_PERSISTENT"),
    *("TF_CONV2D_USE_FP16_ACCUMULATE", "TF_FP16_CONV_USE_FP32_COMPUTE", "TF_FP16_MATMUL_USE_FP32_COMPUTE"),
    *("NVIDIA_TF32_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG", "CUDA_VISIBLE_DEVICES", "TF_USE_LEGACY_KERAS", "TFDS_DATA_DIR"),
)
"""By name, not by prefix: the variables NVIDIA_API_KEY and TF_VAR_... hold secrets."""

_INSTRUCTIONS = ("sse4_1", "avx", "avx2", "fma", "avx512f", "avx512_bf16", "amx_tile")


def prefer_onednn() -> None:
    """Sets TF_ENABLE_ONEDNN_OPTS=1 unless the user has set it.

    By default TensorFlow leaves oneDNN off on processors without AVX-512, and a training step then takes 1.3 to 1.8 times as
    long. It reads the variable when it is imported; after that the variable is not changed, so that child processes compute
    alike.
    """
    if "tensorflow" not in sys.modules and not os.environ.get("TF_ENABLE_ONEDNN_OPTS"):
        os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"


def import_tensorflow() -> None:
    """Imports TensorFlow and Keras with the settings that tfcq needs; commands and `tfcq.Run` call it before they compute.

    Raises:
        UserError: a setting that would change a run and that can no longer be changed: see the module.
    """
    check_environment()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # lines about its build and about GPUs that are not there
    with without_garbage_collection():
        _import_keras()
        import tensorflow as tf

    if not tf.compat.v1.executing_eagerly_outside_functions():
        raise UserError("TensorFlow's eager execution is off in this process; expected it on: do not disable TF2 behaviour")
    options = tf.config.optimizer.get_experimental_options()
    switches = {name: options.get(name) for name in ("auto_mixed_precision", "auto_mixed_precision_onednn_bfloat16")}
    for name, on in {"set_jit": tf.config.optimizer.get_jit(), **switches}.items():
        if on:
            raise UserError(
                f"tf.config.optimizer: {name} is on in this process; expected it off: the options are jit_compile and precision"
            )
    tf.config.experimental.enable_tensor_float_32_execution(False)


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """A context for imports: TensorFlow makes hundreds of thousands of objects, which all stay; collections only take time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@contextlib.contextmanager
def without_optional_imports() -> Iterator[None]:
    """A context for a command's first import of TensorFlow or Keras: it then takes a second less, a third.

    Keras imports scikit-learn and Matplotlib, if it can, for wrappers and galleries that tfcq does not use; in this process these
    then say that the packages are missing. After the context both are imported as always.
    """
    first = not {"keras", "tensorflow"} & sys.modules.keys()
    left_out: dict[str, Any] = {name: None for name in ("sklearn", "matplotlib") if first and name not in sys.modules}
    sys.modules.update(left_out)  # None: importing it raises ImportError
    try:
        yield
    finally:
        for name in left_out:
            del sys.modules[name]


def check_environment() -> None:
    """Checks the environment variables that no later setting overrides; without TensorFlow.

    Raises:
        UserError: a variable whose value would change a run.
    """
    for name, pattern in (
        ("TF_XLA_FLAGS", r"--tf_xla_auto_jit(?!=(0|-1)(\s|,|$))\S*"),
        ("XLA_FLAGS", r"--xla_\w*fast_(math|min_max)\b(?!=(false|0)\b)\S*"),
    ):
        found = re.search(pattern, _flags_of(name))
        if found:
            raise UserError(
                f"{name}: {found.group()} would make a run compute differently than its flags say; expected it unset "
                "(--jit_compile compiles with XLA)"
            )
    for name in ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE", "TF_SET_ONEDNN_FPMATH_MODE"):
        value = os.environ.get(name, "")
        if value.lower() not in ("", "strict"):
            raise UserError(f"{name}={value} would compute float32 with fewer bits; expected it unset (use --precision)")
    value = os.environ.get("NVIDIA_TF32_OVERRIDE", "")
    if value not in ("", "0"):
        raise UserError(f"NVIDIA_TF32_OVERRIDE={value} would compute float32 with fewer bits; expected it unset, or 0")


def _flags_of(name):
    """The text of XLA's flags in an environment variable, which may also name a file that holds them."""
    value = os.environ.get(name, "").strip()
    if value and not value.startswith("-"):
        try:
            return pathlib.Path(value).read_text(errors="replace")
        except OSError:
            return ""
    return value


def _import_keras():
    settings = sys.modules.get("keras.src.backend.config")  # set as soon as an import of Keras has begun, even if it failed
    if settings is not None and settings.backend() != "tensorflow":
        raise UserError(
            f"Keras was imported with its {settings.backend()} backend; expected TensorFlow's: unset KERAS_BACKEND (or set it to "
            "tensorflow) and start again"
        )
    before = os.environ.get("KERAS_BACKEND")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    try:
        import keras  # noqa: F401
    except (AttributeError, ValueError) as error:
        if not _raised_by(error, ("backend", "config.py")):
            raise
        raise UserError(
            f"Keras refuses its settings: {' '.join(str(error).split())}; expected {_keras_json()} and KERAS_MAX_EPOCHS, "
            "KERAS_MAX_STEPS_PER_EPOCH as Keras takes them: fix or remove them"
        ) from error
    finally:
        if before is None:
            del os.environ["KERAS_BACKEND"]
        else:
            os.environ["KERAS_BACKEND"] = before


def _raised_by(error, end_of_path):
    """Whether an error was raised in a file whose path ends with `end_of_path`, a tuple of names."""
    traceback = error.__traceback__
    while traceback.tb_next:
        traceback = traceback.tb_next
    return pathlib.Path(traceback.tb_frame.f_code.co_filename).parts[-len(end_of_path) :] == end_of_path


def _keras_json():
    return pathlib.Path(os.environ.get("KERAS_HOME") or "~/.keras", "keras.json")


@contextlib.contextmanager
def keras_defaults(dtype_policy: str = "float32") -> Iterator[None]:
    """A context, or a decorator, in which Keras has its own defaults; afterwards the settings of the process are restored.

    Args:
        dtype_policy: dtype policy of the layers that are built inside, such as "mixed_bfloat16".
    """
    from keras import config

    values: dict[str, Any] = {
        "floatx": "float32",
        "image_data_format": "channels_last",
        "epsilon": 1e-7,
        "dtype_policy": dtype_policy,
        "max_epochs": None,
        "max_steps_per_epoch": None,
    }
    before = {name: getattr(config, name)() for name in values}
    try:
        _set_keras(values)
        yield
    finally:
        _set_keras(before)


def _set_keras(values):
    from keras import config

    for name, value in values.items():
        getattr(config, f"set_{name}")(value)


def record() -> dict[str, Any]:
    """The other settings that may change rounding, as plain JSON values for environment.json.

    Returns:
        `settings`: the environment variables that choose kernels; `tensorflow`: whether oneDNN and TensorFloat-32 are on, numbers
        of threads (0: TensorFlow's choice); `processor`: its model and instructions; `gpus`: model and compute capability.
    """
    import tensorflow as tf

    try:
        from tensorflow.python.util import _pywrap_util_port

        onednn = bool(_pywrap_util_port.IsMklEnabled())
    except (ImportError, AttributeError):  # there is no public function for it
        onednn = None
    details = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    return {
        "settings": {name: os.environ[name] for name in _RECORDED if name in os.environ},
        "tensorflow": {
            "onednn": onednn,
            "tensor_float_32": tf.config.experimental.tensor_float_32_execution_enabled(),
            "intra_op_threads": tf.config.threading.get_intra_op_parallelism_threads(),
            "inter_op_threads": tf.config.threading.get_inter_op_parallelism_threads(),
        },
        "processor": _processor(),
        "gpus": [{name: str(value) for name, value in one.items()} for one in details],
    }


def _processor():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    flags = facts.get("flags", "").split()
    return {
        "model": facts.get("model name") or platform.processor() or platform.machine(),
        "count": os.cpu_count(),
        "instructions": [name for name in _INSTRUCTIONS if name in flags],
    }
