"""Paths that a user gives: every name works or is refused in one line, and TensorFlow takes none for a pattern."""

import gzip
import os
import pathlib
import re
import struct
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from path_names import NAMES, NASTY
from PIL import Image

from tfcq import features
from tfcq.config import DataConfig, GLFConfig
from tfcq.config.evaluation import EvaluationConfig
from tfcq.data import load
from tfcq.engine.checkpoints import Checkpoints, restore_model
from tfcq.errors import UserError
from tfcq.evaluation import figures
from tfcq.machine import paths
from tfcq.models.autoencoders.reconstruction import ReconstructionError

REPOSITORY = pathlib.Path(__file__).parents[2]


@pytest.fixture(params=[*NAMES, NASTY], ids=lambda name: ascii(name[:24]))
def place(request, tmp_path):
    """A folder of each name, beside the folders that its name matches as a pattern."""
    for other in ("a", "b", "qa", "x test", "a test"):
        (tmp_path / other).mkdir(exist_ok=True)
    folder = tmp_path / request.param
    folder.mkdir()
    return folder


def message_of(call, *arguments):
    with pytest.raises(UserError) as raised:
        call(*arguments)
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


# What is taken.


def test_a_name_is_taken_as_it_is_and_stays_when_it_is_checked_again(place, monkeypatch):
    monkeypatch.chdir(place.parent)
    (place / "file").write_text("")
    for given in (place, str(place), f"{place}/", f"./{place.name}"):
        found = paths.folder(given, "workdir")
        assert found.samefile(place) and paths.folder(found, "workdir") == found
        assert paths.folder(f"{given}/new/folder", "workdir").parent.parent.samefile(place)
        assert paths.file(f"{given}/file", "output").samefile(place / "file")
    if place.name != "~":
        assert paths.folder(place.name, "workdir").samefile(place)


