"""TF-GAN imports, works, and leaves nothing of what made it import behind."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf

from tfcq.metrics.tf_gan import import_tensorflow_gan


def test_the_parts_that_work_do():
    tensorflow_gan = import_tensorflow_gan()
    logits = np.log(np.array([[0.9, 0.1], [0.1, 0.9]]))
    divergence = 0.9 * np.log(1.8) + 0.1 * np.log(0.2)
    score = tensorflow_gan.eval.classifier_score_from_logits(logits)
    np.testing.assert_allclose(score, np.exp(divergence), rtol=1e-12)
    loss = tensorflow_gan.losses.wargs.wasserstein_generator_loss(tf.constant([1.0, 2.0]))
    np.testing.assert_allclose(loss, -1.5)


def test_nothing_of_the_stand_ins_is_left():
    tensorflow_gan = import_tensorflow_gan()
    assert not hasattr(tf, "estimator")
    assert "tensorflow_gan.python.estimator" not in sys.modules
    assert not hasattr(tensorflow_gan, "estimator")
    assert not hasattr(sys.modules["tensorflow_gan.python"], "estimator")


def test_importing_again_gives_the_same_module():
    tensorflow_gan = import_tensorflow_gan()
    assert import_tensorflow_gan() is tensorflow_gan is sys.modules["tensorflow_gan"]
    import tensorflow_gan as by_name

    assert by_name is tensorflow_gan


def run_program(program):
    return subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=600)


@pytest.mark.long
def test_after_a_plain_import_has_failed_and_with_warnings_as_errors():
    """A plain import breaks off half way and leaves submodules behind; the module that we make then must be whole."""
    result = run_program("""
        import sys, warnings
        try:
            import tensorflow_gan
        except AttributeError as error:
            assert "estimator" in str(error)
        else:
            raise SystemExit("tensorflow_gan imports by itself: tf_gan.py can go")
        import numpy, tensorflow_probability
        from tfcq.metrics.tf_gan import import_tensorflow_gan
        warnings.simplefilter("error")
        tensorflow_gan = import_tensorflow_gan()
        value = tensorflow_gan.eval.frechet_classifier_distance_from_activations(numpy.eye(3), 2.0 * numpy.eye(3))
        assert abs(float(value) - 4.0 / 3.0) < 1e-12, value
        assert tensorflow_gan.losses.wargs.modified_generator_loss is not None
        import tensorflow as tf
        assert not hasattr(tf, "estimator") and "tensorflow_gan.python.estimator" not in sys.modules
        print("whole")
    """)
    assert result.stdout.strip() == "whole", result.stderr[-2000:]


def test_an_import_that_fails_cleans_up_too(monkeypatch):
    monkeypatch.delitem(sys.modules, "tensorflow_gan", raising=False)

    def fail(name):
        assert tf.estimator.SessionRunHook is tf.compat.v1.train.SessionRunHook and name == "tensorflow_gan"
        raise ImportError("no such package")

    monkeypatch.setattr("importlib.import_module", fail)
    with pytest.raises(ImportError, match="no such package"):
        import_tensorflow_gan()
    assert not hasattr(tf, "estimator") and "tensorflow_gan.python.estimator" not in sys.modules
