"""What a package index would get: the sdist is complete, and what it installs works where no checkout is."""

import email
import os
import pathlib
import socket
import subprocess
import sys
import tarfile

import pytest
from commands import REPOSITORY, TINY

import tfcq

ASK = """
import sys, numpy, tfcq
print(tfcq.__file__)
client = tfcq.Client.grpc(sys.argv[1], model="cqf")
images = client.sample(2)
print(images.dtype, images.shape, numpy.isfinite(client.bits_per_dim(images)).all())
"""


@pytest.fixture(scope="module", name="sdist")
def fixture_sdist(tmp_path_factory):
    """The path of a source distribution, built without leaving anything in the checkout."""
    folder = tmp_path_factory.mktemp("sdist")
    built = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", folder, "sdist", "--dist-dir", folder]
    subprocess.run(built, cwd=REPOSITORY, check=True, capture_output=True, timeout=600)
    return folder / f"tfcq-{tfcq.__version__}.tar.gz"


def test_the_sdist_has_all_that_the_repository_has(sdist):
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a checkout of git")
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    tracked = {name for name in listed.stdout.split("\0") if name and (REPOSITORY / name).exists()}
    assert len(tracked) > 300 and not tracked - held


def test_the_metadata_say_what_it_is(sdist):
    with tarfile.open(sdist) as archive:
        text = archive.extractfile(f"tfcq-{tfcq.__version__}/PKG-INFO").read().decode()
    about = email.message_from_string(text)
    assert (about["Name"], about["Version"], about["Author"]) == ("tfcq", tfcq.__version__, "The tfcq developers")
    assert about["Requires-Python"] == ">=3.11,<3.14" and about["Description-Content-Type"] == "text/markdown"
    classifiers = about.get_all("Classifier")
    assert "License :: OSI Approved :: Apache Software License" in classifiers and "Typing :: Typed" in classifiers
    versions = [one for one in classifiers if one.startswith("Programming Language :: Python :: 3.")]
    assert versions == ["Programming Language :: Python :: 3.11"]  # the one that the tests ran with
    assert about["Keywords"] and about.get_payload().strip().startswith("# tfcq")
    assert about["Home-page"] is None and about["Project-URL"] is None  # there is no public address yet


@pytest.fixture(scope="module", name="site")
def fixture_site(sdist, tmp_path_factory):
    """The folder that the sdist was installed in; what it needs is this environment's."""
    site = tmp_path_factory.mktemp("installed") / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--target", site, sdist], check=True, timeout=600, cwd=site.parent)
    return site


def test_what_is_installed_is_all_that_the_commands_read(site):
    def files(folder, *kinds):
        return {str(path.relative_to(folder)) for kind in kinds for path in folder.rglob(kind)}

    kinds = ("*.py", "*.typed", "*.txt")
    assert files(site / "tfcq", *kinds) - files(site / "tfcq" / "configs", "*") == files(REPOSITORY / "tfcq", *kinds)
    assert files(site / "tfcq" / "configs", "*.cfg") == files(REPOSITORY / "configs", "*.cfg")
    assert not (site / "configs").exists()
    environment = os.environ | {"PYTHONPATH": str(site)}
    command = [site / "bin" / "tfcq", "train", "--preset=quickstart", "--batch_size=-1"]
    refused = subprocess.run(command, cwd=site.parent, env=environment, capture_output=True, text=True, timeout=600)
    assert refused.returncode == 2 and refused.stderr.startswith("error: batch_size: expected"), refused.stderr


@pytest.mark.long
@pytest.mark.timeout(900)
def test_an_installed_package_trains_measures_exports_serves_and_answers(site, tmp_path):
    away = tmp_path / "away"
    away.mkdir()
    environment = os.environ | {"PYTHONPATH": str(site), "TF_CPP_MIN_LOG_LEVEL": "3"}
    options = {"cwd": away, "env": environment, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}

    def begin(*arguments):
        return subprocess.Popen([str(argument) for argument in arguments], **options)

    def end(process):
        output, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
        return output

    flags = TINY | {"latent_size": 2, "train_steps": 2, "warmup_steps": 0, "evaluate_every": 2}
    train = [sys.executable, "-m", "tfcq.train", "--preset=quickstart", *(f"--{name}={value}" for name, value in flags.items())]
    assert "step 2/2" in end(begin(*train))
    command, workdir = site / "bin" / "tfcq", pathlib.Path("runs", "quickstart")
    evaluating = begin(command, "evaluate", f"--workdir={workdir}", "--num_images=8", "--metrics=elbo", "--noreport")
    exporting = begin(command, "export", f"--workdir={workdir}", "--export_dir=exports", "--num_importance_samples=2")
    assert "elbo: " in end(evaluating)
    assert end(exporting).endswith("exported exports/cqf/1\n")  # after lines of progress, on a slow machine
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serving = begin(command, "serve", "--model_name=cqf", "--model_base_path=exports/cqf", f"--port={port}")
    try:
        assert serving.stdout.readline().startswith(f"ready: gRPC at 127.0.0.1:{port}; serving cqf (version 1)")
        where, answer = end(begin(sys.executable, "-c", ASK, f"127.0.0.1:{port}")).splitlines()
        serving.terminate()
        end(serving)
    finally:
        serving.kill()
    assert pathlib.Path(where).is_relative_to(site) and answer == "uint8 (2, 8, 8, 1) True"
