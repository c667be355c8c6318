"""The folder of a run: made once, refused to another config, and what later commands read in it."""

import dataclasses
import json
import os
import re
import subprocess
import threading

import pytest
import tiny_models as tiny

from tfcq import workdir as workdirs
from tfcq.config import Config, CQFConfig, DataConfig, GLFConfig, TrainingConfig
from tfcq.errors import UserError
from tfcq.machine import json_lines
from tfcq.machine.files import write_text
from tfcq.workdir import environment

OTHER = Config(data=DataConfig(image_size=64), training=TrainingConfig(seed=3))


def begin(folder):
    """A checkpoint's name: with it the folder holds a run that has begun."""
    (folder / "checkpoints" / "last").mkdir(parents=True)
    (folder / "checkpoints" / "last" / "step-4.index").write_text("")


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def message_of(call, *arguments):
    with pytest.raises(UserError) as raised:
        call(*arguments)
    assert "\n" not in str(raised.value)
    return str(raised.value)


class Images:
    """What `keep_data` reads of an `ImageDataset`."""

    image_shape = (8, 12, 3)
    description = "eight by twelve"
    manifest = None
    doubt = ""


def test_open_for_makes_the_folder_and_its_parents(tmp_path):
    folder = tmp_path / "runs" / "one"
    assert not workdirs.exists(folder)
    workdirs.open_for(OTHER, folder)
    assert workdirs.exists(folder) and workdirs.exists(str(folder))
    assert names(folder) == ["config.json", "environment.json"]
    assert workdirs.read_config(folder) == OTHER
    assert json.loads((folder / "config.json").read_text()) == OTHER.to_dict()


