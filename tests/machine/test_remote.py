"""Files at an address: as on a disk for who uses them, by nothing that an object store lacks."""

import errno
import io
import os
import pathlib
import re
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
from object_stores import ObjectStore

from tfcq import picture_files
from tfcq import workdir as workdirs
from tfcq.engine.workers import Workers
from tfcq.errors import UserError
from tfcq.evaluation.activations import Cache
from tfcq.machine import files, json_lines, paths, remote, remote_lock
from tfcq.machine.remote import RemotePath
from tfcq.machine.remote_lock import RemoteLock
from tfcq.reproduction.report import write_report
from tfcq.reproduction.run import Ablation, Budget
from tfcq.reproduction.tables import TABLES
from tfcq.training import callbacks, events, loggers
from tfcq.training.opening import joined, opened

REPOSITORY = pathlib.Path(__file__).parents[2]


@pytest.fixture(params=["ram", "store"])
def there(request, monkeypatch, tmp_path):
    """A folder that does not exist, by TensorFlow's ram:// and by a store without what object stores lack."""
    monkeypatch.chdir(tmp_path)
    if request.param == "store":
        store = ObjectStore()
        monkeypatch.setattr(remote, "_gfile", lambda: store)
    yield paths.folder(f"ram://bucket/{os.urandom(6).hex()}", "workdir")
    assert os.listdir(tmp_path) == []  # no folder called `ram:`


@pytest.fixture
def hurry(monkeypatch):
    """Locks that look often."""
    monkeypatch.setattr(remote_lock, "_POLL", (0.001, 0.01))
    monkeypatch.setattr(remote_lock, "REFRESH", 0.05)


def message_of(call, *arguments):
    with pytest.raises(UserError) as raised:
        call(*arguments)
    return str(raised.value)


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# Paths.


@pytest.mark.parametrize("address", ["gs://bucket/runs/one", "gs://bucket/runs/one/", RemotePath("gs://bucket", "runs/one")])
def test_an_address_is_a_path(address):
    path = paths.folder(address, "workdir")
    assert str(path) == os.fspath(path) == f"{path}" == "gs://bucket/runs/one"
    assert repr(path) == "RemotePath('gs://bucket/runs/one')"
    assert path == paths.folder(path, "workdir") == path.absolute() == path.expanduser() and path.is_absolute()
    assert str(path / "a" / "b.json") == "gs://bucket/runs/one/a/b.json" and (path / "b.tar.gz").suffixes == [".tar", ".gz"]
    assert [str(each) for each in path.parents] == ["gs://bucket/runs", "gs://bucket"] and path.parents[1].parent.name == "bucket"
    assert str((path / "a").with_name("b")) == "gs://bucket/runs/one/b" and str((path / "a/b").relative_to(path)) == "a/b"
    assert (path / "a").is_relative_to(path) and not (path / "a").is_relative_to(pathlib.Path("/gs"))
    assert paths.plain(path) == "gs://bucket/runs/one" and hash(path) == hash(paths.as_path(str(path)))


def test_a_local_path_stays_a_local_path(tmp_path):
    for given in (tmp_path, str(tmp_path), "gs:", "gs:/bucket", "co:lon"):
        assert type(paths.as_path(given)) is type(tmp_path) and not paths.is_remote(given)
    assert paths.exists(tmp_path) and not paths.exists(tmp_path / ("x" * 300))


def test_no_module_makes_a_local_path_of_what_may_be_an_address():
    # pathlib.Path("gs://bucket/run") is the local folder `gs:`.
    given = r"pathlib\.Path\((workdir|folder|output|path|export_dir|cache_dir)\b|os\.(listdir|truncate|replace)\((path|folder)"
    # Readers of data and features, which take local paths alone; the layer itself; a server's folders; a staged export.
    local = ("data", "features", "machine", "command_line", "serving")
    package = REPOSITORY / "tfcq"
    sources = [path for path in package.rglob("*.py") if path.relative_to(package).parts[0] not in local]
    assert len(sources) > 100
    found = [f"{path.name}: {hit[0]}" for path in sources for hit in re.finditer(given, path.read_text())]
    assert found == ["card.py: pathlib.Path(folder"] * 3


