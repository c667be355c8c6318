"""folder: what is a split and what is not, links, what cannot be read, and what is told of a folder."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from tfcq.config import DataConfig
from tfcq.data import load
from tfcq.data.dataset import FEW
from tfcq.data.folder import SPLIT_NAMES, find_images, folder
from tfcq.errors import UserError


def fill(path, count=4, seed=0):
    path.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = np.random.RandomState(seed + number).randint(0, 256, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(path / f"{number:03}.png")


def load_folder(path, **options):
    return load(DataConfig(dataset=f"folder:{path}", image_size=8, **options))


def counts(path):
    return {split: len(images) for split, images in folder(str(path)).splits.items()}


# Splits.


@pytest.mark.parametrize("name", [spelled for name in SPLIT_NAMES for spelled in (name, name.capitalize(), name.upper())])
def test_names_of_splits_in_any_case(tmp_path, name):
    split = SPLIT_NAMES[name.lower()]
    fill(tmp_path / ("train" if split != "train" else "test"), 5)
    fill(tmp_path / name / "cats", 3)
    assert counts(tmp_path)[split] == 3 and sum(counts(tmp_path).values()) == 8


@pytest.mark.parametrize("names", [("Train", "Test"), ("training", "TESTING"), ("TRAIN", "VAL", "Test"), ("Training", "valid")])
def test_splits_are_never_pooled(tmp_path, names):
    for number, name in enumerate(names):
        fill(tmp_path / name, 4 + number, 100 * number)
    assert counts(tmp_path) == {SPLIT_NAMES[name.lower()]: 4 + number for number, name in enumerate(names)}


@pytest.mark.parametrize("names, expected", [
    (("train", "Train"), "found Train and train, which are all the train split"),
    (("train", "val", "valid"), "found val and valid, which are all the validation split"),
    (("Test",), "found Test but no train folder beside"),
    (("Test", "VAL"), "found VAL and Test but no train folder beside"),
    (("train", "evaluation"), "evaluation/000.png: belongs to no split"),
    (("seg_train", "seg_test"), "seg_test and .*seg_train: look like splits of one data set.*rename them to train, val"),
    (("train2017", "val2017"), "train2017 and .*val2017: look like splits"),
    (("Train_images", "Test_images"), "Test_images and .*Train_images: look like splits"),
    (("trainA", "trainB", "testA", "testB"), "testA and .*trainA: look like splits"),
    (("images/train", "images/val"), "images/train and .*images/val: look like splits.*give folder:.*/images, or link"),
    (("a/b/Train", "a/b/TEST/cats"), "TEST and .*Train: look like splits.*give folder:.*/a/b, or link"),
    (("train/images/train", "train/images/test"), "images/test and .*images/train: look like splits"),
], ids=str)
def test_folders_that_look_like_splits_are_refused(tmp_path, names, expected):
    for number, name in enumerate(names):
        fill(tmp_path / name, 4, 100 * number)
    with pytest.raises(UserError, match=expected) as caught:
        folder(str(tmp_path))
    assert "\n" not in str(caught.value)
    # A run that an earlier version began there goes on: it knows its images.
    assert sum(map(len, folder(str(tmp_path), begun=True).splits.values())) == 4 * len(names)


@pytest.mark.parametrize("names", [
    ("bus", "car", "streets/train"),  # a class
    ("test_tube", "train_station", "valley"),
    ("contest", "trainer", "training_shoe"),
    ("cats/test", "dogs/train"),
], ids=str)
def test_classes_that_only_sound_like_splits_are_classes(tmp_path, names):
    for number, name in enumerate(names):
        fill(tmp_path / name, 4, 100 * number)
    assert counts(tmp_path) == {"train": 4 * len(names)}


def test_folders_without_images_are_no_splits(tmp_path):
    fill(tmp_path / "images", 5)
    for split in ("train", "test"):
        (tmp_path / "labels" / split).mkdir(parents=True)
        (tmp_path / "labels" / split / "1.txt").write_text("0")
    assert counts(tmp_path) == {"train": 5}


# What cannot be read.


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    fill(tmp_path / "cats")
    fill(tmp_path / "dogs" / "large")
    scandir = os.scandir
    for locked in (tmp_path / "dogs" / "large", tmp_path / "dogs", tmp_path):
        def refusing(path, locked=locked):
            if os.fspath(path) == str(locked):
                raise PermissionError(13, "Permission denied", path)
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refusing)
        with pytest.raises(UserError, match=f"^{locked}: expected a folder that can be read, received Permission denied"):
            load_folder(tmp_path)


@pytest.mark.parametrize("name", ["dogs", "dogs.png", "train"])
def test_a_link_that_leads_nowhere_is_an_error(tmp_path, name):
    """As one to a disk that is not there: a class, or an image, would be left out in silence."""
    fill(tmp_path / "set" / "cats")
    fill(tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", tmp_path / "set" / name)
    shutil.rmtree(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=f"set/{name}: expected a link to a file or folder, received a broken one"):
        load_folder(tmp_path / "set")


def test_a_begun_run_goes_on_where_a_folder_of_a_split_has_no_images_or_links_lead_nowhere(tmp_path):
    fill(tmp_path / "set" / "Train", 4)
    (tmp_path / "set" / "Test").mkdir()
    (tmp_path / "set" / "extra").mkdir()
    for link in ("notes.txt", "dogs", "Train/gone.png", "extra/notes.txt", "Train/round.txt"):
        os.symlink(tmp_path / "set" / "Train" / "round.txt", tmp_path / "set" / link)
    found = folder(str(tmp_path / "set"), begun=True)
    assert {split: len(images) for split, images in found.splits.items()} == {"train": 4}
    assert found.notes.endswith("skipped 5 broken links")
    fill(tmp_path / "set" / "Test", 2, 100)
    assert {split: len(images) for split, images in folder(str(tmp_path / "set"), begun=True).splits.items()} == {
        "train": 4, "test": 2,
    }


def test_a_link_to_itself_is_an_error(tmp_path):
    fill(tmp_path / "cats")
    os.symlink(tmp_path / "round", tmp_path / "round")
    with pytest.raises(UserError, match="round: "):
        load_folder(tmp_path)


def test_a_pipe_named_as_an_image_does_not_block(tmp_path):
    fill(tmp_path / "set")
    os.mkfifo(tmp_path / "set" / "a.png")
    os.mkfifo(tmp_path / "pipe")
    os.symlink(tmp_path / "pipe", tmp_path / "set" / "b.png")
    assert "skipped 2 pipes or devices" in load_folder(tmp_path / "set").description


# Links.


@pytest.mark.parametrize("target, link, told", [
    ("set/cats", "set/cats again", "cats again"),
    ("set/cats", "set/a", "a"),  # before the folder itself
    ("set/cats", "set/dogs/cats", "dogs/cats"),
    ("set/cats/small", "set/small", "small"),
    ("set", "set/dogs/up", "dogs/up"),
    ("set/cats/000.png", "set/cats/copy.png", "cats/copy.png"),
    ("set/cats/000.png", "set/dogs/000b.png", "dogs/000b.png"),
], ids=lambda value: value)
def test_what_is_linked_beside_itself_is_taken_once_and_told(tmp_path, target, link, told):
    fill(tmp_path / "set" / "cats", 4)
    fill(tmp_path / "set" / "cats" / "small", 2, 100)
    fill(tmp_path / "set" / "dogs", 3, 200)
    alone = find_images(str(tmp_path / "set")).paths
    os.symlink(tmp_path / target, tmp_path / link)
    found = find_images(str(tmp_path / "set"))
    assert found.paths == alone and len(alone) == 9
    assert found.twice == [str(tmp_path / "set" / told)]
    assert f"found under several names and used once: {tmp_path}/set/{told}" in load_folder(tmp_path / "set").description


def test_two_links_to_one_place_are_taken_once_and_new_ones_are_followed(tmp_path):
    fill(tmp_path / "pool" / "sub", 3)
    (tmp_path / "set").mkdir()
    for link, target in (("b", "pool"), ("a", "pool"), ("c", "pool/sub")):
        os.symlink(tmp_path / target, tmp_path / "set" / link)
    os.symlink(tmp_path / "pool" / "sub" / "000.png", tmp_path / "set" / "one.png")
    found = find_images(str(tmp_path / "set"))
    assert found.paths == [str(tmp_path / "set" / "a" / "sub" / f"{number:03}.png") for number in range(3)]
    assert found.twice == [str(tmp_path / "set" / name) for name in ("b", "c", "one.png")]


def test_a_set_of_links_is_a_set_of_images(tmp_path):
    fill(tmp_path / "pool", 6)
    (tmp_path / "set").mkdir()
    for number in range(4):
        os.symlink(tmp_path / "pool" / f"{number:03}.png", tmp_path / "set" / f"{number}.png")
    found = find_images(str(tmp_path / "set"))
    assert len(found.paths) == 4 and not found.twice


# What is told.


def test_what_is_passed_over_is_told_by_extension(tmp_path):
    fill(tmp_path, 5)
    for number in range(12):
        (tmp_path / f"{number}.AVIF").write_bytes(b"")
    for number in range(3):
        (tmp_path / f"none{number}").write_bytes(b"")
    assert load_folder(tmp_path).description.endswith("; skipped 12 .avif, 3 without an extension")
    for number in range(7):
        (tmp_path / f"a.x{number}").write_bytes(b"")
    assert load_folder(tmp_path).description.endswith(" 1 .x0, 1 .x1, 1 .x2, 1 .x3, 3 others")


def test_a_folder_of_other_files_says_which(tmp_path):
    for number in range(12):
        (tmp_path / f"{number}.heic").write_bytes(b"")
    (tmp_path / "readme").write_text("")
    with pytest.raises(UserError, match=r"found none among 13 files \(12 .heic, 1 without an extension\)"):
        load_folder(tmp_path)


@pytest.mark.parametrize("classes, told", [
    ({"": 5}, None), ({"all": 5}, None),
    ({"cats": 5, "dogs": 5}, "; 2 classes of 5"),
    ({"cats": 5, "dogs": 12, "owls": 1}, "; 3 classes: cats 5, dogs 12, owls 1"),
    ({"": 2, "cats": 5}, "; 2 classes: no folder 2, cats 5"),
    ({f"n{number:02}": 3 + (number == 7) - (number == 9) for number in range(12)}, "; 12 classes of 2 (n09) to 4"),
    ({"train/cats": 5, "train/dogs": 5, "test/cats": 2, "test/dogs": 1},
     "; train 2 classes of 5; test 2 classes: cats 2, dogs 1"),
    ({"train/cats": 5, "train/dogs": 5, "train/owls": 5, "test/cats": 2, "test/owls": 2},
     "; train 3 classes of 5; test 2 classes of 2, none of dogs"),
], ids=str)
def test_the_count_of_each_class_is_told(tmp_path, classes, told):
    for number, (name, count) in enumerate(classes.items()):
        fill(tmp_path / name, count, 100 * number)
    description = load_folder(tmp_path).description
    assert "\n" not in description
    assert description.endswith(told) if told else "classes" not in description


@pytest.mark.parametrize("num_train, num_test, told", [
    (3, 0, "has only 1 train, 1 validation, 1 test images: with fewer than 100"),
    (FEW + 11, FEW - 1, "has only 11 validation, 99 test images: with"),
])
def test_too_few_images_to_mean_anything_are_warned_of(tmp_path, capsys, num_train, num_test, told):
    arrays = {"train": np.random.RandomState(0).randint(0, 256, (num_train, 8, 8)).astype(np.uint8)}
    if num_test:
        arrays["test"] = arrays["train"][:num_test]
    np.savez(tmp_path / "a.npz", **{key: value[..., None] for key, value in arrays.items()})
    load(DataConfig(dataset=f"npz:{tmp_path}/a.npz", image_size=8))
    out = capsys.readouterr().out
    assert out.startswith(f"warning: npz:{tmp_path}/a.npz {told}") and out.count("\n") == 1


def test_enough_images_are_not_warned_of(capsys):
    load(DataConfig(dataset="digits", image_size=8))
    assert not capsys.readouterr().out