def test_the_run_of_an_earlier_version_keeps_its_flow(tmp_path):
    """It has no word of the channel couplings' width, which was that of the checkerboards."""
    today = Config(system=CQFConfig(flow_scales=2))
    earlier = dataclasses.replace(today, system=dataclasses.replace(today.system, flow_channel_width_factor=1))
    workdirs.open_for(earlier, tmp_path)
    values = earlier.to_dict()
    del values["system"]["flow_channel_width_factor"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    begin(tmp_path)
    assert workdirs.read_config(tmp_path) == earlier
    workdirs.check_for(earlier, tmp_path)
    assert "(saved -> given): system.flow_channel_width_factor: 1 -> 2; expected the same flags" in message_of(
        workdirs.check_for, today, tmp_path
    )


def test_the_environment_names_versions_devices_and_commit(tmp_path):
    import keras
    import tensorflow as tf

    workdirs.open_for(Config(), tmp_path)
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment["packages"]["tensorflow"] == tf.__version__
    assert environment["packages"]["keras"] == keras.__version__
    assert environment["packages"].keys() >= {"tfcq", "tensorflow-probability", "numpy"}
    assert environment["python"].count(".") == 2 and environment["platform"]
    assert len(environment["devices"]) == len(tf.config.list_logical_devices())
    assert environment["commit"] is None or re.fullmatch("[0-9a-f]{40}", environment["commit"])


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Function that makes a repository of files (names), in which a folder is the package; gives the commit."""

    def git(*arguments):
        identity = ["-c", "user.name=one", "-c", "user.email=one@example.org", "-c", "init.defaultBranch=main"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def checkout(package, *tracked):
        for name in (f"{package}/workdir/environment.py", *tracked):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("")
        git("init")
        git("add", "--", *tracked)
        git("commit", "-m", "one")
        monkeypatch.setattr(environment, "__file__", str(tmp_path / package / "workdir" / "environment.py"))
        return git("rev-parse", "HEAD")

    return checkout


def test_the_commit_is_that_of_the_checkout(checkout, monkeypatch, tmp_path):
    commit = checkout("tfcq", "setup.py", "tfcq/workdir/environment.py")
    assert environment._commit() == commit
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))  # as git sets it for its hooks
    assert environment._commit() == commit


@pytest.mark.parametrize(
    ("package", "tracked"),
    [
        (".venv/lib/python3.11/site-packages/tfcq", ["README.md"]),  # installed inside of another project
        ("vendored/tfcq", ["README.md", "vendored/tfcq/workdir/environment.py", "vendored/setup.py"]),  # copied into one
        ("tfcq", ["README.md", "setup.py"]),  # laid into one
        ("tfcq", ["README.md", "tfcq/workdir/environment.py"]),
    ],
)
def test_a_commit_of_another_project_is_none_of_ours(checkout, package, tracked):
    checkout(package, *tracked)
    assert environment._commit() is None


def test_opening_again_with_the_same_config_touches_nothing(tmp_path):
    workdirs.open_for(Config(), tmp_path)
    (tmp_path / "environment.json").write_text("of the first time")
    begin(tmp_path)
    before = os.stat(tmp_path / "config.json").st_mtime_ns
    workdirs.open_for(Config(), str(tmp_path))
    assert os.stat(tmp_path / "config.json").st_mtime_ns == before
    assert (tmp_path / "environment.json").read_text() == "of the first time"


def test_another_config_is_refused_and_every_difference_named(tmp_path):
    workdirs.open_for(Config(), tmp_path)
    begin(tmp_path)
    message = message_of(workdirs.open_for, OTHER, tmp_path)
    assert "data.image_size: 32 -> 64; training.seed: 0 -> 3" in message
    assert str(tmp_path) in message and "--workdir" in message
    assert workdirs.read_config(tmp_path) == Config()


def test_a_folder_that_holds_other_things_becomes_a_run(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    workdirs.open_for(Config(), tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        assert not workdirs.exists(path)
        assert message_of(workdirs.open_for, Config(), path).startswith(f"workdir {path}: cannot be written: ")
        assert "expected a trained run" in message_of(workdirs.read_config, path)


def test_a_folder_whose_making_failed_is_no_run(tmp_path, monkeypatch):
    (tmp_path / "environment.json").mkdir()  # cannot be replaced by a file
    assert "cannot be written" in message_of(workdirs.open_for, Config(), tmp_path)
    assert not workdirs.exists(tmp_path)
    assert names(tmp_path) == ["environment.json"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"model": ', "expected JSON"),
        (b"", "expected JSON"),
        (b"\xff\xfe\x00{", "cannot be read"),
        (b'{"model": "nvp"}', "received 'nvp' (did you mean realnvp?)"),
        (b'{"data": {"image_sise": 32}}', "unknown option 'image_sise' (did you mean image_size?)"),
        (b'{"training": {"batch_size": 0}}', "batch_size: expected at least 1, received 0"),
    ],
)
def test_a_config_that_cannot_be_read(tmp_path, content, expected):
    (tmp_path / "config.json").write_bytes(content)
    message = message_of(workdirs.read_config, tmp_path)
    assert message.startswith(f"{tmp_path / 'config.json'}: ") and expected in message
    assert message_of(workdirs.open_for, Config(), tmp_path) == message
    assert message_of(workdirs.load, tmp_path) == message


def test_no_run_says_how_to_train_one(tmp_path):
    message = message_of(workdirs.read_config, tmp_path / "nowhere")
    assert "found none" in message
    assert message.endswith(f"python -m tfcq.train --preset=NAME --workdir={tmp_path / 'nowhere'}")
    assert message_of(workdirs.load, tmp_path / "nowhere") == message


def test_images_of_a_model_without_mixtures_are_drawn_in_one_way(tmp_path):
    tiny.make_workdir(tmp_path, tiny.config(8, **tiny.ROWS["vae"]))
    message = message_of(workdirs.load, tmp_path, "best", "mode")
    assert message == "image_draw=mode: model=cqf has one way to draw images; leave --image_draw out"


def test_data_facts_are_read_back(tmp_path):
    workdirs.keep_data(tmp_path, Images())
    assert workdirs.read_image_shape(tmp_path) == (8, 12, 3)
    assert json.loads((tmp_path / "data.json").read_text())["description"] == "eight by twelve"
    assert names(tmp_path) == ["data.json"]


def test_another_file_than_a_run_has_read_is_named_and_keras_own_is_called_so(tmp_path):
    workdirs.keep_data(tmp_path, Images(), digests={"system.perceptual_weights": "aa"})
    for path, called in (("/w.h5", "/w.h5"), ("", "(empty: Keras's own file)")):
        config = Config(model="glf", system=GLFConfig(perceptual_weights=path))
        message = message_of(workdirs.check_files, tmp_path, config, {"system.perceptual_weights": "bb"})
        assert message.startswith(f"perceptual_weights {called}: expected the file that the run began with, of SHA-256 aa...")


@pytest.mark.parametrize("content", [None, b"", b"[1, 2]", b"{}", b'{"image_shape": null}', b"\xff"])
def test_data_facts_that_are_none(tmp_path, content):
    if content is not None:
        (tmp_path / "data.json").write_bytes(content)
    assert "expected data.json of a run that has started" in message_of(workdirs.read_image_shape, tmp_path)


def test_a_run_that_never_started_has_no_model(tmp_path):
    workdirs.open_for(Config(), tmp_path)
    assert "expected data.json of a run that has started" in message_of(workdirs.load, tmp_path)


def test_write_text_replaces_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "facts.json"
    write_text(path, "one\n")
    write_text(str(path), "two ö\n")
    assert path.read_text() == "two ö\n"

    def full_disk(descriptor):
        assert path.with_name("facts.json.partial").stat().st_size
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "three\n")
    assert path.read_text() == "two ö\n"
    assert names(tmp_path) == ["facts.json"]


def test_metrics_are_appended_and_the_last_is_kept(tmp_path):
    first = workdirs.record_metrics(tmp_path, {"step": 1, "elbo": {"nats": -1.5}})
    second = workdirs.record_metrics(tmp_path, {"step": 2, "elbo": None})
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", first.pop("time"))
    assert first == {"step": 1, "elbo": {"nats": -1.5}}
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    assert json.loads(lines[0])["elbo"] == {"nats": -1.5}
    assert json.loads((tmp_path / "metrics.json").read_text()) == second == json.loads(lines[1])
    assert names(tmp_path) == ["metrics.json", "metrics.jsonl"]


def test_the_last_row_of_two_processes_that_append_at_a_time_is_the_last_of_both_files(tmp_path, monkeypatch):
    append, others = json_lines.append, []

    def slow(path, row):
        append(path, row)
        if not others:
            others.append(threading.Thread(target=workdirs.record_metrics, args=(tmp_path, {"step": 2})))
            others[0].start()
            others[0].join(timeout=0.3)  # the other would be ready now, if it did not wait for this one

    monkeypatch.setattr(json_lines, "append", slow)
    workdirs.record_metrics(tmp_path, {"step": 1})
    others[0].join()
    assert [row["step"] for row in workdirs.read_metrics(tmp_path)] == [1, 2]
    assert json.loads((tmp_path / "metrics.json").read_text())["step"] == 2