def test_who_looks_while_a_file_is_replaced_sees_the_old_or_the_new(there):
    path, ended = there / "file", threading.Event()
    contents = [b"1", b"22"]
    path.write_bytes(contents[0])

    def replace():
        for number in range(10**9):
            if ended.is_set():
                return
            path.write_bytes(contents[number % 2])

    thread = threading.Thread(target=replace, daemon=True)
    thread.start()
    try:
        for _ in range(500):
            assert list(there.iterdir()) == [path] and path.read_bytes() in contents
    finally:
        ended.set()
        thread.join()


def test_files_and_folders(there):
    path = there / "a" / "one.txt"
    assert not there.exists() and not path.exists() and list(there.glob("*")) == [] == list(there.rglob("*"))
    for fails in (path.read_bytes, path.unlink, there.rmtree, lambda: list(there.iterdir()), path.stat):
        with pytest.raises(FileNotFoundError):
            fails()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    there.rmtree(missing_ok=True)
    for content in ("a longer text", "short \u00e9", ""):
        files.write_text(path, content)
        assert path.read_text() == content and path.stat().st_size == len(content.encode())
    assert path.is_file() and not path.is_dir() and there.is_dir() and not there.is_file()
    files.write_text(there / "two.json", "{}")
    files.write_text(there / "a" / "b" / "three.txt", "")
    assert {each.name for each in there.iterdir()} == set(files.names(there)) == {"a", "two.json"}
    assert [str(each.relative_to(there)) for each in there.glob("*/*.txt")] == ["a/one.txt"]
    assert listing(there) == ["a/b/three.txt", "a/one.txt", "two.json"]
    with pytest.raises(OSError) as raised:
        (there / "a").rmdir()
    assert raised.value.errno == errno.ENOTEMPTY
    there.mkdir(parents=True, exist_ok=True)
    with pytest.raises(FileExistsError):
        there.mkdir()
    for fails in (lambda: path.replace(there / "x"), lambda: there.rename(there / "x")):
        with pytest.raises(OSError) as raised:  # not TensorFlow's own, which loses what is in a folder
            fails()
        assert raised.value.errno == errno.EOPNOTSUPP
    with pytest.raises(ValueError, match="a mode of reading"):
        path.open("a")
    there.rmtree()
    assert not there.exists()


def test_nothing_is_written_for_a_folder(monkeypatch):
    """TensorFlow would write an empty file, and look for a bucket that does not exist without an end."""
    monkeypatch.setattr(remote, "_gfile", lambda: None)
    RemotePath("gs://bucket/run").mkdir(parents=True, exist_ok=True)


def test_what_tensorflow_says_is_an_error_of_the_system(monkeypatch):
    class Refusing:
        def __getattr__(self, name):
            def refuse(*_):
                raise error(None, None, "no\nnetwork")

            return refuse

    monkeypatch.setattr(remote, "_gfile", Refusing)
    folder = RemotePath("gs://bucket/run")
    said = "gs://bucket/run/config.json: no network; expected a network, and a bucket that this machine's account may use"
    for error in (tf.errors.PermissionDeniedError, tf.errors.UnavailableError):  # noqa: B007
        with pytest.raises(OSError) as raised:
            folder.exists()
        assert (raised.value.errno, raised.value.strerror, raised.value.filename) == (errno.EIO, "no network", "gs://bucket/run")
        assert message_of(workdirs.read_config, folder) == said
        for check in (files.check_folder, files.check_file):
            with pytest.raises(UserError, match="^workdir gs://bucket/run: cannot be written: no network$"):
                check("workdir", folder)


def test_a_file_that_got_shorter_is_read_when_tensorflow_knows(there, monkeypatch):
    """TensorFlow refuses to read less of a gs:// file than it remembers, as it did when this was tried with its own code."""
    monkeypatch.setattr(remote, "_REMEMBERED", 0.05)
    (there / "x").write_bytes(b"short")
    refused, real = [], remote._gfile()

    class Remembering:
        def GFile(self, path, mode):
            if len(refused) < times:
                refused.append(path)
                raise tf.errors.InternalError(None, None, f"File contents are inconsistent for file: {path} @ 0.")
            return real.GFile(path, mode)

    monkeypatch.setattr(remote, "_gfile", Remembering)
    times = 2
    assert (there / "x").read_bytes() == b"short" and len(refused) == times
    times = 10**9
    with pytest.raises(OSError, match="File contents are inconsistent"):
        (there / "x").read_bytes()


