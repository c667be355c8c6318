"""The package's front: its names, its version, and that it starts without TensorFlow."""

import ast
import email
import hashlib
import pathlib
import re
import subprocess
import sys
from importlib import metadata

import pytest

import tfcq

ROOT = pathlib.Path(__file__).parent.parent
HEAVY = ("tensorflow", "keras", "tensorflow_probability", "tensorflow_datasets", "sklearn", "scipy")


def test_the_package_the_flags_and_the_client_load_no_tensorflow():
    program = f"""
import sys
import tfcq, tfcq.serving.client.client, tfcq.command_line.command, tfcq.__main__
tfcq.Config(data=tfcq.DataConfig(image_size=8)).to_json()
tfcq.row_seeds(2)
tfcq.Client
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


@pytest.mark.parametrize("name", tfcq.__all__)
def test_every_public_name_resolves(name):
    value = getattr(tfcq, name)
    assert callable(value) and value.__name__ == name and value.__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'trian'$"):
        tfcq.trian  # noqa: B018


def test_dir_lists_the_public_names():
    assert {"Run", "Config", "GLFConfig", "Client", "row_seeds", "__version__"} <= set(dir(tfcq))
    assert not [name for name in dir(tfcq) if name.startswith("_") and not name.startswith("__")]


def test_what_was_a_function_of_the_package_says_where_it_went():
    program = """
import tfcq
try: tfcq.load
except AttributeError as error: print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600, cwd=ROOT)
    said = "module 'tfcq' has no attribute 'load'; in Python it is tfcq.Run(workdir, config).model(...)"
    assert (done.returncode, done.stdout.strip()) == (0, said), done.stderr


def test_what_is_imported_is_declared():
    """In setup.py, even if another package brings it too; but for protobuf, which is TensorFlow's, and h11, uvicorn's."""
    quoted = re.findall(r'"([a-zA-Z][\w-]*)(?:\[[\w-]+\])?(?:[<>=][^"]*)?"', (ROOT / "setup.py").read_text(encoding="utf-8"))
    declared, owners = {name.lower() for name in quoted}, metadata.packages_distributions()
    imported: set[str] = set()
    for path in (ROOT / "tfcq").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {one.name.partition(".")[0] for one in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.partition(".")[0])
    foreign = imported - sys.stdlib_module_names - {"tfcq", "google", "h11"}
    names = {one: {owner.lower().replace("_", "-") for owner in owners.get(one, [one])} for one in foreign}
    assert "scikit-learn" in declared and "sklearn" in foreign
    assert [one for one, known in names.items() if not known & declared] == []


def test_the_version_is_that_of_setup():
    setup = pathlib.Path(__file__).parent.parent / "setup.py"
    done = subprocess.run(
        [sys.executable, "setup.py", "--version"], cwd=setup.parent, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == tfcq.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", tfcq.__version__)
    try:
        assert metadata.version("tfcq") == tfcq.__version__
    except metadata.PackageNotFoundError:  # the tests run from a checkout too
        assert not list(pathlib.Path(sys.prefix).glob("**/tfcq-*.dist-info"))


def test_the_metadata_carry_the_licence_and_the_notices_name_what_they_require(tmp_path):
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    built = email.message_from_string((tmp_path / "tfcq.egg-info" / "PKG-INFO").read_text(encoding="utf-8"))
    assert built["License"] == "Apache-2.0"  # its identifier in SPDX
    assert built.get_all("License-File") == ["LICENSE", "THIRD_PARTY_NOTICES.md"]
    # The text as the Apache Software Foundation publishes it, to the byte.
    expected = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == expected
    notices = (ROOT / "THIRD_PARTY_NOTICES.md").read_text(encoding="utf-8")
    required = re.findall(r"^[\w-]+", (tmp_path / "tfcq.egg-info" / "requires.txt").read_text(), re.MULTILINE)
    listed = set(re.findall(r"[\w-]+", notices.partition("## Weights")[0]))
    assert len(required) > 20 and set(required) <= listed, set(required) - listed


def test_the_notices_name_every_photograph():
    from tfcq.data.builtin import PHOTOGRAPHS

    notices = (ROOT / "THIRD_PARTY_NOTICES.md").read_text(encoding="utf-8")
    assert all(file in notices for _, file in PHOTOGRAPHS)
