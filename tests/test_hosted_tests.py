"""What runs on GitHub's machines: .github/workflows, and tools/test_tf_serving, which needs Docker."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SCRIPT = ROOT / "tools" / "test_tf_serving"


def test_the_workflow_runs_the_tools_that_there_are():
    yaml = pytest.importorskip("yaml", reason="PyYAML (extra dev) reads the workflow")
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())["jobs"]
    ran = {step["run"] for job in jobs.values() for step in job["steps"] if "run" in step}
    assert ran == {"tools/test", "tools/test -m long", "tools/test_tf_serving"}
    assert all(os.access(ROOT / command.split()[0], os.X_OK) for command in ran)
    pythons = {step["with"]["python-version"] for job in jobs.values() for step in job["steps"] if "with" in step}
    assert pythons == {"3.11"}  # that of constraints.txt
    assert all(0 < job["timeout-minutes"] <= 90 for job in jobs.values())


def test_the_script_passes_its_linter():
    beside = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    linter = shutil.which("shellcheck", path=beside) or pytest.skip("shellcheck (extra dev) is not installed")
    done = subprocess.run([linter, SCRIPT], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("docker, said", [
    (None, "error: expected the command docker, found none; "),
    ("exit 1", "error: expected docker compose, which this docker does not have"),
    ('test "$1" = compose', "error: docker's daemon does not answer"),
], ids=["no docker", "no compose", "no daemon"])
def test_without_docker_it_says_so_in_one_line(tmp_path, docker, said):
    for needed in ("bash", "dirname"):
        (tmp_path / needed).symlink_to(shutil.which(needed))
    if docker:
        (tmp_path / "docker").write_text(f"#!{shutil.which('bash')}\n{docker}\n")
        (tmp_path / "docker").chmod(0o755)
    done = subprocess.run([SCRIPT], env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(said) and done.stderr.count("\n") == 1