# What is written.


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_error_leaves_what_was_there(there, error):
    for content in (None, b"old"):
        if content:
            (there / "x").write_bytes(content)
        with pytest.raises(error), files.replacing(there / "x") as file:
            file.write(b"half")
            raise error
        assert listing(there) == (["x"] if content else [])
    assert (there / "x").read_bytes() == b"old"


def test_arrays_and_pictures(there):
    cache, arrays = Cache(there / "cache"), [np.arange(5.0), np.eye(2)]
    assert cache.check() and cache.read("one") is None
    cache.write("one", arrays)
    assert all(np.array_equal(*pair) for pair in zip(cache.read("one"), arrays, strict=True))
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    picture_files.write(f"{there}/pictures/x.png", picture)
    assert np.array_equal(tf.io.decode_png((there / "pictures" / "x.png").read_bytes()), picture)
    assert listing(there) == ["cache/one.npz", "pictures/x.png"]


def test_places_are_tried_and_left_as_they_were(there):
    files.check_folder("workdir", there)
    files.check_file("workdir", there / "new" / "x.json", appends=True)
    files.check_room("workdir", there, 10**18)  # of which a store does not speak
    files.remove_partial(there)
    assert listing(there) == []


def test_rows_are_added_and_chosen(there, hurry):
    path = there / "metrics.jsonl"
    assert json_lines.read(path) == []
    for step in (1, 2):
        json_lines.append(path, {"step": step})
    for tail, kept in ((b'{"step"', [1, 2, 3]), (b'{"step": 9}', [1, 2, 9, 3])):  # of a file that was copied from a disk
        files.write_text(path, '{"step": 1}\n{"step": 2}\n' + tail.decode())
        json_lines.append(path, {"step": 3})
        assert [row["step"] for row in json_lines.read(path)] == kept
    kept = json_lines.rewrite(path, lambda rows: [row for row in rows if row["step"] > 1])
    assert [row["step"] for row in json_lines.read(path)] == [row["step"] for row in kept] == [2, 9, 3]
    assert listing(there) == ["metrics.jsonl"]