def test_home_is_expanded_and_links_are_followed(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert paths.folder("~/runs/x", "workdir") == tmp_path / "runs" / "x"
    assert paths.file("~/x.png", "output") == tmp_path / "x.png"
    assert paths.folder("./~/x", "workdir") == tmp_path / "~" / "x"
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    assert paths.folder("link/run", "workdir") == pathlib.Path("link/run")


# What is refused.


@pytest.mark.parametrize(
    "given, reason",
    [
        ("", "received an empty path"),
        ("a\nb", "of one line"),
        ("a\rb", "of one line"),
        ("a\0b", "of one line"),
        ("a\u2028b", "of one line"),
        ("a\udcff", "UTF-8"),
        ("s3://bucket/run", "of this machine or gs://BUCKET/NAME, received the address 's3://bucket/run'"),
        ("file:///run", "the address"),
        ("GS://bucket/run", "the address"),
        ("gs://", "without empty names, . and .., received 'gs://'"),
        ("gs://bucket//run", "without empty names"),
        ("gs://bucket/../run", "without empty names"),
        ("gs://bucket/[a]", "an address without * ? [ \\, which TensorFlow takes as patterns"),
        ("gs://bucket/" + "x" * 900, "too long a name for an object store"),
        ("x" * 256, "too long a name"),
        ("/".join(["x" * 200] * 21), "too long a name"),
        ("file/run", "which is a file"),
        ("broken", "which is a broken link"),
    ],
    ids=lambda value: ascii(value[:16]),
)
@pytest.mark.parametrize("check", [paths.folder, paths.file])
def test_what_cannot_be_is_refused_in_one_line(check, given, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "broken").symlink_to("nowhere")
    if check is paths.file and given == "broken":
        given += "/file"
    message = message_of(check, given, "workdir")
    assert message.startswith("workdir: ") and reason in message


READERS = {
    "folder": lambda path: load(DataConfig(dataset=f"folder:{path}")),
    "idx": lambda path: load(DataConfig(dataset=f"idx:{path}")),
    "npz": lambda path: load(DataConfig(dataset=f"npz:{path}")),
    "saved_model": lambda path: features.load(f"saved_model:{path}"),
    "weights of inception": lambda path: features.load("inception", path),
    "weights of Keras": lambda path: features.load("keras:vgg16", path),
    "weights of EfficientNet": lambda path: features.load("efficientnet_lite0", path),
    "perceptual weights": lambda path: ReconstructionError(
        GLFConfig(reconstruction="perceptual", perceptual_weights=path)
    ).load(),
}


@pytest.mark.parametrize("reader", READERS)
def test_what_is_only_read_is_refused_in_one_line_too(reader):
    name = {"s": "features: ", "w": "weights: ", "p": "perceptual_weights: "}.get(reader[0], "dataset: ")
    address = ("s3://bucket/x", "of this machine or gs://") if reader == "npz" else ("gs://bucket/x", "of this machine, received")
    for given, reason in (address, ("x" * 256, "too long a name")):
        message = message_of(READERS[reader], given)
        assert message.startswith(name) and reason in message
    assert "of one line" in message_of(READERS[reader], "a\0b")
    if reader[0] == "w":
        assert "weights: expected the path of a file or folder, " in message_of(READERS[reader], 5)


def test_a_file_is_no_folder_and_a_folder_no_file(tmp_path):
    (tmp_path / "file").write_text("")
    assert "expected a folder" in message_of(paths.folder, tmp_path / "file", "workdir")
    assert "expected a file" in message_of(paths.file, tmp_path, "output")
    assert "expected a file" in message_of(paths.file, f"{tmp_path}/new/", "output")
    assert "too long" in message_of(paths.file, tmp_path / ("x" * 250), "output")  # no room for ".partial"


def test_a_option_of_several_lines_is_refused():
    for given in ("folder:a\nb", "folder:\udcff"):
        assert "dataset: expected text of one line" in message_of(lambda given=given: DataConfig(dataset=given))
    assert "cache_dir: expected a folder" in message_of(lambda: EvaluationConfig(cache_dir=__file__))


# What TensorFlow is told.


def test_a_plain_name_is_the_same_folder_without_patterns(place):
    name = paths.plain(place)
    assert os.path.samefile(name, place) and paths.PATTERN_CHARACTERS.isdisjoint(name.removeprefix(str(place.parent)))
    assert paths.plain(place) == name
    assert paths.restore_name(f"{name}/step-1 cannot be read", place) == f"{place}/step-1 cannot be read"


def test_a_plain_name_is_of_the_folder_that_is_there_now(tmp_path):
    folder = tmp_path / "[a]"
    folder.mkdir()
    before, descriptors = paths.plain(folder), len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        paths.plain(folder)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    folder.rmdir()
    folder.mkdir()
    assert paths.plain(folder) != before and os.path.samefile(paths.plain(folder), folder)
    with pytest.raises(FileNotFoundError):
        paths.plain(tmp_path / "[b]")


def test_without_proc_a_pattern_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "_DESCRIPTORS", str(tmp_path / "none"))
    assert paths.plain(tmp_path) == str(tmp_path)
    assert "rename the folder" in message_of(paths.plain, tmp_path / "[a]")


def test_no_module_hands_paths_to_functions_that_take_patterns():
    # Each of these looks for files by a pattern that begins with the path; `tf.saved_model.load` takes a plain name alone.
    banned = r"gfile\.glob|latest_checkpoint\(|CheckpointManager\(|list_files\(|matching_files|glob\.i?glob\(|checkpoint_exists"
    sources = [path for folder in ("tfcq", "serving", "tools") for path in (REPOSITORY / folder).rglob("*.py")]
    assert len(sources) > 100
    for path in sources:
        code = re.sub(r'"""(?s:.*?)"""|#.*', "", path.read_text())
        assert not re.search(banned, code), path
        for argument in re.findall(r"tf\.saved_model\.load\((.*)\)", code):
            assert "plain" in argument or path.name == "verify.py", path


# Checkpoints.


