"""Mistakes on the command line: one line, status 2, before TensorFlow is imported and anything is written."""

import os
import subprocess
import sys

import pytest
from commands import REPOSITORY, assert_one_line, command, run_here, start

from tfcq import config as configs


def test_mistakes_and_help_come_without_tensorflow(tmp_path):
    """All commands one after the other in one process, which takes a quarter of a second."""
    program = """
import contextlib, importlib, io, sys
for name in ("train", "evaluate", "sample", "export", "reproduce", "benchmark", "serve"):
    run = importlib.import_module(f"tfcq.{name}").COMMAND.run
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())):
        statuses = [run(["--no_such=3"]), run(["--num_samples=3", "--model_name=x", "--help"]), run(["--help"])]
    print(name, *statuses)
print([module for module in ("tensorflow", "keras") if module in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600, cwd=REPOSITORY)
    names = ("train", "evaluate", "sample", "export", "reproduce", "benchmark", "serve")
    assert done.stdout.splitlines() == [*(f"{name} 2 0 0" for name in names), "[]"], done.stderr
    assert done.stderr == "error: Unknown command line flag 'no_such'\n" * len(names)


def test_a_mistake_ends_a_process_with_one_line(tmp_path):
    process = start(command("train", batch_size="many"), cwd=tmp_path)
    output, errors = process.communicate(timeout=600)
    assert output == ""
    assert_one_line(process.returncode, errors, "--batch_size=many: expected an integer, received 'many'")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--image_sise=32"], "Unknown command line flag 'image_sise'. Did you mean: image_size ?"),
        (["--qqqq"], "Unknown command line flag 'qqqq'"),
        (["--image_size=big"], "--image_size=big"),
        (["--image_size=8.5"], "--image_size=8.5: expected an integer, received '8.5'"),
        (
            ["--image_size=64x48"],
            "--image_size=64x48: expected an integer, received '64x48'; models see square images, so it is one side: what is "
            "not square is cut at its centre",
        ),
        (["--center_crop=178x218"], "expected an integer, received '178x218'; it is one side: a square is cut"),
        (["--learning_rate=fast"], "--learning_rate=fast: expected a number, received 'fast'"),
        (["--jit_compile=perhaps"], "--jit_compile=perhaps"),
        (["--image_size"], "Missing value for flag --image_size"),
        (["--image_size=2"], "image_size: expected at least 4, received 2"),
        (["--batch_size=0"], "batch_size: expected at least 1, received 0"),
        (["--beta_1=1.5"], "beta_1: expected at most 0.999999, received 1.5"),
        (["--clip_norm=inf"], "clip_norm: expected a finite number, received inf"),
        (["--precision=mixed_float"], "(did you mean mixed_float16?)"),
        (["--optimizer_arguments=rho"], "optimizer_arguments: expected NAME=VALUE,... such as momentum=0.9,nesterov=true"),
        (["--model=cqff"], f"model: expected one of {', '.join(configs.SYSTEMS)}, received 'cqff' (did you mean cqf?)"),
        (["--coverage=false"], "coverage=false with flow_scales=1"),
        (["--nocoverage", "--flow_scales=0", "--quality_weight=0"], "nothing to train"),
        (["--image_size=24"], "image_size=24 with latent_size=4"),
        (["stray"], "expected only --flags, received 'stray'"),
        (["--batch_size=4", "16"], "expected only --flags, received '16'"),
        (["--dataset="], "dataset: expected a name, received an empty string"),
        (["--flagfile=nowhere.cfg"], "nowhere.cfg"),
        (["--flagfile="], "--flagfile: expected the name of a file, received an empty one"),
        (["--flagfile=", "--workdir=here"], "--flagfile: expected the name of a file, received an empty one"),
        (["--flagfile"], "--flagfile with no argument"),
        (["--flagfile=."], "Is a directory"),
        ([], "expected --preset=NAME or --flagfile=configs/NAME.cfg"),
        (["--learning_rate=nan", "--batch_size=4"], "learning_rate: expected a finite number, received nan"),
        (["--preset=quickstart", "--preset="], "--preset: expected the name of a preset, received an empty one"),
        (["--preset"], "--preset with no argument: expected --preset=NAME"),
        (["--preset=configs/quickstart.cfg"], "no such preset (a file of your own is --flagfile=FILE)"),
        (["--preset=fashion_mnist_gfl"], "no such preset (did you mean fashion_mnist_glf?); expected one of benchmark_cqf, "),
        (["--model=glff", "--help"], "--model=glff: expected one of cqf, realnvp, glf"),
    ],
    ids=" ".join,
)
def test_mistakes_of_train(monkeypatch, tmp_path, arguments, expected):
    monkeypatch.chdir(tmp_path)
    status, stdout, stderr = run_here("train", *arguments)
    assert_one_line(status, stderr, expected)
    assert stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_flagfile_that_is_no_text(tmp_path):
    (tmp_path / "binary.cfg").write_bytes(b"\xff\xfe\x00--image_size=8")
    status, _, stderr = run_here("train", f"--flagfile={tmp_path / 'binary.cfg'}")
    assert_one_line(status, stderr, "binary.cfg, line 1: expected a text file in UTF-8")


@pytest.mark.parametrize(("name", "wrong"), [("train", "--batch_size=many"), ("evaluate", "--num_samples=many")])
def test_mistakes_in_flagfiles_are_told_with_file_and_line(tmp_path, name, wrong):
    path = tmp_path / "mine.cfg"
    path.write_text(f"--seed=3  # the third\n{wrong}\n")
    status, stdout, stderr = run_here(name, f"--flagfile={path}", "--workdir=nowhere")
    assert_one_line(status, stderr, f"{path}, line 2: {wrong}: expected an integer, received 'many'")
    assert stdout == ""


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("sample", [], "expected --workdir=DIR of a trained run"),
        ("evaluate", [], "expected --workdir=DIR of a trained run"),
        ("export", ["--workdir=here"], "expected --workdir=DIR and --export_dir=BASE"),
        ("export", ["--export_dir=there"], "expected --workdir=DIR and --export_dir=BASE"),
        ("sample", ["--workdir=nowhere"], "workdir nowhere: expected a trained run with config.json, found none"),
        ("evaluate", ["--workdir=nowhere"], "workdir nowhere: expected a trained run with config.json, found none"),
        ("export", ["--workdir=nowhere", "--export_dir=there"], "workdir nowhere: expected a trained run"),
        ("sample", ["--workdir=here", "--mode=dream"], "--mode=dream"),
        ("sample", ["--workdir=here", "--num_samples=0"], "--num_samples=0"),
        ("sample", ["--workdir=here", "--image_draw=median"], "--image_draw=median: value should be one of <|sample|mode>"),
        ("sample", ["--workdir=here", "--output=grid.tif"], "output grid.tif: expected a picture (.png"),
        ("sample", ["--workdir=here", "--mode=reconstruct", "--output=grid"], "or --output=FILE.png, a picture; received recon"),
        ("sample", ["--workdir=here", "--temperature=-1"], "--temperature=-1"),
        ("evaluate", ["--workdir=nowhere", "--metrics=elbow"], "received 'elbow' (did you mean elbo?)"),
        ("evaluate", ["--wordir=here"], "Did you mean: workdir ?"),
        ("evaluate", ["--preset=introvae_fd"], "--preset=introvae_fd: no such preset (did you mean introvae_fid?); "),
        ("evaluate", ["--workdir=a", "--generated=b"], "or --generated=PLACE of images"),
        ("evaluate", ["--generated=b"], "expected --reference=PLACE of real images with --generated"),
        ("evaluate", ["--generated=b", "--reference=c"], "expected --output=DIR for the numbers and the report with --generated"),
        ("evaluate", ["--workdir=a", "--reference=c"], "reference: expected it with --generated alone"),
        ("evaluate", ["--compare=a", "--color=grey"], "color: expected it with --generated alone"),
        (
            "evaluate",
            ["--generated=b", "--reference=c", "--output=d", "--checkpoint=last"],
            "checkpoint: expected it with --workdir, and not with --generated",
        ),
        ("sample", ["--preset=quickstart"], "Unknown command line flag 'preset'"),
        ("serve", ["--flagfile=here"], "there is no --flagfile for this command"),
        ("serve", ["--preset=here"], "Unknown command line flag 'preset'"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_mistakes_of_the_other_commands(monkeypatch, tmp_path, name, arguments, expected):
    monkeypatch.chdir(tmp_path)
    status, stdout, stderr = run_here(name, *arguments)
    assert_one_line(status, stderr, expected)
    assert stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("sample", ["--output=file/picture.png"], "output: expected a folder, received 'file', which is a file"),
        ("sample", ["--output=file/"], "output: expected a folder, received 'file', which is a file"),
        ("sample", ["--output=file/all.npz"], "output: expected a folder, received 'file', which is a file"),
        ("sample", ["--output=pipe.png"], "output pipe.png: cannot be written: expected a file, it is a device or a pipe"),
        ("export", ["--export_dir=file/base"], "export_dir: expected a folder, received 'file', which is a file"),
        ("export", ["--export_dir=base"], "export_dir base/cqf: cannot be written: Not a directory"),
        ("evaluate", [], "report/curves.npz: cannot be written: Not a directory"),
        ("compare", ["--output=file"], "output: expected a folder, received 'file', which is a file"),
    ],
)
def test_a_place_that_cannot_be_written_is_told_before_the_work(monkeypatch, tmp_path, name, arguments, message):
    """The run has no checkpoint, which would be told where a model is loaded."""
    monkeypatch.chdir(tmp_path)
    for path in ("run", "base"):
        (tmp_path / path).mkdir()
    for path in ("file", "run/report", "base/cqf"):
        (tmp_path / path).write_text("")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "run" / "config.json").write_text("{}")
    if name == "compare":
        name, arguments = "evaluate", ["--compare=run,run", *arguments]
    else:
        arguments = ["--workdir=run", *arguments]
    status, stdout, stderr = run_here(name, *arguments)
    assert_one_line(status, stderr, message)
    assert stdout == "" and not list((tmp_path / "folder").iterdir())
