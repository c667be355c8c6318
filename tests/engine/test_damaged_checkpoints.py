"""Checkpoints that are damaged, other files beside them, and disks that are full."""

import resource

import pytest
import tensorflow as tf
from checkpoint_cases import assert_holds, build, fill, message_of, steps_in

from tfcq.engine.checkpoints import Checkpoints, remove_half_written, restore_model

# What is damaged.


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


DAMAGES = {
    "data truncated": ("step-20.data-00000-of-00001", truncate),
    "data flipped": ("step-20.data-00000-of-00001", flip),
    "data missing": ("step-20.data-00000-of-00001", lambda path: path.unlink()),
    "data empty": ("step-20.data-00000-of-00001", lambda path: path.write_bytes(b"")),
    "index truncated": ("step-20.index", truncate),
    "index empty": ("step-20.index", lambda path: path.write_bytes(b"")),
    "index garbage": ("step-20.index", lambda path: path.write_bytes(b"\xffgarbage" * 99)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(saved, capsys, damage):
    workdir, contents = saved
    name, break_it = DAMAGES[damage]
    break_it(workdir / "checkpoints" / "last" / name)
    model = build(seed=9)
    checkpoints = Checkpoints(workdir, model, keep=3)
    assert checkpoints.restore() == 10
    assert_holds(model, contents[10])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 and lines[0].startswith("warning: checkpoint ")
    assert "step-20 (" in lines[0] and lines[0].endswith("cannot be read; resumed from step 10")
    # The run comes to step 20 again, and what it saves there counts.
    expected = fill(model, 20, seed=99)
    checkpoints.save()
    again = build(seed=8)
    assert Checkpoints(workdir, again, keep=3).restore() == 20
    assert_holds(again, expected)


def test_nothing_but_damage_is_an_error_that_names_each(saved):
    workdir, _ = saved
    for path in (workdir / "checkpoints" / "last").glob("*.data-*"):
        truncate(path)
    for call in (Checkpoints(workdir, build(), 3).restore, lambda: restore_model(build(compiled=False), workdir)):
        message = message_of(call)
        assert message.startswith("no checkpoint can be read: ")
        assert "step-10 (" in message and "step-20 (" in message and "to start again" in message


@pytest.mark.parametrize(
    "content", [None, b"", b"model_check", b"\xff\xfe\x00\x81", b'model_checkpoint_path: "step-77"\n'], ids=repr
)
def test_the_list_of_checkpoints_may_be_damaged(saved, content):
    workdir, contents = saved
    state = workdir / "checkpoints" / "last" / "checkpoint"
    if content is None:
        state.unlink()
    else:
        state.write_bytes(content)
    model = build(seed=9)
    checkpoints = Checkpoints(workdir, model, keep=3)
    assert checkpoints.restore() == 20
    assert_holds(model, contents[20])
    expected = fill(model, 30, seed=30)
    checkpoints.save()
    again = build(seed=8)
    assert Checkpoints(workdir, again, keep=3).restore() == 30
    assert_holds(again, expected)


def test_other_files_in_the_folder_are_not_taken_for_checkpoints(saved):
    workdir, _ = saved
    for name in ("step-notes.index", "step-30.index.partial", "step-40_temp"):
        (workdir / "checkpoints" / "last" / name).write_text("")
    assert Checkpoints(workdir, build(), keep=3).restore() == 20


# A full disk.


def assert_the_saved_survive(workdir, contents):
    again = build(seed=8)
    assert Checkpoints(workdir, again, keep=3).restore() == 20
    assert_holds(again, contents[20])


def test_a_disk_that_fills_up_keeps_what_was_saved(saved):
    workdir, contents = saved
    model = build()
    checkpoints = Checkpoints(workdir, model, keep=2)
    checkpoints.restore()
    fill(model, 30, seed=30)
    # No file may grow beyond 2 kB for the time of the save: writes fail in the middle, as on a full disk.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        message = message_of(checkpoints.save)
        best = message_of(checkpoints.save_if_best, 1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert message.startswith(f"checkpoint of step 30 cannot be written to {workdir / 'checkpoints' / 'last'}: ")
    assert "File too large" in message and message.endswith("free some space and run the same command again")
    assert str(workdir / "checkpoints" / "best") in best
    assert steps_in(workdir) == [10, 20]
    remove_half_written(workdir)  # as the next start does, before it looks for room
    assert not list(workdir.rglob("*_temp"))
    assert_the_saved_survive(workdir, contents)

    checkpoints.save()  # there is room again
    assert steps_in(workdir) == [20, 30]


def test_an_exhausted_resource_is_one_line(saved, monkeypatch):
    workdir, contents = saved

    def no_room(*arguments, **named):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left\non device")

    model = build()
    checkpoints = Checkpoints(workdir, model, keep=2)
    model.step.assign(30)
    monkeypatch.setattr(tf.train.Checkpoint, "write", no_room)
    assert "No space left on device; those before it are untouched" in message_of(checkpoints.save)
    monkeypatch.undo()
    assert_the_saved_survive(workdir, contents)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "checkpoints").write_text("a file")
    model = build()
    model.step.assign(1)
    checkpoints = Checkpoints(tmp_path, model, keep=2)
    assert checkpoints.restore() == 0
    assert "checkpoint of step 1 cannot be written" in message_of(checkpoints.save)
