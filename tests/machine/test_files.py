"""Files that are whole or not there, locks that a killed process does not leave behind, places tried before long work."""

import errno
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from tfcq.errors import UserError
from tfcq.machine import files, json_lines
from tfcq.machine.files import Lock, replacing

ROOT = str(pathlib.Path(files.__file__).parents[2])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def refuse(monkeypatch, number):
    """Makes every write to the disk fail with an error's number: permissions do not stop the tests where they run as root."""

    def fail(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.fsync", fail)


def heed_permissions(monkeypatch):
    """Makes opening a read-only file for writing fail for everybody, also where the tests run as root."""
    real = os.open

    def heedful(path, flags, mode=0o777, **options):
        writes = flags & (os.O_WRONLY | os.O_RDWR)
        if writes and os.path.exists(path) and not os.stat(path, dir_fd=options.get("dir_fd")).st_mode & 0o200:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path, flags, mode, **options)

    monkeypatch.setattr("os.open", heedful)


def holder(path, program="time.sleep(600)"):
    """A process that holds the lock of `path`."""
    lines = ("import time", "from tfcq.machine.files import Lock", f"with Lock({str(path)!r}):", "    print('held', flush=True)")
    text = "\n".join((*lines, f"    {program}"))
    process = subprocess.Popen(
        [sys.executable, "-c", text], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": ROOT}
    )
    assert process.stdout.readline() == "held\n"
    return process


# Whole or not at all.


def test_a_file_is_replaced_when_the_block_ends(tmp_path):
    path = tmp_path / "numbers"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old" and names(tmp_path) == ["numbers", "numbers.partial"]
    assert path.read_bytes() == b"new" and names(tmp_path) == ["numbers"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, ValueError])
def test_an_error_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "numbers"
    for content in (None, b"old"):
        if content:
            path.write_bytes(content)
        with pytest.raises(error), replacing(path) as file:
            file.write(b"half")
            raise error
        assert names(tmp_path) == (["numbers"] if content else [])
    assert path.read_bytes() == b"old"