class Tiny(tf.Module):
    """What `Checkpoints` needs of a model, with one weight."""

    averages, weights_changed = None, ""

    def __init__(self, value=0.0):
        super().__init__()
        self.weight, self.step = tf.Variable(value), tf.Variable(0, dtype=tf.int64)
        self.player_optimizers = {}

    @property
    def steps_taken(self):
        return int(self.step)

    def at(self, step):
        self.step.assign(step)
        self.weight.assign(float(step))
        return self


def steps_in(folder):
    return sorted(int(path.stem.removeprefix("step-")) for path in folder.iterdir() if path.suffix == ".index")


def test_checkpoints_are_saved_kept_and_restored(place):
    others = [folder / "checkpoints" / "last" for folder in place.parent.iterdir() if folder != place]
    for folder in others:
        for name in ("step-1.index", "step-1.data-00000-of-00001", "step-9.index"):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("another run's")
    model = Tiny()
    checkpoints = Checkpoints(place, model, keep=2)
    for step in (1, 2, 3):
        model.at(step)
        checkpoints.save()
    assert checkpoints.save_if_best(1.0)
    last = place / "checkpoints" / "last"
    assert steps_in(last) == [2, 3] and len(list(last.iterdir())) == 2 * 2 + 1
    assert steps_in(place / "checkpoints" / "best") == [3]

    again = Tiny()
    checkpoints = Checkpoints(place, again, keep=2)
    assert checkpoints.restore() == 3 and float(again.weight) == 3.0
    again.at(4)
    checkpoints.save()
    assert steps_in(last) == [3, 4]
    for which, expected in (("best", 3), ("last", 4)):
        fresh = Tiny()
        assert restore_model(fresh, place, which) == (expected, which) and float(fresh.weight) == expected
    for folder in others:  # `q?` once deleted what was in `qa`
        assert {path.name for path in folder.iterdir()} >= {"step-1.index", "step-1.data-00000-of-00001", "step-9.index"}


def test_damage_is_told_by_the_name_that_was_given(tmp_path, capsys):
    folder = tmp_path / "[a] \\ *"
    model = Tiny()
    checkpoints = Checkpoints(folder, model, keep=3)
    for step in (1, 2):
        model.at(step)
        checkpoints.save()
    last = folder / "checkpoints" / "last"
    (last / "step-2.index").write_bytes(b"")
    assert checkpoints.restore() == 1
    told = capsys.readouterr().out
    assert f"warning: checkpoint {last}/step-2 (" in told and "/proc/" not in told
    (last / "step-1.data-00000-of-00001").unlink()
    for call in (checkpoints.restore, lambda: restore_model(Tiny(), folder, "last")):
        message = message_of(call)
        assert f"{last}/step-1 (" in message and "/proc/" not in message and "train first" not in message


def test_tensorflow_s_own_tools_find_the_newest_checkpoint(tmp_path):
    model = Tiny()
    checkpoints = Checkpoints(tmp_path, model, keep=2)
    for step in (8, 9, 10):
        model.at(step)
        checkpoints.save()
    last = str(tmp_path / "checkpoints" / "last")
    assert tf.train.latest_checkpoint(last) == f"{last}/step-10"
    # An earlier version of this program goes on with it, and deletes the oldest.
    checkpoint = tf.train.Checkpoint(model=model, optimizers={}, best_value=checkpoints.best_value)
    manager = tf.train.CheckpointManager(checkpoint, last, 2, checkpoint_name="step")
    assert manager.checkpoints == [f"{last}/step-9", f"{last}/step-10"]
    checkpoint.restore(manager.latest_checkpoint).assert_consumed()
    manager.save(checkpoint_number=11)
    assert steps_in(tmp_path / "checkpoints" / "last") == [10, 11]
    assert Checkpoints(tmp_path, model, keep=2).restore() == 11


def test_a_course_that_was_left_goes_first(tmp_path):
    model = Tiny()
    checkpoints = Checkpoints(tmp_path, model, keep=2)
    for step in (10, 20, 12, 14):  # 20 could not be read, and the run went on from 10
        model.at(step)
        checkpoints.save()
    assert steps_in(tmp_path / "checkpoints" / "last") == [12, 14]


