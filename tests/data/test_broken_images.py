"""Images that cannot be used: all named before training, or left out and counted; what is kept of a survey."""

import concurrent.futures
import io
import os
import re
import sys
import threading

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfcq.config import DataConfig
from tfcq.data import dataset as dataset_module
from tfcq.data import load, sources, survey
from tfcq.data.folder import ImageFiles
from tfcq.data.manifest import entries
from tfcq.data.tfds import Records
from tfcq.data.unfit import UnfitImage, UnfitImages
from tfcq.errors import UserError
from tfcq.machine import terminal

HELD, CACHED, AS_NEEDED = 2**32, 1, 0
"""Limits of memory; with the last there is no cache either (`config`)."""


@pytest.fixture(autouse=True, name="cache")
def fixture_cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(survey, "FOLDER", str(folder))
    return folder


def png(seed=0, side=8):
    file = io.BytesIO()
    Image.fromarray(np.random.RandomState(seed).randint(0, 256, (side, side, 3)).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def fill(folder, count, start=0):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        (folder / f"{number:04}.png").write_bytes(png(number))


def cut(folder, count):
    """Cuts the first `count` files short; their names."""
    paths = sorted(folder.iterdir())[:count]
    for path in paths:
        path.write_bytes(path.read_bytes()[:100])
    return {str(path) for path in paths}


def config(folder, **options):
    data_cache = "none" if dataset_module.MEMORY_LIMIT == AS_NEEDED else ""
    return DataConfig(dataset=f"folder:{folder}", image_size=8, data_cache=data_cache, **options)


def total(dataset):
    return sum(dataset.num_images(split) for split in ("train", "validation", "test"))


@pytest.mark.parametrize("limit", [HELD, CACHED, AS_NEEDED])
@pytest.mark.parametrize("num_train, num_test", [(1, 0), (0, 1), (2, 0), (15, 5), (20, 0), (48, 4)])
def test_all_broken_files_of_all_splits_are_named_up_to_twenty(tmp_path, monkeypatch, limit, num_train, num_test):
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", limit)
    fill(tmp_path / "train", 60)
    fill(tmp_path / "test", 10, 100)
    broken = cut(tmp_path / "train", num_train) | cut(tmp_path / "test", num_test)
    with pytest.raises(UserError) as caught:
        load(config(tmp_path))
    message = str(caught.value)
    assert "\n" not in message and "expected a whole image file" in message and "--skip_broken_images" in message
    named = set(re.findall(rf"{tmp_path}/\w+/\d+.png", message))
    assert named <= broken and len(named) == min(20, len(broken))
    if len(broken) > 1:
        assert f"; {len(broken) - 1} more cannot be used: " in message
    assert (f"and {len(broken) - 20} others" in message) == (len(broken) > 20)


@pytest.mark.parametrize("limit", [HELD, CACHED, AS_NEEDED])
def test_the_first_image_may_be_broken_too(tmp_path, monkeypatch, limit):
    """It says the number of channels and whether threads pay, and stands for the others in messages."""
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", limit)
    fill(tmp_path, 40)
    first = ImageFiles(sorted(str(path) for path in tmp_path.iterdir()))
    broken = cut(tmp_path, 39)
    assert first.example == 39 and first.channels == 3
    with pytest.raises(UserError, match="; 38 more cannot be used") as caught:
        load(config(tmp_path))
    assert len(set(re.findall(rf"{tmp_path}/\d+.png", str(caught.value))) & broken) == 20
    cut(tmp_path, 40)
    for skip in (False, True):
        with pytest.raises(UserError, match="; 39 more cannot be used"):
            load(config(tmp_path, skip_broken_images=skip))


@pytest.mark.parametrize("limit", [HELD, CACHED, AS_NEEDED])
def test_misfits_of_the_settings_are_named_together_and_never_left_out(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", limit)
    fill(tmp_path, 30)
    for number in range(3):
        (tmp_path / f"small{number}.png").write_bytes(png(number, 6))
    for skip in (False, True):
        with pytest.raises(UserError, match="expected at least center_crop=8 pixels a side, received 6x6.*; 2 more .*[(]6x6[)]"):
            load(config(tmp_path, center_crop=8, skip_broken_images=skip))


@pytest.mark.parametrize("limit", [HELD, CACHED, AS_NEEDED])
def test_what_cannot_be_used_is_left_out_and_counted(tmp_path, monkeypatch, limit, capsys):
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", limit)
    fill(tmp_path / "train", 40)
    fill(tmp_path / "test", 10, 100)
    whole = load(config(tmp_path))
    every = {image.tobytes() for split in ("train", "validation", "test")
             for image in whole.images(split, range(whole.num_images(split)))}
    broken = cut(tmp_path / "train", 4) | cut(tmp_path / "test", 1)
    Image.new("CMYK", (8, 8)).save(tmp_path / "train" / "cmyk.jpg")
    (tmp_path / "train" / "deep.png").write_bytes(deep())
    dataset = load(config(tmp_path, skip_broken_images=True))
    assert (total(dataset), dataset.num_images("test")) == (45, 9)
    assert "left out 7 that cannot be used (5 broken, 1 mode CMYK, 1 16 bits a channel)" in dataset.description.replace(
        "1 16 bits a channel, 1 mode CMYK", "1 mode CMYK, 1 16 bits a channel")
    told = capsys.readouterr().out
    assert all(path in told for path in (*broken, f"{tmp_path}/train/cmyk.jpg", f"{tmp_path}/train/deep.png"))
    kept = {image.tobytes() for split in ("train", "validation", "test")
            for image in dataset.images(split, range(dataset.num_images(split)))}
    assert len(kept) == 45 and kept < every
    batches = list(dataset.train_batches(8, seed=0).take(9).as_numpy_iterator())
    assert {image.tobytes() for batch in batches for image in batch} <= kept


def deep():
    file = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(file, "PNG")
    return file.getvalue()


def test_nothing_is_said_where_nothing_is_left_out(tmp_path):
    fill(tmp_path, 20)
    assert load(config(tmp_path, skip_broken_images=True)).description == load(config(tmp_path)).description


@pytest.mark.parametrize("limit", [HELD, CACHED, AS_NEEDED])
def test_files_that_the_system_does_not_open_are_never_left_out(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", limit)
    fill(tmp_path, 20)
    path = str(tmp_path / "0007.png")
    open_file = open

    def refusing(file, *arguments, **options):
        if file == path:
            raise PermissionError(13, "Permission denied", file)
        return open_file(file, *arguments, **options)

    monkeypatch.setattr("builtins.open", refusing)
    for skip in (False, True):
        with pytest.raises(UserError, match="0007.png: cannot be opened: Permission denied"):
            load(config(tmp_path, skip_broken_images=skip))


def test_broken_files_among_those_decoded_as_needed_are_found_before_training_in_threads(tmp_path, monkeypatch):
    """A header is not enough: these are whole but for their last bytes."""
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", AS_NEEDED)
    folder = tmp_path / "large"
    folder.mkdir()
    for number in range(70):
        Image.fromarray(np.random.RandomState(number).randint(0, 256, (130, 130, 3)).astype(np.uint8)).save(
            folder / f"{number:02}.jpg")
    for number in (3, 68):
        path = folder / f"{number:02}.jpg"
        path.write_bytes(path.read_bytes()[:-200])
    pools = []
    executor = concurrent.futures.ThreadPoolExecutor
    monkeypatch.setattr(concurrent.futures, "ThreadPoolExecutor", lambda count: pools.append(count) or executor(count))
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    with pytest.raises(UserError, match=r"(03|68).jpg.*1 more cannot be used: .*(03|68).jpg"):
        load(config(folder))
    assert pools == [3]


def test_a_file_that_breaks_in_the_middle_of_a_run_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", AS_NEEDED)
    fill(tmp_path, 20)
    dataset = load(config(tmp_path))
    broken = cut(tmp_path, 20)
    with pytest.raises(tf.errors.OpError):
        list(dataset.train_batches(8, seed=0).take(1))
    error = dataset.take_error()
    assert isinstance(error, UnfitImages) and {image.name for image in error.unfit} <= broken  # the object, not its text
    message = str(error)
    assert "\n" not in message and "; 7 more cannot be used: " in message
    assert set(re.findall(rf"{tmp_path}/\d+.png", message)) <= broken


# What is kept of a survey.


class Counted(ImageFiles):
    """Files that count how often one is looked at."""

    looked_at = 0

    def shape(self, index):
        self.looked_at += 1
        return super().shape(index)


@pytest.fixture(name="files")
def fixture_files(tmp_path, monkeypatch):
    monkeypatch.setattr(survey, "WORTH_KEEPING", 0.0)
    fill(tmp_path / "images", 30)
    (tmp_path / "images" / "other.png").write_bytes(png(3, 6))
    cut(tmp_path / "images", 2)
    return sorted(str(path) for path in (tmp_path / "images").iterdir())


def test_a_survey_is_kept_as_long_as_no_file_changes(files, cache):
    first, again = Counted(files), Counted(files)
    assert first.survey.shapes.tolist() == again.survey.shapes.tolist()
    assert first.looked_at >= 31 and again.looked_at == 0
    assert {index: (str(image), image.name, image.note, image.kind) for index, image in first.survey.unfit.items()} == {
        index: (str(image), image.name, image.note, image.kind) for index, image in again.survey.unfit.items()}
    assert sorted(again.survey.unfit) == [0, 1] and again.survey.shapes[30].tolist() == [6, 6, 3]
    assert len(os.listdir(cache)) == 1


@pytest.mark.parametrize("change", [
    lambda files: os.utime(files[5], ns=(1, 1)),
    lambda files: open(files[5], "ab").write(b"x"),
    lambda files: os.replace(files[5], files[5] + ".png"),
    lambda files: files.pop(5),
    lambda files: files.reverse(),
], ids=["time", "size", "name", "gone", "order"])
def test_another_file_is_another_survey(files, change):
    assert Counted(files).survey
    change(files)
    again = Counted(files)
    assert again.survey and again.looked_at


def test_a_damaged_or_unwritable_cache_is_told_and_done_without(files, cache, capsys, monkeypatch):
    expected = Counted(files).survey.shapes.tolist()
    kept, = cache.iterdir()
    for content in (b"", b"nonsense", kept.read_bytes()[:-30]):
        kept.write_bytes(content)
        assert Counted(files).survey.shapes.tolist() == expected
        assert f"{kept} cannot be read and is rebuilt" in capsys.readouterr().out
    assert Counted(files).looked_at == 0
    monkeypatch.setattr(survey, "FOLDER", str(kept))
    assert Counted(files).survey.shapes.tolist() == expected
    assert f"cache {kept}: cannot be written: Not a directory; the next start will check" in capsys.readouterr().out


def test_an_unwritable_cache_is_told_while_images_are_checked(files, monkeypatch):
    told = threading.Event()
    monkeypatch.setattr(survey, "CHUNK", 1)
    monkeypatch.setattr("builtins.print", lambda text, **_: "cannot be written: Not a directory" in text and told.set())
    monkeypatch.setattr(survey, "FOLDER", files[0])  # a file

    class Waiting(Counted):
        in_time = False

        def shape(self, index):
            if index == len(self) - 1:
                self.in_time = told.wait(2)
            return super().shape(index)

    images = Waiting(files)
    assert images.survey and images.in_time


def test_a_disk_that_fills_up_leaves_no_half_of_a_survey(files, cache, capsys, monkeypatch):
    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(survey.np, "savez_compressed", full)
    assert Counted(files).survey and not os.listdir(cache)
    assert "cannot be written: No space left on device; the next start will check" in capsys.readouterr().out


def test_a_quick_survey_and_one_of_unreachable_files_are_not_kept(files, cache, monkeypatch):
    assert Counted([*files, "/no/such.png"]).survey.unfit[31].kind == ""
    monkeypatch.setattr(survey, "WORTH_KEEPING", 60.0)
    assert Counted(files).survey
    assert not os.listdir(cache)


def test_shapes_are_grouped(files):
    shapes, groups = Counted(files).survey.distinct()
    assert shapes == [(6, 6, 3), (8, 8, 3)]
    assert [group.tolist() for group in groups] == [[30], list(range(2, 30))]


def test_the_line_of_progress_leaves_its_row_to_what_is_told_and_to_the_result(files, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    out = Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(terminal, "_SECONDS", {"terminal": 0.0})
    monkeypatch.setattr(terminal, "_on_terminal", None)
    monkeypatch.setattr(survey, "CHUNK", 10)
    monkeypatch.setattr(sources, "PIECE", 10)
    monkeypatch.setattr(survey, "FOLDER", files[0])  # a file: nothing can be kept
    raw = ImageFiles(files, os.path.dirname(files[0]))
    assert raw.survey
    shown, told, _ = out.getvalue().partition(f"cache {files[0]}: cannot be written")
    assert told and shown.endswith(" \r")  # blanks over what was shown
    assert len(entries(raw, "images")) == 31
    assert "to know them again: 30/31 images" in out.getvalue() and out.getvalue().endswith(" \r")


def test_a_long_look_tells_how_far_it_is(files, capsys, monkeypatch):
    monkeypatch.setattr(terminal, "_SECONDS", {"file": 0.0})
    monkeypatch.setattr(survey, "CHUNK", 10)
    monkeypatch.setattr(sources, "PIECE", 10)
    raw = ImageFiles(files, os.path.dirname(files[0]))
    assert len(raw.survey.shapes) == len(entries(raw, "images")) == 31
    lines = [line.partition(" images")[0] for line in capsys.readouterr().out.splitlines()]
    again = "reading once, to know them again: "
    assert lines == [*(f"checking: {done}/31" for done in (10, 20, 30)), *(f"{again}{done}/31" for done in (10, 20, 30))]


# Images in containers.


def example(*images):
    return tf.train.Example(features=tf.train.Features(feature={
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=images))})).SerializeToString()


def records(contents):
    return Records(contents, "image", 3, "toy train")


BAD_RECORDS = {
    "truncated": (example(png()[:100]), "broken"), "none": (example(), "broken"), "two": (example(png(), png()), "broken"),
    "no example": (b"\xff\xff\xff\xff", "broken"), "16 bits": (example(deep()), "16 bits a channel"),
    "postscript": (example(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 4\n"), "broken"),
}


@pytest.mark.parametrize("record, kind", BAD_RECORDS.values(), ids=BAD_RECORDS)
def test_broken_records_are_named_or_left_out(record, kind):
    images = records([record, example(png(0)), record, example(png(1))])
    for index in (0, 2):
        for look in (images.read, images.shape):
            with pytest.raises(UnfitImage, match=f"toy train, image {index}: expected"):
                look(index)
    rest, out = images.without_broken()
    assert [(image.name, image.kind) for image in out] == [("toy train, image 0", kind), ("toy train, image 2", kind)]
    assert len(rest) == 2 and rest.name(1) == "toy train, image 3" and rest.channels == 3
    np.testing.assert_array_equal(rest.read(1), images.read(3))
    assert not rest.survey.unfit and rest.survey.shapes.tolist() == [[8, 8, 3]] * 2


def test_a_record_that_the_system_does_not_read_is_never_left_out():
    class Failing(list):
        def __getitem__(self, index):
            raise OSError(5, "Input/output error")

    with pytest.raises(UserError, match="toy train, image 0: cannot be read: Input/output error"):
        records(Failing([b""])).without_broken()
