"""Imports TF-GAN, which no longer imports by itself; nothing else here does.

TF-GAN 2.1 needs `tf.estimator`, which TensorFlow dropped in 2.16: its estimator subpackage is built on it, and one
class of its training module derives from `tf.estimator.SessionRunHook`. Neither is used here. For the time of the
import alone, `tf.estimator` holds that hook (TensorFlow still has it under `tf.compat.v1.train`) and an empty module
stands for the subpackage; both are removed afterwards, so that `hasattr(tf, "estimator")` stays
False for other code.

`eval` from activations and logits, `losses.wargs` and the image grid then work; the streaming metrics, `gan_model`, the
train ops and `estimator` do not.
"""

import importlib
import sys
import threading
import types
import warnings

_ESTIMATOR_MODULE = "tensorflow_gan.python.estimator"
_lock = threading.Lock()  # two threads inside the import would take each other's stand-ins away


def import_tensorflow_gan() -> types.ModuleType:
    """Imports TF-GAN, or finds it already imported; the stand-ins are removed in either case.

    Returns:
        The module `tensorflow_gan`, without its attribute `estimator`: an AttributeError is clearer than an empty
        module.

    Raises:
        ImportError: tensorflow-gan is not installed, or one of its own imports fails.
    """
    with _lock:
        if "tensorflow_gan" in sys.modules:
            return sys.modules["tensorflow_gan"]
        import tensorflow as tf

        tf.estimator = types.SimpleNamespace(SessionRunHook=tf.compat.v1.train.SessionRunHook)
        sys.modules[_ESTIMATOR_MODULE] = types.ModuleType(_ESTIMATOR_MODULE)
        try:
            with warnings.catch_warnings():
                # distutils' versions and pkg_resources, both TF-GAN's to replace; an error where warnings are errors.
                warnings.filterwarnings("ignore", message="distutils Version classes", category=DeprecationWarning)
                warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
                tensorflow_gan = importlib.import_module("tensorflow_gan")
        finally:
            del tf.estimator
            del sys.modules[_ESTIMATOR_MODULE]
        del tensorflow_gan.estimator, sys.modules["tensorflow_gan.python"].estimator
        return tensorflow_gan