def test_a_folder_that_cannot_be_listed_is_not_an_empty_one(tmp_path, monkeypatch):
    model = Tiny().at(1)
    checkpoints = Checkpoints(tmp_path, model, keep=2)
    checkpoints.save()

    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(os, "listdir", refuse)
    for call in (checkpoints.restore, lambda: restore_model(Tiny(), tmp_path, "last")):
        assert "cannot be listed: Permission denied; make it readable" in message_of(call)


# Data, features and pictures.


def test_data_are_read_from_it(place):
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8), np.uint8)
    np.savez(place / "a.npz", images=images)
    with gzip.open(place / "train-images-idx3-ubyte.gz", "wb") as file:
        file.write(struct.pack(">iiii", 0x803, *images.shape) + images.tobytes())
    (place / "t10k-images-idx3-ubyte").write_bytes(struct.pack(">iiii", 0x803, *images.shape) + images.tobytes())
    for number, image in enumerate(images):
        Image.fromarray(image).save(place / f"{number:02d}.png")
    for dataset in (f"npz:{place}/a.npz", f"idx:{place}/", f"folder:{place}"):
        loaded = load(DataConfig(dataset=dataset, image_size=8))
        assert loaded.image_shape == (8, 8, 1) and loaded.images("train", [0]).shape == (1, 8, 8, 1)


def test_labels_are_drawn_as_they_are(recwarn):
    curve = {"recall": np.array([0.0, 1.0]), "precision": np.array([1.0, 0.0])}
    for name in ("x" * 200, "\u4e2d" * 80, NASTY):
        figures.histogram({name: np.arange(9.0), "b": np.arange(9.0)}, "bits/dim").picture()
    figures.prd_curves({"_hidden": curve}).picture()  # matplotlib leaves such a label out
    figures.bars({"elbo": {"$\\bad$": 1.0, "y" * 200: 2.0}}, {})  # and takes this one for a formula
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize(
    "text, expected",
    [
        ("photo_patches: train 3", "photo_patches: train 3"),
        ("folder:/x/[a](b) *c*", r"folder:/x/\[a\](b) \*c\*"),
        ("_a_b_ | `c` <i> a\\b ~~d~~", r"\_a_b\_ \| \`c\` \<i\> a\\b \~\~d\~\~"),
    ],
)
def test_markdown_shows_a_name_as_it_is(text, expected):
    assert paths.markdown(text) == expected


# Flags: refused before TensorFlow is loaded.


@pytest.mark.parametrize(
    "module, flags, reason",
    [
        ("train", ["--workdir="], "workdir: expected a folder, received an empty path"),
        ("train", ["--workdir=a\nb"], "of one line"),
        ("train", ["--dataset=folder:a\nb"], "dataset: expected text of one line"),
        ("evaluate", ["--workdir={file}"], "which is a file"),
        ("evaluate", ["--compare=a,,b"], "compare: expected a folder, received an empty path"),
        ("evaluate", ['--compare="a,b",{file}'], "which is a file"),
        ("evaluate", ["--compare=a,b", "--output={file}"], "output: expected a folder"),
        ("evaluate", ["--workdir=a", "--cache_dir={file}"], "cache_dir: expected a folder"),
        ("sample", ["--workdir=a", "--output={file}/"], "output: expected a folder"),
        ("export", ["--workdir=a", "--export_dir=s3://bucket"], "export_dir: expected a folder of this machine or gs://"),
        ("export", ["--workdir=a", "--export_dir={file}/x"], "which is a file"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_flags_are_refused_in_one_line(module, flags, reason, tmp_path):
    (tmp_path / "file").write_text("")
    arguments = [flag.format(file=tmp_path / "file") for flag in flags]
    code = (
        "import importlib, sys; from tfcq.command_line import starting\n"
        "starting.start_tensorflow = lambda: sys.exit('TensorFlow was started')\n"
        f"sys.exit(importlib.import_module('tfcq.{module}').COMMAND.run({arguments!r}))"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and reason in done.stderr
    assert os.listdir(tmp_path) == ["file"]
