"""The package's front: its names, its version, and that it starts without TensorFlow."""

import pathlib
import re
import subprocess
import sys
from importlib import metadata

import pytest

import tfcq

HEAVY = ("tensorflow", "keras", "tensorflow_probability", "tensorflow_datasets", "sklearn", "scipy")


def test_the_package_the_flags_and_the_client_load_no_tensorflow():
    program = f"""
import sys
import tfcq, tfcq.client, tfcq.config, tfcq.flags
tfcq.Config(data=tfcq.DataConfig(image_size=8)).to_json()
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


@pytest.mark.parametrize("name", tfcq.__all__)
def test_every_public_name_resolves(name):
    value = getattr(tfcq, name)
    assert callable(value) and value.__name__ == name and value.__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        tfcq.trian  # noqa: B018


def test_the_version_is_that_of_setup():
    setup = pathlib.Path(__file__).parent.parent / "setup.py"
    done = subprocess.run(
        [sys.executable, "setup.py", "--version"], cwd=setup.parent, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == tfcq.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", tfcq.__version__)
    try:
        assert metadata.version("tfcq") == tfcq.__version__
    except metadata.PackageNotFoundError:  # the tests run from a checkout too
        assert not list(pathlib.Path(sys.prefix).glob("**/tfcq-*.dist-info"))
