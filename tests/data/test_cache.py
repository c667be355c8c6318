"""The cache of decoded images: the same bits, noticed changes, and nothing wrong after kills, damage and full disks."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
from commands import REPOSITORY
from PIL import Image

from tfcq.config import DataConfig
from tfcq.data import cache as cache_module
from tfcq.data import cache_file, decoding_processes, holding, load, survey
from tfcq.data import dataset as dataset_module
from tfcq.data.cache import cached, path_of
from tfcq.data.folder import ImageFiles
from tfcq.data.transforms import Transform
from tfcq.errors import UserError
from tfcq.machine.files import PARTIAL, Lock

AREA = Transform(8, 0, "area", 3)
COUNT = 20


class Counted(ImageFiles):
    """Files that count which are decoded."""

    looked_at = ()

    def portable(self, indices):
        self.looked_at = (*self.looked_at, *(self.paths[index] for index in indices))
        return super().portable(indices)


@pytest.fixture(name="files")
def fixture_files(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(COUNT):
        write(folder / f"{number:02}.png", number)
    return sorted(str(path) for path in folder.iterdir())


@pytest.fixture(name="place")
def fixture_place(tmp_path):
    return str(tmp_path / "cache")


def write(path, seed):
    pixels = np.random.RandomState(seed).randint(0, 256, (10 + seed % 3, 12, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def made(files, place, transform=AREA):
    raw = Counted(files, os.path.dirname(files[0]))
    return cached(raw, transform, place), raw


def check(cache, files, transform=AREA):
    every = np.arange(len(files))
    order = np.random.RandomState(0).permutation(every)
    np.testing.assert_array_equal(cache.take(order), ImageFiles(files).take(order, transform))
    assert list(cache.digests(order)) == list(ImageFiles(files).digests(order))


def interrupt_after(monkeypatch, count):
    """Makes a build end in the middle, as by Ctrl-C, after `count` images."""
    write_row, written = cache_file.CacheFile.write, []

    def write(self, *arguments):
        if len(written) == count:
            raise KeyboardInterrupt
        written.append(1)
        write_row(self, *arguments)

    monkeypatch.setattr(cache_file.CacheFile, "write", write)


@pytest.mark.parametrize("transform", [AREA, Transform(4, 9, "area", 1), Transform(16, 0, "pad", 3, "a.png")], ids=str)
def test_images_are_those_decoded_as_needed_and_are_decoded_once(files, place, transform, capsys):
    first, raw = made(files, place, transform)
    check(first, files, transform)
    assert sorted(raw.looked_at) == files
    height, width, channels = transform.shape
    assert f"decoding 20 images to {height}x{width}x{channels} into {place}, once: 0.00 GiB" in capsys.readouterr().out
    again, raw = made(files, place, transform)
    check(again, files, transform)
    assert not raw.looked_at and not capsys.readouterr().out


def test_processes_decode_the_same_without_tensorflow(files, place, monkeypatch):
    monkeypatch.setattr(decoding_processes, "CHUNK", 3)
    monkeypatch.setattr(decoding_processes, "WORTH_A_PROCESS", 10)
    monkeypatch.setattr(decoding_processes, "num_cpus", lambda: 2)
    started, start = [], decoding_processes._started
    monkeypatch.setattr(decoding_processes, "_started", lambda: started.append(start()) or started[-1])
    broken = pathlib.Path(files[4])
    broken.write_bytes(broken.read_bytes()[:-30])
    with pytest.raises(UserError, match="04.png: expected a whole image file"):
        made(files, place)
    write(broken, 4)
    check(made(files, place)[0], files)
    assert len(started) == 2 and all(process.returncode is not None for process in started)  # the last image needs none
    module = "import tfcq.data.decoding_processes, sys; sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras')))"
    assert not subprocess.run([sys.executable, "-c", module], cwd=pathlib.Path(holding.__file__).parents[2]).returncode
    alone = start()
    alone.stdin.close()  # as when the process that started it is killed
    assert alone.wait(60) is not None


@pytest.mark.parametrize(
    "program, how", [("import os; os.kill(os.getpid(), 9)", "SIGKILL"), ("raise SystemExit(3)", "status 3")]
)
def test_a_killed_process_is_one_line(files, place, monkeypatch, program, how):
    monkeypatch.setattr(decoding_processes, "WORTH_A_PROCESS", 10)
    monkeypatch.setattr(decoding_processes, "num_cpus", lambda: 2)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    monkeypatch.setattr(decoding_processes, "_started", lambda: subprocess.Popen([sys.executable, "-c", program], **pipes))
    with pytest.raises(UserError, match=f"data_cache: a process that decodes images has ended .*{how}.*start again"):
        made(files, place)


def test_the_name_follows_from_all_that_decides_the_pixels(files, place, monkeypatch):
    def name(transform=AREA, paths=files, **parts):
        raw = ImageFiles(paths, os.path.dirname(files[0]))
        with monkeypatch.context() as patch:
            for part, value in parts.items():
                patch.setattr(*{"version": (cache_module, "VERSION"), "reading": (ImageFiles, "reading"),
                                "decoders": (cache_module, "_decoders")}[part], value)
            return path_of(raw, transform, place)

    others = [
        name(), name(Transform(4, 0, "area", 3)), name(Transform(8, 9, "area", 3)), name(Transform(8, 0, "pad", 3)),
        name(Transform(8, 0, "area", 1)), name(Transform(8, 0, "area", 3, "a.png")), name(paths=files[1:]),
        name(version=2), name(reading="feature image"), name(decoders=lambda: ["another"]),
    ]
    for change in (lambda: os.utime(files[5], ns=(1, 1)), lambda: write(files[5], 99), lambda: os.replace(files[5], files[6])):
        change()
        others.append(name(paths=[path for path in files if os.path.exists(path)]))
    assert len(set(others)) == len(others)
    there = [path for path in files if os.path.exists(path)]
    assert name(paths=there[::-1]) == name(paths=there)
    before = name(paths=there)
    elsewhere = shutil.move(os.path.dirname(files[0]), os.path.dirname(place) + "/elsewhere")  # its files are the same
    moved = ImageFiles([path.replace(os.path.dirname(files[0]), elsewhere) for path in there], elsewhere)
    assert path_of(moved, AREA, place) == before


def test_the_order_of_the_files_does_not_matter_and_a_changed_one_is_decoded_alone(files, place):
    made(files, place)
    turned, raw = made(files[::-1], place)
    assert not raw.looked_at
    check(turned, files[::-1])
    write(files[3], 77)
    os.unlink(files[8])
    write(files[0] + ".png", 78)
    now = sorted({*files, files[0] + ".png"} - {files[8]})
    changed, raw = made(now, place)
    check(changed, now)
    assert sorted(raw.looked_at) == sorted([files[0] + ".png", files[3]])


DAMAGE = {
    "cut off in the pixels": lambda content: content[:-200],
    "cut off in the records": lambda content: content[:4500],
    "cut off in the header": lambda content: content[:100],
    "empty": lambda content: b"",
    "another file": lambda content: bytes(len(content)),
    "a record": lambda content: content[:5000] + bytes([content[5000] ^ 1]) + content[5001:],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_one_line_and_is_mended(files, place, damage, capsys):
    made(files, place)
    path, = pathlib.Path(place).iterdir()
    path.write_bytes(damage(path.read_bytes()))
    capsys.readouterr()
    cache, raw = made(files, place)
    check(cache, files)
    said = capsys.readouterr().out
    assert said.startswith(f"data_cache {path}: cannot be used, as ") and said.count("\n") == 2
    assert len(raw.looked_at) == {"cut off in the pixels": 2, "a record": 1}.get(
        next(name for name, one in DAMAGE.items() if one is damage), COUNT)
    assert not made(files, place)[1].looked_at and os.listdir(place) == [path.name]


@pytest.mark.parametrize("damage", ["pixels", "cut off"])
def test_damaged_pixels_are_found_when_they_are_read_decoded_as_needed_and_mended(files, place, damage, capsys):
    made(files, place)
    cache, _ = made(files, place)
    path, = pathlib.Path(place).iterdir()
    with path.open("r+b") as file:
        if damage == "pixels":
            file.seek(-10, os.SEEK_END)
            file.write(b"0123456789")
        else:
            file.truncate(path.stat().st_size - 10)
    capsys.readouterr()
    check(cache, files)
    check(cache, files)
    assert capsys.readouterr().out.count(f"data_cache {path}: is damaged; what is missing is decoded as needed") == 1
    mended, raw = made(files, place)
    assert len(raw.looked_at) == 1
    check(mended, files)


def test_a_build_that_was_stopped_goes_on(files, place, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        interrupt_after(patch, 13)
        with pytest.raises(KeyboardInterrupt):
            made(files, place)
    kept, = os.listdir(place)
    assert kept.endswith(PARTIAL)
    cache, raw = made(files, place)
    assert sorted(raw.looked_at) == files[13:] and "with 13 that are decoded already" in capsys.readouterr().out
    check(cache, files)
    assert os.listdir(place) == [kept.removesuffix(PARTIAL)]


def test_two_builders_at_once_make_one_cache(files, place, monkeypatch):
    arrived, go_on, caches = threading.Event(), threading.Event(), []
    decode_all = cache_module.decode_all

    def waiting(*arguments):
        arrived.set()
        assert go_on.wait(60)
        return decode_all(*arguments)

    monkeypatch.setattr(cache_module, "decode_all", waiting)
    said = []

    def say(text):
        said.append(text.split()[0])
        if text.startswith("waiting for another process"):
            go_on.set()

    monkeypatch.setattr(cache_module, "say", say)
    first = threading.Thread(target=lambda: caches.append(made(files, place)))
    first.start()
    assert arrived.wait(60)
    cache, raw = made(files, place)
    first.join(60)
    assert not raw.looked_at and said == ["decoding", "waiting"] and len(caches) == 1 and len(os.listdir(place)) == 1
    check(cache, files)
    check(caches[0][0], files)


def full(*_):
    raise OSError(28, "No space left on device")


NO_CACHE = {
    "no room": (lambda patch: patch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"total": 10**9, "free": 99})),
                "expected 1.07e+03 MB of free space, found 9.9e-05 MB"),
    "a full disk": (lambda patch: patch.setattr(cache_file.CacheFile, "write", full), "cannot be written: No space left"),
    "read-only": (lambda patch: patch.setattr("tempfile.mkstemp", lambda **_: full()), "cannot be written: No space left"),
    "no locks": (lambda patch: patch.setattr(Lock, "_acquire", lambda self: False), "the file system has no locks"),
}


@pytest.mark.parametrize("patch, message", NO_CACHE.values(), ids=NO_CACHE)
@pytest.mark.parametrize("limit, way", [(0, "decoded as needed"), (2**32, "in memory")])
def test_what_cannot_be_cached_is_decoded_without(files, place, monkeypatch, capsys, patch, message, limit, way):
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", limit)
    monkeypatch.setattr(holding, "WORTH_CACHING", 1)
    config = DataConfig(dataset=f"folder:{os.path.dirname(files[0])}", image_size=8, data_cache=place)
    with monkeypatch.context() as context:
        patch(context)
        dataset = load(config)
    assert way in dataset.description
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("data_cache ")]
    assert len(said) == 1 and message in said[0] and said[0].endswith("; going on without a cache")
    assert os.path.getsize(place) and not [name for name in os.listdir(place) if os.path.getsize(os.path.join(place, name))]
    expected = load(config)
    assert f"cached in {place}" in expected.description
    every = range(dataset.num_images("train"))
    np.testing.assert_array_equal(dataset.images("train", every), expected.images("train", every))
    assert dataset.manifest.fingerprints() == expected.manifest.fingerprints()


def test_a_finished_cache_is_only_read(files, place, monkeypatch):
    made(files, place)
    monkeypatch.setattr(cache_module, "Lock", full)
    monkeypatch.setattr("tempfile.mkstemp", full)
    check(made(files, place)[0], files)


def test_a_file_in_the_way_is_an_error(files):
    with pytest.raises(UserError, match="data_cache: expected a folder, received .*which is a file"):
        load(DataConfig(dataset=f"folder:{os.path.dirname(files[0])}", image_size=8, data_cache=files[0]))


def test_an_address_is_an_error_and_no_folder_of_that_name(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(holding, "WORTH_CACHING", 1)
    with pytest.raises(UserError, match="data_cache: expected a folder of this machine, received the address 'ram://a/cache'"):
        load(DataConfig(dataset=f"folder:{os.path.dirname(files[0])}", image_size=8, data_cache="ram://a/cache"))
    assert os.listdir(tmp_path) == ["files"]


@pytest.mark.parametrize("count, said", [(COUNT, "; going on without a cache"), (COUNT + 1, "")])
def test_a_user_without_a_home_goes_on_without(files, monkeypatch, capsys, count, said):
    monkeypatch.setenv("HOME", "/dev/null")  # as users of services have it
    monkeypatch.setattr(survey, "FOLDER", "~/.cache/tfcq/images")
    monkeypatch.setattr(holding, "WORTH_CACHING", count)
    assert "in memory" in load(DataConfig(dataset=f"folder:{os.path.dirname(files[0])}", image_size=8)).description
    lines = capsys.readouterr().out.splitlines()
    assert [line.endswith(said) for line in lines if line.startswith("data_cache ")] == [True] * bool(said)


@pytest.mark.parametrize("count, way", [(COUNT, "cached in"), (COUNT + 1, "in memory")])
def test_many_images_are_cached_though_they_fit_into_memory(files, place, monkeypatch, count, way):
    monkeypatch.setattr(holding, "WORTH_CACHING", count)
    config = DataConfig(dataset=f"folder:{os.path.dirname(files[0])}", image_size=8, data_cache=place)
    assert way in load(config).description
    assert "in memory" in load(DataConfig(**{**vars(config), "data_cache": "none"})).description


def test_files_are_read_once_and_then_known_by_their_stamps(files, place, monkeypatch):
    monkeypatch.setattr(holding, "WORTH_CACHING", 1)
    config = DataConfig(dataset=f"folder:{os.path.dirname(files[0])}", image_size=8, data_cache=place)
    content, opened = ImageFiles.content, []
    monkeypatch.setattr(ImageFiles, "content", lambda self, index: opened.append(self.paths[index]) or content(self, index))
    first = load(config)
    assert sorted(opened) == files
    opened.clear()
    assert load(config).manifest == first.manifest and not opened
    assert first.manifest == load(DataConfig(dataset=config.dataset, image_size=8, data_cache="none")).manifest


def test_a_relative_folder_becomes_absolute_and_none_stays_none():
    assert DataConfig(data_cache="none").absolute().data_cache == "none"
    assert DataConfig(data_cache="").absolute().data_cache == ""
    assert DataConfig(data_cache="a").absolute().data_cache == str(pathlib.Path("a").absolute())


def test_images_are_read_once_where_those_that_cannot_be_used_are_left_out(files, place, monkeypatch, capsys):
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", 0)
    for path in (files[2], files[7]):
        pathlib.Path(path).write_bytes(pathlib.Path(path).read_bytes()[:-30])
    look, looked_at = ImageFiles.look, []
    monkeypatch.setattr(ImageFiles, "look", lambda self, index: looked_at.append(self.paths[index]) or look(self, index))
    verified, shape = [], ImageFiles.shape
    monkeypatch.setattr(ImageFiles, "shape", lambda self, index: verified.append(index) or shape(self, index))
    config = DataConfig(
        dataset=f"folder:{os.path.dirname(files[0])}", image_size=8, data_cache=place, skip_broken_images=True
    )
    dataset = load(config)
    assert sum(dataset.num_images(split) for split in ("train", "validation", "test")) == COUNT - 2
    assert sorted(looked_at) == files and len(verified) < 3  # the first ones: they say how many channels there are
    assert "left out 2 that cannot be used (2 broken)" in dataset.description and f"cached in {place}" in dataset.description
    assert not [name for name in os.listdir(place) if name.endswith(PARTIAL)]
    looked_at.clear()
    assert load(config).description == dataset.description and not looked_at
    expected = load(DataConfig(**{**vars(config), "data_cache": "none"}))
    every = range(dataset.num_images("train"))
    np.testing.assert_array_equal(dataset.images("train", every), expected.images("train", every))


def test_a_cache_is_found_again_whether_tensorflow_was_imported_before_pillow_or_not():
    assert "tensorflow" in sys.modules
    program = "import json, PIL.Image, tfcq.data.cache as cache; print(json.dumps(cache._decoders()))"
    without = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert json.loads(without.stdout) == cache_module._decoders()