def test_two_that_add_rows_lose_none(there, hurry):
    path = there / "metrics.jsonl"

    def add(name):
        for number in range(5):
            json_lines.append(path, {"name": name, "number": number})

    threads = [threading.Thread(target=add, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = json_lines.read(path)
    assert sorted((row["name"], row["number"]) for row in rows) == [(name, number) for name in "ab" for number in range(5)]


def test_events_beyond_a_step_are_cut_off(there):
    folder = there / "tensorboard" / "train"
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default():
        for step in range(4):
            tf.summary.scalar("x", 1.0, step)
    writer.close()
    events.drop_after(folder, 1)
    (path,) = folder.glob("*tfevents*")
    file = io.BytesIO(path.read_bytes())
    found, end = events._first_step_and_end(path, 10)
    assert (found, end) == (0, len(file.getvalue()))
    assert [event.step for event in tf.compat.v1.train.summary_iterator(str(path)) if event.summary.value] == [0, 1]


def test_curves_are_written_now_and_then_and_before_a_checkpoint(there, monkeypatch):
    saved = []

    class Model:
        steps_taken, player_optimizers, stop_training = 0, {}, False

        def settle(self):
            pass

    class Checkpoints:
        def save(self):
            saved.append([event.step for event in events_of() if event.summary.value])

    def events_of():
        written = (there / "tensorboard" / "train").glob("*tfevents*")
        return [event for path in written for event in tf.compat.v1.train.summary_iterator(str(path))]

    assert workdirs.seconds_between_curves(there) == 30.0 and workdirs.seconds_between_curves(pathlib.Path("run")) == 0.0
    curves = callbacks.Scalars(loggers.Loggers([loggers.TensorBoard(there)]), 1, 8, pause=30.0)
    saver = callbacks.Saver(Checkpoints(), 20, 40, Workers())
    saver.curves = curves
    for callback in (curves, saver):
        callback.set_model(Model())
        callback.on_train_begin()
    for batch in range(30):
        for callback in (curves, saver):
            callback.on_train_batch_end(batch, {"loss": 1.0})
    assert len(saved) == 1 and sorted(set(saved[0])) == list(range(1, 21))
    assert max(event.step for event in events_of()) == 20
    curves.write()
    assert max(event.step for event in events_of()) == 30


def test_the_state_and_the_table_of_an_ablation(there):
    state = {"table": "1"}, Budget(steps=1)
    ablation = Ablation(there, *state)
    ablation.rows["vae"] = {"step": 1, "seconds": 2.0}
    ablation._save()
    assert Ablation(there, *state).rows == {"vae": {"step": 1, "seconds": 2.0}}
    assert write_report(TABLES["1"], ablation.rows, there, []) == there / "table.md"
    assert listing(there) == ["report.json", "state.json", "table.md", "table.png"]


# The lock.


def test_one_holds_a_lock_at_a_time(there, hurry):
    holding, most = 0, 0

    def hold():
        nonlocal holding, most
        for _ in range(4):
            with RemoteLock(there / "lock"):
                holding += 1
                most = max(most, holding)
                time.sleep(0.005)
                holding -= 1

    threads = [threading.Thread(target=hold) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1 and listing(there) == []


def test_a_holder_that_lives_is_not_disturbed(there, hurry):
    said = []
    with RemoteLock(there / "lock", "process 1 on here") as lock:
        with pytest.raises(BlockingIOError) as raised, RemoteLock(there / "lock", wait=False, say=said.append):
            pass
        assert raised.value.strerror == "process 1 on here"
        lock.require()
    with RemoteLock(there / "lock", wait=False):
        pass


def test_a_dead_holder_is_waited_for_and_then_forgotten(there, hurry, monkeypatch):
    monkeypatch.setattr(remote_lock, "PATIENCE", 0.6)
    (there / "lock-0123").write_bytes(b"process 2 on there\n7\n")
    (there / "locksmith").write_bytes(b"")
    said, began = [], time.monotonic()
    with RemoteLock(there / "lock", "process 1", wait=False, say=said.append):
        assert time.monotonic() - began >= 0.6
        assert said == ["process 2 on there: waiting up to 1 s for a sign of life"]
        assert len(listing(there)) == 2 and not (there / "lock-0123").exists()
    assert listing(there) == ["locksmith"]


def test_who_was_taken_for_dead_learns_it(there, hurry):
    with RemoteLock(there / "lock", "process 1") as lock:
        for path in there.glob("lock-*"):
            path.unlink()
        (there / "lock-0123").write_bytes(b"process 2\n1\n")
        with pytest.raises(BlockingIOError, match="process 2"):
            lock.require()


def test_a_second_training_is_refused_and_nothing_is_left(there, hurry):
    from tfcq.config import Config

    with opened(Config(), there) as run:
        run.require_lock()
        (lock,) = listing(there)
        assert f"process {os.getpid()} on " in (there / lock).read_text()
        with pytest.raises(UserError, match=rf"^workdir {there}: another training runs in it \(process \d+ on .* since .*\)"):
            with opened(Config(), there):
                pass
        (there / lock).unlink()
        with pytest.raises(UserError, match="another training runs in it"):
            run.require_lock()
    assert listing(there) == []
    assert not there.exists() and not workdirs.exists(there)


def test_a_worker_sees_whether_the_chief_trains_in_its_folder(there, hurry):
    from tfcq.config import Config

    with opened(Config(), there) as chief, joined(Config(), there) as same, joined(Config(), there / "other") as other:
        mark = chief.mark()
        assert f"process {os.getpid()} on " in mark
        same.check_mark(mark, 0.0)
        with pytest.raises(UserError, match=r"the folder in which the chief trains \(process \d+ on .*, received another"):
            other.check_mark(mark, 0.0)
