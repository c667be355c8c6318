"""The call of `tfcq demo`: mistakes are one line and status 2, without Gradio's being there."""

import importlib.util
import socket

import numpy as np
import pytest
import tiny_models
from commands import assert_one_line, flags_of, run_here
from numpy_model import Model

from tfcq import demo
from tfcq.errors import UserError
from tfcq.playground import scores


@pytest.fixture(scope="module", name="run")
def fixture_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "run"
    tiny_models.make_workdir(folder, tiny_models.config(8, model="vae"))
    return folder


def test_without_gradio_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    status, _, errors = run_here("demo", "--workdir=nowhere")
    assert_one_line(status, errors, "demo: expected the package gradio, found none; pip install 'tfcq[demo]'")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "expected one of --workdir=DIR of a trained run, --export=DIR"),
        (["--workdir=nowhere"], "workdir nowhere: expected a trained run"),
        (["--workdir={run}", "--server=localhost:1/a"], "received --workdir and --server"),
        (["--server=localhost:1"], "server: expected host:port/MODEL (gRPC)"),
        (["--server=localhost:1/a", "--held_out=test"], "held_out: expected PLACE or none with --export or --server"),
        (["--server=localhost:1/a", "--num_importance_samples=3"], "num_importance_samples: expected it with --workdir alone"),
        (["--workdir={run}", "--port=70000"], "port"),
        (["--workdir={run}", "--port={taken}"], "port {taken} of 127.0.0.1 cannot be used: Address already in use; choose"),
        (["--workdir={run}", "--host="], "--host must not be empty"),
        (["--workdir={run}", "--host=no.such.machine.invalid"], "no.such.machine.invalid is no address"),
        (["--workdir={run}", "--kept_scores={file}"], "kept_scores"),
        (["--workdir={run}", "--held_out=folder:nowhere", "--port=0"], "nowhere"),
        (["--server=localhost:1/a", "--port=0"], "localhost:1"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_mistakes_are_one_line(monkeypatch, tmp_path, run, arguments, expected):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "_check_packages", lambda: None)
    (tmp_path / "file").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        names = {"run": run, "taken": taken.getsockname()[1], "file": tmp_path / "file"}
        status, output, errors = run_here("demo", *(one.format(**names) for one in arguments))
    assert_one_line(status, errors, expected.format(**names))
    assert "the page is at" not in output


def test_where_the_runs_images_are_gone_the_page_goes_on_and_says_so(monkeypatch, make, capsys):
    def gone(*_):
        raise UserError("held_out: the test images of the run cannot be read")

    monkeypatch.setattr(scores, "held_out", gone)
    playground = make(Model())
    score, note = demo._score(playground, "test", {}, flags_of("demo"), None)
    assert score(np.full((8, 8, 1), 50, np.uint8)).percentiles == {} and "could not be used for a comparison" in note
    assert capsys.readouterr().out.startswith("warning: pictures are compared with no others: held_out: the test images")
    with pytest.raises(UserError, match="cannot be read"):  # where they were asked for
        demo._score(playground, "test", {}, flags_of("demo", "--held_out=test"), None)
    assert demo._score(make(Model({"sample"})), "test", {}, flags_of("demo"), None) == (None, "")