def test_what_a_killed_writer_left_is_written_over(tmp_path):
    path = tmp_path / "numbers"
    path.with_name("numbers.partial").write_bytes(b"a long half of something")
    with replacing(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new" and names(tmp_path) == ["numbers"]


def test_two_writers_of_one_file_take_turns(tmp_path):
    path = tmp_path / "numbers"
    text = (
        "import sys\nfrom tfcq.machine.files import replacing\n"
        "for turn in range(40):\n"
        f"    with replacing({str(path)!r}) as file:\n"
        "        for _ in range(50):\n            file.write(sys.argv[1].encode() * 100)\n            file.flush()\n"
        f"    content = open({str(path)!r}).read()\n"
        "    assert len(content) == 5000 and len(set(content)) == 1, content[:20]\n"
    )
    environment = os.environ | {"PYTHONPATH": ROOT}
    processes = [subprocess.Popen([sys.executable, "-c", text, letter], env=environment) for letter in "abcd"]
    assert [process.wait(timeout=120) for process in processes] == [0] * 4
    assert names(tmp_path) == ["numbers"]


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "numbers", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    files.write_text(link, "ö")
    assert link.is_symlink() and target.read_text(encoding="utf-8") == "ö" and names(tmp_path / "real") == ["numbers"]


def test_what_is_no_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(OSError), replacing(tmp_path / name):
            pass
        with pytest.raises(UserError, match=f"^output {tmp_path / name}: cannot be written: "):
            files.check_file("output", tmp_path / name)
    assert names(tmp_path) == ["folder", "pipe"] and names(tmp_path / "folder") == []


def test_leftovers_are_removed_but_what_is_being_written_and_what_is_the_users(tmp_path):
    (tmp_path / "samples").mkdir()
    for name in ("metrics.json.partial", "samples/samples-00000004.png.partial", "thesis.tex.partial", "notes.partial"):
        (tmp_path / name).write_text("half")
    with replacing(tmp_path / "config.json") as file:
        file.write(b"{}")
        files.remove_partial(tmp_path)
    assert names(tmp_path) == ["config.json", "notes.partial", "samples", "thesis.tex.partial"]
    assert names(tmp_path / "samples") == []


# Locks.


def test_a_lock_is_held_by_one_and_gone_with_a_killed_process(tmp_path):
    path = tmp_path / "lock"
    process = holder(path)
    try:
        with pytest.raises(BlockingIOError), Lock(path, wait=False):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
        assert path.exists()  # the file stays behind, the lock does not
        with Lock(path, wait=False) as lock:
            assert lock.held
            with pytest.raises(BlockingIOError), Lock(path, wait=False):  # in one process, too
                pass
        with Lock(path, wait=False):
            pass
    finally:
        process.kill()


def test_whoever_waits_for_a_removed_lock_file_takes_the_new_one(tmp_path):
    path = tmp_path / "lock"
    process = holder(path, f"import os; time.sleep(0.5); os.unlink({str(path)!r})")
    with Lock(path) as lock:  # waits, gets the lock of the removed file, and looks again
        assert os.path.samestat(os.fstat(lock.file.fileno()), os.stat(path))
    assert process.wait(timeout=60) == 0


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(tmp_path, monkeypatch, number):
    def no_locks(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", no_locks)
    with Lock(tmp_path / "lock", wait=False) as lock:
        assert not lock.held
    files.write_text(tmp_path / "facts.json", "one")
    assert (tmp_path / "facts.json").read_text() == "one"
    (tmp_path / "facts.json.partial").write_text("perhaps another's")
    files.remove_partial(tmp_path)
    assert "facts.json.partial" in names(tmp_path)


# Places that are tried.


@pytest.mark.parametrize("check", [files.check_folder, files.check_file])
@pytest.mark.parametrize("place", ["here", "to/be/made", "file/below", "name too long"])
def test_places_are_tried_and_left_as_they_were(tmp_path, check, place):
    (tmp_path / "file").write_text("")
    path = tmp_path / ("x" * 300 if place == "name too long" else place)
    if place in ("here", "to/be/made"):
        check("export_dir", path)
    else:
        with pytest.raises(UserError, match=r"^export_dir .*: cannot be written: (Not a directory|File name too long)$"):
            check("export_dir", path)
    assert names(tmp_path) == ["file"]


def test_a_check_says_what_writing_would_do_to_a_read_only_file(tmp_path, monkeypatch):
    heed_permissions(monkeypatch)
    path = tmp_path / "rows.jsonl"
    path.write_text('{"step": 1}\n')
    path.chmod(0o444)
    message = f"^workdir {path}: cannot be written: Permission denied$"
    with pytest.raises(UserError, match=message):
        files.check_file("workdir", path, appends=True)
    for write in (json_lines.append, lambda path, row: json_lines.rewrite(path, list)):
        with pytest.raises(PermissionError):
            write(path, {"step": 2})
    assert path.read_text() == '{"step": 1}\n'
    files.check_file("workdir", path)  # what is replaced may be read-only
    files.write_text(path, "new")
    assert path.read_text() == "new"

    staged = path.with_name("rows.jsonl.partial")  # of a killed process
    staged.write_text("half")
    staged.chmod(0o444)
    with pytest.raises(UserError, match=message):
        files.check_file("workdir", path)
    with pytest.raises(PermissionError):
        files.write_text(path, "newer")
    assert names(tmp_path) == ["rows.jsonl", "rows.jsonl.partial"] and staged.read_text() == "half"


@pytest.mark.parametrize(
    ("user", "mode", "refused"),
    [("another", 0o1777, True), ("another", 0o777, False), ("owner", 0o1777, False), ("root", 0o1777, False)],
)
def test_another_users_file_in_a_folder_such_as_tmp_is_not_replaced(tmp_path, monkeypatch, user, mode, refused):
    path = tmp_path / "picture.png"
    path.write_text("")
    tmp_path.chmod(mode)
    owner = os.stat(path).st_uid
    monkeypatch.setattr("os.geteuid", lambda: {"another": owner + 4000, "owner": owner, "root": 0}[user])
    if refused:
        with pytest.raises(UserError, match=f"^output {path}: cannot be written: Operation not permitted$"):
            files.check_file("output", path)
    else:
        files.check_file("output", path)


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EIO])
def test_a_disk_that_takes_nothing_is_one_line(tmp_path, monkeypatch, number):
    refuse(monkeypatch, number)
    with pytest.raises(UserError) as raised:
        files.check_folder("workdir", tmp_path / "run")
    assert str(raised.value) == f"workdir {tmp_path / 'run'}: cannot be written: {os.strerror(number)}"
    assert names(tmp_path) == []


def test_room_is_counted_where_the_disk_tells(tmp_path, monkeypatch):
    files.check_room("workdir", tmp_path, 1000)
    with pytest.raises(UserError, match=r"expected 1e\+12 MB of free space, found .* MB; free some space"):
        files.check_room("workdir", tmp_path, 10**18)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"total": 0, "free": 0}))
    files.check_room("workdir", tmp_path, 10**18)
