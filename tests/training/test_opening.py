"""A run's folder as a training holds it: one at a time, nothing left by what is refused, everything said before the work."""

import errno
import os
import signal

import pytest
import tiny_models as tiny

from tfcq import models
from tfcq import workdir as workdirs
from tfcq.config import Config, DataConfig, TrainingConfig
from tfcq.errors import TrainingInterrupted, UserError
from tfcq.machine.files import write_text
from tfcq.machine.interruption import Signals, Stopped
from tfcq.training import opening, run
from tfcq.training.opening import opened

OTHER = Config(data=DataConfig(image_size=64), training=TrainingConfig(seed=3))


class Images:
    """What a run's facts need of an `ImageDataset`."""

    image_shape = (8, 12, 3)
    description = "eight by twelve"
    manifest = None
    doubt = ""


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def begin(folder, step=4):
    (folder / "checkpoints" / "last").mkdir(parents=True)
    (folder / "checkpoints" / "last" / f"step-{step}.index").write_text("")


@pytest.mark.parametrize("kept, refused", [(40, False), (41, True), (None, False)])
def test_numbers_of_images_that_nobody_listed_hold_for_as_many_images_only(tmp_path, kept, refused):
    begin(tmp_path)
    write_text(tmp_path / "config.json", Config().to_json())
    if kept:
        facts = f'{{"description": "digits: train {kept}, validation 5 (held out of train), test 5 (held out of train); 8x8x1"}}'
        (tmp_path / "data.json").write_text(facts)

    class Forty:
        def num_images(self, split):
            return 40

    with opened(Config(), tmp_path) as begun:
        if refused:
            with pytest.raises(UserError, match="there is no list of this run's 41 .*expected 41, received 40"):
                begun.require_numbers(Forty())
        else:
            begun.require_numbers(Forty())


# One at a time.


def test_a_second_training_is_refused_while_the_first_lives(tmp_path):
    """That a kill leaves no lock behind: tests/machine/test_files.py, and tests/integration/test_interruptions.py."""
    folder = tmp_path / "run"
    with opened(Config(), folder):
        message = rf"another training runs in it \(process {os.getpid()} on .* since 2.*\); expected it to end first"
        with pytest.raises(UserError, match=message), opened(Config(), folder):
            raise AssertionError("opened")
        assert workdirs.read_metrics(folder) == []  # others may look into it
        workdirs.record_metrics(folder, {"step": 0, "checkpoint": "last"})  # and an evaluation may record what it found
        assert (folder / "lock").exists()
    with opened(Config(), folder):
        pass
    assert names(folder) == ["metrics.json", "metrics.jsonl"]


def test_a_file_system_without_locks_is_told_and_used(tmp_path, monkeypatch, capsys):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with opened(Config(), tmp_path / "run"):
        assert "its file system has no locks; make sure that no second training" in capsys.readouterr().out


# What killed trainings left.

PART = "part-00000-of-00001"
LEFT = [  # by TensorFlow 2.21, killed within a save
    f"step-30_temp/{PART}.data-00000-of-00001.tempstate13161180260328870062",
    f"step-31_temp/{PART}.data-00000-of-00001",
    f"step-31_temp/{PART}.index.tempstate7073330819206390430",
    f"step-32_temp/{PART}.index",
    "checkpoint.partial",
]
USERS = [
    "step-30.index",
    "step-30.data-00000-of-00001",
    "step-40_temp",  # a file
    "step-41_temp/notes.txt",
    "step-best_temp/x",
    "my_step-42_temp/x",
    f"{PART}.index",
    "notes.partial",
]


def test_half_written_checkpoints_are_swept_and_nothing_else(tmp_path, monkeypatch):
    for kind in ("last", "best"):
        for name in (*LEFT, *USERS, f"step-41_temp/{PART}.index"):
            path = tmp_path / "run" / "checkpoints" / kind / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("half")
        (path.parents[1] / "step-33_temp").mkdir()
        (path.parents[1] / "step-34_temp").symlink_to("step-41_temp")
    (tmp_path / "run" / "step-30_temp").mkdir()
    with monkeypatch.context() as patch, pytest.raises(UserError):  # another's training may be writing them
        patch.setattr("fcntl.flock", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOLCK, "No locks available")))
        with opened(Config(), tmp_path / "run"):
            assert (path.parents[1] / LEFT[0]).exists()
            raise UserError("wrong")
    with opened(Config(), tmp_path / "run"):
        pass
    for kind in ("last", "best"):
        folder = tmp_path / "run" / "checkpoints" / kind
        kept = [*USERS, "step-34_temp", "step-41_temp", "step-best_temp", "my_step-42_temp"]
        assert names(folder) == sorted(kept)
    assert (tmp_path / "run" / "step-30_temp").exists()


# What is refused leaves nothing.


@pytest.mark.parametrize("place", ["run", "to/be/made/run"])
@pytest.mark.parametrize("error", [UserError("wrong"), Stopped(), ZeroDivisionError()], ids=lambda one: type(one).__name__)
def test_folders_that_nothing_was_written_to_are_gone(tmp_path, place, error):
    with pytest.raises(type(error)), opened(Config(), tmp_path / place):
        assert (tmp_path / place).is_dir()
        raise error
    assert names(tmp_path) == []


def test_a_folder_of_the_users_stays(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(UserError), opened(Config(), tmp_path / "run"):
        raise UserError("wrong")
    assert names(tmp_path) == ["run", "run/notes.txt"]


def test_another_configuration_is_refused_before_anything_is_done(tmp_path):
    workdirs.open_for(Config(), tmp_path)
    begin(tmp_path)
    before = names(tmp_path)
    with pytest.raises(UserError, match="data.image_size: 32 -> 64; training.seed: 0 -> 3"), opened(OTHER, tmp_path):
        raise AssertionError("opened")
    assert names(tmp_path) == before


def test_a_run_that_saved_nothing_is_replaced_and_told(tmp_path, capsys):
    with opened(Config(), tmp_path) as one:
        one.begin(0, Images())
        assert one.config_before() is None
    with opened(OTHER, tmp_path) as one:
        one.begin(0, Images())
    assert "the configuration of an earlier run, which saved no checkpoint, is replaced" in capsys.readouterr().out
    assert workdirs.read_config(tmp_path) == OTHER


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_a_folder_that_cannot_be_written_is_told_at_once(tmp_path, monkeypatch, number):
    def fail(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.fsync", fail)
    message = rf"^workdir .*run: cannot be written: {os.strerror(number)}$"
    with pytest.raises(UserError, match=message), opened(Config(), tmp_path / "run"):
        raise AssertionError("opened")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "name",
    ["metrics.jsonl", "metrics.json", "history.jsonl", "checkpoints/last", "checkpoints/best", "samples", "tensorboard/train"],
)
def test_what_is_written_later_is_tried_at_once(tmp_path, name):
    """A file where a folder must be, or a folder where a file."""
    path = tmp_path / "run" / name
    path.parent.mkdir(parents=True)
    path.mkdir() if "." in name else path.write_text("")
    before = names(tmp_path)
    with pytest.raises(UserError, match=rf"^workdir {path}: cannot be written: (Is|Not) a directory$"):
        with opened(Config(), tmp_path / "run"):
            raise AssertionError("opened")
    assert names(tmp_path) == before


VAE = {"latent_size": 4, **tiny.ROWS["vae"]}
REFUSED = {
    "drops of other stages": (tiny.config(8, training={"learning_rate_drops": "/0.5:0.5"}, **VAE), "learning_rate_drops"),
    "a batch above the images": (tiny.config(8, training={"batch_size": 1440}, **VAE), "batch_size=1440: expected 1 to 1439"),
    "weights that are not there": (
        tiny.config(8, model="glf", reconstruction="perceptual", perceptual_weights="nowhere.h5"),
        "nowhere.h5",
    ),
    "features that are not there": (
        tiny.config(8, training={"eval_metrics": "prd", "eval_features": "saved_model:nowhere"}, **VAE),
        "nowhere",
    ),
    "a metric of classes for features without them": (
        tiny.config(8, training={"eval_metrics": "prd,classifier_score", "eval_features": "pixels"}, **VAE),
        "^eval_metrics: classifier_score needs classes, which the features pixels do not have; expected other --eval_features",
    ),
    "a best metric whose features are not there": (
        tiny.config(8, training={"best_metric": "frechet_distance", "eval_features": "saved_model:nowhere"}, **VAE),
        "nowhere",
    ),
    "a best metric of other features": (
        tiny.config(8, training={"best_metric": "fid", "eval_features": "pixels"}, **VAE),
        "^best_metric: fid is defined for the Inception graph only, received the features pixels; expected frechet_distance",
    ),
    "a best metric of classes": (
        tiny.config(8, training={"best_metric": "classifier_score", "eval_features": "pixels"}, **VAE),
        "^best_metric: classifier_score needs classes, .*; expected other --eval_features, or another$",
    ),
    "a best metric that the model does not have": (
        tiny.config(8, training={"best_metric": "reconstruction_error"}, **VAE),
        r"^best_metric=reconstruction_error: cqf \(as configured\) does not support latent_likelihood",
    ),
    "data that are not there": (tiny.config(8, data={"dataset": "folder:nowhere"}, **VAE), "nowhere"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_start_leaves_no_folder(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config, message = REFUSED[name]
    with pytest.raises(UserError, match=message):
        run.train(config, "runs/one")
    assert names(tmp_path) == []


def test_a_disk_without_room_for_a_checkpoint_is_told_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"total": 10**9, "free": 2000}))
    with pytest.raises(UserError, match=r"workdir .*run: expected .* MB of free space, found 0.002 MB"):
        run.train(tiny.config(8, **VAE), tmp_path / "run")
    assert names(tmp_path) == []


# Signals before the first step.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_before_the_first_step_ends_the_start_and_leaves_nothing(tmp_path, number, monkeypatch):
    build, before = models.build, signal.getsignal(number)

    def build_and_be_told(*arguments):
        os.kill(os.getpid(), number)
        return build(*arguments)

    monkeypatch.setattr(models, "build", build_and_be_told)
    with pytest.raises(TrainingInterrupted, match="before a step was taken: nothing to save; run the same command") as raised:
        run.train(tiny.config(8, **VAE), tmp_path / "run")
    assert raised.value.exit_status == 128 + number and signal.getsignal(number) is before
    assert names(tmp_path) == []


def test_a_signal_that_is_noted_stops_what_may_be_stopped_next():
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
        assert signals.received == signal.SIGTERM  # the first
        with pytest.raises(Stopped), signals.at_once():
            raise AssertionError("begun")
    with Signals() as signals:
        with pytest.raises(Stopped), signals.at_once():
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # once: what cleans up is not interrupted


def test_at_once_within_at_once_goes_on_being_so():
    with Signals() as signals:
        signals.stop_at_once()
        with signals.at_once():
            pass
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_hangup_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.received is None and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


# The folder of a resumed run.


def test_begin_takes_back_what_lies_beyond_the_step(tmp_path):
    workdirs.open_for(Config(), tmp_path)
    begin(tmp_path, 250)
    for step in (0, 100, 200, 300):
        workdirs.record_metrics(tmp_path, {"step": step})
    (tmp_path / "samples").mkdir()
    kept = ["samples-00000200.png", "reconstructions-00000000.png", "prior.png", "my-notes.png"]
    for name in (*kept, "samples-00000300.png", "samples-00000300.png.partial"):
        (tmp_path / "samples" / name).write_text("")
    (tmp_path / "data.json.partial").write_text("{")
    with opened(Config(), tmp_path) as one:
        one.begin(250, Images())
        assert one.row_of(200) and not one.row_of(250) and not one.row_of(300)
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == sorted(kept)
    assert not (tmp_path / "data.json.partial").exists()
    assert opening.LOCK not in names(tmp_path)


# Workers beside the chief.


def test_another_worker_sees_the_folder_that_the_chief_has_opened_and_touches_nothing(tmp_path):
    with opened(Config(), tmp_path / "run") as chief:
        before = names(tmp_path)
        with opening.joined(Config(), tmp_path / "run") as other:
            assert chief.mark().startswith(f"process {os.getpid()} on ")
            other.check_mark(chief.mark(), seconds=0.0)
        assert names(tmp_path) == before
        with opening.joined(Config(), tmp_path / "elsewhere") as other:
            with pytest.raises(UserError, match=r"elsewhere: expected the folder in which the chief trains \(process "):
                other.check_mark(chief.mark(), seconds=0.0)
        assert names(tmp_path) == before


def test_a_file_that_another_machine_shows_late_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(opening.time, "sleep", lambda seconds: (tmp_path / opening.LOCK).write_text("process 1"))
    with opening.joined(Config(), tmp_path) as other:
        other.check_mark("process 1", seconds=60.0)
